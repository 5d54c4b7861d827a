"""Versions of the policy: which one counts, what may be published, and what would be under another one."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from events.tickets import Opened
from projections.registry import PROJECTIONS
from projections.runner import catch_up
from services.store.interface import Database
from sla import policy_file
from sla.policy import Policy
from sla.policy_file import PolicyError, load_policy_file
from sla.versions import (
    BEFORE_ALL,
    MIN_LEAD,
    Version,
    VersionRefusedError,
    Versions,
    find_changes,
    is_material,
    make_next_version,
)
from tests.scenarios.scenario import stockholm
from tests.support.bus import Up, fact, now, opened, responded, samples, up
from tests.support.commands import Said, call, sla
from tests.support.memory import POLICY, SHIPPED, make_edited_policy
from tests.support.objectives import doubled, with_objectives
from tests.support.store_log import HOUR, START, Log
from tests.support.stores import new_store, rows, tables

pytestmark = pytest.mark.stores

DAY = timedelta(days=1)
NOW = stockholm("2026-11-24 10:00")
ONE = Versions.only(POLICY)
ALWAYS_OPEN = Path(__file__).parents[2] / "docs" / "policies" / "always-open.yaml"


def following(policy: Policy, versions: Versions = ONE, notice: timedelta = timedelta(0)) -> Version:
    return make_next_version(versions, policy, NOW, notice)


def variant(**said: Any) -> Policy:
    """The shipped policy as version 2027-01, with other things in its resolved form."""
    return Policy.from_resolved(POLICY.to_resolved() | {"version": "2027-01"} | said)


# ---- which one counts


def test_the_first_version_covers_all_history() -> None:
    for says in (None, NOW - DAY, NOW + DAY):
        policy = replace(POLICY, effective_from=says)
        first = make_next_version(Versions([]), policy, NOW, DAY)
        assert first.is_first and Versions([first]).get_in_force(stockholm("2000-01-01 00:00")) is policy


def test_each_instant_has_the_version_in_force() -> None:
    later = Version(make_edited_policy(), NOW, NOW + DAY, material=True)
    versions = Versions([later, *ONE])
    assert versions.get_in_force(NOW + DAY - timedelta(microseconds=1)) is POLICY
    assert versions.get_in_force(NOW + DAY) is later.policy and versions.get_in_force(BEFORE_ALL) is POLICY


def test_an_opening_that_its_version_cannot_judge_has_the_first_one_since_that_can() -> None:
    text = json.dumps(POLICY.to_resolved() | {"version": "2027-01"}).replace('"minor"', '"low"')
    later = Version(Policy.from_resolved(json.loads(text)), NOW, NOW, material=True)
    versions, low = Versions([*ONE, later]), Opened(service_level="foundation", priority="low")
    assert versions.find_for_opening(low, NOW - DAY) is later.policy
    assert versions.find_for_opening(low, NOW - DAY, known_at=NOW - HOUR) is POLICY, (
        "it was not in effect when that was told"
    )
    assert versions.find_for_opening(Opened(service_level="foundation", priority="minor"), NOW - DAY) is POLICY


# ---- what may be published


def test_a_version_takes_effect_as_soon_as_it_may() -> None:
    assert following(make_edited_policy()).effective_from == NOW + MIN_LEAD
    assert following(make_edited_policy(), notice=30 * DAY).effective_from == NOW + 30 * DAY
    assert following(replace(make_edited_policy(), effective_from=NOW + DAY)).effective_from == NOW + DAY


def test_what_is_not_material_needs_no_notice() -> None:
    assert following(variant(warn_at=[80]), notice=30 * DAY).effective_from == NOW + MIN_LEAD
    assert following(replace(make_edited_policy(), material=False), notice=30 * DAY).effective_from == NOW + MIN_LEAD


@pytest.mark.parametrize(
    ("policy", "notice", "why"),
    [
        (variant(version="2026-01"), DAY * 0, "version 2026-01 is published, and a published version is never edited"),
        (POLICY, DAY * 0, "never edited; give the file another version"),
        (replace(make_edited_policy(), effective_from=NOW - DAY), DAY * 0, "lies before the publication"),
        (
            replace(make_edited_policy(), effective_from=NOW + MIN_LEAD / 2),
            DAY * 0,
            "too soon for the engine to know; give 2026",
        ),
        (
            replace(make_edited_policy(), effective_from=NOW + DAY),
            2 * DAY,
            "SLA_POLICY_NOTICE is 2 days, 0:00:00; give 2026",
        ),
    ],
)
def test_what_cannot_be_published_is_refused_with_the_rule(policy: Policy, notice: timedelta, why: str) -> None:
    with pytest.raises(VersionRefusedError, match=why):
        following(policy, notice=notice)


def test_two_versions_do_not_take_effect_at_one_instant() -> None:
    first = following(replace(make_edited_policy(), effective_from=NOW + DAY))
    with pytest.raises(VersionRefusedError, match="version edited takes effect at 2026-11-25T09:00:00Z too"):
        following(replace(variant(), effective_from=NOW + DAY), Versions([*ONE, first]))


def test_what_differs_is_named_as_a_policy_file_says_it() -> None:
    found = [tuple(change) for change in find_changes(POLICY, make_edited_policy())]
    assert ("levels.foundation.targets.critical", "4h", "8h") in found and len(found) == 9
    resolved = POLICY.to_resolved()
    resolved["holidays"] |= {"2026-12-24": "Christmas Eve"}
    objectives = [
        change for change in find_changes(POLICY, with_objectives("resolution")) if ".objectives." in change.what
    ]
    assert ("levels.foundation.objectives.resolution.critical", "-", "16h") in objectives
    (added,) = find_changes(POLICY, Policy.from_resolved(resolved))
    assert added == ("holidays.2026-12-24", "-", "Christmas Eve")


@pytest.mark.parametrize(
    ("said", "material"),
    [
        ({}, False),
        ({"warn_at": [80]}, False),
        ({"priorities": [each | {"description": "x"} for each in POLICY.to_resolved()["priorities"]]}, False),
        ({"holidays": POLICY.to_resolved()["holidays"] | {"2026-12-25": "Juldagen"}}, False),
        ({"holidays": POLICY.to_resolved()["holidays"] | {"2026-12-24": "Julafton"}}, True),
        ({"exclusions": ["basic_training"]}, True),
        ({"objectives": {"first_response": {"pauses": True}}}, True),
        ({"zone": "UTC+01:00"}, True),
    ],
)
def test_a_change_of_what_is_promised_is_material(said: dict[str, Any], material: bool) -> None:
    assert is_material(POLICY, variant(**said)) is material


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2027-01-01", "2027-01-01 00:00"),
        ("2027-07-01", "2027-07-01 00:00"),
        ("2027-01-01T09:00:00+01:00", "2027-01-01 09:00"),
        ("2027-01-01T08:00:00Z", "2027-01-01 09:00"),
    ],
)
def test_a_file_says_when_it_takes_effect(tmp_path: Path, text: str, instant: str) -> None:
    policy = load_policy_file(written(tmp_path, f"effective_from: {text}\nmaterial: true\n"))
    assert (policy.effective_from, policy.material) == (stockholm(instant), True)
    assert policy.fingerprint == load_policy_file(written(tmp_path)).fingerprint, (
        "when it does is no part of what it promises"
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("soon", "write YYYY"),
        ("2027-02-30", "write a day that exists"),
        ("2027-01-01T09:00:00", "write YYYY"),
        ("[]", "write a single value"),
        ("2103-01-01", "dates lie in the years 1999 to 2102"),
        ("9999-12-31T23:59:59-14:00", "dates lie in the years 1999 to 2102"),
        ("0001-01-01T00:00:00+14:00", "dates lie in the years 1999 to 2102"),
    ],
)
def test_an_effective_date_that_is_none_is_refused_with_its_line(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(PolicyError, match=rf"policy\.yaml:1: effective_from.*{rule}"):
        load_policy_file(written(tmp_path, f"effective_from: {text}\n"))


def written(folder: Path, first: str = "", version: str = "2027-01", **replaced: str) -> Path:
    """The shipped policy as another version."""
    text = SHIPPED.read_text(encoding="utf-8").replace('version: "2026-01"', f'version: "{version}"')
    for old, new in replaced.items():
        text = text.replace(old.replace("_", ": ", 1), f"{old.partition('_')[0]}: {new}")
    path = folder / "policy.yaml"
    path.write_text(first + text, encoding="utf-8")
    return path


# ---- the store


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A store with a history of November 2026."""
    found = Log(tmp_path / "sla.db")
    found.live_through(range(30))
    for view in PROJECTIONS:
        catch_up(found.store, view())
    yield found
    found.store.close()


def test_before_the_first_ticket_event_a_version_may_be_replaced(tmp_path: Path) -> None:
    place = new_store(tmp_path / "sla.db")
    place.migrate(())
    with closing(place.open()) as store:
        store.publish_policy(variant(version="2026-01", warn_at=[10]), lambda: NOW)
        store.publish_policy(POLICY, lambda: NOW)
        assert [version.policy.fingerprint for version in store.read_versions()] == [POLICY.fingerprint]


def test_after_it_no_version_is_replaced_and_nothing_is_left_of_a_refused_one(log: Log) -> None:
    edited = variant(version="2026-01")
    log.store.publish_policy(edited, lambda: NOW)
    with pytest.raises(VersionRefusedError, match="never edited"):
        log.store.publish_policy(variant(version="2026-01", warn_at=[10]), lambda: NOW)
    assert [version.policy.fingerprint for version in log.store.read_versions()] == [POLICY.fingerprint]
    assert edited.fingerprint == POLICY.fingerprint
    assert rows(log.database, "SELECT count(*) FROM policies") == [(1,)]


@pytest.mark.parametrize("is_used", [False, True])
def test_the_same_text_under_the_same_version_stays_as_it_was_published_whatever_the_package_knows_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_used: bool
) -> None:
    log = Log(tmp_path / "sla.db")  # with the shipped policy
    if is_used:
        log.take(START, opened("T-1", START))
    (published,) = log.store.read_versions()
    known = policy_file._build_holidays
    monkeypatch.setattr(policy_file, "_build_holidays", lambda *place: {**known(*place), "2027-06-25": "Midsummer Eve"})
    again = load_policy_file(written(tmp_path, "# with a comment\n", "2026-01"))
    assert again.fingerprint != POLICY.fingerprint
    assert log.store.publish_policy(again, lambda: NOW) == published
    assert [version.policy.fingerprint for version in log.store.read_versions()] == [POLICY.fingerprint]
    if is_used:
        with pytest.raises(VersionRefusedError, match="never edited"):
            log.store.publish_policy(
                load_policy_file(written(tmp_path, version="2026-01", minor_24h="25h")), lambda: NOW
            )
    log.store.close()


def test_another_process_sees_what_is_published(log: Log) -> None:
    with closing(log.database.open()) as other:
        before = other.read_versions()
        assert other.read_versions() is before
        log.store.publish_policy(make_edited_policy(), lambda: NOW)
        assert [version.name for version in other.read_versions()] == ["2026-01", "edited"]


# ---- the commands, on a store


def everything(store: Database) -> list[object]:
    return [rows(store, f"SELECT * FROM {table}") for table in sorted(tables(store))]


def on(log: Log, *arguments: str | Path, **settings: str) -> Said:
    return call(*arguments, SLA_DATABASE_URL=log.address, **settings)


def test_a_version_is_published_listed_shown_and_compared(log: Log, tmp_path: Path) -> None:
    file = written(tmp_path, "effective_from: 2090-01-01\n", critical_4h="3h")
    (published,) = [json.loads(on(log, "policy", "publish", file, "-o", "json").out)]
    assert published["version"] == "2027-01" and published["effective_from"] == "2089-12-31T23:00:00Z"
    assert published["material"] is True and published["in_force"] is False
    first, second = json.loads(on(log, "policy", "list", "-o", "json").out)
    assert (first["effective_from"], first["in_force"], second) == (None, True, published)
    listed = on(log, "policy", "list").out
    assert "2026-01 *" in listed and "the beginning" in listed and "Sun 2090-01-01 00:00:00 CET" in listed
    shown = on(log, "policy", "show", "2027-01").out
    assert "levels.foundation.targets.critical    3h" in shown and "2027-01" in shown
    assert json.loads(on(log, "policy", "show", "-o", "json").out) == POLICY.to_resolved()
    said = on(log, "policy", "diff", "2026-01", "2027-01", "-o", "json")
    change = {"what": "levels.foundation.targets.critical", "before": "4h", "after": "3h"}
    assert json.loads(said.out) == {"material": True, "changes": [change]}
    assert on(log, "policy", "diff", "2026-01", file).err == "1 changes, material\n"


def test_what_is_refused_is_no_and_says_the_rule(log: Log, tmp_path: Path) -> None:
    for first, version, settings, why in (
        ("", "2026-01", {}, "version 2026-01 is published, and a published version is never edited"),
        ("effective_from: 2026-01-01\n", "2027-01", {}, "no version takes effect in the past"),
        ("effective_from: 2027-01-01\n", "2027-01", {"SLA_POLICY_NOTICE": "999d"}, "is too soon for a material change"),
        ("effective_from: never\n", "2027-01", {}, ":1: effective_from: 'never' is neither a date nor an instant"),
    ):
        said = on(log, "policy", "publish", written(tmp_path, first, version, critical_4h="3h"), **settings)
        assert (said.code, said.out) == (1, "") and why in said.err, said
    assert [version.name for version in log.store.read_versions()] == ["2026-01"]


def test_what_is_not_there_is_wrong_usage(log: Log) -> None:
    for arguments in (("show", "2031-01"), ("diff", "2026-01", "2031-01"), ("migrate", "--to", "2031-01")):
        said = on(log, "policy", *arguments)
        assert (said.code, said.out) == (2, "") and "the versions are 2026-01" in said.err, said


def test_a_backtest_says_what_would_have_become_of_each_ticket_and_writes_nothing(log: Log, tmp_path: Path) -> None:
    """Every third T-n is critical (2 h), answered after 1.5 h; two of them became minor before. OPEN-… are broken."""
    before = everything(log.database)
    file = written(tmp_path, critical_2h="1h")
    report = json.loads(on(log, "backtest", "--policy", file, "-o", "json").out)
    assert everything(log.database) == before
    assert report["tickets"] == 33 and report["policy_version"] == "2027-01"
    critical, serious, _ = report["rows"]
    assert (critical["before"]["kept"], critical["after"]["kept"]) == (8, 0)
    assert (critical["before"]["share"], critical["after"]["share"]) == (8 / 11, 0)
    assert serious["before"] == serious["after"]
    assert [flip["ticket"] for flip in report["flips"]] == sorted(f"T-{n}" for n in (0, 3, 6, 12, 15, 18, 24, 27))
    assert {(flip["before"], flip["after"]) for flip in report["flips"]} == {("kept", "broken")}
    table = on(log, "backtest", "--policy", file)
    assert table.err == "33 tickets, 8 promises flip\n" and "72.7 %" in table.out


def test_a_backtest_of_a_span_counts_the_tickets_opened_in_it(log: Log, tmp_path: Path) -> None:
    file = written(tmp_path)
    since, until = (str((START + minutes * HOUR / 60).isoformat()) for minutes in (10, 20))
    report = json.loads(on(log, "backtest", "--policy", file, "--from", since, "--to", until, "-o", "json").out)
    assert (report["tickets"], report["flips"]) == (10, [])


def test_what_another_policy_cannot_judge_is_unknown_under_it(log: Log, tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_text(file.read_text().replace("minor", "low"), encoding="utf-8")
    report = json.loads(on(log, "backtest", "--policy", file, "-o", "json").out)
    assert {flip["after"] for flip in report["flips"]} == {"unknown"}
    assert {flip["priority"] for flip in report["flips"]} == {"minor"}


def test_a_ticket_that_was_moved_is_tried_under_the_other_policy_like_any_other(log: Log, tmp_path: Path) -> None:
    """A move within its 1.5 h to a version with doubled targets: 4 h now, 1 h under the file."""
    log.store.publish_policy(replace(make_edited_policy(), effective_from=START + 6 * DAY), lambda: START + 5 * DAY)
    log.take(START + 7 * DAY, fact("policy_changed", "T-0", START + HOUR, policy_version="edited"))
    report = json.loads(on(log, "backtest", "--policy", written(tmp_path, critical_2h="1h"), "-o", "json").out)
    (flip,) = [flip for flip in report["flips"] if flip["ticket"] == "T-0"]
    assert (flip["before"], flip["after"]) == ("kept", "broken")
    assert flip["due_before"] == stamp(START + 4 * HOUR) and flip["due_after"] == stamp(START + HOUR)


def stamp(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def test_a_backtest_agrees_with_what_was_decided(log: Log) -> None:
    """Under the policy that it was judged by, no ticket flips, and what it came to is what the state says."""
    report = json.loads(on(log, "backtest", "--policy", SHIPPED, "-o", "json").out)
    assert report["flips"] == []
    tickets = log.store.load_tickets(ticket for (ticket,) in rows(log.database, "SELECT ticket FROM promises"))
    broken = sum(ticket.state.breached_at is not None for ticket in tickets.values())
    late = [id for id, ticket in tickets.items() if ticket.state.next_at and ticket.state.next_at < now()]
    counted = sum(row["before"]["broken"] for row in report["rows"])
    assert counted == broken + len(late)


def test_a_dry_run_says_what_a_move_would_change_and_changes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "sla.db")
    at = now() - HOUR
    log.take(at, opened("NEW", at, "minor"), opened("BROKEN", at - 9 * DAY, "minor"), fact("escalated", "PENDING", at))
    log.take(at, responded("NOBODY", at), opened("DONE", at, "critical"), responded("DONE", at))
    log.take(now(), ticks=["BROKEN"])
    log.take(now(), opened("DUE", at - 9 * DAY, "minor"))  # and no tick has shown it yet
    file = written(tmp_path, minor_8h="30m")
    log.store.publish_policy(load_policy_file(file), lambda: now() - timedelta(minutes=1))
    before = log.store.read_head()
    said = on(log, "policy", "migrate", "--to", "2027-01", "--dry-run", "-o", "json")
    report = json.loads(said.out)
    assert log.store.read_head() == before and report["dry_run"] is True
    (move,) = report["moves"]
    assert (move["ticket"], move["policy_version"], move["why_not"]) == ("NEW", "2026-01", None)
    table = on(log, "policy", "migrate", "--to", "2027-01", "--dry-run")
    assert table.err.startswith("1 tickets would move, of which ") and "NEW" in table.out
    log.store.close()


def test_a_ticket_that_is_answered_and_not_resolved_moves_too(tmp_path: Path) -> None:
    log = Log(tmp_path / "sla.db")
    versions = list(doubled("resolution"))
    log.store.publish_policy(versions[0].policy, lambda: START)
    at = now() - HOUR / 60
    log.store.publish_policy(replace(versions[1].policy, effective_from=at), lambda: at - DAY)
    opening = fact("opened", "T", at - HOUR / 60, service_level="enterprise", priority="critical")
    log.take(at, opening, responded("T", at - HOUR / 120))
    command = ("policy", "migrate", "--to", "doubled", "--dry-run")
    (move,) = json.loads(on(log, *command, "-o", "json").out)["moves"]
    said = {name: move[name] for name in ("ticket", "objective", "cycle", "policy_version", "breaks", "why_not")}
    assert said == {
        "ticket": "T", "objective": "resolution", "cycle": 1, "policy_version": "objectives", "breaks": False,
        "why_not": None,
    }  # fmt: skip
    assert on(log, *command).err == "1 tickets would move, of which 0 break at once; 0 cannot\n"
    assert "resolution 1" in on(log, *command).out
    log.take(now(), fact("policy_changed", "T", now(), policy_version="doubled"))
    assert json.loads(on(log, *command, "-o", "json").out)["moves"] == []
    log.store.close()


def test_tickets_cannot_move_to_a_version_without_their_names_or_not_in_effect(tmp_path: Path) -> None:
    log = Log(tmp_path / "sla.db")
    at = now()
    log.take(at, opened("NEW", at, "minor"))
    file = written(tmp_path)
    file.write_text(file.read_text().replace("minor", "low"), encoding="utf-8")
    log.store.publish_policy(load_policy_file(file), lambda: at - timedelta(minutes=1))
    log.store.publish_policy(replace(make_edited_policy(), effective_from=at + DAY), lambda: at)
    said = on(log, "policy", "migrate", "--to", "2027-01")
    assert (
        "priority 'minor' is not in policy" in said.out
        and said.err == "0 tickets move, of which 0 break at once; 1 cannot\n"
    )
    said = on(log, "policy", "migrate", "--to", "edited")
    assert said.code == 2 and "version edited takes effect at" in said.err
    log.take(at, fact("policy_changed", "NEW", at, policy_version="2027-01"))
    assert rows(log.database, "SELECT reason FROM inbox ORDER BY sequence DESC LIMIT 1") == [(None,)]
    assert log.store.load_tickets(["NEW"])["NEW"].state.flags == ("not_in_version",)
    log.store.close()


# ---- a running engine


@pytest.mark.parts
@pytest.mark.on_file
def test_a_running_engine_takes_over_what_is_published_and_moves_tickets(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        where = ("--data", engine.data)
        opened_at = ("--level", "enterprise", "--priority", "minor")
        assert sla("publish", "opened", "BEFORE", *opened_at, *where).code == 0
        shown(engine.data, "BEFORE", stage="running")
        assert sla("policy", "publish", written(tmp_path, minor_8h="20h"), *where).code == 0
        give_up = time.monotonic() + 20
        while not json.loads(sla("policy", "list", "-o", "json", *where).out)[1]["in_force"]:
            assert time.monotonic() < give_up
        assert sla("publish", "opened", "AFTER", *opened_at, *where).code == 0
        assert shown(engine.data, "AFTER", stage="running")["target_seconds"] == 20 * 3600
        said = sla("policy", "migrate", "--to", "2027-01", *where)
        assert said.err == "1 tickets move, of which 0 break at once; 0 cannot\n"
        moved = shown(engine.data, "BEFORE", policy_version="2027-01")
        assert (moved["target_seconds"], moved["facts"]) == (20 * 3600, 2)
        again = sla("policy", "migrate", "--to", "2027-01", *where)
        assert again.err.startswith("0 tickets move")
        ((caused,),) = rows(engine.store, "SELECT state FROM stored_events WHERE topic = 'target_changed/1'")
        assert json.loads(caused)["cause"] == "policy_changed"


def shown(data: Path, ticket: str, **wanted: object) -> dict[str, Any]:
    """What `sla show` says, as soon as it says that."""
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        said = sla("show", ticket, "-o", "json", "--data", data)
        found: dict[str, Any] = json.loads(said.out) if said.code == 0 else {}
        if wanted.items() <= found.items():
            return found
    raise AssertionError(f"{ticket} is {found}")


@pytest.mark.parts
@pytest.mark.on_file
def test_a_file_of_another_policy_is_not_published_at_a_start(tmp_path: Path) -> None:
    """Whoever publishes by command need not name a folder; the shipped policy is in the default one."""
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "policy.yaml").write_bytes(ALWAYS_OPEN.read_bytes())
    names = ("--level", "carrier", "--priority", "p1")
    with up(tmp_path, SLA_POLICY_DIR=str(folder)) as engine:
        (first,) = json.loads(sla("policy", "list", "-o", "json", "--data", engine.data).out)
        assert sla("publish", "opened", "T-1", "--level", "gold", "--priority", "p1", "--data", engine.data).code == 2
        assert sla("publish", "opened", "T-1", *names, "--data", engine.data).code == 0
        shown(engine.data, "T-1", stage="running")
    with up(tmp_path) as engine:
        assert json.loads(sla("policy", "list", "-o", "json", "--data", engine.data).out) == [first]
        assert sla("publish", "opened", "T-2", *names, "--data", engine.data).code == 0
        assert shown(engine.data, "T-2", stage="running")["policy_version"] == "2027-01"


NEWER_HOLIDAYS = """
from holidays.countries.sweden import Sweden
populate = Sweden._populate_public_holidays
def populate_more(self):
    populate(self)
    self._add_holiday_jun_25("Midsummer Eve") if self._year == 2027 else None
Sweden._populate_public_holidays = populate_more
"""
"""A package `holidays` that knows a day more, in whatever process Python starts with this module."""


def read_drift(engine: Up) -> float:
    (found,) = (it.value for it in asyncio.run(samples(engine.http_url)) if it.name == "sla_policy_drift")
    return found


@pytest.mark.parts
@pytest.mark.on_file
def test_an_engine_goes_on_with_what_is_published_when_the_package_knows_more_days(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NEWER_HOLIDAYS, encoding="utf-8")
    with up(tmp_path) as engine:
        before = sla("policy", "show", "-o", "json", "--data", engine.data).out
        assert read_drift(engine) == 0
    with up(tmp_path, PYTHONPATH=str(tmp_path)) as engine:
        assert sla("policy", "show", "-o", "json", "--data", engine.data).out == before
        assert read_drift(engine) == 1
        log = engine.process.log
    assert log.count("policy drifted") == 1 and re.search(r"changes\W+1\b", log), log


@pytest.mark.parts
@pytest.mark.on_file
def test_an_engine_does_not_start_on_an_edited_version(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    file = written(folder, version="2026-01")
    with up(tmp_path, SLA_POLICY_DIR=str(folder)) as engine:
        assert (
            sla("publish", "opened", "T-1", "--level", "enterprise", "--priority", "minor", "--data", engine.data).code
            == 0
        )
        shown(engine.data, "T-1", stage="running")
        data = engine.data
    file.write_text(file.read_text(encoding="utf-8").replace("minor: 8h", "minor: 9h"), encoding="utf-8")
    said = sla("up", "--data", data, SLA_POLICY_DIR=str(folder), SLA_NATS_PORT="0", SLA_HTTP_PORT="0")
    assert said.code == 1 and "version 2026-01 is published, and a published version is never edited" in said.err
