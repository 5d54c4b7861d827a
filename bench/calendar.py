"""How many times as fast as `workclock` (Rust) due and elapsed are: single calls, the hours of the shipped policy."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import businesstimedelta  # type: ignore[import-untyped]
import pytz  # type: ignore[import-untyped]
import workclock

from bench.figures import Bounds, compare
from sla.calendar import DAY_MINUTES, Rules
from sla.policy import Level, Policy
from sla.policy_file import load_policy_file

B = TypeVar("B")

POLICY = Path(__file__).parent.parent / "sla" / "policies" / "cention-support.yaml"
YEARS = range(2020, 2030)
ROUNDS = 9
CALLS = 20_000
FEW = 500  # calls of the other rival, which takes hundreds of times as long; by the hours of FEW_LEVEL
FEW_LEVEL = "foundation"  # it cannot end a day at 24:00
SPEED = Bounds(must=4, aim=8, at_most=False)
NOT_COUNTED = Bounds(at_most=False)
SECOND = timedelta(seconds=1)


def main() -> int:
    """Prints a row for each level and question; 1 if one of them is slower than it must be."""
    policy = load_policy_file(POLICY)
    print(f"calendar: {CALLS} single calls a round, tickets of {YEARS[0]} to {YEARS[-1]}, floor is workclock")
    rows = [row for level in policy.levels.values() for row in _level(level, policy)]
    _other_rival(policy.get_level(FEW_LEVEL), policy)
    return 0 if all(rows) else 1


def _level(level: Level, policy: Policy) -> list[bool]:
    rival = schedule(level.hours.rules)
    opened = _tickets(level, policy, CALLS)
    answered = _answered(opened)
    return [
        _row(f"due, {level.name}", rival.add, level.hours.find_due, opened, SPEED),
        _row(f"elapsed, {level.name}", rival.between, level.hours.measure, answered, SPEED),
    ]


def _other_rival(level: Level, policy: Policy) -> None:
    """Pure Python, which drops what is less than a second."""
    rules = business_rules(level.hours.rules)
    opened = _tickets(level, policy, FEW)

    def due(start: datetime, target: timedelta) -> Any:
        return start + businesstimedelta.BusinessTimeDelta(rules, timedelta=target)

    def elapsed(start: datetime, end: datetime) -> Any:
        return rules.difference(start, end).timedelta

    name = "(not counted) businesstimedelta"
    _row(f"{name} due", due, level.hours.find_due, opened, NOT_COUNTED, SECOND)
    _row(f"{name} elapsed", elapsed, level.hours.measure, _answered(opened), NOT_COUNTED, SECOND)


def _tickets(level: Level, policy: Policy, calls: int) -> list[tuple[datetime, timedelta]]:
    chance = random.Random(2026)
    first = datetime(YEARS[0], 1, 1, tzinfo=UTC)
    length = datetime(YEARS.stop, 1, 1, tzinfo=UTC) - first
    targets = [policy.get_target(level.name, priority).measure(first) for priority in policy.priorities]
    return [(first + length * chance.random(), chance.choice(targets)) for _ in range(calls)]


def _answered(opened: Sequence[tuple[datetime, timedelta]]) -> list[tuple[datetime, datetime]]:
    return [(start, start + 3 * target) for start, target in opened]


def _row(
    name: str,
    floor: Callable[[datetime, B], Any],
    ours: Callable[[datetime, B], Any],
    calls: Sequence[tuple[datetime, B]],
    bounds: Bounds,
    within: timedelta = timedelta.resolution,
) -> bool:
    """Both must give answers that differ by less than `within`."""
    for call in calls:
        if abs(floor(*call) - ours(*call)) >= within:
            raise AssertionError(f"{name} differs for {call}: {floor(*call)} and {ours(*call)}")
    return compare(name, _timed(floor, calls), _timed(ours, calls), bounds, ROUNDS, len(calls))


def _timed(ask: Callable[[datetime, B], object], calls: Sequence[tuple[datetime, B]]) -> Callable[[], float]:
    def seconds() -> float:
        start = perf_counter()
        for first, second in calls:
            ask(first, second)
        return perf_counter() - start

    return seconds


def schedule(rules: Rules) -> workclock.Schedule:
    """The same weekly hours and holidays for workclock, which knows no dated exceptions and no changes of hours."""
    days = [
        workclock.WorkDay(_time(window.start), _time(window.end), days=[day])
        for day, windows in enumerate(rules.week)
        for window in windows
    ]
    return workclock.Schedule([*days, workclock.Holidays(rules.holidays)], time_zone=rules.zone)


def business_rules(rules: Rules) -> Any:
    """The same for businesstimedelta; days with the same windows are one rule, as its manual has it."""
    zone = pytz.timezone(rules.zone)
    days = {window: [day for day in range(7) if window in rules.week[day]] for day in rules.week for window in day}
    work = [
        businesstimedelta.WorkDayRule(_time(window.start), _time(window.end), some, tz=zone)
        for window, some in days.items()
    ]
    return businesstimedelta.Rules([*work, businesstimedelta.HolidayRule(rules.holidays, tz=zone)])


def _time(minutes: int) -> time:
    hour, minute = divmod(minutes % DAY_MINUTES, 60)
    return time(hour, minute)
