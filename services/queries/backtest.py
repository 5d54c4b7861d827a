"""Backtest: all of history judged under another policy, or open tickets moved to it. Nothing is written here."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from events.tickets import TICKET_EVENT_TYPES
from services.store.interface import Snapshot
from services.store.snapshot import read_facts
from sla.judge import Clock, Fact, Facts, Flag, judge
from sla.log import FactRecorded
from sla.policy import Policy
from sla.versions import PolicyOverride, Versions

BATCH = 1_000


class TicketFacts(NamedTuple):
    """The facts of a ticket of the store."""

    ticket: str
    facts: Facts


def read_ticket_facts(stored: Snapshot) -> Iterator[TicketFacts]:
    """Yield the facts of every ticket, in the order of their ids."""
    for ticket, recorded in read_facts(stored):
        facts = Facts()
        for event in recorded:
            facts.add(_build_fact(event))
        yield TicketFacts(ticket, facts)


def _build_fact(event: FactRecorded) -> Fact:
    data = TICKET_EVENT_TYPES[event.type].model_validate(event.data)
    return Fact(event.source, event.id, event.time, data, event.sequence, event.at)


def find_outcome(clock: Clock) -> str:
    """Return the outcome of a promise: met, broken, open, cancelled or excluded."""
    if clock.excluded_by is not None:
        return "excluded"
    if clock.broken_at is not None:
        return "broken"
    if clock.response is not None:
        return "met"
    return "cancelled" if clock.closed_by is not None else "open"


class Flip(NamedTuple):
    """A ticket with another outcome under the other policy."""

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
    All tickets opened in [start, end), judged at `now`, once by the versions in force and once by the
    other policy. `run` does the work and yields how many tickets are done. A ticket whose level or priority the other
    policy does not have has the outcome `unknown` under it.
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
        """Judge every ticket of one snapshot of the store."""
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
        after_clock = judge(facts, other, self.now).clock
        if after_clock is not None and Flag.NOT_IN_VERSION in after_clock.flags:
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
        """Return the outcomes by level and priority, and the share of met among met and broken, before and after."""
        order = {name: n for n, name in enumerate((*self.policy.levels, *self.policy.priorities))}
        rows = sorted(self._counts.items(), key=lambda item: [(order.get(name, len(order)), name) for name in item[0]])
        return [
            {
                "service_level": level,
                "priority": priority,
                "before": _summarise(before),
                "after": _summarise(after),
            }
            for (level, priority), (before, after) in rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all of it: instants in UTC."""
        return {
            "policy_version": self.policy.version,
            "at": self.now,
            "from": self.start,
            "to": self.end,
            "tickets": self.tickets,
            "compliance": self.compare_compliance(),
            "flips": [flip._asdict() for flip in self.flips],
        }


def _summarise(counts: Counter[str]) -> dict[str, Any]:
    decided = counts["met"] + counts["broken"]
    return {
        **{name: counts[name] for name in ("met", "broken", "open", "cancelled", "excluded", "unknown")},
        "compliance": round(counts["met"] / decided, 6) if decided else None,
    }
