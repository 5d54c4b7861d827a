"""Targets: how much support time is promised, and by which hours. To whom it is promised is in policy.py."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sla.calendar import SupportHours

LONGEST_TARGET = timedelta(days=3650)

_DURATION = re.compile(r"(?:([0-9]{1,6})h)? ?(?:([0-9]{1,6})m)? ?(?:([0-9]{1,6})s)?")


@dataclass(frozen=True, eq=False)
class Target:
    """What is promised for a priority: a span of support time by `hours`, which are those of `calendar`, or a level."""

    span: timedelta
    hours: SupportHours
    calendar: str

    def __str__(self) -> str:
        return format_duration(self.span)

    def measure(self, start: datetime) -> timedelta:
        """Return the support time that a clock has that starts at this instant."""
        return self.span

    def find_due(self, start: datetime) -> datetime:
        """Return when a clock that starts at this instant runs out. Raises ValueError as the hours do."""
        return self.hours.find_due(start, self.measure(start))


def parse_duration(text: str) -> timedelta:
    """Parse `4h`, `1h 30m`, `90m` or `45s`; else ValueError."""
    match = _DURATION.fullmatch(text)
    if not match or text != text.strip() or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write hours, minutes, seconds of support time: 4h, 1h 30m, 45s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(0) < duration <= LONGEST_TARGET:
        raise ValueError(f"{text!r} is no target; a target is positive and at most {LONGEST_TARGET.days * 24} h")
    return duration


def format_duration(duration: timedelta) -> str:
    """Format whole seconds as a policy file has them: `1h 30m`."""
    seconds = duration // timedelta(seconds=1)
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return " ".join(f"{number}{unit}" for number, unit in parts if number)
