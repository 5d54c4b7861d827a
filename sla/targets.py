"""Targets: how much support time is promised, and by which hours. To whom it is promised is in policy.py.

A target is a span of support time, or names an instant by days, which is turned into support time once: that from the
opening to the instant. All else then works as it does for a span. If the instant lies outside the hours, the target is
used up at the last closing before it; if no support time lies before it, at the next closing.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sla.calendar import END_OF_HOURS, SupportHours

LONGEST_TARGET = timedelta(days=3650)
MOST_DAYS = LONGEST_TARGET.days
END_OF_DAY = "end of day"
NEXT = "next"
BEFORE = " before"

_ZERO = timedelta(0)
_DURATION = re.compile(r"(?:([0-9]{1,6})h)? ?(?:([0-9]{1,6})m)? ?(?:([0-9]{1,6})s)?")
_DAYS = re.compile(r"(?P<days>next|[1-9][0-9]{0,3}) (?P<working>working )?days?(?: by (?P<by>[0-9]{2}:[0-9]{2}))?")
_WAYS = "4h, 1h 30m, 45s; or 2 working days, next working day by 17:00, 3 working days by 12:00, end of day, 5 days"


class DayRule(NamedTuple):
    """
    An instant named by days: `days` after that of the opening, which are `working` days or those of the calendar, at
    the wall time of the opening or `by` another one, in minutes from midnight. No days: the end of the working day.
    """

    text: str
    days: int | None
    working: bool
    by: int | None

    @property
    def is_next(self) -> bool:
        """Whether it is the first working day after the local day of the opening, whenever that was."""
        return self.text.startswith(NEXT)

    def find_instant(self, hours: SupportHours, start: datetime) -> datetime:
        """Return the instant for a clock that starts at this one. Raises ValueError if it lies after all hours."""
        if self.days is None:
            return hours.find_end_of_day(start)
        if not self.working:
            return _find_wall_time(hours, start.astimezone(hours.zone), self.days)
        opened, by = hours.find_working_day(start), timedelta(minutes=self.by or 0)
        first = start.astimezone(hours.zone).date() if self.is_next else opened.day
        day = hours.find_working_days_after(first, self.days)
        return hours.convert_wall_time(day, opened.wall_time if self.by is None else by)


def _find_wall_time(hours: SupportHours, local: datetime, days: int) -> datetime:
    midnight = datetime.combine(local.date(), datetime.min.time())
    return hours.convert_wall_time(local.date() + timedelta(days=days), local.replace(tzinfo=None) - midnight)


@dataclass(frozen=True, eq=False)
class Target:
    """What is promised for a priority: support time by `hours`, which are those of `calendar`, or of a level."""

    rule: timedelta | DayRule
    hours: SupportHours
    calendar: str

    def __str__(self) -> str:
        return format_duration(self.rule) if isinstance(self.rule, timedelta) else self.rule.text

    @property
    def span(self) -> timedelta | None:
        """The support time, None if it depends on when a clock starts."""
        return self.rule if isinstance(self.rule, timedelta) else None

    def measure(self, start: datetime) -> timedelta:
        """Return the support time that a clock has that starts at this instant."""
        if isinstance(self.rule, timedelta):
            return self.rule
        try:
            used = self.hours.measure(start, self.rule.find_instant(self.hours, start))
            return used or self.hours.measure(start, self.hours.find_closing(start))
        except ValueError:
            return self.hours.measure(start, END_OF_HOURS)

    def find_due(self, start: datetime) -> datetime:
        """Return when a clock that starts at this instant runs out. Raises ValueError as the hours do."""
        return self.hours.find_due(start, self.measure(start))


class Threshold(NamedTuple):
    """When to warn: at a share of the target in percent, or a span of support time before the deadline."""

    percent: int | None = None
    before: timedelta | None = None

    def __str__(self) -> str:
        return f"{self.percent}%" if self.before is None else f"{format_duration(self.before)}{BEFORE}"

    def find_share(self, target: timedelta) -> timedelta | None:
        """Return the support time that is used then; None if the clock starts later than that."""
        if self.before is not None:
            return target - self.before if self.before <= target else None
        return -(-target * (self.percent or 0) // 100)


def parse_threshold(text: str) -> Threshold:
    """Parse `75`, `75%` or `30m before`; else ValueError."""
    if text.endswith(BEFORE):
        return Threshold(before=parse_duration(text.removesuffix(BEFORE)))
    percent = text.removesuffix("%")
    if not re.fullmatch(r"[0-9]{1,2}", percent) or int(percent) < 1:
        raise ValueError(f"{text!r} is not a threshold; write whole percent from 1 to 99, or a span: 30m before")
    return Threshold(percent=int(percent))


def parse_target(text: str) -> timedelta | DayRule:
    """Parse a span, such as `1h 30m`, or an instant named by days, such as `2 working days`; else ValueError."""
    if text == END_OF_DAY:
        return DayRule(text, None, True, None)
    match = _DAYS.fullmatch(text)
    if match is None:
        return parse_duration(text)
    days = 1 if match["days"] == NEXT else int(match["days"])
    by = None if match["by"] is None else _parse_time_of_day(match["by"])
    wanted = f"{match['days']} {match['working'] or ''}{'day' if days == 1 else 'days'}"
    if match["days"] == NEXT and (not match["working"] or by is None):
        raise ValueError(f"{text!r} is not a target; write next working day by HH:MM, such as by 17:00")
    if not match["working"] and by is not None:
        raise ValueError(f"{text!r} is not a target; a time of day is for working days: 2 working days by 17:00")
    if text != wanted + (f" by {match['by']}" if match["by"] else ""):
        raise ValueError(f"{text!r} is not a target; write {wanted}")
    if days > MOST_DAYS:
        raise ValueError(f"{text!r} is no target; a target is at most {MOST_DAYS} days")
    return DayRule(text, days, bool(match["working"]), by)


def _parse_time_of_day(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > 24 * 60:
        raise ValueError(f"{text!r} is a time that does not exist; times go from 00:00 to 24:00")
    return hour * 60 + minute


def parse_duration(text: str) -> timedelta:
    """Parse `4h`, `1h 30m`, `90m` or `45s`; else ValueError."""
    match = _DURATION.fullmatch(text)
    if not match or text != text.strip() or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write hours, minutes, seconds of support time: {_WAYS}")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not _ZERO < duration <= LONGEST_TARGET:
        raise ValueError(f"{text!r} is no target; a target is positive and at most {LONGEST_TARGET.days * 24} h")
    return duration


def format_duration(duration: timedelta) -> str:
    """Format whole seconds as a policy file has them: `1h 30m`."""
    seconds = duration // timedelta(seconds=1)
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return " ".join(f"{number}{unit}" for number, unit in parts if number)
