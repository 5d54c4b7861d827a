"""Messages that cannot count: each is put aside with its reason, and the next one is recorded at once."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

import sla.engine
from events.cloudevents import Reason
from events.tickets import TicketEvent, read_ticket_event
from events.times import to_microseconds
from projections.deadlines import DeadlineRow, Deadlines
from projections.registry import PROJECTIONS
from projections.runner import catch_up
from services.bus.connection import Bus, connect
from services.bus.publisher import Outgoing, Published, Publisher
from services.bus.streams import STREAMS, Gap, provision
from services.errors import STORE_ERRORS, BusError, FencedError, SuspicionError
from services.intake import MAX_ATTEMPTS, Blame, Intake, make_gap_gauge
from services.maintenance.quarantine import Retried, list_quarantined, retry
from services.maintenance.verify import Verifier
from services.queries.point_in_time import PointInTime
from services.queries.ticket_status import read_ticket_status
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from services.store.interface import Database, Store
from services.store.schema import ACCEPTED_LOSS
from sla.engine import Limits
from sla.log import Recorded
from sla.ticket import TicketSla
from tests.support.bus import (
    Fact,
    Heard,
    Up,
    ago,
    announced,
    binary,
    connected,
    deployment,
    fact,
    nats_server,
    now,
    open_all_hours,
    opened,
    position,
    process,
    publish,
    responded,
    rows,
    stored,
    subscribed,
    taken,
    until,
    up,
)
from tests.support.stores import Alone, new_store, path_of

pytestmark = [pytest.mark.stores, pytest.mark.anyio, pytest.mark.xdist_group("poison")]

TICKET = "POISON"
SUBJECT = f"tickets.opened.{TICKET}"
ABSENT = object()


def sent(subject: str = SUBJECT, /, kind: str = "opened", **changes: Any) -> Fact:
    """A good fact but for some attributes; `data` replaces all of the data."""
    good = opened(TICKET, ago(minutes=1)) if kind == "opened" else fact(kind, TICKET, ago(minutes=1))
    event = {name: value for name, value in (good.event | changes).items() if value is not ABSENT}
    return Fact(subject, json.dumps(event).encode())


def said(**changes: Any) -> Fact:
    """A good opening but for some members of its data."""
    data = {"service_level": "enterprise", "priority": "critical"} | changes
    return sent(data={name: value for name, value in data.items() if value is not ABSENT})


def raw(body: bytes, **headers: str) -> Fact:
    return Fact(SUBJECT, body, {name.replace("_", "-"): value for name, value in headers.items()})


def header(**changes: str) -> Fact:
    """Binary mode, with other headers; an empty one is left out."""
    good = binary(opened(TICKET, ago(minutes=1)))
    headers = good.headers | {f"ce-{name}": value for name, value in changes.items()}
    return good._replace(headers={name: value for name, value in headers.items() if value})


GOLD = {"service_level": "gold", "priority": "critical"}
URGENT = {"service_level": "enterprise", "priority": "urgent"}


def doubled(name: str, value: str) -> Fact:
    """A JSON object in which a name stands twice."""
    body = sent().body.decode()
    assert f'"{name}": ' in body
    return raw(body.replace(f'"{name}": ', f'"{name}": {json.dumps(value)}, "{name}": ', 1).encode())


BAD: dict[Reason, dict[str, Callable[[], Fact]]] = {
    Reason.TOO_LARGE: {
        "one byte more than 64 KiB": lambda: said(padding="x" * (64 * 1024)),
        "large and garbage": lambda: raw(b"\xff" * (64 * 1024 + 1)),
    },
    Reason.MALFORMED: {
        "an empty body": lambda: raw(b""),
        "no JSON": lambda: raw(b"hello"),
        "half of it": lambda: raw(sent().body[:-9]),
        "not UTF-8": lambda: raw(b'{"specversion": "1.0", "id": "\xff"}'),
        "UTF-16": lambda: raw(sent().body.decode().encode("utf-16")),
        "null": lambda: raw(b"null"),
        "a number": lambda: raw(b"5"),
        "a list": lambda: raw(b"[" + sent().body + b"]"),
        "NaN": lambda: raw(b'{"specversion": "1.0", "id": NaN}'),
        "nested deeply": lambda: raw(b"[" * 60_000),
        "an object that is no event": lambda: raw(b'{"ticket": 7}'),
        "the header of an event and no event": lambda: raw(b'{"a": 1}', Content_Type="application/cloudevents+json"),
        "no specversion": lambda: sent(specversion=ABSENT),
        "another specversion": lambda: sent(specversion="0.3"),
        "specversion as a number": lambda: sent(specversion=1.0),
        "no id": lambda: sent(id=ABSENT),
        "an empty id": lambda: sent(id=""),
        "id as a number": lambda: sent(id=7),
        "U+0000 in the id": lambda: sent(id="a\0b"),
        "half a surrogate pair in the id": lambda: sent(id="\ud800"),
        "no source": lambda: sent(source=ABSENT),
        "an empty source": lambda: sent(source=""),
        "no type": lambda: sent(type=ABSENT),
        "type as a list": lambda: sent(type=["ticket.opened"]),
        "an attribute twice": lambda: doubled("source", "/other"),
        "binary mode without an id": lambda: header(id=""),
        "binary mode of another version": lambda: header(specversion="0.3"),
        "binary mode with a body that is no JSON": lambda: header()._replace(body=b"<xml/>"),
        "no version, and an unknown type": lambda: sent(specversion=ABSENT, type="x"),
    },
    Reason.UNKNOWN_TYPE: {
        "a type that is none of ours": lambda: sent(type="ticket.exploded"),
        "a type in capitals": lambda: sent(type="Ticket.Opened"),
        "a type of what we say": lambda: sent(type="sla.breached"),
        "an unknown type, and bad data": lambda: sent(type="x", data=5, subject=""),
    },
    Reason.INVALID_DATA: {
        "no subject": lambda: sent(subject=ABSENT),
        "an empty subject": lambda: sent(subject=""),
        "subject as a number": lambda: sent(subject=1001),
        "a subject of 129 characters": lambda: sent(f"tickets.opened.{'x' * 129}", subject="x" * 129),
        "a subject with a space at its end": lambda: sent("tickets.opened.POISON%20", subject="POISON "),
        "a subject with a line break": lambda: sent("tickets.opened.A%0AB", subject="A\nB"),
        "a subject with U+0000": lambda: sent("tickets.opened.A%00B", subject="A\0B"),
        "no time": lambda: sent(time=ABSENT),
        "time as a number": lambda: sent(time=1_700_000_000),
        "a time without an offset": lambda: sent(time="2026-01-01T12:00:00"),
        "a date": lambda: sent(time="2026-01-01"),
        "a day that does not exist": lambda: sent(time="2026-02-30T12:00:00Z"),
        "a leap second": lambda: sent(time="2016-12-31T23:59:60Z"),
        "data as a list": lambda: sent(data=[]),
        "data as null": lambda: sent(data=None),
        "no data": lambda: sent(data=ABSENT),
        "data in base64 that is none": lambda: sent(data=ABSENT, data_base64="?"),
        "data in base64 that is no object": lambda: sent(data=ABSENT, data_base64=base64.b64encode(b"[]").decode()),
        "no service level": lambda: said(service_level=ABSENT),
        "no priority": lambda: said(priority=ABSENT),
        "priority as a number": lambda: said(priority=1),
        "a member twice": lambda: doubled("priority", "minor"),
        "a channel of 33 characters": lambda: said(channel="x" * 33),
        "U+0000 in a name": lambda: said(channel="a\0b"),
        "half a surrogate pair in a name": lambda: said(channel="\udfff"),
        "an unknown responder": lambda: sent(kind="responded", data={"by": "robot"}),
        "bad data, and the subject of another ticket": lambda: sent("tickets.opened.T-2", data=[]),
    },
    Reason.WRONG_SUBJECT: {
        "the subject of another ticket": lambda: sent("tickets.opened.T-2"),
        "the same ticket in small letters": lambda: sent("tickets.opened.poison"),
        "a token that is not percent-encoded": lambda: sent("tickets.opened.%ZZ"),
        "a token that is not UTF-8": lambda: sent("tickets.opened.%FF"),
        "another ticket, and an unknown level": lambda: sent("tickets.opened.T-2", data=GOLD),
    },
    Reason.UNKNOWN_SERVICE_LEVEL: {
        "a level of no policy": lambda: said(service_level="gold"),
        "a level in capitals": lambda: said(service_level="Enterprise"),
        "an empty level": lambda: said(service_level=""),
        "a changed level of no policy": lambda: sent(kind="service_level_changed", data={"service_level": "gold"}),
        "neither level nor priority known": lambda: said(service_level="gold", priority="urgent"),
    },
    Reason.UNKNOWN_PRIORITY: {
        "a priority of no policy": lambda: said(priority="urgent"),
        "a priority with a space": lambda: said(priority="critical "),
        "a changed priority of no policy": lambda: sent(kind="priority_changed", data={"priority": "urgent"}),
        "an unknown priority, long ago": lambda: sent(time="1999-01-01T00:00:00Z", data=URGENT),
    },
    Reason.TIME_OUT_OF_RANGE: {
        "before 2000": lambda: sent(time="1999-12-31T23:59:59.999999Z"),
        "before 2000 in UTC": lambda: sent(time="2000-01-01T00:59:59+01:00"),
        "after 2100, which is the future too": lambda: sent(time="2101-01-01T00:00:00Z"),
        "year 0": lambda: sent(time="0000-01-01T00:00:00Z"),
        "the last moment of year 9999": lambda: sent(time="9999-12-31T23:59:59-23:59"),
    },
    Reason.TIME_IN_FUTURE: {
        "six minutes ahead": lambda: sent(time=(now() + timedelta(minutes=6)).isoformat()),
        "next year": lambda: sent(time=(now() + timedelta(days=365)).isoformat()),
    },
}  # fmt: skip

CASES = [
    pytest.param(reason, make, id=f"{reason}: {name}") for reason, made in BAD.items() for name, make in made.items()
]


def test_there_are_many_and_they_cover_what_can_be_sent() -> None:
    assert len(CASES) >= 40
    assert set(Reason) - BAD.keys() == {Reason.ID_CONFLICT, Reason.TOO_MANY_FACTS, Reason.INTERNAL}  # below


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An engine whose operator has raised the limit of the stream, so that the engine's own one is reached."""
    folder = tmp_path_factory.mktemp("poison")
    with up(folder, SLA_POLICY_DIR=open_all_hours(folder / "policy")) as running:
        asyncio.run(raise_limit(running.nats_url))
        yield running


async def raise_limit(url: str) -> None:
    async with connected(url) as nc:
        js = nc.jetstream()
        config = (await js.stream_info("TICKETS")).config
        await js.update_stream(replace(config, max_msg_size=512 * 1024))


@pytest.fixture
async def nc(live: Up) -> AsyncIterator[Client]:
    async with connected(live.nats_url) as connection:
        yield connection


async def put(nc: Client, fact: Fact) -> int:
    """Its sequence in TICKETS."""
    answer = await nc.jetstream().publish(fact.subject, fact.body, headers=dict(fact.headers), stream="TICKETS")
    return answer.seq


async def dead_letter(nc: Client, sequence: int) -> Heard:
    """The dead letter of a message; a failed test if there is none, or more than one."""
    newest: list[Heard] = []

    async def there() -> bool:
        newest[:] = [
            each for each in await stored(nc, "DEAD_LETTERS", "dead_letters.*")
            if each.headers["Sla-Sequence"] == str(sequence)
        ]  # fmt: skip
        return bool(newest)

    await until(f"a dead letter of message {sequence}", there)
    (found,) = newest
    return found


def inbox(live: Up, sequence: int) -> tuple[Any, ...] | None:
    found = rows(live.store, "SELECT outcome, reason, ticket FROM inbox WHERE sequence = ?", sequence)
    return found[0] if found else None


def corrected(bad: Fact) -> Fact:
    """A good message with the id and source of the bad one, if it has any: a bad message claims no id."""
    try:
        event = bad.event
        if event["id"].isprintable() and event["source"]:
            return opened("GOOD", ago(minutes=1), id=event["id"], source=event["source"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return opened("GOOD", ago(minutes=1))


@pytest.mark.parametrize(("reason", "make"), CASES)
async def test_a_bad_message_is_put_aside_as_it_came(
    live: Up, nc: Client, reason: Reason, make: Callable[[], Fact]
) -> None:
    bad = make()
    bad = bad._replace(headers=bad.headers | {"X-Trace": "abc", "x-lower": "Ω"})
    good = corrected(bad)
    sequence = await put(nc, bad)
    after = await put(nc, good)
    await until("the good message after it is stored", lambda: inbox(live, after), within=5)
    assert inbox(live, after) == ("recorded", None, "GOOD")
    assert inbox(live, sequence) == ("dead_letter", str(reason), None)

    letter = await dead_letter(nc, sequence)
    assert letter.subject == f"dead_letters.{reason}"
    assert letter.body == bad.body
    assert bad.headers.items() <= dict(letter.headers).items()
    assert (letter.headers["Sla-Reason"], letter.headers["Sla-Subject"]) == (reason, bad.subject)
    assert letter.headers["Nats-Msg-Id"] == str(sequence)
    assert letter.headers["Sla-Error"].isascii() and len(letter.headers["Sla-Error"]) > 20


async def test_the_same_id_with_other_content_is_put_aside_and_the_first_stays(live: Up, nc: Client) -> None:
    first = opened("CONFLICT", ago(hours=1), id="same")
    good = await put(nc, first)
    conflicts = [
        opened("CONFLICT", ago(hours=1), "minor", id="same"),
        opened("CONFLICT-2", ago(hours=1), id="same"),
        fact("escalated", "CONFLICT", ago(hours=1), id="same"),
        sent("tickets.opened.CONFLICT", **first.event | {"time": ago(hours=1).isoformat()}),
    ]
    for conflict in conflicts:
        letter = await dead_letter(nc, await put(nc, conflict))
        assert letter.subject == "dead_letters.id_conflict" and letter.body == conflict.body
    ahead = opened("CONFLICT", now() + timedelta(hours=1), id="same")
    assert (await dead_letter(nc, await put(nc, ahead))).subject == "dead_letters.time_in_future"  # checked before
    again = await put(nc, first)
    await taken(nc, live.store)
    assert inbox(live, good) == ("recorded", None, "CONFLICT")
    assert inbox(live, again) == ("duplicate", None, "CONFLICT")
    async with subscribed(nc) as sla:
        await announced(nc, live.store)
        applied = await sla.first("CONFLICT", "applied")
        assert applied.data["priority"] == "critical" and sla.of("CONFLICT-2") == []


async def test_headers_the_broker_acts_on_are_kept_under_another_name(nc: Client) -> None:
    bad = raw(b"?")._replace(headers={"Nats-Msg-Id": "mine", "Nats-Expected-Stream": "TICKETS"})
    letter = await dead_letter(nc, await put(nc, bad))
    assert letter.headers["Sla-Original-Nats-Msg-Id"] == "mine"
    assert letter.headers["Nats-Msg-Id"] == letter.headers["Sla-Sequence"]


async def test_a_malformed_tick_is_ignored(live: Up, nc: Client) -> None:
    js = nc.jetstream()
    before = (await js.stream_info("DEAD_LETTERS")).state.last_seq
    ticks = [
        (await js.publish(f"clock.due.{token}", body, headers={"ce-id": "x"})).seq
        for token in ("%ZZ", "%", "%FF", "%00", "*", ">", "x" * 500)
        for body in (b"", b"\xff", b"{}")
    ]
    good = await put(nc, opened("AFTER-TICKS", ago(minutes=1)))
    await taken(nc, live.store)
    assert inbox(live, good) == ("recorded", None, "AFTER-TICKS")
    assert [inbox(live, tick) for tick in ticks] == [None] * len(ticks)
    assert (await js.stream_info("DEAD_LETTERS")).state.last_seq == before


# ---- faults of our own: intake runs inside the test, so that a rule can be broken


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[Client, Store, Database]]:
    """A connection and a store, migrated, and no service yet."""
    async with nats_server(tmp_path / "nats") as server:
        nc = await connect(server.url, "test")
        await provision(nc)
        place = new_store(tmp_path / "sla.db")
        place.migrate(PROJECTIONS)
        store = place.open()
        yield nc, store, place
        await nc.close()
        store.close()


@asynccontextmanager
async def working(nc: Client, store: Store) -> AsyncIterator[Intake]:
    intake = Intake(Bus(nc), store, load_policy(SHIPPED_POLICIES), Limits(), Alone())
    task = asyncio.create_task(intake.run())
    try:
        yield intake
    finally:
        task.cancel()
        await asyncio.wait([task])
        await intake.stop()
        assert task.cancelled(), task.exception()


def outcomes(store: Store) -> list[tuple[Any, ...]]:
    return [(row.ticket, row.outcome, row.reason) for row in store.read_inbox(0, 1000)]


def plant_fault(monkeypatch: pytest.MonkeyPatch, name: str, facts: int) -> None:
    """Judging a ticket of so many facts fails."""
    decide = TicketSla.decide

    def fail(ticket: TicketSla, *arguments: Any) -> list[Recorded]:
        if ticket.id == name and len(ticket.facts) >= facts and not ticket.quarantined:
            raise ZeroDivisionError("a fault in a rule")
        return decide(ticket, *arguments)

    monkeypatch.setattr(TicketSla, "decide", fail)


def list_set_aside(store: Store) -> list[tuple[str, str]]:
    return [(row.ticket, row.error) for row in list_quarantined(store)]


def count_differences(place: Database) -> int:
    """What `sla verify` finds in the tickets."""
    with place.open_snapshot() as kept, Verifier(kept, PROJECTIONS) as check:
        assert list(check.check_tickets()) and check.tickets_seen
        return check.differences


FAULT = "ZeroDivisionError('a fault in a rule')"


async def test_a_ticket_that_cannot_be_judged_is_recorded_and_set_aside_until_it_can(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    facts = [opened(f"T-{n}", ago(hours=3)) for n in range(20)]
    facts[8] = fact("escalated", "T-7", ago(hours=2))
    async with working(nc, store):
        await publish(nc, facts[7])
        await taken(nc, place)
        catch_up(store, Deadlines())
        assert [row.ticket for row in read_deadlines(store)] == ["T-7"]
    plant_fault(monkeypatch, "T-7", 2)
    await publish(nc, *facts[:7], *facts[8:])  # before intake starts: one batch
    async with working(nc, store) as intake:
        await taken(nc, place)
        assert {outcome for _, outcome, _ in outcomes(store)} == {"recorded"} and intake.problem is None
        assert list_set_aside(store) == [("T-7", FAULT)]
        for _ in range(3):  # neither a tick nor a fact tries it again
            await nc.jetstream().publish("clock.due.T-7", b"")
            await publish(nc, fact("escalated", "T-7", ago(hours=1)))
        await taken(nc, place)
        catch_up(store, Deadlines())
        assert "T-7" not in [row.ticket for row in read_deadlines(store)]  # no tick is sent for it
        assert len(list_set_aside(store)) == 1 and count_differences(place) == 0
        found = read_ticket_status(store, "T-7", PointInTime())
        assert found is not None and found.first.get_label(now()) == "quarantined" and found.first.facts == 5

        (row,) = list_quarantined(store)
        assert await retry(nc, store, ["T-7"]) == [Retried("T-7", FAULT)]
        assert list_quarantined(store)[0].since > row.since
        monkeypatch.undo()
        assert await retry(nc, store, ["T-7"]) == [Retried("T-7", None)]
    judged = store.load_ticket("T-7")
    assert judged is not None and judged.state.breached_at is not None and judged.state.escalation_level == 4
    assert list_set_aside(store) == [] and count_differences(place) == 0
    assert (await nc.jetstream().stream_info("DEAD_LETTERS")).state.messages == 0


def read_deadlines(store: Store) -> list[DeadlineRow]:
    with store.read_view() as cursor:
        return Deadlines().read_until(cursor, to_microseconds(now()), 100)


async def test_a_ticket_that_is_released_has_its_deadline_again(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    plant_fault(monkeypatch, "T-1", 1)
    async with working(nc, store):
        await publish(nc, opened("T-1", ago(minutes=1)))
        await taken(nc, place)
        assert list_set_aside(store) == [("T-1", FAULT)]
        monkeypatch.undo()
        assert await retry(nc, store, ["T-1"]) == [Retried("T-1", None)]
    catch_up(store, Deadlines())
    with store.read_view() as cursor:
        assert Deadlines().find_next_after(cursor, 0) is not None


async def test_a_tick_that_cannot_be_judged_sets_its_ticket_aside(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    async with working(nc, store):
        await publish(nc, opened("T-1", ago(hours=1)))
        await taken(nc, place)
        plant_fault(monkeypatch, "T-1", 1)
        await nc.jetstream().publish("clock.due.T-1", b"")
        await publish(nc, responded("T-2", ago(hours=1)))
        await taken(nc, place)
    assert outcomes(store) == [("T-1", "recorded", None), ("T-2", "recorded", None)]
    assert list_set_aside(store) == [("T-1", FAULT)]
    assert (await nc.jetstream().stream_info("DEAD_LETTERS")).state.messages == 0


def fail_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a message with the word `unreadable` fails."""
    read = read_ticket_event

    def fail(body: bytes, *arguments: Any) -> TicketEvent:
        if b"unreadable" in body:
            raise ZeroDivisionError("a fault in a rule")
        return read(body, *arguments)

    monkeypatch.setattr(sla.engine, "read_ticket_event", fail)


async def test_a_message_that_cannot_be_read_by_a_fault_of_the_engine_is_put_aside_alone(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    fail_to_read(monkeypatch)
    facts = [opened(f"T-{n}", ago(hours=1)) for n in range(20)]
    facts[7] = poison = opened("T-7", ago(hours=1), id="unreadable")
    await publish(nc, *facts)
    async with working(nc, store):
        await taken(nc, place)
        assert [ticket for ticket, outcome, _ in outcomes(store) if outcome == "dead_letter"] == [None]
        letter = await dead_letter(nc, 8)
        assert letter.subject == "dead_letters.internal" and letter.body == poison.body
        assert "ZeroDivisionError" in letter.headers["Sla-Error"]
        monkeypatch.undo()
        await publish(nc, poison)
        await taken(nc, place)
    assert outcomes(store)[-1] == ("T-7", "recorded", None) and list_set_aside(store) == []


async def test_after_three_in_a_row_no_message_is_blamed(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    fail_to_read(monkeypatch)
    unreadable = [opened(f"T-{n}", ago(hours=1), id=f"unreadable {n}") for n in range(6)]
    await publish(nc, *unreadable[:2], opened("T-GOOD", ago(hours=1)), *unreadable[2:])
    blame = Blame()
    for _ in range(3):  # the process runs intake again after each
        intake = Intake(Bus(nc), store, load_policy(SHIPPED_POLICIES), Limits(), Alone(), blame=blame)
        with pytest.raises(SuspicionError, match=r"message 7: ZeroDivisionError.*not to blame"):
            async with asyncio.timeout(10):
                await intake.run()
        await intake.stop()
        assert [outcome for _, outcome, _ in outcomes(store)] == 2 * ["dead_letter"] + ["recorded"] + 3 * [
            "dead_letter"
        ]
    monkeypatch.undo()
    async with working(nc, store):
        await taken(nc, place)
    assert outcomes(store)[6:] == [("T-5", "recorded", None)]


@pytest.mark.on_file
async def test_a_damaged_store_blames_no_message(own: tuple[Client, Store, Database]) -> None:
    """Every error that is not of our own reading and judging is an outage, whatever its class."""
    nc, store, place = own
    file = path_of(place)
    async with working(nc, store):
        await publish(nc, *(opened(f"T-{n}", ago(hours=1)) for n in range(200)))
        await taken(nc, place)
    with store.write_log() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as damaged:  # all pages but the first, which has the schema
        damaged.seek(4096)
        damaged.write(b"\xa5" * (file.stat().st_size - 4096))
    await publish(nc, opened("T-0", ago(hours=1), id="another"))
    with closing(place.open()) as opened_again:
        intake = Intake(Bus(nc), opened_again, load_policy(SHIPPED_POLICIES), Limits(), Alone())
        with pytest.raises(STORE_ERRORS, match=r"malformed|not a database"):
            async with asyncio.timeout(10):
                await intake.run()
        await intake.stop()
    assert (await nc.jetstream().stream_info("DEAD_LETTERS")).state.messages == 0


@pytest.mark.parametrize("where", ["at the beginning", "in the middle"])
async def test_acknowledged_messages_that_are_gone_stop_intake_until_that_is_accepted(
    own: tuple[Client, Store, Database], where: str
) -> None:
    nc, store, place = own
    js = nc.jetstream()
    await js.delete_stream("TICKETS")
    (wanted,) = (config for config in STREAMS if config.name == "TICKETS")
    await js.add_stream(replace(wanted, deny_delete=False, deny_purge=False))
    await publish(nc, *(opened(f"T-{n}", ago(hours=1)) for n in range(1, 3)))
    async with working(nc, store):
        await taken(nc, place)
    await publish(nc, *(opened(f"T-{n}", ago(hours=1)) for n in range(3, 13)))
    if where == "at the beginning":
        await js.purge_stream("TICKETS", seq=6)
    else:
        await asyncio.gather(*(js.delete_msg("TICKETS", sequence) for sequence in (7, 9)))
    lost = {"at the beginning": Gap(3, 5, 3), "in the middle": Gap(7, 9, 2)}[where]
    gauge = make_gap_gauge(None)
    for _ in range(2):
        with pytest.raises(BusError, match=f"{lost.messages} messages of .*, from {lost.first} to {lost.last},"):
            async with asyncio.timeout(10):
                await stop_after(
                    Intake(Bus(nc), store, load_policy(SHIPPED_POLICIES), Limits(), Alone(), gap_messages=gauge)
                )
        assert gauge._value.get() == lost.messages and len(outcomes(store)) == 2
    store.save_checkpoints({ACCEPTED_LOSS: lost.last})
    async with working(nc, store):
        await taken(nc, place)
    assert len(outcomes(store)) == 12 - lost.messages
    assert await Bus(nc).find_gap("TICKETS", 12) is None


async def stop_after(intake: Intake) -> None:
    """Runs until it fails."""
    try:
        await intake.run()
    finally:
        await intake.stop()


@pytest.mark.parts
async def test_a_message_that_kills_intake_is_set_aside_and_the_others_count(tmp_path: Path) -> None:
    deadly = (sys.executable, "-m", "tests.support.deadly")
    async with nats_server(tmp_path / "nats") as server, deployment(tmp_path, server) as deployed:  # noqa: SIM117
        async with connected(server.url) as nc:
            await publish(nc, *(opened(f"{name}-{n}", ago(hours=1)) for n in range(3) for name in ("GOOD", "DEADLY")))
            ends = 0
            for _ in range(20):
                settings = deployed.settings | {"SLA_HTTP_PORT": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
                with process(tmp_path, "run", "intake", command=deadly, **settings) as intake:
                    await until(
                        "it has ended, or stored all",
                        lambda: not intake.running() or position(deployed.store, "intake") == 6,
                    )
                    if intake.running():
                        intake.end()
                        break
                    ends += 1
            inbox = rows(deployed.store, "SELECT outcome, reason, ticket FROM inbox ORDER BY sequence")
            assert [row[2] for row in inbox if row[0] == "recorded"] == ["GOOD-0", "GOOD-1", "GOOD-2"]
            assert [row[1] for row in inbox if row[0] == "dead_letter"] == 3 * ["internal"]
            assert ends == 1 + 3 * MAX_ATTEMPTS  # once in a batch, then each alone
            assert rows(deployed.store, "SELECT name FROM positions WHERE name LIKE 'intake %'") == []
            assert "it has ended intake 2 times" in (await dead_letter(nc, 2)).headers["Sla-Error"]


async def test_an_outage_while_a_dead_letter_is_published_blames_no_message(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    publishing, refusals = Publisher.publish, 2

    async def refused(publisher: Publisher, messages: Sequence[Outgoing]) -> list[Published]:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise BusError("the broker refused a message: insufficient storage")
        return await publishing(publisher, messages)

    monkeypatch.setattr(Publisher, "publish", refused)
    bad = opened("T-1", ago(hours=1), "urgent")  # first: a good one before it may be a batch of its own, and is stored
    await publish(nc, bad, opened("T-2", ago(hours=1)))
    for _ in range(2):  # the process runs intake again after each
        intake = Intake(Bus(nc), store, load_policy(SHIPPED_POLICIES), Limits(), Alone())
        with pytest.raises(BusError, match="insufficient storage"):
            async with asyncio.timeout(10):
                await intake.run()
        await intake.stop()
        assert outcomes(store) == []
    async with working(nc, store):
        await taken(nc, place)
    assert outcomes(store) == [(None, "dead_letter", "unknown_priority"), ("T-2", "recorded", None)]


async def test_an_intake_that_wakes_after_another_one_took_its_place_doubles_no_dead_letter(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so long that the broker has forgotten the id of the dead letter that the other one published."""
    nc, store, place = own
    publishing, is_asleep, may_wake = Publisher.publish, asyncio.Event(), asyncio.Event()

    async def sleep_before(publisher: Publisher, messages: Sequence[Outgoing]) -> list[Published]:
        if not is_asleep.is_set():
            is_asleep.set()
            await may_wake.wait()
            for message in messages:
                message.headers["Nats-Msg-Id"] += " that is forgotten"
        return await publishing(publisher, messages)

    monkeypatch.setattr(Publisher, "publish", sleep_before)
    await publish(nc, opened("T-1", ago(hours=1), "urgent"))
    sleeper = Intake(Bus(nc), store, load_policy(SHIPPED_POLICIES), Limits(), Alone())
    asleep = asyncio.create_task(sleeper.run())
    await is_asleep.wait()
    async with working(nc, store):
        await taken(nc, place)
        may_wake.set()
        with pytest.raises(FencedError):
            await asleep
        await sleeper.stop()
    assert (await nc.jetstream().stream_info("DEAD_LETTERS")).state.messages == 1
    assert outcomes(store) == [(None, "dead_letter", "unknown_priority")]


async def test_a_ticket_with_too_many_facts_takes_duplicates_but_no_more_facts(
    own: tuple[Client, Store, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    nc, store, place = own
    monkeypatch.setattr(sla.engine, "MAX_FACTS", 3)
    start = ago(hours=1)
    facts = [opened("FULL", start), *(fact("escalated", "FULL", start, id=str(n)) for n in range(3))]
    other = fact("escalated", "FULL", start, id="0", reason="another text")
    async with working(nc, store):
        await publish(nc, *facts, facts[0], other, opened("NEXT", start, id="2"))
        await taken(nc, place)
    assert outcomes(store) == [
        ("FULL", "recorded", None),
        ("FULL", "recorded", None),
        ("FULL", "recorded", None),
        (None, "dead_letter", "too_many_facts"),
        ("FULL", "duplicate", None),
        (None, "dead_letter", "id_conflict"),
        ("NEXT", "recorded", None),  # the fourth claimed no id
    ]
    assert (await dead_letter(nc, 4)).subject == "dead_letters.too_many_facts"
