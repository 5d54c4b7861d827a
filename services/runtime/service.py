"""What the services share: a nudge to wake them, a thread for the store, and the reasons why one is not ready."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import structlog

from projections.runner import BATCH_ROWS, Projection, run_batch
from services.errors import TRANSIENT_ERRORS, NotLeaderError
from services.store.interface import Lock, Store

log = structlog.get_logger()

T = TypeVar("T")

SMALL_BATCH = (
    50  # rows of a batch of a view that is up to date: of 1,000 they kept a fact at 1,000/s waiting up to 0.1 s
)
REST_FACTOR = 2.0  # times as long as it worked

Now = Callable[[], int]


def read_wall_clock() -> int:
    """The time of this machine in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class Service(ABC):
    """
    One job of the engine. `run` works until it is cancelled, and lets what is at fault out as an exception; whoever
    runs it starts it again. `problem` is the reason why it does not work now, None if it does; `turns` counts how often
    it came round, and stands still if it hangs.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.problem: str | None = "starting"
        self.heartbeats = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        self._awake = asyncio.Event()

    @abstractmethod
    async def run(self) -> None:
        """Works until cancelled."""

    async def stop(self) -> None:
        """Called once after `run` was cancelled: gives back what it holds."""
        await asyncio.to_thread(self._thread.shutdown)

    def record_heartbeat(self) -> None:
        """It came round once more, and all is well."""
        self.problem = None
        self.heartbeats += 1

    async def acquire_leadership(self, lock: Lock) -> None:
        """Waits until this process owns the role: a standby works by waiting."""
        while not await self.run_in_thread(lock.acquire):
            self.record_heartbeat()
            await self.sleep(0.5)

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

    async def run_in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Blocking work of this service, one at a time."""
        return await self.run_to_completion(asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments))

    async def catch_up(self, store: Store, view: Projection, lock: Lock | None = None) -> None:
        """
        Until the view is up to date. Between its batches, which are small, it rests twice as long as each took: SQLite
        has one writer, and what is urgent goes first. Far behind it takes large ones. Before each it looks at a lock,
        if it owns one: StoreError if it does no more.
        """

        def batch(size: int) -> int:
            if lock is not None:
                ensure_leader(lock)
            return run_batch(store, view, limit=size)

        clock, done = asyncio.get_running_loop().time, 0
        while True:
            start, size = clock(), SMALL_BATCH if done < BATCH_ROWS else BATCH_ROWS
            taken = await self.run_in_thread(batch, size)
            if taken:
                await asyncio.sleep(REST_FACTOR * (clock() - start))
            if taken < size:
                return
            self.heartbeats += 1
            done += taken

    async def run_to_completion(self, work: Awaitable[T]) -> T:
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


def ensure_leader(lock: Lock) -> None:
    """Raise NotLeaderError unless this process still holds the lock."""
    if not lock.acquire():
        raise NotLeaderError("another process has this role now")


RETRY_BACKOFF = (0.2, 5.0)  # seconds before a failed service starts again: the first time, and at most


class Supervisor:
    """
    Keeps a service at work: after an outage it builds a new one, later each time until it works again. It works again
    when it has come round twice: the first turn only says that it could begin.
    """

    def __init__(self, name: str, build: Callable[[], Service]) -> None:
        self.name, self._build = name, build
        self.service: Service | None = None
        self.built = 0  # how often
        self._outage: str | None = None  # the last one

    @property
    def problem(self) -> str | None:
        """Why the service does not work now."""
        if self._outage and self.heartbeats < 2:
            return self._outage
        return self.service.problem if self.service else "starting"

    @property
    def heartbeats(self) -> int:
        """How often the service came round since it was built."""
        return self.service.heartbeats if self.service else 0

    def wake(self) -> None:
        """There is something to do."""
        if self.service:
            self.service.wake()

    async def run(self) -> None:
        """Until cancelled, or until something fails that waiting does not help."""
        pause = RETRY_BACKOFF[0]
        while True:
            self.service = service = self._build()
            self.built += 1
            try:
                await service.run()
            except TRANSIENT_ERRORS as error:
                pause = RETRY_BACKOFF[0] if self.problem is None else min(pause * 2, RETRY_BACKOFF[1])
                service.problem = self._outage = str(error) or type(error).__name__
                log.warning("waiting", service=self.name, reason=service.problem, seconds=pause)
            finally:
                await service.stop()
            await asyncio.sleep(pause)
