"""Why a promise stands as it does: facts, decisions, counted time, the deadline. How that looks is not in here.

Nothing is judged in here: clocks are those of judge.py, and what counts is what calendar.py says.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from events.tickets import Excluded
from sla.calendar import Segment
from sla.judge import NEVER, ZERO, Clock, CycleKey, Fact, Facts, Phase, judge
from sla.log import Announced, BreachRetracted, Decision, Event, FactRecorded
from sla.policy import FIRST_RESPONSE
from sla.versions import Versions


class FactEntry(NamedTuple):
    """
    A fact as it stands, and as it was told first. `out_of_order`: the log already had something about a later instant,
    a fact or a decision.
    """

    fact: Fact
    original: FactRecorded
    out_of_order: bool


class DecisionEntry(NamedTuple):
    """A decision of the log; `withdrawn_at` is when a breach was withdrawn, if it was."""

    decision: Decision
    retracted_at: datetime | None


class TimeSegment(NamedTuple):
    """Time [start, end) of a clock, whether it counts and why, by which stretch; `overdue` is after the deadline."""

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
    One clock of a ticket: the parts go without gaps from its start to its end or, if it goes on, to the instant of the
    question, and the counted ones add up to `elapsed`. The last of the steps is the deadline that stands.
    """

    objective: str
    cycle: int
    clock: Clock
    elapsed: timedelta
    segments: tuple[TimeSegment, ...]
    steps: tuple[DeadlineStep, ...]

    @property
    def ended_by(self) -> Fact | None:
        """What ended it, or closed the ticket so that it stands still; None if it goes on."""
        clock = self.clock
        ends = [fact for fact in (clock.response, clock.excluded_by) if fact is not None]
        return min(ends, key=lambda fact: fact.time, default=clock.closed_by)


class Explanation(NamedTuple):
    """What there is to say of a ticket at one instant. The first account is that of the first response."""

    facts: tuple[FactEntry, ...]
    decisions: tuple[DecisionEntry, ...]
    clocks: tuple[ClockExplanation, ...]


def explain(facts: Facts, events: Sequence[Event], versions: Versions, at: datetime) -> Explanation:
    """
    The story of a ticket up to `at`: what had happened by then and was decided about it, of the events we are given.
    `facts` are those of the events. Raises KeyError as `judge` does.
    """
    verdict = judge(facts, versions, at)
    clocks: dict[CycleKey, Clock] = {(FIRST_RESPONSE, 1): verdict.clock, **verdict.others} if verdict.clock else {}
    return Explanation(
        facts=tuple(_build_fact_entries(facts, events, at)),
        decisions=tuple(_build_decision_entries(events, at)),
        clocks=tuple(_explain_clock(*spell, clock, facts, at) for spell, clock in clocks.items()),
    )


def _build_fact_entries(facts: Facts, events: Iterable[Event], at: datetime) -> Iterator[FactEntry]:
    told: dict[tuple[str, str], tuple[FactRecorded, bool]] = {}
    newest: datetime | None = None
    for event in events:
        if isinstance(event, FactRecorded):
            told[event.source, event.id] = (event, newest is not None and event.time < newest)
        if isinstance(event, FactRecorded | Announced):
            newest = max(newest or event.time, event.time)
    for fact in facts:
        if fact.time <= at:
            yield FactEntry(fact, *told[fact.source, fact.id])


def _build_decision_entries(events: Sequence[Event], at: datetime) -> Iterator[DecisionEntry]:
    withdrawn = {event.breach_id: event.at for event in events if isinstance(event, BreachRetracted)}
    for event in events:
        if isinstance(event, Announced) and event.time <= at:
            yield DecisionEntry(event, withdrawn.get(event.id))
        elif isinstance(event, Decision) and not isinstance(event, Announced) and event.at <= at:
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
    """Each stretch cut by the calendar, and at the deadline if it was missed."""
    late_from = clock.broken_at or (clock.phase.due_at if clock.met is False and not clock.excluded_by else NEVER)
    for since, until, stretch in clock.timeline.iterate_phases(end):
        for start, stop in ((since, min(until, late_from)), (max(since, late_from), until)):
            if start < stop:
                for segment in _cut_phase(stretch, start, stop):
                    yield TimeSegment(*segment, stretch, overdue=start >= late_from)


def _cut_phase(stretch: Phase, start: datetime, end: datetime) -> Iterator[Segment]:
    if not stretch.running:
        yield Segment(start, end, False, "paused" if stretch.closed_by is None else "closed")
        return
    counted = f"{stretch.level.name} hours, policy {stretch.policy.version}"
    for segment in stretch.level.hours.cut_segments(start, end):
        yield segment._replace(reason=counted) if segment.counted else segment


def _build_excluded_segment(clock: Clock, end: datetime, at: datetime) -> Iterator[TimeSegment]:
    """From the exclusion on nothing counts, for as long as it stands; unless an answer had ended the clock before."""
    fact = clock.excluded_by
    if fact is None or not isinstance(fact.data, Excluded) or (clock.response and clock.response.time < fact.time):
        return
    start = max(end, clock.started_at)
    if start < at:
        yield TimeSegment(start, at, False, f"excluded: {fact.data.reason}", clock.phase, overdue=False)


def _build_steps(clock: Clock, at: datetime, facts: Facts) -> Iterator[DeadlineStep]:
    """Every change until the response that is to be seen in what the clock is judged by, or in the labels."""
    course, before = clock.timeline, None
    end = max(clock.response.time if clock.response else at, course.start.time)
    for since, _, stretch in course.iterate_phases(end):
        if before is None:
            yield DeadlineStep(since, course.started_by, (course.start,), stretch, ZERO)
        elif _get_visible(before) != _get_visible(stretch):
            made = _find_changes_at(since, facts.changes)
            yield DeadlineStep(
                since, _find_step_cause(stretch, since, made), made, stretch, stretch.measure_elapsed(since)
            )
        before = stretch
    if clock.response is not None and before is not None and _get_visible(before) != _get_visible(clock.phase):
        yield DeadlineStep(end, "responded", (clock.response,), clock.phase, clock.phase.measure_elapsed(end))


def _find_changes_at(time: datetime, changes: Sequence[Fact]) -> tuple[Fact, ...]:
    return tuple(changes[bisect_left(changes, time, key=_get_time) : bisect_right(changes, time, key=_get_time)])


def _find_step_cause(stretch: Phase, since: datetime, made: Sequence[Fact]) -> str:
    return stretch.cause if stretch.set_by in made else made[-1].data.type.removeprefix("ticket.")


def _get_visible(stretch: Phase) -> tuple[object, ...]:
    return (
        *(stretch.level, stretch.target, stretch.due_at, stretch.running),
        *(stretch.policy, stretch.service_level, stretch.priority),
    )


def _get_time(fact: Fact) -> datetime:
    return fact.time
