"""Why a promise is as it is: facts, decisions, counted time and the deadline. How that looks is not in here.

Nothing is judged in here: clocks are those of judge.py, and what counts is what calendar.py says.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from events.tickets import Escalated, Excluded, Responded
from sla.calendar import Segment
from sla.judge import NEVER, ZERO, Cause, Clock, CycleKey, Fact, Facts, Phase, get_cause, judge
from sla.log import Announced, AnnouncedEvent, BreachRetracted, Event, FactRecorded, StateUpdated
from sla.policy import FIRST_RESPONSE
from sla.targets import Threshold
from sla.versions import Versions


class FactEntry(NamedTuple):
    """
    A fact as corrected, and as it was recorded. `out_of_order`: the log already had something about a later instant, a
    fact or a decision.
    """

    fact: Fact
    original: FactRecorded
    out_of_order: bool

    @property
    def delay(self) -> timedelta:
        """Time on the wall clock from the fact to the moment the broker had it."""
        return max(self.original.at - self.original.time, ZERO)


class DecisionEntry(NamedTuple):
    """A decision of the log; `retracted_at` is when a breach was retracted, None if it was not."""

    decision: StateUpdated | AnnouncedEvent
    retracted_at: datetime | None


class TimeSegment(NamedTuple):
    """Time [start, end) of a clock, whether it counts and why, in which phase; `overdue` if after the deadline."""

    start: datetime
    end: datetime
    counted: bool
    reason: str
    phase: Phase
    overdue: bool


class DeadlineStep(NamedTuple):
    """The deadline from an instant on, and the facts that made it so, after `used` of the support time was gone."""

    at: datetime
    cause: str
    facts: tuple[Fact, ...]
    phase: Phase
    used: timedelta

    @property
    def remaining(self) -> timedelta:
        """What was left of the target; zero if more was used."""
        return max(self.phase.target - self.used, ZERO)


class ClockExplanation(NamedTuple):
    """
    One clock of a ticket: the segments go without gaps from its start to its end or, if it goes on, to the instant of
    the question, and the counted ones add up to `elapsed`. The last of the steps is the deadline in effect.
    """

    objective: str
    cycle: int
    clock: Clock
    elapsed: timedelta
    segments: tuple[TimeSegment, ...]
    steps: tuple[DeadlineStep, ...]

    @property
    def ended_by(self) -> Fact | None:
        """The fact that ended it, or that closed the ticket so that it stopped; None if it goes on."""
        clock = self.clock
        ends = [it for it in (clock.response, clock.excluded_by, clock.phase.unpromised_by) if it is not None]
        return min(ends, key=lambda fact: fact.time, default=clock.closed_by)

    @property
    def remaining(self) -> timedelta:
        """What is left of the target; zero if more was used."""
        return max(self.clock.phase.target - self.elapsed, ZERO)

    @property
    def met(self) -> bool | None:
        """Whether the answer came in time; None if there is none, or the promise does not apply."""
        return self.clock.met if self.clock.excluded_by is None else None

    @property
    def overdue(self) -> timedelta | None:
        """Support time by which the answer was too late; None as `met` is."""
        return self.clock.overdue if self.clock.excluded_by is None else None

    @property
    def thresholds(self) -> tuple[tuple[Threshold, datetime], ...]:
        """When to warn, each threshold with its instant; none while the clock stands still."""
        phase = self.clock.phase
        found = ((each, phase.find_threshold(each)) for each in (phase.policy.warn_at if phase.running else ()))
        return tuple((each, at) for each, at in found if at is not None)


class Explanation(NamedTuple):
    """A ticket at one instant. Its clocks are those of what was promised, that of the first response before others."""

    facts: tuple[FactEntry, ...]
    decisions: tuple[DecisionEntry, ...]
    clocks: tuple[ClockExplanation, ...]


def explain(facts: Facts, events: Sequence[Event], versions: Versions, at: datetime) -> Explanation:
    """
    Explain a ticket at `at`: what had happened by then and was decided about it, of the events given. `facts` are those
    of the events. Raises KeyError as `judge` does.
    """
    verdict = judge(facts, versions, at)
    clocks: dict[CycleKey, Clock] = {(FIRST_RESPONSE, 1): verdict.clock, **verdict.others} if verdict.clock else {}
    return Explanation(
        facts=tuple(_build_fact_entries(facts, events, at)),
        decisions=tuple(_build_decision_entries(events, at)),
        clocks=tuple(_explain_clock(*key, clock, facts, at) for key, clock in clocks.items() if clock.phase.promised),
    )


def _build_fact_entries(facts: Facts, events: Iterable[Event], at: datetime) -> Iterator[FactEntry]:
    recorded: dict[tuple[str, str], tuple[FactRecorded, bool]] = {}
    newest: datetime | None = None
    for event in events:
        if isinstance(event, FactRecorded):
            recorded[event.source, event.id] = (event, newest is not None and event.time < newest)
        if isinstance(event, FactRecorded | Announced):
            newest = max(newest or event.time, event.time)
    for fact in facts:
        if fact.time <= at:
            yield FactEntry(fact, *recorded[fact.source, fact.id])


def _build_decision_entries(events: Sequence[Event], at: datetime) -> Iterator[DecisionEntry]:
    retracted = {event.breach_id: event.at for event in events if isinstance(event, BreachRetracted)}
    for event in events:
        if isinstance(event, AnnouncedEvent) and event.time <= at:
            yield DecisionEntry(event, retracted.get(event.id))
        elif isinstance(event, StateUpdated) and event.at <= at:
            yield DecisionEntry(event, None)


def _explain_clock(objective: str, cycle: int, clock: Clock, facts: Facts, at: datetime) -> ClockExplanation:
    end = clock.find_end(at)
    return ClockExplanation(
        objective=objective,
        cycle=cycle,
        clock=clock,
        elapsed=clock.measure_elapsed(end),
        segments=(*_build_segments(clock, end), *_build_excluded_segment(clock, end, at)),
        steps=tuple(_build_steps(clock, at, facts)),
    )


def _build_segments(clock: Clock, end: datetime) -> Iterator[TimeSegment]:
    """Cut each phase by the calendar, and at the deadline if it was missed."""
    late_from = clock.broken_at or (clock.phase.due_at if clock.met is False and not clock.excluded_by else NEVER)
    for since, until, phase in clock.timeline.iterate_phases(end):
        if clock.ran_on and since >= clock.phase.since:
            phase = clock.phase
        for start, stop in ((since, min(until, late_from)), (max(since, late_from), until)):
            if start < stop:
                for segment in _cut_phase(phase, start, stop):
                    yield TimeSegment(*segment, phase, overdue=start >= late_from)


def _cut_phase(phase: Phase, start: datetime, end: datetime) -> Iterator[Segment]:
    if not phase.running:
        yield Segment(start, end, False, _explain_stop(phase))
        return
    counted = f"{phase.terms.calendar} hours, policy {phase.policy.version}"
    for segment in phase.terms.hours.cut_segments(start, end):
        yield segment._replace(reason=counted) if segment.counted else segment


def _explain_stop(phase: Phase) -> str:
    if phase.unpromised_by is not None:
        return "no promise"
    return "paused" if phase.labels.closed_by is None else "closed"


def _build_excluded_segment(clock: Clock, end: datetime, at: datetime) -> Iterator[TimeSegment]:
    """Yield the time from the exclusion on, while it is in effect; nothing if an answer had ended the clock before."""
    fact = clock.excluded_by
    if fact is None or not isinstance(fact.data, Excluded) or (clock.response and clock.response.time < fact.time):
        return
    start = max(end, clock.started_at)
    if start < at:
        yield TimeSegment(start, at, False, f"excluded: {fact.data.reason}", clock.phase, overdue=False)


def _build_steps(clock: Clock, at: datetime, facts: Facts) -> Iterator[DeadlineStep]:
    """
    Yield each change that shows in what the clock is judged by, or in the labels, until what fulfils it; a closing that
    does stops nothing.
    """
    timeline, before = clock.timeline, None
    end = max(clock.response.time if clock.response else at, clock.started_at)
    for since, _, phase in timeline.iterate_phases(end):
        if before is not None and clock.response is not None and phase.labels.closed_by == clock.response:
            continue
        if before is None:
            yield DeadlineStep(since, get_cause(clock.opening.data), (clock.opening,), phase, ZERO)
        elif _get_visible(before) != _get_visible(phase):
            changes = _find_changes_at(since, facts.changes)
            yield DeadlineStep(since, _find_step_cause(phase, changes), changes, phase, phase.measure_elapsed(since))
        before = phase
    if clock.response is not None and before is not None and _get_visible(before) != _get_visible(clock.phase):
        cause = get_cause(clock.response.data)
        yield DeadlineStep(end, cause, (clock.response,), clock.phase, clock.phase.measure_elapsed(end))


def _find_changes_at(time: datetime, changes: Sequence[Fact]) -> tuple[Fact, ...]:
    at_once = changes[bisect_left(changes, time, key=_get_time) : bisect_right(changes, time, key=_get_time)]
    return tuple(fact for fact in at_once if not isinstance(fact.data, Responded | Escalated))


def _find_step_cause(phase: Phase, changes: Sequence[Fact]) -> Cause:
    return phase.cause if phase.set_by in changes else get_cause(changes[-1].data)


def _get_visible(phase: Phase) -> tuple[object, ...]:
    labels = phase.labels
    return (
        *(phase.level, phase.terms, phase.due_at, phase.running),
        *(labels.policy, labels.service_level, labels.priority),
    )


def _get_time(fact: Fact) -> datetime:
    return fact.time
