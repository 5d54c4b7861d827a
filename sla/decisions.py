"""The decisions: what of a verdict is new for a promise, as events for the log. What is so is for judge.py to say.

`decide` compares each clock of a verdict with what was decided about its promise before. `DECISIONS` lists one function
a kind, in the order in which decisions are announced.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import compress, count, islice
from operator import is_not, itemgetter
from typing import Any, assert_never

from msgspec import Struct
from msgspec.structs import replace

from events.promises import Detection, make_event_id
from events.tickets import Closed
from sla.judge import AT_RISK, NEVER, ZERO, Cause, Clock, CycleKey, Details, Fact, Verdict, get_cause
from sla.log import (
    Announced,
    AnnouncedEvent,
    Applied,
    Breached,
    BreachRetracted,
    Cancelled,
    DecidedEvent,
    EscalationRaised,
    Fulfilled,
    ReminderRaised,
    State,
    StateUpdated,
    TargetChanged,
    WarningRaised,
)
from sla.policy import FIRST_RESPONSE
from sla.targets import parse_threshold

RUNNING_AGAIN = "open"  # the outcome of a promise that had ended, and goes on
ENDED = ("fulfilled", "cancelled", "excluded")  # stages in which no time counts towards a deadline, for good
LATE_AFTER = timedelta(seconds=2)  # a breach that the engine notices later than this is `late`


@dataclass(slots=True)
class Promise:
    """
    What has been decided about one objective of a ticket, in one of its cycles. `breach` is the one in effect, `answer`
    the last `Fulfilled`, and `outcome` what was announced since that supersedes it. `heard` is the state of the last
    announcement: a listener knows no other deadline. `counts` are the announcements by kind, `warned` the thresholds
    that were warned of or passed over, by deadline.
    """

    objective: str = FIRST_RESPONSE
    cycle: int = 1
    state: State = field(default_factory=State)
    breach: Breached | None = None
    answer: Fulfilled | None = None
    outcome: str | None = None
    heard: State = field(default_factory=State)
    counts: dict[str, int] = field(default_factory=dict)
    warned: dict[datetime, tuple[str, ...]] = field(default_factory=dict)

    @property
    def last_outcome(self) -> str | None:
        """The outcome announced last: met, late, or what superseded that; None if there was never an answer."""
        if self.answer is None:
            return None
        return self.outcome or ("met" if self.answer.met else "late")

    @property
    def was_closed(self) -> bool:
        """Whether what was announced last of its end is that the ticket was closed."""
        return Cause.CLOSED in (self.outcome, self.answer.cause if self.answer and self.outcome is None else None)

    @property
    def has_ended(self) -> bool:
        """Whether it was announced that it ended, and nothing since that it goes on."""
        return self.outcome != RUNNING_AGAIN and (self.outcome is not None or self.answer is not None)

    def get_next_number(self, kind: type[Announced]) -> int:
        """Return the number of the next announcement of a kind, from 1."""
        return self.counts.get(kind.KIND, 0) + 1

    def apply(self, event: DecidedEvent) -> None:
        """Assign what the event says."""
        self.state = event.state
        if isinstance(event, Announced):
            self.heard = event.state
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
            case TargetChanged():
                self.outcome = RUNNING_AGAIN if self.has_ended else self.outcome
            case WarningRaised():
                if event.state.due_at is not None:
                    self.warned[event.state.due_at] = event.state.warned
            case StateUpdated() | Applied() | EscalationRaised() | ReminderRaised():
                pass
            case _:
                assert_never(event)


class Judgement(Struct, frozen=True):
    """
    A ticket judged at `now`, because of the fact `fact_id`, or of a tick if that is None. `learned_at` is when its
    first fact was stored; a breach `historic_after` before that is historic. `judged` are the clocks of other
    objectives at the judgement before, `waiting` those of their promises that time alone may change.
    """

    ticket: str
    verdict: Verdict
    now: datetime
    fact_id: str | None
    learned_at: datetime
    historic_after: timedelta
    announced_escalations: Set[tuple[str, str]]
    judged: Mapping[str, Sequence[Clock]]
    waiting: Set[CycleKey]

    @property
    def is_tick(self) -> bool:
        return self.fact_id is None


class Comparison(Struct, frozen=True):
    """
    A clock beside what was decided about its promise before: `retracted` is the breach in effect that is not so,
    `breach_stays` that it is; `breaks_now` that another one is announced. `is_settled`: no breach waits for a tick to
    show it. The thresholds `warned` are warned of, or passed over.
    """

    judgement: Judgement
    promise: Promise
    clock: Clock
    retracted: Breached | None
    breach_stays: bool
    breaks_now: bool
    is_settled: bool
    warned: tuple[str, ...]

    @property
    def before(self) -> State:
        return self.promise.state


def decide(judgement: Judgement, first: Promise, others: Mapping[CycleKey, Promise]) -> list[DecidedEvent]:
    """Return what is to be decided about the promises of a ticket, first about the first response; often nothing."""
    verdict = judgement.verdict
    events = _decide_promise(judgement, first, verdict.clock) if verdict.clock else _decide_unopened(judgement, first)
    for key, clock in _iterate_changed(judgement, first.state):
        events += _decide_promise(judgement, others.get(key) or Promise(*key), clock)
    for name in sorted({*verdict.cycles, *judgement.judged}):  # a replayed ticket has them in another order
        for cycle in count(len(verdict.cycles.get(name, ())) + 1):
            vanished = others.get((name, cycle))
            if vanished is None or _has_vanished(vanished):
                break
            events += _cancel_vanished(judgement, vanished)
    return events


def _decide_unopened(judgement: Judgement, first: Promise) -> list[DecidedEvent]:
    """Return what is to be decided about the first response of a ticket without an opening, or without one any more."""
    if Applied.KIND in first.counts and not _has_vanished(first):
        return _cancel_vanished(judgement, first)
    state = replace(first.state if first.counts else State(), next_at=judgement.verdict.next_fact_at)
    return [] if state == first.state else [StateUpdated(at=judgement.now, state=state)]


def _iterate_changed(judgement: Judgement, first: State) -> Iterator[tuple[CycleKey, Clock]]:
    """
    Yield the clocks of other objectives that are not those of the judgement before, and those that wait for an instant;
    of a ticket with other labels the last of each, and for another customer all.
    """
    details = judgement.verdict.details
    has_changed = any(getattr(first, name) != getattr(details, name) for name in Details.__struct_fields__)
    all_of_them = first.customer != details.customer
    for name, clocks in judgement.verdict.cycles.items():
        before = () if all_of_them else judgement.judged.get(name, ())
        changed = {*compress(count(1), map(is_not, before, clocks)), *range(len(before) + 1, len(clocks) + 1)}
        waiting = {cycle for each, cycle in judgement.waiting if each == name and cycle <= len(clocks)}
        last = {len(clocks)} if has_changed and clocks else set()
        for cycle in sorted(changed | waiting | last):
            yield (name, cycle), clocks[cycle - 1]


def _decide_promise(judgement: Judgement, promise: Promise, clock: Clock) -> list[DecidedEvent]:
    """Return what is to be decided about one promise; a state that changes alone is a `StateUpdated`."""
    found = _compare(judgement, promise, clock)
    state = _build_state(found)
    if not clock.phase.promised and promise.state == State() and promise.objective != FIRST_RESPONSE:
        return []
    events: list[DecidedEvent] = [event for decision in DECISIONS for event in decision(found, state)]
    if not events and state != promise.state:
        return [StateUpdated(at=judgement.now, state=state, objective=promise.objective, cycle=promise.cycle)]
    return events


def _compare(judgement: Judgement, promise: Promise, clock: Clock) -> Comparison:
    """
    Compare a clock with what was decided before. Only a tick shows a breach: this one, or the one that had shown the
    breach that is retracted now (docs/architecture.md#rule-3 and rule-6).
    """
    breach, broken_at = promise.breach, clock.broken_at
    retracted = breach if breach is not None and breach.breached_at != broken_at else None
    breach_stays = breach is not None and retracted is None
    is_shown = judgement.is_tick or (broken_at is not None and retracted is not None and broken_at < retracted.shown_at)
    breaks_now = broken_at is not None and not breach_stays and is_shown
    return Comparison(
        judgement=judgement,
        promise=promise,
        clock=clock,
        retracted=retracted,
        breach_stays=breach_stays,
        breaks_now=breaks_now,
        is_settled=broken_at is None or breach_stays or breaks_now,
        warned=_find_warned(promise, clock, judgement.now),
    )


def _find_warned(promise: Promise, clock: Clock, now: datetime) -> tuple[str, ...]:
    """
    Return the thresholds that were warned of or passed over. A deadline that moves arms again those that lie ahead; one
    that comes back has its own warnings behind it (docs/architecture.md#rule-12).
    """
    warned = promise.state.warned
    if warned and _has_moved(promise.state, clock):
        warned = tuple(text for text in _list_passed(clock, now) if text in warned)
    return tuple(dict.fromkeys((*warned, *promise.warned.get(clock.phase.due_at, ()))))


def _has_moved(before: State, clock: Clock) -> bool:
    return (before.due_at, before.target) != (clock.phase.due_at, clock.phase.target)


def _list_passed(clock: Clock, now: datetime) -> list[str]:
    """Return the thresholds that are reached by `now`, in the order in which they are."""
    return [text for at, text in _list_thresholds(clock) if at <= now]


def _list_thresholds(clock: Clock) -> list[tuple[datetime, str]]:
    """Return the thresholds in the order in which they are reached, each with its instant."""
    phase = clock.phase
    shares = ((share, each) for each in phase.policy.warn_at if (share := each.find_share(phase.target)) is not None)
    found = ((phase.find_threshold(each), str(each)) for _, each in sorted(shares, key=itemgetter(0)))
    return [(at, text) for at, text in found if at is not None]


def _build_state(found: Comparison) -> State:
    """Return what is so of the promise after this judgement."""
    clock, phase, verdict = found.clock, found.clock.phase, found.judgement.verdict
    level, priority = clock.judged.names
    stage, running = _find_stage(found), clock.running
    response = clock.response if stage == "fulfilled" else None
    warned = found.warned
    if running and found.judgement.is_tick:
        warned = tuple(dict.fromkeys((*warned, *_list_passed(clock, found.judgement.now))))
    return State(
        stage=stage,
        service_level=clock.service_level.name,
        priority=clock.priority,
        **_list_details(verdict.details),
        policy_version=phase.policy.version,
        policy_fingerprint=phase.policy.fingerprint,
        opening_id=clock.opening.id,
        started_at=clock.started_at,
        due_at=phase.due_at if phase.promised else None,
        target=phase.target if phase.promised else None,
        at_risk_at=phase.find_threshold(AT_RISK) if running else None,
        warned=warned,
        reminded=_find_reminded(found, stage),
        breached_at=clock.broken_at if found.breach_stays or found.breaks_now else None,
        responded_at=response.time if response else None,
        met=clock.met if response else None,
        overdue=clock.overdue if response else None,
        escalation_level=clock.escalations,
        next_at=_find_next_instant(found, stage, warned),
        reason=_find_reason(clock, stage),
        flags=tuple(map(str, clock.flags)),
        judged_level=None if level == clock.service_level.name else level,
        judged_priority=None if priority == clock.priority else priority,
        **_describe_counting(clock),
    )


def _find_stage(found: Comparison) -> str:
    """
    Return the stage that the promise is in. Whatever ended the clock after its deadline waits until a tick has shown
    that it broke (docs/architecture.md#rule-2).
    """
    clock = found.clock
    if not clock.phase.promised:
        return "cancelled"
    if clock.excluded_by is not None:
        return "excluded"
    if not found.is_settled:
        return "running"
    if clock.phase.unpromised_by is not None:
        return "cancelled"
    if clock.response is not None:
        return "fulfilled"
    if clock.closed_by is not None:
        return "cancelled"
    return "paused" if clock.paused else "running"


def _list_details(details: Details) -> dict[str, Any]:
    return {name: getattr(details, name) for name in Details.__struct_fields__}


def _find_reason(clock: Clock, stage: str) -> str | None:
    """Return why it was cancelled or excluded, None if it was neither."""
    if stage == "cancelled" and clock.phase.unpromised_by is not None:
        return Cause.NO_PROMISE
    ended_by = {"excluded": clock.excluded_by, "cancelled": clock.closed_by}.get(stage)
    return None if ended_by is None else getattr(ended_by.data, "reason", None) or Cause.CLOSED


def _find_next_instant(found: Comparison, stage: str, warned: tuple[str, ...]) -> datetime | None:
    """
    Return when to look again: at a threshold or the deadline of a running clock, a breach that is not shown yet, a
    reminder, or, with the first response, a fact to come.
    """
    clock, next_fact_at = found.clock, found.judgement.verdict.next_fact_at
    instants = [next_fact_at] if next_fact_at and found.promise.objective == FIRST_RESPONSE else []
    if clock.running:
        instants += [at for at, text in _list_thresholds(clock) if text not in warned][:1]
        instants.append(clock.phase.due_at)
    elif clock.broken_at is not None and not found.is_settled:
        instants.append(clock.broken_at)
    else:
        reminded = _find_reminded(found, stage)
        instants += [at for span, at in _list_reminders(found, stage) if span > reminded][:1]
    return min(instants, default=None)


def _list_reminders(found: Comparison, stage: str) -> list[tuple[timedelta, datetime]]:
    """
    Return the spans after the deadline at which to remind of a promise that is broken and unanswered, each with its
    instant; none of a historic breach.
    """
    clock, judgement = found.clock, found.judgement
    if (
        clock.broken_at is None
        or not found.is_settled
        or stage != "running"
        or _is_historic(judgement, clock.broken_at)
    ):
        return []
    instants = ((span, clock.find_overdue(span)) for span in clock.phase.policy.remind_after)
    return [(span, at) for span, at in instants if at is not None]


def _get_reminded(found: Comparison) -> timedelta:
    """Return the last span at which this breach was reminded of."""
    return found.before.reminded if found.breach_stays else ZERO


def _find_reminded(found: Comparison, stage: str) -> timedelta:
    """Return the same after this judgement. Only a tick reminds."""
    reminded, now = _get_reminded(found), found.judgement.now
    if not found.judgement.is_tick:
        return reminded
    return max((reminded, *(span for span, at in _list_reminders(found, stage) if at <= now)))


def _describe_counting(clock: Clock) -> dict[str, Any]:
    """Return how time counts, as fields of the state; none if it counts as it began."""
    phase = clock.phase
    if clock.excluded_by is not None:
        end = max(clock.find_end(NEVER), clock.started_at)
        return {"since": end, "used": clock.measure_elapsed(end), "stopped": True}
    if phase.since == clock.started_at and phase.running:
        return {}
    return {"since": phase.since, "used": phase.used, "stopped": not phase.running}


# ---- one function a kind of decision


def decide_retraction(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    breach = found.retracted
    if breach is None:
        return ()
    reason = _find_retraction_reason(found.clock)
    common = _build_common(
        found, state, BreachRetracted, breach.breached_at, reason, found.judgement.fact_id, number=breach.number
    )
    return (BreachRetracted(**common, **_copy_breach(breach), reason=reason),)


def _find_retraction_reason(clock: Clock) -> Cause:
    """Return why the promise did not break when it was announced that it did."""
    if clock.excluded_by is not None:
        return Cause.EXCLUDED
    if clock.met:
        return Cause.ANSWERED_IN_TIME
    if clock.phase.unpromised_by is not None:
        return Cause.NO_PROMISE
    if clock.closed_by is not None and clock.broken_at is None:
        return Cause.CLOSED
    return Cause.PAUSED if clock.paused and clock.broken_at is None else Cause.DEADLINE_MOVED


def _copy_breach(breach: Breached) -> dict[str, Any]:
    """Return which breach is retracted, with the labels it was announced under, as fields of `BreachRetracted`."""
    return {
        "breach_id": breach.id,
        "number": breach.number,
        "breached_at": breach.breached_at,
        "service_level": breach.service_level,
        "priority": breach.priority,
        "severity": breach.severity,
        "detection": breach.detection,
    }


def decide_start(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    phase = found.clock.phase
    if Applied.KIND in found.promise.counts or not phase.promised:
        return ()
    start = phase.promised_by or found.clock.opening
    return (Applied(**_build_common(found, state, Applied, start.time, get_cause(start.data), start.id)),)


def decide_target_change(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    """Decide that the deadline of a running clock moved, or that a clock that had ended goes on, moved or not."""
    before, clock = found.promise.heard, found.clock
    if Applied.KIND not in found.promise.counts or clock.response or clock.closed_by or clock.phase.unpromised_by:
        return ()
    goes_on = found.promise.has_ended or (state.stage == "running" and _has_moved(before, clock))
    if state.stage == "excluded" or not goes_on:
        return ()
    time, cause, cause_id = _find_target_cause(found)
    number = found.promise.get_next_number(TargetChanged)
    return (
        TargetChanged(
            **_build_common(found, state, TargetChanged, time, cause, cause_id, number=number),
            old_due_at=before.due_at or clock.started_at,
            old_target=before.target or ZERO,
            undoes=found.promise.last_outcome,
        ),
    )


def _find_target_cause(found: Comparison) -> tuple[datetime, Cause, str]:
    """Return when the deadline moved, or the clock went on, why, and the id of the fact that did it."""
    before, clock, judgement = found.before, found.clock, found.judgement
    set_by, cause = clock.phase.set_by, clock.phase.cause
    if before.stage == "excluded" and clock.revoked_by is not None:
        set_by, cause = clock.revoked_by, Cause.EXCLUSION_REVOKED
    elif before.opening_id != clock.opening.id:
        set_by, cause = clock.opening, Cause.OPENING_REPLACED
    elif found.promise.has_ended and not _is_promised_again(found):
        reopened_by = clock.timeline.find_reopened_by(judgement.now)
        if reopened_by is None or not found.promise.was_closed:
            return judgement.now, Cause.CORRECTED, judgement.fact_id or set_by.id
        set_by, cause = reopened_by, Cause.CORRECTED if reopened_by.corrected_by else Cause.REOPENED
    elif set_by.corrected_by is not None:
        cause = Cause.CORRECTED
    elif before.started_at != clock.started_at:
        set_by, cause = clock.opening, Cause.OPENING_REPLACED
    elif set_by is clock.opening:  # what had moved it is withdrawn, or was something else
        return judgement.now, Cause.CORRECTED, judgement.fact_id or set_by.id
    return set_by.time, cause, set_by.asserted_by


def _is_promised_again(found: Comparison) -> bool:
    """Return whether the change that moved the deadline promised something again."""
    phase = found.clock.phase
    before = found.clock.timeline.get_phase_before(phase.set_by.time)
    return found.before.reason == Cause.NO_PROMISE and before.unpromised_by is not None


def decide_warning(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    new = [each for each in _list_thresholds(found.clock) if each[1] in state.warned and each[1] not in found.warned]
    judgement, phase = found.judgement, found.clock.phase
    if not new or _is_historic(judgement, new[-1][0]):
        return ()
    (time, text), number = new[-1], found.promise.get_next_number(WarningRaised)
    cause, cause_id = Cause.THRESHOLD_REACHED, phase.set_by.asserted_by
    common = _build_common(found, state, WarningRaised, time, cause, cause_id, number=number)
    return (WarningRaised(**common, threshold=text, threshold_percent=parse_threshold(text).percent),)


def decide_breach(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    clock, phase, judgement = found.clock, found.clock.phase, found.judgement
    if clock.broken_at is None or not found.breaks_now:
        return ()
    number = found.promise.get_next_number(Breached)
    level, priority = clock.judged.names
    is_used_up_by_change = clock.timeline.measure_elapsed(clock.broken_at) > phase.target
    cause = phase.cause if is_used_up_by_change else Cause.DEADLINE_PASSED
    delay = _measure_delay(clock, clock.broken_at, judgement.now)
    return (
        Breached(
            **_build_common(found, state, Breached, clock.broken_at, cause, phase.set_by.asserted_by, number=number),
            number=number,
            breached_at=clock.broken_at,
            service_level=level,
            priority=priority,
            severity=_get_severity(found),
            detection=_find_detection(judgement, clock.broken_at, delay),
            delay=delay,
            shown_at=found.retracted.shown_at if found.retracted and not judgement.is_tick else judgement.now,
        ),
    )


def _measure_delay(clock: Clock, broken_at: datetime, now: datetime) -> timedelta:
    """Return how long the engine needed to notice a breach, once it knew the facts that make it one."""
    rests_on = [clock.opening, clock.phase.set_by, *([clock.revoked_by] if clock.revoked_by else [])]
    return now - max(broken_at, *(fact.recorded_at for fact in rests_on))


def decide_overdue(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    """Decide to remind of a promise that is still broken: once, if several spans have passed."""
    if state.reminded <= _get_reminded(found):
        return ()
    time = found.clock.find_overdue(state.reminded)
    assert time is not None
    set_by, number = found.clock.phase.set_by, found.promise.get_next_number(ReminderRaised)
    breach = found.promise.breach if found.breach_stays else None
    breach_number = found.promise.get_next_number(Breached)
    breach_id = breach.id if breach else _make_id(found.judgement, found.promise, Breached, breach_number)
    return (
        ReminderRaised(
            **_build_common(found, state, ReminderRaised, time, Cause.STILL_BROKEN, set_by.asserted_by, number=number),
            breach_id=breach_id,
            severity=_get_severity(found),
            after=state.reminded,
        ),
    )


def _is_historic(judgement: Judgement, instant: datetime) -> bool:
    """Return whether it was long before the engine learned of the ticket."""
    return judgement.learned_at - instant > judgement.historic_after


def _find_detection(judgement: Judgement, broken_at: datetime, delay: timedelta) -> Detection:
    """Return `historic` if it broke long before the engine learned of the ticket, `late` if the engine was behind."""
    if _is_historic(judgement, broken_at):
        return "historic"
    return "late" if delay > LATE_AFTER else "live"


def decide_fulfilment(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    """Decide that it was answered; once more, as a revision, if what was announced is not so or was superseded."""
    clock, promise = found.clock, found.promise
    response, met, overdue = clock.response, clock.met, clock.overdue
    if response is None or met is None or overdue is None or state.stage != "fulfilled":
        return ()
    replaced, superseded = promise.answer, promise.outcome
    revision = promise.get_next_number(Fulfilled)
    cause, cause_id = get_cause(response.data), response.asserted_by
    common = _build_common(found, state, Fulfilled, response.time, cause, cause_id, revision=revision)
    if (
        replaced is not None
        and superseded is None
        and (*_get_fulfilled_fields(replaced.state), replaced.elapsed)
        == (*_get_fulfilled_fields(state), common["elapsed"])
    ):
        return ()
    return (
        Fulfilled(
            **common,
            responded_at=response.time,
            met=met,
            overdue=overdue,
            detection=_find_fulfilment_detection(found, response.time),
            fulfilled_by="closed" if isinstance(response.data, Closed) else "responded",
            revision=revision,
            replaces=replaced.id if replaced else None,
            replaced_met=replaced.met if replaced else None,
            undoes=superseded if replaced else None,
        ),
    )


def _find_fulfilment_detection(found: Comparison, fulfilled_at: datetime) -> Detection:
    """Return the detection of the breach in effect; without one, `historic` if it was fulfilled before an import."""
    judgement, broken_at = found.judgement, found.clock.broken_at
    if broken_at is None:
        return "historic" if _is_historic(judgement, fulfilled_at) else "live"
    if found.breach_stays and found.promise.breach is not None:
        return found.promise.breach.detection
    return _find_detection(judgement, broken_at, _measure_delay(found.clock, broken_at, judgement.now))


def _get_fulfilled_fields(state: State) -> tuple[object, ...]:
    """Return what an announcement that the promise is fulfilled says, but for its labels."""
    return (state.responded_at, state.met, state.overdue, state.due_at, state.target, state.started_at)


def decide_cancellation(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    """Decide that the clock ended without an answer: closed, excluded, or nothing is promised any more."""
    clock, was_announced = found.clock, Applied.KIND in found.promise.counts
    if state.reason is None or state.stage == found.before.stage or not (clock.phase.promised or was_announced):
        return ()
    if state.stage == "excluded":
        cause, ended_by = Cause.EXCLUDED, clock.excluded_by
    elif clock.phase.unpromised_by is not None:
        cause, ended_by = Cause.NO_PROMISE, clock.phase.unpromised_by
    else:
        cause, ended_by = Cause.CLOSED, clock.closed_by
    assert ended_by is not None
    number = found.promise.get_next_number(Cancelled)
    return (
        Cancelled(
            **_build_common(found, state, Cancelled, ended_by.time, cause, ended_by.asserted_by, number=number),
            reason=state.reason,
            detection=_find_fulfilment_detection(found, ended_by.time) if clock.broken_at is not None else None,
            undoes=found.promise.last_outcome,
        ),
    )


def decide_escalations(found: Comparison, state: State) -> Sequence[AnnouncedEvent]:
    """Decide each escalation once, with the first response. Announced ones have happened: the numbers say how many."""
    escalations, announced = found.judgement.verdict.escalations, found.judgement.announced_escalations
    if found.promise.objective != FIRST_RESPONSE or len(escalations) == len(announced):
        return ()
    newest_first = (fact for fact in reversed(escalations) if (fact.source, fact.id) not in announced)
    new = list(islice(newest_first, len(escalations) - len(announced)))[::-1]
    first = found.promise.get_next_number(EscalationRaised)
    return [_build_escalation(found, state, fact, number) for number, fact in enumerate(new, first)]


def _build_escalation(found: Comparison, state: State, fact: Fact, number: int) -> EscalationRaised:
    return EscalationRaised(
        **_build_common(found, state, EscalationRaised, fact.time, Cause.ESCALATED, fact.id, number=number),
        number=number,
        source=fact.source,
        tell=list(found.clock.service_level.tell),
        severity=_get_severity(found),
        reason=getattr(fact.data, "reason", None),
    )


DECISIONS: tuple[Callable[[Comparison, State], Sequence[AnnouncedEvent]], ...] = (
    decide_retraction,     # sla.breach_retracted
    decide_start,          # sla.applied
    decide_target_change,  # sla.target_changed
    decide_warning,        # sla.warning
    decide_breach,         # sla.breached
    decide_overdue,        # sla.overdue
    decide_fulfilment,     # sla.fulfilled
    decide_cancellation,   # sla.cancelled
    decide_escalations,    # sla.escalated
)  # fmt: skip


def _has_vanished(promise: Promise) -> bool:
    return promise.state.stage == "cancelled" and promise.state.reason == Cause.CORRECTED


def _cancel_vanished(judgement: Judgement, promise: Promise) -> list[DecidedEvent]:
    """
    Cancel a promise whose clock never started, as it turned out: by a late-arriving fact about what started it, or
    what stopped the one before it.
    """
    before = promise.state
    state = replace(
        before, stage="cancelled", reason=Cause.CORRECTED, breached_at=None, responded_at=None, met=None, overdue=None,
        at_risk_at=None, next_at=None, since=None, used=ZERO, stopped=True,
    )  # fmt: skip
    common: dict[str, Any] = {
        "at": judgement.now, "objective": promise.objective, "cycle": promise.cycle, "state": state,
        "time": judgement.now, "cause": Cause.CORRECTED, "cause_id": judgement.fact_id, "elapsed": ZERO,
    }  # fmt: skip
    events: list[DecidedEvent] = []
    if breach := promise.breach:
        events.append(
            BreachRetracted(
                **common | {"time": breach.breached_at},
                id=_make_id(judgement, promise, BreachRetracted, breach.number),
                **_copy_breach(breach),
                reason=Cause.CORRECTED,
            )
        )
    event_id = _make_id(judgement, promise, Cancelled, promise.get_next_number(Cancelled))
    events.append(Cancelled(**common, id=event_id, reason=Cause.CORRECTED, undoes=promise.last_outcome))
    return events


# ---- what announcements have in common


def _get_severity(found: Comparison) -> str:
    clock = found.clock
    return clock.labels.policy.get_severity(clock.priority, clock.escalations)


def _build_common(
    found: Comparison,
    state: State,
    kind: type[Announced],
    time: datetime,
    cause: Cause,
    cause_id: str | None,
    *,
    number: int = 1,
    revision: int = 1,
) -> dict[str, Any]:
    """Return the fields of `Announced`, of a decision about `time`."""
    return {
        "at": found.judgement.now,
        "state": state,
        "objective": found.promise.objective,
        "cycle": found.promise.cycle,
        "id": _make_id(found.judgement, found.promise, kind, number, revision),
        "time": time,
        "cause": str(cause),
        "cause_id": cause_id,
        "elapsed": found.clock.measure_elapsed(found.clock.find_end(time)),
    }


def _make_id(judgement: Judgement, promise: Promise, kind: type[Announced], number: int, revision: int = 1) -> str:
    """Return the id of an announcement: the same one whenever and wherever it is decided."""
    return make_event_id(judgement.ticket, promise.objective, promise.cycle, kind.KIND, number, revision)
