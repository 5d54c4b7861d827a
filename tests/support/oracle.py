"""Support hours once more, naive and apart from sla/calendar.py: looks at each minute, searches for each wall time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
Texts = Sequence[str]


@dataclass
class Oracle:
    """
    Windows as text for the weekdays, Monday first; closed dates; dates with their own windows; later weeks; windows of
    days of every year, such as `12-24`; others beside which it is open too.
    """

    zone: tzinfo
    week: Sequence[Texts]
    closed: frozenset[date] = frozenset()
    dated: Mapping[date, Texts] = field(default_factory=dict)
    changes: Mapping[date, Sequence[Texts]] = field(default_factory=dict)
    yearly: Mapping[str, Texts] = field(default_factory=dict)
    others: Sequence["Oracle"] = ()

    def __post_init__(self) -> None:
        self._minutes: dict[date, frozenset[datetime]] = {}

    def elapsed(self, start: datetime, end: datetime) -> timedelta:
        return sum((stop - begin for begin, stop in self._open_minutes(start, end)), timedelta(0))

    def due(self, start: datetime, target: timedelta, within: timedelta = timedelta(days=60)) -> datetime | None:
        """None if it lies further ahead than the walk goes."""
        if not target:
            return start
        left = target
        for begin, stop in self._open_minutes(start, start + within):
            if stop - begin >= left:
                return begin + left
            left -= stop - begin
        return None

    def is_open(self, at: datetime) -> bool:
        return self._counts(at.replace(second=0, microsecond=0))

    def _open_minutes(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The counted minutes that touch [start, end), cut to it."""
        minute = start.replace(second=0, microsecond=0)
        while minute < end:
            if self._counts(minute):
                yield max(minute, start), min(minute + MINUTE, end)
            minute += MINUTE

    def _counts(self, minute: datetime) -> bool:
        """A minute counts if a window holds it that started on this local day or one close to it."""
        today = minute.astimezone(self.zone).date()
        return any(minute in self._minutes_of(today + n * DAY) for n in (-2, -1, 0, 1)) or any(
            other._counts(minute) for other in self.others
        )

    def _minutes_of(self, day: date) -> frozenset[datetime]:
        """The minutes of the windows that start on a day, without those on closed days."""
        if day not in self._minutes:
            minutes = set()
            for text in self._texts(day):
                minutes |= {m for part in self._parts(day, text) for m in part}
            self._minutes[day] = frozenset(minutes)
        return self._minutes[day]

    def _parts(self, day: date, text: str) -> Iterator[Iterator[datetime]]:
        start, end = text.split("-")
        until = day if end > start else day + DAY
        for each in (day, day + DAY):
            if not self._is_closed(each):
                midnight, next_midnight = edge(self.zone, each, "00:00"), edge(self.zone, each, "24:00")
                opens, closes = edge(self.zone, day, start), edge(self.zone, until, end)
                yield minutes_between(max(opens, midnight), min(closes, next_midnight))

    def _is_closed(self, day: date) -> bool:
        return not self.dated[day] if day in self.dated else day in self.closed

    def _texts(self, day: date) -> Texts:
        if self.dated.get(day):
            return self.dated[day]
        begun = [first for first in self.changes if first <= day]
        week = self.changes[max(begun)] if begun else self.week
        usual = week[day.weekday()]
        return self.yearly.get(f"{day:%m-%d}", usual) if usual and not self._is_closed(day) else usual


def minutes_between(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += MINUTE


@cache
def edge(zone: tzinfo, day: date, text: str) -> datetime:
    """The first instant at which clocks show this time; if they skip it, as far behind the skip as it lies in it."""
    hour, minute = map(int, text.split(":"))
    wall = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)
    near = list(minutes_between(wall - timedelta(hours=16), wall + timedelta(hours=16)))
    clocks = [at.astimezone(zone).replace(tzinfo=UTC) for at in near]
    if wall in clocks:
        return near[clocks.index(wall)]
    last = max(n for n, clock in enumerate(clocks) if clock < wall)
    return near[last] + (wall - clocks[last])


def swedish_holidays(year: int) -> set[date]:
    """The 13 days of lag (1989:253) since 2005, from the rules of the calendar alone."""
    easter = easter_sunday(year)
    around_easter = {easter + timedelta(days=n) for n in (-2, 0, 1, 39, 49)}
    fixed = {date(year, *day) for day in ((1, 1), (1, 6), (5, 1), (6, 6), (12, 25), (12, 26))}
    return around_easter | fixed | {saturday_from(date(year, 6, 20)), saturday_from(date(year, 10, 31))}


def saturday_from(day: date) -> date:
    return next(day + n * DAY for n in range(7) if (day + n * DAY).isoweekday() == 6)


def easter_sunday(year: int) -> date:
    """Gauss and Meeus: the Gregorian Easter."""
    golden, century, in_century = year % 19, year // 100, year % 100
    leaps, skipped = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leaps - correction + 15) % 30
    weekday = (32 + 2 * skipped + 2 * (in_century // 4) - epact - in_century % 4) % 7
    shift = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * shift + 114, 31)
    return date(year, month, day + 1)
