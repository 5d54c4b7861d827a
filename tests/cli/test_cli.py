"""The command line: exit codes, what goes to stdout and what to stderr, against a real engine where one is needed."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import nats
import pytest
import typer

from projections.registry import PROJECTIONS
from services.app import SERVICES
from services.cli import main as cli
from services.runtime import connections
from tests.support.commands import Engine, Said, running, sla

POLICY = Path(__file__).parents[2] / "sla" / "policies" / "cention-support.yaml"
CORNER_SHOP = Path(__file__).parents[2] / "docs" / "policies" / "corner-shop.yaml"

KEYS = [
    "ticket_id", "service_level", "priority", "stage", "breached", "breached_at", "breaches", "started_at", "due_at",
    "target_seconds", "elapsed_seconds", "responded_at", "met", "overdue_seconds", "escalation_level",
    "policy_version", "facts", "objective", "cycle", "fulfilled_at", "kept", "customer", "title", "url", "team",
    "assignee", "reason", "flags",
    "quarantined_at",
]  # fmt: skip
TICKET_KEYS = [*(key for key in KEYS if key not in ("objective", "cycle")), "promises"]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Said]]:
    """The same command in this process, in an empty folder: for many questions, since it need not load each time."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLA_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["sla", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Said(code or 0, *capfd.readouterr())

    yield run


# --- wrong usage: 2, nothing on stdout, and stderr says what is right

LEVELS, PRIORITIES = "foundation, professional, enterprise", "critical, serious, minor"
AT = ("--at", "2026-12-30T15:45:10+01:00")

WRONG: list[tuple[tuple[str, ...], str]] = [
    (("due", "--level", "gold", "--priority", "minor", *AT),             LEVELS),
    (("due", "--level", "foundation", "--priority", "urgent", *AT),      PRIORITIES),
    (("due", "--level", "foundation", "--priority", "Minor", *AT),       PRIORITIES),
    (("due", "--level", "foundation", "--priority", "minor", "--at", "2026-12-30T15:45:10"), "has no offset"),
    (("due", "--level", "foundation", "--priority", "minor", "--at", "2026-12-30"),          "has no offset"),
    (("due", "--level", "foundation", "--priority", "minor", "--at", "tomorrow"),            "is not a time"),
    (("due", "--level", "foundation", "--priority", "minor", "--at", "1999-12-31T00:00Z"),   "years 2000 to 2100"),
    (("due", "--level", "foundation", "--priority", "minor", "--at", "0001-01-01T00:00+01:00"), "years 2000 to 2100"),
    (("due", "--level", "foundation"),                                   "--priority"),
    (("due", "--batch", "--level", "foundation"),                        "leave out --level"),
    (("due", "-o", "xml"),                                               "'table', 'json'"),
    (("elapsed",),                                                       "--batch"),
    (("run", "intake", "reports"),                                       "intake, clock, announcer, metrics"),
    (("run", "intake"),                                                  "SLA_NATS_URL is not set"),
    (("rebuild", "reports"),                                             "deadlines, promises, compliance, arrivals"),
    (("watch", "--only", "broken"),                                      "breached, overdue, breach_retracted"),
    (("list", "--limit", "0"),                                           "--limit"),
    (("publish", "answered", "T-1"),                                     "opened, priority_changed, responded"),
    (("publish", "opened", "T-1", "--level", "foundation"),              "opened needs --priority"),
    (("publish", "opened", "T-1", "--level", "gold", "--priority", "minor"),       LEVELS),
    (("publish", "priority_changed", "T-1", "--priority", "urgent"),     PRIORITIES),
    (("publish", "excluded", "T-1", "--reason", "too busy"),             "terms_violation, unauthorized_modification"),
    (("publish", "exclusion_revoked", "T-1", "--reason", "too busy"),    "'too busy' is not in policy"),
    (("publish", "excluded", "T-1"),                                     "excluded needs --reason"),
    (("publish", "fact_withdrawn", "T-1"),                               "fact_withdrawn needs --withdraws"),
    (("publish", "responded", "T-1", "--level", "foundation"),           "it takes --by, --channel"),
    (("publish", "responded", "T-1", "--by", "robot"),                   "'agent' or 'automation'"),
    (("publish", "responded", "T-1", "--at", "2026-12-30T15:45:10"),     "has no offset"),
    (("publish", "responded", "T-1", "--at", "2099-12-30T15:45:10Z"),    "SLA_MAX_AHEAD"),
    (("publish", "responded", "T-1", "--id", ""),                        "non-empty"),
    (("publish", "responded", " T-1"),                                   "no space at its ends"),
    (("publish", "responded", "\udcff"),                                 "UTF-8"),
    (("dead", "replay"),                                                 "--source, or --all"),
    (("dead", "replay", "1", "--all"),                                   "--source, or --all"),
    (("dead", "replay", "--reason", "bad"),                              "too_large, malformed"),
    (("policy", "check"),                                                "Missing argument"),
    (("reports",),                                                       "No such command"),
    (("report",),                                                        "--period"),
    (("explain", "T-1", "--as-of", "yesterday"),                         "is not a time"),
    (("list", "--as-of", "2026-12-30T15:45:10"),                         "has no offset"),
    (("show", "T-1", "--known-at", "2099-01-01T00:00Z"),                 "--known-at is at most now"),
    (("report", "--period", "all", "--known-at", "1999-01-01T00:00Z"),   "years 2000 to 2100"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "right"), WRONG, ids=[ascii(" ".join(arguments)) for arguments, _ in WRONG])
def test_wrong_usage_is_2_and_says_what_is_right(
    call: Callable[..., Said], arguments: tuple[str, ...], right: str
) -> None:
    said = call(*arguments)
    assert (said.code, said.out) == (2, "")
    assert right in said.err


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("SLA_NATS_PORT", "many", "SLA_NATS_PORT: "),
        ("SLA_HISTORIC_AFTER", "soon", "SLA_HISTORIC_AFTER: "),
        ("SLA_DATABASE_URL", "mysql://sla:secret@db/sla", "SLA_DATABASE_URL: 'db/sla' is not a store"),
        ("SLA_DATABASE_URL_FILE", "/nowhere/secret", "SLA_DATABASE_URL_FILE: /nowhere/secret: No such file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_wrong_usage(
    call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    monkeypatch.setenv(name, value)
    said = call("list")
    assert (said.code, said.out) == (2, "")
    assert right in said.err


def test_a_setting_is_read_from_the_file_that_is_named(
    call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("sqlite:///elsewhere.db\n")
    monkeypatch.setenv("SLA_DATABASE_URL_FILE", "secret")
    assert "elsewhere.db does not exist" in call("list").err


# --- no: 1, and why


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("show", "T-1"), "there is no store in .sla"),
        (("list",), "there is no store in .sla"),
        (("rebuild",), "there is no store in .sla"),
        (("watch",), "no engine runs in .sla"),
        (("publish", "responded", "T-1"), "no engine runs in .sla"),
        (("dead", "list"), "no engine runs in .sla"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_without_an_engine_the_answer_is_no(call: Callable[..., Said], arguments: tuple[str, ...], why: str) -> None:
    said = call(*arguments)
    assert (said.code, said.out) == (1, "")
    assert why in said.err and "start `sla up`" in said.err


@pytest.mark.parametrize("command", [("publish", "responded", "T-1"), ("watch",), ("dead", "list")])
def test_a_bus_that_does_not_answer_is_given_up(
    call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SLA_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT", 0.2)
    started = time.monotonic()
    said = call(*command)
    assert time.monotonic() - started < 3
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("sla: no bus at nats://127.0.0.1:1 within 0.2 s: ") and said.err.count("\n") == 1


def test_the_list_of_commands_shows_what_the_help_of_each_begins_with() -> None:
    group: Any = typer.main.get_command(cli.app)
    loaded = {name: command.load() for name, command in group.commands.items()}
    widths = (30, 50, 64)  # the last is that of `sla --help` on a wide terminal
    listed = {name: [command.get_short_help_str(width) for width in widths] for name, command in group.commands.items()}
    assert listed == {name: [command.get_short_help_str(width) for width in widths] for name, command in loaded.items()}


def test_every_command_of_a_module_is_listed() -> None:
    for module, commands in cli.COMMANDS.items():
        group: Any = typer.main.get_group(import_module(f"services.cli.{module}").app)
        assert set(commands) == set(group.commands), module


def test_help_names_all_services_and_views(call: Callable[..., Said]) -> None:
    assert f"Of {', '.join(SERVICES)}." in " ".join(call("run", "--help").out.split())
    assert f"Of {', '.join(view.name for view in PROJECTIONS)}." in " ".join(call("rebuild", "--help").out.split())


def test_the_version_is_said(call: Callable[..., Said]) -> None:
    assert call("--version").out.startswith("sla 0.")


# --- the calculator


def test_due_is_said_in_utc_and_in_the_time_of_the_policy() -> None:
    said = sla("due", "--level", "foundation", "--priority", "serious", *AT)
    assert said == (0, "2026-12-31T13:45:10Z  Thu 2026-12-31 14:45:10 CET\n", "")


def test_due_as_json(call: Callable[..., Said]) -> None:
    said = call("due", "--level", "foundation", "--priority", "serious", *AT, "-o", "json")
    assert json.loads(said.out) == {
        "service_level": "foundation",
        "priority": "serious",
        "opened_at": "2026-12-30T14:45:10Z",
        "due_at": "2026-12-31T13:45:10Z",
        "due_at_local": "2026-12-31T14:45:10+01:00",
    }


def test_a_batch_of_due_keeps_order_and_fields_and_answers_every_line() -> None:
    good = {"x": [1.5, "å"], "priority": "minor", "service_level": "professional", "due_at": None}
    lines = [
        json.dumps(good | {"opened_at": "2025-11-03T03:30:49.125381+01:00"}),
        "",
        "nonsense",
        "[1]",
        json.dumps(good | {"opened_at": "2025-11-03T03:30:49"}),
        json.dumps({"service_level": "gold", "priority": "minor", "opened_at": "2025-11-03T03:30:49Z"}),
        json.dumps({"service_level": ["gold"], "opened_at": 3}),
        json.dumps(good | {"opened_at": "2026-06-19T08:30:00Z"}),  # without a line end
    ]
    said = sla("due", "--batch", input="\n".join(lines))
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 1 and said.err == "sla: 6 of 8 lines have an error\n"
    assert list(answers[0].items()) == [
        ("x", [1.5, "å"]),
        ("priority", "minor"),
        ("service_level", "professional"),
        ("due_at", "2025-11-03T19:00:00Z"),
        ("opened_at", "2025-11-03T03:30:49.125381+01:00"),
    ]
    assert ["error" in answer for answer in answers] == [False, True, True, True, True, True, True, False]
    assert "has no offset" in answers[4]["error"] and answers[4]["opened_at"] == "2025-11-03T03:30:49"
    assert LEVELS in answers[5]["error"]
    assert answers[7]["due_at"] == "2026-06-22T06:30:00Z"


def test_elapsed_keeps_microseconds_and_writes_whole_seconds_without_a_fraction() -> None:
    ask = {
        "service_level": "foundation",
        "from": "2026-11-20T17:59:59.5+01:00",
        "to": "2026-11-23T09:00:01.000001+01:00",
    }
    whole = {"service_level": "foundation", "from": "2026-11-20T16:00:00Z", "to": "2026-11-20T16:00:10Z"}
    said = sla("elapsed", "--batch", input=f"{json.dumps(ask)}\n{json.dumps(whole)}\n")
    assert [json.loads(line) for line in said.out.splitlines()] == [
        ask | {"support_seconds": 1.500001},
        whole | {"support_seconds": 10},
    ]
    assert said.out.endswith('"support_seconds":10}\n') and (said.code, said.err) == (0, "")


def test_a_batch_answers_each_line_as_it_comes() -> None:
    with running("elapsed", "--batch") as (process, stdin, stdout, _):
        for to, expected in (("16:00:07Z", 7), ("16:00:08Z", 8)):
            ask = {"service_level": "enterprise", "from": "2026-11-20T16:00:00Z", "to": f"2026-11-20T{to}"}
            stdin.write(json.dumps(ask).encode() + b"\n")
            stdin.flush()
            assert json.loads(stdout.readline())["support_seconds"] == expected
        stdin.close()
        assert process.wait(10) == 0


def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    line = json.dumps({"service_level": "foundation", "priority": "minor", "opened_at": "2026-06-19T08:30:00Z"})
    with running("due", "--batch") as (process, stdin, stdout, stderr):
        stdout.close()
        with suppress(BrokenPipeError):
            stdin.write(f"{line}\n".encode() * 20_000)
            stdin.close()
        assert stderr.read() == b""
        assert process.wait(10) == 1


# --- policies


def test_a_good_policy_is_fine(call: Callable[..., Said]) -> None:
    said = call("policy", "check", POLICY)
    assert (said.code, said.err) == (0, "") and said.out.startswith(f"{POLICY}: fine: cention-support 2026-01")
    assert "warning" not in said.out and re.search(r"foundation +foundation +Europe/Stockholm +45 h", said.out)
    assert said.out.count("closed") == 26 and re.search(r"Christmas Day +closed +all", said.out)


def test_what_a_policy_means_is_said_to_programs_too(call: Callable[..., Said]) -> None:
    said = json.loads(call("policy", "check", CORNER_SHOP, "-o", "json").out)
    (shop,) = said["calendars"]
    assert [each["hours"] for each in shop["week_hours"]] == [41.5, 17.5, 41.5] and said["warnings"] == []
    assert {"date": "2027-12-24", "name": "Christmas Eve", "hours": "09:00-12:00"} in shop["days"]


def test_warnings_come_after_the_verdict_and_none_of_a_library_is_seen(
    call: Callable[..., Said], tmp_path: Path
) -> None:
    file = tmp_path / "pune.yaml"
    file.write_text(POLICY.read_text().replace("country: SE", "country: IN").replace("include_sundays: false", ""))
    said = call("policy", "check", file)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1].startswith(f"warning: {file}:14: holidays: IN as a whole lacks")
    assert "holidays: IN: not known after 2035: " in said.out


def test_a_policy_file_is_shown_and_compared_without_a_store(call: Callable[..., Said], tmp_path: Path) -> None:
    nowhere = ("--data", tmp_path / "nothing")
    shown = call("policy", "show", CORNER_SHOP, *nowhere)
    assert shown.code == 0 and "levels.customer.targets.question" in shown.out
    assert call("policy", "diff", CORNER_SHOP, CORNER_SHOP, *nowhere).err == "0 changes, none of them material\n"
    assert call("policy", "show", *nowhere).code != 0


def test_a_bad_policy_is_refused_with_file_line_and_rule(call: Callable[..., Said], tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(POLICY.read_text().replace("zone: Europe/Stockholm", "zone: Europe/Gothenburg"))
    line = bad.read_text().splitlines().index("zone: Europe/Gothenburg") + 1
    said = call("policy", "check", bad)
    assert said.code == 1 and said.out.startswith(f"{bad}:{line}: ") and "Europe/Gothenburg" in said.out
    assert call("policy", "check", "missing.yaml").code == 1


# --- with an engine

on_engine = pytest.mark.xdist_group("engine")


@pytest.fixture
def on(call: Callable[..., Said], engine: Engine) -> Callable[..., Said]:
    """A command on the engine that runs."""
    return lambda *arguments: call(*arguments, "--data", engine.data)


def report(on: Callable[..., Said], ticket: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """`sla show` until it says what is waited for."""
    give_up = time.monotonic() + 10
    while True:
        said = on("show", ticket, "-o", "json")
        if said.code == 0 and until(found := json.loads(said.out)):
            return dict(found)
        assert time.monotonic() < give_up, said
        time.sleep(0.05)


def opened(on: Callable[..., Said], ticket: str, *more: str) -> Said:
    return on("publish", "opened", ticket, "--level", "foundation", "--priority", "critical", *more)


@on_engine
def test_what_is_published_is_shown(engine: Engine) -> None:
    where = ("--data", engine.data)
    levels = ("--level", "foundation", "--priority", "critical")
    said = sla("publish", "opened", "C-1", *levels, "--at", "2026-11-20T16:00+00:00", "--id", "c1", *where)
    assert said.code == 0 and said.out.startswith("stored as ") and said.err == ""
    said = sla("publish", "responded", "C-1", "--at", "2026-11-20T16:30:00.5Z", "-o", "json", *where)
    assert json.loads(said.out).keys() >= {"sequence", "id", "subject"} and (said.code, said.err) == (0, "")
    found = report(lambda *arguments: sla(*arguments, *where), "C-1", lambda found: found["stage"] == "fulfilled")
    assert list(found) == TICKET_KEYS
    (promise,) = found.pop("promises")
    assert list(promise) == KEYS
    assert promise == found | {"objective": "first_response", "cycle": 1}
    assert found == {
        "ticket_id": "C-1",
        "service_level": "foundation",
        "priority": "critical",
        "stage": "fulfilled",
        "breached": False,
        "breached_at": None,
        "breaches": 0,
        "started_at": "2026-11-20T16:00:00Z",
        "due_at": "2026-11-23T11:00:00Z",
        "target_seconds": 14400,
        "elapsed_seconds": 1800.5,
        "responded_at": "2026-11-20T16:30:00.500000Z",
        "met": True,
        "overdue_seconds": 0,
        "escalation_level": 0,
        "policy_version": "2026-01",
        "facts": 2,
        "fulfilled_at": "2026-11-20T16:30:00.500000Z",
        "kept": True,
        "customer": None,
        "title": None,
        "url": None,
        "team": None,
        "assignee": None,
        "reason": None,
        "flags": [],
        "quarantined_at": None,
    }


@on_engine
def test_show_for_people_says_the_wall_time_of_the_policy(on: Callable[..., Said]) -> None:
    opened(on, "C-2 [red]", "--at", "2024-11-20T16:00Z")
    report(on, "C-2 [red]", lambda found: found["breached"])
    said = on("show", "C-2 [red]").out
    assert "C-2 [red]" in said and "Thu 2024-11-21 12:00:00 CET" in said and "breached" in said


@on_engine
def test_an_unknown_ticket_is_no(on: Callable[..., Said]) -> None:
    said = on("show", "C-nobody")
    assert (said.code, said.out) == (1, "") and "'C-nobody'" in said.err


@on_engine
def test_a_running_ticket_has_used_time_until_now_and_a_breached_one_stays_open(on: Callable[..., Said]) -> None:
    on("publish", "opened", "C-3", "--level", "enterprise", "--priority", "minor", "--at", "2020-01-07T11:00Z")
    found = report(on, "C-3", lambda found: found["breached"])
    assert (found["stage"], found["breaches"], found["breached_at"]) == ("running", 1, "2020-01-07T19:00:00Z")
    assert found["elapsed_seconds"] > 300 * 86_400 * 5 and found["met"] is None and found["overdue_seconds"] is None


@on_engine
def test_the_list_has_the_open_ones_by_time_left_and_pending_ones_last(on: Callable[..., Said]) -> None:
    on("publish", "escalated", "C-pending")
    opened(on, "C-late", "--at", "2021-11-20T16:00Z")
    opened(on, "C-later", "--at", "2022-11-20T16:00Z")
    opened(on, "C-now")
    opened(on, "C-answered")
    on("publish", "responded", "C-answered")
    report(on, "C-answered", lambda found: found["stage"] == "fulfilled")
    rows = json.loads(on("list", "-o", "json").out)
    ours = ["C-late", "C-later", "C-now", "C-pending"]
    assert [row["ticket_id"] for row in rows if row["ticket_id"] in [*ours, "C-answered"]] == ours
    assert all(list(row) == KEYS for row in rows)
    pending = next(row for row in rows if row["ticket_id"] == "C-pending")
    known = {
        "ticket_id": "C-pending",
        "stage": "pending",
        "breached": False,
        "breaches": 0,
        "escalation_level": 0,
        "facts": 1,
        "objective": "first_response",
        "cycle": 1,
        "flags": [],
    }
    assert pending == dict.fromkeys(KEYS) | known
    assert len(json.loads(on("list", "-o", "json", "--limit", "1").out)) == 1


@on_engine
def test_the_list_is_up_to_date_though_nobody_follows_the_log(
    on: Callable[..., Said], engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened(on, "C-behind", "--at", "2026-11-20T16:00Z")
    report(on, "C-behind", lambda found: found["stage"] == "running")
    with closing(sqlite3.connect(engine.data / "sla.db")) as live, closing(sqlite3.connect("copy.db")) as copy:
        live.backup(copy)
        copy.execute("DELETE FROM promises")
        copy.execute("UPDATE positions SET position = 0 WHERE name = 'promises'")
        copy.commit()
    monkeypatch.setenv("SLA_DATABASE_URL", "sqlite:///copy.db")
    assert '"C-behind"' in on("list", "-o", "json").out


@on_engine
def test_a_list_that_is_piped_is_neither_coloured_nor_cut(on: Callable[..., Said], engine: Engine) -> None:
    ticket = "C-" + "long" * 30
    opened(on, ticket)
    report(on, ticket, lambda found: found["stage"] == "running")
    said = sla("list", "--data", engine.data, FORCE_COLOR="1", COLUMNS="40").out
    assert ticket in said and "\x1b" not in said
    assert said.splitlines()[0].split() == ["ticket", "objective", "state", "level", "priority", "due", "left"]


@on_engine
def test_the_same_id_twice_reaches_the_engine_twice(on: Callable[..., Said]) -> None:
    at = ("--at", "2026-11-20T16:00Z", "--id", "twice", "-o", "json")
    first, second = (json.loads(opened(on, "C-4", *at).out)["sequence"] for _ in range(2))
    assert second > first
    on("publish", "escalated", "C-4", "--id", "after")
    assert report(on, "C-4", lambda found: found["escalation_level"] == 1)["facts"] == 2


@on_engine
def test_watch_shows_breaches_as_they_come_and_ends_with_0(on: Callable[..., Said], engine: Engine) -> None:
    with running("watch", "--only", "breached", "-o", "json", "--data", engine.data) as (process, _, stdout, stderr):
        assert stderr.readline().startswith(b"following SLA ")
        opened(on, "C-5", "--at", "2023-11-20T16:00Z")  # a historic one; the other subject
        event = json.loads(stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert stdout.read() == stderr.read() == b""
    assert (event["type"], event["subject"], event["specversion"]) == ("sla.breached", "C-5", "1.0")
    assert datetime.fromisoformat(event["time"]).tzinfo is not None


@on_engine
def test_watch_tells_people_and_needs_no_reader(on: Callable[..., Said], engine: Engine) -> None:
    opened(on, "C-6", "--at", "2023-11-20T16:00Z")
    report(on, "C-6", lambda found: found["breached"])
    with running("watch", "--all", "--data", engine.data) as (process, _, stdout, stderr):
        lines = iter(stdout.readline, b"")
        line = next(line.decode() for line in lines if b"C-6" in line and b"breached" in line)
        assert line.rstrip().endswith("foundation critical  severity critical, historic")
        stdout.close()
        opened(on, "C-7")  # something to write to nobody
        assert process.wait(10) == 1
        assert stderr.read().count(b"\n") == 1


@on_engine
def test_a_rebuild_is_quiet_and_changes_no_answer(on: Callable[..., Said]) -> None:
    opened(on, "C-8", "--at", "2026-11-20T16:00Z")
    report(on, "C-8", lambda found: found["facts"] == 1)
    before = [row["ticket_id"] for row in json.loads(on("list", "-o", "json").out)]
    assert on("rebuild") == (0, "", "")
    assert on("rebuild", "promises") == (0, "", "")
    assert [row["ticket_id"] for row in json.loads(on("list", "-o", "json").out)] == before


# --- dead letters


def publish_raw(url: str, subject: str, body: bytes, headers: dict[str, str]) -> int:
    async def publish() -> int:
        nc = await nats.connect(url)
        stored = await nc.jetstream().publish(subject, body, headers=headers)
        await nc.close()
        return stored.seq

    return asyncio.run(publish())


def dead(on: Callable[..., Said], sequence: int) -> dict[str, Any]:
    give_up = time.monotonic() + 10
    while True:
        listed = json.loads(on("dead", "list", "-o", "json").out)
        if found := [letter for letter in listed if letter["sequence"] == sequence]:
            return dict(found[0])
        assert time.monotonic() < give_up, listed
        time.sleep(0.05)


@on_engine
def test_a_dead_letter_is_listed_shown_and_sent_again_as_it_was(on: Callable[..., Said], engine: Engine) -> None:
    body = json.dumps(
        {"specversion": "1.0", "type": "ticket.opened", "source": "/crm", "id": "d1", "subject": "D-1",
         "time": "2026-11-20T16:00:00Z", "data": {"service_level": "gold", "priority": "critical"}}
    ).encode()  # fmt: skip
    sequence = publish_raw(engine.nats_url, "tickets.opened.D-1", body, {"X-Trace": "abc", "Nats-Msg-Id": "m1"})
    letter = dead(on, sequence)
    assert letter["reason"] == "unknown_service_level" and LEVELS in letter["error"]
    assert (letter["subject"], letter["source"]) == ("tickets.opened.D-1", "/crm")
    assert letter["time"] == "2026-11-20T16:00:00Z"
    shown = json.loads(on("dead", "show", str(sequence), "-o", "json").out)
    assert shown["body"] == body.decode()
    assert shown["headers"] == {"X-Trace": "abc", "Sla-Original-Nats-Msg-Id": "m1"}

    again = json.loads(on("dead", "replay", str(sequence), "-o", "json").out)
    assert [each["sequence"] for each in again] == [sequence]
    second = again[0]["stored_as"]
    assert dead(on, second)["id"] == "d1"
    headers = json.loads(on("dead", "show", str(second), "-o", "json").out)["headers"]
    assert headers["X-Trace"] == "abc" and "Sla-Original-Nats-Msg-Id" not in headers
    assert message(engine.nats_url, second) == ("tickets.opened.D-1", body)

    by_reason = json.loads(
        on("dead", "replay", "--reason", "unknown_service_level", "--source", "/crm", "-o", "json").out
    )
    assert [each["sequence"] for each in by_reason] == [second]  # the first is gone
    dead(on, by_reason[0]["stored_as"])


def message(url: str, sequence: int) -> tuple[str | None, bytes | None]:
    async def get() -> tuple[str | None, bytes | None]:
        nc = await nats.connect(url)
        found = await nc.jetstream().get_msg("TICKETS", sequence)
        await nc.close()
        return found.subject, found.data

    return asyncio.run(get())


@on_engine
def test_a_dead_letter_cannot_command_the_terminal(on: Callable[..., Said], engine: Engine) -> None:
    sequence = publish_raw(engine.nats_url, "tickets.opened.D-2", b"\xff\x1b[31mred", {})
    letter = dead(on, sequence)
    assert letter["reason"] == "malformed" and letter["source"] is None and letter["time"] is None
    assert r"\xff\x1b[31mred" in on("dead", "show", str(sequence)).out
    assert json.loads(on("dead", "show", str(sequence), "-o", "json").out)["body_base64"] == "/xtbMzFtcmVk"
    assert f"{sequence} " in on("dead", "list").out


@on_engine
def test_what_is_no_dead_letter_is_neither_shown_nor_sent(on: Callable[..., Said], engine: Engine) -> None:
    sequence = publish_raw(engine.nats_url, "tickets.opened.D-3", b"nonsense", {})
    dead(on, sequence)
    for command in ("show", "replay", "discard"):
        said = on("dead", command, "999999")
        assert (said.code, said.out) == (1, "") and "999999: no such dead letter" in said.err
    said = on("dead", "replay", str(sequence), "999999")
    assert (said.code, said.out) == (1, "")
