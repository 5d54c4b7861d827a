"""The promise once more, read from the rules of the policy one by one, apart from sla/: slow, naive, whole history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import zip_longest
from zoneinfo import ZoneInfo

from tests.scenarios.scenario import Fact
from tests.support.oracle import swedish_holidays

STOCKHOLM = ZoneInfo("Europe/Stockholm")
HOUR, DAY, NOTHING = timedelta(hours=1), timedelta(days=1), timedelta(0)
LEVELS = {  # days of the week, Monday is 0; opening and closing hour; targets in hours
    "foundation": (range(5), 9, 18, {"critical": 4, "serious": 8, "minor": 24}),
    "professional": (range(5), 8, 22, {"critical": 1, "serious": 4, "minor": 12}),
    "enterprise": (range(7), 0, 24, {"critical": 2, "serious": 4, "minor": 8}),
}


EXCLUDED_FOR = {  # the reasons of policy section 7
    "terms_violation", "unauthorized_modification", "third_party", "customer_environment", "internet_connectivity",
    "basic_training", "custom_development", "preview_feature",
}  # fmt: skip


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
    reason: str | None = None


def find_truth(told: Sequence[Fact], now: datetime, pauses: bool = False, edited_at: datetime | None = None) -> Truth:
    """
    Each rule in its own words. Duplicates are dropped; facts that have not happened yet do not count. `pauses`: the
    policy says that the budget waits between paused and resumed. From `edited_at` on the version `edited` is in force,
    whose targets are doubled.
    """
    withdrawn = {(fact.source, fact.data["withdraws"]) for fact in told if fact.kind == "fact_withdrawn"}
    known = {key: fact for fact in told if (key := (fact.source, fact.id)) not in withdrawn or fact.kind in ABOUT_FACTS}
    facts = [fact for fact in _correct_facts(list(known.values())) if fact.time <= now]
    openings = _sort_facts(facts, "opened")
    if not openings:
        return Truth("pending")
    opening = openings[0]  # rules 7 and 8: the earliest; the others are ignored
    history = _History(
        opening, [fact for fact in _sort_facts(facts, *CHANGES) if fact.time >= opening.time], pauses, edited_at
    )
    answers = [fact for fact in facts if fact.kind == "responded" and fact.data.get("by", "agent") == "agent"]
    answered_at = min((fact.time for fact in answers if history.is_awaited(fact.time)), default=None)  # rule 5
    excluded_for = _find_exclusion(facts)
    closed_at = None if answered_at is None else history.find_closing(answered_at)
    ran = history if closed_at is None else history.without_closing(closed_at)  # rule 15: the clock ran on
    promise = ran.find_promise(answered_at)
    in_time = answered_at is not None and answered_at <= promise.due_at  # rule 1
    broken = not in_time and promise.runs and now > promise.due_at and excluded_for is None  # rule 2
    level, priority, closed_for, waits, _ = history.now
    stage = "running"
    if excluded_for is not None:
        stage = "excluded"
    elif answered_at is not None:
        stage = "fulfilled"
    elif closed_for is not None:
        stage = "cancelled"
    elif waits:
        stage = "paused"
    answered = stage == "fulfilled"
    return Truth(
        stage=stage,
        service_level=level,
        priority=priority,  # rule 4: the label follows every change
        opening_id=opening.id,
        started_at=opening.time,
        due_at=promise.due_at,
        target=promise.target,
        at_risk_at=promise.at_risk_at if stage == "running" and not broken else None,  # rule 12
        breached_at=promise.due_at if broken else None,
        responded_at=answered_at if answered else None,
        met=in_time if answered else None,
        overdue=ran.measure_open_time(promise, answered_at) if answered and answered_at else None,
        escalation_level=sum(fact.kind == "escalated" for fact in facts),  # rule 10
        reason={"excluded": excluded_for, "cancelled": closed_for}.get(stage),
    )


ABOUT_FACTS = ("corrected", "fact_withdrawn")  # which nothing corrects or withdraws
CHANGES = (
    "priority_changed", "service_level_changed", "closed", "reopened", "paused", "resumed", "policy_changed",
)  # fmt: skip
SAYS = {  # what a correction can change of each kind
    "opened": ("service_level", "priority", "channel", "customer"),
    "priority_changed": ("priority",),
    "service_level_changed": ("service_level",),
    "responded": ("by", "channel"),
}


def _correct_facts(facts: Sequence[Fact]) -> Iterator[Fact]:
    """Rule 14: the fact is replaced from the start, whenever the correction came; the last correction is right."""
    corrections = _sort_facts(facts, "corrected")
    for fact in facts:
        for correction in corrections:
            if (correction.source, correction.data["corrects"]) == (fact.source, fact.id) and fact.kind != "corrected":
                names = SAYS.get(fact.kind, ("reason",))
                right = {name: correction.data[name] for name in names if name in correction.data}
                time = correction.data.get("time")
                when = fact.time if time is None else datetime.fromisoformat(time)
                fact = replace(fact, data={**fact.data, **right}, time=when)
        yield fact


def _sort_facts(facts: Sequence[Fact], *kinds: str) -> list[Fact]:
    """The order of facts (docs/architecture.md): by time; then the sequence as text, none first; then source and id."""
    found = [fact for fact in facts if fact.kind in kinds]
    for key in ("id", "source"):
        found.sort(key=lambda fact, key=key: getattr(fact, key))
    found.sort(key=lambda fact: fact.sequence or "")  # none is written as an empty text, which comes first
    found.sort(key=lambda fact: fact.time)
    return found


def _find_exclusion(facts: Sequence[Fact]) -> str | None:
    """Rule 14: an exclusion for a listed reason holds from the start, unless revoked after it; the last that holds."""
    standing: dict[str, None] = {}
    for fact in _sort_facts(facts, "excluded", "exclusion_revoked"):
        standing.pop(fact.data["reason"], None)
        if fact.kind == "excluded" and fact.data["reason"] in EXCLUDED_FOR:
            standing[fact.data["reason"]] = None
    return list(standing)[-1] if standing else None


@dataclass(frozen=True)
class Promise:
    """What holds in the end: `runs` is false for a ticket that was closed before its deadline."""

    level: str
    target: timedelta
    due_at: datetime
    at_risk_at: datetime | None
    runs: bool


# level, priority, why it is closed, why it waits, times the target
Labels = tuple[str, str, str | None, frozenset[str | None], int]


class _History:
    """What a ticket was from one instant to the next. Of several changes at one instant the last one counts."""

    def __init__(self, opening: Fact, changes: Sequence[Fact], pauses: bool, edited_at: datetime | None) -> None:
        self._given = (opening, changes, pauses, edited_at)
        times = 2 if edited_at is not None and opening.time >= edited_at else 1  # rule 13: in force at the opening
        self.now: Labels = (opening.data["service_level"], opening.data["priority"], None, frozenset(), times)
        self._from: dict[datetime, Labels] = {opening.time: self.now}
        for change in changes:
            level, priority, closed, waits, times = self.now
            if change.kind == "priority_changed":
                priority = change.data["priority"]
            elif change.kind == "service_level_changed":
                level = change.data["service_level"]
            elif change.kind == "closed":
                closed = closed or change.data.get("reason", "closed")
            elif change.kind == "reopened":
                closed = None
            elif change.kind == "paused" and pauses:
                waits |= {change.data.get("reason")}
            elif change.kind == "resumed":
                waits = waits - {change.data["reason"]} if "reason" in change.data else frozenset()
            elif change.kind == "policy_changed":
                times = 2 if change.data["policy_version"] == "edited" else 1
            self.now = (level, priority, closed, waits, times)
            self._from[change.time] = self.now

    def find_closing(self, time: datetime) -> datetime | None:
        """Rule 14: when it was closed, if it was before this time and after it; None if not."""
        closed_at = None
        for since, (_, _, closed, _, _) in self._from.items():
            if since <= time:
                closed_at = None if closed is None else closed_at or since
        return closed_at if closed_at is not None and closed_at < time else None

    def is_awaited(self, time: datetime) -> bool:
        """Rule 15: an answer counts while the ticket is open, and for a minute after it was closed."""
        closed_at = self.find_closing(time)
        return closed_at is None or time - closed_at <= timedelta(minutes=1)

    def without_closing(self, closed_at: datetime) -> "_History":
        """The ticket as it was when it was closed, and as if that had not been."""
        opening, changes, pauses, edited_at = self._given
        kept = [fact for fact in changes if fact.time <= closed_at]
        reopened = [number for number, fact in enumerate(kept) if fact.kind == "reopened"]
        since = max(reopened, default=-1)  # whoever closed it: two may, at one instant
        open_still = [fact for number, fact in enumerate(kept) if number < since or fact.kind != "closed"]
        return _History(opening, open_still, pauses, edited_at)

    def find_promise(self, answered_at: datetime | None) -> Promise:
        """Rules 4 and 14, walked forward from one change of hours, target or being open to the next."""
        over = None if answered_at is None else max(answered_at, min(self._from))
        parts: list[tuple[datetime, tuple[str, timedelta, bool]]] = []
        for since, (level, priority, closed, waits, times) in self._from.items():
            holds = (level, times * _get_target(level, priority), closed is None and not waits)
            if (over is None or since <= over) and (not parts or parts[-1][1] != holds):
                parts.append((since, holds))
        gone, due_at, promise = NOTHING, None, None
        for (since, (level, target, is_open)), following in zip_longest(parts, parts[1:]):
            if not is_open and over is not None and following is None:
                is_open = True  # answered as it was closed
                since = over
            if is_open or promise is None or promise.runs:  # closed once more it is due as it was
                due_at = find_first_with(level, since, max(target - gone, NOTHING))
            if not is_open:
                promise = Promise(level, target, due_at, None, False)
                continue
            at_risk_at = find_first_with(level, since, max(target * 3 / 4 - gone, NOTHING))
            promise = Promise(level, target, due_at, at_risk_at, True)
            if following is None or due_at < following[0]:
                return promise
            gone += measure_used(level, since, following[0])
        assert promise is not None, "the opening gives a part"
        return promise

    def measure_open_time(self, promise: Promise, until: datetime) -> timedelta:
        """Support time from the deadline on, but for the time in which the ticket was closed or waited."""
        total, starts = NOTHING, list(self._from.items())
        for (since, (_, _, closed, waits, _)), following in zip_longest(starts, starts[1:]):
            end = until if following is None else min(until, following[0])
            if closed is None and not waits:
                total += measure_used(promise.level, max(since, promise.due_at), end)
        return total


def _get_target(level: str, priority: str) -> timedelta:
    return LEVELS[level][3][priority] * HOUR


def measure_used(level: str, start: datetime, end: datetime) -> timedelta:
    """Support time in [start, end); nothing if end is not after start."""
    total = NOTHING
    for opens, closes in _iterate_windows(level, start):
        if opens >= end:
            return total
        total += max(min(closes, end) - max(opens, start), NOTHING)
    raise AssertionError("there is always a next window")


def find_first_with(level: str, start: datetime, amount: timedelta) -> datetime:
    """The first instant at which so much has been used since `start`."""
    if not amount:
        return start
    for opens, closes in _iterate_windows(level, start):
        open_for = max(closes - max(opens, start), NOTHING)
        if open_for >= amount:
            return max(opens, start) + amount
        amount -= open_for
    raise AssertionError("there is always a next window")


def _iterate_windows(level: str, start: datetime) -> Iterator[tuple[datetime, datetime]]:
    day = start.astimezone(STOCKHOLM).date()
    while True:
        if (window := _find_window(level, day)) is not None:
            yield window
        day += DAY


@cache
def _find_window(level: str, day: date) -> tuple[datetime, datetime] | None:
    days, opens, closes, _ = LEVELS[level]
    if day.weekday() not in days or day in _holidays(day.year):
        return None
    return _convert_from_wall(day, opens), _convert_from_wall(day, closes)


_holidays = cache(swedish_holidays)


def _convert_from_wall(day: date, hour: int) -> datetime:
    """The instant at which clocks in Stockholm show this hour; no window starts or ends while they are changed."""
    day, hour = (day + DAY, 0) if hour == 24 else (day, hour)
    return datetime(day.year, day.month, day.day, hour, tzinfo=STOCKHOLM).astimezone(UTC)
