"""Strings that mean something to a subject, a terminal, a log, SQL or a page: here they are names like others."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from events.cloudevents import decode_token
from services.errors import StoreError
from services.store.event_mapper import decode_event
from tests.support.bus import (
    STRUCTURED,
    Fact,
    Up,
    ago,
    connected,
    fact,
    open_all_hours,
    opened,
    publish,
    publish_bytes,
    responded,
    rows,
    settled,
    stored,
    token,
    up,
)

pytestmark = [pytest.mark.stores, pytest.mark.anyio, pytest.mark.xdist_group("hostile")]

TICKETS = (  # each is somebody's ticket
    "a.b.c", ".", "..", "*", ">", "a.>", "$JS.API.STREAM.DELETE.SLA", "$SYS", "_INBOX.x", "clock.due.T-1", "a b",
    "a\\b", "a/b/../c", "%2E", "%", "%%41", "~", "-", "'; DROP TABLE inbox; --", '"', "<script>alert(1)</script>",
    "{{7*7}}", "${jndi:ldap://x}", '{"_type_": "os.system", "_data_": "true"}', "_type_", "é", "e\u0301", "😀" * 32,
    "å" * 128, "." * 128, "NULL", "0", "🇸🇪", "ticket|a,b;c", "#", "?", "日本語",
)  # fmt: skip
REFUSED = (  # nobody could read these, or tell them from others
    "", " ", " a", "a ", "a\tb", "a\nb", "a\r\nHeader: x", "a\x00b", "\x1b[31mred", "a\x7f", "a\x9bb", "\u202egnorw",
    "a\u200bb", "\ufeffa", "a\u2028b", "a\u00a0b", "x" * 129, "😀" * 129, "\ud800",
)  # fmt: skip
TEXTS = (*TICKETS, *REFUSED)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("hostile")
    with up(folder, SLA_POLICY_DIR=open_all_hours(folder / "policy")) as running:
        yield running


@pytest.fixture
async def nc(engine: Up) -> AsyncIterator[Client]:
    async with connected(engine.nats_url) as found:
        yield found


def make_fact(**parts: object) -> Fact:
    """A fact whose strings are any: the subject has the token of another ticket if there is none for this one."""
    event = opened("T", ago(hours=3)).event
    event |= parts
    name = str(event["subject"])
    valid = name.encode("utf-8", "replace").decode()
    subject = f"tickets.opened.{token(valid) or 'none'}"
    return Fact(subject, json.dumps(event).encode(), STRUCTURED)


async def read_dead_letters(nc: Client) -> dict[int, str]:
    """The reason of each dead letter, by the sequence of its original."""
    letters = await stored(nc, "DEAD_LETTERS", "dead_letters.*")
    assert all(value.isprintable() for letter in letters for value in letter.headers.values())
    return {int(letter.headers["Sla-Sequence"]): letter.headers["Sla-Reason"] for letter in letters}


async def read_newest(nc: Client) -> int:
    return (await nc.jetstream().stream_info("TICKETS")).state.last_seq


async def read_published(nc: Client, after: int) -> set[int]:
    """The sequences of what was published; the clock's ticks are between them."""
    return {heard.sequence for heard in await stored(nc, "TICKETS", "tickets.>") if heard.sequence > after}


async def test_a_ticket_of_any_name_breaches_under_its_own_name_alone(engine: Up, nc: Client) -> None:
    await publish(nc, *(make_fact(subject=ticket, id=f"id of {n}") for n, ticket in enumerate(TICKETS)))
    await settled(nc, engine.store)
    assert await read_dead_letters(nc) == {}
    said = await stored(nc)
    for ticket in TICKETS:
        breaches = [heard for heard in said if heard.kind == "breached" and heard.data["ticket_id"] == ticket]
        assert [heard.ticket for heard in breaches] == [ticket]
        parts = breaches[0].subject.split(".")
        assert len(parts) == 5 and decode_token(parts[-1]) == ticket
        assert all(c.isascii() and (c.isalnum() or c in "-_%") for c in parts[-1])
    assert len(said) == len({heard.event["id"] for heard in said})
    store = engine.store.open()
    try:
        assert store.load_tickets(TICKETS).keys() == set(TICKETS)
    finally:
        store.close()


async def test_a_name_that_nobody_can_read_is_put_aside_with_the_reason(engine: Up, nc: Client) -> None:
    before = await read_newest(nc)
    await publish(nc, *(make_fact(subject=ticket) for ticket in REFUSED), opened("after", ago(hours=1)))
    await settled(nc, engine.store)
    reasons = {sequence: reason for sequence, reason in (await read_dead_letters(nc)).items() if sequence > before}
    assert reasons.keys() == set(sorted(await read_published(nc, before))[:-1]) and len(reasons) == len(REFUSED)
    assert set(reasons.values()) == {"invalid_data"}
    assert rows(engine.store, "SELECT count(*) FROM inbox WHERE ticket = 'after'") == [(1,)]


async def test_a_subject_that_is_not_utf_8_is_a_dead_letter(tmp_path: Path) -> None:
    with up(tmp_path) as engine:  # of its own: other tests read TICKETS with nats-py as it is
        async with connected(engine.nats_url) as nc:
            await publish_bytes(engine.nats_url, [(b"tickets.opened.\xff\xfe", b"\xff: \xff\r\n", b"?")])
            await publish(nc, opened("after that", ago(hours=1)))
            await settled(nc, engine.store)
            assert await read_dead_letters(nc) == {1: "malformed"}
            assert rows(engine.store, "SELECT count(*) FROM inbox WHERE ticket = 'after that'") == [(1,)]


MEMBERS = {
    "id": lambda n, text: make_fact(subject=f"I-{n}", id=text),
    "source": lambda n, text: make_fact(subject=f"S-{n}", id=f"s{n}", source=text),
    "sequence": lambda n, text: make_fact(subject=f"Q-{n}", id=f"q{n}", sequence=text),
    "level": lambda n, text: make_fact(
        subject=f"L-{n}", id=f"l{n}", data={"service_level": text, "priority": "critical"}
    ),
    "priority": lambda n, text: make_fact(
        subject=f"P-{n}", id=f"p{n}", data={"service_level": "enterprise", "priority": text}
    ),
    "type": lambda n, text: make_fact(subject=f"T-{n}", id=f"t{n}", type=f"ticket.{text}"),
    "reason": lambda n, text: fact("escalated", f"I-{n}", ago(hours=1), id=f"r{n}", reason=text),
    "by": lambda n, text: responded(f"I-{n}", ago(hours=1), id=f"b{n}", by=text),
}


@pytest.mark.parametrize("member", MEMBERS)
async def test_any_text_anywhere_is_stored_or_put_aside_and_stops_nothing(engine: Up, nc: Client, member: str) -> None:
    before = await read_newest(nc)
    await publish(nc, *(MEMBERS[member](n, text) for n, text in enumerate(TEXTS)), make_fact(subject=f"after {member}"))
    await settled(nc, engine.store)
    outcomes = dict(rows(engine.store, "SELECT sequence, outcome FROM inbox WHERE sequence > ?", before))
    letters = {sequence for sequence in await read_dead_letters(nc) if sequence > before}
    assert outcomes.keys() == await read_published(nc, before) and len(outcomes) == len(TEXTS) + 1
    assert {sequence for sequence, outcome in outcomes.items() if outcome == "dead_letter"} == letters
    assert rows(engine.store, "SELECT outcome FROM inbox WHERE ticket = ?", f"after {member}") == [("recorded",)]
    if member in ("level", "priority", "type", "by"):
        assert len(letters) >= len(TEXTS)  # only what the policy and the schema name


async def test_members_with_names_of_our_libraries_make_nothing(engine: Up, nc: Client) -> None:
    data = {"service_level": "enterprise", "priority": "critical"}
    names = ("_type_", "_data_", "__class__", "__init__", "__dict__", "topic", "originator_id", "TOPIC", "KIND")
    planted = dict.fromkeys(names, "datetime.datetime")
    await publish(
        nc,
        make_fact(subject="plain", id="p1", data=data),
        make_fact(subject="planted", id="p2", data=data | planted, **planted),
    )
    await settled(nc, engine.store)
    store = engine.store.open()
    try:
        plain, other = (store.load_ticket(ticket) for ticket in ("plain", "planted"))
    finally:
        store.close()
    assert plain is not None and other is not None
    assert [fact.data for fact in plain.facts] == [fact.data for fact in other.facts]
    stored_as = rows(engine.store, "SELECT CAST(state AS TEXT) FROM stored_events WHERE originator_id = 'planted'")
    assert stored_as and not any(name in state for (state,) in stored_as for name in ("_type_", "__class__"))


@pytest.mark.parametrize("topic", ["os:system", "builtins:eval", "antigravity:fly", "sla.ticket:TicketSla", "", "\x00"])
def test_a_row_of_a_foreign_topic_imports_nothing_and_says_so(topic: str) -> None:
    with pytest.raises(StoreError, match="which this version does not know"):
        decode_event(topic, b'{"_type_": "antigravity", "_data_": {}}')
    assert "antigravity" not in sys.modules


async def test_every_line_of_the_log_is_one_line_that_a_program_can_read(engine: Up, nc: Client) -> None:
    await publish(nc, *(make_fact(subject=text, id=f"again {n}") for n, text in enumerate(TEXTS)))
    await settled(nc, engine.store)
    lines = engine.process.log.split("\n")[:-1]
    ready = [line for line in lines if line.startswith("ready: ")]  # for people, and the first
    assert len(ready) == 1 and len(lines) > 10
    for line in lines:
        if line in ready:
            continue
        assert line.isprintable() and isinstance(json.loads(line), dict)
