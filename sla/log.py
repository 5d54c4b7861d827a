"""The stored events of a ticket: its facts, and every decision as it was made. Nothing is decided in here.

Topics and field names are stored: a field keeps its name, and its docstring says the term where that is another one.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ClassVar, NamedTuple, get_args

import msgspec.json
from msgspec import Struct

from events.cloudevents import Trace
from events.promises import Detection, FulfilledBy
from sla.policy import FIRST_RESPONSE


class State(Struct, frozen=True, omit_defaults=True):
    """
    A promise as decided so far. Spans are support time. `next_at` is the next instant at which time alone matters, None
    if there is none; `warned` are the thresholds that were warned of or passed over, `reminded` the last span after the
    deadline at which it was reminded of; `reason` is why it was cancelled or excluded, `flags` what is odd about the
    facts. From `since`, when `used` was gone, time counts by the hours of the level and priority it is judged by,
    unless it is `stopped`; without a `since` it counts as it began. `judged_level` and `judged_priority` are None while
    they are the labels. One that is not pending and has no `due_at` never promised anything, and is in no figure.
    """

    stage: str = "pending"
    service_level: str | None = None
    priority: str | None = None
    customer: str | None = None
    title: str | None = None
    url: str | None = None
    team: str | None = None
    assignee: str | None = None
    policy_version: str | None = None
    policy_fingerprint: str | None = None
    opening_id: str | None = None
    started_at: datetime | None = None
    due_at: datetime | None = None
    target: timedelta | None = None
    at_risk_at: datetime | None = None
    warned: tuple[str, ...] = ()
    reminded: timedelta = timedelta(0)
    breached_at: datetime | None = None
    responded_at: datetime | None = None
    met: bool | None = None
    overdue: timedelta | None = None
    escalation_level: int = 0
    next_at: datetime | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    since: datetime | None = None
    used: timedelta = timedelta(0)
    stopped: bool = False
    judged_level: str | None = None
    judged_priority: str | None = None

    @property
    def kept(self) -> bool | None:
        """
        Whether the promise was kept: False if a breach is in effect, whatever became of it since; None while it runs,
        and for what was cancelled before it broke, or excluded (docs/architecture.md#rule-16).
        """
        if self.breached_at is not None:
            return False
        return True if self.stage == "fulfilled" else None

    @property
    def judged(self) -> tuple[str | None, str | None]:
        """Level and priority it is judged by, and counted under: no later label is (docs/architecture.md#rule-4)."""
        return self.judged_level or self.service_level, self.judged_priority or self.priority


class Event(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An event of the log. `at` is the time at which the broker stored the message that caused it."""

    TOPIC: ClassVar[str]
    at: datetime


class FactRecorded(Event, frozen=True, omit_defaults=True, kw_only=True):
    """Something happened to the ticket. `data` has what differs from the defaults of its type."""

    TOPIC: ClassVar[str] = "fact_recorded/1"
    type: str
    source: str
    id: str
    time: datetime
    data: dict[str, Any] = {}
    sequence: str | None = None
    flags: tuple[str, ...] = ()
    trace: Trace | None = None


class Quarantined(Event, frozen=True, omit_defaults=True, kw_only=True):
    """Judging the ticket failed by a fault of the engine: its facts are recorded, and nothing is judged any more."""

    TOPIC: ClassVar[str] = "quarantined/1"
    error: str


class Released(Event, frozen=True, omit_defaults=True, kw_only=True):
    """The ticket was judged again, and that went well; what followed comes after this."""

    TOPIC: ClassVar[str] = "released/1"


class Decision(Event, frozen=True, omit_defaults=True, kw_only=True):
    """
    What was decided about one promise: an objective, and its cycle from 1. `state` is the promise after the whole
    judgement; nothing of it is computed again at replay.
    """

    state: State
    objective: str = FIRST_RESPONSE
    cycle: int = 1


class StateUpdated(Decision, frozen=True, omit_defaults=True, kw_only=True):
    """The state changed, and there is nothing to announce: a label, or the next instant of interest."""

    TOPIC: ClassVar[str] = "state_updated/1"


class Announced(Decision, frozen=True, omit_defaults=True, kw_only=True):
    """
    A decision that is published: the instant it is about, its cause, and the support time used by then. `trace` is that
    of the fact that caused it.
    """

    KIND: ClassVar[str]
    id: str
    time: datetime
    cause: str
    cause_id: str | None
    elapsed: timedelta
    trace: Trace | None = None


class Applied(Announced, frozen=True, omit_defaults=True, kw_only=True):
    TOPIC: ClassVar[str] = "applied/1"
    KIND: ClassVar[str] = "applied"


class TargetChanged(Announced, frozen=True, omit_defaults=True, kw_only=True):
    """Another deadline. `undoes` is the superseded outcome, if it runs again after an answer; None if not."""

    TOPIC: ClassVar[str] = "target_changed/1"
    KIND: ClassVar[str] = "target_changed"
    old_due_at: datetime
    old_target: timedelta
    undoes: str | None = None


class WarningRaised(Announced, frozen=True, omit_defaults=True, kw_only=True):
    TOPIC: ClassVar[str] = "warning_raised/1"
    KIND: ClassVar[str] = "warning"
    threshold: str
    threshold_percent: int | None = None


class Breached(Announced, frozen=True, omit_defaults=True, kw_only=True):
    """`delay` is how long the engine needed to notice; `shown_at` is when the tick was stored that showed it."""

    TOPIC: ClassVar[str] = "breached/1"
    KIND: ClassVar[str] = "breached"
    number: int
    breached_at: datetime
    service_level: str
    priority: str
    severity: str
    detection: Detection
    delay: timedelta
    shown_at: datetime


class ReminderRaised(Announced, frozen=True, omit_defaults=True, kw_only=True):
    """The promise of a breach is still broken and unanswered, `after` so much support time."""

    TOPIC: ClassVar[str] = "reminder_raised/1"
    KIND: ClassVar[str] = "overdue"
    breach_id: str
    severity: str
    after: timedelta


class BreachRetracted(Announced, frozen=True, omit_defaults=True, kw_only=True):
    """Which breach is retracted, with the labels it was announced under."""

    TOPIC: ClassVar[str] = "breach_retracted/1"
    KIND: ClassVar[str] = "breach_retracted"
    breach_id: str
    number: int
    breached_at: datetime
    service_level: str
    priority: str
    severity: str
    detection: Detection
    reason: str


class Fulfilled(Announced, frozen=True, omit_defaults=True, kw_only=True):
    """
    `responded_at` is when it was fulfilled, also by closing. `replaces` and `replaced_met` are of the one before;
    `undoes` is the outcome since that it supersedes. `detection` is that of the breach it ends; without one, whether it
    was fulfilled long before the engine learned of the ticket.
    """

    TOPIC: ClassVar[str] = "fulfilled/1"
    KIND: ClassVar[str] = "fulfilled"
    responded_at: datetime
    met: bool
    overdue: timedelta
    revision: int
    replaces: str | None = None
    replaced_met: bool | None = None
    undoes: str | None = None
    detection: Detection = "live"
    fulfilled_by: FulfilledBy = "responded"


class Cancelled(Announced, frozen=True, omit_defaults=True, kw_only=True):
    """
    The clock ended without a response that counts. `undoes` is the superseded outcome, None if there was none;
    `detection` is that of the breach in effect, None without one.
    """

    TOPIC: ClassVar[str] = "cancelled/1"
    KIND: ClassVar[str] = "cancelled"
    reason: str
    undoes: str | None = None
    detection: Detection | None = None


class EscalationRaised(Announced, frozen=True, omit_defaults=True, kw_only=True):
    TOPIC: ClassVar[str] = "escalated/1"
    KIND: ClassVar[str] = "escalated"
    number: int
    source: str
    tell: list[str]
    severity: str
    reason: str | None = None


AnnouncedEvent = (
    Applied
    | TargetChanged
    | WarningRaised
    | Breached
    | ReminderRaised
    | BreachRetracted
    | Fulfilled
    | Cancelled
    | EscalationRaised
)
"""Every event that is announced. A `match` over it ends in `assert_never`, so mypy names each place to edit."""

DecidedEvent = StateUpdated | AnnouncedEvent
"""Every event that says what was decided about a promise."""

StoredEvent = FactRecorded | Quarantined | Released | DecidedEvent

STORED: tuple[type[Event], ...] = get_args(StoredEvent)
"""Every event that the log keeps."""

DECODERS = {event.TOPIC: msgspec.json.Decoder(event) for event in STORED}
"""Decoders of the state of an event, by topic."""


class LogRow(NamedTuple):
    """An event as the log keeps it, and its place in the whole log."""

    position: int
    ticket: str
    topic: str
    state: bytes


class LogEntry(NamedTuple):
    """An event with its place in the whole log."""

    position: int
    ticket: str
    event: Any


def decode_rows(rows: Iterable[LogRow], *kinds: type[Event]) -> Iterator[LogEntry]:
    """Yield the events of these kinds; the others are not decoded. Raises msgspec's errors for a broken state."""
    decoders = get_decoders(kinds)
    for position, ticket, topic, state in rows:
        if topic in decoders:
            yield LogEntry(position, ticket, decoders[topic].decode(state))


@cache
def get_decoders(kinds: tuple[type[Event], ...]) -> "dict[str, msgspec.json.Decoder[Any]]":
    return {event.TOPIC: DECODERS[event.TOPIC] for event in STORED if issubclass(event, kinds)}


class Recorded(NamedTuple):
    """An event in its place: the `originator_version`-th of its ticket, counted from 1."""

    originator_id: str
    originator_version: int
    event: Event
