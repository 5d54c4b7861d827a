"""The base of every process: what it declares, its heartbeats, its leadership, and its thread for the store."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any, ClassVar, TypeVar

import structlog

from projections.runner import BATCH_ROWS, Projection, run_batch
from services.errors import NotLeaderError
from services.runtime.settings import Settings
from services.runtime.setup import Backends, Setup
from services.store.interface import Lock, Store

log = structlog.get_logger()

T = TypeVar("T")

POLL_INTERVAL = 2.0  # seconds: the longest sleep of a service, should a nudge be lost
LOCK_INTERVAL = 0.5  # seconds between two tries of a standby to become the leader
SMALL_BATCH = 50  # rows for an up-to-date projection: batches of 1,000 kept a fact at 1,000/s waiting up to 0.1 s
REST_FACTOR = 2.0  # a projection rests this many times as long as its batch took

Now = Callable[[], int]


def read_wall_clock() -> int:
    """Return the time of this machine in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class Replication(Enum):
    """How several copies of a process share its work."""

    LEADER = "one works, the others wait for its lock"
    PARTITION_LEASES = "each works on the partitions of TICKETS that it holds leases of"
    INDEPENDENT = "all work, and none minds the others"


class Service(ABC):
    """
    One job of the engine, and what it declares about itself: wiring, health checks, `sla run`, the roles of PostgreSQL
    and the docs are made from the class variables, or compared with them (tests/services/test_processes.py).

    `run` works until it is cancelled, and lets errors out: its supervisor builds a new one. `problem` is the reason why
    it does not work now, None if it does; `heartbeats` counts its rounds, and stands still if it hangs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    """One sentence for docs/operations.md."""
    streams: ClassVar[tuple[str, ...]] = ()
    """The streams without which it cannot work."""
    projections: ClassVar[tuple[type[Projection], ...]] = ()
    """The projections that it keeps up to date."""
    checkpoint: ClassVar[str | None] = None
    """The name of its own checkpoint in the log, beside those of its projections."""
    replication: ClassVar[Replication] = Replication.INDEPENDENT
    needs_store: ClassVar[bool] = True
    only_reads: ClassVar[bool] = False
    """It works with a role of PostgreSQL that may only read; then others keep its projections up to date."""

    def __init__(self) -> None:
        self.problem: str | None = "starting"
        self.heartbeats = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        self._awake = asyncio.Event()

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], "Service"]:
        """
        Return what builds the service, again after each error. Called once, before anything answers: raises what is
        wrong with the settings, and makes what outlives a restart of the service.
        """
        raise NotImplementedError(f"{cls.__name__} does not say how it is built")

    @classmethod
    def is_wanted(cls, settings: Settings) -> bool:
        """Return whether `sla up`, which runs all processes, runs this one too."""
        return True

    @abstractmethod
    async def run(self) -> None:
        """Work until cancelled."""

    async def stop(self) -> None:
        """Give back what it holds. Called once, after `run` was cancelled or has failed."""
        await asyncio.to_thread(self._thread.shutdown)

    def record_heartbeat(self) -> None:
        """Record that the service came round once more, and that it works."""
        self.problem = None
        self.heartbeats += 1

    async def acquire_leadership(self, lock: Lock) -> None:
        """Wait until this process holds the lock; a standby works by waiting."""
        while not await self.run_in_thread(lock.acquire):
            self.record_heartbeat()
            await self.sleep(LOCK_INTERVAL)

    def wake(self) -> None:
        """Wake the service: there is something to do."""
        self._awake.set()

    async def sleep(self, seconds: float) -> bool:
        """Sleep until somebody calls `wake`, at most so many seconds. Return whether somebody did."""
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            pass
        woken = self._awake.is_set()
        self._awake.clear()
        return woken

    async def run_in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking work in the one thread of this service, to completion."""
        return await self.run_to_completion(self.start_in_thread(work, *arguments))

    def start_in_thread(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """
        Start blocking work in the one thread of this service. A StopIteration comes out as RuntimeError: on a future it
        would never come out (docs/upstream-behaviour.md#x1).
        """
        return asyncio.get_running_loop().run_in_executor(self._thread, call_without_stop, work, *arguments)

    async def catch_up(self, store: Store, projection: Projection, lock: Lock | None = None) -> None:
        """
        Run batches until the projection is up to date. Between its batches, which are small, it rests REST_FACTOR times
        as long as each took: SQLite has one writer, and what is urgent goes first. Far behind, batches are large. With
        a lock, raises NotLeaderError before a batch if this process does not hold it any more.
        """

        def run_one(size: int) -> int:
            if lock is not None:
                ensure_leader(lock)
            return run_batch(store, projection, limit=size)

        clock, done = asyncio.get_running_loop().time, 0
        while True:
            start, size = clock(), SMALL_BATCH if done < BATCH_ROWS else BATCH_ROWS
            rows = await self.run_in_thread(run_one, size)
            if rows:
                await asyncio.sleep(REST_FACTOR * (clock() - start))
            if rows < size:
                return
            self.heartbeats += 1
            done += rows

    async def run_to_completion(self, work: Awaitable[T]) -> T:
        """
        Run work that must not be left half done: if the service is cancelled meanwhile, it is finished first. Use it
        for requests to the broker too: nats-py uses asyncio.wait_for, which in Python 3.11 loses a cancellation that
        comes with the answer.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                log.warning("failed while stopping", service=self.name, error=str(error) or type(error).__name__)
            raise


def call_without_stop(work: Callable[..., T], *arguments: Any) -> T:
    """Call the work. Raises RuntimeError instead of StopIteration."""
    try:
        return work(*arguments)
    except StopIteration as stop:
        raise RuntimeError("StopIteration in work for a thread: a search found nothing") from stop


def ensure_leader(lock: Lock) -> None:
    """Raise NotLeaderError unless this process still holds the lock."""
    if not lock.acquire():
        raise NotLeaderError("another process has this role now")
