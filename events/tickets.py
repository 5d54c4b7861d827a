"""Messages in: facts about a ticket, published by other systems. What follows from a fact is not in here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from events.cloudevents import (
    CONTENT_TYPE,
    MAX_NAME,
    TIME_SCHEMA,
    BadFactError,
    Reason,
    Trace,
    decode_token,
    encode_token,
    format_time,
    open_envelope,
    parse_time,
    quote_value,
    read_trace,
)


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("every character must be printable (Python's str.isprintable)")
    return text


def _parse_instant(time: object) -> object:
    return parse_time(time) if isinstance(time, str) else time


Channel = Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_check_printable)]
LONGEST = {"customer": 200, "title": 200, "url": 2000, "team": 200, "assignee": 200, "reason": 500}  # characters
Label = Annotated[str, Field(description="Decides nothing; cut at 200 characters, without control characters.")]
Url = Annotated[str, Field(description="Of the ticket in the helpdesk, http or https; cut at 2,000 characters.")]
FreeText = Annotated[str, Field(description="Decides nothing; cut at 500 characters, without control characters.")]
ExclusionReason = Annotated[str, Field(min_length=1, max_length=500)]
Instant = Annotated[datetime, BeforeValidator(_parse_instant), WithJsonSchema(TIME_SCHEMA)]
Responder = Literal["agent", "automation"]
Escalator = Literal["ticket", "account_manager", "mailbox"]


class _TicketEventData(BaseModel):
    """Values as sent: never coerced. Unknown members are ignored, so that publishers may be newer than we are."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    type: ClassVar[str]


class _Labelled(_TicketEventData):
    """The labels of a ticket, by which nothing is decided: never a reason to refuse a fact."""

    customer: Label | None = None
    title: Label | None = None
    url: Url | None = None
    team: Label | None = None
    assignee: Label | None = None


class Opened(_Labelled):
    """A ticket was opened: the promise starts to run."""

    type: ClassVar[str] = "ticket.opened"
    service_level: str
    priority: str
    channel: Channel | None = None


class DetailsChanged(_Labelled):
    """Labels of the ticket are others from now on; no clock moves."""

    type: ClassVar[str] = "ticket.details_changed"


class PriorityChanged(_TicketEventData):
    """The ticket has another priority from now on, and so another target."""

    type: ClassVar[str] = "ticket.priority_changed"
    priority: str


class Responded(_TicketEventData):
    """Somebody answered. An automatic acknowledgement is not a first response."""

    type: ClassVar[str] = "ticket.responded"
    by: Responder = "agent"
    channel: Channel | None = None


class Escalated(_TicketEventData):
    """Somebody asked for escalation: in the ticket, through the account manager, or by mail."""

    type: ClassVar[str] = "ticket.escalated"
    by: Escalator | None = None
    reason: FreeText | None = None


class ServiceLevelChanged(_TicketEventData):
    """The customer has another service level from now on."""

    type: ClassVar[str] = "ticket.service_level_changed"
    service_level: str


class Closed(_TicketEventData):
    """The ticket was closed."""

    type: ClassVar[str] = "ticket.closed"
    reason: FreeText | None = None


class Reopened(_TicketEventData):
    """A closed ticket goes on."""

    type: ClassVar[str] = "ticket.reopened"
    reason: FreeText | None = None


class Excluded(_TicketEventData):
    """The promise does not apply, for one of the reasons of policy section 7."""

    type: ClassVar[str] = "ticket.excluded"
    reason: ExclusionReason


class ExclusionRevoked(_TicketEventData):
    """The exclusion for this reason never held."""

    type: ClassVar[str] = "ticket.exclusion_revoked"
    reason: ExclusionReason


class Paused(_TicketEventData):
    """Work waits for somebody else."""

    type: ClassVar[str] = "ticket.paused"
    reason: FreeText | None = None


class Resumed(_TicketEventData):
    """Work goes on."""

    type: ClassVar[str] = "ticket.resumed"
    reason: FreeText | None = None


class Corrected(_Labelled):
    """An earlier fact was wrong: the id of the fact this one replaces, and the right values."""

    type: ClassVar[str] = "ticket.corrected"
    corrects: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    service_level: str | None = None
    priority: str | None = None
    channel: Channel | None = None
    by: Responder | Escalator | None = None
    reason: FreeText | None = None
    time: Instant | None = None


class FactWithdrawn(_TicketEventData):
    """An earlier fact never happened: the id of that fact, of the same source."""

    type: ClassVar[str] = "ticket.fact_withdrawn"
    withdraws: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class CustomerReplied(_TicketEventData):
    """The customer wrote again: where the policy promises a next response, it starts to run."""

    type: ClassVar[str] = "ticket.customer_replied"
    channel: Channel | None = None


class PolicyChanged(_TicketEventData):
    """The ticket is judged by another version of the policy from now on; `sla policy migrate` says so."""

    type: ClassVar[str] = "ticket.policy_changed"
    policy_version: Annotated[str, Field(min_length=1, max_length=32)]


TicketData = (
    Opened
    | PriorityChanged
    | Responded
    | Escalated
    | ServiceLevelChanged
    | Closed
    | Reopened
    | Excluded
    | ExclusionRevoked
    | Paused
    | Resumed
    | Corrected
    | PolicyChanged
    | CustomerReplied
    | DetailsChanged
    | FactWithdrawn
)

TICKET_EVENT_TYPES: dict[str, type[TicketData]] = {data.type: data for data in get_args(TicketData)}


@dataclass(frozen=True, slots=True)
class TicketEvent:
    """
    One fact about a ticket. `time` is when it happened, in UTC; it may still be out of range (see check_time). `flags`
    say what was done to its labels.
    """

    source: str
    id: str
    type: str
    ticket: str
    time: datetime
    data: TicketData
    sequence: str | None = None
    flags: tuple[str, ...] = ()
    trace: Trace | None = None


def read_ticket_event(body: bytes, headers: Mapping[str, str] | None, subject: str) -> TicketEvent:
    """
    Read the fact in a message of subject `tickets.<event>.<ticket>`; the body decides, the event token is not compared.

    Raises BadFactError, the first that applies of too_large, malformed, unknown_type, invalid_data, wrong_subject.
    Whether the policy knows level and priority, and whether the time can be right, is for the engine to check.
    """
    envelope = open_envelope(body, headers)
    data_type = TICKET_EVENT_TYPES.get(envelope.type)
    if data_type is None:
        raise BadFactError(
            Reason.UNKNOWN_TYPE, f"type {quote_value(envelope.type)} is not a ticket event; see events/schemas"
        )
    try:
        members, flags = clean_labels(envelope.read_data(LONGEST), data_type)
        data = _read_data(data_type, members)
        ticket = _read_ticket(envelope.attributes.get("subject"))
        time = _read_time(envelope.attributes.get("time"))
        sequence = _read_sequence(envelope.attributes.get("sequence"))
        _check_subject(subject, ticket)
    except BadFactError as error:
        error.type = envelope.type
        raise
    trace = read_trace(envelope.attributes)
    return TicketEvent(envelope.source, envelope.id, envelope.type, ticket, time, data, sequence, flags, trace)


LABEL_CUT, LABEL_CLEANED = "label_cut", "label_cleaned"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_labels(members: dict[str, object], data_type: type[TicketData]) -> tuple[dict[str, object], tuple[str, ...]]:
    """
    Return the members with labels as they are kept, and a flag for each thing that was done: cut, or cleaned of control
    characters and of what is no text, or no address.
    """
    decides = ("reason",) if data_type in (Excluded, ExclusionRevoked) else ()
    names = [name for name in LONGEST if members.get(name) is not None and name in data_type.model_fields]
    kept, flags = dict(members), dict[str, None]()
    for name in (name for name in names if name not in decides):
        given = members[name]
        text = str(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
        text = _CONTROLS.sub("", text)
        if name == "url" and not re.match(r"https?://", text):
            text = ""
        if text != given:
            flags[LABEL_CLEANED] = None
        if len(text) > LONGEST[name]:
            flags[LABEL_CUT] = None
        kept[name] = text[: LONGEST[name]] or None
    return kept, tuple(sorted(flags))


def _read_data(data_type: type[TicketData], members: dict[str, object]) -> TicketData:
    """Validate the members of `data`; an explicit null is an absent member. Raises BadFactError invalid_data."""
    if None in members.values():
        members = {name: value for name, value in members.items() if value is not None}
    try:
        return data_type.model_validate(members)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = "is missing" if first["type"] == "missing" else f"is {quote_value(first['input'])}: {first['msg']}"
        raise BadFactError(
            Reason.INVALID_DATA, f"data.{where} {found}; see events/schemas/{data_type.type}.json"
        ) from None


def _read_ticket(subject: object) -> str:
    if not isinstance(subject, str) or not 1 <= len(subject) <= 128 or not subject.isprintable():
        raise BadFactError(
            Reason.INVALID_DATA, f"subject is {quote_value(subject)}; a ticket id has 1 to 128 printable characters"
        )
    if subject[0] == " " or subject[-1] == " ":
        raise BadFactError(
            Reason.INVALID_DATA, f"subject is {quote_value(subject)}; a ticket id has no space at its ends"
        )
    return subject


def _read_time(time: object) -> datetime:
    if not isinstance(time, str):
        raise BadFactError(
            Reason.INVALID_DATA, f"time is {quote_value(time)}; it must be a string like 2026-11-20T16:00:00Z"
        )
    try:
        return parse_time(time)
    except ValueError as error:
        raise BadFactError(Reason.INVALID_DATA, f"time: {error}") from None


def _read_sequence(sequence: object) -> str | None:
    """
    Read the CloudEvents extension `sequence`; JSON integers are accepted too, anything else counts as absent. Raises
    BadFactError invalid_data for one that is too long.
    """
    if isinstance(sequence, int) and not isinstance(sequence, bool):
        sequence = str(sequence)
    if not isinstance(sequence, str):
        return None
    if len(sequence) > MAX_NAME:
        raise BadFactError(
            Reason.INVALID_DATA, f"sequence is {quote_value(sequence)}; it has at most {MAX_NAME} characters"
        )
    return sequence or None


def _check_subject(subject: str, ticket: str) -> None:
    tokens = subject.split(".")
    try:
        if len(tokens) == 3 and decode_token(tokens[2]) == ticket:
            return
    except ValueError:
        pass
    raise BadFactError(
        Reason.WRONG_SUBJECT,
        f"published on {quote_value(subject)}, but the ticket is {quote_value(ticket)}; "
        f"publish on tickets.<event>.{encode_token(ticket)}",
    )


def make_fact_key(source: str, event_id: str) -> bytes:
    """Return the idempotency key of a fact: a 16-byte hash of (source, id), which U+0000 keeps apart."""
    return blake2b(f"{source}\0{event_id}".encode(), digest_size=16).digest()


def make_content_digest(event: TicketEvent) -> bytes:
    """Return a digest of what a fact says: 16 bytes over type, ticket, instant, and data that is not the default."""
    content = [event.type, event.ticket, event.time, event.data.model_dump(exclude_defaults=True)]
    return blake2b(msgspec.json.encode(content, order="sorted"), digest_size=16).digest()


def build_ticket_message(
    event_type: str,
    ticket: str,
    *,
    source: str,
    event_id: str,
    time: datetime,
    data: Mapping[str, Any],
    sequence: str | None = None,
    trace: Trace | None = None,
) -> tuple[str, dict[str, str], bytes]:
    """Build what a publisher sends: NATS subject, headers and body in structured mode. Nothing is checked here."""
    envelope: dict[str, object] = {
        "specversion": "1.0",
        "type": event_type,
        "source": source,
        "id": event_id,
        "subject": ticket,
        "time": format_time(time),
        "datacontenttype": "application/json",
        "data": data,
    }
    if sequence is not None:
        envelope["sequence"] = sequence
    if trace is not None:
        envelope |= trace.to_attributes()
    subject = f"tickets.{event_type.removeprefix('ticket.')}.{encode_token(ticket)}"
    return subject, {"Content-Type": CONTENT_TYPE}, msgspec.json.encode(envelope)
