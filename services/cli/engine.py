"""Commands on the whole engine: migrate, run, rebuild, verify, backup, restore. None is about one ticket."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

from projections.registry import PROJECTIONS
from projections.runner import rebuild
from services.app import SERVICES, Process
from services.bus.streams import TICKETS, find_gap
from services.cli.options import (
    DEFAULT_DATA,
    As,
    CommandFailedError,
    Data,
    Output,
    UsageError,
    create_app,
    print_message,
)
from services.cli.resources import read_settings_quietly, run_on_bus, stop_on_signal
from services.cli.settings import read_settings, refuse_wrong_usage, require_bus_url, require_database
from services.cli.terminal import print_json, print_table, show_progress
from services.errors import BUS_ERRORS, FatalError
from services.maintenance.announced import AnnouncementCheck
from services.maintenance.backup import backup, restore
from services.maintenance.provision import provision_bus
from services.maintenance.verify import Discrepancy, Verifier, store_result
from services.ports import build_url, listen
from services.runtime.connections import find_store, open_store, read_credentials
from services.runtime.logging import configure
from services.store.schema import ACCEPTED_LOSS

app = create_app()


@app.command("migrate")
def migrate_command() -> None:
    """Create the database schema, the streams and what else the services need; safe to repeat."""
    settings = read_settings()
    url, store = require_bus_url(settings), require_database(settings)
    with refuse_wrong_usage():
        credentials = read_credentials(settings)
    configure(settings)
    store.migrate(PROJECTIONS)
    leases = store.create_leases()
    asyncio.run(provision_bus(url, credentials, settings.partitions, leases, settings.notify, settings.subscribers))


@app.command("run")
def run_command(
    services: Annotated[list[str], typer.Argument(help="Of intake, clock, announcer, metrics, notifier, board.")],
) -> None:
    """Run one or more services against SLA_NATS_URL and SLA_DATABASE_URL."""
    if unknown := [name for name in services if name not in SERVICES]:
        raise UsageError(f"{', '.join(unknown)}: no such service; the services are {', '.join(SERVICES)}")
    settings = read_settings()
    if "notifier" in services and not settings.notifies:
        raise UsageError("notifier has nobody to tell; set SLA_ALERTMANAGER_URL, or SLA_NOTIFY_FILE")
    url = require_bus_url(settings)
    store = require_database(settings) if any(SERVICES[name].needs_store for name in services) else None
    with refuse_wrong_usage():
        credentials = read_credentials(settings)
    configure(settings)
    listener = listen(settings.http_host, settings.http_port, settings.find_variable("http_port"))

    async def report_ready() -> None:
        print_message(f"ready: {build_url(listener)}")

    process = Process(list(dict.fromkeys(services)), settings, url, store, credentials, listener=listener)
    raise typer.Exit(asyncio.run(process.run(report_ready)))


@app.command("rebuild")
def rebuild_command(
    views: Annotated[
        list[str] | None, typer.Argument(help="Of deadlines, promises, compliance, arrivals, quarantine.")
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Build views again from the whole log, all of them if none is named; the engine may run meanwhile."""
    known = {projection.name: projection for projection in PROJECTIONS}
    if unknown := [name for name in views or [] if name not in known]:
        raise UsageError(f"{', '.join(unknown)}: no such view; the views are {', '.join(known)}")
    settings = read_settings()
    with refuse_wrong_usage():
        database = find_store(settings, data)
    store, lock = database.open(), database.create_lock("rebuild")
    if not lock.acquire():
        raise CommandFailedError(f"another `sla rebuild` works on {database.name}")
    for name in dict.fromkeys(views or known):
        total = store.read_committed_sequence() if known[name].source == "inbox" else store.read_head()
        for _ in show_progress(name, rebuild(store, known[name]), total):
            lock.acquire()  # which a session that is silent for too long loses
    store.close()


@app.command("accept-loss")
def accept_loss_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what is gone.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Let intake go on though messages that were acknowledged are gone from TICKETS: they will never count."""
    with refuse_wrong_usage():
        store = open_store(read_settings(), data)
    committed = store.read_committed_sequence()
    gap = run_on_bus("accept-loss", data, lambda nc: find_gap(nc, TICKETS, committed))
    if gap is None:
        print_message("nothing is gone: intake has recorded every message of TICKETS, or can")
        return
    what = f"{gap.messages} messages of {TICKETS}, from {gap.first} to {gap.last}"
    if not yes:
        raise UsageError(f"{what}, would never count; restore the stream if you can, or add --yes")
    store.save_checkpoints({ACCEPTED_LOSS: gap.last})
    print_message(f"{what}, are given up; intake goes on within 5 seconds")


@app.command("verify")
def verify_command(output: As = Output.TABLE, data: Data = DEFAULT_DATA) -> None:
    """
    Judge every ticket again, fold every view again, and read SLA: do they say the same? The engine may run meanwhile.
    """
    settings = read_settings_quietly()
    with refuse_wrong_usage():
        store = find_store(settings, data)
    with AnnouncementCheck(settings, data) as announced:
        is_reached = try_bus(announced.read_end())
        with store.open_snapshot() as stored, Verifier(stored, PROJECTIONS) as check:
            works = {"views": check.check_projections(), "tickets": check.check_tickets()}
            if is_reached:
                works["announcements"] = announced.read_log(stored)
            for name, work in works.items():
                for _ in show_progress(name, work, check.head):
                    pass
            if is_reached and try_bus(announced.read_stream()):
                check.add_discrepancies(announced.find_differences(stored))
    if why_not := store_result(store, check.build_verification()):
        print_message(f"the result was not kept in the store: {why_not}")
    if output is Output.JSON:
        print_json(check.to_json())
    else:
        if check.shown:
            print_table(Discrepancy._fields, check.shown)
        typer.echo(check.format_summary())
    raise typer.Exit(1 if check.differences else 0)


def try_bus(work: Coroutine[None, None, None]) -> bool:
    """Do what needs the bus. Return whether it could be asked; if not, say so."""
    try:
        with refuse_wrong_usage():
            asyncio.run(work)
    except (*BUS_ERRORS, FatalError) as error:
        print_message(f"SLA is not compared with the log: {error}")
        return False
    return True


@app.command("backup")
def backup_command(
    file: Annotated[Path, typer.Argument(help="The file to write; compressed if it ends with .gz or .tgz.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Write the store and the streams to one file; the engine may run meanwhile."""
    settings = read_settings_quietly()
    with refuse_wrong_usage(), stop_on_signal():
        print_message(f"{file}: {backup(settings, data, file).format_summary()}")


@app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="A file that `sla backup` has written.")], data: Data = DEFAULT_DATA
) -> None:
    """Put a backup in a folder in which there is nothing yet, for `sla up`."""
    settings = read_settings_quietly()
    with refuse_wrong_usage(), stop_on_signal():
        print_message(f"{data}: {restore(settings, data, file).format_summary()}")
