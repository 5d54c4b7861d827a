"""Targets that name an instant by days: worked examples, and any of them against a walk from minute to minute."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sla.calendar import END_OF_HOURS, JoinedHours, SupportHours
from sla.targets import Target, parse_target
from tests.support.examples import examples
from tests.support.oracle import DAY, MINUTE, Oracle
from tests.support.target_oracle import count_target

STOCKHOLM = ZoneInfo("Europe/Stockholm")
HOLIDAYS = {date(2026, 4, 3): "Good Friday", date(2026, 4, 6): "Easter Monday", date(2026, 12, 25): "Christmas Day"}
WEEK = {"mon-fri": ["09:00-17:00"]}
HOURS: Mapping[str, SupportHours] = {
    "office": SupportHours("Europe/Stockholm", WEEK, holidays=HOLIDAYS),
    "lunch": SupportHours("Europe/Stockholm", {"mon-fri": ["09:00-12:00", "13:00-17:00"]}),
    "nights": SupportHours("Europe/Stockholm", {"mon-fri": ["22:00-06:00"]}),
    "always": SupportHours("Europe/Stockholm", {"daily": ["00:00-24:00"]}),
    "world": JoinedHours([SupportHours("Europe/Stockholm", WEEK), SupportHours("America/New_York", WEEK)]),
    "sunday": SupportHours("Europe/Stockholm", {"sun": ["01:00-04:00"]}),
}


def find_due(calendar: str, text: str, opened: str) -> str:
    """When a target is used up, in Stockholm."""
    hours = HOURS[calendar]
    start = datetime.fromisoformat(opened).replace(tzinfo=STOCKHOLM)
    due = Target(parse_target(text), hours, calendar).find_due(start).astimezone(STOCKHOLM)
    return f"{due:%a %Y-%m-%d %H:%M:%S}".removesuffix(":00")


EXAMPLES = """
office | next working day by 17:00 | 2026-11-30 10:00 | Tue 2026-12-01 17:00 | on Monday
office | next working day by 17:00 | 2026-11-30 16:59:30 | Tue 2026-12-01 17:00 | just before closing
office | next working day by 17:00 | 2026-11-27 10:00 | Mon 2026-11-30 17:00 | on Friday
office | next working day by 17:00 | 2026-11-27 22:00 | Mon 2026-11-30 17:00 | on Friday night
office | next working day by 17:00 | 2026-11-28 12:00 | Mon 2026-11-30 17:00 | on Saturday
office | next working day by 17:00 | 2026-12-24 10:00 | Mon 2026-12-28 17:00 | before Christmas Day, a Friday
office | next working day by 12:00 | 2026-11-30 16:00 | Tue 2026-12-01 12:00 | by noon
office | next working day by 20:00 | 2026-11-30 16:00 | Tue 2026-12-01 17:00 | by a time outside hours: at closing
office | 1 working day | 2026-11-30 10:15:30 | Tue 2026-12-01 10:15:30 | the same wall time
office | 2 working days | 2026-04-01 16:00 | Tue 2026-04-07 16:00 | over Easter
office | 2 working days | 2026-11-28 12:00 | Tue 2026-12-01 17:00 | opened outside hours: from Monday 09:00
office | 2 working days | 2026-11-30 18:00 | Wed 2026-12-02 17:00 | opened after closing: from Tuesday 09:00
office | 2 working days by 12:00 | 2026-11-28 12:00 | Wed 2026-12-02 12:00 | counted from the next opening
office | end of day | 2026-11-30 10:00 | Mon 2026-11-30 17:00 | on Monday
office | end of day | 2026-11-30 17:00 | Tue 2026-12-01 17:00 | closed already
office | 5 days | 2026-11-30 10:00 | Fri 2026-12-04 17:00 | Saturday: at the last closing
office | 2 days | 2026-12-05 10:00 | Mon 2026-12-07 10:00 | opened on Saturday
office | 1 day | 2026-12-05 10:00 | Mon 2026-12-07 17:00 | no support time before Sunday: the next closing
office | 3 days | 2026-11-30 09:00 | Wed 2026-12-02 17:00 | an opening: at the closing before it
lunch | end of day | 2026-11-30 12:30 | Mon 2026-11-30 17:00 | at lunch
lunch | 1 working day | 2026-11-30 12:30 | Tue 2026-12-01 12:00 | at lunch, counted from 13:00: at the closing
always | 5 days | 2026-10-23 12:00 | Wed 2026-10-28 12:00 | clocks go back: 121 hours
always | end of day | 2026-11-30 10:00 | Tue 2026-12-01 00:00 | a day that does not close
always | 1 working day | 2026-03-28 02:30 | Sun 2026-03-29 03:00 | a wall time that clocks skip
always | 1 working day | 2026-10-24 02:30 | Sun 2026-10-25 02:30 | a wall time that comes twice
nights | end of day | 2026-11-28 02:00 | Sat 2026-11-28 06:00 | in the window of Friday
nights | 1 working day | 2026-11-28 02:00 | Tue 2026-12-01 02:00 | from the night of Friday to that of Monday
nights | next working day by 23:00 | 2026-11-28 02:00 | Mon 2026-11-30 23:00 | Saturday has no opening
world | end of day | 2026-11-30 10:00 | Mon 2026-11-30 23:00 | New York closes at 23:00
sunday | 1 working day | 2026-03-22 02:30 | Sun 2026-03-29 03:00 | a week later, when clocks skip it
"""


@pytest.mark.parametrize("example", EXAMPLES.strip().splitlines(), ids=lambda line: line.split("|")[4].strip())
def test_the_worked_examples_hold(example: str) -> None:
    calendar, text, opened, due, _ = (cell.strip() for cell in example.split("|"))
    assert find_due(calendar, text, opened) == due


def test_a_wall_time_that_comes_twice_is_the_first() -> None:
    target = Target(parse_target("1 working day"), HOURS["always"], "always")
    assert target.measure(datetime(2026, 10, 24, 2, 30, tzinfo=STOCKHOLM)) == DAY


def test_what_lies_after_all_hours_is_due_when_they_end() -> None:
    start = datetime(2199, 11, 1, tzinfo=UTC)
    target = Target(parse_target("3650 working days"), HOURS["office"], "office")
    assert target.measure(start) == HOURS["office"].measure(start, END_OF_HOURS)


texts = st.one_of(
    st.integers(1, 4).map(lambda n: f"{n} working day{'s' * (n > 1)}"),
    st.integers(1, 9).map(lambda n: f"{n} day{'s' * (n > 1)}"),
    st.sampled_from(("09:30", "12:00", "17:00", "23:15", "24:00")).map(lambda by: f"next working day by {by}"),
    st.sampled_from(("09:30", "17:00")).map(lambda by: f"2 working days by {by}"),
    st.just("end of day"),
)
days = st.lists(st.sampled_from(("09:00-17:00", "08:15-12:00", "18:00-24:00", "00:00-24:00")), max_size=1)
weeks = st.lists(days, min_size=7, max_size=7).filter(any)
starts = st.integers(0, 20 * 24 * 60).map(lambda n: datetime(2026, 3, 20, tzinfo=UTC) + n * MINUTE)


@examples(25)
@given(weeks, st.frozensets(st.dates(date(2026, 3, 20), date(2026, 4, 20)), max_size=8), starts, texts)
def test_any_target_by_days_is_what_a_walk_counts(
    week: list[list[str]], closed: frozenset[date], start: datetime, text: str
) -> None:
    named = dict(zip(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), week, strict=True))
    hours = SupportHours("Europe/Stockholm", named, holidays=dict.fromkeys(closed, "holiday"))
    counted = count_target(Oracle(STOCKHOLM, week, closed), start, text)
    assert Target(parse_target(text), hours, "any").measure(start) == counted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2 working day", "'2 working day' is not a target; write 2 working days"),
        ("1 working days", "write 1 working day"),
        ("1 days", "write 1 day"),
        ("0 days", "'0 days' is not a duration"),
        ("next working day", "write next working day by HH:MM, such as by 17:00"),
        ("next day by 17:00", "write next working day by HH:MM"),
        ("3 days by 17:00", "a time of day is for working days"),
        ("next working day by 25:00", "'25:00' is a time that does not exist"),
        ("next working day by 5 pm", "'next working day by 5 pm' is not a duration; write hours"),
        ("9999 days", "a target is at most 3650 days"),
        ("two days", "'two days' is not a duration; write hours, minutes, seconds of support time: 4h"),
        ("End of day", "'End of day' is not a duration"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_target(text)


@pytest.mark.parametrize("text", ["4h", "1h 30m", "2 working days", "next working day by 17:00", "end of day", "1 day"])
def test_a_target_is_written_as_it_was_read(text: str) -> None:
    assert str(Target(parse_target(text), HOURS["office"], "office")) == text


def test_spans_need_no_opening() -> None:
    assert Target(parse_target("4h"), HOURS["office"], "office").span == timedelta(hours=4)
    assert Target(parse_target("2 days"), HOURS["office"], "office").span is None
