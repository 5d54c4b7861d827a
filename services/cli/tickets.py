"""Commands that ask about tickets: show, list, explain, report. The answers are those of services/queries."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from projections.promises import OPEN_STATES, PromiseFilter
from services.cli import ticket_status
from services.cli.explanation import print_explanation
from services.cli.options import DEFAULT_DATA, As, AsOf, CommandFailedError, Data, KnownAt, Output, create_app
from services.cli.resources import open_for_question
from services.cli.settings import refuse_wrong_usage
from services.cli.terminal import print_json, print_pairs, print_table
from services.queries.explanation import explain_ticket
from services.queries.report import GROUPINGS, build_report
from services.queries.report_table import build_rows, format_csv, list_columns
from services.queries.ticket_status import check_filter, list_open_promises, read_ticket_status

app = create_app()


class ReportOutput(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command("show")
def show_command(
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """How one ticket stands, replayed from its events; or how it stood."""
    with open_for_question(data, as_of, known_at) as (store, point):
        found = read_ticket_status(store, ticket, point)
    if found is None:
        raise CommandFailedError(f"nothing is known of ticket {ticket!r}")
    if output is Output.JSON:
        print_json(found.to_json(point.at))
    else:
        print_pairs(ticket_status.list_fields(found, point.at))


@app.command("list")
def list_command(
    level: Annotated[str | None, typer.Option(help="Of this service level.")] = None,
    priority: Annotated[str | None, typer.Option(help="Of this priority.")] = None,
    objective: Annotated[str | None, typer.Option(help="Such as first_response.")] = None,
    customer: Annotated[str | None, typer.Option(help="Of this customer.")] = None,
    team: Annotated[str | None, typer.Option(help="Of this team.")] = None,
    state: Annotated[str, typer.Option(help=f"Of {', '.join(OPEN_STATES)}.")] = "open",
    search: Annotated[str | None, typer.Option(help="With this in ticket, customer or title.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """
    The open promises by support time left; those that are too late come first. At another time than now, the whole log
    is read. For example: sla list --priority critical --state breached
    """
    wanted = PromiseFilter(objective, level, priority, customer, team, state, search)
    with open_for_question(data, as_of, known_at) as (store, point), refuse_wrong_usage():
        check_filter(wanted, store.read_versions(), OPEN_STATES)
        found = list_open_promises(store, point, wanted, limit)
    if output is Output.JSON:
        print_json([each.to_json(point.at) for each in found])
    else:
        print_table(ticket_status.LIST_COLUMNS, (ticket_status.build_row(each, point.at) for each in found))


@app.command("explain")
def explain_command(
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Why a ticket stands as it does: its facts, what was decided, which time counted and why, and so the deadline."""
    with open_for_question(data, as_of, known_at) as (store, point):
        found = explain_ticket(store, ticket, point)
    if found is None:
        raise CommandFailedError(f"nothing is known of ticket {ticket!r}")
    if output is Output.JSON:
        print_json(found.to_json())
    else:
        print_explanation(found)


@app.command("report")
def report_command(
    period: Annotated[str, typer.Option(help="2026-10, 2026-W41, 2026-Q4, 2026, FROM..TO or all: begun in it.")],
    by: Annotated[str, typer.Option(help=f"Of {', '.join(GROUPINGS)}: as many as wanted, with commas.")] = "",
    objective: Annotated[str | None, typer.Option(help="Of this objective alone.")] = None,
    customer: Annotated[str | None, typer.Option(help="Of this customer alone.")] = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    output: Annotated[
        ReportOutput, typer.Option("--output", "-o", help="For people, programs or sheets.")
    ] = ReportOutput.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """
    How the promises that began in a period stand: how many were kept and broken, and how fast they were fulfilled. At
    another time than now, the whole log is read, which takes longer.
    """
    with open_for_question(data, as_of, known_at) as (store, point), refuse_wrong_usage():
        found = build_report(store, point, period, [name for name in by.split(",") if name], objective, customer)
    if output is ReportOutput.JSON:
        print_json(found)
    elif output is ReportOutput.CSV:
        sys.stdout.write(format_csv(found))
    else:
        print_table(list_columns(found), build_rows(found))
