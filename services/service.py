"""What the services share: a nudge to wake them, a thread for the store, and the reasons why one is not ready."""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import nats.errors
import structlog
from eventsourcing.persistence import InterfaceError, InternalError, OperationalError

from projections.follow import NotMigrated
from services.bus import BusError
from services.store import StoreError

log = structlog.get_logger()

T = TypeVar("T")

OUTAGES = (
    *(BusError, nats.errors.Error, OSError),
    *(StoreError, NotMigrated, InterfaceError, InternalError, OperationalError, sqlite3.OperationalError),
)
"""What waiting can help against: the work is done again, and no message is blamed for it."""


class Fatal(Exception):
    """The service cannot go on, and waiting does not help; the text says what to do. The process ends with 1."""


class Service(ABC):
    """
    One job of the engine. `run` works until it is cancelled, and lets what is at fault out as an exception; whoever
    runs it starts it again. `problem` is the reason why it does not work now, None if it does.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.problem: str | None = "starting"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        self._awake = asyncio.Event()

    @abstractmethod
    async def run(self) -> None:
        """Works until cancelled."""

    async def stop(self) -> None:
        """Called once after `run` was cancelled: gives back what it holds."""
        await asyncio.to_thread(self._thread.shutdown)

    def wake(self) -> None:
        """There is something to do."""
        self._awake.set()

    async def sleep(self, seconds: float) -> bool:
        """Until somebody calls `wake`, at most so many seconds. Whether somebody did."""
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            pass
        woken = self._awake.is_set()
        self._awake.clear()
        return woken

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Blocking work of this service, one at a time."""
        return await self.whole(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    async def whole(self, work: Awaitable[T]) -> T:
        """
        Work that is not left half done: if the service is cancelled meanwhile, it is finished first. Requests to the
        broker too: nats-py uses asyncio.wait_for, which in Python 3.11 loses a cancellation that comes with the answer.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                log.warning("stopping", service=self.name, error=str(error) or type(error).__name__)
            raise
