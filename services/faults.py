"""Fault points: moments at which a test kills, stops or fails this process. In production nothing happens at them."""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable

POINTS = (
    "intake.taken",
    "intake.after_dead_letters",
    "intake.before_commit",
    "intake.in_commit",
    "intake.after_commit",
    "clock.before_tick",
    "clock.after_tick",
    "announcer.before_publish",
    "publisher.in_batch",
    "announcer.after_publish",
    "view.before_commit",
    "view.after_commit",
)
"""Each window between two things that are not one: what was done by then is said in the name."""

ACTIONS = ("kill", "stop", "fail", "hang")
"""kill -9; SIGSTOP; an error of the store, whatever was committed; a thread that never comes back."""

_reached: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """The process is at this point. Does nothing unless `plan` or `install` was called."""
    if _reached is not None:
        _reached(point)


def install(reached: Callable[[str], None] | None) -> None:
    """Call this at each point from now on."""
    global _reached
    _reached = reached


def check_fault(text: str) -> str:
    """SLA_FAULT: POINT:NUMBER:ACTION. ValueError for anything else."""
    point, number, action = [*text.split(":"), "", "", ""][:3]
    if point not in POINTS or not number.isdecimal() or action not in ACTIONS or text.count(":") != 2:
        raise ValueError(
            f"{text!r} is not a fault; write POINT:NUMBER:ACTION, an action of {', '.join(ACTIONS)} and a point of "
            f"{', '.join(POINTS)}; and never in production"
        )
    return text


def plan(text: str) -> None:
    """Arms SLA_FAULT, like `intake.after_commit:3:kill`: the third time this point is reached, it happens."""
    point, number, action = check_fault(text).split(":")
    left = int(number)

    def reached(at: str) -> None:
        nonlocal left
        if at == point:
            left -= 1
            if left == 0:
                _cause(action, point)

    install(reached)


def _cause(action: str, point: str) -> None:
    if action == "fail":
        raise sqlite3.OperationalError(f"injected at {point}")
    if action == "hang":
        threading.Event().wait()
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
