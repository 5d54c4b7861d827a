"""Backtest: all of history judged under another policy, or open tickets moved to it. Nothing is written here."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from events.tickets import TICKET_EVENT_TYPES
from projections.promises import make_label, name_kept
from services.queries.report import calculate_share
from services.store.interface import Snapshot
from services.store.snapshot import read_facts
from sla.judge import CycleKey, Fact, Facts, Flag
from sla.log import FactRecorded, State
from sla.policy import FIRST_RESPONSE, Policy
from sla.ticket import TicketSla
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


class Flip(NamedTuple):
    """A promise with another outcome under the other policy; `due_before` is None if only that one makes it."""

    ticket: str
    objective: str
    cycle: int
    service_level: str
    priority: str
    before: str
    after: str
    due_before: datetime | None
    due_after: datetime | None


@dataclass
class Backtest:
    """
    The promises of all tickets opened in [start, end), judged at `now`, once by the versions in force and once by the
    other policy. `run` does the work and yields how many tickets are done. Promises are counted by objective, and the
    level and priority they are judged by (under the other policy, where only that one makes them). One that a policy
    does not make, or of a ticket whose level or priority it does not have, is `unknown` under it.
    """

    versions: Versions
    policy: Policy
    now: datetime
    start: datetime | None = None
    end: datetime | None = None
    flips: list[Flip] = field(default_factory=list)
    tickets: int = 0
    _counts: defaultdict[tuple[str, ...], tuple[Counter[str], Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: (Counter(), Counter()))
    )

    def run(self, stored: Snapshot) -> Iterator[int]:
        """Judge every ticket of one snapshot of the store."""
        other = PolicyOverride(self.policy)
        for done, (ticket, facts) in enumerate(read_ticket_facts(stored), 1):
            before = self._judge(ticket, facts, self.versions)
            opened_at = before[FIRST_RESPONSE, 1].started_at
            if opened_at is not None and self._is_wanted(opened_at):
                self.tickets += 1
                self._compare(ticket, before, self._judge(ticket, facts, other))
            if done % BATCH == 0:
                yield done

    def _judge(self, ticket: str, facts: Facts, versions: Versions) -> dict[CycleKey, State]:
        """Return the promises of a ticket as a tick at `now` leaves them."""
        found = TicketSla(ticket, facts=facts)
        found.decide(versions, self.now)
        return {(each.objective, each.cycle): each.state for each in (found.first, *found.others.values())}

    def _is_wanted(self, opened_at: datetime) -> bool:
        return (self.start is None or opened_at >= self.start) and (self.end is None or opened_at < self.end)

    def _compare(self, ticket: str, before: Mapping[CycleKey, State], after: Mapping[CycleKey, State]) -> None:
        if Flag.NOT_IN_VERSION in after[FIRST_RESPONSE, 1].flags:
            after = {}
        for key in dict.fromkeys([*before, *after]):
            states = (before.get(key), after.get(key))
            label = make_label(key[0], states[0] or states[1] or State())
            was, would_be = (_name_outcome(state) for state in states)
            if was == would_be == "none":
                continue
            labels = (label.objective, label.service_level, label.priority)
            for counts, each in zip(self._counts[labels], (was, would_be), strict=True):
                counts[each] += 1
            if was != would_be:
                due_before, due_after = (state.due_at if state else None for state in states)
                self.flips.append(Flip(ticket, *key, *labels[1:], was, would_be, due_before, due_after))

    def build_rows(self) -> list[dict[str, Any]]:
        """Return the outcomes by objective, level and priority, and the share kept, before and after."""
        names = (*self.policy.objectives, *self.policy.levels, *self.policy.priorities)
        order = {name: n for n, name in enumerate(names)}
        rows = sorted(self._counts.items(), key=lambda item: [(order.get(name, len(order)), name) for name in item[0]])
        return [
            {
                "objective": objective,
                "service_level": level,
                "priority": priority,
                "before": _summarise(before),
                "after": _summarise(after),
            }
            for (objective, level, priority), (before, after) in rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all of it: instants in UTC."""
        return {
            "policy_version": self.policy.version,
            "at": self.now,
            "from": self.start,
            "to": self.end,
            "tickets": self.tickets,
            "rows": self.build_rows(),
            "flips": [flip._asdict() for flip in self.flips],
        }


def _name_outcome(state: State | None) -> str:
    """
    Return kept, broken, open, cancelled, excluded, or none if nothing was promised; unknown without a state, and for
    one that waits for a level.
    """
    if state is None or state.stage == "pending":
        return "unknown"
    if state.due_at is None:
        return "none"
    if state.kept is not None:
        return name_kept(state)
    return state.stage if state.stage in ("cancelled", "excluded") else "open"


def _summarise(counts: Counter[str]) -> dict[str, Any]:
    return {
        **{name: counts[name] for name in ("kept", "broken", "open", "cancelled", "excluded", "unknown")},
        "share": calculate_share(counts["kept"], counts["broken"]),
    }
