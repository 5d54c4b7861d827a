"""The promise once more, read from the rules of the policy one by one, apart from sla/: slow, naive, whole history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import zip_longest
from zoneinfo import ZoneInfo

from tests.oracle import swedish_holidays
from tests.scenarios import Fact

STOCKHOLM = ZoneInfo("Europe/Stockholm")
HOUR, DAY, NOTHING = timedelta(hours=1), timedelta(days=1), timedelta(0)
LEVELS = {  # days of the week, Monday is 0; opening and closing hour; targets in hours
    "foundation": (range(5), 9, 18, {"critical": 4, "serious": 8, "minor": 24}),
    "professional": (range(5), 8, 22, {"critical": 1, "serious": 4, "minor": 12}),
    "enterprise": (range(7), 0, 24, {"critical": 2, "serious": 4, "minor": 8}),
}


@dataclass(frozen=True)
class Truth:
    """What a history means at one instant, after a tick. Names are those of the state."""

    stage: str
    service_level: str | None = None
    priority: str | None = None
    opening_id: str | None = None
    started_at: datetime | None = None
    due_at: datetime | None = None
    target: timedelta | None = None
    at_risk_at: datetime | None = None
    breached_at: datetime | None = None
    responded_at: datetime | None = None
    met: bool | None = None
    overdue: timedelta | None = None
    escalation_level: int = 0


def truth(facts: Sequence[Fact], now: datetime) -> Truth:
    """Each rule in its own words. Duplicates are dropped; facts that have not happened yet do not count."""
    facts = [fact for fact in {(fact.source, fact.id): fact for fact in facts}.values() if fact.time <= now]
    openings = _in_order(facts, "opened")
    if not openings:
        return Truth("pending")
    opening = openings[0]  # rules 7 and 8: the earliest; the others are ignored
    level, started_at = opening.data["service_level"], opening.time
    answers = [fact for fact in facts if fact.kind == "responded" and fact.data.get("by", "agent") == "agent"]
    answered_at = min((fact.time for fact in answers), default=None)  # rule 5
    changes = [fact for fact in _in_order(facts, "priority_changed") if fact.time >= started_at]  # rule 7
    priorities = [(started_at, opening.data["priority"])] + [(fact.time, fact.data["priority"]) for fact in changes]
    due_at, (since, priority) = _due(level, _held(priorities), answered_at)
    target = _target(level, priority)
    in_time = answered_at is not None and answered_at <= due_at  # rule 1
    broken = not in_time and now > due_at  # rule 2
    running = answered_at is None and not broken
    return Truth(
        stage="running" if answered_at is None else "fulfilled",
        service_level=level,
        priority=priorities[-1][1],  # rule 4: the label follows every change
        opening_id=opening.id,
        started_at=started_at,
        due_at=due_at,
        target=target,
        at_risk_at=max(since, first_with(level, started_at, target * 3 / 4)) if running else None,  # rule 12
        breached_at=due_at if broken else None,
        responded_at=answered_at,
        met=None if answered_at is None else in_time,
        overdue=None if answered_at is None else used(level, due_at, answered_at),
        escalation_level=sum(fact.kind == "escalated" for fact in facts),  # rule 10
    )


def _in_order(facts: Sequence[Fact], kind: str) -> list[Fact]:
    """Section 4, before rule 1: by time; then the sequence as text, none first; then source and id."""
    found = [fact for fact in facts if fact.kind == kind]
    for key in ("id", "source"):
        found.sort(key=lambda fact, key=key: getattr(fact, key))
    found.sort(key=lambda fact: fact.sequence or "")  # none is written as an empty text, which comes first
    found.sort(key=lambda fact: fact.time)
    return found


Held = tuple[datetime, str]  # from when a priority holds, and which


def _held(priorities: Sequence[Held]) -> list[Held]:
    """Of several at one instant the last one counts; one that is the same as before is no change."""
    held: list[Held] = []
    for since, priority in dict(priorities).items():
        if not held or held[-1][1] != priority:
            held.append((since, priority))
    return held


def _due(level: str, held: Sequence[Held], answered_at: datetime | None) -> tuple[datetime, Held]:
    """
    Rule 4, walked forward. While a priority holds, the promise breaks when E reaches its target, but not before the
    priority began to hold. If another one follows by then, and nobody has answered before it, that one decides.
    """
    started_at = held[0][0]
    over = None if answered_at is None else max(answered_at, started_at)
    held = [each for each in held if over is None or each[0] <= over]
    for now, following in zip_longest(held, held[1:]):
        due_at = max(now[0], first_with(level, started_at, _target(level, now[1])))
        if following is None or due_at < following[0]:
            return due_at, now
    raise AssertionError("the opening gives a priority")


def _target(level: str, priority: str) -> timedelta:
    return LEVELS[level][3][priority] * HOUR


def used(level: str, start: datetime, end: datetime) -> timedelta:
    """Support time in [start, end); nothing if end is not after start."""
    total = NOTHING
    for opens, closes in _windows(level, start):
        if opens >= end:
            return total
        total += max(min(closes, end) - max(opens, start), NOTHING)
    raise AssertionError("there is always a next window")


def first_with(level: str, start: datetime, amount: timedelta) -> datetime:
    """The first instant at which so much has been used since `start`."""
    if not amount:
        return start
    for opens, closes in _windows(level, start):
        open_for = max(closes - max(opens, start), NOTHING)
        if open_for >= amount:
            return max(opens, start) + amount
        amount -= open_for
    raise AssertionError("there is always a next window")


def _windows(level: str, start: datetime) -> Iterator[tuple[datetime, datetime]]:
    day = start.astimezone(STOCKHOLM).date()
    while True:
        if (window := _window(level, day)) is not None:
            yield window
        day += DAY


@cache
def _window(level: str, day: date) -> tuple[datetime, datetime] | None:
    days, opens, closes, _ = LEVELS[level]
    if day.weekday() not in days or day in _holidays(day.year):
        return None
    return _wall(day, opens), _wall(day, closes)


_holidays = cache(swedish_holidays)


def _wall(day: date, hour: int) -> datetime:
    """The instant at which clocks in Stockholm show this hour; no window starts or ends while they are changed."""
    day, hour = (day + DAY, 0) if hour == 24 else (day, hour)
    return datetime(day.year, day.month, day.day, hour, tzinfo=STOCKHOLM).astimezone(UTC)
