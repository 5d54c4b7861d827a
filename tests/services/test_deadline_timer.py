"""The clock on a real bus: the ticks of one instant go as one, each is sent once, and no second clock minds."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from projections.deadlines import Deadlines
from projections.runner import catch_up
from services.bus.connection import Bus
from services.bus.publisher import Outgoing, Published, Publisher
from services.bus.streams import TICKETS
from services.clock import DeadlineTimer, make_skew_gauge
from services.intake import Intake
from services.runtime.service import Service, read_wall_clock
from services.runtime.settings import load_policy
from services.store.interface import Store
from services.store.sqlite import FileLeases, FileLock
from sla.engine import Limits
from tests.support.bus import ago, connected, deployment, nats_server, now, open_all_hours, opened, publish, until

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("clock")]

MANY = 60  # tickets that are due; an atomic batch has at least 25


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def run_service(service: Service) -> AsyncIterator[None]:
    running = asyncio.create_task(service.run())
    try:
        yield
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.wait([running])
        await service.stop()


class Due:
    """MANY tickets that are late and not judged; the bus they came on, and intake."""

    def __init__(self, nc: Client, store: Store, folder: Path) -> None:
        self.nc, self.bus, self.store, self._folder = nc, Bus(nc), store, folder
        self._policy = Path(open_all_hours(folder / "policy"))

    def make_intake(self) -> Intake:
        leases = FileLeases(FileLock(self._folder / "intake.lock"))
        return Intake(self.bus, self.store, load_policy(self._policy), Limits(), leases)

    async def count_ticks(self) -> list[int]:
        """How often each was sent."""
        return list((await self.bus.count_messages(TICKETS, "clock.due.*")).values())

    def count_waiting(self) -> int:
        with self.store.read_view() as cursor:
            return len(Deadlines().read_until(cursor, 2**62, 10 * MANY))


@pytest.fixture
async def due(tmp_path: Path) -> AsyncIterator[Due]:
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server) as deployed,
        connected(server.url) as nc,
    ):
        with closing(deployed.store.open()) as store:
            found = Due(nc, store, tmp_path)
            await publish(nc, *(opened(f"T-{number}", ago(days=30)) for number in range(MANY)))
            async with run_service(found.make_intake()):
                await until("all are stored", lambda: store.read_committed_sequence() == MANY)
            catch_up(store, Deadlines())
            yield found


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many messages each atomic batch had."""
    sizes: list[int] = []
    publish_as_one = Publisher.publish_atomic_batch

    async def counted(self: Publisher, messages: list[Outgoing]) -> Published:
        sizes.append(len(messages))
        return await publish_as_one(self, messages)

    monkeypatch.setattr(Publisher, "publish_atomic_batch", counted)
    yield sizes


async def test_ticks_go_as_one_and_are_not_sent_again_while_they_wait_in_the_stream(
    due: Due, batches: list[int]
) -> None:
    clock = DeadlineTimer(due.bus, due.store)
    async with run_service(clock):
        await until("a tick would be sent again by now", lambda: clock.heartbeats >= 3)
        assert (batches, await due.count_ticks()) == ([MANY], [1] * MANY)
        await due.bus.listen_for_nudges(clock.wake)
        async with run_service(due.make_intake()):
            await until("all are judged", lambda: due.count_waiting() == 0)
    assert await due.count_ticks() == [1] * MANY


async def test_a_second_clock_sends_what_the_first_has_not(due: Due, batches: list[int]) -> None:
    tick = Outgoing("clock.due.T-7", {"Nats-Msg-Id": f"T-7:{read_first_instant(due)}:0"}, b"")
    await due.bus.get_publisher(TICKETS).publish([tick])
    clock = DeadlineTimer(due.bus, due.store)
    async with run_service(clock):
        await until("it has sent them", lambda: clock.heartbeats >= 1)
    assert (batches, await due.count_ticks()) == ([MANY], [1] * MANY), "refused as a whole, then sent one by one"


@pytest.mark.parametrize("seconds", [-20, 20])
async def test_a_tick_is_sent_by_the_broker_s_clock_whichever_way_ours_is_wrong(due: Due, seconds: int) -> None:
    due_at = now() + timedelta(seconds=2)
    await publish(due.nc, opened("SOON", due_at - timedelta(hours=2)))
    async with run_service(due.make_intake()):
        await until("it is stored", lambda: due.store.read_committed_sequence() == MANY + 1)
    gauge = make_skew_gauge(None)
    clock = DeadlineTimer(due.bus, due.store, lambda: read_wall_clock() + seconds * 1_000_000, gauge)
    async with run_service(clock), run_service(due.make_intake()):
        await until("it is judged", lambda: has_breached(due.store, "SOON"), within=60)
    stored_at = (await due.nc.jetstream().get_last_msg(TICKETS, "clock.due.SOON")).time
    assert stored_at is not None
    assert due_at < stored_at < due_at + timedelta(seconds=10)
    assert gauge._value.get() == pytest.approx(-seconds, abs=1)


def has_breached(store: Store, name: str) -> bool:
    ticket = store.load_ticket(name)
    return ticket is not None and ticket.state.breached_at is not None


def read_first_instant(due: Due) -> int:
    with due.store.read_view() as cursor:
        (at,) = (row.at for row in Deadlines().read_until(cursor, 2**62, 10 * MANY) if row.ticket == "T-7")
    return at
