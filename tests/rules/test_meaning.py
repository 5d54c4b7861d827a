"""What a policy means: the days its calendars close, their hours, and what its writer may not have meant."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from sla.meaning import CalendarMeaning, describe_calendars, find_long_targets
from sla.policy import Policy
from sla.policy_file import read_policy_file
from tests.support.memory import POLICY
from tests.support.oracle import swedish_holidays

HOUR = timedelta(hours=1)
OFFICES = """\
name: offices
version: "1"
zone: Europe/Stockholm
holidays: {country: SE}
calendars:
  office: {hours: {mon-fri: ["09:00-17:00"]}, yearly: {"12-23": ["09:00-12:00"], "06-06": ["09:00-12:00"]}}
  dublin:
    zone: Europe/Dublin
    hours: {mon-fri: ["09:30-18:30"]}
    holidays: {country: IE}
  follow: {any_of: [office, dublin]}
priorities: {p: {severity: error}}
levels:
  stockholm: {hours: office, targets: {p: 8h}}
  world: {hours: follow, targets: {p: 8h}}
  shop:
    hours: {mon-sat: ["10:00-16:00"]}
    hours_from: {2027-07-01: {mon-fri: ["10:00-14:00"]}, 2027-08-02: {mon-sat: ["10:00-16:00"]}}
    exceptions:
      2026-12-31: {name: Stocktaking, hours: ["10:00-11:00"]}
      2027-01-02: {name: Moving, hours: []}
    targets: {p: {within: 1h, hours: office}}
"""

Read = Callable[[str], tuple[Policy, list[str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads the text of a policy file with its warnings, from 2026 on, without the name of the file."""

    def read(text: str) -> tuple[Policy, list[str]]:
        path = tmp_path / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        policy, warnings = read_policy_file(path, 2026)
        return policy, [warning.removeprefix(str(path)) for warning in warnings]

    return read


def describe(policy: Policy) -> dict[str, CalendarMeaning]:
    return {each.calendar: each for each in describe_calendars(policy, range(2026, 2028))}


def test_the_shipped_policy_closes_on_the_days_of_the_law_and_warns_of_nothing() -> None:
    calendars = describe(POLICY)
    for each in calendars.values():
        assert {day for day, _, _ in each.days} == set(swedish_holidays(2026)) | set(swedish_holidays(2027))
        assert {hours for _, _, hours in each.days} == {"closed"} and each.warnings == ()
    hours = {name: list(each.week_hours.values()) for name, each in calendars.items()}
    assert hours == {"foundation": [45 * HOUR], "professional": [70 * HOUR], "enterprise": [168 * HOUR]}
    assert list(find_long_targets(POLICY, 2026)) == []


def test_each_calendar_says_by_whom_it_is_used_and_how_long_it_is_open_a_week(read: Read) -> None:
    calendars = describe(read(OFFICES)[0])
    assert {name: each.levels for name, each in calendars.items()} == {
        "office": ("stockholm", "shop"), "dublin": (), "follow": ("world",), "shop": (),
    }  # fmt: skip
    assert calendars["dublin"].zone == "Europe/Dublin"
    first = date(2026, 1, 1)
    assert calendars["office"].week_hours == {first: 40 * HOUR}
    assert calendars["follow"].week_hours == {first: 52.5 * HOUR}, "from 09:00 to 19:30 in Stockholm"
    assert calendars["shop"].week_hours == {
        first: 36 * HOUR, date(2027, 7, 1): 20 * HOUR, date(2027, 8, 2): 36 * HOUR,
    }  # fmt: skip


def test_each_calendar_says_on_which_days_it_is_closed_or_has_other_hours(read: Read) -> None:
    days = {name: {day: it for day, *it in each.days} for name, each in describe(read(OFFICES)[0]).items()}
    assert days["office"][date(2026, 12, 25)] == ["Christmas Day", "closed"]
    assert days["office"][date(2026, 12, 23)] == ["every 23 December", "09:00-12:00"]
    assert days["office"][date(2026, 6, 6)] == ["National Day", "closed"], "a closed day stays closed"
    assert days["shop"][date(2026, 12, 31)] == ["Stocktaking", "10:00-11:00"]
    assert days["shop"][date(2027, 1, 2)] == ["Moving", "closed"]
    assert days["dublin"][date(2026, 3, 17)] == ["Saint Patrick's Day", "closed"]
    assert date(2026, 3, 17) not in days["follow"], "Stockholm is open"
    assert days["follow"][date(2026, 12, 25)] == ["Christmas Day", "closed"], "in both"


WARNED = [
    # a text,                    what it becomes,          and the warning
    ("zone: Europe/Stockholm",   "zone: EST",              ":3: zone: EST is UTC-05:00 all year, without summer time"),
    ("zone: Europe/Stockholm",   "zone: CET",              ":3: zone: CET is UTC+01:00 in winter and UTC+02:00 in"),
    ("zone: Europe/Dublin",      "zone: Etc/GMT-5",        ":8: calendar dublin: zone: Etc/GMT-5 is UTC+05:00 all"),
    ("country: SE",              "country: GB",            ":4: holidays: GB as a whole lacks the holidays of its"),
    ("country: SE",              "country: LK",            ":4: holidays: LK: no holiday is known after 2026; add"),
    ("country: SE",              "country: GY",            ":4: holidays: GY: not known after 2035: Holi, Diwali"),
    ("country: SE",              "country: TR",            "TR has half days (Eid al-Adha, Eid al-Fitr, Republic Day)"),
    ("country: SE",              "country: US",            ":4: holidays: US has half days (in parts of it, or"),
    ('mon-sat: ["10:00-16:00"]}}', 'sat: ["10:00-23:59"]}}', ":18: level shop: hours_from 2027-08-02: 10:00-23:59"),
    ('hours: ["10:00-11:00"]',   'hours: ["23:00-23:59"]', "leaves out the minute before midnight; the day ends at"),
]  # fmt: skip


@pytest.mark.parametrize("row", WARNED, ids=lambda row: row[2][:60])
def test_what_may_not_be_meant_is_a_warning_with_the_line(read: Read, row: tuple[str, str, str]) -> None:
    old, new, words = row
    assert OFFICES.count(old) == 1
    assert read(OFFICES)[1] == []
    after = read(OFFICES.replace(old, new))[1]
    assert any(words in each for each in after), after
    assert len(after) == (2 if new == "country: US" else 1), after


def test_weeks_without_hours_and_targets_of_more_than_a_year_are_warnings(read: Read) -> None:
    policy, _ = read(OFFICES.replace("p: 8h}}\n  shop", "p: 3200h}}\n  shop").replace('["10:00-14:00"]', "[]"))
    calendars = describe(policy)
    assert calendars["shop"].warnings == (
        "calendar shop: no hours in the weeks from Monday 2027-07-05, 2027-07-12, 2027-07-19, 2027-07-26",
    )
    assert calendars["office"].warnings == ()
    (warning,) = find_long_targets(policy, 2026)
    assert warning.startswith("level world: p: 3200h is more than a year: opened on 2026-01-01, due on 2027-03-")
    policy, _ = read(OFFICES.replace("p: 8h}}\n  shop", "p: 400 days}}\n  shop"))
    (warning,) = find_long_targets(policy, 2026)
    assert warning.startswith("level world: p: 400 days is more than a year")


def test_a_file_is_read_without_a_year_where_nobody_asks_for_warnings(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(OFFICES, encoding="utf-8")
    assert read_policy_file(path, None)[1] == []
