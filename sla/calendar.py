"""Support hours: which instants count, and when a span of counted time is used up. What is promised is in policy.py.

How hours are read:

- Windows are local wall time, half-open, converted to UTC once; all arithmetic is in UTC. An edge that a clock change
  skips moves forward by the gap, an edge that occurs twice is its first occurrence (RFC 5545).
- A window belongs to the day it starts on. One that ends before it starts is overnight: it ends on the next day.
- A holiday, or a dated exception without windows, closes the local calendar day from 00:00 to 24:00, no more, no less:
  an overnight window loses the part inside a closed day and keeps the part outside it, before or after.
- A dated exception with windows replaces the windows that start on that day, and opens the day if it is a holiday.
- Weekly hours may change: other ones hold for the days from a given local date on.
- Yearly hours replace the windows that start on a day of every year, if it has any; a closed day stays closed.
- Joined hours are open as long as one of several calendars is; their days are those of the first one's zone.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import cache
from importlib.resources import files
from itertools import accumulate, chain
from types import MappingProxyType
from typing import NamedTuple, Self
from zoneinfo import ZoneInfo

YEARS = range(1970, 2200)
"""The years in which instants are accepted. Facts lie in 2000 to 2100; the rest is room for deadlines and history."""

_FIRST_DAY = date(YEARS[0], 1, 1).toordinal()
_LAST_DAY = date(YEARS[-1], 12, 31).toordinal()

END_OF_HOURS = datetime(YEARS.stop - 1, 12, 31, tzinfo=UTC)
"""The last day for which support hours are known."""

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60

COUNTED = "support hours"
NOT_COUNTED = "outside support hours"

_ZERO = timedelta(0)
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_LONG = timedelta(days=4)
"""From this target on a bisection is faster than a walk from window to window."""

_WINDOW = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_DAY_OF_YEAR = re.compile(r"[0-9]{2}-[0-9]{2}")
LEAP_YEAR = 2000
_FIXED_OFFSET = re.compile(r"UTC([+-])([0-9]{2}):([0-9]{2})")


class Window(NamedTuple):
    """Support time [start, end) of one day, in minutes from its local midnight; above 1440 is on the next day."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `09:00-18:00`, `22:00-06:00` (overnight) or `00:00-24:00`; else ValueError."""
        match = _WINDOW.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a window of time; write HH:MM-HH:MM, such as 09:00-18:00")
        start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
        start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
        if start_minute > 59 or end_minute > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
            raise ValueError(
                f"{text!r} has a time that does not exist; times go from 00:00 to 23:59, and 24:00 ends a day"
            )
        if start == end:
            raise ValueError(f"{text!r} is empty; start and end of a window differ, and a whole day is 00:00-24:00")
        return cls(start, end if end > start else end + DAY_MINUTES)

    def __str__(self) -> str:
        end = self.end if self.end <= DAY_MINUTES else self.end - DAY_MINUTES
        return f"{self.start // 60:02}:{self.start % 60:02}-{end // 60:02}:{end % 60:02}"


Week = tuple[tuple[Window, ...], ...]
"""The windows of the seven days, Monday first."""


class DatedHours(NamedTuple):
    """What holds on one local date instead of the weekly hours and any holiday; closed if it has no windows."""

    name: str
    windows: tuple[Window, ...]


class Rules(NamedTuple):
    """What support hours are made of."""

    zone: str
    week: Week
    changes: Mapping[date, Week]
    holidays: Mapping[date, str]
    exceptions: Mapping[date, DatedHours]
    yearly: Mapping[tuple[int, int], tuple[Window, ...]]
    """By month and day."""


class Segment(NamedTuple):
    """A span of time [start, end) in UTC, whether it counts, and why or why not."""

    start: datetime
    end: datetime
    counted: bool
    reason: str


class WorkingDay(NamedTuple):
    """A working day, and how far from its midnight clocks were: more than a day in a window over midnight."""

    day: date
    wall_time: timedelta


_Window = tuple[datetime, datetime, datetime, int]


class _Span(NamedTuple):
    """The open time of whole local years, laid out for looking up.

    A window is (closes, opens, base, number of the next one). Its base is its opening minus the time counted before it,
    so that inside the window counted time is the instant minus the base. The last one stands for the time after the
    span: it never closes. `used` is the time counted before each window. `of_day` has, for each UTC day from the
    ordinal `first_day` on, the first window that closes on it or later: one step where a bisection takes ten, most of
    them cache misses. The span answers for the days between `first_day` and `last_day`, without these two.
    """

    windows: list[_Window]
    used: list[timedelta]
    of_day: list[_Window]
    first_day: int
    last_day: int
    years: range


_NEVER = datetime.max.replace(tzinfo=UTC)
_NO_SPAN = _Span([], [], [], 0, 0, range(YEARS.stop, YEARS.start))


@cache
def get_zone(name: str) -> tzinfo:
    """Return the zone of an IANA name (`Europe/Stockholm`) or an offset (`UTC+01:00`, to 14 h); else ValueError."""
    if name in files("tzdata").joinpath("zones").read_text(encoding="utf-8").split():
        return ZoneInfo(name)
    match = _FIXED_OFFSET.fullmatch(name)
    if not match or int(match[3]) > 59 or int(match[2]) * 60 + int(match[3]) > 14 * 60:
        raise ValueError(f"{name!r} is not a time zone; write an IANA name such as Europe/Stockholm, or UTC+01:00")
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def parse_day_of_year(text: str) -> tuple[int, int]:
    """Parse `12-24` into month and day, 02-29 among them; else ValueError."""
    try:
        day = date.fromisoformat(f"{LEAP_YEAR}-{text}") if _DAY_OF_YEAR.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise ValueError(f"{text!r} is not a day of the year; write month and day as MM-DD, such as 12-24")
    return day.month, day.day


def parse_weekdays(text: str) -> tuple[int, ...]:
    """Parse `sat`, `mon-fri`, `fri-mon` or `daily` into days of the week, 0 is Monday; else ValueError."""
    if text == "daily":
        return tuple(range(7))
    first, dash, last = text.partition("-")
    if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
        raise ValueError(f"{text!r} is not a weekday; write one of {', '.join(WEEKDAYS)}, a range (mon-fri) or daily")
    start = WEEKDAYS.index(first)
    length = (WEEKDAYS.index(last) - start) % 7 + 1 if dash else 1
    return tuple((start + n) % 7 for n in range(length))


class SupportHours:
    """When support is there: a pure calendar. Instants are aware (else ValueError); answers are in UTC.

    Inputs with `datetime.timezone.utc` itself are the fast path, others are converted first. An instant outside `YEARS`
    is a ValueError, as is a calendar that is never open.
    """

    def __init__(
        self,
        zone: str,
        week: Mapping[str, Sequence[str]],
        *,
        holidays: Mapping[date, str] = MappingProxyType({}),
        exceptions: Mapping[date, tuple[str, Sequence[str]]] = MappingProxyType({}),
        changes: Mapping[date, Mapping[str, Sequence[str]]] = MappingProxyType({}),
        yearly: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """
        Parse texts: `SupportHours("Europe/Stockholm", {"mon-fri": ["09:00-18:00"]}, holidays={date: name})`.

        An exception is a name and the windows of that date; a change is the week that holds from that date on; `yearly`
        has the windows of days such as `12-24`.
        """
        self._rules = Rules(
            zone=zone,
            week=_build_week(week),
            changes=MappingProxyType({day: _build_week(changes[day]) for day in sorted(changes)}),
            holidays=MappingProxyType(dict(holidays)),
            exceptions=MappingProxyType(
                {day: DatedHours(name, _build_day(hours)) for day, (name, hours) in exceptions.items()}
            ),
            yearly=MappingProxyType({parse_day_of_year(day): _build_day(hours) for day, hours in yearly.items()}),
        )
        self._zone = get_zone(zone)
        self._weeks_from = [date.min, *self._rules.changes]
        self._weeks = [self._rules.week, *self._rules.changes.values()]
        self._years: dict[int, list[tuple[datetime, datetime]]] = {}
        self._span = _NO_SPAN
        if not self.is_ever_open(YEARS):
            raise ValueError("the support hours are never open; give at least one window on a day that is not closed")

    @property
    def rules(self) -> Rules:
        """The rules these hours were made from, parsed."""
        return self._rules

    @property
    def members(self) -> "tuple[SupportHours, ...]":
        """The calendars that these hours are joined of, or these hours alone."""
        return (self,)

    @property
    def zone(self) -> tzinfo:
        """The zone of its local days."""
        return self._zone

    def is_ever_open(self, years: Iterable[int]) -> bool:
        """Return whether any day of these local years has support time."""
        return any(self._list_open_parts(day) for year in years for day in iterate_days(year))

    def find_due(self, start: datetime, target: timedelta) -> datetime:
        """
        Return the earliest instant t >= start with `measure(start, t) == target`; `start` itself for a target of zero.

        A target used up exactly at closing time is due at closing time (docs/policy.md).
        Raises ValueError for a negative target, and if too little open time lies ahead.
        """
        if start.tzinfo is not UTC:
            start = _convert_instant_to_utc(start)
        if target <= _ZERO:
            return _find_due_at_once(start, target)
        windows, used, of_day, first_day, last_day, _ = self._span
        day = start.toordinal()
        if not first_day < day < last_day:
            windows, used, of_day, first_day, *_ = self._get_span(start, start)
        closes, opens, base, after = of_day[day - first_day]
        while closes <= start:
            closes, opens, base, after = windows[after]
        need = (start if start > opens else opens) - base + target
        if target > _LONG:
            closes, opens, base, after = windows[bisect_left(used, need, after) - 1]
        while base + need > closes:
            closes, opens, base, after = windows[after]
        return base + need if closes is not _NEVER else self._find_due_beyond(start, target)

    def find_deadline(self, start: datetime, target: timedelta) -> datetime:
        """Return what `find_due` does; where too little open time lies ahead, when the years of these hours end."""
        try:
            return self.find_due(start, target)
        except ValueError:
            return END_OF_HOURS

    def measure(self, start: datetime, end: datetime) -> timedelta:
        """Return the counted time in [start, end), exact to the microsecond; zero if the end is not after the start."""
        if start.tzinfo is not UTC:
            start = _convert_instant_to_utc(start)
        if end.tzinfo is not UTC:
            end = _convert_instant_to_utc(end)
        if end <= start:
            return _ZERO
        windows, _, of_day, first_day, last_day, _ = self._span
        start_day, end_day = start.toordinal(), end.toordinal()
        if start_day <= first_day or end_day >= last_day:
            windows, _, of_day, first_day, *_ = self._get_span(start, end)
        closes, opens, base, after = of_day[start_day - first_day]
        while closes <= start:
            closes, opens, base, after = windows[after]
        before = (start if start > opens else opens) - base
        closes, opens, base, after = of_day[end_day - first_day]
        while closes <= end:
            closes, opens, base, after = windows[after]
        return (end if end > opens else opens) - base - before

    def is_open(self, at: datetime) -> bool:
        """Return whether time counts at this instant: true at the opening of a window, false at its close."""
        at = _convert_instant_to_utc(at)
        span = self._get_span(at, at)
        _, opens, _, _ = _find_window(span, at)
        return opens <= at

    def find_working_day(self, start: datetime) -> WorkingDay:
        """
        Return the working day of an instant, or of the next opening if it is closed then. A working day is a local day
        on which a window opens; a window over midnight belongs to it as a whole.
        """
        day = start.astimezone(self._zone).date() - 2 * _DAY
        windows = (window for n in range(4) for window in self._list_windows_opening(day + n * _DAY))
        opens = max((opens for opens, closes in windows if opens <= start < closes), default=None)
        counted_from = start if opens is not None else self._find_opening(start)
        local, of_day = (each.astimezone(self._zone) for each in (counted_from, opens or counted_from))
        midnight = datetime.combine(of_day.date(), time())
        return WorkingDay(of_day.date(), local.replace(tzinfo=None) - midnight)

    def find_working_days_after(self, day: date, count: int) -> date:
        """Return the working day that is so many after a local day. Raises ValueError if the years end before it."""
        while count:
            day += _DAY
            _check_year(datetime.combine(day, time()))
            count -= any(True for _ in self._list_windows_opening(day))
        return day

    def find_end_of_day(self, start: datetime) -> datetime:
        """
        Return the last closing of the working day of an instant, or of the next one if it is closed then; local
        midnight if it does not close.
        """
        day = self.find_working_day(start).day
        closing = max(closes for _, closes in self._list_windows_opening(day))
        if not self.is_open(closing):
            return closing
        return self._convert_to_utc(max(day, start.astimezone(self._zone).date()) + _DAY, 0)

    def find_closing(self, start: datetime) -> datetime:
        """Return the first closing after an instant; where they stay open over midnight, that is one too."""
        opening = start if self.is_open(start) else self._find_opening(start)
        midnight = self._convert_to_utc(opening.astimezone(self._zone).date() + _DAY, 0)
        closes, *_ = _find_window(self._get_span(opening, opening), opening)
        return min(closes, midnight)

    def convert_wall_time(self, day: date, wall_time: timedelta) -> datetime:
        """
        Convert a wall time, counted from the midnight of a local day, to UTC: the first instant if it comes twice, the
        instant after the gap if clocks skip it.
        """
        naive = datetime.combine(day, time()) + wall_time
        first, second = (naive.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first.astimezone(self._zone).replace(tzinfo=None) == naive:
            return first
        while first - second > _MICROSECOND:  # clocks change between the second, which is before the gap, and the first
            middle = second + (first - second) // 2
            if middle.astimezone(self._zone).utcoffset() == first.astimezone(self._zone).utcoffset():
                first = middle
            else:
                second = middle
        return first

    def _find_opening(self, start: datetime) -> datetime:
        """Return the first opening after an instant at which it is closed. Raises ValueError if the years end first."""
        return self.find_due(start, _MICROSECOND) - _MICROSECOND

    def _list_windows_opening(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        """Yield the windows in UTC that open on a local day, those over midnight as a whole."""
        for member in self.members:
            for near in (day - _DAY, day, day + _DAY):
                for opens, closes in member._build_whole_windows(near):
                    if opens.astimezone(self._zone).date() == day:
                        yield opens, closes

    def _build_whole_windows(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        """Yield the windows that start on a day of this calendar, without what lies in a closed day."""
        for start, end in self._get_windows_from(day):
            found = []
            for each, since, until in ((day, start, min(end, DAY_MINUTES)), (day + _DAY, 0, end - DAY_MINUTES)):
                if since < until and not self._is_closed(each):
                    midnight, next_midnight = self._convert_to_utc(each, 0), self._convert_to_utc(each + _DAY, 0)
                    opens, closes = self._convert_to_utc(each, since), self._convert_to_utc(each, until)
                    found.append((max(opens, midnight), min(closes, next_midnight)))
            yield from _merge_windows(window for window in found if window[0] < window[1])

    def cut_segments(self, start: datetime, end: datetime) -> Iterator[Segment]:
        """Cut [start, end) into counted and uncounted time, without gaps; nothing if the end is not after the start.

        The reason of uncounted time is the name of the holiday or exception of its local date, if there is one.
        """
        at, end = _convert_instant_to_utc(start), _convert_instant_to_utc(end)
        span = self._get_span(at, max(at, end))
        closes, opens, _, after = _find_window(span, at)
        while at < end:
            if opens > at:
                until = min(opens, end)
                yield from self._cut_uncounted(at, until)
            else:
                until = min(closes, end)
                yield Segment(at, until, True, COUNTED)
                closes, opens, _, after = span.windows[after]
            at = until

    def _cut_uncounted(self, at: datetime, end: datetime) -> Iterator[Segment]:
        """Cut uncounted time [at, end) at those local midnights at which the reason changes."""
        day = at.astimezone(self._zone).date()
        while at < end:
            reason, day = self._explain_closed(day), day + _DAY
            while self._explain_closed(day) == reason and self._convert_to_utc(day, 0) < end:
                day += _DAY
            until = min(self._convert_to_utc(day, 0), end)
            if until > at:  # it is not where a clock change repeats the hour before midnight
                yield Segment(at, until, False, reason)
                at = until

    def _explain_closed(self, day: date) -> str:
        exception = self._rules.exceptions.get(day)
        return exception.name if exception else self._rules.holidays.get(day, NOT_COUNTED)

    def find_dated(self, day: date) -> DatedHours | None:
        """Return what holds on a local date instead of the hours of its week; None if these hold."""
        if day in self._rules.exceptions:
            return self._rules.exceptions[day]
        if day in self._rules.holidays:
            return DatedHours(self._rules.holidays[day], ())
        windows = self._rules.yearly.get((day.month, day.day))
        if windows is None or not self._weeks[bisect_right(self._weeks_from, day) - 1][day.weekday()]:
            return None
        return DatedHours(f"every {day:%d %B}", windows)

    def _find_due_beyond(self, start: datetime, target: timedelta) -> datetime:
        """Find the deadline where the span has too little open time left: double the span until it has enough."""
        years = self._span.years
        if years.stop > YEARS.stop:
            raise ValueError(f"too little open time lies ahead: {target} from {start} is not used up by {YEARS.stop}")
        self._span = self._lay_out(range(years.start, min(years.stop + len(years), YEARS.stop + 1)))
        return self.find_due(start, target)

    def _get_span(self, start: datetime, end: datetime) -> _Span:
        """Return a span that holds both instants, and keep it; a spare year on each side makes up for the zone."""
        span = self._span
        if start.toordinal() <= span.first_day or end.toordinal() >= span.last_day:
            _check_year(start)
            _check_year(end)
            span = self._lay_out(range(min(span.years.start, start.year - 1), max(span.years.stop, end.year + 2)))
            self._span = span
        return span

    def _find_edges(self, years: range) -> tuple[datetime, datetime]:
        """Return the first instant of these local years, and the first one after them."""
        return self._convert_to_utc(date(years.start, 1, 1), 0), self._convert_to_utc(date(years.stop, 1, 1), 0)

    def _lay_out(self, years: range) -> _Span:
        since, until = self._find_edges(years)
        merged = _merge_windows(self._build_windows(years, until))
        used = list(accumulate((closes - opens for opens, closes in merged), initial=_ZERO))
        merged.append((until, _NEVER))
        windows = [
            (closes, opens, opens - before, number)
            for number, ((opens, closes), before) in enumerate(zip(merged, used, strict=True), start=1)
        ]
        first_day, last_day = max(since.toordinal(), _FIRST_DAY - 1), min(until.toordinal(), _LAST_DAY + 1)
        of_day: list[_Window] = []
        for window in windows:
            last_day_of_window = min(window[0].toordinal(), last_day)
            of_day += [window] * (last_day_of_window + 1 - first_day - len(of_day))
        return _Span(windows, used, of_day, first_day, last_day, years)

    def _build_windows(self, years: range, until: datetime) -> Iterable[tuple[datetime, datetime]]:
        """Yield the windows of local years in UTC, sorted; none ends after `until`, as the last of the years does."""
        return chain.from_iterable(self._build_windows_of_year(year) for year in years)

    def _build_windows_of_year(self, year: int) -> list[tuple[datetime, datetime]]:
        """Return the windows inside one local year in UTC, sorted, not yet merged."""
        if year not in self._years:
            self._years[year] = sorted(
                window for day in iterate_days(year) for window in self._build_windows_of_day(day)
            )
        return self._years[year]

    def _build_windows_of_day(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        parts = self._list_open_parts(day)
        if not parts:
            return
        since, until = self._convert_to_utc(day, 0), self._convert_to_utc(day + _DAY, 0)
        for start, end in parts:
            if until - since == _DAY:
                yield since + timedelta(minutes=start), since + timedelta(minutes=end)
            else:
                opens, closes = max(self._convert_to_utc(day, start), since), min(self._convert_to_utc(day, end), until)
                if opens < closes:  # it is not where a clock change skips the window
                    yield opens, closes

    def _list_open_parts(self, day: date) -> list[tuple[int, int]]:
        """Return the minutes of a local day that count: the rest of last night's windows, then its own to midnight."""
        if self._is_closed(day):
            return []
        overnight = [(0, end - DAY_MINUTES) for _, end in self._get_windows_from(day - _DAY) if end > DAY_MINUTES]
        return overnight + [(start, min(end, DAY_MINUTES)) for start, end in self._get_windows_from(day)]

    def _is_closed(self, day: date) -> bool:
        exception = self._rules.exceptions.get(day)
        return day in self._rules.holidays if exception is None else not exception.windows

    def _get_windows_from(self, day: date) -> tuple[Window, ...]:
        """Return the windows that start on this local date, whether or not the day is closed."""
        exception = self._rules.exceptions.get(day)
        if exception and exception.windows:
            return exception.windows
        windows = self._weeks[bisect_right(self._weeks_from, day) - 1][day.weekday()]
        if exception or not windows or day in self._rules.holidays:
            return windows
        return self._rules.yearly.get((day.month, day.day), windows)

    def _convert_to_utc(self, day: date, minutes: int) -> datetime:
        """Convert a local wall time to UTC, 24:00 being the next midnight (docs/upstream-behaviour.md#c6)."""
        local = datetime.combine(day, time(), self._zone) + timedelta(minutes=minutes)
        return local.astimezone(UTC)


class JoinedHours(SupportHours):
    """
    Support hours that are open as long as one of several is. `rules`, and why a day is closed, are those of the first.
    """

    def __init__(self, calendars: Sequence[SupportHours]) -> None:
        self._members = tuple(chain.from_iterable(each.members for each in calendars))
        self._rules, self._zone = self._members[0].rules, get_zone(self._members[0].rules.zone)
        self._span = _NO_SPAN

    @property
    def members(self) -> tuple[SupportHours, ...]:
        return self._members

    def is_ever_open(self, years: Iterable[int]) -> bool:
        return any(each.is_ever_open(years) for each in self._members)

    def _find_edges(self, years: range) -> tuple[datetime, datetime]:
        """Return the edges of what all of them know; the years of their zones begin hours apart."""
        edges = [each._find_edges(years) for each in self._members]
        return max(since for since, _ in edges), min(until for _, until in edges)

    def _build_windows(self, years: range, until: datetime) -> Iterable[tuple[datetime, datetime]]:
        windows = chain.from_iterable(each._build_windows(years, until) for each in self._members)
        return sorted((opens, min(closes, until)) for opens, closes in windows if opens < until)


def _merge_windows(windows: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Merge windows, sorted by opening, that overlap or touch."""
    merged: list[tuple[datetime, datetime]] = []
    for opens, closes in windows:
        if merged and opens <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], closes))
        else:
            merged.append((opens, closes))
    return merged


def _find_window(span: _Span, at: datetime) -> _Window:
    """Return the first window that closes after this instant, which lies in the span."""
    window = span.of_day[at.toordinal() - span.first_day]
    while window[0] <= at:
        window = span.windows[window[3]]
    return window


def _build_week(hours: Mapping[str, Sequence[str]]) -> Week:
    week: dict[int, tuple[Window, ...]] = {}
    for names, texts in hours.items():
        for day in parse_weekdays(names):
            if day in week:
                raise ValueError(f"{WEEKDAYS[day]} is given twice; give every weekday once, with all of its windows")
            week[day] = _build_day(texts)
    return tuple(week.get(day, ()) for day in range(7))


def _build_day(texts: Sequence[str]) -> tuple[Window, ...]:
    return tuple(sorted(Window.parse(text) for text in texts))


def iterate_days(year: int) -> Iterator[date]:
    """Iterate over the days of a year."""
    first = date(year, 1, 1)
    return (first + timedelta(days=n) for n in range((date(year + 1, 1, 1) - first).days))


def _find_due_at_once(start: datetime, target: timedelta) -> datetime:
    if target < _ZERO:
        raise ValueError(f"a target of {target} is negative; support time only runs forward")
    return start


def _convert_instant_to_utc(at: datetime) -> datetime:
    if at.utcoffset() is None:
        raise ValueError(f"{at} has no time zone; give an aware datetime, best with datetime.timezone.utc")
    _check_year(at)
    return at.astimezone(UTC)


def _check_year(at: datetime) -> None:
    if at.year not in YEARS:
        raise ValueError(f"{at} is outside the years {YEARS[0]} to {YEARS[-1]}, for which support hours are known")
