"""What a policy means in days and hours, for whoever wrote it: sla policy check. What it promises is in policy.py."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain, pairwise
from typing import NamedTuple

from sla.calendar import SupportHours, get_zone, iterate_days
from sla.policy import Level, Policy, build_calendars
from sla.targets import Target

CLOSED = "closed"

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_YEAR = timedelta(days=366)
_ZERO = timedelta(0)


class NamedDay(NamedTuple):
    """A local date on which a calendar is closed, or has other hours, and why."""

    day: date
    name: str
    hours: str


class CalendarMeaning(NamedTuple):
    """Support hours in use: `calendar` is their name, or that of the level which has them for itself."""

    calendar: str
    levels: tuple[str, ...]
    """Those that have a promise by these hours."""
    zone: str
    week_hours: dict[date, timedelta]
    """Opening hours of most weeks, by the day from which on."""
    days: tuple[NamedDay, ...]
    warnings: tuple[str, ...]


def describe_calendars(policy: Policy, years: range) -> list[CalendarMeaning]:
    """Return what each calendar of a policy means in these years, named ones first."""
    resolved = policy.to_resolved()
    own = [each["name"] for each in resolved["levels"] if not isinstance(each["hours"], str)]
    hours = [*build_calendars(resolved).items(), *((name, policy.get_level(name).hours) for name in own)]
    return [_describe_calendar(policy, name, each, years) for name, each in hours]


def find_long_targets(policy: Policy, year: int) -> Iterator[str]:
    """Yield a warning for each target that a ticket of the first day of a year has not used up a year later."""
    opened = datetime(year, 1, 1, tzinfo=get_zone(policy.zone)).astimezone(UTC)
    for level in policy.levels.values():
        for what, target in _list_targets(level):
            try:
                due = target.find_due(opened)
            except ValueError:
                due = None
            if due is None or due - opened > _YEAR:
                when = "never" if due is None else f"on {due:%Y-%m-%d}"
                yield f"{what}: {target} is more than a year: opened on {year}-01-01, due {when}"


def _list_targets(level: Level) -> Iterator[tuple[str, Target]]:
    for objective, targets in {"": level.targets, **level.objectives}.items():
        for priority, target in targets.items():
            yield f"level {level.name}: {objective}{': ' if objective else ''}{priority}", target


def _describe_calendar(policy: Policy, name: str, hours: SupportHours, years: range) -> CalendarMeaning:
    levels = tuple(
        level.name
        for level in policy.levels.values()
        if any(target.calendar == name for _, target in _list_targets(level))
    )
    weeks = list(_measure_weeks(hours, years))
    closed = [monday for monday, length in weeks if not length]
    shown = ", ".join(map(str, closed[:5])) + (" …" if len(closed) > 5 else "")
    return CalendarMeaning(
        calendar=name,
        levels=levels,
        zone=hours.rules.zone,
        week_hours=_find_week_hours(hours, weeks),
        days=tuple(_list_days(hours, years)),
        warnings=(f"calendar {name}: no hours in the weeks from Monday {shown}",) if closed else (),
    )


def _measure_weeks(hours: SupportHours, years: range) -> Iterator[tuple[date, timedelta]]:
    """Yield the Monday and the support time of each week that begins in these years."""
    monday = date(years.start, 1, 1)
    monday += (7 - monday.weekday()) % 7 * _DAY
    while monday.year in years:
        yield monday, hours.measure(_find_midnight(hours, monday), _find_midnight(hours, monday + _WEEK))
        monday += _WEEK


def _find_week_hours(hours: SupportHours, weeks: list[tuple[date, timedelta]]) -> dict[date, timedelta]:
    """Return the support time that most weeks have, by the day from which on; until the week itself changes."""
    first, last = weeks[0][0].replace(month=1, day=1), weeks[-1][0]
    changes = {day for member in hours.members for day in member.rules.changes if first < day <= last}
    found: dict[date, timedelta] = {}
    for start, end in pairwise([first, *sorted(changes), last + _WEEK]):
        lengths = Counter(length for monday, length in weeks if start <= monday and monday + _WEEK <= end)
        if lengths:
            found[start] = lengths.most_common(1)[0][0]
    return found


def _list_days(hours: SupportHours, years: range) -> Iterator[NamedDay]:
    """Yield the days on which other hours hold than those of their week; of joined hours, on which all are closed."""
    for day in chain.from_iterable(map(iterate_days, years)):
        dated = [found for member in hours.members if (found := member.find_dated(day))]
        if not dated:
            continue
        if hours.measure(_find_midnight(hours, day), _find_midnight(hours, day + _DAY)) == _ZERO:
            yield NamedDay(day, dated[0].name, CLOSED)
        elif len(hours.members) == 1:
            yield NamedDay(day, dated[0].name, ", ".join(map(str, dated[0].windows)))


def _find_midnight(hours: SupportHours, day: date) -> datetime:
    return datetime.combine(day, time(), get_zone(hours.rules.zone)).astimezone(UTC)
