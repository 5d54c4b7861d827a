"""An event loop without time: when nothing is ready, it is the next instant at once. The work of threads runs in it."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class DeadlockError(Exception):
    """Nobody is ready, and nobody ever will be."""


class Crashed(BaseException):
    """kill -9: nothing catches it, and nothing that a dead process begins is done."""


class _Instant(selectors.DefaultSelector):
    """Does not wait: it tells the loop how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: Callable[[float], None] = lambda _: None

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("every task waits for another one")
        self.passed(timeout)
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """
    `time()` is simulated seconds from 0. `pause` says how long a piece of work for a thread takes; `held_up` for how
    many seconds more it may not be done, None if it never is: the process it belongs to is paused, or dead.
    """

    def __init__(self, pause: Callable[[], float], held_up: Callable[[], float | None]) -> None:
        self._seconds = 0.0
        instant = _Instant()
        super().__init__(instant)
        instant.passed = self._pass
        self._pause, self._held_up = pause, held_up

    def _pass(self, seconds: float) -> None:
        self._seconds += seconds

    def time(self) -> float:
        return self._seconds

    def run_in_executor(self, executor: Any, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """The work is done in one piece, a little later; in the context of the caller."""
        done = self.create_future()

        def do() -> None:
            if wait := self._held_up():
                self.call_later(wait, do)
                return
            if done.cancelled():
                return
            if wait is None:
                done.set_exception(Crashed())
                return
            try:
                result = work(*arguments)
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it, as from a thread
                done.set_exception(error)
            else:
                done.set_result(result)

        self.call_later(self._pause(), do)
        return done
