"""The judgement: what a ticket's facts mean for its promises at one instant. Decisions are made of it in decisions.py.

A clock is a timeline of phases (docs/adr/0008-the-clock-is-a-timeline-of-phases.md). Each change of the ticket begins a
phase, which knows the support time used until then, and when the clock runs out:

    facts      opened      priority_changed   paused      resumed     responded
                  |              |              |            |            |
    phases        |-- running ---|-- running ---|.. stops ...|-- running -|
    since       09:00          10:00          11:00        13:00        13:30
    used          0 h            1 h            2 h          2 h        2.5 h
    target        8 h            4 h            4 h          4 h
    due_at      17:00          13:00          13:00        15:00        met: not after 15:00

`Facts` has the facts of a ticket in the order in which they happened, and a `Timeline` of each clock. A late-arriving
fact drops the phases after it, and they are folded again. `judge` returns a `Verdict`: a `Clock` for the first
response, and one for each cycle of the other objectives.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import reduce
from itertools import pairwise, zip_longest
from operator import attrgetter
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
_FactKey = tuple[str, str]  # source and id of a fact


class Fact(Struct, frozen=True):
    """
    Something that happened to a ticket: `time` is when it happened, `recorded_at` when the broker stored it.
    `corrected_by` is the id of the fact that corrected it, None if nothing did.
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
        """The id of the fact that gave it its present content: its own, or that of its last correction."""
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


def get_cause(data: TicketData) -> Cause:
    """Return what a decision says as its cause if this kind of fact led to it."""
    match data:
        case Opened():
            return Cause.OPENED
        case PriorityChanged():
            return Cause.PRIORITY_CHANGED
        case ServiceLevelChanged():
            return Cause.SERVICE_LEVEL_CHANGED
        case PolicyChanged():
            return Cause.POLICY_CHANGED
        case Closed():
            return Cause.CLOSED
        case Reopened():
            return Cause.REOPENED
        case Paused():
            return Cause.PAUSED
        case Resumed():
            return Cause.RESUMED
        case Responded():
            return Cause.RESPONDED
        case CustomerReplied():
            return Cause.CUSTOMER_REPLIED
        case Escalated():
            return Cause.ESCALATED
        case Excluded():
            return Cause.EXCLUDED
        case ExclusionRevoked():
            return Cause.EXCLUSION_REVOKED
        case Corrected():
            return Cause.CORRECTED
        case _:
            assert_never(data)


def get_fold_order(fact: Fact) -> tuple[datetime, int, bool, str, str, str]:
    """
    Return the key by which facts are sorted: when they happened; at one instant opened, changes, responded, escalated;
    then `sequence` as text, a fact without it first; then source and id.
    """
    return (fact.time, _get_rank(fact.data), fact.sequence is not None, fact.sequence or "", fact.source, fact.id)


def _get_rank(data: TicketData) -> int:
    """Return the place of a kind of fact among those of one instant."""
    match data:
        case Opened():
            return 0
        case Responded():
            return 2
        case Escalated():
            return 3
        case PriorityChanged() | ServiceLevelChanged() | PolicyChanged() | Closed() | Reopened() | Paused() | Resumed():
            return 1
        case Excluded() | ExclusionRevoked() | Corrected() | CustomerReplied():
            return 1
        case _:
            assert_never(data)


class Labels(Struct, frozen=True):
    """
    What the facts say of a ticket, whatever its clocks are judged by. `policy` is the version that it was pinned to or
    moved to, `closed_by` and `paused_by` the facts that closed and paused it, None while it is neither. `flags` are
    those of changes that make no sense.
    """

    policy: Policy
    service_level: Level
    priority: str
    closed_by: Fact | None = None
    paused_by: Fact | None = None
    flags: tuple[Flag, ...] = ()

    def is_paused(self, objective: str) -> bool:
        """Return whether the ticket is paused, and its policy has this objective and lets its clock pause."""
        if self.paused_by is None:
            return False
        rule = self.policy.objectives.get(objective)
        return rule is not None and rule.pauses

    def add_flag(self, flag: Flag) -> "Labels":
        return self if flag in self.flags else replace(self, flags=(*self.flags, flag))


class Phase(Struct, frozen=True):
    """
    The clock from one change to the next. It is judged by `level` and `target`, of which `used` support time was gone
    at `since`; it runs out at `due_at`, or would have when it stopped. `set_by` is the fact that moved the deadline
    last, and `cause` what that is called. `labels` follow every change, but a promise that broke at `broken_at` stays
    judged as it was, and in its version of the policy (docs/architecture.md#rule-4).
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
    labels: Labels

    @property
    def policy(self) -> Policy:
        """The version of the policy that it is judged by."""
        return self.labels.policy

    def is_past_due(self, at: datetime) -> bool:
        """Return whether the promise is broken at `at`, which is in this phase, if nobody has responded by then."""
        return self.broken_at is not None or (self.running and at > self.due_at)

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Return the support time used up to `at`, which is in this phase."""
        return self.used + self.level.hours.measure(self.since, at) if self.running else self.used

    def find_threshold(self, percent: int) -> datetime:
        """Return the earliest instant, not before `since`, at which `percent` of the target is used."""
        share = -(-self.target * percent // 100)
        return self.since if share <= self.used else self.level.hours.find_due(self.since, share - self.used)

    def resume_at(self, at: datetime, set_by: Fact, cause: Cause) -> "Phase":
        """
        Return a phase that runs from `at` on, with what is left of the target. If more than the target is used, the
        promise breaks at `at`, never before it (docs/architecture.md#rule-4).
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
    The clock of an opened ticket at one instant. `phase` is what it is judged by: the last one up to the response, if
    there is one. `labels` are what the facts say now. `broken_at` is None while the promise holds, `overdue` None
    without a response; `excluded_by` is the exclusion in effect, `revoked_by` the last revocation of one.
    """

    opening: Fact
    phase: Phase
    labels: Labels
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
        """
        Whether the response is not later than the deadline, None without a response. Decided on instants, never on
        spans (docs/architecture.md#rule-1).
        """
        return None if self.response is None else self.response.time <= self.phase.due_at

    @property
    def service_level(self) -> Level:
        return self.labels.service_level

    @property
    def priority(self) -> str:
        return self.labels.priority

    @property
    def closed_by(self) -> Fact | None:
        return self.labels.closed_by

    @property
    def paused(self) -> bool:
        """Whether the ticket is paused and its policy lets this clock pause."""
        return self.labels.is_paused(self.timeline.objective)

    @property
    def running(self) -> bool:
        """Whether time counts towards a deadline that may still be kept."""
        ended = self.response or self.broken_at or self.excluded_by
        return ended is None and self.phase.running

    def find_end(self, now: datetime) -> datetime:
        """Return when it ended, with the response or the exclusion, or `now`. A clock of a closed ticket only stops."""
        return min([now, *(fact.time for fact in (self.response, self.excluded_by) if fact is not None)])

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Return the support time used from the opening up to `at`; zero before it."""
        return self.timeline.get_phase_at(at).measure_elapsed(at) if at > self.started_at else ZERO


class Verdict(Struct, frozen=True):
    """
    What is so at one instant. `clock` is that of the first response, None until the ticket is opened; `others` are
    those of other objectives, by objective and cycle. `next_fact_at` is when the next fact that is known will happen.
    """

    clock: Clock | None
    escalations: tuple[Fact, ...]
    next_fact_at: datetime | None
    others: Mapping[CycleKey, Clock] = {}


@dataclass(slots=True)
class Facts:
    """
    The facts of a ticket, corrected, sorted by `get_fold_order`: `every` has all of them, the other lists those of a
    kind. Timelines are kept, so that a ticket of thousands of facts is not folded from its beginning for each new one
    (10,000 facts: 0.1 ms instead of 14).
    """

    every: list[Fact] = field(default_factory=list)
    openings: list[Fact] = field(default_factory=list, compare=False)
    changes: list[Fact] = field(default_factory=list, compare=False)
    moves: list[Fact] = field(default_factory=list, compare=False)
    answers: list[Fact] = field(default_factory=list, compare=False)
    replies: list[Fact] = field(default_factory=list, compare=False)
    escalations: list[Fact] = field(default_factory=list, compare=False)
    exclusions: list[Fact] = field(default_factory=list, compare=False)
    _corrections: dict[_FactKey, list[Fact]] = field(default_factory=dict, compare=False)
    _originals: dict[_FactKey, Fact] = field(default_factory=dict, compare=False)  # of the facts that are corrected
    _timelines: dict[tuple[str, _FactKey], "Timeline"] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.every)

    @property
    def has_stray_correction(self) -> bool:
        """Whether there is a correction of a fact that is not known."""
        return len(self._corrections) > len(self._originals)

    def add(self, fact: Fact) -> None:
        """Add a fact, whenever it happened. A correction and the fact that it corrects come in any order."""
        insort(self.every, fact, key=get_fold_order)
        if isinstance(fact.data, Corrected):
            key = (fact.source, fact.data.corrects)
            insort(self._corrections.setdefault(key, []), fact, key=get_fold_order)
            facts = (known for known in self.every if not isinstance(known.data, Corrected))
            corrected = next((known for known in facts if _make_fact_key(known) == key), None)
        else:
            key = _make_fact_key(fact)
            corrected = fact
            self._insert(fact)
        if corrected is not None and key in self._corrections:
            self._correct(corrected, self._originals.setdefault(key, corrected), self._corrections[key])

    def _correct(self, known: Fact, original: Fact, corrections: Sequence[Fact]) -> None:
        """Replace a fact from the start: by the original with all of its corrections, one over the other."""
        for facts in (self.every, *self._find_lists(known)):
            del facts[bisect_left(facts, get_fold_order(known), key=get_fold_order)]
        corrected = reduce(_apply_correction, corrections, original)
        insort(self.every, corrected, key=get_fold_order)
        self._insert(corrected)

    def _insert(self, fact: Fact) -> None:
        for facts in self._find_lists(fact):
            insort(facts, fact, key=get_fold_order)

    def _find_lists(self, fact: Fact) -> Sequence[list[Fact]]:
        """Return the lists of its kind, beside `every`. A change drops the phases that begin at its time or later."""
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
        for timeline in self._timelines.values():
            timeline.truncate(time)

    def get_timeline(self, objective: str, start: Fact, versions: Versions, labels: Labels | None = None) -> "Timeline":
        """
        Return the timeline of a clock from its start on: the one kept from the judgement before, unless its beginning
        is another one now. `labels` are what the facts say at the start, None if that is the opening.
        """
        key, beginning = (objective, _make_fact_key(start)), (start, versions, labels)
        timeline = self._timelines.get(key)
        if timeline is None or timeline.beginning != beginning:
            timeline = self._timelines[key] = Timeline(objective, beginning)
        return timeline

    def copy_with(self, fact: Fact) -> "Facts":
        """Return the same facts and one more; these stay as they are."""
        more = Facts()
        for each in (*self._originals.values(), *self.every):
            if _make_fact_key(each) not in self._originals or each.corrected_by is None:
                more.add(each)
        more.add(fact)
        return more


def _make_fact_key(fact: Fact) -> _FactKey:
    return (fact.source, fact.id)


def _apply_correction(fact: Fact, correction: Fact) -> Fact:
    """
    Return the fact as corrected. Members that its kind does not have are left out, and so is the whole correction of
    the data if it would make them invalid.
    """
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
    Fold the facts that have happened by `now`. Pure: the same facts give the same verdict, in whatever order they
    arrived. Raises KeyError for a level or priority that the version in force does not have (checked on arrival).
    """
    happened = _count_until(facts.every, now)
    escalations = tuple(facts.escalations[: _count_until(facts.escalations, now)])
    next_fact_at = facts.every[happened].time if happened < len(facts.every) else None
    if not _count_until(facts.openings, now):
        return Verdict(None, escalations, next_fact_at)
    timeline = facts.get_timeline(FIRST_RESPONSE, facts.openings[0], versions)
    timeline.fold(facts.changes, now)
    first = _judge_clock(facts, timeline, _find_response(facts.answers, timeline, None, now), now)
    if len(timeline.policy.objectives) == 1:
        return Verdict(first, escalations, next_fact_at)
    return Verdict(first, escalations, next_fact_at, dict(_judge_other_objectives(facts, first, now)))


def _judge_other_objectives(facts: Facts, first: Clock, now: datetime) -> Iterator[tuple[CycleKey, Clock]]:
    """Judge each cycle of the other objectives as the first response is judged."""
    base = first.timeline
    for objective in base.policy.objectives.values():
        if objective.name == FIRST_RESPONSE:
            continue
        find_cycles = _find_response_cycles if objective.stops == "responded" else _find_resolution_cycles
        for cycle, (start, stop) in enumerate(find_cycles(objective, facts, first, now), 1):
            labels = None if start is base.start else _find_labels(start.time, objective, facts, base)
            timeline = facts.get_timeline(objective.name, start, base.versions, labels)
            timeline.fold(facts.changes, now)
            yield (objective.name, cycle), _judge_clock(facts, timeline, stop, now)


def _find_response_cycles(
    objective: Objective, facts: Facts, first: Clock, now: datetime
) -> Iterator[tuple[Fact, Fact | None]]:
    """
    Find what starts and what stops a clock that waits for a response: it starts with the opening, or with each reply of
    the customer after the first response. One that has not stopped is the last.
    """
    if objective.starts == "opened":
        yield first.opening, first.response
        return
    if first.response is None:
        return
    after = bisect_right(facts.replies, first.response.time, key=_get_time)
    stop: Fact | None = None
    for start in facts.replies[after : _count_until(facts.replies, now)]:
        if stop is not None and start.time <= stop.time:
            continue  # it waited with the reply before it
        stop = _find_response(facts.answers, first.timeline, start.time, now)
        yield start, stop
        if stop is None or not objective.repeats:
            return


def _find_resolution_cycles(
    objective: Objective, facts: Facts, first: Clock, now: datetime
) -> Iterator[tuple[Fact, Fact | None]]:
    """
    Find what starts and what stops a clock that runs until the ticket is closed. One that repeats starts again with
    each reopening; otherwise the same clock goes on when the ticket is reopened.
    """
    base = first.timeline
    if not objective.repeats:
        yield base.start, base.get_phase_at(now).labels.closed_by
        return
    closings, reopenings = base.find_closings(facts.changes, now)
    yield from zip_longest((base.start, *reopenings), closings)


def _find_labels(time: datetime, objective: Objective, facts: Facts, base: "Timeline") -> Labels:
    """
    Return what the facts say when another clock begins. Its version is the last one that the ticket was moved to by
    then and that can judge this clock, even if the first response stayed in its version, given or broken.
    """
    labels = base.get_phase_at(time).labels
    if not facts.moves:
        return labels
    level, priority = labels.service_level.name, labels.priority
    moves = (move.data for move in facts.moves if base.start.time <= move.time <= time)
    named = (base.versions.get_named(move.policy_version) for move in moves if isinstance(move, PolicyChanged))
    for policy in reversed((base.policy, *named)):
        if objective.name in policy.objectives and level in policy.levels and priority in policy.priorities:
            return replace(labels, policy=policy, service_level=policy.get_level(level))
    return labels


def _get_time(fact: Fact) -> datetime:
    return fact.time


def _count_until(facts: Sequence[Fact], now: datetime) -> int:
    """Return how many have happened by `now`."""
    return bisect_right(facts, now, key=_get_time)


def _judge_clock(facts: Facts, timeline: "Timeline", response: Fact | None, now: datetime) -> Clock:
    exclusions = facts.exclusions[: _count_until(facts.exclusions, now)]
    labels = timeline.get_phase_at(now).labels
    end = now if response is None else max(response.time, timeline.start.time)  # a change after that alters nothing
    phase = timeline.get_phase_at(end)
    if response is not None and not phase.running and phase.broken_at is None:
        phase = phase.resume_at(end, phase.set_by, phase.cause)  # whoever answers does not wait any longer
    answered_in_time = response is not None and response.time <= phase.due_at
    excluded_by = _find_exclusion(exclusions, phase.policy)
    broken = excluded_by is None and not answered_in_time and phase.is_past_due(now)
    is_first = timeline.objective == FIRST_RESPONSE
    return Clock(
        opening=timeline.start,
        phase=phase,
        labels=labels,
        response=response,
        broken_at=phase.due_at if broken else None,
        overdue=_measure_overdue(timeline, phase, response),
        excluded_by=excluded_by,
        revoked_by=next((fact for fact in reversed(exclusions) if isinstance(fact.data, ExclusionRevoked)), None),
        flags=_collect_flags(facts, timeline, labels, phase.policy, exclusions, now) if is_first else (),
        timeline=timeline,
    )


def _find_response(answers: Sequence[Fact], timeline: "Timeline", since: datetime | None, now: datetime) -> Fact | None:
    """
    Return the first answer in [since, now], but for those during which the ticket was closed: nobody waits for them.
    `since` None: from the first answer on, before the opening too.
    """
    first = 0 if since is None else bisect_left(answers, since, key=_get_time)
    for answer in answers[first : _count_until(answers, now)]:
        before, after = timeline.get_phase_before(answer.time), timeline.get_phase_at(answer.time)
        if before.labels.closed_by is None or after.labels.closed_by is None:
            return answer
    return None


def _measure_overdue(timeline: "Timeline", phase: Phase, response: Fact | None) -> timedelta | None:
    """Return the support time between deadline and response; zero if it was met, None if there is no response."""
    if response is None:
        return None
    if response.time <= phase.due_at:
        return ZERO
    used_when_due = timeline.get_phase_at(phase.due_at).measure_elapsed(phase.due_at)
    return phase.measure_elapsed(response.time) - used_when_due


def _find_exclusion(exclusions: Sequence[Fact], policy: Policy) -> Fact | None:
    """Return the last exclusion in effect: the policy has its reason, which has not been revoked since."""
    last = {fact.data.reason: fact for fact in exclusions if isinstance(fact.data, Excluded | ExclusionRevoked)}
    in_effect = (
        fact for reason, fact in last.items() if isinstance(fact.data, Excluded) and policy.can_exclude(reason)
    )
    return max(in_effect, key=get_fold_order, default=None)


def _collect_flags(
    facts: Facts, timeline: "Timeline", labels: Labels, policy: Policy, exclusions: Sequence[Fact], now: datetime
) -> tuple[Flag, ...]:
    flags = labels.flags
    if _count_until(facts.openings, now) > 1:
        flags += (Flag.OPENED_AGAIN,)
    if not _is_entitled(timeline):
        flags += (Flag.CHANNEL_NOT_ENTITLED,)
    if _is_revoked_first(exclusions):
        flags += (Flag.REVOKED_WITHOUT_EXCLUSION,)
    reasons = {fact.data.reason for fact in exclusions if isinstance(fact.data, Excluded | ExclusionRevoked)}
    if not all(map(policy.can_exclude, reasons)):
        flags += (Flag.REASON_NOT_IN_POLICY,)
    if facts.has_stray_correction:
        flags += (Flag.CORRECTS_NOTHING,)
    return flags


def _is_entitled(timeline: "Timeline") -> bool:
    """
    Return whether a ticket of this level and priority may come by its channel (docs/policy.md). A level without
    channels takes any.
    """
    opened = timeline.start.data
    assert isinstance(opened, Opened)
    channels = timeline.policy.get_level(opened.service_level).channels
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


_Beginning = tuple[Fact, Versions, Labels | None]  # the fact that starts a clock, and what the facts say then


class Timeline:
    """
    A clock from its start on, a phase for each change. Used time is kept, and hours and target are replaced: time
    before a change counts under the old level, time after it under the new one (docs/architecture.md#rule-4 and
    rule-14). Time in which the ticket is closed, or paused where the policy lets it, does not count: what is left of
    the target is left then too. Several changes at one instant count as the last of them, each for what it changes.
    """

    def __init__(self, objective: str, beginning: _Beginning) -> None:
        self.objective, self.beginning = objective, beginning
        self.start, self.versions, given = beginning
        labels = given or _read_labels(self.start, self.versions)
        self.policy = labels.policy
        level, target = labels.service_level, self._get_target(labels)
        first = Phase(
            since=self.start.time,
            used=ZERO,
            level=level,
            target=target,
            due_at=level.hours.find_due(self.start.time, target),
            running=self._is_running(labels),
            set_by=self.start,
            cause=get_cause(self.start.data),
            broken_at=None,
            labels=labels,
        )
        self._phases = [first]
        self._times: list[datetime] = []  # of the changes that are folded: a phase begins at each

    def truncate(self, time: datetime) -> None:
        """Drop the phases that begin at this time or later: another change is among those."""
        kept = bisect_left(self._times, time)
        del self._times[kept:], self._phases[kept + 1 :]

    def fold(self, changes: Sequence[Fact], now: datetime) -> None:
        """Fold the changes up to `now` that are not folded yet. Those before the start are superseded by it."""
        first, last = bisect_left(changes, self.start.time, key=_get_time), _count_until(changes, now)
        for n in range(first + len(self._times), last):
            before, change = self._phases[-1], changes[n]
            labels = _apply_change(before.labels, change, self.versions, before.is_past_due(change.time))
            phase = before if labels is before.labels else replace(before, labels=labels)
            self._times.append(change.time)
            self._phases.append(phase)
            if n + 1 == last or changes[n + 1].time > change.time:
                count = n + 1 - bisect_left(changes, change.time, lo=first, hi=n, key=_get_time)
                self._phases[-1] = self._end_instant(changes[n + 1 - count : n + 1], self._phases[-count - 1 :])

    def iterate_phases(self, until: datetime) -> Iterator[tuple[datetime, datetime, Phase]]:
        """Yield from when to when each phase holds, up to an instant; changes at one instant begin one phase."""
        edges = [self.start.time, *self._times]
        for since, end, phase in zip(edges, [*edges[1:], NEVER], self._phases, strict=True):
            if since <= until and since < end:
                yield since, min(end, until), phase

    def find_closings(self, changes: Sequence[Fact], now: datetime) -> tuple[list[Fact], list[Fact]]:
        """
        Return the facts that closed the ticket by `now`, and those that reopened it, in turn, by what is so at the end
        of each instant. `changes` are those that are folded, and others before and after them.
        """
        first = bisect_left(changes, self.start.time, key=_get_time)
        closings, reopenings = list[Fact](), list[Fact]()
        last_reopening: Fact | None = None
        times = self._times[: bisect_right(self._times, now)]  # more are folded if it was asked about later before
        for n, time in enumerate(times):
            if isinstance(changes[first + n].data, Reopened):
                last_reopening = changes[first + n]
            if n + 1 < len(times) and times[n + 1] == time:
                continue
            closed_by, is_open = self._phases[n + 1].labels.closed_by, len(closings) == len(reopenings)
            if closed_by is not None and is_open:
                closings.append(closed_by)
            elif closed_by is None and not is_open and last_reopening is not None:
                reopenings.append(last_reopening)
        return closings, reopenings

    def get_phase_at(self, time: datetime) -> Phase:
        """Return the phase after all that happened at this time."""
        return self._phases[bisect_right(self._times, time)]

    def get_phase_before(self, time: datetime) -> Phase:
        """Return the phase before anything happened at this time."""
        return self._phases[bisect_left(self._times, time)]

    def _end_instant(self, changes: Sequence[Fact], phases: Sequence[Phase]) -> Phase:
        """
        Return the phase that the changes of one instant begin. `phases` are the one before them and one for each, which
        differ in their labels alone.
        """
        phase, now = phases[-1], changes[-1].time
        if phase.broken_at is None and phase.is_past_due(now):
            phase = replace(phase, broken_at=phase.due_at)
        runs, level, target = self._is_running(phase.labels), phase.labels.service_level, self._get_target(phase.labels)
        if phase.broken_at is not None:
            level, target = phase.level, phase.target
        if (level, target, runs) == (phase.level, phase.target, phase.running):
            return phase
        changed = replace(phase, since=now, used=phase.measure_elapsed(now), level=level, target=target, running=runs)
        if phase.broken_at is not None or (not runs and not phase.running):
            return changed
        if not runs:  # due as it would be if it went on at once
            return replace(changed.resume_at(now, phase.set_by, phase.cause), running=False)
        if not phase.running:
            set_by = _find_mover(changes, phases, self._is_running)
        elif level is not phase.level:
            set_by = _find_mover(changes, phases, attrgetter("service_level"))
        else:
            set_by = _find_mover(changes, phases, attrgetter("priority"))
        return changed.resume_at(now, set_by, get_cause(set_by.data))

    def _get_target(self, labels: Labels) -> timedelta:
        return labels.policy.get_target(labels.service_level.name, labels.priority, self.objective)

    def _is_running(self, labels: Labels) -> bool:
        return labels.closed_by is None and not labels.is_paused(self.objective)


def _find_mover(changes: Sequence[Fact], phases: Sequence[Phase], get: Callable[[Labels], object]) -> Fact:
    """Return the last of the changes after which `get` of the labels was another, the last one if it never was."""
    for change, (after, before) in zip(reversed(changes), pairwise(reversed(phases)), strict=True):
        if get(before.labels) != get(after.labels):
            return change
    return changes[-1]


def _read_labels(opening: Fact, versions: Versions) -> Labels:
    """Return what an opening says, under the version that it is pinned to (docs/architecture.md#rule-13)."""
    assert isinstance(opening.data, Opened)
    policy = versions.find_for_opening(opening.data, opening.time)
    return Labels(policy, policy.get_level(opening.data.service_level), opening.data.priority)


def _apply_change(labels: Labels, change: Fact, versions: Versions, is_past_due: bool) -> Labels:
    """
    Return what the facts say after one more. What is past due stays in its version of the policy. Raises KeyError for
    a version that is not published, or a level that the version does not have.
    """
    match change.data:
        case PriorityChanged(priority=priority):
            return replace(labels, priority=priority)
        case ServiceLevelChanged(service_level=name):
            return replace(labels, service_level=labels.policy.get_level(name))
        case PolicyChanged() if is_past_due:
            return labels
        case PolicyChanged(policy_version=version):
            policy = versions.get_named(version)
            return replace(labels, policy=policy, service_level=policy.get_level(labels.service_level.name))
        case Closed():
            return replace(labels, closed_by=labels.closed_by or change)
        case Reopened() if labels.closed_by is None:
            return labels.add_flag(Flag.REOPENED_WITHOUT_CLOSE)
        case Reopened():
            return replace(labels, closed_by=None)
        case Paused():
            return replace(labels, paused_by=labels.paused_by or change)
        case Resumed() if labels.paused_by is None:
            return labels.add_flag(Flag.RESUMED_WITHOUT_PAUSE)
        case Resumed():
            return replace(labels, paused_by=None)
        case Opened() | Responded() | CustomerReplied() | Escalated() | Excluded() | ExclusionRevoked() | Corrected():
            return labels
        case _:
            assert_never(change.data)
