"""The command line `sla`: data on stdout, messages on stderr; 0 is yes, 1 is no, 2 is wrong usage."""

# What a command needs is imported inside it: `sla due` answers in half a second, the engine alone takes longer to load.

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import uuid4

import typer

if TYPE_CHECKING:
    from nats.aio.client import Client

    from services.maintenance.dead_letters import DeadLetterChoice
    from services.queries.point_in_time import PointInTime
    from services.runtime.settings import Settings
    from services.store.interface import Database, Store
    from sla.policy import Policy
    from sla.versions import Versions

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
policy_app = typer.Typer(no_args_is_help=True, help="Support policies.")
dead_app = typer.Typer(no_args_is_help=True, help="Messages that could not count, with the reason.")
app.add_typer(policy_app, name="policy")
app.add_typer(dead_app, name="dead")


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


class Sheet(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


Data = Annotated[Path, typer.Option("--data", help="The folder of `sla up`.")]
AsOf = Annotated[str | None, typer.Option(help="What was so at that time, by what is known: with offset.")]
KnownAt = Annotated[str | None, typer.Option(help="What was known at that time: only what was recorded by then.")]
As = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]
DEFAULT_DATA = Path(".sla")


class UsageError(Exception):
    """The command was called wrongly; the text says what is right."""


class CommandFailedError(Exception):
    """The answer is no; the text says why."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sla {version('sla-engine')}")
        raise typer.Exit


@app.callback()
def sla(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Promises of first responses, kept as events: what was promised, what is due, and what broke."""


# ---- the engine


@app.command("up")
def up_command(
    data: Data = DEFAULT_DATA,
    demo: Annotated[bool, typer.Option("--demo", help="Feed a bundled day of ticket events.")] = False,
) -> None:
    """Run everything in one process: embedded nats-server, SQLite, all services."""
    from services.runtime.logging import configure
    from services.up import run_engine

    settings = read_settings()
    if settings.database_url is not None:
        require_database(settings)
    configure(settings)
    raise typer.Exit(asyncio.run(run_engine(settings, data, demo)))


@app.command()
def migrate() -> None:
    """Create the database schema, the streams and what else the services need; safe to repeat."""
    from projections.registry import PROJECTIONS
    from services.maintenance.provision import provision_bus
    from services.runtime.connections import read_credentials
    from services.runtime.logging import configure

    settings = read_settings()
    bus, store = require_bus_url(settings), require_database(settings)
    with refuse_wrong_usage():
        who = read_credentials(settings)
    configure(settings)
    store.migrate(PROJECTIONS)
    asyncio.run(provision_bus(bus, who, settings.partitions, store.create_leases(), settings.notify))


@app.command()
def run(
    services: Annotated[list[str], typer.Argument(help="Of intake, clock, announcer, metrics, notifier, board.")],
) -> None:
    """Run one or more services against SLA_NATS_URL and SLA_DATABASE_URL."""
    from services.app import SERVICES, Process
    from services.runtime.connections import read_credentials
    from services.runtime.logging import configure

    if unknown := [name for name in services if name not in SERVICES]:
        raise UsageError(f"{', '.join(unknown)}: no such service; the services are {', '.join(SERVICES)}")
    settings = read_settings()
    if "notifier" in services and not settings.notifies:
        raise UsageError("notifier has nobody to tell; set SLA_ALERTMANAGER_URL, or SLA_NOTIFY_FILE")
    bus = require_bus_url(settings)
    store = require_database(settings) if any(SERVICES[name].needs_store for name in services) else None
    with refuse_wrong_usage():
        who = read_credentials(settings)
    configure(settings)
    process = Process(list(dict.fromkeys(services)), settings, bus, store, who)
    raise typer.Exit(asyncio.run(process.run(lambda: print_message(f"ready: {process.http.url}"))))


@app.command()
def rebuild(
    views: Annotated[list[str] | None, typer.Argument(help="Of deadlines, tickets, compliance, arrivals.")] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Build views again from the whole log, all of them if none is named; the engine may run meanwhile."""
    from projections.registry import PROJECTIONS
    from projections.runner import rebuild as build
    from services.cli.terminal import show_progress
    from services.runtime import connections as client

    known = {view.name: view for view in PROJECTIONS}
    if unknown := [name for name in views or [] if name not in known]:
        raise UsageError(f"{', '.join(unknown)}: no such view; the views are {', '.join(known)}")
    settings = read_settings()
    with refuse_wrong_usage():
        where = client.find_store(settings, data)
    store, lock = where.open(), where.create_lock("rebuild")
    if not lock.acquire():
        raise CommandFailedError(f"another `sla rebuild` works on {where.name}")
    for name in dict.fromkeys(views or known):
        total = store.read_committed_sequence() if known[name].source == "inbox" else store.read_head()
        for _ in show_progress(name, build(store, known[name]), total):
            lock.acquire()  # which a session that is silent for too long loses
    store.close()


@app.command()
def verify(output: As = Output.TABLE, data: Data = DEFAULT_DATA) -> None:
    """Judge every ticket again and fold every view again: does the store say the same? The engine may run meanwhile."""
    from projections.registry import PROJECTIONS
    from services.cli import terminal as screen
    from services.maintenance.verify import Discrepancy, Verify, store_result
    from services.runtime import connections as client

    with refuse_wrong_usage():
        store = client.find_store(read_settings(), data)
    with store.open_snapshot() as stored, Verify(stored, PROJECTIONS) as check:
        for name, work in (("views", check.check_projections()), ("tickets", check.check_tickets())):
            for _ in screen.show_progress(name, work, check.head):
                pass
    if why_not := store_result(store, check.to_verification()):
        print_message(f"the result was not kept in the store: {why_not}")
    if output is Output.JSON:
        screen.print_json(check.to_json())
    else:
        if check.first:
            screen.print_table(Discrepancy._fields, check.first)
        typer.echo(check.summarise())
    raise typer.Exit(1 if check.differences else 0)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; compressed if it ends with .gz or .tgz.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Write the store and the streams to one file; the engine may run meanwhile."""
    from services.maintenance.backup import backup as write

    settings = read_settings_quietly()
    with refuse_wrong_usage(), stop_on_signal():
        print_message(f"{file}: {write(settings, data, file).summarise()}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `sla backup` has written.")], data: Data = DEFAULT_DATA
) -> None:
    """Put a backup in a folder in which there is nothing yet, for `sla up`."""
    from services.maintenance.backup import restore as read

    settings = read_settings_quietly()
    with refuse_wrong_usage(), stop_on_signal():
        print_message(f"{data}: {read(settings, data, file).summarise()}")


# ---- the bus


@app.command()
def publish(
    event: Annotated[str, typer.Argument(help="What happened: opened, priority_changed, responded, escalated, …")],
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    level: Annotated[str | None, typer.Option(help="The service level.")] = None,
    priority: Annotated[str | None, typer.Option(help="The priority.")] = None,
    by: Annotated[str | None, typer.Option(help="Who responded: agent or automation.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    channel: Annotated[str | None, typer.Option(help="How: email, portal, phone, …")] = None,
    customer: Annotated[str | None, typer.Option(help="Whose ticket it is.")] = None,
    corrects: Annotated[str | None, typer.Option(help="The id of the fact that is replaced.")] = None,
    right_time: Annotated[str | None, typer.Option("--time", help="When the corrected fact happened.")] = None,
    policy_version: Annotated[str | None, typer.Option(help="The version the ticket moves to.")] = None,
    at: Annotated[str | None, typer.Option(help="When it happened, with offset; now, if not given.")] = None,
    source: Annotated[str, typer.Option(help="Who says so.")] = "/cli",
    id: Annotated[str | None, typer.Option(help="The id of the fact; a new one, if not given.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Orders facts of one instant.")] = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Publish one ticket event, and wait until the bus has stored it."""
    from events.times import parse_instant
    from services.bus.publisher import Publisher
    from services.bus.streams import TICKETS
    from services.cli import messages as publishing
    from services.cli import terminal as screen

    given = {"service_level": level, "priority": priority, "by": by, "reason": reason}
    with refuse_wrong_usage():
        fact, message = publishing.build_fact(
            event,
            ticket,
            given
            | {"channel": channel, "customer": customer, "corrects": corrects}
            | {"time": right_time, "policy_version": policy_version},
            source=source,
            id=str(uuid4()) if id is None else id,
            time=datetime.now(UTC) if at is None else parse_instant(at),
            sequence=sequence,
            ahead=read_settings().max_ahead,
            policy=lambda: read_policy_in_force(data),
        )
    published = run_on_bus("publish", data, lambda nc: Publisher(nc, TICKETS).publish([message]))
    receipt = publishing.build_receipt(fact, message, published[0].sequence)
    if output is Output.JSON:
        screen.print_json(receipt)
    else:
        typer.echo(f"stored as {receipt['sequence']} in {TICKETS}: {fact.type} {fact.ticket}, id {fact.id}")


@app.command()
def watch(
    only: Annotated[
        list[str] | None, typer.Option(help="One kind of event, such as breached; may be repeated.")
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Begin with the oldest event that is kept, not with now.")] = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Follow what becomes of the promises, until Ctrl-C."""
    from services.cli import terminal as screen
    from services.cli import watch as watching

    wanted = {name.removeprefix("sla.").replace("-", "_") for name in only or watching.KINDS}
    if unknown := wanted.difference(watching.KINDS):
        raise UsageError(f"{', '.join(sorted(unknown))}: no such kind; the kinds are {', '.join(watching.KINDS)}")

    async def follow(nc: "Client") -> None:
        async for event in watching.follow(nc, all, print_message):
            if watching.get_kind(event) not in wanted:
                continue
            if output is Output.JSON:
                screen.print_json(event)
            else:
                screen.print_line(*watching.build_cells(event))

    run_on_bus("watch", data, follow, stopped=0)


# ---- tickets


@app.command()
def show(
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """How one ticket stands, replayed from its events; or how it stood."""
    from services.cli import terminal as screen
    from services.cli import ticket_status
    from services.queries.ticket_status import read_ticket_status

    with open_for_question(data, as_of, known_at) as (store, when):
        found = read_ticket_status(store, ticket, when)
    if found is None:
        raise CommandFailedError(f"nothing is known of ticket {ticket!r}")
    if output is Output.JSON:
        screen.print_json(found.to_json(when.at))
    else:
        screen.print_pairs(ticket_status.list_fields(found, when.at))


@app.command("list")
def list_command(
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """
    The tickets that wait for a first response, by time left; those that are too late come first. At another time than
    now, the whole log is read.
    """
    from services.cli import terminal as screen
    from services.cli import ticket_status
    from services.queries.ticket_status import list_waiting

    with open_for_question(data, as_of, known_at) as (store, when):
        found = list(list_waiting(store, when, limit))
    if output is Output.JSON:
        screen.print_json([each.to_json(when.at) for each in found])
    else:
        screen.print_table(ticket_status.COLUMNS, (ticket_status.build_row(each, when.at) for each in found))


@app.command()
def explain(
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Why a ticket stands as it does: its facts, what was decided, which time counted and why, and so the deadline."""
    from services.cli import explanation
    from services.cli import terminal as screen
    from services.queries.explanation import explain_ticket

    with open_for_question(data, as_of, known_at) as (store, when):
        explained = explain_ticket(store, ticket, when)
    if explained is None:
        raise CommandFailedError(f"nothing is known of ticket {ticket!r}")
    if output is Output.JSON:
        screen.print_json(explained.to_json())
    else:
        explanation.print_explanation(explained)


@app.command()
def report(
    period: Annotated[str, typer.Option(help="2026-10, 2026-W41, 2026-Q4, 2026, FROM..TO or all: opened in it.")],
    by: Annotated[str, typer.Option(help="Of level, priority, customer: as many as wanted, with commas.")] = "",
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: Annotated[Sheet, typer.Option("--output", "-o", help="For people, programs or sheets.")] = Sheet.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """
    How the tickets opened in a period stand: promises kept and broken, and how fast answers were. At another time than
    now, the whole log is read, which takes longer.
    """
    from services.cli import report as sheet
    from services.cli import terminal as screen
    from services.queries.report import build_report

    with open_for_question(data, as_of, known_at) as (store, when), refuse_wrong_usage():
        found = build_report(store, when, period, [name for name in by.split(",") if name])
    if output is Sheet.JSON:
        screen.print_json(found)
    elif output is Sheet.CSV:
        sheet.write_csv(found)
    else:
        screen.print_table(sheet.list_columns(found), sheet.build_rows(found))


@contextmanager
def open_for_question(data: Path, as_of: str | None, known_at: str | None) -> "Iterator[tuple[Store, PointInTime]]":
    """The store, opened, and the moment a question is about."""
    from events.times import parse_instant
    from services.queries.point_in_time import PointInTime
    from services.runtime import connections as client

    with refuse_wrong_usage():
        at, known = (None if text is None else parse_instant(text) for text in (as_of, known_at))
        when = PointInTime(at, known, datetime.now(UTC))
        store = client.open_store(read_settings(), data)
    try:
        yield store, when
    finally:
        store.close()


# ---- the calculator


@app.command()
def due(
    level: Annotated[str | None, typer.Option(help="The service level.")] = None,
    priority: Annotated[str | None, typer.Option(help="The priority.")] = None,
    at: Annotated[str | None, typer.Option(help="When the ticket was opened, with offset.")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="JSON lines {service_level, priority, opened_at}.")] = False,
    output: As = Output.TABLE,
) -> None:
    """When a first response is due. With --batch, JSON lines on stdin come back with `due_at`."""
    from events.times import parse_instant
    from services.cli import calculator
    from services.cli import terminal as screen
    from services.text.formats import convert_to_zone, format_utc, format_wall_time

    if batch:
        if level or priority or at:
            raise UsageError(
                "--batch reads level, priority and time from its lines; leave out --level, --priority and --at"
            )
        answer_batch(calculator.make_due_answer(read_policy()))
    if level is None or priority is None or at is None:
        raise UsageError("sla due needs --level, --priority and --at; or --batch, and JSON lines on stdin")
    with refuse_wrong_usage():
        opened_at, policy = parse_instant(at), read_policy()
        due_at = calculator.find_due(policy, level, priority, opened_at)
    if output is Output.JSON:
        given = {"service_level": level, "priority": priority, "opened_at": opened_at}
        screen.print_json({**given, "due_at": due_at, "due_at_local": convert_to_zone(due_at, policy.zone)})
    else:
        typer.echo(f"{format_utc(due_at)}  {format_wall_time(due_at, policy.zone)}")


@app.command()
def elapsed(
    batch: Annotated[bool, typer.Option("--batch", help="JSON lines {service_level, from, to}.")] = False,
) -> None:
    """Support time between two instants: JSON lines on stdin come back with `support_seconds`."""
    from services.cli import calculator

    if not batch:
        raise UsageError("sla elapsed reads JSON lines {service_level, from, to} on stdin; call it with --batch")
    answer_batch(calculator.make_elapsed_answer(read_policy()))


def answer_batch(add: Callable[[dict[str, Any]], None]) -> NoReturn:
    from services.cli.calculator import answer_lines

    with open(0, "rb", buffering=0, closefd=False) as lines:
        count, wrong = answer_lines(lines, sys.stdout.buffer, add)
    if wrong:
        raise CommandFailedError(f"{wrong} of {count} lines have an error")
    raise typer.Exit


# ---- policies


@policy_app.command("check")
def policy_check(file: Annotated[Path, typer.Argument(help="A policy file.")]) -> None:
    """Validate a policy file. Problems go to stdout, one a line: FILE:LINE: what, and the rule."""
    from sla.policy_file import PolicyError, load_policy_file

    try:
        policy = load_policy_file(file)
    except PolicyError as error:
        typer.echo(error)
        raise typer.Exit(1) from None
    levels, priorities = ", ".join(policy.levels), ", ".join(policy.priorities)
    typer.echo(f"{file}: fine: {policy.name} {policy.version}, {policy.zone}; levels {levels}; priorities {priorities}")


@policy_app.command("publish")
def policy_publish(
    file: Annotated[Path, typer.Argument(help="A policy file; it may say effective_from and material.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a policy file the next version, in effect when it says, or at once. A published one is never edited."""
    from services.cli import policies
    from services.cli import terminal as screen
    from services.runtime import connections as client
    from sla.policy_file import load_policy_file
    from sla.versions import VersionRefusedError

    settings, policy = read_settings(), load_policy_file(file)
    with refuse_wrong_usage():
        store = client.open_store(settings, data)
    try:
        version = store.publish_policy(policy, lambda: datetime.now(UTC), settings.policy_notice)
    except VersionRefusedError as error:
        raise CommandFailedError(f"{file}: {error}") from None
    versions, now = store.read_versions(), datetime.now(UTC)
    store.close()
    if output is Output.JSON:
        screen.print_json(policies.describe_version(version, versions, now))
    else:
        screen.print_table(policies.COLUMNS, [policies.build_version_row(version, versions, now)])


@policy_app.command("list")
def policy_list(output: As = Output.TABLE, data: Data = DEFAULT_DATA) -> None:
    """The published versions, the oldest first; the one in force has a star."""
    from services.cli import policies
    from services.cli import terminal as screen

    versions, now = read_versions(data), datetime.now(UTC)
    if output is Output.JSON:
        screen.print_json([policies.describe_version(version, versions, now) for version in versions])
    else:
        screen.print_table(
            policies.COLUMNS, (policies.build_version_row(version, versions, now) for version in versions)
        )


@policy_app.command("show")
def policy_show(
    version: Annotated[str | None, typer.Argument(help="A version, or a file; the one in force if not given.")] = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """What a version says. With -o json as it was resolved when it was published: every date, every window."""
    from services.cli import policies
    from services.cli import terminal as screen

    versions, now = read_versions(data), datetime.now(UTC)
    with refuse_wrong_usage():
        policy = versions.get_in_force(now) if version is None else policies.find_policy(version, versions)
    if output is Output.JSON:
        screen.print_json(policy.to_resolved())
    else:
        screen.print_pairs(policies.list_settings(policy, now))


@policy_app.command("diff")
def policy_diff(
    before: Annotated[str, typer.Argument(help="A version, or a file.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """What one version says otherwise than another, and whether that is material."""
    from services.cli import policies
    from services.cli import terminal as screen
    from sla.versions import Change, find_changes, is_material

    versions = read_versions(data)
    with refuse_wrong_usage():
        one, other = policies.find_policy(before, versions), policies.find_policy(after, versions)
    found = find_changes(one, other)
    if output is Output.JSON:
        screen.print_json({"material": is_material(one, other), "changes": [change._asdict() for change in found]})
    else:
        if found:
            screen.print_table(Change._fields, found)
        print_message(f"{len(found)} changes, {'material' if is_material(one, other) else 'none of them material'}")


@policy_app.command("migrate")
def policy_migrate(
    to: Annotated[str, typer.Option("--to", help="The version by which they shall be judged from now on.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Move the open tickets to another version, each by an event: time used is kept, the rest of the clock is new."""
    from services.bus.publisher import Publisher
    from services.bus.streams import TICKETS
    from services.cli import policies
    from services.cli import terminal as screen
    from services.queries import backtest as what_if
    from services.runtime import connections as client

    settings, now = read_settings_quietly(), datetime.now(UTC)
    with refuse_wrong_usage():
        store = client.open_store(settings, data)
        policy = policies.find_in_effect(to, store.read_versions(), now)
    found = list(what_if.find_moves(store, policy, now))
    store.close()
    going = dict.fromkeys(move.ticket for move in found if move.why_not is None)
    if not dry_run and going:
        messages = [what_if.build_move_message(ticket, policy.version, now) for ticket in going]

        async def send(nc: "Client") -> None:
            publisher = Publisher(nc, TICKETS)
            for start in range(0, len(messages), what_if.BATCH):
                await publisher.publish(messages[start : start + what_if.BATCH])

        run_on_bus("policy migrate", data, send)
    if output is Output.JSON:
        screen.print_json({"to": to, "dry_run": dry_run, "moves": [move._asdict() for move in found]})
    else:
        screen.print_table(policies.MOVES, (policies.build_move_row(move, policy.zone) for move in found))
        print_message(policies.summarise_moves(found, dry_run))


@app.command()
def backtest(
    policy: Annotated[Path, typer.Option("--policy", help="A policy file.")],
    since: Annotated[str | None, typer.Option("--from", help="Only tickets opened then or later, with offset.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only tickets opened before, with offset.")] = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Judge all history under another policy, and write nothing: compliance before and after, tickets that flip."""
    from events.times import parse_instant
    from services.cli import policies
    from services.cli import terminal as screen
    from services.queries import backtest as what_if
    from services.runtime import connections as client
    from services.store.snapshot import count_tickets
    from sla.policy_file import load_policy_file

    other = load_policy_file(policy)
    with refuse_wrong_usage():
        start, end = (None if text is None else parse_instant(text) for text in (since, until))
        store = client.find_store(read_settings(), data)
    versions = read_versions(data)
    test = what_if.Backtest(versions, other, datetime.now(UTC), start, end)
    with store.open_snapshot() as stored:
        for _ in screen.show_progress("tickets", test.run(stored), count_tickets(stored)):
            pass
    if output is Output.JSON:
        screen.print_json(test.report())
    else:
        screen.print_table(policies.COMPLIANCE, policies.build_compliance_rows(test.compare_compliance()))
        if test.flips:
            screen.print_table(policies.FLIPS, (policies.build_flip_row(flip, other.zone) for flip in test.flips))
        print_message(f"{test.tickets:,} tickets, of which {len(test.flips):,} flip")


def read_versions(data: Path) -> "Versions":
    from services.runtime import connections as client

    with refuse_wrong_usage():
        store = client.open_store(read_settings(), data)
    versions = store.read_versions()
    store.close()
    if not len(versions):
        raise CommandFailedError("no version is published yet; start the engine, or `sla policy publish FILE`")
    return versions


# ---- dead letters


OfReason = Annotated[str | None, typer.Option("--reason", help="Those that were refused for this reason.")]
OfSource = Annotated[str | None, typer.Option("--source", help="Those of this publisher.")]
Sequences = Annotated[list[int] | None, typer.Argument(metavar="SEQ…", help="Originals, as listed.")]
EveryOne = Annotated[bool, typer.Option("--all", help="All there are.")]


def make_choice(sequences: list[int] | None, reason: str | None, source: str | None, all: bool) -> "DeadLetterChoice":
    from services.maintenance import dead_letters

    if reason is not None and reason not in dead_letters.REASONS:
        raise UsageError(f"{reason!r} is not a reason; the reasons are {', '.join(dead_letters.REASONS)}")
    if bool(sequences) + (reason is not None or source is not None) + all != 1:
        raise UsageError("say which: sequences, --reason and --source, or --all")
    return dead_letters.DeadLetterChoice(sequences or (), reason, source)


@dead_app.command("list")
def dead_list(
    reason: OfReason = None,
    source: OfSource = None,
    group: Annotated[bool, typer.Option("--group", help="How many of each reason and publisher.")] = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """The dead letters, the oldest first."""
    from services.cli import terminal as screen
    from services.maintenance import dead_letters

    choice = make_choice(None, reason, source, reason is None and source is None)
    found = run_on_bus("dead list", data, lambda nc: dead_letters.choose(nc, choice))
    match output, group:
        case Output.JSON, False:
            screen.print_json([letter.to_json() for letter in found])
        case Output.JSON, True:
            screen.print_json([each._asdict() for each in dead_letters.group_dead_letters(found)])
        case _, False:
            screen.print_table(dead_letters.COLUMNS, (letter.to_row() for letter in found))
        case _, True:
            screen.print_table(
                dead_letters.DeadLetterGroup._fields, (each.to_row() for each in dead_letters.group_dead_letters(found))
            )


@dead_app.command("show")
def dead_show(
    sequence: Annotated[int, typer.Argument(metavar="SEQ", help="The sequence of the original, as listed.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """One dead letter: the reason, and the original headers and bytes."""
    from services.cli import terminal as screen
    from services.maintenance import dead_letters

    letter = run_on_bus("dead show", data, lambda nc: dead_letters.find(nc, [sequence]))[0]
    if output is Output.JSON:
        screen.print_json(letter.to_full_json())
    else:
        screen.print_pairs(letter.to_fields())


@dead_app.command("replay")
def dead_replay(
    sequences: Sequences = None,
    reason: OfReason = None,
    source: OfSource = None,
    all: EveryOne = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """
    Publish originals again, byte for byte, and remove their letters: who was recorded meanwhile counts once, who is
    still wrong comes back.
    """
    from services.cli import terminal as screen
    from services.maintenance import dead_letters

    choice = make_choice(sequences, reason, source, all)
    sent = run_on_bus("dead replay", data, lambda nc: dead_letters.replay(nc, choice))
    if output is Output.JSON:
        screen.print_json([{"sequence": letter.sequence, "stored_as": stored} for letter, stored in sent])
    else:
        for letter, stored in sent:
            typer.echo(f"{letter.sequence} stored again as {stored}: {letter.subject}")


@dead_app.command("discard")
def dead_discard(
    sequences: Sequences = None,
    reason: OfReason = None,
    source: OfSource = None,
    all: EveryOne = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; needed unless sequences are given.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Remove dead letters for good: these messages will never count."""
    from services.maintenance import dead_letters

    choice = make_choice(sequences, reason, source, all)
    if not choice.sequences and not yes:
        found = run_on_bus("dead discard", data, lambda nc: dead_letters.choose(nc, choice))
        raise UsageError(f"that would remove {len(found)} dead letters for good; add --yes if they are not needed")
    found = run_on_bus("dead discard", data, lambda nc: dead_letters.discard(nc, choice))
    typer.echo(f"{len(found)} dead letters removed")


# ---- what the commands share


def run_on_bus(name: str, data: Path, work: "Callable[[Client], Awaitable[T]]", stopped: int = 1) -> T:
    """Work on the bus, with a connection that is closed afterwards; SIGINT and SIGTERM end it with `stopped`."""
    from services.runtime import connections as client

    settings = read_settings_quietly()
    with refuse_wrong_usage():
        url, access = client.find_bus_url(settings, data), client.read_credentials(settings)

    async def working() -> T:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        async with client.open_bus(url, name, access) as nc:
            return await work(nc)

    try:
        return asyncio.run(working())
    except asyncio.CancelledError:
        raise typer.Exit(stopped) from None


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """SIGINT and SIGTERM end the work, which takes back what it has begun; the answer is no."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(1) from None


def read_settings_quietly() -> "Settings":
    """The settings, with logs of errors only: the connection's troubles end as one message."""
    from services.runtime.logging import configure

    settings = read_settings()
    configure(settings.model_copy(update={"log_level": "error"}))
    return settings


def print_message(message: str) -> None:
    typer.echo(message, err=True)


@contextmanager
def refuse_wrong_usage() -> Iterator[None]:
    """What is wrong with the values that were given is wrong usage."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, list_refusals()):
            raise
        raise UsageError(str(error)) from None


def read_settings() -> "Settings":
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from services.runtime.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        lines = (f"SLA_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise UsageError("; ".join(lines)) from None
    except SettingsError as error:
        raise UsageError(str(error)) from None


def read_policy() -> "Policy":
    from services.runtime.settings import load_policy

    return load_policy(read_settings().policy_dir)


def read_policy_in_force(data: Path) -> "Policy":
    """Of the store, if there is one with a version; that of the file otherwise."""
    from services.errors import FatalError, StoreError
    from services.runtime import connections as client

    try:
        store = client.open_store(read_settings(), data)
    except (FatalError, StoreError):
        return read_policy()
    versions = store.read_versions()
    store.close()
    return versions.get_in_force(datetime.now(UTC)) if len(versions) else read_policy()


def require_bus_url(settings: "Settings") -> str:
    if settings.nats_url is None:
        raise UsageError("SLA_NATS_URL is not set; give the address of NATS, like nats://127.0.0.1:4222")
    return settings.nats_url


def require_database(settings: "Settings") -> "Database":
    from services.runtime.settings import parse_database_url

    if settings.database_url is None:
        raise UsageError(
            "SLA_DATABASE_URL is not set; give the store, like sqlite:///sla.db or postgresql://sla@localhost/sla"
        )
    try:
        return parse_database_url(settings.database_url)
    except ValueError as error:
        raise UsageError(f"SLA_DATABASE_URL: {error}") from None


def list_refusals() -> tuple[type[Exception], ...]:
    """What the parts raise when the answer is no."""
    from eventsourcing.persistence import PersistenceError

    from services.errors import ENVIRONMENT_ERRORS
    from services.notifier.receivers import NotifyError
    from services.queries.point_in_time import NothingKnownError
    from sla.policy_file import PolicyError

    own = (CommandFailedError, NothingKnownError, NotifyError, PolicyError)
    return (*own, PersistenceError, *ENVIRONMENT_ERRORS)


def main() -> None:
    """The console script."""
    try:
        app()
    except UsageError as error:
        print_message(f"sla: {error}")
        sys.exit(2)
    except Exception as error:
        if not isinstance(error, list_refusals()):
            raise
        print_message(f"sla: {str(error) or type(error).__name__}")
        sys.exit(1)


if __name__ == "__main__":
    main()
