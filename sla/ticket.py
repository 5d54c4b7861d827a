"""The aggregate: one ticket, its facts and the promises made about it. What follows is decided in decisions.py."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from sys import getsizeof
from typing import Any, Self

from msgspec.structs import replace

from events.cloudevents import Trace
from events.tickets import TICKET_EVENT_TYPES, FactWithdrawn, TicketData, TicketEvent
from sla.decisions import Judgement, Promise, decide
from sla.judge import Clock, CycleKey, Fact, Facts, judge
from sla.log import (
    Announced,
    DecidedEvent,
    EscalationRaised,
    FactRecorded,
    Quarantined,
    Recorded,
    Released,
    State,
    StoredEvent,
)
from sla.policy import FIRST_RESPONSE
from sla.versions import Versions

NEVER_HISTORIC = timedelta.max  # as `historic_after`: no breach is historic
BYTES_OF_FACT, BYTES_OF_PROMISE = 1_500, 1_500  # in memory, about, without what the texts of a fact take


@lru_cache(maxsize=1_000)
def _read_data(event_type: str, members: tuple[tuple[str, Any], ...]) -> TicketData:
    """Return what a recorded fact says; facts that say the same share it."""
    return TICKET_EVENT_TYPES[event_type].model_validate(dict(members))


@dataclass(slots=True)
class TicketSla:
    """
    One ticket. `record` and `decide` return what is new; `apply` only assigns, so that a replay decides nothing.
    `known_at` is the newest broker's time that it was judged at, `learned_at` that of its first fact, None without any.
    While it is `quarantined` nothing is decided (docs/architecture.md#decision-8).
    `judged` are the clocks of other objectives at the last judgement, `waiting` those of their promises that time alone
    may change, `announced_escalations` those that are not withdrawn, and `size` is about how many bytes the ticket
    takes in memory.
    """

    id: str
    version: int = 0
    facts: Facts = field(default_factory=Facts)
    first: Promise = field(default_factory=Promise)
    others: dict[CycleKey, Promise] = field(default_factory=dict)
    known_at: datetime | None = None
    learned_at: datetime | None = None
    announced_escalations: set[tuple[str, str]] = field(default_factory=set)
    quarantined: Quarantined | None = None
    judged: dict[str, Sequence[Clock]] = field(default_factory=dict, compare=False)
    waiting: set[CycleKey] = field(default_factory=set)
    traces: dict[str, Trace] = field(default_factory=dict)  # by the id of the fact
    size: int = field(default=0, compare=False)

    @property
    def state(self) -> State:
        """That of the first response."""
        return self.first.state

    @classmethod
    def replay(cls, ticket: Self | None, events: Iterable[Any]) -> Self | None:
        """Return the ticket after these events, None if there are none. A projector for eventsourcing's Repository."""
        for recorded in events:
            ticket = ticket or cls(recorded.originator_id)
            ticket.apply(recorded.event)
        return ticket

    def record(self, event: TicketEvent, now: datetime) -> Recorded:
        """Record a fact that the broker stored at `now`. What follows from it is for `decide`, with its id."""
        fact = FactRecorded(
            at=now,
            type=event.type,
            source=event.source,
            id=event.id,
            time=event.time,
            data=event.data.model_dump(mode="json", exclude_defaults=True),
            sequence=event.sequence,
            flags=event.flags,
            trace=event.trace,
        )
        return self._append(fact)

    def decide(
        self, versions: Versions, now: datetime, historic_after: timedelta = NEVER_HISTORIC, fact_id: str | None = None
    ) -> list[Recorded]:
        """
        Decide what follows at `now`, by the broker: from the fact just recorded, or without one from the time alone.
        A fact alone neither breaks a promise nor warns (docs/architecture.md#rule-3). Return nothing if nothing
        follows, so that a forged or doubled tick is harmless.
        """
        if self.quarantined is not None:
            return []
        now = max(now, self.known_at or now)
        judgement = Judgement(
            ticket=self.id,
            verdict=judge(self.facts, versions, now),
            now=now,
            fact_id=fact_id,
            learned_at=self.learned_at or now,
            historic_after=historic_after,
            announced_escalations=self.announced_escalations,
            judged=self.judged,
            waiting=self.waiting,
        )
        events = [self._append(self._trace(event, fact_id)) for event in decide(judgement, self.first, self.others)]
        self.judged = {**dict.fromkeys(self.judged, ()), **judgement.verdict.cycles}
        return events

    def _trace(self, event: DecidedEvent, fact_id: str | None) -> DecidedEvent:
        """Return the event with the trace of the fact that it is of: the one just recorded, or the one it names."""
        if not self.traces or not isinstance(event, Announced):
            return event
        trace = self.traces.get(fact_id or event.cause_id or "") or self.traces.get(event.cause_id or "")
        return event if trace is None else replace(event, trace=trace)

    def quarantine(self, error: str, now: datetime) -> Recorded:
        """Set the ticket aside: judging it failed."""
        return self._append(Quarantined(at=now, error=error))

    def release(self, now: datetime) -> Recorded:
        """Let the ticket be judged again; `decide` does it."""
        return self._append(Released(at=now))

    def _append(self, event: StoredEvent) -> Recorded:
        self.apply(event)
        return Recorded(self.id, self.version, event)

    def apply(self, event: StoredEvent) -> None:
        """Assign what the event says."""
        self.version += 1
        self.known_at = max(self.known_at or event.at, event.at)
        if isinstance(event, FactRecorded):
            self.learned_at = self.learned_at or event.at
            data = _read_data(event.type, tuple(event.data.items()))
            self.facts.add(Fact(event.source, event.id, event.time, data, event.sequence, event.at, flags=event.flags))
            if isinstance(data, FactWithdrawn):
                self.announced_escalations.discard((event.source, data.withdraws))
            if event.trace is not None:
                self.traces[event.id] = event.trace
            texts = (event.source, event.id, event.sequence, *event.data.values())
            self.size += BYTES_OF_FACT + sum(getsizeof(text) for text in texts)
            return
        if isinstance(event, Quarantined | Released):
            self.quarantined = event if isinstance(event, Quarantined) else None
            for promise in (self.first, *self.others.values()):  # no tick comes; once released, it is decided anew
                promise.state = replace(promise.state, next_at=None)
            self.judged = dict.fromkeys(self.judged, ())
            self.waiting.clear()
            return
        self._get_promise(event).apply(event)
        if event.objective != FIRST_RESPONSE:
            change = self.waiting.discard if event.state.next_at is None else self.waiting.add
            change((event.objective, event.cycle))
        if isinstance(event, EscalationRaised) and event.cause_id is not None:
            self.announced_escalations.add((event.source, event.cause_id))

    def _get_promise(self, event: DecidedEvent) -> Promise:
        if event.objective == FIRST_RESPONSE:
            return self.first
        key = (event.objective, event.cycle)
        if key not in self.others:
            self.others[key] = Promise(*key)
            self.judged.setdefault(event.objective, ())
            self.size += BYTES_OF_PROMISE
        return self.others[key]
