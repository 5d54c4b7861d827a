"""Targets that name an instant by days, apart from sla/: support time is what a walk counts from minute to minute."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta

from tests.support.oracle import DAY, MINUTE, Oracle, edge

HORIZON = 40 * DAY


def count_target(oracle: Oracle, start: datetime, text: str) -> timedelta:
    """The support time that a clock has which starts at this whole minute, by the words of the policy."""
    count, _, what = text.partition(" ")
    if text == "end of day":
        end = find_end_of_day(oracle, start)
    elif count == "next":
        day = next(walk_working_days(oracle, start.astimezone(oracle.zone).date()))
        end = edge(oracle.zone, day, text[-5:])
    elif "working" in what:
        opening = find_open_minute(oracle, start)
        days = walk_working_days(oracle, find_day(oracle, opening))
        day = [next(days) for _ in range(int(count))][-1]
        end = find_wall_time(oracle, day, f"{opening.astimezone(oracle.zone):%H:%M}" if "by" not in what else what[-5:])
    else:
        local = start.astimezone(oracle.zone)
        end = find_wall_time(oracle, local.date() + int(count) * DAY, f"{local:%H:%M}")
    used = oracle.elapsed(start, end)
    return used or oracle.elapsed(start, find_first_closing(oracle, start))


def find_wall_time(oracle: Oracle, day: date, text: str) -> datetime:
    """The first minute at which clocks show this time or, if they skip it, a later one of that day."""
    minute = edge(oracle.zone, day, "00:00") - MINUTE
    if text == "24:00":
        return edge(oracle.zone, day + DAY, "00:00")
    while (local := minute.astimezone(oracle.zone)).date() < day or f"{local:%H:%M}" < text:
        minute += MINUTE
    return minute


def walk_minutes(oracle: Oracle, start: datetime) -> Iterator[tuple[datetime, bool]]:
    """Each minute and whether it counts."""
    minute = start
    while minute < start + HORIZON:
        yield minute, oracle.is_open(minute)
        minute += MINUTE


def find_open_minute(oracle: Oracle, start: datetime) -> datetime:
    return next(minute for minute, is_open in walk_minutes(oracle, start) if is_open)


def find_day(oracle: Oracle, minute: datetime) -> date:
    """The local day of an open minute: these calendars have no windows over midnight."""
    return minute.astimezone(oracle.zone).date()


def walk_working_days(oracle: Oracle, after: date) -> Iterator[date]:
    """The days after this one on which some minute counts."""
    start = edge(oracle.zone, after + DAY, "00:00")
    found = (find_day(oracle, minute) for minute, is_open in walk_minutes(oracle, start) if is_open)
    seen = None
    for day in found:
        if day != seen:
            yield day
        seen = day


def find_end_of_day(oracle: Oracle, start: datetime) -> datetime:
    """After the last open minute of the day of the opening, or of the next opening."""
    opening = find_open_minute(oracle, start)
    day = find_day(oracle, opening)
    ahead = ((it, is_open) for it, is_open in walk_minutes(oracle, opening) if it < opening + 2 * DAY)
    last = [it for it, is_open in ahead if is_open and find_day(oracle, it) == day]
    return last[-1] + MINUTE


def find_first_closing(oracle: Oracle, start: datetime) -> datetime:
    """The first closed minute after an open one, or the first midnight if it stays open."""
    opening = find_open_minute(oracle, start)
    day = find_day(oracle, opening)
    return next(it for it, is_open in walk_minutes(oracle, opening) if not is_open or find_day(oracle, it) != day)
