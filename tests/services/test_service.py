"""How a service ends: what it has begun is finished, and what fails meanwhile is not left to the interpreter."""

import asyncio
import fcntl
from pathlib import Path
from typing import ClassVar

import pytest

from projections.tickets import Tickets
from services.runtime.service import SMALL_BATCH, Service
from services.store.sqlite import FileLock
from tests.support.store_log import Log


class Asking(Service):
    """A service that waits for an answer which fails when it comes."""

    name: ClassVar[str] = "asking"

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answered = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        await self.run_to_completion(self._ask())

    async def _ask(self) -> None:
        self.asked.set()
        await self.answered.wait()
        raise TimeoutError("no answer")


def test_a_request_that_fails_while_its_service_stops_leaves_no_traceback() -> None:
    unhandled: list[str] = []

    async def stopped() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
        service = Asking()
        running = asyncio.create_task(service.run())
        await service.asked.wait()
        running.cancel()
        await asyncio.sleep(0)
        service.answered.set()
        await asyncio.wait([running])
        assert running.cancelled()
        await service.stop()

    asyncio.run(stopped())
    assert unhandled == []


def test_a_lock_whose_file_was_deleted_is_the_next_one_s(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "role.lock"), FileLock(tmp_path / "role.lock")
    assert first.acquire() and first.acquire() and not second.acquire()
    (tmp_path / "role.lock").unlink()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()


def test_a_lock_on_a_full_disk_is_not_taken(tmp_path: Path) -> None:
    """It cannot say whose it is; and it is not kept by whoever keeps the error."""
    lock = tmp_path / "role.lock"
    lock.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left|Invalid argument") as kept:
        FileLock(lock).acquire()
    lock.unlink()
    with open("/dev/full", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert kept.value is not None


class Told(FileLock):
    """Counts how often its owner says a word."""

    words = 0

    def acquire(self) -> bool:
        self.words += 1
        return super().acquire()


def test_who_follows_a_view_says_a_word_before_each_batch(tmp_path: Path) -> None:
    """On PostgreSQL, whoever is silent for four seconds owns nothing any more."""
    log, lock, view = Log(tmp_path / "sla.db"), Told(tmp_path / "role.lock"), Tickets()
    log.live_through(range(30))

    async def followed() -> None:
        service = Asking()
        await service.catch_up(log.store, view, lock)
        await service.stop()

    asyncio.run(followed())
    assert log.store.read_checkpoint(view.name) == log.store.read_head() > 2 * SMALL_BATCH
    assert lock.words == log.store.read_head() // SMALL_BATCH + 1
    log.store.close()
