"""Two copies of each service as processes, each with the next fault; what has died or stands still is seen to."""

import asyncio
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from services.store.interface import Database
from tests.support.bus import SLA, Service, Sla, free_port, until
from tests.support.stores import path_of, position

ROOT = str(Path(__file__).parents[2])
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

TAKEN_OVER_WITHIN, REFUSED_WITHIN = 20.0, 5.0  # seconds

FAULTS = {
    "intake": (
        "intake.taken:kill",
        "intake.after_dead_letters:kill",
        "intake.before_commit:kill",
        "intake.in_commit:kill",
        "intake.after_commit:kill",
        "intake.after_commit:fail",
        "intake.before_commit:stop",
    ),
    "clock": ("clock.before_tick:kill", "clock.after_tick:kill", "view.before_commit:kill", "view.after_commit:kill"),
    "announcer": ("announcer.before_publish:kill", "publisher.in_batch:kill", "announcer.after_publish:kill"),
    "metrics": ("view.before_commit:kill", "view.after_commit:fail"),
}
"""Every window of services/faults.py, with what happens there; the number of the visit is drawn."""


class Copy:
    """One of two processes of a role, with what is asked of it."""

    def __init__(self, folder: Path, role: str, planted: str | None, settings: dict[str, str]) -> None:
        self.role, self._folder, self._settings = role, folder, settings
        planter = (sys.executable, "-m", "tests.chaos.planted", str(planted))
        self._command: Sequence[str | Path] = planter if planted else (SLA,)
        self.fault: str | None = None
        self.paused = False
        self.service: Service

    def start(self, fault: str | None, visit: int) -> None:
        self.fault, self.paused = fault, False
        port, settings = free_port(), dict(self._settings)
        if fault is not None:
            point, action = fault.split(":")
            settings["SLA_FAULT"] = f"{point}:{visit}:{action}"
        settings |= {"SLA_HTTP_PORT": str(port), "PYTHONPATH": ROOT}
        sla = Sla(self._folder, "run", self.role, command=self._command, **settings)
        self.service = Service(sla, f"http://127.0.0.1:{port}")

    @property
    def pid(self) -> int:
        return self.service.process.process.pid

    @property
    def stands_still(self) -> bool:
        """Stopped by SIGSTOP (proc(5): state T)."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except FileNotFoundError:
            return False

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Crew:
    """Keeps all copies at work. `seen` counts what was reached, `ended` is what nobody expected."""

    def __init__(self, copies: list[Copy], store: Database, rng: Random, seen: Counter[str]) -> None:
        self.copies, self._store, self._rng, self.seen = copies, store, rng, seen
        self.ended: list[str] = []
        self._queues = {role: deque(rng.sample(faults, len(faults))) for role, faults in FAULTS.items()}
        self._waking: set[asyncio.Task[None]] = set()
        for copy in copies:
            self._start(copy)

    def _start(self, copy: Copy) -> None:
        queue = self._queues[copy.role]
        fault = queue.popleft() if queue else None
        rare = fault is not None and fault.startswith(("publisher", "intake.after_dead"))
        copy.start(fault, 1 if rare else self._rng.randint(1, 8))

    @property
    def armed(self) -> list[str]:
        """The faults that did not happen yet."""
        waiting = [f"{role} {fault}" for role, faults in self._queues.items() for fault in faults]
        return waiting + [f"{copy.role} {copy.fault}" for copy in self.copies if copy.fault]

    def hand_over(self) -> None:
        """A standby that waits for its fault gets the work: whoever has it, and no fault, is killed."""
        waiting = {copy.role for copy in self.copies if copy.fault and not copy.paused}
        for copy in self.copies:
            if copy.role in waiting and not copy.fault and not copy.paused and copy.service.process.running():
                copy.send(signal.SIGKILL)

    def stop_all(self) -> None:
        """Kills everything; a fault that did not happen is for another copy."""
        for copy in self.copies:
            if copy.fault:
                self._queues[copy.role].append(copy.fault)
                copy.fault = None
        self.kill_all()

    async def watch(self) -> None:
        """Until cancelled: starts again what has ended, wakes what stands still."""
        while True:
            for copy in self.copies:
                self._look(copy)
            await asyncio.sleep(0.05)

    def _look(self, copy: Copy) -> None:
        process = copy.service.process
        if not process.running():
            self._ended(copy, process.process.returncode)
            self._start(copy)
        elif copy.stands_still and not copy.paused:
            self.seen[f"{copy.role} stopped at {copy.fault}"] += 1
            copy.paused = True
            self._soon(self._supersede(copy))
        elif copy.fault and copy.fault.endswith(":fail") and "injected at" in process.log:
            self.seen[f"{copy.role} failed at {copy.fault}"] += 1
            copy.fault = None
            self._soon(self._kill(copy))

    def _ended(self, copy: Copy, code: int) -> None:
        if code == -signal.SIGKILL and copy.fault and copy.fault.endswith(":kill"):
            self.seen[f"{copy.role} killed at {copy.fault}"] += 1
        elif code == -signal.SIGKILL:
            self.seen[f"{copy.role} killed anywhere"] += 1
        elif code == -signal.SIGBUS:
            self.seen["killed by the full disk"] += 1
        else:
            self.ended.append(f"{copy.role} ended with {code}: {copy.service.process.log[-800:]}")
        if copy.fault and (code != -signal.SIGKILL or copy.fault.endswith(":stop")):
            self._queues[copy.role].append(copy.fault)

    async def _supersede(self, copy: Copy) -> None:
        """While it stands still its lock is lost; when it goes on, another one has stored messages: it is a standby."""
        process, before = copy.service.process, position(self._store, "intake")
        file = path_of(self._store)
        file.with_name(f"{file.name}.{copy.role}.lock").unlink()
        with suppress(AssertionError):
            await until("another one stores", lambda: position(self._store, "intake") > before, TAKEN_OVER_WITHIN)
        copy.send(signal.SIGCONT)
        with suppress(AssertionError):
            await until("it is refused", lambda: "another intake works on this store" in process.log, REFUSED_WITHIN)
            self.seen["an old intake woke up, and was refused"] += 1
            copy.fault, copy.paused = None, False
            return
        copy.paused = False
        process.kill()  # something else broke just then: once more

    async def _kill(self, copy: Copy) -> None:
        await asyncio.sleep(0.5)
        if copy.service.process.running():
            copy.send(signal.SIGKILL)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def pause(self, copy: Copy, seconds: float) -> None:
        """SIGSTOP, and later SIGCONT."""
        if not copy.service.process.running() or copy.paused:
            return
        copy.paused = True
        copy.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        copy.send(signal.SIGCONT)
        copy.paused = False
        self.seen[f"{copy.role} paused"] += 1

    def kill_all(self) -> None:
        for copy in self.copies:
            if copy.service.process.running():
                copy.service.process.kill()
