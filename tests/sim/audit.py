"""What must be so after a run, however it went: each check gives the problems it finds, by kind."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from events.times import from_microseconds
from projections.registry import PROJECTIONS
from projections.runner import BATCH_ROWS, create_projection, run_batch
from services.bus.publisher import ID_HEADER
from services.bus.streams import DEAD_LETTERS, TICKETS
from services.intake import MAX_ATTEMPTS
from sla.engine import Engine, Message
from sla.log import Announced, LogEntry, Recorded
from tests.scenarios.scenario import Fact
from tests.sim.bus import Stored
from tests.sim.world import MINUTE, World
from tests.support.judge_checks import read_truth
from tests.support.judge_oracle import find_truth
from tests.support.memory import Memory

Problem = tuple[str, str]  # lost, doubled, false, early, stuck, differs; and the story


def find_problems(world: World) -> list[Problem]:
    """All that is wrong with a finished run."""
    if world.unexpected:
        return [("stuck", text) for text in world.unexpected]
    accepted, refused = _sort_arrivals(world)
    return [
        *_check_dead_letters(world, refused),
        *_check_facts(world, accepted),
        *_check_announcements(world),
        *_check_breaches(world, accepted),
        *_check_not_early(world),
        *_check_replay(world, {sequence for sequence, reason in refused.items() if reason == "internal"}),
        *_check_projections(world),
    ]


def _sort_arrivals(world: World) -> tuple[dict[str, list[Fact]], dict[int, str]]:
    """
    By the order of the stream: the facts that count, by ticket; and the reason for each message that does not. One that
    has been there twice when an intake was killed may have been set aside, as if it had killed it.
    """
    letters = [each.headers for each in world.broker.streams[DEAD_LETTERS].messages]
    blamed = {int(each["Sla-Sequence"]) for each in letters if each["Sla-Reason"] == "internal"}
    first: dict[tuple[str, str, str | None], Fact] = {}
    accepted, refused = defaultdict[str, list[Fact]](list), {}
    for stored in world.broker.streams[TICKETS].messages:
        if stored.subject.startswith("clock.due."):
            continue
        sent = world.sent[stored.body]
        key = (sent.fact.source, sent.ticket, sent.fact.id)
        if sent.refused == "time_in_future" and sent.fact.time <= from_microseconds(stored.at) + 5 * MINUTE:
            sent = replace(sent, refused=None)  # sent again when it had happened
        if stored.sequence in blamed and world.interrupted[stored.sequence] >= MAX_ATTEMPTS:
            refused[stored.sequence] = "internal"
        elif sent.refused not in (None, "id_conflict"):
            refused[stored.sequence] = str(sent.refused)
        elif key not in first:
            first[key] = sent.fact
            accepted[sent.ticket].append(sent.fact)
        elif sent.fact.time != first[key].time:
            refused[stored.sequence] = "id_conflict"
    return accepted, refused


def _check_dead_letters(world: World, refused: dict[int, str]) -> Iterator[Problem]:
    letters = [
        (int(each.headers["Sla-Sequence"]), each.headers["Sla-Reason"])
        for each in world.broker.streams[DEAD_LETTERS].messages
    ]
    yield from _compare(Counter(refused.items()), Counter(letters), "dead letter")


def _check_facts(world: World, accepted: dict[str, list[Fact]]) -> Iterator[Problem]:
    expected = Counter((ticket, fact.source, fact.id) for ticket, facts in accepted.items() for fact in facts)
    tickets = world.store.load_tickets(world.facts)
    found = Counter(
        (id, fact.source, fact.id.rpartition("/")[2]) for id, ticket in tickets.items() for fact in ticket.facts
    )
    yield from _compare(expected, found, "fact")


def _compare(expected: Counter, found: Counter, what: str) -> Iterator[Problem]:
    for each, times in (expected - found).items():
        yield "lost", f"{what} {each}, {times} times"
    for each, times in (found - expected).items():
        yield ("doubled" if each in expected else "false"), f"{what} {each}, {times} times more"


def _check_announcements(world: World) -> Iterator[Problem]:
    """
    The stream SLA is the log's announcements: each once, in the log's order. Only one whose id a stranger had used may
    come later: the broker takes the stranger's message for it, and lets in what is to follow it.
    """
    log = [entry.event.id for entry in _read_entries(world) if isinstance(entry.event, Announced)]
    heard = [each.headers[ID_HEADER].partition("/")[0] for each in world.read_announcements()]
    yield from _compare(Counter(log), Counter(heard), "announcement")
    one, other = ([id for id in ids if id not in world.forged] for ids in (log, heard))
    if one != other and sorted(one) == sorted(other):
        yield "differs", "announcements are not in the order of the log"


def _read_entries(world: World) -> list[LogEntry]:
    return world.store.read_log_entries(0, 1_000_000)


def _decode(stored: Stored) -> dict:
    return msgspec.json.decode(stored.body)


def _check_breaches(world: World, accepted: dict[str, list[Fact]]) -> Iterator[Problem]:
    """What was announced, less what was withdrawn, is what the oracle says; so is the state of each ticket."""
    standing: dict[str, tuple[str, str]] = {}
    places = {entry.event.id: place for place, entry in enumerate(_read_entries(world)) if hasattr(entry.event, "id")}
    heard = map(_decode, world.read_announcements())  # one whose id a stranger had used may have come later
    for event in sorted(heard, key=lambda event: places.get(event["id"], 0)) if world.forged else heard:
        data = event["data"]
        if event["type"] == "sla.breached":
            if any(ticket == data["ticket_id"] for ticket, _ in standing.values()):
                yield "doubled", f"two breaches stand: {data}"
            standing[data["breach_id"]] = (data["ticket_id"], data["breached_at"])
        elif event["type"] == "sla.breach_retracted" and standing.pop(data["breach_id"], None) is None:
            yield "false", f"a withdrawal of nothing: {data}"
    expected = {}
    tickets = world.store.load_tickets(world.facts)
    for ticket, facts in accepted.items():
        oracle = find_truth(facts, world.time(), edited_at=world.edited_at)
        if oracle.breached_at is not None:
            expected[ticket] = oracle.breached_at.isoformat().replace("+00:00", "Z")
        if ticket in tickets and read_truth(tickets[ticket].state) != oracle:
            yield "differs", f"{ticket} is {tickets[ticket].state}, and should be {oracle}"
    yield from _compare(Counter(expected.items()), Counter(standing.values()), "net breach")


def _check_not_early(world: World) -> Iterator[Problem]:
    for stored in world.read_announcements():
        event = _decode(stored)
        if event["type"] in ("sla.breached", "sla.warning") and not from_microseconds(stored.at).isoformat() > event[
            "time"
        ].replace("Z", "+00:00"):
            yield "early", f"stored at {from_microseconds(stored.at)}: {event}"


def _check_replay(world: World, blamed: set[int]) -> Iterator[Problem]:
    """The stream judged again from its first message, but for those set aside, one by one and without faults."""
    memory = Memory(world.store.read_versions())
    engine = Engine(memory)
    for each in (each for each in world.broker.streams[TICKETS].messages if each.sequence not in blamed):
        memory.save(
            engine.process([Message(each.sequence, from_microseconds(each.at), each.subject, each.headers, each.body)])
        )
    live = defaultdict[str, list[Recorded]](list)
    for entry in _read_entries(world):
        live[entry.ticket].append(entry.event)
    for ticket in {*live, *memory.log}:
        if live[ticket] != [recorded.event for recorded in memory.log.get(ticket, [])]:
            yield "differs", f"{ticket}: replay has another log"


def _check_projections(world: World) -> Iterator[Problem]:
    """Each view, built again from nothing, has the same rows."""
    for view in PROJECTIONS:
        live, again = view(), view("_audit")
        create_projection(world.store, again, "audit")
        while run_batch(world.store, again, "audit") == BATCH_ROWS:
            pass
        with world.store.read_view() as cursor:
            for ours, theirs in zip(live.tables, again.tables, strict=True):
                cursor.execute(f"SELECT * FROM {ours}")
                found = Counter(cursor.fetchall())
                cursor.execute(f"SELECT * FROM {theirs}")
                if found != Counter(cursor.fetchall()):
                    yield "differs", f"view {live.name}: table {ours}"
        with world.store.write_view() as cursor:
            cursor.execute("DELETE FROM positions WHERE name = 'audit'")
