"""What would be under another policy: all of history judged again, or open tickets moved. Nothing is changed here."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from events.tickets import TICKET_EVENT_TYPES, PolicyChanged, build_ticket_message
from projections.runner import catch_up
from projections.tickets import Tickets
from services.bus.publisher import Outgoing
from services.errors import ReadOnlyError
from services.store.interface import Snapshot, Store
from services.store.snapshot import read_facts
from sla.judge import Clock, CycleKey, Fact, Facts, Verdict, judge
from sla.log import FactRecorded
from sla.policy import FIRST_RESPONSE, Policy
from sla.versions import AFTER_ALL, PolicyOverride, Versions

MIGRATION_SOURCE = "/sla/policy"
BATCH = 1_000
NO_LIMIT = 2**63 - 1


class TicketFacts(NamedTuple):
    """A ticket of the store: its facts."""

    ticket: str
    facts: Facts


def read_ticket_facts(stored: Snapshot) -> Iterator[TicketFacts]:
    """Every ticket, in the order of their ids."""
    for ticket, recorded in read_facts(stored):
        facts = Facts()
        for event in recorded:
            facts.add(_build_fact(event))
        yield TicketFacts(ticket, facts)


def _build_fact(event: FactRecorded) -> Fact:
    data = TICKET_EVENT_TYPES[event.type].model_validate(event.data)
    return Fact(event.source, event.id, event.time, data, event.sequence, event.at)


def find_outcome(clock: Clock) -> str:
    """What a promise has come to: met, broken, open, cancelled or excluded."""
    if clock.excluded_by is not None:
        return "excluded"
    if clock.broken_at is not None:
        return "broken"
    if clock.response is not None:
        return "met"
    return "cancelled" if clock.closed_by is not None else "open"


class Flip(NamedTuple):
    """A ticket that comes to something else."""

    ticket: str
    service_level: str
    priority: str
    before: str
    after: str
    due_before: datetime
    due_after: datetime | None


@dataclass
class Backtest:
    """
    All tickets opened in [start, end), judged as they stand at `now`, once by the versions in force and once by the
    other policy. `run` does the work and yields how many tickets are done. A ticket whose level or priority the other
    policy does not have comes to `unknown` under it.
    """

    versions: Versions
    policy: Policy
    now: datetime
    start: datetime | None = None
    end: datetime | None = None
    flips: list[Flip] = field(default_factory=list)
    tickets: int = 0
    _counts: defaultdict[tuple[str, str], tuple[Counter[str], Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: (Counter(), Counter()))
    )

    def run(self, stored: Snapshot) -> Iterator[int]:
        """Reads one picture of the store."""
        other = PolicyOverride(self.policy)
        for done, (ticket, facts) in enumerate(read_ticket_facts(stored), 1):
            clock = judge(facts, self.versions, self.now).clock
            if clock is not None and self._is_wanted(clock):
                self._compare(ticket, facts, clock, other)
            if done % BATCH == 0:
                yield done

    def _is_wanted(self, clock: Clock) -> bool:
        opened = clock.started_at
        return (self.start is None or opened >= self.start) and (self.end is None or opened < self.end)

    def _compare(self, ticket: str, facts: Facts, clock: Clock, other: Versions) -> None:
        before = find_outcome(clock)
        try:
            after_clock = judge(facts, other, self.now).clock
        except KeyError:
            after_clock = None
        after = find_outcome(after_clock) if after_clock else "unknown"
        self.tickets += 1
        level, priority = clock.service_level.name, clock.priority
        for counts, each in zip(self._counts[level, priority], (before, after), strict=True):
            counts[each] += 1
        if before != after:
            due_after = after_clock.phase.due_at if after_clock else None
            self.flips.append(Flip(ticket, level, priority, before, after, clock.phase.due_at, due_after))

    def compare_compliance(self) -> list[dict[str, Any]]:
        """By level and priority as the facts say them: how many of which, and the share of met among met and broken."""
        order = {name: n for n, name in enumerate((*self.policy.levels, *self.policy.priorities))}
        rows = sorted(self._counts.items(), key=lambda item: [(order.get(name, len(order)), name) for name in item[0]])
        return [
            {
                "service_level": level,
                "priority": priority,
                "before": _count_shares(before),
                "after": _count_shares(after),
            }
            for (level, priority), (before, after) in rows
        ]

    def report(self) -> dict[str, Any]:
        """For programs."""
        return {
            "policy_version": self.policy.version,
            "at": self.now,
            "from": self.start,
            "to": self.end,
            "tickets": self.tickets,
            "compliance": self.compare_compliance(),
            "flips": [flip._asdict() for flip in self.flips],
        }


def _count_shares(counts: Counter[str]) -> dict[str, Any]:
    decided = counts["met"] + counts["broken"]
    return {
        **{name: counts[name] for name in ("met", "broken", "open", "cancelled", "excluded", "unknown")},
        "compliance": round(counts["met"] / decided, 6) if decided else None,
    }


class Move(NamedTuple):
    """
    A clock under another version, of an objective and its cycle: `breaks` if more is used than that one gives; why not,
    if its ticket cannot go.
    """

    ticket: str
    objective: str
    cycle: int
    service_level: str
    priority: str
    policy_version: str
    due_at: datetime
    new_due_at: datetime | None
    breaks: bool
    why_not: str | None


def find_moves(store: Store, to: Policy, now: datetime) -> Iterator[Move]:
    """What would become of every clock that has neither ended nor broken, and is not there yet; by ticket."""
    versions, view = store.read_versions(), Tickets()
    first_only = all(len(version.policy.objectives) == 1 for version in versions)
    with suppress(ReadOnlyError):
        catch_up(store, view)
    with store.read_view() as cursor:
        rows = view.list_open(cursor, NO_LIMIT) if first_only else view.list_all(cursor)
    wanted = [
        row.ticket
        for row in rows
        if row.state.stage != "pending"
        and not (first_only and (row.state.breached_at or row.state.policy_version == to.version))
    ]
    for start in range(0, len(wanted), BATCH):
        for ticket, found in store.load_tickets(wanted[start : start + BATCH]).items():
            yield from _find_ticket_moves(ticket, found.facts, versions, to, now)


def _find_ticket_moves(ticket: str, facts: Facts, versions: Versions, to: Policy, now: datetime) -> Iterator[Move]:
    here = {
        spell: clock
        for spell, clock in _list_clocks(judge(facts, versions, now))
        if find_outcome(clock) == "open" and clock.phase.policy.version != to.version
    }
    if not here:
        return
    moved = Fact(MIGRATION_SOURCE, "", now, PolicyChanged(policy_version=to.version), None, now)
    there, why_not = dict[CycleKey, Clock](), None
    try:
        facts = facts.copy_with(moved)
        judge(facts, versions, AFTER_ALL)
        there = dict(_list_clocks(judge(facts, versions, now + timedelta(microseconds=1))))
    except KeyError as error:
        why_not = str(error.args[0])
    for spell, clock in here.items():
        then, version, due_at = there.get(spell), clock.phase.policy.version, clock.phase.due_at
        breaks, new_due_at = (False, None) if then is None else (then.broken_at is not None, then.phase.due_at)
        labels = (clock.service_level.name, clock.priority)
        yield Move(ticket, *spell, *labels, version, due_at, new_due_at, breaks, why_not)


def _list_clocks(verdict: Verdict) -> Iterator[tuple[CycleKey, Clock]]:
    if verdict.clock is not None:
        yield (FIRST_RESPONSE, 1), verdict.clock
        yield from verdict.others.items()


def build_move_message(ticket: str, version: str, now: datetime) -> Outgoing:
    """The event that moves a ticket; the same one for the same run."""
    subject, headers, body = build_ticket_message(
        PolicyChanged.type,
        ticket,
        source=MIGRATION_SOURCE,
        event_id=f"{ticket}/{version}/{now.isoformat()}",
        time=now,
        data={"policy_version": version},
    )
    return Outgoing(subject, headers, body)
