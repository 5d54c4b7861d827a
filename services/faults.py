"""Fault injection: points at which a test kills, stops or fails this process. In production nothing happens there."""

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
"""One in each window between two steps that are not atomic; the name says which step comes next, or was the last."""

ACTIONS = ("kill", "stop", "fail", "hang")
"""In this order: kill -9; SIGSTOP; an error of the store, whatever was committed; a thread that never comes back."""

_reached: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Report that the process is at this point. Does nothing unless `plan` or `install` was called."""
    if _reached is not None:
        _reached(point)


def install(reached: Callable[[str], None] | None) -> None:
    """Call this at each point from now on."""
    global _reached
    _reached = reached


def check_fault(text: str) -> str:
    """Return SLA_FAULT if it is POINT:NUMBER:ACTION. Raises ValueError for anything else."""
    point, number, action = [*text.split(":"), "", "", ""][:3]
    if point not in POINTS or not number.isdecimal() or action not in ACTIONS or text.count(":") != 2:
        raise ValueError(
            f"{text!r} is not a fault; write POINT:NUMBER:ACTION, an action of {', '.join(ACTIONS)} and a point of "
            f"{', '.join(POINTS)}; and never in production"
        )
    return text


def plan(text: str) -> None:
    """Plan SLA_FAULT, like `intake.after_commit:3:kill`: killed when this point is reached for the third time."""
    point, number, action = check_fault(text).split(":")
    left = int(number)

    def count_down(at: str) -> None:
        nonlocal left
        if at == point:
            left -= 1
            if left == 0:
                _inject(action, point)

    install(count_down)


def _inject(action: str, point: str) -> None:
    if action == "fail":
        raise sqlite3.OperationalError(f"injected at {point}")
    if action == "hang":
        threading.Event().wait()
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
