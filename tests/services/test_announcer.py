"""The announcer beside a stream that others write, or that is older or newer than the store: each decision once."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from nats.aio.client import Client

from events.promises import make_event_id
from services.announcer import Announcer, build_announcement
from services.bus.connection import Bus
from services.bus.connection import connect as connect_to
from services.bus.publisher import (
    ID_HEADER,
    Outgoing,
    Publisher,
    chain_sequences,
)
from services.bus.streams import SLA, STREAMS, provision
from services.errors import PublishRefusedError
from services.maintenance.announced import AnnouncementCheck
from services.runtime.settings import Settings
from services.runtime.supervisor import Supervisor
from services.store.interface import Database
from services.store.schema import ANNOUNCER_CHECKPOINT
from services.store.sqlite import FileLock, SqliteFile
from sla.engine import Engine, Message
from sla.log import Announced
from tests.support.bus import Fact, fact, nats_server, opened, publish_bytes, responded, stored, until
from tests.support.store_log import HOUR, START, Log
from tests.support.stores import path_of, position

pytestmark = [pytest.mark.anyio, pytest.mark.stores, pytest.mark.xdist_group("announcer")]

DAY = timedelta(days=1)
Life = Sequence[Fact]  # the facts of a ticket
NESTED = b'{"id": ' + b"[" * 100_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place:
    """A bus, and a store in which decisions wait to be announced."""

    def __init__(self, folder: Path, url: str, nc: Client) -> None:
        self.folder, self.url, self.nc, self.bus = folder, url, nc, Bus(nc)
        self.log = Log(folder / "sla.db")
        self.engine = Engine(self.log.store)
        self.tickets = 0

    def decide(self, count: int) -> list[Life]:
        """Some more tickets are opened, and broken, escalated or answered. Return what it was."""
        ids = [f"T-{self.tickets + number}" for number in range(count)]
        self.tickets += count
        lives: list[Life] = [
            (opened(id, START), fact("escalated", id, START + HOUR), responded(id, START + 3 * HOUR)) for id in ids
        ]
        for life in lives:
            self.live(life)
        return lives

    def live(self, life: Life, partition: int = 0) -> None:
        """What happens to a ticket, decided at instants that are always the same."""
        first, *others = ((each.subject, each.body) for each in life)
        self._take(partition, START + HOUR, first)
        self._take(partition, START + DAY, (f"clock.due.{life[0].event['subject']}", b""))
        self._take(partition, START + 2 * DAY, *others)

    def _take(self, partition: int, at: datetime, *sent: tuple[str, bytes]) -> None:
        before = self.log.sequence
        messages = [Message(before + number, at, subject, {}, body) for number, (subject, body) in enumerate(sent, 1)]
        self.log.sequence = before + len(messages)
        checkpoint = self.log.store.read_partitions()[partition]
        self.log.store.commit(self.engine.process(messages), {partition: checkpoint})

    def go_back(self, older: Database) -> None:
        """The store is replaced by an older one."""
        self.log.store.close()
        self.log.database, self.log.store = older, older.open()
        self.log.store.read_versions()
        self.log.sequence, self.engine = self.log.store.read_committed_sequence(), Engine(self.log.store)

    @asynccontextmanager
    async def announcing(self) -> AsyncIterator[Supervisor]:
        """An announcer at work."""
        lock = FileLock(self.folder / "announcer.lock")
        supervisor = Supervisor("announcer", lambda: Announcer(self.bus, self.log.store, lock))
        running = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.wait([running])
            lock.release()

    async def announce(self) -> None:
        """An announcer comes to the end of the log, and ends."""
        async with self.announcing():
            await until("all is announced", self.is_announced)

    def is_announced(self) -> bool:
        return position(self.log.database, "announcements") == self.log.store.read_head()

    def read_decided(self) -> list[Outgoing]:
        """The announcements of the log, in its order."""
        entries = self.log.store.read_log_entries(0, 1_000_000)
        return [build_announcement(entry) for entry in entries if isinstance(entry.event, Announced)]

    async def read_announced(self) -> list[tuple[str, str]]:
        """Id and subject of each message of SLA that is ours."""
        found = await stored(self.nc)
        return [(heard.event["id"], heard.subject) for heard in found if heard.body.startswith(b'{"specversion"')]

    async def put(self, *messages: Outgoing) -> None:
        """Somebody else publishes on SLA."""
        for subject, headers, body in messages:
            await self.nc.jetstream().publish(subject, body, headers=headers)

    async def replace_stream(self, messages: Sequence[Outgoing] = ()) -> None:
        """SLA is deleted and made again, with these messages in it."""
        (config,) = (config for config in STREAMS if config.name == SLA)
        await self.nc.jetstream().delete_stream(SLA)
        await self.nc.jetstream().add_stream(config)
        await self.put(*messages)

    async def verify(self) -> list[tuple[str, str, str]]:
        """What `sla verify` finds of SLA."""
        with (
            AnnouncementCheck(Settings(nats_url=self.url), self.folder) as check,
            self.log.database.open_snapshot() as snapshot,
        ):
            await check.read_end()
            assert list(check.read_log(snapshot)) is not None
            await check.read_stream()
            return [tuple(each) for each in check.find_differences(snapshot)]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with nats_server(tmp_path / "nats") as server:
        nc = await connect_to(server.url, "test")
        await provision(nc)
        found = Place(tmp_path, server.url, nc)
        try:
            yield found
        finally:
            found.log.store.close()
            await nc.close()


def identify(messages: Sequence[Outgoing]) -> list[tuple[str, str]]:
    return [(json.loads(message.body)["id"], message.subject) for message in messages]


async def intrude(place: Place, id: str) -> int:
    """
    Somebody who knows no client library publishes what may be published on SLA; the last one under the id
    of a decision of ours. Return how many messages it was.
    """
    unique = uuid4().hex.encode()
    foreign: list[tuple[bytes, bytes, bytes]] = [
        (b"sla.hello", b"", b"hello"),
        (b"sla.applied.enterprise.critical.T-1", b"", b"\xff\xfe\x00"),
        (b"sla.\xff", b"\xff: \xff\r\n", b"{"),
        (b"sla.x", b"Nats-Msg-Id: " + unique + b"\r\nSla-Log-Position: nonsense\r\nno colon\r\n: no name\r\n", b"{"),
        (b"sla.y", b"Nats-Msg-Id: \xc3\xa5" + unique + b"\r\nNats-Msg-Id: twice\r\n", NESTED),
        (
            b"sla.z",
            b"Nats-Msg-Id: " + unique + b"/z\r\n",
            b'{"id": "' + unique + b'", "data": {"detected_at": "0001-01-01T00:00:00+14:00"}}',
        ),
        (b"sla.forged", f"Nats-Msg-Id: {id}\r\n".encode(), b"not yours"),
    ]
    before = await place.bus.read_last_sequence(SLA)
    await publish_bytes(place.url, foreign)

    async def is_stored() -> bool:
        return await place.bus.read_last_sequence(SLA) == before + len(foreign)

    await until("all is stored", is_stored)
    return len(foreign)


async def test_strangers_on_the_stream_delay_nothing_and_nothing_comes_twice(place: Place) -> None:
    place.decide(20)
    await place.announce()
    async with place.announcing() as supervisor:
        await until("it has begun", lambda: supervisor.heartbeats > 0)
        for number in range(3):  # a few decisions, which go one by one, and many, which go as a batch
            await intrude(place, make_event_id(f"T-{place.tickets}", "first_response", 1, "applied", 1, 1))
            place.decide((1, 3, 30)[number])
            supervisor.wake()
            await until("all is announced", place.is_announced)
        assert supervisor.built == 1, "it had to begin again"
    assert await place.read_announced() == identify(place.read_decided())


async def test_of_messages_in_a_row_a_beginning_is_stored_though_a_stranger_has_the_place_of_the_first(
    place: Place,
) -> None:
    place.decide(3)
    messages = place.read_decided()[:3]
    await place.put(Outgoing("sla.hello", {}, b"hello"))
    with pytest.raises(PublishRefusedError, match="wrong last"):
        await Publisher(place.nc, SLA).publish(chain_sequences(messages, 0))
    assert await place.read_announced() == []


@pytest.mark.on_file
async def test_a_store_that_is_older_than_the_stream_repeats_nothing(place: Place, tmp_path: Path) -> None:
    """As after a restore, or a failover: the decisions come again, with the same ids."""
    place.decide(10)
    await place.announce()
    older = SqliteFile(tmp_path / "older.db")
    with (
        closing(sqlite3.connect(path_of(place.log.database))) as source,
        closing(sqlite3.connect(older.path)) as target,
    ):
        source.backup(target)
    lives = place.decide(30)
    await place.announce()
    said = await place.read_announced()
    await place.put(Outgoing("sla.hello", {}, b"hello"))

    place.go_back(older)
    place.log.store.repartition(2, {0: place.log.sequence})
    async with place.announcing():
        for life in reversed(lives[3:]):  # two intakes make another order of the log, and one is far behind
            place.live(life)
        await until("all is announced", place.is_announced)
    await place.announce()
    for life in lives[:3]:
        place.live(life, partition=1)
    place.decide(2)
    await place.announce()
    assert (await place.read_announced())[: len(said)] == said
    assert sorted(await place.read_announced()) == sorted(identify(place.read_decided()))
    assert [what for what, *_ in await place.verify()] == [f"message {len(said) + 1} of SLA"]


async def test_a_stream_that_is_older_than_the_store_gets_what_it_lacks(place: Place) -> None:
    place.decide(20)
    await place.announce()
    messages = place.read_decided()
    await place.replace_stream([*messages[:5], Outgoing("sla.hello", {}, b"hello"), *messages[7:9]])
    place.decide(1)
    await place.announce()
    said = await place.read_announced()
    assert said[:7] == identify([*messages[:5], *messages[7:9]])
    assert sorted(said) == sorted(identify(place.read_decided()))


async def test_of_a_stream_that_has_discarded_its_oldest_messages_only_what_came_later_is_filled_in(
    place: Place,
) -> None:
    place.decide(20)
    await place.announce()
    messages = place.read_decided()
    await place.replace_stream(messages[:-4])
    js = place.nc.jetstream()
    config = (await js.stream_info(SLA)).config
    await js.update_stream(config.evolve(max_msgs=len(messages) // 2))
    await place.announce()
    assert len(await place.read_announced()) == len(messages) // 2


async def test_a_stream_that_was_made_anew_begins_with_what_follows(place: Place) -> None:
    place.decide(5)
    await place.announce()
    await place.replace_stream()
    await place.announce()
    before = len(place.read_decided())
    place.decide(2)
    await place.announce()
    assert await place.read_announced() == identify(place.read_decided()[before:])
    assert await place.verify() == []


async def test_the_checkpoint_of_a_leader_that_was_paused_for_long_is_put_right(place: Place) -> None:
    """It was read before another one led, and is written when that one has announced all: seed 446 of `make sim`."""
    place.decide(3)
    async with place.announcing():
        await until("all is announced", place.is_announced)
        place.log.store.save_checkpoints({ANNOUNCER_CHECKPOINT: 0})
        await until("the checkpoint is at the end of the log again", place.is_announced)
    assert len(await stored(place.nc)) == len({each.event["id"] for each in await stored(place.nc)})


async def test_verify_finds_what_is_missing_doubled_foreign_and_out_of_order(place: Place) -> None:
    place.decide(3)
    await place.announce()
    assert await place.verify() == []
    one, two, three, *others = place.read_decided()
    again = Outgoing(two.subject, two.headers | {ID_HEADER: f"{two.headers[ID_HEADER]}/again"}, two.body)
    await place.replace_stream([one, three, two, *others[1:], again])
    strangers = await intrude(place, others[0].headers[ID_HEADER])
    (missing, doubled, *foreign, disordered) = await place.verify()
    lost = json.loads(others[0].body)
    assert missing == (
        f"{lost['subject']}, {lost['type'].removeprefix('sla.')} {lost['id']}",
        "a message of SLA",
        "nothing",
    )
    end = len(others) + 3
    assert doubled[1:] == ("one message of SLA", f"messages 3, {end}")
    assert [what for what, *_ in foreign] == [f"message {end + number} of SLA" for number in range(1, strangers + 1)]
    assert disordered[1].startswith("before T-0, escalated") and disordered[2] == "message 3 of SLA, after it"


async def test_what_a_limit_has_discarded_is_not_missed(place: Place) -> None:
    place.decide(5)
    js = place.nc.jetstream()
    config = (await js.stream_info(SLA)).config
    await js.update_stream(config.evolve(max_msgs=4))
    await place.announce()
    assert len(await place.read_announced()) == 4
    assert await place.verify() == []
