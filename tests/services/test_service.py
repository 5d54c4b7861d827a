"""How a service ends: what it has begun is finished, and what fails meanwhile is not left to the interpreter."""

import asyncio
import fcntl
from pathlib import Path
from typing import ClassVar

import pytest

from projections.promises import Promises
from services.runtime.service import SMALL_BATCH, Service
from services.store.sqlite import FileLock
from tests.support.store_log import Log


class FailingRequest(Service):
    """A service that waits for an answer which fails when it comes."""

    name: ClassVar[str] = "asking"

    def __init__(self) -> None:
        super().__init__()
        self.requested, self.answered = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        await self.run_to_completion(self._request())

    async def _request(self) -> None:
        self.requested.set()
        await self.answered.wait()
        raise TimeoutError("no answer")


def test_a_request_that_fails_while_its_service_stops_leaves_no_traceback() -> None:
    unhandled: list[str] = []

    async def stop_while_asking() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
        service = FailingRequest()
        running = asyncio.create_task(service.run())
        await service.requested.wait()
        running.cancel()
        await asyncio.sleep(0)
        service.answered.set()
        await asyncio.wait([running])
        assert running.cancelled()
        await service.stop()

    asyncio.run(stop_while_asking())
    assert unhandled == []


def test_a_search_that_finds_nothing_in_a_thread_is_an_error_and_no_hang() -> None:
    async def search() -> None:
        service = FailingRequest()
        try:
            async with asyncio.timeout(5):
                await service.run_in_thread(next, iter(()))
        finally:
            await service.stop()

    with pytest.raises(RuntimeError, match="found nothing"):
        asyncio.run(search())


def test_a_lock_whose_file_was_deleted_is_no_longer_held(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "role.lock"), FileLock(tmp_path / "role.lock")
    assert first.acquire() and first.acquire() and not second.acquire()
    (tmp_path / "role.lock").unlink()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()


def test_a_lock_on_a_full_disk_is_not_acquired(tmp_path: Path) -> None:
    """It cannot be written whose it is; and the traceback of the error does not keep it alive."""
    lock = tmp_path / "role.lock"
    lock.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left|Invalid argument") as kept:
        FileLock(lock).acquire()
    lock.unlink()
    with open("/dev/full", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert kept.value is not None


class CountingLock(FileLock):
    """Counts how often its holder acquires it, which on PostgreSQL keeps the session alive."""

    acquired = 0

    def acquire(self) -> bool:
        self.acquired += 1
        return super().acquire()


def test_a_leader_renews_its_lock_before_each_batch_of_a_projection(tmp_path: Path) -> None:
    """On PostgreSQL, a session that is silent for four seconds is ended, and its locks with it."""
    log, lock, view = Log(tmp_path / "sla.db"), CountingLock(tmp_path / "role.lock"), Promises()
    log.live_through(range(30))

    async def follow() -> None:
        service = FailingRequest()
        await service.catch_up(log.store, view, lock)
        await service.stop()

    asyncio.run(follow())
    assert log.store.read_checkpoint(view.name) == log.store.read_head() > 2 * SMALL_BATCH
    assert lock.acquired == log.store.read_head() // SMALL_BATCH + 1
    log.store.close()
