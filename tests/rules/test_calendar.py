"""Support hours: worked examples, the clock changes, and properties against two calendars that are not ours."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import workclock
from hypothesis import given
from hypothesis import strategies as st

from sla.calendar import YEARS, JoinedHours, SupportHours, Window, get_zone, parse_weekdays
from sla.policy import Policy
from sla.policy_file import load_policy_file
from tests.support.examples import examples
from tests.support.oracle import Oracle, edge

STOCKHOLM = "Europe/Stockholm"
OFFICE = {"mon-fri": ["09:00-18:00"]}
ALWAYS = {"daily": ["00:00-24:00"]}
NIGHTS = {"daily": ["22:00-06:00"]}
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def stockholm(text: str) -> datetime:
    """`2026-12-30 15:45:10`, with ` CET` or ` CEST` behind it where the clocks show a time twice."""
    wall, _, abbreviation = text.partition(" C")
    at = datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(STOCKHOLM), fold=1 if abbreviation == "ET" else 0)
    assert not abbreviation or at.tzname() == f"C{abbreviation}"
    return at


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy_file(Path(__file__).parents[2] / "sla" / "policies" / "cention-support.yaml")


# --- the examples of the policy

EXAMPLES = """
foundation   | serious  | 2026-12-30 15:45:10             | 2026-12-31 14:45:10      | over night
foundation   | minor    | 2026-04-02 17:30                | 2026-04-09 14:30         | over Easter
professional | critical | 2026-05-14 23:59:59             | 2026-05-15 09:00         | opened on Ascension Day
professional | minor    | 2026-06-19 10:30                | 2026-06-22 08:30         | Midsummer Eve is an ordinary day
enterprise   | critical | 2026-12-24 23:30                | 2026-12-27 01:30         | Christmas closes Enterprise too
enterprise   | minor    | 2022-03-27 01:00                | 2022-03-27 10:00 CEST    | clocks go forward
enterprise   | minor    | 2023-10-29 02:30 CEST           | 2023-10-29 09:30 CET     | clocks go back
foundation   | serious  | 2024-04-11 10:00                | 2024-04-11 18:00         | used up exactly at closing time
professional | minor    | 2025-11-03 03:30:49.125381      | 2025-11-03 20:00:00      | opened before hours
"""


@pytest.mark.parametrize("example", EXAMPLES.strip().splitlines(), ids=lambda line: line.split("|")[4].strip())
def test_the_worked_examples_of_the_policy_hold(policy: Policy, example: str) -> None:
    level, priority, opened, due, _ = (cell.strip() for cell in example.split("|"))
    hours, target = policy.get_level(level).hours, policy.get_target(level, priority).measure(stockholm(opened))
    assert hours.find_due(stockholm(opened), target) == stockholm(due)
    assert hours.measure(stockholm(opened), stockholm(due)) == target
    assert (
        sum(
            (it.end - it.start for it in hours.cut_segments(stockholm(opened), stockholm(due)) if it.counted),
            timedelta(0),
        )
        == target
    )


# --- edges


def test_answers_are_in_utc_whatever_zone_was_asked_in() -> None:
    hours = SupportHours(STOCKHOLM, OFFICE)
    for zone in (UTC, ZoneInfo("UTC"), ZoneInfo(STOCKHOLM), ZoneInfo("Asia/Tokyo"), timezone(timedelta(hours=-3))):
        opened = stockholm("2026-11-20 17:00").astimezone(zone)
        assert hours.find_due(opened, 4 * HOUR) == stockholm("2026-11-23 12:00")
        assert hours.find_due(opened, 4 * HOUR).tzinfo is UTC
        assert hours.find_due(opened, timedelta(0)).tzinfo is UTC
        assert hours.measure(opened, stockholm("2026-11-23 10:00").astimezone(zone)) == 2 * HOUR
        assert [it.start.tzinfo for it in hours.cut_segments(opened, opened + HOUR)] == [UTC]


def test_the_second_occurrence_of_a_local_hour_is_a_later_instant() -> None:
    hours = SupportHours(STOCKHOLM, ALWAYS)
    assert hours.measure(stockholm("2026-10-25 02:30 CEST"), stockholm("2026-10-25 02:30 CET")) == HOUR


def test_a_target_of_zero_is_due_at_once_even_outside_support_hours() -> None:
    sunday = utc("2026-11-22 12:00:00.000001")
    assert SupportHours(STOCKHOLM, OFFICE).find_due(sunday, timedelta(0)) == sunday


def test_a_microsecond_is_counted() -> None:
    hours = SupportHours(STOCKHOLM, OFFICE)
    closing = stockholm("2026-11-20 18:00").astimezone(UTC)
    assert hours.find_due(closing - MICROSECOND, MICROSECOND) == closing
    assert (
        hours.find_due(closing - MICROSECOND, 2 * MICROSECOND)
        == stockholm("2026-11-23 09:00").astimezone(UTC) + MICROSECOND
    )
    assert hours.measure(closing - MICROSECOND, closing + HOUR) == MICROSECOND


def test_opening_time_is_open_and_closing_time_is_not() -> None:
    hours = SupportHours(STOCKHOLM, OFFICE)
    opens, closes = stockholm("2026-11-20 09:00"), stockholm("2026-11-20 18:00")
    assert (hours.is_open(opens), hours.is_open(closes - MICROSECOND)) == (True, True)
    assert (hours.is_open(opens.astimezone(UTC) - MICROSECOND), hours.is_open(closes)) == (False, False)


def test_no_time_counts_when_the_end_is_not_after_the_start() -> None:
    hours = SupportHours(STOCKHOLM, OFFICE)
    at = stockholm("2026-11-20 12:00")
    assert hours.measure(at, at) == hours.measure(at, at - HOUR) == timedelta(0)
    assert list(hours.cut_segments(at, at)) == list(hours.cut_segments(at, at - HOUR)) == []


def test_days_around_the_clock_are_one_window_across_years() -> None:
    hours = SupportHours(STOCKHOLM, ALWAYS)
    start, end = stockholm("2019-12-31 12:00"), stockholm("2031-01-01 12:00")
    assert hours.measure(start, end) == end.astimezone(UTC) - start.astimezone(UTC)
    assert len(list(hours.cut_segments(start, end))) == 1


def test_a_long_target_reaches_over_many_years() -> None:
    hours = SupportHours("UTC", {"mon": ["10:00-10:01"]})
    monday = utc("2001-01-01 00:00")
    assert hours.find_due(monday, timedelta(minutes=520)) == monday + timedelta(weeks=519, hours=10, minutes=1)
    assert hours.find_due(monday + timedelta(weeks=3), timedelta(minutes=1)) == monday + timedelta(
        weeks=3, hours=10, minutes=1
    )


def test_the_order_of_questions_does_not_change_the_answers() -> None:
    questions = [utc(f"{year}-07-01 12:00") for year in (2030, 2010, 2041, 2026, 1999)]
    shared = SupportHours(STOCKHOLM, OFFICE)
    for at in questions:
        alone = SupportHours(STOCKHOLM, OFFICE)
        assert shared.find_due(at, 500 * HOUR) == alone.find_due(at, 500 * HOUR)
        assert shared.measure(at, at + timedelta(days=400)) == alone.measure(at, at + timedelta(days=400))


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue"])
@pytest.mark.parametrize("text", ["2025-12-31 23:59", "2026-01-01 00:00"])
def test_the_first_question_may_be_about_the_turn_of_the_year(zone: str, text: str) -> None:
    at = utc(text)
    assert SupportHours(zone, ALWAYS).find_due(at, HOUR) == at + HOUR
    assert SupportHours(zone, ALWAYS).measure(at - HOUR, at) == HOUR
    assert SupportHours(zone, ALWAYS).measure(at, at + HOUR) == HOUR
    assert SupportHours(zone, ALWAYS).is_open(at)
    assert SupportHours(zone, {"mon": ["09:00-10:00"]}).measure(at - HOUR, at) == timedelta(0)
    assert not SupportHours(zone, {"mon": ["09:00-10:00"]}).is_open(at)


# --- overnight windows, closed days, exceptions, changes


def test_an_overnight_window_belongs_to_the_day_it_starts_on() -> None:
    hours = SupportHours("UTC", {"fri": ["22:00-06:00"]})
    assert hours.measure(utc("2026-11-20 00:00"), utc("2026-11-23 00:00")) == 8 * HOUR
    assert hours.is_open(utc("2026-11-21 05:59")) and not hours.is_open(utc("2026-11-20 05:59"))


def test_a_holiday_takes_the_calendar_day_out_of_overnight_windows_and_nothing_else() -> None:
    hours = SupportHours("UTC", NIGHTS, holidays={date(2026, 11, 18): "Founders' Day"})
    assert list(hours.cut_segments(utc("2026-11-17 20:00"), utc("2026-11-19 08:00"))) == [
        (utc("2026-11-17 20:00"), utc("2026-11-17 22:00"), False, "outside support hours"),
        (utc("2026-11-17 22:00"), utc("2026-11-18 00:00"), True, "support hours"),
        (utc("2026-11-18 00:00"), utc("2026-11-19 00:00"), False, "Founders' Day"),
        (utc("2026-11-19 00:00"), utc("2026-11-19 06:00"), True, "support hours"),
        (utc("2026-11-19 06:00"), utc("2026-11-19 08:00"), False, "outside support hours"),
    ]


def test_a_holiday_is_a_local_date() -> None:
    hours = SupportHours(STOCKHOLM, ALWAYS, holidays={date(2026, 1, 6): "Epiphany"})
    assert not hours.is_open(utc("2026-01-05 23:00")) and hours.is_open(utc("2026-01-05 22:59:59"))
    assert not hours.is_open(utc("2026-01-06 22:59:59")) and hours.is_open(utc("2026-01-06 23:00"))


def test_an_exception_replaces_the_windows_of_its_day() -> None:
    hours = SupportHours(
        "UTC", OFFICE, exceptions={date(2026, 11, 18): ("Stocktaking", ["10:00-11:00", "20:00-02:00"])}
    )
    assert hours.measure(utc("2026-11-18 00:00"), utc("2026-11-19 09:00")) == 7 * HOUR
    assert [it.reason for it in hours.cut_segments(utc("2026-11-18 00:00"), utc("2026-11-18 12:00"))] == [
        "Stocktaking", "support hours", "Stocktaking",
    ]  # fmt: skip


def test_an_exception_without_windows_closes_its_day_like_a_holiday() -> None:
    hours = SupportHours("UTC", NIGHTS, exceptions={date(2026, 11, 18): ("Moving", [])})
    assert hours.measure(utc("2026-11-17 12:00"), utc("2026-11-19 12:00")) == 8 * HOUR
    assert not hours.is_open(utc("2026-11-18 05:00"))


def test_an_exception_opens_a_holiday() -> None:
    day = date(2026, 11, 18)
    hours = SupportHours("UTC", OFFICE, holidays={day: "Founders' Day"}, exceptions={day: ("On call", ["12:00-13:00"])})
    assert hours.measure(utc("2026-11-18 00:00"), utc("2026-11-19 00:00")) == HOUR


def test_other_weekly_hours_hold_from_their_date_on() -> None:
    changes = {date(2027, 3, 1): {"daily": ["08:00-10:00"]}, date(2027, 1, 1): {"mon-fri": ["08:00-16:00"]}}
    hours = SupportHours("UTC", OFFICE, changes=changes)
    for day, expected in (
        ("2026-12-31", 9),
        ("2027-01-01", 8),
        ("2027-02-28", 0),
        ("2027-03-01", 2),
        ("2027-03-07", 2),
    ):
        assert hours.measure(utc(day), utc(day) + timedelta(days=1)) == expected * HOUR


def test_yearly_hours_replace_the_windows_of_a_day_that_would_be_open_and_open_none() -> None:
    holidays, short = {date(2027, 12, 24): "holiday"}, {"12-24": ["08:00-12:00"], "02-29": []}
    hours = SupportHours(STOCKHOLM, {"mon-fri": ["08:00-16:00"]}, holidays=holidays, yearly=short)
    expected = {"2025-12-24": 4, "2025-12-25": 8, "2027-12-24": 0, "2022-12-24": 0, "2028-02-29": 0}  # 2022: Saturday
    for day, open_for in expected.items():
        assert hours.measure(stockholm(f"{day} 00:00"), stockholm(f"{day} 23:59")) == open_for * HOUR


def test_joined_hours_are_open_as_long_as_one_of_them_is() -> None:
    """Stockholm until 17:00 is 16:00Z; New York begins at 14:00Z and ends at 22:00Z; both close on Christmas Day."""
    christmas = {date(2026, 12, 25): "Christmas Day"}
    europe = SupportHours(STOCKHOLM, {"mon-fri": ["09:00-17:00"]}, holidays=christmas)
    america = SupportHours("America/New_York", {"mon-fri": ["09:00-17:00"]})
    hours = JoinedHours([europe, america])
    assert hours.find_due(utc("2026-12-01 07:00"), 14 * HOUR) == utc("2026-12-01 22:00")
    assert hours.find_due(utc("2026-12-01 07:00"), 15 * HOUR) == utc("2026-12-02 09:00")
    assert hours.measure(utc("2026-12-25 00:00"), utc("2026-12-26 00:00")) == 8 * HOUR
    closed = [it.reason for it in hours.cut_segments(utc("2026-12-25 00:00"), utc("2026-12-25 14:00"))]
    assert closed == ["Christmas Day"]
    assert JoinedHours([hours, europe]).members == (europe, america, europe)


def test_reasons_of_closed_time_change_at_local_midnight(policy: Policy) -> None:
    hours = policy.get_level("foundation").hours
    segments = list(hours.cut_segments(stockholm("2026-04-02 17:30"), stockholm("2026-04-07 10:00")))
    assert [(it.start, it.end, it.counted, it.reason) for it in segments] == [
        (stockholm("2026-04-02 17:30"), stockholm("2026-04-02 18:00"), True, "support hours"),
        (stockholm("2026-04-02 18:00"), stockholm("2026-04-03 00:00"), False, "outside support hours"),
        (stockholm("2026-04-03 00:00"), stockholm("2026-04-04 00:00"), False, "Good Friday"),
        (stockholm("2026-04-04 00:00"), stockholm("2026-04-05 00:00"), False, "outside support hours"),
        (stockholm("2026-04-05 00:00"), stockholm("2026-04-06 00:00"), False, "Easter Sunday"),
        (stockholm("2026-04-06 00:00"), stockholm("2026-04-07 00:00"), False, "Easter Monday"),
        (stockholm("2026-04-07 00:00"), stockholm("2026-04-07 09:00"), False, "outside support hours"),
        (stockholm("2026-04-07 09:00"), stockholm("2026-04-07 10:00"), True, "support hours"),
    ]


# --- clock changes

CHANGES = [
    (
        year,
        change,
        next(date(year, month, day) for day in range(31, 24, -1) if date(year, month, day).isoweekday() == 7),
    )
    for year in range(2020, 2030)
    for month, change in ((3, "forward"), (10, "back"))
]


@pytest.mark.parametrize(("year", "change", "sunday"), CHANGES, ids=str)
def test_the_days_of_the_clock_changes_have_23_and_25_hours(year: int, change: str, sunday: date) -> None:
    hours = SupportHours(STOCKHOLM, ALWAYS)
    midnight = datetime.combine(sunday, time(), ZoneInfo(STOCKHOLM))
    length = (23 if change == "forward" else 25) * HOUR
    next_midnight = datetime.combine(sunday + timedelta(days=1), time(), ZoneInfo(STOCKHOLM))
    assert hours.measure(midnight, next_midnight) == length
    assert hours.find_due(midnight, length) == next_midnight.astimezone(UTC)
    nights = SupportHours(STOCKHOLM, NIGHTS)
    assert nights.measure(midnight, next_midnight) == length - 16 * HOUR


GAP_AND_FOLD = """
2026-03-29 | 01:00-02:30 | 00:00 | 01:30 | a close that is skipped moves forward by the hour
2026-03-29 | 02:30-05:00 | 01:30 | 03:00 | an opening that is skipped moves forward by the hour
2026-03-29 | 02:15-02:45 | 01:15 | 01:45 | a skipped window moves forward as a whole
2026-03-29 | 02:30-03:10 | -     | -     | a window whose opening moves past its close is not there
2026-10-25 | 01:00-02:30 | 23:00 | 00:30 | a close that comes twice is the first
2026-10-25 | 02:30-05:00 | 00:30 | 04:00 | an opening that comes twice is the first
2026-10-25 | 02:15-02:45 | 00:15 | 00:45 | a window that comes twice counts once
"""


@pytest.mark.parametrize("row", GAP_AND_FOLD.strip().splitlines(), ids=lambda row: row.split("|")[4].strip())
def test_edges_at_a_clock_change_follow_rfc_5545(row: str) -> None:
    sunday, window, opens, closes, _ = (cell.strip() for cell in row.split("|"))
    hours = SupportHours(STOCKHOLM, {"sun": [window]})
    counted = [it for it in hours.cut_segments(utc(sunday) - 4 * HOUR, utc(sunday) + 20 * HOUR) if it.counted]
    assert [(f"{it.start:%H:%M}", f"{it.end:%H:%M}") for it in counted] == ([] if opens == "-" else [(opens, closes)])


def test_a_skipped_window_may_move_past_the_opening_of_the_next_one() -> None:
    hours = SupportHours(STOCKHOLM, {"sun": ["02:30-02:50", "03:00-03:20"]})
    counted = [it for it in hours.cut_segments(utc("2026-03-29 00:00"), utc("2026-03-29 12:00")) if it.counted]
    assert [(f"{it.start:%H:%M}", f"{it.end:%H:%M}") for it in counted] == [("01:00", "01:20"), ("01:30", "01:50")]


def test_a_day_that_a_zone_skipped_has_no_support_hours() -> None:
    hours = SupportHours("Pacific/Apia", {"fri": ["09:00-18:00"]})
    assert hours.measure(utc("2011-12-25 00:00"), utc("2012-01-05 00:00")) == timedelta(0)


def test_reasons_are_right_where_the_hour_before_midnight_comes_twice() -> None:
    hours = SupportHours("America/St_Johns", {"mon": ["09:00-10:00"]}, holidays={date(2010, 11, 7): "Clock Day"})
    segments = list(hours.cut_segments(utc("2010-11-07 02:00"), utc("2010-11-07 04:00")))
    assert [(f"{it.end:%H:%M}", it.reason) for it in segments] == [
        ("02:30", "outside support hours"),
        ("04:00", "Clock Day"),
    ]
    within = list(hours.cut_segments(utc("2010-11-07 03:00"), utc("2010-11-07 04:00")))
    assert within == [(utc("2010-11-07 03:00"), utc("2010-11-07 04:00"), False, "Clock Day")]


# --- what is refused


@pytest.mark.parametrize("ask", ["due", "elapsed from", "elapsed to", "is_open", "segments"])
def test_a_naive_datetime_is_refused(ask: str) -> None:
    hours, naive, aware = SupportHours(STOCKHOLM, OFFICE), datetime(2026, 11, 20, 12), utc("2026-11-20 12:00")  # noqa: DTZ001
    questions = {
        "due": lambda: hours.find_due(naive, HOUR),
        "elapsed from": lambda: hours.measure(naive, aware),
        "elapsed to": lambda: hours.measure(aware, naive),
        "is_open": lambda: hours.is_open(naive),
        "segments": lambda: list(hours.cut_segments(naive, aware)),
    }
    with pytest.raises(ValueError, match="has no time zone; give an aware datetime"):
        questions[ask]()


@pytest.mark.parametrize(
    "at", [utc("1969-12-31 23:59"), utc("2200-01-01 00:00"), utc("0001-01-01"), utc("9999-12-31")], ids=str
)
def test_an_instant_outside_the_known_years_is_refused_whatever_was_asked_before(at: datetime) -> None:
    hours = SupportHours("UTC", {"mon": ["09:00-10:00"]})
    hours.measure(utc("1970-01-01"), utc("2199-12-31"))
    for question in (
        lambda: hours.find_due(at, HOUR),
        lambda: hours.measure(min(at, utc("2026-01-01")), max(at, utc("2026-01-01"))),
        lambda: hours.is_open(at),
        lambda: hours.find_due(at.replace(tzinfo=timezone(timedelta(hours=0), "zero")), HOUR),
    ):
        with pytest.raises(ValueError, match=f"outside the years {YEARS[0]} to {YEARS[-1]}"):
            question()


def test_a_calendar_that_is_never_open_is_refused() -> None:
    sundays = {
        date.fromordinal(n): "Sunday"
        for n in range(date(1969, 1, 1).toordinal(), date(2201, 1, 1).toordinal())
        if n % 7 == 0
    }
    for week, holidays in (({}, {}), ({"mon": []}, {}), ({"sun": ["09:00-10:00"]}, sundays)):
        with pytest.raises(ValueError, match="never open"):
            SupportHours(STOCKHOLM, week, holidays=holidays)


def test_a_deadline_is_refused_when_no_open_time_lies_ahead() -> None:
    hours = SupportHours("UTC", {}, exceptions={date(2026, 11, 18): ("The only day", ["09:00-10:00"])})
    assert hours.find_due(utc("2026-01-01 00:00"), HOUR) == utc("2026-11-18 10:00")
    with pytest.raises(ValueError, match="too little open time lies ahead"):
        hours.find_due(utc("2026-01-01 00:00"), HOUR + MICROSECOND)
    with pytest.raises(ValueError, match="too little open time lies ahead"):
        hours.find_due(utc("2027-01-01 00:00"), MICROSECOND)


def test_a_negative_target_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        SupportHours(STOCKHOLM, OFFICE).find_due(utc("2026-01-01 00:00"), -MICROSECOND)


@pytest.mark.parametrize(
    "text",
    [
        "9-18",
        "09:00",
        "25:00-26:00",
        "09:60-10:00",
        "09:00-24:01",
        "24:00-25:00",
        "09:00-09:00",
        "09:00 - 10:00",
        "００:00-10:00",
    ],
)
def test_a_window_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Window.parse(text)


@pytest.mark.parametrize("text", ["09:00-18:00", "22:00-06:00", "00:00-24:00", "22:00-24:00", "10:01-10:00"])
def test_a_window_is_written_as_it_was_read(text: str) -> None:
    assert str(Window.parse(text)) == text


def test_weekdays_are_single_or_ranges() -> None:
    assert [parse_weekdays(it) for it in ("sat", "mon-wed", "fri-mon", "daily")] == [
        (5,),
        (0, 1, 2),
        (4, 5, 6, 0),
        tuple(range(7)),
    ]
    for wrong in ("Mon", "monday", "", "mon-", "-fri", "mon,tue"):
        with pytest.raises(ValueError, match="not a weekday"):
            parse_weekdays(wrong)


def test_a_weekday_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="wed is given twice"):
        SupportHours(STOCKHOLM, {"mon-fri": ["09:00-18:00"], "wed": ["20:00-21:00"]})


def test_zones_are_iana_names_or_fixed_offsets() -> None:
    assert get_zone("UTC+01:00").utcoffset(None) == HOUR
    assert get_zone("UTC-03:30").utcoffset(None) == timedelta(hours=-3.5)
    for wrong in (
        "Europe/Stokholm",
        "europe/stockholm",
        "CETT",
        "UTC+1",
        "UTC+14:01",
        "UTC+01:60",
        "localtime",
        "../UTC",
        "",
    ):
        with pytest.raises(ValueError, match="not a time zone"):
            get_zone(wrong)


# --- any calendar

ZONES = (STOCKHOLM, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago", "UTC+01:00", "UTC")
QUARTERS = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(0, 24 * 60, 15)]
MINUTES = st.integers(min_value=0, max_value=600)
FIRST, LAST = utc("2025-12-01 00:00"), utc("2026-12-31 00:00")

windows = st.builds(
    lambda start, end: f"{start}-{end}", st.sampled_from(QUARTERS), st.sampled_from([*QUARTERS, "24:00"])
).filter(lambda text: text[:5] != text[6:])
weeks = st.lists(st.lists(windows, max_size=3), min_size=7, max_size=7).filter(any)
days = st.dates(FIRST.date(), LAST.date())
instants = st.datetimes(datetime(2025, 12, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
targets = st.timedeltas(timedelta(0), timedelta(hours=60))


@st.composite
def calendars(draw: st.DrawFn) -> tuple[SupportHours, Oracle]:
    """The same random hours twice: ours, and the oracle's; now and then joined of several."""
    found = draw(st.lists(simple_calendars(), min_size=1, max_size=3))
    (ours, oracle), *others = found
    if others:
        ours, oracle = JoinedHours([hours for hours, _ in found]), replace(oracle, others=[each for _, each in others])
    return ours, oracle


@st.composite
def simple_calendars(draw: st.DrawFn) -> tuple[SupportHours, Oracle]:
    zone, week = draw(st.sampled_from(ZONES)), draw(weeks)
    closed = draw(st.frozensets(days, max_size=20))
    dated = draw(st.dictionaries(days, st.lists(windows, max_size=2), max_size=5))
    changes = draw(st.dictionaries(days, weeks, max_size=2))
    yearly = draw(st.dictionaries(days.map("{:%m-%d}".format), st.lists(windows, max_size=2), max_size=9))
    ours = SupportHours(
        zone,
        named(week),
        holidays=dict.fromkeys(closed, "holiday"),
        exceptions={day: ("exception", texts) for day, texts in dated.items()},
        changes={day: named(week) for day, week in changes.items()},
        yearly=yearly,
    )
    return ours, Oracle(get_zone(zone), week, closed, dated, changes, yearly)


def named(week: Sequence[Sequence[str]]) -> Mapping[str, Sequence[str]]:
    return dict(zip(DAYS, week, strict=True))


def near_a_clock_change(at: datetime, week: int) -> datetime:
    """Moves an instant into one of the weeks of the year in which clocks change somewhere."""
    return utc(
        ("2026-03-07", "2026-03-28", "2026-04-04", "2026-09-05", "2026-10-24", "2026-10-31")[week % 6]
    ) + timedelta(seconds=at.timestamp() % (2 * 86400), microseconds=at.microsecond)


@examples(25)
@given(calendars(), instants, st.integers(0, 20), st.timedeltas(timedelta(0), timedelta(days=4)), targets)
def test_any_calendar_agrees_with_a_walk_through_every_minute(
    calendar: tuple[SupportHours, Oracle], at: datetime, week: int, length: timedelta, target: timedelta
) -> None:
    hours, oracle = calendar
    start = near_a_clock_change(at, week) if week < 18 else at
    assert hours.measure(start, start + length) == oracle.elapsed(start, start + length)
    assert hours.is_open(start) == oracle.is_open(start)
    due = oracle.due(start, target, within=timedelta(days=5))
    assert due is None or hours.find_due(start, target) == due


@examples(40)
@given(calendars(), instants, targets, targets)
def test_what_is_due_has_used_up_its_target_to_the_microsecond(
    calendar: tuple[SupportHours, Oracle], start: datetime, target: timedelta, more: timedelta
) -> None:
    hours, _ = calendar
    due, later = hours.find_due(start, target), hours.find_due(start, target + more)
    assert hours.measure(start, due) == target
    assert start <= due <= later
    assert hours.find_due(due, more) == later or more == timedelta(0)
    if target:
        assert hours.is_open(due - MICROSECOND)
        assert hours.measure(start, due - MICROSECOND) == target - MICROSECOND


@examples(40)
@given(calendars(), st.lists(instants, min_size=3, max_size=3))
def test_counted_time_adds_up_and_never_runs_back(calendar: tuple[SupportHours, Oracle], three: list[datetime]) -> None:
    hours, _ = calendar
    first, second, third = sorted(three)
    assert hours.measure(first, second) + hours.measure(second, third) == hours.measure(first, third)
    assert timedelta(0) <= hours.measure(first, second) <= min(hours.measure(first, third), second - first)
    assert hours.find_due(first, HOUR) <= hours.find_due(second, HOUR)


@examples(40)
@given(calendars(), instants, st.timedeltas(timedelta(0), timedelta(days=40)))
def test_segments_add_up_to_the_span_and_their_counted_part_to_the_elapsed_time(
    calendar: tuple[SupportHours, Oracle], start: datetime, length: timedelta
) -> None:
    hours, _ = calendar
    segments = list(hours.cut_segments(start, start + length))
    edges = [start, *(it.end for it in segments)]
    assert [it.start for it in segments] == edges[:-1] and edges[-1] == start + length
    assert all(it.start < it.end for it in segments)
    assert all((a.counted, a.reason) != (b.counted, b.reason) for a, b in pairwise(segments))
    assert sum((it.end - it.start for it in segments if it.counted), timedelta(0)) == hours.measure(
        start, start + length
    )
    assert all(hours.is_open(it.start) == it.counted for it in segments)


@examples(40)
@given(
    st.sampled_from([zone for zone in ZONES if "+" not in zone]),
    weeks,
    st.frozensets(days, max_size=20),
    st.lists(instants, min_size=2, max_size=2),
    targets,
)
def test_any_calendar_without_exceptions_agrees_with_workclock(
    zone: str, week: list[list[str]], closed: frozenset[date], two: list[datetime], target: timedelta
) -> None:
    hours = SupportHours(zone, named(week), holidays=dict.fromkeys(closed, "holiday"))
    work = [
        workclock.WorkDay(*(time.fromisoformat(edge.replace("24:00", "00:00")) for edge in text.split("-")), days=[day])
        for day, texts in enumerate(week)
        for text in texts
    ]
    other = workclock.Schedule([*work, workclock.Holidays(closed)], time_zone=zone)
    start, end = sorted(two)
    assert hours.measure(start, end) == other.between(start, end)
    assert hours.find_due(start, target) == other.add(start, target)


def test_the_oracle_itself_knows_the_clock_changes() -> None:
    zone = ZoneInfo(STOCKHOLM)
    assert edge(zone, date(2026, 3, 29), "02:30") == utc("2026-03-29 01:30")
    assert edge(zone, date(2026, 10, 25), "02:30") == utc("2026-10-25 00:30")
    assert edge(zone, date(2026, 7, 1), "24:00") == utc("2026-07-01 22:00")
