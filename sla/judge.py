"""The judgement: what a ticket's facts mean for its promise at one instant. Nothing is remembered in here."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import reduce
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ValidationError

from events.tickets import (
    Closed,
    Corrected,
    CustomerReplied,
    Escalated,
    Excluded,
    ExclusionRevoked,
    Opened,
    Paused,
    PolicyChanged,
    PriorityChanged,
    Reopened,
    Responded,
    Resumed,
    ServiceLevelChanged,
    TicketData,
)
from sla.policy import FIRST_RESPONSE, Level, Objective, Policy
from sla.versions import Versions

ZERO = timedelta(0)
NEVER = datetime.max.replace(tzinfo=UTC)
AT_RISK_PERCENT = 75

CycleKey = tuple[str, int]  # an objective, and its cycle from 1
_Key = tuple[str, str]  # source and id of a fact


class Fact(Struct, frozen=True):
    """
    Something that happened to a ticket. `time` is when it happened, `recorded_at` when the broker stored it, and
    `corrected_by` the id of the fact that says so, if it was told wrong at first.
    """

    source: str
    id: str
    time: datetime
    data: TicketData
    sequence: str | None
    recorded_at: datetime
    corrected_by: str | None = None

    @property
    def asserted_by(self) -> str:
        """The id of the fact to which we owe what it says."""
        return self.corrected_by or self.id


class Cause(StrEnum):
    """Why a decision was made."""

    OPENED = "opened"
    OPENING_REPLACED = "opening_replaced"
    CUSTOMER_REPLIED = "customer_replied"
    PRIORITY_CHANGED = "priority_changed"
    PRIORITY_RAISED = "priority_raised"
    SERVICE_LEVEL_CHANGED = "service_level_changed"
    POLICY_CHANGED = "policy_changed"
    THRESHOLD_REACHED = "threshold_reached"
    DEADLINE_PASSED = "deadline_passed"
    RESPONDED = "responded"
    ESCALATED = "escalated"
    ANSWERED_IN_TIME = "answered_in_time"
    DEADLINE_MOVED = "deadline_moved"
    CLOSED = "closed"
    REOPENED = "reopened"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXCLUDED = "excluded"
    EXCLUSION_REVOKED = "exclusion_revoked"
    CORRECTED = "corrected"


class Flag(StrEnum):
    """What is odd about the facts of a ticket: they are kept, and somebody should look."""

    OPENED_AGAIN = "opened_again"
    CHANNEL_NOT_ENTITLED = "channel_not_entitled"
    REOPENED_WITHOUT_CLOSE = "reopened_without_close"
    RESUMED_WITHOUT_PAUSE = "resumed_without_pause"
    REVOKED_WITHOUT_EXCLUSION = "revoked_without_exclusion"
    REASON_NOT_IN_POLICY = "reason_not_in_policy"
    CORRECTS_NOTHING = "corrects_nothing"


def get_fold_order(fact: Fact) -> tuple[datetime, int, bool, str, str, str]:
    """
    The order in which facts are folded: when they happened; at one instant opened, changes, responded, escalated;
    then `sequence` as text, a fact without it first; then source and id.
    """
    return (fact.time, get_rank(fact.data), fact.sequence is not None, fact.sequence or "", fact.source, fact.id)


def get_rank(data: TicketData) -> int:
    match data:
        case Opened():
            return 0
        case Responded():
            return 2
        case Escalated():
            return 3
        case _:
            return 1


class Phase(Struct, frozen=True):
    """
    The clock from one change to the next. It is judged by `level` and `target`, of which `used` support time was gone
    at `since`; it runs out at `due_at`, or would have when it stopped. Labels are those that the facts give, whatever
    it is judged by: once broken, a promise stays judged as it was (section 4, rule 4), and by the policy it was.
    """

    since: datetime
    used: timedelta
    level: Level
    target: timedelta
    due_at: datetime
    running: bool
    set_by: Fact
    cause: Cause
    broken_at: datetime | None
    policy: Policy
    service_level: Level
    priority: str
    closed_by: Fact | None = None
    paused_by: Fact | None = None
    flags: tuple[Flag, ...] = ()

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Support time used up to `at`, which is in this stretch."""
        return self.used + self.level.hours.measure(self.since, at) if self.running else self.used

    def find_threshold(self, percent: int) -> datetime:
        """The earliest instant, not before the deadline was set, at which `percent` of the target is used."""
        share = -(-self.target * percent // 100)
        return self.since if share <= self.used else self.level.hours.find_due(self.since, share - self.used)

    def resume_at(self, at: datetime, set_by: Fact, cause: Cause) -> "Phase":
        """
        The same, running from `at` on with what is left of the target. More used than that: the promise breaks at
        this instant, never before it.
        """
        used = self.measure_elapsed(at)
        if used > self.target:
            cause, due_at = Cause.PRIORITY_RAISED if cause is Cause.PRIORITY_CHANGED else cause, at
        else:
            due_at = self.level.hours.find_due(at, self.target - used)
        return replace(self, since=at, used=used, due_at=due_at, running=True, set_by=set_by, cause=cause)


@dataclass(frozen=True, slots=True)
class Clock:
    """
    The clock of an opened ticket, in times at which things happened, up to the response if there is one: `stretch` is
    what it is judged by, `said` what the facts say now. `broken_at` is None while the promise holds; `excluded_by` is
    the fact for which it does not apply, `revoked_by` the last one that said so of an exclusion.
    """

    opening: Fact
    phase: Phase
    current: Phase
    response: Fact | None
    broken_at: datetime | None
    overdue: timedelta | None
    excluded_by: Fact | None
    revoked_by: Fact | None
    flags: tuple[Flag, ...]
    timeline: "Timeline" = field(compare=False)

    @property
    def started_at(self) -> datetime:
        return self.opening.time

    @property
    def met(self) -> bool | None:
        """Met if and only if the response is not later than the deadline: decided on instants (section 4, rule 1)."""
        return None if self.response is None else self.response.time <= self.phase.due_at

    @property
    def service_level(self) -> Level:
        return self.current.service_level

    @property
    def priority(self) -> str:
        return self.current.priority

    @property
    def closed_by(self) -> Fact | None:
        return self.current.closed_by

    @property
    def paused(self) -> bool:
        """Does it wait, and does the policy let it?"""
        return self.current.paused_by is not None and self.current.policy.objectives[self.timeline.objective].pauses

    @property
    def running(self) -> bool:
        """Does time count towards a deadline that may still be kept?"""
        ended = self.response or self.broken_at or self.excluded_by
        return ended is None and self.phase.running

    def find_end(self, now: datetime) -> datetime:
        """When it ended: with the response, or when it was excluded; or `now`. A closed clock only stands still."""
        return min([now, *(fact.time for fact in (self.response, self.excluded_by) if fact is not None)])

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Support time used from the opening up to `at`; zero before it."""
        return self.timeline.get_phase_at(at).measure_elapsed(at) if at > self.started_at else ZERO


class Verdict(Struct, frozen=True):
    """
    What is so at one instant. `clock` is that of the first response, None until the ticket is opened; `others` are
    those of other objectives, by objective and cycle. `ahead` is the next fact yet to happen.
    """

    clock: Clock | None
    escalations: tuple[Fact, ...]
    next_fact_at: datetime | None
    others: Mapping[CycleKey, Clock] = {}


@dataclass(slots=True)
class Facts:
    """
    The facts of a ticket as they were told or corrected, sorted by `order`, and those of a kind apart. Remembers the
    course of the clock: a ticket of thousands of facts is not folded from its beginning for each new one (10,000: 0.1
    ms instead of 14).
    """

    every: list[Fact] = field(default_factory=list)
    openings: list[Fact] = field(default_factory=list, compare=False)
    changes: list[Fact] = field(default_factory=list, compare=False)
    moves: list[Fact] = field(default_factory=list, compare=False)
    answers: list[Fact] = field(default_factory=list, compare=False)
    replies: list[Fact] = field(default_factory=list, compare=False)
    escalations: list[Fact] = field(default_factory=list, compare=False)
    exclusions: list[Fact] = field(default_factory=list, compare=False)
    _corrections: dict[_Key, list[Fact]] = field(default_factory=dict, compare=False)
    _original: dict[_Key, Fact] = field(default_factory=dict, compare=False)
    _timelines: dict[tuple[str, _Key], "Timeline"] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.every)

    @property
    def has_stray_correction(self) -> bool:
        """Is there a correction of a fact that nobody has told?"""
        return len(self._corrections) > len(self._original)

    def add(self, fact: Fact) -> None:
        """One more, whenever it happened. A correction and what it corrects come in any order."""
        insort(self.every, fact, key=get_fold_order)
        if isinstance(fact.data, Corrected):
            key = (fact.source, fact.data.corrects)
            insort(self._corrections.setdefault(key, []), fact, key=get_fold_order)
            facts = (known for known in self.every if not isinstance(known.data, Corrected))
            standing = next((known for known in facts if make_fact_key(known) == key), None)
        else:
            key = make_fact_key(fact)
            standing = fact
            self._insert(fact)
        if standing is not None and key in self._corrections:
            self._correct(standing, self._original.setdefault(key, standing), self._corrections[key])

    def _correct(self, standing: Fact, told: Fact, corrections: Sequence[Fact]) -> None:
        """Replaces a fact from the start, by what was told and all its corrections, each over the one before it."""
        for lists in (self.every, *self._find_lists(standing)):
            del lists[bisect_left(lists, get_fold_order(standing), key=get_fold_order)]
        right = reduce(apply_correction, corrections, told)
        insort(self.every, right, key=get_fold_order)
        self._insert(right)

    def _insert(self, fact: Fact) -> None:
        for each in self._find_lists(fact):
            insort(each, fact, key=get_fold_order)

    def _find_lists(self, fact: Fact) -> Sequence[list[Fact]]:
        """Where it belongs, apart from `every`; what was folded of it before is forgotten."""
        match fact.data:
            case Opened():
                return (self.openings,)
            case PriorityChanged() | ServiceLevelChanged() | Closed() | Reopened() | Paused() | Resumed():
                self._truncate_timelines(fact.time)
                return (self.changes,)
            case PolicyChanged():
                self._truncate_timelines(fact.time)
                return (self.changes, self.moves)
            case Responded(by=by):
                return (self.answers,) if by == "agent" else ()  # an automatic acknowledgement is not a first response
            case CustomerReplied():
                return (self.replies,)
            case Escalated():
                return (self.escalations,)
            case Excluded() | ExclusionRevoked():
                return (self.exclusions,)
            case Corrected():
                return ()
            case _:
                assert_never(fact.data)

    def _truncate_timelines(self, time: datetime) -> None:
        for course in self._timelines.values():
            course.truncate(time)

    def get_timeline(
        self, objective: str, start: Fact, versions: Versions, labels: "Phase | None" = None
    ) -> "Timeline":
        """The course of a clock from its start on; `labels` are what the facts said then, if it is not the opening."""
        key = (objective, make_fact_key(start))
        course = self._timelines.get(key)
        if course is None or (course.start, course.versions, course.labels) != (start, versions, labels):
            course = self._timelines[key] = Timeline(objective, start, labels, versions)
        return course

    def copy_with(self, fact: Fact) -> "Facts":
        """What they would be; these stay as they are."""
        more = Facts()
        for each in (*self._original.values(), *self.every):
            if make_fact_key(each) not in self._original or each.corrected_by is None:
                more.add(each)
        more.add(fact)
        return more


def make_fact_key(fact: Fact) -> _Key:
    return (fact.source, fact.id)


def apply_correction(fact: Fact, correction: Fact) -> Fact:
    """What this kind of fact does not say is left out of a correction, and so is what it must not say."""
    assert isinstance(correction.data, Corrected)
    given = correction.data.model_dump(exclude={"corrects", "time"}, exclude_none=True)
    try:
        data = type(fact.data).model_validate(fact.data.model_dump() | given)
    except ValidationError:
        data = fact.data
    return replace(
        fact,
        data=data,
        time=correction.data.time or fact.time,
        recorded_at=max(fact.recorded_at, correction.recorded_at),
        corrected_by=correction.id,
    )


def judge(facts: Facts, versions: Versions, now: datetime) -> Verdict:
    """
    Fold the facts that have happened by `now`. Pure: the same facts give the same verdict, whenever they arrived.
    Raises KeyError for a level or priority that the version in force does not have (checked on arrival).
    """
    ahead = count_until(facts.every, now)
    escalations = tuple(facts.escalations[: count_until(facts.escalations, now)])
    following = facts.every[ahead].time if ahead < len(facts.every) else None
    if not count_until(facts.openings, now):
        return Verdict(None, escalations, following)
    opening = facts.openings[0]
    course = facts.get_timeline(FIRST_RESPONSE, opening, versions)
    before = bisect_left(facts.changes, opening.time, key=get_time)  # superseded by the opening
    course.fold(facts.changes, before, count_until(facts.changes, now))
    first = _judge_clock(facts, course, _find_response(facts.answers, course, None, now), now)
    if len(course.policy.objectives) == 1:
        return Verdict(first, escalations, following)
    return Verdict(first, escalations, following, dict(_judge_other_objectives(facts, course, first, now)))


def _judge_other_objectives(
    facts: Facts, base: "Timeline", first: Clock, now: datetime
) -> Iterator[tuple[CycleKey, Clock]]:
    """The clocks of the other objectives, each cycle judged as the first response is."""
    for objective in base.policy.objectives.values():
        if objective.name == FIRST_RESPONSE:
            continue
        for cycle, (start, stop) in enumerate(_find_cycles(objective, facts, base, first, now), 1):
            labels = None if isinstance(start.data, Opened) else _find_labels(start.time, objective, facts, base)
            course = facts.get_timeline(objective.name, start, base.versions, labels)
            course.fold(
                facts.changes, bisect_left(facts.changes, start.time, key=get_time), count_until(facts.changes, now)
            )
            yield (objective.name, cycle), _judge_clock(facts, course, stop, now)


def _find_cycles(
    objective: Objective, facts: Facts, base: "Timeline", first: Clock, now: datetime
) -> Iterator[tuple[Fact, Fact | None]]:
    """From which fact to which a clock runs, cycle by cycle; it has not stopped if there is no second one."""
    closed, reopened = base.find_closings(facts.changes, now)
    if objective.starts == "opened":
        starts: Sequence[Fact] = [base.start, *(reopened if objective.stops == "closed" else ())]
    elif first.response is None:
        return
    else:
        starts = facts.replies[
            bisect_right(facts.replies, first.response.time, key=get_time) : count_until(facts.replies, now)
        ]
    stop: Fact | None = None
    for start in starts:
        if stop is not None and (start.time <= stop.time or not objective.repeats):
            continue
        if objective.stops == "closed" and not objective.repeats:
            yield start, base.get_phase_at(now).closed_by  # the same clock goes on when it is reopened
            return
        if objective.stops == "closed":
            stop = next((fact for fact in closed if fact.time >= start.time), None)
        else:
            stop = _find_response(facts.answers, base, None if start is base.start else start.time, now)
        yield start, stop
        if stop is None:
            return


def _find_labels(time: datetime, objective: Objective, facts: Facts, base: "Timeline") -> "Phase":
    """
    What the facts say when another clock begins. Its version is the last one that the ticket was moved to, though the
    first response was given or broken by then, and though it stayed where it was: of those that can judge this clock.
    """
    labels = base.get_phase_at(time)
    if not facts.moves:
        return labels
    level, priority = labels.service_level.name, labels.priority
    moves = (move.data for move in facts.moves if base.start.time <= move.time <= time)
    named = (base.versions.get_named(move.policy_version) for move in moves if isinstance(move, PolicyChanged))
    for policy in reversed((base.policy, *named)):
        if objective.name in policy.objectives and level in policy.levels and priority in policy.priorities:
            return replace(labels, policy=policy, service_level=policy.get_level(level))
    return labels


def get_time(fact: Fact) -> datetime:
    return fact.time


def count_until(facts: Sequence[Fact], now: datetime) -> int:
    """How many have happened by then."""
    return bisect_right(facts, now, key=get_time)


def _judge_clock(facts: Facts, course: "Timeline", response: Fact | None, now: datetime) -> Clock:
    exclusions = facts.exclusions[: count_until(facts.exclusions, now)]
    said = course.get_phase_at(now)
    end = now if response is None else max(response.time, course.start.time)  # a change after that alters nothing
    stretch = course.get_phase_at(end)
    if response is not None and not stretch.running and stretch.broken_at is None:
        stretch = stretch.resume_at(end, stretch.set_by, stretch.cause)  # whoever answers does not wait any longer
    answered = response is not None and response.time <= stretch.due_at
    excluded_by = _find_exclusion(exclusions, stretch.policy)
    broken = excluded_by is None and not answered and stretch.running and now > stretch.due_at
    return Clock(
        opening=course.start,
        phase=stretch,
        current=said,
        response=response,
        broken_at=stretch.due_at if broken or (stretch.broken_at and excluded_by is None) else None,
        overdue=_measure_overdue(course, stretch, response),
        excluded_by=excluded_by,
        revoked_by=next((fact for fact in reversed(exclusions) if isinstance(fact.data, ExclusionRevoked)), None),
        flags=_collect_flags(facts, course, stretch.policy, exclusions, now)
        if course.objective == FIRST_RESPONSE
        else (),
        timeline=course,
    )


def _find_response(answers: Sequence[Fact], course: "Timeline", since: datetime | None, now: datetime) -> Fact | None:
    """The first answer, unless the ticket was closed before it and still is: nobody waits for that one."""
    first = 0 if since is None else bisect_left(answers, since, key=get_time)
    for answer in answers[first : count_until(answers, now)]:
        if course.get_phase_before(answer.time).closed_by is None or course.get_phase_at(answer.time).closed_by is None:
            return answer
    return None


def _measure_overdue(course: "Timeline", stretch: Phase, response: Fact | None) -> timedelta | None:
    """Support time between the deadline and the response; zero if it was met, None if there is no response."""
    if response is None:
        return None
    if response.time <= stretch.due_at:
        return ZERO
    return stretch.measure_elapsed(response.time) - course.get_phase_at(stretch.due_at).measure_elapsed(stretch.due_at)


def _find_exclusion(exclusions: Sequence[Fact], policy: Policy) -> Fact | None:
    """The last exclusion that stands: the policy has its reason, for which nobody has revoked it since."""
    last = {fact.data.reason: fact for fact in exclusions if isinstance(fact.data, Excluded | ExclusionRevoked)}
    standing = (fact for reason, fact in last.items() if isinstance(fact.data, Excluded) and policy.can_exclude(reason))
    return max(standing, key=get_fold_order, default=None)


def _collect_flags(
    facts: Facts, course: "Timeline", policy: Policy, exclusions: Sequence[Fact], now: datetime
) -> tuple[Flag, ...]:
    flags = course.get_phase_at(now).flags
    if count_until(facts.openings, now) > 1:
        flags += (Flag.OPENED_AGAIN,)
    if not _is_entitled(course):
        flags += (Flag.CHANNEL_NOT_ENTITLED,)
    if _is_revoked_first(exclusions):
        flags += (Flag.REVOKED_WITHOUT_EXCLUSION,)
    reasons = {fact.data.reason for fact in exclusions if isinstance(fact.data, Excluded | ExclusionRevoked)}
    if not all(map(policy.can_exclude, reasons)):
        flags += (Flag.REASON_NOT_IN_POLICY,)
    if facts.has_stray_correction:
        flags += (Flag.CORRECTS_NOTHING,)
    return flags


def _is_entitled(course: "Timeline") -> bool:
    """Policy 2: may a ticket of this level and priority come by this channel? A level without channels takes any."""
    opened = course.start.data
    assert isinstance(opened, Opened)
    channels = course.policy.get_level(opened.service_level).channels
    return not channels or opened.channel is None or opened.priority in channels.get(opened.channel, ())


def _is_revoked_first(exclusions: Sequence[Fact]) -> bool:
    excluded = set[str]()
    for fact in exclusions:
        match fact.data:
            case Excluded(reason=reason):
                excluded.add(reason)
            case ExclusionRevoked(reason=reason) if reason not in excluded:
                return True
    return False


class Timeline:
    """
    The clock from an opening on, a stretch for each change. Used time is kept, and hours and target are replaced: time
    before a change counts under the old level, time after it under the new one (rules 4 and 14). Time in which the
    ticket is closed, or waits where the policy lets it, does not count: what is left of the target is left then too.
    """

    def __init__(self, objective: str, start: Fact, told: Phase | None, versions: Versions) -> None:
        self.objective, self.start, self.labels, self.versions = objective, start, told, versions
        labels = told or read_labels(start, versions)
        self.policy = labels.policy
        self.started_by = _STARTED[type(start.data)]
        level, target = labels.service_level, self._get_target(labels)
        self._phases = [
            replace(
                labels,
                since=start.time,
                used=ZERO,
                level=level,
                target=target,
                due_at=level.hours.find_due(start.time, target),
                running=self._is_running(labels),
                set_by=start,
                cause=self.started_by,
                broken_at=None,
                flags=(),
            )
        ]
        self._times: list[datetime] = []  # of the changes that are folded

    def truncate(self, time: datetime) -> None:
        """Another change is among those of this time."""
        kept = bisect_left(self._times, time)
        del self._times[kept:], self._phases[kept + 1 :]

    def fold(self, changes: Sequence[Fact], first: int, last: int) -> None:
        """Knows changes[first:last] afterwards, which begin after the opening and end with an instant's last one."""
        for n in range(first + len(self._times), last):
            stretch = _apply_label(self._phases[-1], changes[n], self.versions)
            if n + 1 == last or changes[n + 1].time > changes[n].time:  # several at one instant count as the last
                stretch = self._apply_changes(
                    stretch, changes[bisect_left(changes, changes[n].time, key=get_time) : n + 1]
                )
            self._times.append(changes[n].time)
            self._phases.append(stretch)

    def iterate_phases(self, until: datetime) -> Iterator[tuple[datetime, datetime, Phase]]:
        """From when to when each stretch holds, up to an instant: several changes at one instant begin one stretch."""
        edges = [self.start.time, *self._times]
        for since, end, stretch in zip(edges, [*edges[1:], NEVER], self._phases, strict=True):
            if since <= until and since < end:
                yield since, min(end, until), stretch

    def find_closings(self, changes: Sequence[Fact], now: datetime) -> tuple[list[Fact], list[Fact]]:
        """The changes that closed the ticket by `now`, and those that opened it again, by the end of each instant."""
        first = bisect_left(changes, self.start.time, key=get_time)
        there, again = list[Fact](), list[Fact]()
        was = False
        times = self._times[: bisect_right(self._times, now)]  # more are folded if it was asked about later before
        for n, time in enumerate(times):
            if n + 1 < len(times) and times[n + 1] == time:
                continue
            closed_by = self._phases[n + 1].closed_by
            if closed_by is not None and not was:
                there.append(closed_by)
            elif closed_by is None and was:
                again.append(changes[first + n])
            was = closed_by is not None
        return there, again

    def get_phase_at(self, time: datetime) -> Phase:
        """What is so after all that happened at this time."""
        return self._phases[bisect_right(self._times, time)]

    def get_phase_before(self, time: datetime) -> Phase:
        """What was so before anything happened at this time."""
        return self._phases[bisect_left(self._times, time)]

    def _apply_changes(self, stretch: Phase, changes: Sequence[Fact]) -> Phase:
        """What the changes of one instant, which the labels say already, mean for the clock."""
        now = changes[-1].time
        if stretch.running and stretch.broken_at is None and now > stretch.due_at:
            stretch = replace(stretch, broken_at=stretch.due_at)
        runs, level, target = self._is_running(stretch), stretch.service_level, self._get_target(stretch)
        if stretch.broken_at is not None:
            level, target = stretch.level, stretch.target
        if (level, target, runs) == (stretch.level, stretch.target, stretch.running):
            return stretch
        turned = replace(
            stretch, since=now, used=stretch.measure_elapsed(now), level=level, target=target, running=runs
        )
        if stretch.broken_at is not None or (not runs and not stretch.running):
            return turned
        if not runs:  # due as it would be if it went on at once
            return replace(turned.resume_at(now, stretch.set_by, stretch.cause), running=False)
        return turned.resume_at(now, *_find_cause(stretch, level, changes))

    def _get_target(self, labels: Phase) -> timedelta:
        return labels.policy.get_target(labels.service_level.name, labels.priority, self.objective)

    def _is_running(self, labels: Phase) -> bool:
        paused = labels.paused_by is not None and labels.policy.objectives[self.objective].pauses
        return labels.closed_by is None and not paused


_STARTED = {Opened: Cause.OPENED, CustomerReplied: Cause.CUSTOMER_REPLIED, Reopened: Cause.REOPENED}


def read_labels(opening: Fact, versions: Versions) -> Phase:
    """What an opening says."""
    assert isinstance(opening.data, Opened)
    policy = versions.find_for_opening(opening.data, opening.time)  # rule 13
    level = policy.get_level(opening.data.service_level)
    return Phase(
        since=opening.time,
        used=ZERO,
        level=level,
        target=ZERO,
        due_at=opening.time,
        running=True,
        set_by=opening,
        cause=Cause.OPENED,
        broken_at=None,
        policy=policy,
        service_level=level,
        priority=opening.data.priority,
    )


def _apply_label(stretch: Phase, change: Fact, versions: Versions) -> Phase:
    match change.data:
        case PriorityChanged(priority=priority):
            return replace(stretch, priority=priority)
        case ServiceLevelChanged(service_level=name):
            return replace(stretch, service_level=stretch.policy.get_level(name))
        case PolicyChanged() if stretch.broken_at is not None or (stretch.running and change.time > stretch.due_at):
            return stretch
        case PolicyChanged(policy_version=version):
            policy = versions.get_named(version)
            return replace(stretch, policy=policy, service_level=policy.get_level(stretch.service_level.name))
        case Closed():
            return replace(stretch, closed_by=stretch.closed_by or change)
        case Reopened() if stretch.closed_by is None:
            return _add_flag(stretch, Flag.REOPENED_WITHOUT_CLOSE)
        case Reopened():
            return replace(stretch, closed_by=None)
        case Paused():
            return replace(stretch, paused_by=stretch.paused_by or change)
        case Resumed() if stretch.paused_by is None:
            return _add_flag(stretch, Flag.RESUMED_WITHOUT_PAUSE)
        case Resumed():
            return replace(stretch, paused_by=None)
        case _:
            raise AssertionError(f"{change.data.type} is no change")


def _add_flag(stretch: Phase, flag: Flag) -> Phase:
    return stretch if flag in stretch.flags else replace(stretch, flags=(*stretch.flags, flag))


def _find_cause(before: Phase, level: Level, changes: Sequence[Fact]) -> tuple[Fact, Cause]:
    """Which of the changes of one instant moved the deadline, and what that is called."""
    kinds: dict[type[TicketData], Cause]
    if not before.running:
        kinds = {Reopened: Cause.REOPENED, Resumed: Cause.RESUMED}
    elif level is not before.level:
        kinds = {ServiceLevelChanged: Cause.SERVICE_LEVEL_CHANGED, PolicyChanged: Cause.POLICY_CHANGED}
    else:
        kinds = {PriorityChanged: Cause.PRIORITY_CHANGED}
    return next((change, kinds[type(change.data)]) for change in reversed(changes) if type(change.data) in kinds)
