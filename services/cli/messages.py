"""Commands on messages: publish a ticket event, watch announcements. What a ticket event means is in sla/."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import typer
from nats.aio.client import Client

from events.cloudevents import quote_value
from events.promises import ANNOUNCEMENT_TYPES, read_announcement
from events.tickets import TICKET_EVENT_TYPES, TicketEvent, build_ticket_message, read_ticket_event
from events.times import parse_instant
from services.bus.publisher import Outgoing, Publisher
from services.bus.reader import StreamReader
from services.bus.streams import SLA, TICKETS, read_last_sequence
from services.cli.options import DEFAULT_DATA, As, Data, Output, UsageError, create_app, print_message
from services.cli.resources import read_policy_in_force, run_on_bus
from services.cli.settings import read_settings, refuse_wrong_usage
from services.cli.terminal import print_json, print_line
from services.errors import BUS_ERRORS
from services.text.formats import format_wall_time
from services.text.phrases import write_details
from sla.policy import Policy

app = create_app()
_decode = msgspec.json.Decoder(dict[str, Any]).decode


# ---- publish


EVENT_NAMES = tuple(name.removeprefix("ticket.") for name in TICKET_EVENT_TYPES)

DATA_OPTIONS = {
    "service_level": "--level",
    "priority": "--priority",
    "by": "--by",
    "reason": "--reason",
    "channel": "--channel",
    "customer": "--customer",
    "title": "--title",
    "url": "--url",
    "team": "--team",
    "assignee": "--assignee",
    "corrects": "--corrects",
    "withdraws": "--withdraws",
    "time": "--time",
    "policy_version": "--policy-version",
}
"""The members of `data` that have an option."""


@app.command("publish")
def publish_command(
    event: Annotated[str, typer.Argument(help="What happened: opened, priority_changed, responded, escalated, …")],
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    level: Annotated[str | None, typer.Option(help="The service level.")] = None,
    priority: Annotated[str | None, typer.Option(help="The priority.")] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Who responded: agent, automation; how it was escalated: ticket, account_manager, mailbox."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    channel: Annotated[str | None, typer.Option(help="How: email, portal, phone, …")] = None,
    customer: Annotated[str | None, typer.Option(help="Whose ticket it is.")] = None,
    title: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    url: Annotated[str | None, typer.Option(help="Where the helpdesk shows it.")] = None,
    team: Annotated[str | None, typer.Option(help="The team that has it.")] = None,
    assignee: Annotated[str | None, typer.Option(help="Who has it.")] = None,
    corrects: Annotated[str | None, typer.Option(help="The id of the fact that is replaced.")] = None,
    withdraws: Annotated[str | None, typer.Option(help="The id of the fact that never happened.")] = None,
    right_time: Annotated[str | None, typer.Option("--time", help="When the corrected fact happened.")] = None,
    policy_version: Annotated[str | None, typer.Option(help="The version the ticket moves to.")] = None,
    at: Annotated[str | None, typer.Option(help="When it happened, with offset; now, if not given.")] = None,
    source: Annotated[str, typer.Option(help="Who says so.")] = "/cli",
    fact_id: Annotated[str | None, typer.Option("--id", help="The id of the fact; a new one, if not given.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Orders facts of one instant.")] = None,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Publish one ticket event, and wait until the bus has stored it."""
    given = {"service_level": level, "priority": priority, "by": by, "reason": reason}
    with refuse_wrong_usage():
        fact, message = build_fact(
            event,
            ticket,
            given
            | {"channel": channel, "customer": customer, "corrects": corrects, "withdraws": withdraws}
            | {"title": title, "url": url, "team": team, "assignee": assignee}
            | {"time": right_time, "policy_version": policy_version},
            source=source,
            event_id=str(uuid4()) if fact_id is None else fact_id,
            time=datetime.now(UTC) if at is None else parse_instant(at),
            sequence=sequence,
            ahead=read_settings().max_ahead,
            policy=lambda: read_policy_in_force(data),
        )
    published = run_on_bus("publish", data, lambda nc: Publisher(nc, TICKETS).publish([message]))
    receipt = build_receipt(fact, message, published[0].sequence)
    if output is Output.JSON:
        print_json(receipt)
    else:
        typer.echo(f"stored as {receipt['sequence']} in {TICKETS}: {fact.type} {fact.ticket}, id {fact.id}")


def build_fact(
    event: str,
    ticket: str,
    given: Mapping[str, str | None],
    *,
    source: str,
    event_id: str,
    time: datetime,
    sequence: str | None,
    ahead: timedelta,
    policy: Callable[[], Policy],
) -> tuple[TicketEvent, Outgoing]:
    """Return the event, and the message that carries it. Raises ValueError for what the engine would refuse."""
    name = event.replace("-", "_")
    if name not in EVENT_NAMES:
        raise ValueError(f"{event!r} is not a ticket event; the events are {', '.join(EVENT_NAMES)}")
    data = {field: value for field, value in given.items() if value is not None}
    _check_options(name, data)
    if {"service_level", "priority"} & data.keys():
        _check_names(data, policy())
    if name in ("excluded", "exclusion_revoked"):
        _check_reason(data["reason"], policy())
    try:
        subject, headers, body = build_ticket_message(
            f"ticket.{name}", ticket, source=source, event_id=event_id, time=time, data=data, sequence=sequence
        )
    except UnicodeEncodeError:
        raise ValueError("an argument is not text in UTF-8") from None
    if time - datetime.now(UTC) > ahead:
        raise ValueError(
            f"{time:%Y-%m-%dT%H:%M:%SZ} is more than {ahead} (SLA_MAX_AHEAD) ahead; publish what has happened"
        )
    return read_ticket_event(body, headers, subject), Outgoing(subject, headers, body)


def _check_options(name: str, data: Mapping[str, str]) -> None:
    fields = {
        field: info
        for field, info in TICKET_EVENT_TYPES[f"ticket.{name}"].model_fields.items()
        if field in DATA_OPTIONS
    }
    takes = ", ".join(DATA_OPTIONS[field] for field in fields) or "none of them"
    if extra := [DATA_OPTIONS[field] for field in data if field not in fields]:
        raise ValueError(f"{name} has no {', '.join(extra)}; it takes {takes}")
    if missing := [DATA_OPTIONS[field] for field, info in fields.items() if info.is_required() and field not in data]:
        raise ValueError(f"{name} needs {', '.join(missing)}; it takes {takes}")


def _check_names(data: Mapping[str, str], policy: Policy) -> None:
    for field, what, names in (
        ("service_level", "service level", tuple(policy.levels)),
        ("priority", "priority", policy.priorities),
    ):
        if field in data and data[field] not in names:
            raise ValueError(f"{what} {data[field]!r} is not in policy {policy.name}; it has {', '.join(names)}")


def _check_reason(reason: str, policy: Policy) -> None:
    if not policy.can_exclude(reason):
        raise ValueError(f"reason {reason!r} is not in policy {policy.name}; it has {', '.join(policy.exclusions)}")


def build_receipt(event: TicketEvent, message: Outgoing, sequence: int) -> dict[str, object]:
    """Return what was stored, and where."""
    return {
        "stream": TICKETS,
        "sequence": sequence,
        "subject": message.subject,
        "type": event.type,
        "ticket_id": event.ticket,
        "source": event.source,
        "id": event.id,
        "time": event.time,
    }


# ---- watch


KINDS = tuple(name.removeprefix("sla.") for name in ANNOUNCEMENT_TYPES)


@app.command("watch")
def watch_command(
    only: Annotated[
        list[str] | None, typer.Option(help="One kind of event, such as breached; may be repeated.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Begin with the oldest event that is kept, not with now.")
    ] = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """Follow what becomes of the promises, until Ctrl-C."""
    wanted = {name.removeprefix("sla.").replace("-", "_") for name in only or KINDS}
    if unknown := wanted.difference(KINDS):
        raise UsageError(f"{', '.join(sorted(unknown))}: no such kind; the kinds are {', '.join(KINDS)}")

    async def print_announcements(nc: Client) -> None:
        async for event in read_announcements(nc, everything):
            if get_kind(event) not in wanted:
                continue
            if output is Output.JSON:
                print_json(event)
            else:
                print_line(*build_cells(event))

    run_on_bus("watch", data, print_announcements, stopped=0)


async def read_announcements(nc: Client, everything: bool) -> AsyncIterator[dict[str, Any]]:
    """
    Yield the events of SLA from now on, or from the oldest that is kept. After an outage it goes on where it was, and
    says so on stderr. Raises BusError if there is no stream at the beginning.
    """
    after = 0 if everything else await read_last_sequence(nc, SLA)
    reader = StreamReader(nc, SLA, after)
    await reader.start()
    print_message(f"following {SLA} after sequence {after}; Ctrl-C ends")
    last_problem = ""
    while True:
        try:
            messages, last_problem = await reader.read_batch(), ""
        except (*BUS_ERRORS, OSError) as error:
            problem = f"waiting for the bus: {str(error) or type(error).__name__}"
            if problem != last_problem:
                print_message(problem)
            last_problem = problem
            await asyncio.sleep(1)
            continue
        for message in messages:
            try:
                yield _decode(message.body)
            except msgspec.MsgspecError:
                print_message(
                    f"message {message.sequence} on {quote_value(message.subject)} is not one of ours; it is left out"
                )


def get_kind(event: dict[str, Any]) -> str:
    """Return the type without its prefix: `breached` of `sla.breached`."""
    return str(event.get("type", "")).removeprefix("sla.")


def build_cells(event: dict[str, Any]) -> tuple[str, ...]:
    """Return the line for people: when, what, which ticket, and what else counts."""
    data = event.get("data", {})
    at = format_wall_time(datetime.fromisoformat(event["time"]), None)
    return (
        at,
        f"{get_kind(event):<16}",
        str(event.get("subject")),
        f"{data.get('service_level')} {data.get('priority')}",
        _write_details(event),
    )


def _write_details(event: dict[str, Any]) -> str:
    try:
        return write_details(read_announcement(msgspec.json.encode(event)).data)
    except ValueError:  # of an engine that is newer than this command
        due_at = event.get("data", {}).get("due_at")
        return "" if due_at is None else f"due {due_at}"
