"""The aggregate: one ticket's facts, and what has been decided about its promise. What is so is for judge to say."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from msgspec.structs import replace

from events.promises import Detection, make_event_id
from events.tickets import TICKET_EVENT_TYPES, Opened, TicketEvent
from sla.judge import AT_RISK_PERCENT, Cause, Clock, CycleKey, Fact, Facts, Verdict, judge
from sla.log import (
    Announced,
    Applied,
    Breached,
    BreachRetracted,
    Cancelled,
    Decision,
    EscalationRaised,
    Event,
    FactRecorded,
    Fulfilled,
    Recorded,
    State,
    StateUpdated,
    TargetChanged,
    WarningRaised,
)
from sla.policy import FIRST_RESPONSE
from sla.versions import Versions

RUNNING_AGAIN = "open"  # what a promise has come to whose answer turned out to be none
LATE_AFTER = timedelta(seconds=2)  # a breach that the engine notices later than this is `late`
NO_LIMIT = timedelta.max
ENDED = ("fulfilled", "cancelled", "excluded")  # stages in which no time counts towards a deadline, for good


@dataclass(slots=True)
class Promise:
    """What has been decided about one objective of a ticket, in one of its cycles."""

    objective: str = FIRST_RESPONSE
    cycle: int = 1
    state: State = field(default_factory=State)
    breach: Breached | None = None
    answer: Fulfilled | None = None
    outcome: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    warned: dict[datetime, int] = field(default_factory=dict)

    def apply(self, event: Decision) -> None:
        """Takes over what the event says."""
        self.state = event.state
        if isinstance(event, Announced):
            self.counts[event.KIND] = self.counts.get(event.KIND, 0) + 1
        match event:
            case Breached():
                self.breach = event
            case BreachRetracted():
                self.breach = None
            case Fulfilled():
                self.answer, self.outcome = event, None
            case Cancelled(cause=cause):
                self.outcome = cause
            case TargetChanged(undoes=str()):
                self.outcome = RUNNING_AGAIN
            case WarningRaised(threshold_percent=percent, state=State(due_at=datetime() as due_at)):
                self.warned[due_at] = percent


@dataclass(slots=True)
class TicketSla:
    """One ticket. `record` and `tick` return what is new; `apply` only assigns, so that a replay decides nothing."""

    id: str
    version: int = 0
    facts: Facts = field(default_factory=Facts)
    first: Promise = field(default_factory=Promise)
    others: dict[CycleKey, Promise] = field(default_factory=dict)
    known_at: datetime | None = None
    learned_at: datetime | None = None
    announced_escalations: set[tuple[str, str]] = field(default_factory=set)

    @property
    def state(self) -> State:
        """Of the first response."""
        return self.first.state

    @classmethod
    def replay(cls, ticket: Self | None, events: Iterable[Any]) -> Self | None:
        """The ticket its events tell of, None if there are none. A projector for eventsourcing's Repository."""
        for recorded in events:
            ticket = ticket or cls(recorded.originator_id)
            ticket.apply(recorded.event)
        return ticket

    def record(
        self, event: TicketEvent, versions: Versions, now: datetime, historic_after: timedelta = NO_LIMIT
    ) -> list[Recorded]:
        """A fact, stored by the broker at `now`. It alone neither breaks a promise nor warns (section 4, rule 3)."""
        fact = FactRecorded(
            at=now,
            type=event.type,
            source=event.source,
            id=event.id,
            time=event.time,
            data=event.data.model_dump(mode="json", exclude_defaults=True),
            sequence=event.sequence,
        )
        recorded = self._append(fact)
        return [recorded, *self._decide(versions, now, historic_after, event.id)]

    def tick(self, versions: Versions, now: datetime, historic_after: timedelta = NO_LIMIT) -> list[Recorded]:
        """It is `now`, says the broker. Returns nothing if nothing follows: a forged or doubled tick is harmless."""
        return self._decide(versions, now, historic_after, None)

    def _decide(
        self, versions: Versions, now: datetime, historic_after: timedelta, fact_id: str | None
    ) -> list[Recorded]:
        now = max(now, self.known_at or now)
        verdict = judge(self.facts, versions, now)
        if verdict.clock is None:
            pending = State(next_at=verdict.next_fact_at)
            events: list[Event] = [] if pending == self.state else [StateUpdated(at=now, state=pending)]
        else:
            events = Difference(self, self.first, verdict, verdict.clock, now, historic_after, fact_id).events()
        for spell, clock in verdict.others.items():
            promise = self.others.get(spell) or Promise(*spell)
            events += Difference(self, promise, verdict, clock, now, historic_after, fact_id).events()
        for spell in self.others.keys() - verdict.others.keys():
            events += cancel_vanished(self, self.others[spell], now, fact_id)
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
            data = TICKET_EVENT_TYPES[event.type].model_validate(event.data)
            self.facts.add(Fact(event.source, event.id, event.time, data, event.sequence, event.at))
        if isinstance(event, Decision):
            self._promise(event).apply(event)
        if isinstance(event, EscalationRaised) and event.cause_id is not None:
            self.announced_escalations.add((event.source, event.cause_id))

    def _promise(self, event: Decision) -> Promise:
        if event.objective == FIRST_RESPONSE:
            return self.first
        return self.others.setdefault((event.objective, event.cycle), Promise(event.objective, event.cycle))


def cancel_vanished(ticket: TicketSla, promise: Promise, now: datetime, fact_id: str | None) -> list[Event]:
    """It turned out that this clock never started: late news about what started it, or stopped the one before it."""
    before = promise.state
    if before.stage == "cancelled" and before.reason == Cause.CORRECTED:
        return []
    state = replace(
        before, stage="cancelled", reason=Cause.CORRECTED, breached_at=None, responded_at=None, met=None, overdue=None,
        at_risk_at=None, next_at=None,
    )  # fmt: skip
    common: dict[str, Any] = {
        "at": now, "objective": promise.objective, "cycle": promise.cycle, "state": state, "time": now,
        "cause": Cause.CORRECTED, "cause_id": fact_id, "elapsed": timedelta(0),
    }  # fmt: skip

    def id_of(kind: str, number: int) -> str:
        return make_event_id(ticket.id, promise.objective, promise.cycle, kind, number, 1)

    events: list[Event] = []
    if breach := promise.breach:
        events.append(
            BreachRetracted(
                **common | {"time": breach.breached_at},
                id=id_of("breach_retracted", breach.number),
                **copy_breach(breach),
                reason=Cause.CORRECTED,
            )
        )
    number = promise.counts.get("cancelled", 0) + 1
    undoes = None if promise.answer is None else promise.outcome or ("met" if promise.answer.met else "late")
    events.append(Cancelled(**common, id=id_of("cancelled", number), reason=Cause.CORRECTED, undoes=undoes))
    return events


def copy_breach(breach: Breached) -> dict[str, Any]:
    """Which one is withdrawn, with the labels it was announced under."""
    return {
        "breach_id": breach.id,
        "number": breach.number,
        "breached_at": breach.breached_at,
        "service_level": breach.service_level,
        "priority": breach.priority,
        "severity": breach.severity,
        "detection": breach.detection,
    }


class Difference:
    """What is so now, less what was decided before: the decisions of one judgement, in the order of section 3."""

    def __init__(
        self,
        ticket: TicketSla,
        promise: Promise,
        verdict: Verdict,
        clock: Clock,
        now: datetime,
        historic_after: timedelta,
        fact_id: str | None,
    ) -> None:
        self.ticket, self.verdict, self.clock, self.policy = ticket, verdict, clock, clock.phase.policy
        self.now, self.historic_after, self.fact_id, self.is_tick = now, historic_after, fact_id, fact_id is None
        self.promise, self.before, breach = promise, promise.state, promise.breach
        self.withdrawn = breach if breach and breach.breached_at != clock.broken_at else None
        self.stands = breach is not None and self.withdrawn is None
        self.breaks = clock.broken_at is not None and not self.stands and self._shown(clock.broken_at)
        self.told = clock.broken_at is None or self.stands or self.breaks
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
            self._cancelled(),
            *self._escalated(),
        ]
        events = [event for event in found if event is not None]
        if not events and self.state != self.before:
            return [StateUpdated(**self._decided())]
        return events

    def _state(self) -> State:
        clock, deadline, stage = self.clock, self.clock.phase, self._stage()
        answered = stage == "fulfilled"
        warned = max([self.armed_above, *self._passed()]) if self.clock.running and self.is_tick else self.armed_above
        return State(
            stage=stage,
            service_level=clock.service_level.name,
            priority=clock.priority,
            customer=self._customer(),
            policy_version=self.policy.version,
            policy_fingerprint=self.policy.fingerprint,
            opening_id=clock.opening.id,
            started_at=clock.started_at,
            due_at=deadline.due_at,
            target=deadline.target,
            at_risk_at=self._reached(AT_RISK_PERCENT) if self.clock.running else None,
            warned_percent=warned,
            breached_at=clock.broken_at if self.stands or self.breaks else None,
            responded_at=clock.response.time if clock.response and answered else None,
            met=clock.met if answered else None,
            overdue=clock.overdue if answered else None,
            escalation_level=len(self.verdict.escalations),
            next_at=self._next_at(warned),
            reason=self._reason(stage),
            flags=tuple(map(str, clock.flags)),
            **self._counted(),
        )

    def _customer(self) -> str | None:
        opened = self.ticket.facts.openings[0].data
        return opened.customer if isinstance(opened, Opened) else None

    def _counted(self) -> dict[str, Any]:
        """How time counts, unless that is still as it began."""
        stretch, clock = self.clock.phase, self.clock
        judged_as = None if stretch.level is clock.service_level else stretch.level.name
        if stretch.since == clock.started_at and stretch.running and judged_as is None:
            return {}
        return {"since": stretch.since, "used": stretch.used, "judged_as": judged_as, "stopped": not stretch.running}

    def _stage(self) -> str:
        """Whatever ended the clock after its deadline waits until a tick has shown that it broke (rule 2)."""
        clock = self.clock
        if clock.excluded_by is not None:
            return "excluded"
        if not self.told:
            return "running"
        if clock.response is not None:
            return "fulfilled"
        if clock.closed_by is not None:
            return "cancelled"
        return "paused" if clock.paused else "running"

    def _reason(self, stage: str) -> str | None:
        ended_by = {"excluded": self.clock.excluded_by, "cancelled": self.clock.closed_by}.get(stage)
        return None if ended_by is None else getattr(ended_by.data, "reason", None) or Cause.CLOSED

    def _moved(self) -> bool:
        return (self.before.due_at, self.before.target) != (self.clock.phase.due_at, self.clock.phase.target)

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
        return max(warned, self.promise.warned.get(self.clock.phase.due_at, 0))

    def _reached(self, percent: int) -> datetime:
        return self.clock.phase.find_threshold(percent)

    def _next_at(self, warned: int) -> datetime | None:
        """When to look again: a threshold or the deadline of a running clock, a break not yet shown, a fact to come."""
        instants = [self.verdict.next_fact_at] if self.verdict.next_fact_at else []
        if self.clock.running:
            instants += [self._reached(percent) for percent in self.policy.warn_at if percent > warned][:1]
            instants.append(self.clock.phase.due_at)
        elif self.clock.broken_at is not None and not (self.stands or self.breaks):
            instants.append(self.clock.broken_at)
        return min(instants, default=None)

    def _retracted(self) -> BreachRetracted | None:
        breach = self.withdrawn
        if breach is None:
            return None
        reason = self._why_kept()
        return BreachRetracted(
            **self._announced("breach_retracted", breach.breached_at, reason, self.fact_id, number=breach.number),
            **copy_breach(breach),
            reason=reason,
        )

    def _why_kept(self) -> Cause:
        """Why it is not so that the promise broke then."""
        if self.clock.excluded_by is not None:
            return Cause.EXCLUDED
        if self.clock.met:
            return Cause.ANSWERED_IN_TIME
        if self.clock.closed_by is not None and self.clock.broken_at is None:
            return Cause.CLOSED
        return Cause.PAUSED if self.clock.paused and self.clock.broken_at is None else Cause.DEADLINE_MOVED

    def _applied(self) -> Applied | None:
        if "applied" in self.promise.counts:
            return None
        opening = self.clock.opening
        return Applied(**self._announced("applied", opening.time, self.clock.timeline.started_by, opening.id))

    def _target_changed(self) -> TargetChanged | None:
        """Of a clock that runs; and one that had ended and goes on says so, whether its deadline moved or not."""
        before, stage = self.before, self.state.stage
        if before.due_at is None or before.target is None or self.clock.response or self.clock.closed_by:
            return None
        if stage == "excluded" or not (before.stage in ENDED or (stage == "running" and self._moved())):
            return None
        time, cause, cause_id = self._what_moved()
        number = self._number("target_changed")
        return TargetChanged(
            **self._announced("target_changed", time, cause, cause_id, number=number),
            old_due_at=before.due_at,
            old_target=before.target,
            undoes=self._undone(),
        )

    def _what_moved(self) -> tuple[datetime, Cause, str]:
        before, opening, revoked_by = self.before, self.clock.opening, self.clock.revoked_by
        set_by, cause = self.clock.phase.set_by, self.clock.phase.cause
        if before.stage == "excluded" and revoked_by is not None:
            set_by, cause = revoked_by, Cause.EXCLUSION_REVOKED
        elif before.opening_id != opening.id:
            set_by, cause = opening, Cause.OPENING_REPLACED
        elif set_by.corrected_by is not None:
            cause = Cause.CORRECTED
        elif before.started_at != opening.time:
            set_by, cause = opening, Cause.OPENING_REPLACED
        elif before.stage in ENDED and cause not in (Cause.REOPENED, Cause.RESUMED):
            return self.now, Cause.CORRECTED, self.fact_id or set_by.id
        return set_by.time, cause, set_by.asserted_by

    def _undone(self) -> str | None:
        """What the promise was last said to have come to; None if there was no answer, or it stands."""
        answer = self.promise.answer
        return None if answer is None else self.promise.outcome or ("met" if answer.met else "late")

    def _warning(self) -> WarningRaised | None:
        percent = self.state.warned_percent
        if percent <= self.armed_above:
            return None
        fact_id, number = self.clock.phase.set_by.asserted_by, self._number("warning")
        announced = self._announced("warning", self._reached(percent), Cause.THRESHOLD_REACHED, fact_id, number=number)
        return WarningRaised(**announced, threshold_percent=percent)

    def _breached(self) -> Breached | None:
        broken_at = self.clock.broken_at
        if broken_at is None or not self.breaks:
            return None
        deadline, number = self.clock.phase, self._number("breached")
        cause = deadline.cause if deadline.used > deadline.target else Cause.DEADLINE_PASSED
        rests_on = [self.clock.opening, deadline.set_by, *([self.clock.revoked_by] if self.clock.revoked_by else [])]
        delay = self.now - max(broken_at, *(fact.recorded_at for fact in rests_on))
        return Breached(
            **self._announced("breached", broken_at, cause, deadline.set_by.asserted_by, number=number),
            number=number,
            breached_at=broken_at,
            service_level=self.clock.service_level.name,
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
        if response is None or met is None or overdue is None or self.state.stage != "fulfilled":
            return None
        replaced, undone = self.promise.answer, self.promise.outcome
        if (
            replaced is not None
            and undone is None
            and get_fulfilled_fields(replaced.state) == get_fulfilled_fields(self.state)
        ):
            return None
        revision = self._number("fulfilled")
        return Fulfilled(
            **self._announced("fulfilled", response.time, Cause.RESPONDED, response.asserted_by, revision=revision),
            responded_at=response.time,
            met=met,
            overdue=overdue,
            revision=revision,
            replaces=replaced.id if replaced else None,
            replaced_met=replaced.met if replaced else None,
            undoes=undone if replaced else None,
        )

    def _cancelled(self) -> Cancelled | None:
        stage, reason = self.state.stage, self.state.reason
        if reason is None or stage == self.before.stage:
            return None
        ended_by = self.clock.excluded_by or self.clock.closed_by
        assert ended_by is not None
        cause = Cause.EXCLUDED if stage == "excluded" else Cause.CLOSED
        number = self._number("cancelled")
        return Cancelled(
            **self._announced("cancelled", ended_by.time, cause, ended_by.asserted_by, number=number),
            reason=reason,
            undoes=self._undone(),
        )

    def _escalated(self) -> list[EscalationRaised]:
        if self.promise.objective != FIRST_RESPONSE or len(self.verdict.escalations) == len(
            self.ticket.announced_escalations
        ):
            return []  # whoever was told of an escalation was told of one that has happened
        untold = [
            fact for fact in self.verdict.escalations if (fact.source, fact.id) not in self.ticket.announced_escalations
        ]
        return [self._escalation(fact, number) for number, fact in enumerate(untold, self._number("escalated"))]

    def _escalation(self, fact: Fact, number: int) -> EscalationRaised:
        return EscalationRaised(
            **self._announced("escalated", fact.time, Cause.ESCALATED, fact.id, number=number),
            number=number,
            source=fact.source,
            tell=list(self.clock.service_level.tell),
            severity=self._severity(),
            reason=getattr(fact.data, "reason", None),
        )

    def _severity(self) -> str:
        return self.clock.current.policy.get_severity(self.clock.priority, len(self.verdict.escalations))

    def _number(self, kind: str) -> int:
        return self.promise.counts.get(kind, 0) + 1

    def _announced(
        self, kind: str, time: datetime, cause: Cause, cause_id: str | None, *, number: int = 1, revision: int = 1
    ) -> dict[str, Any]:
        return {
            **self._decided(),
            "id": make_event_id(self.ticket.id, self.promise.objective, self.promise.cycle, kind, number, revision),
            "time": time,
            "cause": str(cause),
            "cause_id": cause_id,
            "elapsed": self.clock.measure_elapsed(time),
        }

    def _decided(self) -> dict[str, Any]:
        return {
            "at": self.now,
            "state": self.state,
            "objective": self.promise.objective,
            "cycle": self.promise.cycle,
        }


def get_fulfilled_fields(state: State) -> tuple[object, ...]:
    """What a fulfilled promise says of itself, its labels apart."""
    return (state.responded_at, state.met, state.overdue, state.due_at, state.target, state.started_at)
