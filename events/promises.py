"""Messages out: announcements about promises, published on the stream SLA. When they are sent is not in here."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args
from uuid import UUID, uuid5

import msgspec
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema

from events.cloudevents import CONTENT_TYPE, Trace, encode_token, format_time, parse_time
from events.times import MICROSECOND

SLA_SOURCE = "/sla"
HEADERS = {"Content-Type": CONTENT_TYPE}

_NAMESPACE = UUID("5b0f6d0e-2f5e-5f0c-9a53-6d1c1f2f7a10")  # ours; a change would announce everything again


def _convert_to_utc(time: datetime) -> datetime:
    return time.astimezone(UTC)


UtcInstant = Annotated[AwareDatetime, AfterValidator(_convert_to_utc)]
Seconds = Annotated[int | float, Field(ge=0), WithJsonSchema({"type": "number", "minimum": 0})]
Detection = Literal["live", "late", "historic"]
FulfilledBy = Literal["responded", "closed"]


def to_seconds(span: timedelta) -> int | float:
    """Convert a span to a JSON number of seconds: exact to the microsecond, an integer if it has no fraction."""
    microseconds = span // MICROSECOND
    whole, rest = divmod(microseconds, 1_000_000)
    return microseconds / 1_000_000 if rest else whole


class _ClockData(BaseModel):
    """The members of every announcement. Instants are UTC; seconds are support time, exact to the microsecond."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        model_title_generator=lambda model: model.__name__.removeprefix("Sla"),
    )
    type: ClassVar[str]

    ticket_id: str
    objective: str = "first_response"
    cycle: Annotated[int, Field(ge=1)]
    service_level: str
    priority: str
    policy_version: str
    started_at: UtcInstant
    due_at: UtcInstant
    target_seconds: Seconds
    elapsed_seconds: Seconds
    escalation_level: Annotated[int, Field(ge=0)]
    cause: str
    cause_id: Annotated[str | None, Field(description="Id of the fact that caused it; null if only time passed.")]
    detected_at: UtcInstant
    customer: str | None = None
    title: str | None = None
    url: str | None = None
    team: str | None = None
    assignee: str | None = None


class SlaApplied(_ClockData):
    """A clock started: target and deadline are known."""

    type: ClassVar[str] = "sla.applied"


class SlaTargetChanged(_ClockData):
    """The target or the deadline of a running clock changed; here are the old ones too."""

    type: ClassVar[str] = "sla.target_changed"
    old_due_at: UtcInstant
    old_target_seconds: Seconds


class SlaWarning(_ClockData):
    """A threshold of the policy is reached: so much of the target is used, or left, and nobody has answered."""

    model_config = ConfigDict(title="WarningRaised")
    type: ClassVar[str] = "sla.warning"
    threshold: Annotated[str, Field(description="As the policy writes it: 75%, or 30m before.")]
    threshold_percent: Annotated[int | None, Field(ge=1, le=99, description="Null for a span before the deadline.")]


class SlaBreached(_ClockData):
    """The promise broke. `breached_at` is the instant it broke, `detected_at` when the engine knew."""

    type: ClassVar[str] = "sla.breached"
    breach_id: str
    number: Annotated[int, Field(ge=1)]
    breached_at: UtcInstant
    severity: str
    detection: Detection


class SlaOverdue(_ClockData):
    """The promise is still broken and unanswered, `after_seconds` of support time after the deadline."""

    model_config = ConfigDict(title="ReminderRaised")
    type: ClassVar[str] = "sla.overdue"
    breach_id: str
    severity: str
    after_seconds: Seconds


class SlaBreachRetracted(_ClockData):
    """That breach turned out to be untrue; `cause_id` names the fact that showed it."""

    type: ClassVar[str] = "sla.breach_retracted"
    breach_id: str
    number: Annotated[int, Field(ge=1)]
    breached_at: UtcInstant
    severity: str
    detection: Detection
    reason: str


class SlaFulfilled(_ClockData):
    """What was promised is done. A later one of the same cycle replaces it, with the next revision."""

    type: ClassVar[str] = "sla.fulfilled"
    fulfilled_at: UtcInstant
    fulfilled_by: FulfilledBy
    responded_at: Annotated[UtcInstant | None, Field(description="When somebody responded; null if it was closed.")]
    detection: Annotated[Detection, Field(description="That of its breach; of one that was met, historic or live.")]
    met: bool
    overdue_seconds: Seconds
    revision: Annotated[int, Field(ge=1)]
    replaces: Annotated[str | None, Field(description="Id of the sla.fulfilled that this one replaces.")]


class SlaEscalated(_ClockData):
    """Somebody asked for escalation: `tell` says who is to be told. Policy section 9."""

    type: ClassVar[str] = "sla.escalated"
    tell: list[str]
    severity: str
    reason: str | None
    escalated_at: UtcInstant


class SlaCancelled(_ClockData):
    """The clock ended without what was promised."""

    type: ClassVar[str] = "sla.cancelled"
    reason: str
    detection: Annotated[Detection | None, Field(description="That of the breach in effect; null without one.")]


AnnouncementData = (
    SlaApplied
    | SlaTargetChanged
    | SlaWarning
    | SlaBreached
    | SlaOverdue
    | SlaBreachRetracted
    | SlaFulfilled
    | SlaEscalated
    | SlaCancelled
)

ANNOUNCEMENT_TYPES: dict[str, type[AnnouncementData]] = {data.type: data for data in get_args(AnnouncementData)}


def make_event_id(ticket: str, objective: str, cycle: int, kind: str, number: int, revision: int) -> str:
    """Derive the id of an announcement; the same inputs always give the same id. Only the ticket may hold a slash."""
    return str(uuid5(_NAMESPACE, f"{objective}/{cycle}/{kind}/{number}/{revision}/{ticket}"))


HISTORIC_KINDS = ("breached", "breach_retracted")
"""What has a subject of its own for an import, so that it pages nobody."""


def make_subject(kind: str, service_level: str, priority: str, ticket: str, historic: bool = False) -> str:
    """
    Return the NATS subject of an event of type `sla.<kind>`. Historic breaches and their retractions have their own, so
    they page nobody.

    Level and priority are encoded as the ticket is, so that a name with a dot adds no token.
    """
    event = f"{kind}_historic" if historic and kind in HISTORIC_KINDS else kind
    return f"sla.{event}.{encode_token(service_level)}.{encode_token(priority)}.{encode_token(ticket)}"


def build_announcement_message(
    event_type: str, event_id: str, ticket: str, time: datetime, data: Mapping[str, Any], trace: Trace | None = None
) -> tuple[dict[str, str], bytes]:
    """
    Return headers and body of a message in structured mode; `time` is the instant it is about. `data` has the fields of
    the type in ANNOUNCEMENT_TYPES, its instants in UTC; it is not validated, because only the engine makes it.
    """
    envelope = {
        "specversion": "1.0",
        "type": event_type,
        "source": SLA_SOURCE,
        "id": event_id,
        "subject": ticket,
        "time": format_time(time),
        "datacontenttype": "application/json",
        **(trace.to_attributes() if trace else {}),
        "data": data,
    }
    return HEADERS.copy(), msgspec.json.encode(envelope)


class Announcement(NamedTuple):
    """A message of the stream SLA, read back. `time` is the instant it is about."""

    id: str
    ticket: str
    time: datetime
    data: AnnouncementData


class _Envelope(msgspec.Struct):
    id: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw


_open = msgspec.json.Decoder(_Envelope).decode


def read_announcement(body: bytes) -> Announcement:
    """Read back what `build_announcement_message` made. Raises ValueError for anything else."""
    try:
        envelope = _open(body)
        data = ANNOUNCEMENT_TYPES[envelope.type].model_validate_json(bytes(envelope.data))
    except (msgspec.MsgspecError, KeyError) as error:
        raise ValueError(f"not an announcement: {error}") from None
    return Announcement(envelope.id, envelope.subject, parse_time(envelope.time), data)
