"""The aggregate: one ticket's facts, and what has been decided about its promise. What is so is for judge to say."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from events.promises import Detection, event_id
from events.tickets import DATA_TYPES, TicketEvent
from sla.judge import AT_RISK_PERCENT, Cause, Clock, Fact, Facts, Verdict, judge
from sla.log import (
    Announced,
    Applied,
    Breached,
    BreachRetracted,
    Decision,
    Escalated,
    Event,
    FactRecorded,
    Fulfilled,
    Recorded,
    State,
    StateUpdated,
    TargetChanged,
    WarningRaised,
)
from sla.policy import Policy

OBJECTIVE = "first_response"
CYCLE = 1
LATE_AFTER = timedelta(seconds=2)  # a breach that the engine notices later than this is `late`
NEVER = timedelta.max


@dataclass(slots=True)
class TicketSla:
    """One ticket. `record` and `tick` return what is new; `apply` only assigns, so that a replay decides nothing."""

    id: str
    version: int = 0
    facts: Facts = field(default_factory=Facts)
    state: State = field(default_factory=State)
    known_at: datetime | None = None
    learned_at: datetime | None = None
    breach: Breached | None = None
    answer: Fulfilled | None = None
    counts: dict[str, int] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)
    warned: dict[datetime, int] = field(default_factory=dict)

    @classmethod
    def replay(cls, ticket: Self | None, events: Iterable[Any]) -> Self | None:
        """The ticket its events tell of, None if there are none. A projector for eventsourcing's Repository."""
        for recorded in events:
            ticket = ticket or cls(recorded.originator_id)
            ticket.apply(recorded.event)
        return ticket

    def record(
        self, event: TicketEvent, policy: Policy, now: datetime, historic_after: timedelta = NEVER
    ) -> list[Recorded]:
        """A fact, stored by the broker at `now`. It alone neither breaks a promise nor warns (section 4, rule 3)."""
        fact = FactRecorded(
            at=now,
            type=event.type,
            source=event.source,
            id=event.id,
            time=event.time,
            data=event.data.model_dump(exclude_defaults=True),
            sequence=event.sequence,
        )
        recorded = self._append(fact)
        return [recorded, *self._decide(policy, now, historic_after, event.id)]

    def tick(self, policy: Policy, now: datetime, historic_after: timedelta = NEVER) -> list[Recorded]:
        """It is `now`, says the broker. Returns nothing if nothing follows: a forged or doubled tick is harmless."""
        return self._decide(policy, now, historic_after, None)

    def _decide(self, policy: Policy, now: datetime, historic_after: timedelta, fact_id: str | None) -> list[Recorded]:
        now = max(now, self.known_at or now)
        verdict = judge(self.facts, policy, now)
        if verdict.clock is None:
            pending = State(next_at=verdict.ahead)
            events: list[Event] = [] if pending == self.state else [StateUpdated(at=now, state=pending)]
        else:
            events = Difference(self, policy, verdict, verdict.clock, now, historic_after, fact_id).events()
        return [self._append(event) for event in events]

    def _append(self, event: Event) -> Recorded:
        self.apply(event)
        return Recorded(self.id, self.version, event)

    def apply(self, event: Event) -> None:
        """Takes over what the event says."""
        self.version += 1
        self.known_at = max(self.known_at or event.at, event.at)
        if isinstance(event, FactRecorded):
            self.learned_at = self.learned_at or event.at
            data = DATA_TYPES[event.type].model_validate(event.data)
            self.facts.add(Fact(event.source, event.id, event.time, data, event.sequence, event.at))
        if isinstance(event, Decision):
            self.state = event.state
        if isinstance(event, Announced):
            self.counts[event.KIND] = self.counts.get(event.KIND, 0) + 1
        match event:
            case Breached():
                self.breach = event
            case BreachRetracted():
                self.breach = None
            case Fulfilled():
                self.answer = event
            case Escalated(source=source, cause_id=str(fact_id)):
                self.told.add((source, fact_id))
            case WarningRaised(threshold_percent=percent, state=State(due_at=datetime() as due_at)):
                self.warned[due_at] = percent


class Difference:
    """What is so now, less what was decided before: the decisions of one judgement, in the order of section 3."""

    def __init__(
        self,
        ticket: TicketSla,
        policy: Policy,
        verdict: Verdict,
        clock: Clock,
        now: datetime,
        historic_after: timedelta,
        fact_id: str | None,
    ) -> None:
        self.ticket, self.policy, self.verdict, self.clock = ticket, policy, verdict, clock
        self.now, self.historic_after, self.fact_id, self.is_tick = now, historic_after, fact_id, fact_id is None
        self.before = ticket.state
        self.running = clock.response is None and clock.broken_at is None
        self.withdrawn = ticket.breach if ticket.breach and ticket.breach.breached_at != clock.broken_at else None
        self.stands = ticket.breach is not None and self.withdrawn is None
        self.breaks = clock.broken_at is not None and not self.stands and self._shown(clock.broken_at)
        self.answered = bool(clock.met) or (clock.response is not None and (self.stands or self.breaks))
        self.armed_above = self._armed_above()
        self.state = self._state()

    def _shown(self, broken_at: datetime) -> bool:
        """Only a tick breaks a promise: this one, or the one that showed the breach now withdrawn (rules 3 and 6)."""
        return self.is_tick or (self.withdrawn is not None and broken_at < self.withdrawn.shown_at)

    def events(self) -> list[Event]:
        """One row a kind of decision; what does not apply is left out."""
        found: list[Event | None] = [
            self._retracted(),
            self._applied(),
            self._target_changed(),
            self._warning(),
            self._breached(),
            self._fulfilled(),
            *self._escalated(),
        ]
        events = [event for event in found if event is not None]
        if not events and self.state != self.before:
            return [StateUpdated(at=self.now, state=self.state)]
        return events

    def _state(self) -> State:
        clock, deadline = self.clock, self.clock.deadline
        warned = max([self.armed_above, *self._passed()]) if self.running and self.is_tick else self.armed_above
        return State(
            stage="fulfilled" if self.answered else "running",
            service_level=clock.level.name,
            priority=clock.priority,
            policy_version=self.policy.version,
            policy_fingerprint=self.policy.fingerprint,
            opening_id=clock.opening.id,
            started_at=clock.started_at,
            due_at=deadline.due_at,
            target=deadline.target,
            at_risk_at=self._reached(AT_RISK_PERCENT) if self.running else None,
            warned_percent=warned,
            breached_at=clock.broken_at if self.stands or self.breaks else None,
            responded_at=clock.response.time if clock.response and self.answered else None,
            met=clock.met if self.answered else None,
            overdue=clock.overdue if self.answered else None,
            escalation_level=len(self.verdict.escalations),
            next_at=self._next_at(warned),
        )

    def _moved(self) -> bool:
        return (self.before.due_at, self.before.target) != (self.clock.deadline.due_at, self.clock.deadline.target)

    def _passed(self) -> list[int]:
        return [percent for percent in self.policy.warn_at if self._reached(percent) <= self.now]

    def _armed_above(self) -> int:
        """
        The highest threshold already sent or passed over. A moved deadline arms again those that lie ahead; one that
        comes back has its own warnings behind it.
        """
        warned = self.before.warned_percent
        if warned and self._moved():
            warned = max((percent for percent in self._passed() if percent <= warned), default=0)
        return max(warned, self.ticket.warned.get(self.clock.deadline.due_at, 0))

    def _reached(self, percent: int) -> datetime:
        return self.clock.deadline.reached(percent, self.clock.level)

    def _next_at(self, warned: int) -> datetime | None:
        """When to look again: a threshold or the deadline of a running clock, a break not yet shown, a fact to come."""
        instants = [self.verdict.ahead] if self.verdict.ahead else []
        if self.running:
            instants += [self._reached(percent) for percent in self.policy.warn_at if percent > warned][:1]
            instants.append(self.clock.deadline.due_at)
        elif self.clock.broken_at is not None and not (self.stands or self.breaks):
            instants.append(self.clock.broken_at)
        return min(instants, default=None)

    def _retracted(self) -> BreachRetracted | None:
        breach = self.withdrawn
        if breach is None:
            return None
        reason = Cause.ANSWERED_IN_TIME if self.clock.met else Cause.DEADLINE_MOVED
        return BreachRetracted(
            **self._announced("breach_retracted", breach.breached_at, reason, self.fact_id, number=breach.number),
            breach_id=breach.id,
            number=breach.number,
            breached_at=breach.breached_at,
            service_level=breach.service_level,
            priority=breach.priority,
            severity=breach.severity,
            detection=breach.detection,
            reason=reason,
        )

    def _applied(self) -> Applied | None:
        if "applied" in self.ticket.counts:
            return None
        opening = self.clock.opening
        return Applied(**self._announced("applied", opening.time, Cause.OPENED, opening.id))

    def _target_changed(self) -> TargetChanged | None:
        before = self.before
        if before.due_at is None or before.target is None or self.clock.response is not None or not self._moved():
            return None
        fact, cause = self.clock.deadline.set_by, self.clock.deadline.cause
        if (before.opening_id, before.started_at) != (self.clock.opening.id, self.clock.started_at):
            fact, cause = self.clock.opening, Cause.OPENING_REPLACED
        return TargetChanged(
            **self._announced("target_changed", fact.time, cause, fact.id, number=self._number("target_changed")),
            old_due_at=before.due_at,
            old_target=before.target,
        )

    def _warning(self) -> WarningRaised | None:
        percent = self.state.warned_percent
        if percent <= self.armed_above:
            return None
        fact_id, number = self.clock.deadline.set_by.id, self._number("warning")
        announced = self._announced("warning", self._reached(percent), Cause.THRESHOLD_REACHED, fact_id, number=number)
        return WarningRaised(**announced, threshold_percent=percent)

    def _breached(self) -> Breached | None:
        broken_at = self.clock.broken_at
        if broken_at is None or not self.breaks:
            return None
        deadline, number = self.clock.deadline, self._number("breached")
        raised = deadline.cause is Cause.PRIORITY_RAISED
        cause = Cause.PRIORITY_RAISED if raised else Cause.DEADLINE_PASSED
        arrived = max(self.clock.opening.recorded_at, deadline.set_by.recorded_at, broken_at)
        delay = self.now - arrived
        return Breached(
            **self._announced("breached", broken_at, cause, deadline.set_by.id, number=number),
            number=number,
            breached_at=broken_at,
            service_level=self.clock.level.name,
            priority=self.clock.priority,
            severity=self._severity(),
            detection=self._detection(broken_at, delay),
            delay=delay,
            shown_at=self.withdrawn.shown_at if self.withdrawn and not self.is_tick else self.now,
        )

    def _detection(self, broken_at: datetime, delay: timedelta) -> Detection:
        """Historic: broken long before the engine learned of the ticket. Late: the engine was behind."""
        if (self.ticket.learned_at or self.now) - broken_at > self.historic_after:
            return "historic"
        return "late" if delay > LATE_AFTER else "live"

    def _fulfilled(self) -> Fulfilled | None:
        response, met, overdue = self.clock.response, self.clock.met, self.clock.overdue
        if response is None or met is None or overdue is None or not self.answered:
            return None
        replaced = self.ticket.answer
        if replaced is not None and _said(replaced.state) == _said(self.state):
            return None
        revision = self._number("fulfilled")
        return Fulfilled(
            **self._announced("fulfilled", response.time, Cause.RESPONDED, response.id, revision=revision),
            responded_at=response.time,
            met=met,
            overdue=overdue,
            revision=revision,
            replaces=replaced.id if replaced else None,
            replaced_met=replaced.met if replaced else None,
        )

    def _escalated(self) -> list[Escalated]:
        if len(self.verdict.escalations) == len(self.ticket.told):
            return []  # whoever was told of an escalation was told of one that has happened
        untold = [fact for fact in self.verdict.escalations if (fact.source, fact.id) not in self.ticket.told]
        return [self._escalation(fact, number) for number, fact in enumerate(untold, self._number("escalated"))]

    def _escalation(self, fact: Fact, number: int) -> Escalated:
        return Escalated(
            **self._announced("escalated", fact.time, Cause.ESCALATED, fact.id, number=number),
            number=number,
            source=fact.source,
            tell=list(self.clock.level.tell),
            severity=self._severity(),
            reason=getattr(fact.data, "reason", None),
        )

    def _severity(self) -> str:
        return self.policy.severity(self.clock.priority, len(self.verdict.escalations))

    def _number(self, kind: str) -> int:
        return self.ticket.counts.get(kind, 0) + 1

    def _announced(
        self, kind: str, time: datetime, cause: Cause, cause_id: str | None, *, number: int = 1, revision: int = 1
    ) -> dict[str, Any]:
        return {
            "at": self.now,
            "state": self.state,
            "id": event_id(self.ticket.id, OBJECTIVE, CYCLE, kind, number, revision),
            "time": time,
            "cause": str(cause),
            "cause_id": cause_id,
            "elapsed": self.clock.elapsed(time),
        }


def _said(state: State) -> tuple[object, ...]:
    """What a fulfilled promise says of itself, its labels apart."""
    return (state.responded_at, state.met, state.overdue, state.due_at, state.target, state.started_at)
