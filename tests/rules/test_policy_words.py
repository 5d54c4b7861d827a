"""The words of a policy file that the shipped one does not need: named calendars."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sla.policy import Policy
from sla.policy_file import PolicyError, load_policy_file
from sla.versions import find_changes, is_material
from tests.support.commands import sla
from tests.support.memory import SHIPPED
from tests.support.words import WORDS

OFFICES = """\
name: offices
version: "1"
zone: Europe/Stockholm
calendars:
  office:
    hours: {mon-fri: ["09:00-17:00"]}
    holidays: {country: SE}
  pune:
    zone: Asia/Kolkata
    hours: {mon-fri: ["09:30-18:30"]}
    holidays: {country: IN, subdivision: MH}
  bavaria:
    zone: Europe/Berlin
    hours: {mon-thu: ["08:00-17:00"], fri: ["08:00-14:00"]}
    holidays: {country: DE, subdivision: BY}
    yearly: {"12-24": ["08:00-12:00"]}
  always:
    hours: {daily: ["00:00-24:00"]}
    holidays: none
  follow:
    any_of: [office, pune]
priorities:
  p: {severity: error}
levels:
  stockholm:
    hours: office
    targets: {p: 8h}
  pune: {hours: pune, targets: {p: 8h}}
  munich: {hours: bavaria, targets: {p: 8h}}
  world: {hours: follow, targets: {p: 8h}}
  outage: {hours: always, targets: {p: 8h}}
  mixed: {hours: office, targets: {p: {within: 1h, hours: always}}}
"""

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a policy file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def find_due(policy: Policy, level: str, opened: str) -> str:
    """Local text in, local text out."""
    at = datetime.fromisoformat(opened)
    return policy.get_target(level, "p").find_due(at).astimezone(at.tzinfo).isoformat()


def find_problems(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as refused:
        load_policy_file(path)
    return list(refused.value.problems)


@pytest.mark.parametrize(
    ("level", "opened", "due"),
    [
        ("pune", "2026-10-01T15:30:00+05:30", "2026-10-05T14:30:00+05:30"),  # closed on Gandhi Jayanti, a Friday
        ("stockholm", "2026-10-01T15:00:00+02:00", "2026-10-02T15:00:00+02:00"),
        ("stockholm", "2027-01-05T15:00:00+01:00", "2027-01-07T15:00:00+01:00"),  # Epiphany
        ("munich", "2026-12-24T10:00:00+01:00", "2026-12-28T14:00:00+01:00"),  # 2 h, for it closes at noon
        ("munich", "2026-06-03T16:00:00+02:00", "2026-06-08T09:00:00+02:00"),  # Corpus Christi; Friday until 14:00
        ("world", "2026-10-02T00:00:00+02:00", "2026-10-02T17:00:00+02:00"),  # Pune is closed
        ("world", "2026-10-05T00:00:00+02:00", "2026-10-05T14:00:00+02:00"),  # Pune from 06:00 on, both from 09:00
        ("mixed", "2026-12-25T20:00:00+01:00", "2026-12-25T21:00:00+01:00"),
        ("outage", "2026-12-25T20:00:00+01:00", "2026-12-26T04:00:00+01:00"),
    ],
)
def test_each_calendar_has_its_own_zone_hours_and_holidays(written: Written, level: str, opened: str, due: str) -> None:
    read = load_policy_file(written(OFFICES))
    rebuilt = Policy.from_resolved(read.to_resolved())
    assert (rebuilt.fingerprint, rebuilt.to_resolved()) == (read.fingerprint, read.to_resolved())
    assert find_due(read, level, opened) == find_due(rebuilt, level, opened) == due


def test_a_calendar_without_zone_and_holidays_has_those_of_the_policy(written: Written) -> None:
    text = OFFICES.replace("    holidays: {country: SE}\n", "")
    rules = load_policy_file(written("holidays: {country: SE}\n" + text)).get_level("stockholm").hours.rules
    assert (rules.zone, len([day for day in rules.holidays if day.year == 2027])) == ("Europe/Stockholm", 13)


def test_the_name_of_a_holiday_of_a_calendar_is_a_label_and_its_hours_are_promised(written: Written) -> None:
    before = load_policy_file(written(OFFICES))
    renamed, longer = before.to_resolved(), before.to_resolved()
    renamed["calendars"]["office"]["holidays"]["2026-12-25"] = "Juldagen"
    longer["calendars"]["office"]["hours"]["fri"] = ["09:00-18:00"]
    assert not is_material(before, Policy.from_resolved(renamed))
    assert [(it.what, it.after) for it in find_changes(before, Policy.from_resolved(longer))] == [
        ("calendars.office.hours.fri", "09:00-18:00")
    ]
    assert is_material(before, Policy.from_resolved(longer))


WRONG = [  # what is written instead of what, the line, and the rule
    ("    hours: office", "    hours: offce", 26, "'offce' is not a calendar; write one of office, pune"),
    ("    hours: office\n", "    hours: office\n    zone: UTC\n", 27, "zone beside the name of a calendar"),
    ("any_of: [office, pune]", "any_of: [office, asia]", 21, "'asia' is not a calendar; write one of office"),
    ("any_of: [office, pune]", "any_of: [follow]", 21, "any_of contains follow itself; leave it out"),
    ("any_of: [office, pune]", "any_of: []", 21, "any_of is empty; name at least one calendar"),
    ("any_of: [office, pune]", "any_of: office", 21, "any_of is a single value; write a list"),
    ("any_of: [office, pune]", "any_of: [office]\n    zone: UTC", 22, "'zone' is an unknown key; known are any_of"),
    ('"12-24": [', '"12-32": [', 16, "'12-32' is not a day of the year; write month and day as MM-DD"),
    ('"12-24": [', "2026-12-24: [", 16, "'2026-12-24' is not a day of the year"),
    ('["08:00-12:00"]', '["12:00-08"]', 16, "'12:00-08' is not a window of time"),
    ("    holidays: none", "    holidays: closed", 19, "'closed' is not allowed; write one of none"),
    ("    holidays: none\n", "", 18, "calendar always takes the holidays of the policy, which has none"),
    ("subdivision: BY", "subdivision: XX", 15, "calendar bavaria: holidays: subdivision: 'XX'"),
    ("zone: Asia/Kolkata", "zone: Asia/Poona", 9, "calendar pune: zone: 'Asia/Poona' is not a time zone"),
    ('daily: ["00:00-24:00"]', "daily: []", 18, "calendar always is never open"),
    ("{within: 1h, hours: always}", "{within: 1h, hours: allways}", 32, "'allways' is not a calendar; write one of"),
    ("{within: 1h, hours: always}", "{within: 1h}", 32, "level mixed: targets: p has no hours; add it"),
    ("{within: 1h, hours: always}", "{hours: always}", 32, "level mixed: targets: p has no within; add it"),
    ("{within: 1h, hours: always}", "{within: soon, hours: always}", 32, "p: within: 'soon' is not a duration"),
    ("{within: 1h, hours: always}", "[1h]", 32, "level mixed: targets: p is a list"),
    (
        "pune: {hours: pune, targets: {p: 8h}}",
        "pune: {hours: pune, targets: {p: none}}",
        28,
        "targets are none for all",
    ),
    ("{within: 1h, hours: always}", "{within: none, hours: always}", 32, "p: within: 'none' is not a duration"),
    (
        "munich: {hours: bavaria, targets: {p: 8h}}",
        "munich: {hours: bavaria, targets: {p: 2 working day}}",
        29,
        "write 2",
    ),
    (
        "stockholm:\n    hours: office\n    targets: {p: 8h}",
        "stockholm:\n    hours: office\n    targets: {p: next working day by 07:00}",
        27,
        "'next working day by 07:00' is before any opening; write a time after 09:00, when the first day opens",
    ),
    ("{within: 1h, hours: always}", "{within: 2 working days by 09:00, hours: office}", 32, "is before any opening"),
    ("priorities:", "warn_at: [75%, 2h before]\npriorities:", 22, "2h before is longer than the target 1h"),
    ("priorities:", "warn_at: [soon before]\npriorities:", 22, "warn_at: 'soon' is not a duration"),
    ("priorities:", "warn_at: [30m after]\npriorities:", 22, "'30m after' is not a threshold; write whole percent"),
    ("priorities:", "warn_at: [30m before, 30m before]\npriorities:", 22, "thresholds ascend, each once"),
    ("priorities:", "remind_after: [4h, 1h]\npriorities:", 22, "remind_after is 4h, 1h; spans ascend, each once"),
    ("priorities:", "remind_after: [75%]\npriorities:", 22, "remind_after: '75%' is not a duration"),
    ("  always:", "  Always:", 17, "'Always' is not a name"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda row: f"{row[1]!r:.40}")
def test_a_wrong_word_is_refused_with_the_line_and_the_rule(written: Written, wrong: tuple[str, str, int, str]) -> None:
    old, new, line, words = wrong
    assert OFFICES.count(old) == 1
    path = written(OFFICES.replace(old, new))
    problems = find_problems(path)
    assert any(it.startswith(f"{path}:{line}: ") and words in it for it in problems), problems


@pytest.mark.parametrize(
    ("calendar", "text"),
    [
        ("bavaria", "next working day by 08:01"),
        ("follow", "next working day by 07:00"),  # Pune is open then
        ("always", "next working day by 00:01"),
        ("pune", "end of day"),
    ],
)
def test_targets_by_days_are_kept_as_they_are_written(written: Written, calendar: str, text: str) -> None:
    read = load_policy_file(written(OFFICES.replace("within: 1h, hours: always", f"within: {text}, hours: {calendar}")))
    rebuilt = Policy.from_resolved(read.to_resolved())
    assert rebuilt.fingerprint == read.fingerprint
    assert str(rebuilt.get_target("mixed", "p")) == text


def test_calendars_that_contain_each_other_are_refused(written: Written) -> None:
    path = written(OFFICES.replace("any_of: [office, pune]", "any_of: [office, more]\n  more: {any_of: [follow]}"))
    assert [it.partition(" ")[2] for it in find_problems(path)] == [
        "calendar follow: any_of contains follow itself; leave it out",
        "calendar more: any_of contains more itself; leave it out",
    ]


def test_due_of_a_priority_without_a_promise_is_null(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(WORDS, encoding="utf-8")
    line = '{"service_level":"gold","priority":"request","opened_at":"2026-11-30T10:00:00Z"}\n'
    answered = sla("due", "--batch", input=line, SLA_POLICY_DIR=str(tmp_path))
    assert (answered.code, answered.out) == (0, line.replace("}", ',"due_at":null}'))
    asked = ("due", "--level", "gold", "--priority", "request", "--at", "2026-11-30T10:00:00Z")
    answered = sla(*asked, SLA_POLICY_DIR=str(tmp_path))
    assert (answered.code, answered.out) == (0, "no promise: the policy promises nothing to request of gold\n")


def test_without_calendars_a_policy_says_which_holidays_there_are(written: Written) -> None:
    start, end = OFFICES.index("calendars:"), OFFICES.index("priorities:")
    path = written(OFFICES[:start] + OFFICES[end:])
    assert find_problems(path)[0] == f"{path}:1: the policy has no holidays; add it"
    assert any("'office' is not a calendar; write windows, or name it in calendars" in it for it in find_problems(path))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("0s", 0), ("1h", 3600)])
def test_a_closing_answer_is_a_span_of_at_most_an_hour(tmp_path: Path, text: str, seconds: int) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(SHIPPED.read_text(encoding="utf-8") + f"closing_answer: {text}\n", encoding="utf-8")
    assert load_policy_file(file).closing_answer == timedelta(seconds=seconds)
    file.write_text(SHIPPED.read_text(encoding="utf-8") + "closing_answer: 2h\n", encoding="utf-8")
    with pytest.raises(PolicyError, match="'2h' is too long; an answer counts at most 1h after the close"):
        load_policy_file(file)
