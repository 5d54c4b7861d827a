"""Commands on the policy: its published versions, moves of tickets to one, backtest. Which counts: sla/versions.py."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from events.times import parse_instant
from services.cli.options import DEFAULT_DATA, As, CommandFailedError, Data, Output, create_app, print_message
from services.cli.resources import read_settings_quietly, read_versions, run_on_bus
from services.cli.settings import read_settings, refuse_wrong_usage
from services.cli.terminal import print_json, print_pairs, print_table, show_progress
from services.maintenance.policy_migration import PolicyMove, build_move_messages, find_moves, publish_moves
from services.queries.backtest import Backtest, Flip
from services.runtime.connections import find_store, open_store
from services.store.snapshot import count_tickets
from services.text.formats import format_share, format_wall_time, format_wall_time_briefly
from sla.meaning import CalendarMeaning, NamedDay, describe_calendars, find_long_targets
from sla.policy import FIRST_RESPONSE, Policy
from sla.policy_file import PolicyError, load_policy_file, read_policy_file
from sla.versions import Change, Version, VersionRefusedError, Versions, find_changes, flatten_policy, is_material

VERSION_COLUMNS = ("version", "in force from", "published", "material", "fingerprint")
CALENDAR_COLUMNS = ("calendar", "levels", "zone", "hours a week")
DAY_COLUMNS = ("day", "name", "hours", "calendars")
ALWAYS = "the beginning"
MOVE_COLUMNS = ("ticket", "objective", "level", "priority", "version", "due", "due then", "")
BACKTEST_COLUMNS = (
    "objective",
    "level",
    "priority",
    "",
    "kept",
    "broken",
    "open",
    "cancelled",
    "excluded",
    "unknown",
    "share",
)
FLIP_COLUMNS = ("ticket", "objective", "level", "priority", "before", "after", "due before", "due after")

app = create_app()
policy_app = create_app(help="Support policies.")
app.add_typer(policy_app, name="policy")


@policy_app.command("check")
def policy_check(
    file: Annotated[Path, typer.Argument(help="A policy file.")],
    output: As = Output.TABLE,
) -> None:
    """
    Validate a policy file, and say what it means: hours, closed days, warnings. Problems go to stdout, one a line:
    FILE:LINE: what, and the rule.
    """
    year = datetime.now(UTC).year
    try:
        policy, warnings = read_policy_file(file, year)
    except PolicyError as error:
        typer.echo(error)
        raise typer.Exit(1) from None
    calendars = describe_calendars(policy, range(year, year + 2))
    warnings += [f"{file}: {text}" for each in calendars for text in each.warnings]
    warnings += [f"{file}: {text}" for text in find_long_targets(policy, year)]
    if output is Output.JSON:
        print_json(describe_meaning(policy, calendars, warnings))
        return
    levels, priorities = ", ".join(policy.levels), ", ".join(policy.priorities)
    typer.echo(f"{file}: fine: {policy.name} {policy.version}, {policy.zone}; levels {levels}; priorities {priorities}")
    for warning in warnings:
        typer.echo(f"warning: {warning}")
    print_table(CALENDAR_COLUMNS, map(build_calendar_row, calendars))
    if days := list(build_day_rows(calendars)):
        print_table(DAY_COLUMNS, days)


@policy_app.command("publish")
def policy_publish(
    file: Annotated[Path, typer.Argument(help="A policy file; it may say effective_from and material.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a policy file the next version, in effect when it says, or at once. A published one is never edited."""
    settings, policy = read_settings(), load_policy_file(file)
    with refuse_wrong_usage():
        store = open_store(settings, data)
    try:
        version = store.publish_policy(policy, lambda: datetime.now(UTC), settings.policy_notice)
    except VersionRefusedError as error:
        raise CommandFailedError(f"{file}: {error}") from None
    versions, now = store.read_versions(), datetime.now(UTC)
    store.close()
    if output is Output.JSON:
        print_json(describe_version(version, versions, now))
    else:
        print_table(VERSION_COLUMNS, [build_version_row(version, versions, now)])


@policy_app.command("list")
def policy_list(output: As = Output.TABLE, data: Data = DEFAULT_DATA) -> None:
    """The published versions, the oldest first; the one in force has a star."""
    versions, now = read_versions(data), datetime.now(UTC)
    if output is Output.JSON:
        print_json([describe_version(version, versions, now) for version in versions])
    else:
        print_table(VERSION_COLUMNS, (build_version_row(version, versions, now) for version in versions))


@policy_app.command("show")
def policy_show(
    version: Annotated[str | None, typer.Argument(help="A version, or a file; the one in force if not given.")] = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """What a version says. With -o json as it was resolved when it was published: every date, every window."""
    now = datetime.now(UTC)
    with refuse_wrong_usage():
        policy = read_versions(data).get_in_force(now) if version is None else find_policy(version, data)
    if output is Output.JSON:
        print_json(policy.to_resolved())
    else:
        print_pairs(list_settings(policy, now))


@policy_app.command("diff")
def policy_diff(
    before: Annotated[str, typer.Argument(help="A version, or a file.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """What one version says otherwise than another, and whether that is material."""
    with refuse_wrong_usage():
        one, other = find_policy(before, data), find_policy(after, data)
    found = find_changes(one, other)
    if output is Output.JSON:
        print_json({"material": is_material(one, other), "changes": [change._asdict() for change in found]})
    else:
        if found:
            print_table(Change._fields, found)
        print_message(f"{len(found)} changes, {'material' if is_material(one, other) else 'none of them material'}")


@policy_app.command("migrate")
def policy_migrate(
    to: Annotated[str, typer.Option("--to", help="The version by which they shall be judged from now on.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Move the open tickets to another version, each by an event: time used is kept, the rest of the clock is new."""
    settings, now = read_settings_quietly(), datetime.now(UTC)
    with refuse_wrong_usage():
        store = open_store(settings, data)
        policy = find_in_effect(to, store.read_versions(), now)
    moves = list(find_moves(store, policy, now))
    store.close()
    messages = build_move_messages(moves, policy.version, now)
    if not dry_run and messages:
        run_on_bus("policy migrate", data, lambda nc: publish_moves(nc, messages))
    if output is Output.JSON:
        print_json({"to": to, "dry_run": dry_run, "moves": [move._asdict() for move in moves]})
    else:
        print_table(MOVE_COLUMNS, (build_move_row(move, policy.zone) for move in moves))
        print_message(format_move_summary(moves, dry_run))


@app.command("backtest")
def backtest_command(
    policy: Annotated[Path, typer.Option("--policy", help="A policy file.")],
    since: Annotated[str | None, typer.Option("--from", help="Only tickets opened then or later, with offset.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only tickets opened before, with offset.")] = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Judge all history under another policy, and write nothing: promises kept before and after, which flip."""
    other = load_policy_file(policy)
    with refuse_wrong_usage():
        start, end = (None if text is None else parse_instant(text) for text in (since, until))
        store = find_store(read_settings(), data)
    versions = read_versions(data)
    test = Backtest(versions, other, datetime.now(UTC), start, end)
    with store.open_snapshot() as stored:
        for _ in show_progress("tickets", test.run(stored), count_tickets(stored)):
            pass
    if output is Output.JSON:
        print_json(test.to_json())
    else:
        print_table(BACKTEST_COLUMNS, build_backtest_rows(test.build_rows()))
        if test.flips:
            print_table(FLIP_COLUMNS, (build_flip_row(flip, other.zone) for flip in test.flips))
        print_message(f"{test.tickets:,} tickets, {len(test.flips):,} promises flip")


def describe_meaning(policy: Policy, calendars: Iterable[CalendarMeaning], warnings: Sequence[str]) -> dict[str, Any]:
    """Return what a policy means for programs; a day without hours is closed."""
    return {
        "name": policy.name,
        "version": policy.version,
        "zone": policy.zone,
        "calendars": [
            {
                "calendar": each.calendar,
                "levels": each.levels,
                "zone": each.zone,
                "week_hours": [
                    {"from": f"{day}", "hours": length / timedelta(hours=1)} for day, length in each.week_hours.items()
                ],
                "days": [{"date": f"{day}", "name": name, "hours": hours} for day, name, hours in each.days],
            }
            for each in calendars
        ],
        "warnings": warnings,
    }


def build_calendar_row(calendar: CalendarMeaning) -> tuple[str, ...]:
    """Return a calendar in the order of CALENDAR_COLUMNS."""
    lengths = [f"{length / timedelta(hours=1):g} h from {day}" for day, length in calendar.week_hours.items()]
    lengths[0] = lengths[0].partition(" from")[0]
    return calendar.calendar, ", ".join(calendar.levels) or "-", calendar.zone, ", ".join(lengths)


def build_day_rows(calendars: Sequence[CalendarMeaning]) -> Iterator[tuple[str, ...]]:
    """Yield the days on which other hours hold, in the order of DAY_COLUMNS."""
    found: dict[NamedDay, list[str]] = {}
    for each in calendars:
        for day in each.days:
            found.setdefault(day, []).append(each.calendar)
    for day, names in sorted(found.items()):
        yield f"{day.day:%a %Y-%m-%d}", day.name, day.hours, "all" if len(names) == len(calendars) else ", ".join(names)


def describe_version(version: Version, versions: Versions, now: datetime) -> dict[str, Any]:
    """Return a version for programs; the first version has no `effective_from`."""
    return {
        "name": version.policy.name,
        "version": version.name,
        "published_at": version.published_at,
        "effective_from": None if version.is_first else version.effective_from,
        "material": version.material,
        "in_force": versions.get_in_force(now) is version.policy,
        "fingerprint": version.policy.fingerprint,
    }


def build_version_row(version: Version, versions: Versions, now: datetime) -> tuple[str, ...]:
    """Return a version in the order of VERSION_COLUMNS; the one in force has a star."""
    zone = version.policy.zone
    star = " *" if versions.get_in_force(now) is version.policy else ""
    since = ALWAYS if version.is_first else format_wall_time(version.effective_from, zone)
    material = "yes" if version.material else "no"
    return (
        version.name + star,
        since,
        format_wall_time(version.published_at, zone),
        material,
        version.policy.fingerprint[:12],
    )


def find_policy(name: str, data: Path) -> Policy:
    """
    Read a policy file, which needs no store, or return a published version. Raises ValueError if there is neither,
    PolicyError for a file that is wrong.
    """
    if Path(name).is_file():
        return load_policy_file(name)
    versions = read_versions(data)
    if (found := versions.find_named(name)) is not None:
        return found
    known = ", ".join(version.name for version in versions) or "none"
    raise ValueError(f"{name!r} is neither a file nor a published version; the versions are {known}")


def list_settings(policy: Policy, now: datetime) -> list[tuple[str, str]]:
    """List what a policy says, a setting a line, in the order of the file; holidays only of this year and the next."""
    other_year = re.compile(rf"(calendars\.[^.]+\.)?holidays\.(?!{now.year}|{now.year + 1})")
    settings = [setting for setting in flatten_policy(policy) if not other_year.match(setting[0])]
    return [("name", policy.name), ("version", policy.version), *settings]


def find_in_effect(name: str, versions: Versions, now: datetime) -> Policy:
    """Return the published version of this name. Raises ValueError if there is none, or it is not in effect yet."""
    for version in versions:
        if version.name == name and version.effective_from <= now:
            return version.policy
        if version.name == name:
            raise ValueError(
                f"version {name} takes effect at {format_wall_time(version.effective_from, None)}; not before that"
            )
    raise ValueError(f"version {name!r} is not published; the versions are {', '.join(each.name for each in versions)}")


def build_move_row(move: PolicyMove, zone: str) -> tuple[str, ...]:
    """Return a move in the order of MOVE_COLUMNS."""
    note = move.why_not or ("breaks at once" if move.breaks else "")
    objective = _name_cycle(move.objective, move.cycle)
    due, then = format_wall_time_briefly(move.due_at, zone), format_wall_time_briefly(move.new_due_at, zone)
    return move.ticket, objective, move.service_level, move.priority, move.policy_version, due, then, note


def _name_cycle(objective: str, cycle: int) -> str:
    return objective if objective == FIRST_RESPONSE else f"{objective} {cycle}"


def format_move_summary(moves: Sequence[PolicyMove], dry_run: bool) -> str:
    """Say how many tickets move, on one line."""
    going = {move.ticket for move in moves if move.why_not is None}
    staying = {move.ticket for move in moves if move.why_not is not None}
    breaking = {move.ticket for move in moves if move.breaks}
    verb = "would move" if dry_run else "move"
    return f"{len(going):,} tickets {verb}, of which {len(breaking):,} break at once; {len(staying):,} cannot"


def build_backtest_rows(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield, in the order of BACKTEST_COLUMNS, a line before and a line after."""
    for row in rows:
        for when in ("before", "after"):
            names = ("objective", "service_level", "priority")
            labels = tuple(row[name] if when == "before" else "" for name in names)
            *counts, share = row[when].values()
            yield *labels, when, *(str(count) for count in counts), "-" if share is None else format_share(share)


def build_flip_row(flip: Flip, zone: str) -> tuple[str, ...]:
    """Return a flip in the order of FLIP_COLUMNS."""
    ticket, objective, cycle, *texts, due_before, due_after = flip
    return (
        ticket,
        _name_cycle(objective, cycle),
        *texts,
        format_wall_time_briefly(due_before, zone),
        format_wall_time_briefly(due_after, zone),
    )
