"""Commands on tickets that were set aside: list, show, retry. How they are found is in services/maintenance."""

from typing import Annotated

import typer

from events.times import from_microseconds
from projections.quarantine import QuarantineRow
from services.cli.options import DEFAULT_DATA, As, CommandFailedError, Data, Output, UsageError, create_app
from services.cli.resources import run_on_bus
from services.cli.settings import read_settings, refuse_wrong_usage
from services.cli.terminal import print_json, print_pairs, print_table
from services.maintenance.quarantine import list_quarantined, retry
from services.runtime.connections import open_store
from services.store.interface import Store
from services.text.formats import format_wall_time

app = create_app()
quarantine_app = create_app(help="Tickets that could not be judged, by a fault of the engine.")
app.add_typer(quarantine_app, name="quarantine")


@quarantine_app.command("list")
def quarantine_list(output: As = Output.TABLE, data: Data = DEFAULT_DATA) -> None:
    """The tickets that were set aside: their facts are recorded, and nothing is judged. The oldest first."""
    found = list_quarantined(open_for_quarantine(data))
    if output is Output.JSON:
        print_json([encode_row(row) for row in found])
    else:
        print_table(QuarantineRow._fields, (format_row(row) for row in found))


@quarantine_app.command("show")
def quarantine_show(
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """One of them: since when it is set aside, the fault that was met, and how many facts wait."""
    store = open_for_quarantine(data)
    (row,) = select_rows(list_quarantined(store), [ticket])
    loaded = store.load_ticket(ticket)
    facts = 0 if loaded is None else len(loaded.facts)
    if output is Output.JSON:
        print_json(encode_row(row) | {"facts": facts})
    else:
        print_pairs([*zip(QuarantineRow._fields, format_row(row), strict=True), ("facts", str(facts))])


@quarantine_app.command("retry")
def quarantine_retry(
    tickets: Annotated[list[str] | None, typer.Argument(metavar="TICKET…", help="Those, as listed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Judge tickets again, after an upgrade that mends the fault. Exit 1 if one fails again: it stays set aside."""
    if bool(tickets) == everything:
        raise UsageError("say which: tickets, or --all")
    store = open_for_quarantine(data)
    rows = list_quarantined(store)
    wanted = [row.ticket for row in (rows if everything else select_rows(rows, tickets or []))]
    retried = run_on_bus("quarantine retry", data, lambda nc: retry(nc, store, wanted))
    for ticket, error in retried:
        typer.echo(f"{ticket}: {'judged' if error is None else f'still set aside: {error}'}")
    raise typer.Exit(any(error is not None for _, error in retried))


def open_for_quarantine(data: Data) -> Store:
    with refuse_wrong_usage():
        return open_store(read_settings(), data)


def select_rows(rows: list[QuarantineRow], tickets: list[str]) -> list[QuarantineRow]:
    """Return the rows of these tickets. Raises CommandFailedError for one that is not set aside."""
    by_ticket = {row.ticket: row for row in rows}
    if unknown := [ticket for ticket in tickets if ticket not in by_ticket]:
        raise CommandFailedError(f"{', '.join(map(repr, unknown))}: not in quarantine; see `sla quarantine list`")
    return [by_ticket[ticket] for ticket in dict.fromkeys(tickets)]


def encode_row(row: QuarantineRow) -> dict[str, object]:
    return {"ticket_id": row.ticket, "since": from_microseconds(row.since), "error": row.error}


def format_row(row: QuarantineRow) -> tuple[str, ...]:
    return row.ticket, format_wall_time(from_microseconds(row.since), None), row.error
