"""The judgement: what a ticket's facts mean for its promise at one instant. Nothing is remembered in here."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from events.tickets import (
    Closed,
    Corrected,
    Escalated,
    Excluded,
    ExclusionRevoked,
    Opened,
    Paused,
    PriorityChanged,
    Reopened,
    Responded,
    Resumed,
    ServiceLevelChanged,
    TicketData,
)
from sla.policy import Level, Policy

ZERO = timedelta(0)
AT_RISK_PERCENT = 75


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a ticket. `time` is when it happened, `recorded_at` when the broker stored it."""

    source: str
    id: str
    time: datetime
    data: TicketData
    sequence: str | None
    recorded_at: datetime


class Cause(StrEnum):
    """Why a decision was made."""

    OPENED = "opened"
    OPENING_REPLACED = "opening_replaced"
    PRIORITY_CHANGED = "priority_changed"
    PRIORITY_RAISED = "priority_raised"
    THRESHOLD_REACHED = "threshold_reached"
    DEADLINE_PASSED = "deadline_passed"
    RESPONDED = "responded"
    ESCALATED = "escalated"
    ANSWERED_IN_TIME = "answered_in_time"
    DEADLINE_MOVED = "deadline_moved"


def order(fact: Fact) -> tuple[datetime, int, bool, str, str, str]:
    """
    The order in which facts are folded: when they happened; at one instant opened, changes, responded, escalated;
    then `sequence` as text, a fact without it first; then source and id.
    """
    return (fact.time, _rank(fact.data), fact.sequence is not None, fact.sequence or "", fact.source, fact.id)


def _rank(data: TicketData) -> int:
    match data:
        case Opened():
            return 0
        case Responded():
            return 2
        case Escalated():
            return 3
        case _:
            return 1


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the promise runs out: `due_at`, and the stretch that led there (`used` support time before `since`)."""

    due_at: datetime
    target: timedelta
    since: datetime
    used: timedelta
    set_by: Fact
    cause: Cause

    def reached(self, percent: int, level: Level) -> datetime:
        """The earliest instant, not before the deadline was set, at which `percent` of the target is used."""
        share = -(-self.target * percent // 100)
        return self.since if share <= self.used else level.hours.due(self.since, share - self.used)


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of an opened ticket, in times at which things happened; `broken_at` is None while the promise holds."""

    opening: Fact
    level: Level
    priority: str
    deadline: Deadline
    response: Fact | None
    broken_at: datetime | None

    @property
    def started_at(self) -> datetime:
        return self.opening.time

    @property
    def met(self) -> bool | None:
        """Met if and only if the response is not later than the deadline: decided on instants (section 4, rule 1)."""
        return None if self.response is None else self.response.time <= self.deadline.due_at

    def elapsed(self, at: datetime) -> timedelta:
        """Support time used from the opening up to `at`; zero before it."""
        return self.level.hours.elapsed(self.started_at, at)

    @property
    def overdue(self) -> timedelta | None:
        """Support time between the deadline and the response; zero if it was met, None if there is no response."""
        return None if self.response is None else self.level.hours.elapsed(self.deadline.due_at, self.response.time)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is so at one instant. `clock` is None until the ticket is opened; `ahead` is the next fact yet to happen."""

    clock: Clock | None
    escalations: tuple[Fact, ...]
    ahead: datetime | None


@dataclass(slots=True)
class Facts:
    """
    The facts of a ticket, sorted by `order`, and those of a kind apart. Remembers the deadlines they were folded to: a
    ticket of thousands of facts is not folded from its beginning for each new one (10,000: 0.1 ms instead of 14).
    """

    every: list[Fact] = field(default_factory=list)
    openings: list[Fact] = field(default_factory=list, compare=False)
    changes: list[Fact] = field(default_factory=list, compare=False)
    answers: list[Fact] = field(default_factory=list, compare=False)
    escalations: list[Fact] = field(default_factory=list, compare=False)
    _folded: "_Folded | None" = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.every)

    def add(self, fact: Fact) -> None:
        """One more, whenever it happened."""
        insort(self.every, fact, key=order)
        match fact.data:
            case Opened():
                insort(self.openings, fact, key=order)
            case PriorityChanged():
                insort(self.changes, fact, key=order)
                if self._folded is not None:
                    self._folded.forget_from(fact.time)
            case Responded(by=by):
                if by == "agent":  # an automatic acknowledgement is not a first response
                    insort(self.answers, fact, key=order)
            case Escalated():
                insort(self.escalations, fact, key=order)
            case ServiceLevelChanged() | Closed() | Reopened() | Excluded() | ExclusionRevoked():
                pass  # recorded; they have no rule in this version of the policy
            case Paused() | Resumed() | Corrected():
                pass
            case _:
                assert_never(fact.data)

    def folded(self, opening: Fact, policy: Policy) -> "_Folded":
        """The deadlines from this opening on."""
        if self._folded is None or self._folded.opening is not opening or self._folded.policy is not policy:
            self._folded = _Folded(opening, policy)
        return self._folded


def judge(facts: Facts, policy: Policy, now: datetime) -> Verdict:
    """
    Fold the facts that have happened by `now`. Pure: the same facts give the same verdict, whenever they arrived.
    Raises KeyError for a level or priority the policy does not have (checked on arrival).
    """
    ahead = _until(facts.every, now)
    opening = facts.openings[0] if _until(facts.openings, now) else None
    return Verdict(
        None if opening is None else _clock(facts, opening, policy, now),
        tuple(facts.escalations[: _until(facts.escalations, now)]),
        facts.every[ahead].time if ahead < len(facts.every) else None,
    )


def _time(fact: Fact) -> datetime:
    return fact.time


def _until(facts: Sequence[Fact], now: datetime) -> int:
    """How many have happened by then."""
    return bisect_right(facts, now, key=_time)


def _clock(facts: Facts, opening: Fact, policy: Policy, now: datetime) -> Clock:
    assert isinstance(opening.data, Opened)
    response = facts.answers[0] if _until(facts.answers, now) else None
    before = bisect_left(facts.changes, opening.time, key=_time)  # superseded by the opening
    changed = _until(facts.changes, now)
    folded = facts.folded(opening, policy)
    ended_at = now if response is None else max(response.time, opening.time)  # a change after that alters nothing
    deadline = folded.after(facts.changes, before, _until(facts.changes, ended_at))
    answered = response is not None and response.time <= deadline.due_at
    broken_at = deadline.due_at if now > deadline.due_at and not answered else None
    priority = _priority(facts.changes[changed - 1]) if changed > before else opening.data.priority
    return Clock(opening, folded.level, priority, deadline, response, broken_at)


class _Folded:
    """
    The deadline after each change of a priority: used time is kept, the target is replaced (rule 4). A change after
    the deadline alters nothing. More used than the new target: the promise breaks at the change, never before it.
    """

    def __init__(self, opening: Fact, policy: Policy) -> None:
        assert isinstance(opening.data, Opened)
        self.opening, self.policy = opening, policy
        self.level = policy.level(opening.data.service_level)
        target = policy.target(self.level.name, opening.data.priority)
        due_at = self.level.hours.due(opening.time, target)
        self._deadlines = [Deadline(due_at, target, opening.time, ZERO, opening, Cause.OPENED)]
        self._times: list[datetime] = []  # of the changes that are folded

    def forget_from(self, time: datetime) -> None:
        """Another change is among those of this time."""
        kept = bisect_left(self._times, time)
        del self._times[kept:], self._deadlines[kept + 1 :]

    def after(self, changes: Sequence[Fact], first: int, last: int) -> Deadline:
        """The deadline after changes[first:last], which begin after the opening and end with an instant's last one."""
        for n in range(first + len(self._times), last):
            self._times.append(changes[n].time)
            self._deadlines.append(self._next(changes[n], changes[n + 1] if n + 1 < last else None))
        return self._deadlines[last - first]

    def _next(self, change: Fact, following: Fact | None) -> Deadline:
        found = self._deadlines[-1]
        if change.time > found.due_at or (following is not None and following.time == change.time):
            return found  # several changes at one instant count as the last of them
        target = self.policy.target(self.level.name, _priority(change))
        return found if target == found.target else _changed(found, change, target, self.level)


def _changed(before: Deadline, change: Fact, target: timedelta, level: Level) -> Deadline:
    used = before.used + level.hours.elapsed(before.since, change.time)
    if used > target:
        return Deadline(change.time, target, change.time, used, change, Cause.PRIORITY_RAISED)
    due_at = level.hours.due(change.time, target - used)
    return Deadline(due_at, target, change.time, used, change, Cause.PRIORITY_CHANGED)


def _priority(change: Fact) -> str:
    assert isinstance(change.data, PriorityChanged)
    return change.data.priority
