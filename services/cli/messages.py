"""One ticket event from the command line: checked as the engine will check it, and sent. What it means is in sla/."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from events.tickets import TICKET_EVENT_TYPES, TicketEvent, build_ticket_message, read_ticket_event
from services.bus.publisher import Outgoing
from services.bus.streams import TICKETS
from sla.policy import Policy

EVENTS = tuple(type.removeprefix("ticket.") for type in TICKET_EVENT_TYPES)

OPTIONS = {
    "service_level": "--level",
    "priority": "--priority",
    "by": "--by",
    "reason": "--reason",
    "channel": "--channel",
    "customer": "--customer",
    "corrects": "--corrects",
    "time": "--time",
    "policy_version": "--policy-version",
}
"""The members of `data` that have an option."""


def build_fact(
    event: str,
    ticket: str,
    given: Mapping[str, str | None],
    *,
    source: str,
    id: str,
    time: datetime,
    sequence: str | None,
    ahead: timedelta,
    policy: Callable[[], Policy],
) -> tuple[TicketEvent, Outgoing]:
    """The event, and the message that says it. Raises ValueError for what the engine would refuse."""
    name = event.replace("-", "_")
    if name not in EVENTS:
        raise ValueError(f"{event!r} is not a ticket event; the events are {', '.join(EVENTS)}")
    data = {field: value for field, value in given.items() if value is not None}
    _check_options(name, data)
    if {"service_level", "priority"} & data.keys():
        _check_names(data, policy())
    if name in ("excluded", "exclusion_revoked"):
        _check_reason(data["reason"], policy())
    try:
        subject, headers, body = build_ticket_message(
            f"ticket.{name}", ticket, source=source, event_id=id, time=time, data=data, sequence=sequence
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
        field: info for field, info in TICKET_EVENT_TYPES[f"ticket.{name}"].model_fields.items() if field in OPTIONS
    }
    takes = ", ".join(OPTIONS[field] for field in fields) or "none of them"
    if extra := [OPTIONS[field] for field in data if field not in fields]:
        raise ValueError(f"{name} has no {', '.join(extra)}; it takes {takes}")
    if missing := [OPTIONS[field] for field, info in fields.items() if info.is_required() and field not in data]:
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
    """What was stored, and where."""
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
