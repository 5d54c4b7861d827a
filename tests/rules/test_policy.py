"""The policy: the shipped one as the text has it, its other readings, and what a file may not say."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import run
from sys import executable
from zoneinfo import ZoneInfo

import pytest

from sla.policy import Policy
from sla.policy_file import PolicyError, load_policy_file
from sla.targets import Threshold
from tests.support.oracle import swedish_holidays
from tests.support.policy_page import read_policy_sentences

SHIPPED = Path(__file__).parents[2] / "sla" / "policies" / "cention-support.yaml"
HOUR = timedelta(hours=1)
PERCENTS = (Threshold(50), Threshold(75), Threshold(90))

ACME = """\
name: acme
version: "7"
zone: Europe/Stockholm
holidays:
  country: SE
  categories: [public]
  include_sundays: false
  add: {2026-12-24: Christmas Eve}
  remove: [2026-06-06]
warn_at: [50, 75, 90]
priorities:
  urgent: {severity: error}
  normal: {severity: warning}
levels:
  basic:
    hours:
      mon-fri: ["09:00-12:00", "13:00-18:00"]
      sat: ["10:00-14:00"]
    hours_from:
      2027-01-01: {mon-fri: ["08:00-17:00"]}
    exceptions:
      2026-12-31: {name: Stocktaking, hours: ["09:00-12:00"]}
    holidays: closed
    targets:
      urgent: 1h 30m
      normal: 8h
    channels: {email: all, phone: [urgent]}
    escalation: {tell: [support-escalation]}
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


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy_file(SHIPPED)


def find_problems(path: Path) -> list[str]:
    try:
        load_policy_file(path)
    except PolicyError as error:
        return list(error.problems)
    return []


def stockholm(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Stockholm"))


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the file"
    return text.replace(old, new)


# --- the shipped policy


def test_the_shipped_policy_is_the_table_of_the_text(policy: Policy) -> None:
    assert (policy.name, policy.version, policy.zone) == ("cention-support", "2026-01", "Europe/Stockholm")
    assert policy.priorities == ("critical", "serious", "minor")
    assert policy.warn_at == PERCENTS
    table = [[level.name, *(str(level.targets[it]) for it in policy.priorities)] for level in policy.levels.values()]
    assert table == [
        ["foundation", "4h", "8h", "24h"],
        ["professional", "1h", "4h", "12h"],
        ["enterprise", "2h", "4h", "8h"],
    ]


def test_the_shipped_policy_says_who_is_told_and_which_channels_there_are(policy: Policy) -> None:
    assert {level.name: level.tell for level in policy.levels.values()} == {
        "foundation": ("support-escalation",),
        "professional": ("account_manager", "support-escalation"),
        "enterprise": ("account_manager", "support-escalation"),
    }
    everything = ("critical", "serious", "minor")
    assert dict(policy.get_level("foundation").channels) == {"email": everything, "portal": everything}
    assert dict(policy.get_level("enterprise").channels) == {
        "email": everything, "portal": everything, "phone": ("critical",),
    }  # fmt: skip


def test_the_shipped_policy_has_the_exclusions_of_the_text_in_its_order(policy: Policy) -> None:
    assert policy.exclusions == (
        "terms_violation", "unauthorized_modification", "third_party", "customer_environment",
        "internet_connectivity", "basic_training", "custom_development", "preview_feature",
    )  # fmt: skip


def test_the_shipped_policy_describes_its_priorities_as_the_text_does(policy: Policy) -> None:
    rows = [sentence.split(" | ") for section, sentence in read_policy_sentences() if section == 4]
    assert dict(policy.descriptions) == {
        name.lower(): f"{description}. Examples: {examples}" for name, description, examples in rows
    }


@pytest.mark.parametrize("year", range(2005, 2036))
def test_the_holidays_are_the_13_days_of_the_law(policy: Policy, year: int) -> None:
    for level in policy.levels.values():
        days = {day for day in level.hours.rules.holidays if day.year == year}
        assert days == swedish_holidays(year)


def test_holidays_are_known_for_the_whole_horizon(policy: Policy) -> None:
    holidays = policy.get_level("enterprise").hours.rules.holidays
    assert {day.year for day in holidays} == set(range(1999, 2103))
    assert {day for day in holidays if day.year >= 2100} == {
        day for n in (2100, 2101, 2102) for day in swedish_holidays(n)
    }


@pytest.mark.parametrize(
    ("priority", "escalations", "severity"),
    [("minor", 0, "warning"), ("minor", 1, "error"), ("minor", 2, "critical"), ("minor", 9, "critical"),
     ("serious", 0, "error"), ("serious", 1, "critical"), ("critical", 0, "critical"), ("critical", 1, "critical")],
)  # fmt: skip
def test_each_escalation_raises_the_severity_by_a_step_up_to_critical(
    policy: Policy, priority: str, escalations: int, severity: str
) -> None:
    assert policy.get_severity(priority, escalations) == severity


def test_an_unknown_level_or_priority_is_named_with_those_there_are(policy: Policy) -> None:
    for question in (lambda: policy.get_level("gold"), lambda: policy.get_target("gold", "minor")):
        with pytest.raises(KeyError, match="'gold' is not in policy cention-support; it has foundation, professional"):
            question()
    for question in (lambda: policy.get_target("foundation", "p1"), lambda: policy.get_severity("p1", 0)):
        with pytest.raises(KeyError, match="'p1' is not in policy cention-support; it has critical, serious, minor"):
            question()


# --- the resolved form


@pytest.mark.parametrize("text", [SHIPPED.read_text(encoding="utf-8"), ACME], ids=["shipped", "acme"])
def test_a_resolved_policy_judges_like_the_file(written: Written, text: str) -> None:
    read = load_policy_file(written(text))
    rebuilt = Policy.from_resolved(read.to_resolved())
    assert (rebuilt.fingerprint, rebuilt.to_resolved()) == (read.fingerprint, read.to_resolved())
    assert (rebuilt.priorities, rebuilt.warn_at, list(rebuilt.levels)) == (
        read.priorities,
        read.warn_at,
        list(read.levels),
    )
    for name, level in read.levels.items():
        other = rebuilt.get_level(name)
        assert (other.channels, other.tell) == (level.channels, level.tell)
        assert {key: str(it) for key, it in other.targets.items()} == {
            key: str(it) for key, it in level.targets.items()
        }
        assert other.hours.rules == level.hours.rules


def test_a_resolved_policy_needs_no_holidays_package(policy: Policy) -> None:
    """A package of another version, or none, must not change what was judged."""
    program = (
        "import json, sys; sys.modules.update(holidays=None, yaml=None); from sla.policy import Policy; "
        "policy = Policy.from_resolved(json.load(sys.stdin)); "
        "print(policy.fingerprint, len(policy.get_level('enterprise').hours.rules.holidays))"
    )
    result = run([executable, "-c", program], input=policy.canonical, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [policy.fingerprint, str(len(policy.get_level("enterprise").hours.rules.holidays))]


def test_the_fingerprint_does_not_depend_on_the_language_of_the_machine(policy: Policy) -> None:
    program = f"from sla.policy_file import load_policy_file; print(load_policy_file({str(SHIPPED)!r}).fingerprint)"
    for language in ("sv", ""):
        result = run(
            [executable, "-c", program], env={"LANGUAGE": language}, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == policy.fingerprint


def test_changing_the_resolved_form_does_not_change_the_policy(policy: Policy) -> None:
    policy.to_resolved()["levels"].clear()
    assert len(policy.to_resolved()["levels"]) == 3


def test_comments_and_layout_do_not_change_the_fingerprint_and_every_value_does(written: Written) -> None:
    fingerprint = load_policy_file(written(ACME)).fingerprint
    assert load_policy_file(written("# a comment\n" + ACME.replace("1h 30m", "90m"))).fingerprint == fingerprint
    for old, new in (
        ("name: acme", "name: acme2"), ('"7"', '"8"'), ("Europe/Stockholm", "UTC+01:00"), ("Christmas Eve", "Eve"),
        ("remove: [2026-06-06]", "remove: []"), ("[50, 75, 90]", "[75, 90]"), ("severity: error", "severity: critical"),
        ("{severity: warning}", "{severity: warning, description: x}"),
        ("13:00-18:00", "13:00-18:01"), ("08:00-17:00", "08:00-17:01"), ("Stocktaking", "Inventory"),
        ("holidays: closed", "holidays: open"), ("normal: 8h", "normal: 8h 1s"), ("phone: [urgent]", "phone: all"),
        ("[support-escalation]", "[boss]"), ("include_sundays: false", "include_sundays: true"),
    ):  # fmt: skip
        assert load_policy_file(written(replaced(ACME, old, new))).fingerprint != fingerprint, new


def test_the_order_of_keys_does_not_matter_to_the_fingerprint(policy: Policy) -> None:
    """A database that stores JSON may give the keys back in another order."""
    reordered = dict(reversed(policy.to_resolved().items()))
    assert Policy.from_resolved(reordered).fingerprint == policy.fingerprint


def test_a_resolved_policy_of_an_unknown_format_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="format 2; this program reads format 1"):
        Policy.from_resolved(policy.to_resolved() | {"format": 2})


# --- other readings of the text, each one setting away

READINGS = [
    # a setting                 becomes                           level         opened              due of critical
    ("zone: Europe/Stockholm", 'zone: "UTC+01:00"',              "foundation", "2026-07-01 09:30", "2026-07-01 14:00"),
    ("zone: Europe/Stockholm", "zone: CET",                      "foundation", "2026-07-01 09:30", "2026-07-01 13:30"),
    ("remove: []",             "remove: [2026-05-14]",           "foundation", "2026-05-14 10:00", "2026-05-14 14:00"),
    ("add: {}",                "add: {2026-05-15: Squeeze Day}", "foundation", "2026-05-15 10:00", "2026-05-18 13:00"),
    ("[public]",               "[public, de_facto]",             "foundation", "2026-06-19 10:00", "2026-06-22 13:00"),
    ("include_sundays: false", "include_sundays: true",          "enterprise", "2026-11-22 10:00", "2026-11-23 02:00"),
    ("country: SE",            "country: DE\n  subdivision: BY", "enterprise", "2026-01-06 10:00", "2026-01-07 02:00"),
    ("country: SE",            "country: DE",                    "enterprise", "2026-01-06 10:00", "2026-01-06 12:00"),
    ("country: SE",            "country: NO",                    "enterprise", "2026-05-17 10:00", "2026-05-18 02:00"),
    ("country: SE",            "country: NO",                    "enterprise", "2026-11-22 10:00", "2026-11-22 12:00"),
    ("      critical: 2h",     "      critical: 1h 15m",         "enterprise", "2026-11-22 10:00", "2026-11-22 11:15"),
]  # fmt: skip


@pytest.mark.parametrize("reading", READINGS, ids=lambda row: f"{row[1]} {row[3]}".replace("\n", ""))
def test_another_reading_of_the_text_is_a_setting(written: Written, reading: tuple[str, ...]) -> None:
    old, new, level, opened, due = reading
    policy = load_policy_file(written(replaced(SHIPPED.read_text(encoding="utf-8"), f"{old}\n", f"{new}\n")))
    assert policy.get_target(level, "critical").find_due(stockholm(opened)) == stockholm(due)


def test_holidays_may_be_open_for_one_level_only(written: Written) -> None:
    head, enterprise = SHIPPED.read_text(encoding="utf-8").split("  enterprise:\n")
    policy = load_policy_file(
        written(f"{head}  enterprise:\n{replaced(enterprise, 'holidays: closed', 'holidays: open')}")
    )
    christmas = stockholm("2026-12-24 23:30")
    assert policy.get_level("enterprise").hours.find_due(christmas, 2 * HOUR) == stockholm("2026-12-25 01:30")
    assert policy.get_level("foundation").hours.find_due(christmas, 4 * HOUR) == stockholm("2026-12-28 13:00")


def test_there_may_be_no_holidays_at_all(written: Written) -> None:
    head, tail = ACME.split("holidays:\n", 1)
    policy = load_policy_file(written(f"{head}holidays: none\n{tail[tail.index('warn_at') :]}"))
    assert (
        policy.get_level("basic").hours.measure(stockholm("2026-05-14 00:00"), stockholm("2026-05-15 00:00"))
        == 8 * HOUR
    )


def test_exceptions_and_later_hours_of_a_file_hold(written: Written) -> None:
    hours = load_policy_file(written(ACME)).get_level("basic").hours
    counted = {
        "2026-06-06": 4, "2026-12-23": 8, "2026-12-24": 0, "2026-12-25": 0, "2026-12-30": 8, "2026-12-31": 3,
        "2027-01-04": 9, "2027-01-09": 0,
    }  # fmt: skip
    for day, expected in counted.items():
        start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Stockholm"))
        assert hours.measure(start, start + timedelta(days=1)) == expected * HOUR, day


def test_warnings_have_a_default_and_may_be_off(written: Written) -> None:
    assert load_policy_file(written(replaced(ACME, "warn_at: [50, 75, 90]\n", ""))).warn_at == PERCENTS
    assert load_policy_file(written(replaced(ACME, "[50, 75, 90]", "[]"))).warn_at == ()


def test_levels_may_have_channels_and_escalation_left_out(written: Written) -> None:
    basic = load_policy_file(written(ACME[: ACME.index("    channels:")])).get_level("basic")
    assert (dict(basic.channels), basic.tell) == ({}, ())


def test_times_that_yaml_would_take_for_numbers_and_booleans_are_read_as_text(written: Written) -> None:
    text = ACME.replace('"09:00-12:00", "13:00-18:00"', "09:00-12:00, 13:00-18:00").replace(
        "country: SE", "country: NO"
    )
    text = replaced(text, "  remove: [2026-06-06]\n", "")
    assert (
        load_policy_file(written(replaced(text, 'version: "7"', "version: 09:30".replace(":30", "")))).version == "09"
    )


# --- what a file may not say: a text, what it becomes, the line, words of what is said about it

WRONG = [
    ("name: acme",             "name: Acme Inc",                1,  "'Acme Inc' is not a name"),
    ("name: acme",             "name: [a]",                     1,  "name is a list; write a single value"),
    ("name: acme",             "name:",                         1,  "'' is not a name"),
    ("name: acme\n",           "",                              1,  "the policy has no name; add it"),
    ('"7"',                    '"7 of 9"',                      2,  "'7 of 9' is not a version"),
    ("zone: Europe/Stockholm", "zone: Europe/Stokholm",         3,  "'Europe/Stokholm' is not a time zone"),
    ("zone: Europe/Stockholm", "zone: UTC+25:00",               3,  "'UTC+25:00' is not a time zone"),
    ("zone: Europe/Stockholm", "zone: &z Europe/Stockholm",     3,  "an anchor"),
    ("zone: Europe/Stockholm", "zone: !!str Europe/Stockholm",  3,  "a tag"),
    ("zone: Europe/Stockholm", "zone: *z",                      3,  "an alias"),
    ("zone: Europe/Stockholm", "zone: Europe/Stockholm\nzone: UTC", 4, "the key 'zone' twice"),
    ("zone: Europe/Stockholm", "zone: UTC\ntimezone: UTC",      4,  "'timezone' is an unknown key; known are name"),
    ("zone: Europe/Stockholm", "zone: UTC\n\tx: y",             4,  "found character '\\t'"),
    ("zone: Europe/Stockholm", "zone: UTC\x07",                 3,  "control character"),
    ("country: SE",            "country: XX",                   5,  "'XX' is not a country"),
    ("country: SE",            "country: Sweden",               5,  "'Sweden' is not a country"),
    ("country: SE",            "country: SE\n  subdivision: BY", 6, "subdivision: 'BY' is not allowed"),
    ("  country: SE\n",        "",                              5,  "categories without a country"),
    ("SE\n  categories: [public", "GR\n  categories: [half_day", 6, "'half_day' is not allowed"),
    ("[public]",               "[official]",                    6,  "'official' is not allowed; write one of bank"),
    ("[public]",               "[]",                            6,  "categories is empty"),
    ("[public]",               "public",                        6,  "categories is a single value; write a list"),
    ("include_sundays: false", "include_sundays: no",           7,  "'no' is not a yes or no; write true or false"),
    ("2026-12-24: Christ",     "2026-02-29: Christ",            8,  "'2026-02-29' is not a date"),
    ("2026-12-24: Christ",     "24/12/2026: Christ",            8,  "'24/12/2026' is not a date"),
    ("2026-12-24: Christ",     "2206-12-24: Christ",            8,  "2206-12-24 is out of range; dates lie in"),
    ("2026-12-24: Christmas Eve", "2026-12-24: ''",             8,  "'' is not a label"),
    ("remove: [2026-06-06]",   "remove: [2026-06-07]",          9,  "2026-06-07 is not a holiday"),
    ("remove: [2026-06-06]",   "remove: [20260606]",            9,  "'20260606' is not a date"),
    ("[50, 75, 90]",           "[50, 75, 100]",                 10, "'100' is not a threshold; write whole percent"),
    ("[50, 75, 90]",           "[0, 75]",                       10, "'0' is not a threshold"),
    ("[50, 75, 90]",           "[50.5]",                        10, "'50.5' is not a threshold"),
    ("[50, 75, 90]",           "[75, 50, 90]",                  10, "thresholds ascend, each once"),
    ("[50, 75, 90]",           "[50, 50]",                      10, "thresholds ascend, each once"),
    ("severity: error",        "severity: loud",                12, "'loud' is not allowed; write one of warning"),
    ("{severity: error}",      "{severity: error, color: red}", 12, "'color' is an unknown key"),
    ("{severity: error}",      "error",                         12, "priority urgent is a single value"),
    ("{severity: error}",      "{}",                            12, "priority urgent has no severity"),
    ("{severity: error}",      "{severity: error, description: ''}", 12, "'' is not a description; write 1 to"),
    ("{severity: error}",      '{severity: error, description: "a\\nb"}', 12, "without line breaks"),
    ("  basic:",               "  none:",                       15, "'none' is not a name"),
    ("  basic:",               "  Basic:",                      15, "'Basic' is not a name; names are 1 to 32 of a-z"),
    ("  basic:",               "  " + 33 * "a" + ":",           15, "is not a name"),
    ("  basic:",               "  gold: platinum\n  basic:",    15, "level gold is a single value"),
    ("      mon-fri: [\"09",   "      mon-fry: [\"09",          17, "'mon-fry' is not a weekday"),
    ("      mon-fri: [\"09",   "      weekdays: [\"09",         17, "'weekdays' is not a weekday"),
    ("09:00-12:00\", \"13",    "25:00-26:00\", \"13",           17, "'25:00-26:00' has a time that does not exist"),
    ("09:00-12:00\", \"13",    "09:60-12:00\", \"13",           17, "'09:60-12:00' has a time that does not exist"),
    ("09:00-12:00\", \"13",    "09:00-09:00\", \"13",           17, "'09:00-09:00' is empty"),
    ("09:00-12:00\", \"13",    "9-12\", \"13",                  17, "'9-12' is not a window of time"),
    ("09:00-12:00\", \"13",    "09:00-13:01\", \"13",           17, "13:00-18:00 overlaps 09:00-13:01"),
    ("      sat: [",           "      fri: [",                  18, "fri is given twice"),
    ("      sat: [",           "      mon-fri: [",              18, "the key 'mon-fri' twice"),
    ("sat: [\"10:00-14:00\"]", "sat: 10:00-14:00",              18, "hours is a single value; write a list"),
    ("2027-01-01: {mon",       "2027-13-01: {mon",              20, "'2027-13-01' is not a date"),
    ("[\"08:00-17:00\"]",      "[\"08:00-17:00\", \"16:00-18:00\"]", 20, "16:00-18:00 overlaps 08:00-17:00"),
    ("{name: Stocktaking, ",   "{",                             22, "exception 2026-12-31 has no name; add it"),
    ("    holidays: closed",   "    holidays: sometimes",       23, "'sometimes' is not allowed; write one of closed"),
    ("urgent: 1h 30m",         "urgent: 0h",                    25, "'0h' is no target; a target is positive"),
    ("urgent: 1h 30m",         "urgent: -4h",                   25, "'-4h' is not a duration"),
    ("urgent: 1h 30m",         "urgent: 4",                     25, "'4' is not a duration; write hours"),
    ("urgent: 1h 30m",         "urgent: 2d",                    25, "'2d' is not a duration"),
    ("urgent: 1h 30m",         "urgent: 90000h",                25, "'90000h' is no target"),
    ("urgent: 1h 30m",         "urgent: 1:30",                  25, "'1:30' is not a duration"),
    ("      normal: 8h",       "      normale: 8h",             26, "'normale' is not allowed; write one of urgent"),
    ("      normal: 8h\n",     "",                              25, "targets: nothing for normal; every priority"),
    ("      normal: 8h",       "      normal: 8h\n      low: 1h", 27, "'low' is not allowed; write one of urgent"),
    ("phone: [urgent]",        "phone: [asap]",                 27, "'asap' is not allowed; write one of urgent"),
    ("email: all",             "email: some",                   27, "'some' is not allowed; write one of all"),
    ("{tell: [support-esc",    "{call: [support-esc",           28, "'call' is an unknown key; known are tell"),
    ("[support-escalation]}",  "[support-escalation}",          28, "plain YAML"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda row: f"{row[1]!r:.40} {row[3]:.40}")
def test_a_wrong_policy_is_refused_with_the_line_and_the_rule(
    written: Written, wrong: tuple[str, str, int, str]
) -> None:
    old, new, line, words = wrong
    path = written(replaced(ACME, old, new))
    problems = find_problems(path)
    assert any(it.startswith(f"{path}:{line}: ") and words in it for it in problems), problems
    with pytest.raises(PolicyError) as refused:
        load_policy_file(path)
    assert (list(refused.value.problems), str(refused.value)) == (problems, "\n".join(problems))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda row: f"{row[1]!r:.40}")
def test_one_mistake_is_reported_once(written: Written, wrong: tuple[str, str, int, str]) -> None:
    """Except that a key which is misspelt is missing, too."""
    old, new, _, words = wrong
    problems = find_problems(written(replaced(ACME, old, new)))
    missing = [it for it in problems if words not in it]
    assert all("has no" in it or "targets: nothing for" in it for it in missing), problems
    assert len(problems) - len(missing) == 1, problems


def test_all_problems_are_reported_at_once_in_the_order_of_lines(written: Written) -> None:
    text = (
        ACME.replace("Stockholm", "Stokholm")
        .replace("[50", "[0")
        .replace("8h", "8x")
        .replace("severity: error", "severity: x")
    )
    path = written(text)
    assert [it.removeprefix(f"{path}:").split(":")[0] for it in find_problems(path)] == ["3", "10", "12", "26"]


@pytest.mark.parametrize(
    ("raw", "line", "words"),
    [
        (b"", 1, "the file is empty"),
        (b"# only a comment\n", 1, "the file is empty"),
        (b"name: a\nversion: \xff\n", 2, "not UTF-8"),
        (b"hello\n", 1, "the policy is a single value; write lines of key: value"),
        (b"- a\n", 1, "the policy is a list"),
        (b"name: a\n---\nname: b\n", 2, "another document"),
        (b"[" * 5000, 1, "nested too deeply"),
        (b"# " + b"x" * 300_000, 1, "a policy has at most 262144"),
        (b"levels: {}\npriorities: {}\n", 1, "levels is empty; name at least one"),
        (b"? [a]\n: b\n", 1, "key of the policy is a list"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, raw: bytes, line: int, words: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(raw)
    assert any(it.startswith(f"{path}:{line}: ") and words in it for it in find_problems(path)), find_problems(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert find_problems(tmp_path) == [
        f"{tmp_path}:1: the file cannot be read (Is a directory); give the path of a policy file"
    ]
    with pytest.raises(PolicyError, match=r"nothing\.yaml:1: the file cannot be read \(No such file or directory\)"):
        load_policy_file(tmp_path / "nothing.yaml")


def test_a_level_that_is_never_open_is_refused(written: Written) -> None:
    text = ACME[: ACME.index("    hours_from:")] + ACME[ACME.index("    targets:") :]
    closed = replaced(text, 'mon-fri: ["09:00-12:00", "13:00-18:00"]', "mon-fri: []")
    closed = replaced(closed, 'sat: ["10:00-14:00"]', "sat: []")
    path = written(closed)
    rule = "level basic is never open; give it a window on a day that is not closed"
    assert find_problems(path) == [f"{path}:17: {rule}"]
    sundays = replaced(
        replaced(closed, "sat: []", 'sun: ["10:00-14:00"]'), "include_sundays: false", "include_sundays: true"
    )
    assert find_problems(written(sundays)) == [f"{path}:17: {rule}"]


def test_windows_of_a_day_may_touch(written: Written) -> None:
    assert find_problems(written(replaced(ACME, "13:00-18:00", "12:00-18:00"))) == []


def test_a_good_file_has_no_problems(written: Written) -> None:
    assert (
        find_problems(SHIPPED)
        == find_problems(written(ACME))
        == find_problems(written("\ufeff" + ACME.replace("\n", "\r\n")))
        == []
    )


@pytest.mark.parametrize("country", ["MY", "IL", "LK", "JP", "US", "KR"])
def test_countries_whose_tables_end_before_the_horizon_can_be_used(written: Written, country: str) -> None:
    text = ACME.replace("country: SE", f"country: {country}").replace("  remove: [2026-06-06]\n", "")
    holidays = load_policy_file(written(text)).get_level("basic").hours.rules.holidays
    assert len([day for day in holidays if day.year == 2026]) > 5


def test_an_opening_at_the_end_of_the_last_year_has_a_deadline_that_knows_the_holidays(policy: Policy) -> None:
    """Facts may be as late as 2100; the New Year's Day behind it is a holiday like any other."""
    due = policy.get_level("enterprise").hours.find_due(datetime(2100, 12, 31, 22, 30, tzinfo=UTC), 2 * HOUR)
    assert due == datetime(2101, 1, 2, 0, 30, tzinfo=UTC)
