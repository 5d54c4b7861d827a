"""How many times as fast as `workclock` (Rust) due and elapsed are: single calls, the hours of the shipped policy."""

import random
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import workclock

from bench.ratio import HEADER, compare
from sla.calendar import DAY_MINUTES, Rules
from sla.policy import Level, Policy, load

B = TypeVar("B")

POLICY = Path(__file__).parent.parent / "sla" / "policies" / "cention-support.yaml"
YEARS = range(2020, 2030)
CALLS = 20_000
MUST, AIM = 4.0, 8.0


def main() -> int:
    """Prints a row for each level and question; 1 if one of them is slower than it must be."""
    policy = load(POLICY)
    print(f"calendar: {CALLS} single calls a round, tickets of {YEARS[0]} to {YEARS[-1]}, floor is workclock")
    print(HEADER)
    rows = [row for level in policy.levels.values() for row in _level(level, policy)]
    return 0 if all(rows) else 1


def _level(level: Level, policy: Policy) -> list[bool]:
    rival = schedule(level.hours.rules)
    opened = _tickets(level, policy)
    answered = [(start, start + 3 * target) for start, target in opened]
    return [
        _row(f"due, {level.name}", rival.add, level.hours.due, opened),
        _row(f"elapsed, {level.name}", rival.between, level.hours.elapsed, answered),
    ]


def _tickets(level: Level, policy: Policy) -> list[tuple[datetime, timedelta]]:
    chance = random.Random(2026)
    first = datetime(YEARS[0], 1, 1, tzinfo=UTC)
    length = datetime(YEARS.stop, 1, 1, tzinfo=UTC) - first
    targets = [policy.target(level.name, priority) for priority in policy.priorities]
    return [(first + length * chance.random(), chance.choice(targets)) for _ in range(CALLS)]


def _row(
    name: str,
    floor: Callable[[datetime, B], object],
    ours: Callable[[datetime, B], object],
    calls: Sequence[tuple[datetime, B]],
) -> bool:
    for call in calls:
        if floor(*call) != ours(*call):
            raise AssertionError(f"{name} differs for {call}: {floor(*call)} and {ours(*call)}")
    row = compare(name, _timed(floor, calls), _timed(ours, calls), must=MUST, aim=AIM, rounds=9, operations=CALLS)
    return row.passed


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


def _time(minutes: int) -> time:
    hour, minute = divmod(minutes % DAY_MINUTES, 60)
    return time(hour, minute)


if __name__ == "__main__":
    sys.exit(main())
