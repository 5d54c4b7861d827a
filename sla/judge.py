"""The judgement: what a ticket's facts mean for its promise at one instant. Nothing is remembered in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import zip_longest
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


def judge(facts: Sequence[Fact], policy: Policy, now: datetime) -> Verdict:
    """
    Fold the facts (sorted by `order`) that have happened by `now`. Pure: the same facts give the same verdict,
    whenever they arrived. Raises KeyError for a level or priority the policy does not have (checked on arrival).
    """
    opening: Fact | None = None
    response: Fact | None = None
    changes: list[Fact] = []
    escalations: list[Fact] = []
    for fact in facts:
        if fact.time > now:
            ahead = fact.time
            break
        match fact.data:
            case Opened():
                opening = opening or fact
            case PriorityChanged():
                if opening is not None:  # a change dated before the opening is superseded by it
                    changes.append(fact)
            case Responded(by=by):
                if by == "agent":  # an automatic acknowledgement is not a first response
                    response = response or fact
            case Escalated():
                escalations.append(fact)
            case ServiceLevelChanged() | Closed() | Reopened() | Excluded() | ExclusionRevoked():
                pass  # recorded; they have no rule in this version of the policy
            case Paused() | Resumed() | Corrected():
                pass
            case _:
                assert_never(fact.data)
    else:
        ahead = None
    clock = None if opening is None else _clock(opening, changes, response, policy, now)
    return Verdict(clock, tuple(escalations), ahead)


def _clock(opening: Fact, changes: Sequence[Fact], response: Fact | None, policy: Policy, now: datetime) -> Clock:
    assert isinstance(opening.data, Opened)
    level = policy.level(opening.data.service_level)
    deadline = _deadline(opening, changes, response, level, policy)
    answered = response is not None and response.time <= deadline.due_at
    broken_at = deadline.due_at if now > deadline.due_at and not answered else None
    priority = _priority(changes[-1]) if changes else opening.data.priority
    return Clock(opening, level, priority, deadline, response, broken_at)


def _deadline(opening: Fact, changes: Sequence[Fact], response: Fact | None, level: Level, policy: Policy) -> Deadline:
    """
    Used time is kept, the target is replaced (rule 4). A change after the response or after the deadline alters
    nothing. More used than the new target: the promise breaks at the change, never before it.
    """
    assert isinstance(opening.data, Opened)
    target = policy.target(level.name, opening.data.priority)
    found = Deadline(level.hours.due(opening.time, target), target, opening.time, ZERO, opening, Cause.OPENED)
    ended_at = None if response is None else max(response.time, opening.time)
    for change, following in zip_longest(changes, changes[1:]):
        if change.time > found.due_at or (ended_at is not None and change.time > ended_at):
            break
        if following is not None and following.time == change.time:
            continue  # several changes at one instant count as the last of them
        target = policy.target(level.name, _priority(change))
        if target != found.target:
            found = _changed(found, change, target, level)
    return found


def _changed(before: Deadline, change: Fact, target: timedelta, level: Level) -> Deadline:
    used = before.used + level.hours.elapsed(before.since, change.time)
    if used > target:
        return Deadline(change.time, target, change.time, used, change, Cause.PRIORITY_RAISED)
    due_at = level.hours.due(change.time, target - used)
    return Deadline(due_at, target, change.time, used, change, Cause.PRIORITY_CHANGED)


def _priority(change: Fact) -> str:
    assert isinstance(change.data, PriorityChanged)
    return change.data.priority
