"""Histories as they were once stored: to be read for ever. `python -m tests.rules.test_golden` adds those missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eventsourcing.persistence import StoredEvent
from msgspec.structs import asdict

from events.promises import make_event_id
from services.store.event_mapper import LogMapper
from sla.judge import Fact
from sla.log import (
    STORED,
    Announced,
    Breached,
    BreachRetracted,
    Decision,
    EscalationRaised,
    Fulfilled,
    Quarantined,
    Recorded,
    Released,
)
from sla.ticket import TicketSla
from tests.scenarios import SCENARIOS
from tests.support.memory import World, get_policy

GOLDEN = Path(__file__).parent / "golden"
HISTORIES = {  # which scenario a history was made of; it has the topic in it
    "fact_recorded/1": "everything at one instant: opened, changed, answered, escalated",
    "state_updated/1": "raised after the answer: only the label changes",
    "applied/1": "fractions of a second are kept",
    "target_changed/1": "an earlier opening that arrives later moves the clock",
    "warning_raised/1": "warnings are computed in support time",
    "breached/1": "a promise that broke more than a day before anybody told us of the ticket is historic",
    "reminder_raised/1": "an answer ends the reminders",
    "breach_retracted/1": "the second breach is withdrawn as the first was",
    "fulfilled/1": "an answer in time that a back-dated raise makes late is revised after the breach",
    "cancelled/1": "a ticket that was excluded after the breach, and is not",
    "escalated/1": "an escalation is told to whom the level says, and moves nothing",
    "quarantined/1": "fractions of a second are kept",
    "released/1": "fractions of a second are kept",
}
TOPICS = [event.TOPIC for event in STORED]
each_topic = pytest.mark.parametrize("topic", TOPICS)


class Row(msgspec.Struct):
    """A row of the log; `state` is the text in the column of that name."""

    ticket: str
    version: int
    topic: str
    state: msgspec.Raw


class Replayed(msgspec.Struct):
    """The last line: what the ticket was when the history was made."""

    replayed: msgspec.Raw


def find_path(topic: str) -> Path:
    return GOLDEN / f"{topic.replace('/', '-')}.jsonl"


def read(topic: str) -> tuple[list[Row], bytes]:
    *rows, last = find_path(topic).read_bytes().splitlines()
    return [msgspec.json.decode(row, type=Row) for row in rows], bytes(
        msgspec.json.decode(last, type=Replayed).replayed
    )


def decode(rows: Sequence[Row]) -> list[Recorded]:
    stored = (StoredEvent(row.ticket, row.version, row.topic, bytes(row.state)) for row in rows)
    return [LogMapper().to_domain_event(event) for event in stored]


def encode_ticket(ticket: TicketSla) -> bytes:
    """All of the ticket, but not the types of its facts' data, which pydantic keeps to itself."""
    told: dict[str, Any] = {
        "id": ticket.id,
        "version": ticket.version,
        "facts": [_describe_fact(fact) for fact in ticket.facts],
        "state": ticket.state,
        "known_at": ticket.known_at,
        "learned_at": ticket.learned_at,
        "breach": ticket.first.breach and ticket.first.breach.id,
        "answer": ticket.first.answer and ticket.first.answer.id,
        "counts": ticket.first.counts,
        "told": sorted(ticket.announced_escalations),
    }
    return msgspec.json.encode(told, order="sorted")


def _describe_fact(fact: Fact) -> dict[str, Any]:
    told = asdict(fact) | {"data": fact.data.model_dump(exclude_defaults=True)}
    return {name: value for name, value in told.items() if not name.endswith("_by") or value is not None}


@each_topic
def test_a_stored_history_still_replays_to_the_ticket_it_was(topic: str) -> None:
    rows, replayed = read(topic)
    events = decode(rows)
    ticket = TicketSla.replay(None, events)
    assert ticket is not None
    assert msgspec.json.decode(encode_ticket(ticket)) == msgspec.json.decode(replayed)
    assert ticket.state == next(row.event.state for row in reversed(events) if isinstance(row.event, Decision))


@each_topic
def test_a_stored_row_is_written_as_it_was_read(topic: str) -> None:
    rows, _ = read(topic)
    for row, event in zip(rows, decode(rows), strict=True):
        stored = LogMapper().to_stored_event(event)
        assert (stored.originator_id, stored.originator_version, stored.topic) == (row.ticket, row.version, row.topic)
        assert stored.state == bytes(row.state)


@each_topic
def test_a_stored_decision_has_the_id_it_would_get_today(topic: str) -> None:
    counts: dict[str, int] = {}
    for ticket, _, event in decode(read(topic)[0]):
        if isinstance(event, Announced):
            counts[event.KIND] = number = counts.get(event.KIND, 0) + 1
            if isinstance(event, Breached | BreachRetracted | EscalationRaised):
                assert event.number == number
            number, revision = (1, number) if isinstance(event, Fulfilled) else (number, 1)
            assert event.id == make_event_id(ticket, "first_response", 1, event.KIND, number, revision)


@each_topic
def test_every_topic_has_a_history_with_it(topic: str) -> None:
    assert topic in {row.topic for row in read(topic)[0]}


def test_no_history_is_of_a_topic_that_can_no_longer_be_read() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {find_path(topic).name for topic in TOPICS}


def write(topic: str) -> None:
    """Never over an existing file: stored events stay as they are, another form is another version of the topic."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == HISTORIES[topic])
    world = World("Ärende 1/é", get_policy(scenario))
    scenario.play(world.put, world.find_next_instant)
    if topic in (Quarantined.TOPIC, Released.TOPIC):
        world.set_aside("ZeroDivisionError('a fault')")
        world.retry()
    lines = []
    for recorded in world.memory.log[world.ticket]:
        stored = LogMapper().to_stored_event(recorded)
        row = Row(recorded.originator_id, stored.originator_version, stored.topic, msgspec.Raw(stored.state))
        lines.append(msgspec.json.encode(row))
    lines.append(msgspec.json.encode(Replayed(msgspec.Raw(encode_ticket(world.ticket_sla)))))
    find_path(topic).write_bytes(b"\n".join(lines) + b"\n")


if __name__ == "__main__":
    for missing in (topic for topic in TOPICS if not find_path(topic).exists()):
        write(missing)
