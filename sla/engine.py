"""From messages to decisions: which fact or tick a message is, whether it may count, and whose promise it concerns."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from events.cloudevents import BadFactError, Reason, check_time, decode_token, quote_value
from events.tickets import (
    Corrected,
    Excluded,
    ExclusionRevoked,
    Opened,
    PolicyChanged,
    TicketEvent,
    make_content_digest,
    make_fact_key,
    read_ticket_event,
)
from sla.judge import Fact, judge
from sla.log import Recorded
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import AFTER_ALL, Versions

MAX_FACTS = 10_000  # of one ticket
MAX_CACHED_TICKETS, MAX_CACHED_FACTS = 20_000, 200_000  # in memory between two batches; 0.8 kB a fact, measured
TICK_PREFIX = "clock.due."
UNKNOWN_TYPE = "unknown"  # of a message that is not one of ours


class Message(NamedTuple):
    """A message of the stream TICKETS: `stored_at` is the broker's time, UTC, cut to microseconds."""

    sequence: int
    stored_at: datetime
    subject: str
    headers: Mapping[str, str] | None
    body: bytes


class Tick(NamedTuple):
    """It may be time to look at a ticket. No ticket has the empty id."""

    ticket: str


class InboxRow(NamedTuple):
    """What became of one message: `key` and `digest` are None for dead letters, which claim no id."""

    sequence: int
    outcome: str
    type: str
    reason: str | None
    key: bytes | None
    digest: bytes | None
    ticket: str | None


class DeadLetter(NamedTuple):
    """A message that cannot count, and why."""

    message: Message
    reason: Reason
    error: str


@dataclass(slots=True)
class BatchOutcome:
    """What a batch of messages leads to; all of it, and the position after it, is stored in one transaction."""

    events: list[Recorded] = field(default_factory=list)
    inbox: list[InboxRow] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    position: int = 0


class EventReader(Protocol):
    """What the engine asks of the event store."""

    def load_tickets(self, tickets: Iterable[str]) -> dict[str, TicketSla]: ...
    def read_digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]: ...
    def read_versions(self) -> Versions: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How far ahead a fact may be dated, and after how long an old breach is `historic`."""

    ahead: timedelta = timedelta(minutes=5)
    historic_after: timedelta = timedelta(hours=24)


class Engine:
    """
    Takes messages in the order of the stream. Keeps the tickets it saw last in memory; whoever fails to store an
    outcome must say so with `forget`.
    """

    def __init__(self, store: EventReader, limits: Limits | None = None) -> None:
        self._store, self._limits = store, limits or Limits()
        self._versions = Versions([])
        self._tickets: OrderedDict[str, TicketSla] = OrderedDict()  # the one seen last is last
        self._facts = 0  # of these tickets

    def process(self, messages: Sequence[Message]) -> BatchOutcome:
        """Everything that follows from the messages. Raises what the store raises; BadFactError never leaves."""
        outcome = BatchOutcome(position=messages[-1].sequence)
        self._versions = (
            self._store.read_versions()
        )  # after the messages came: whatever is in force for them is published
        items = [_read_message(message) for message in messages]
        known = self._store.read_digests(
            make_fact_key(item.source, item.id) for item in items if isinstance(item, TicketEvent)
        )
        self._load_tickets([item.ticket for item in items if not isinstance(item, BadFactError)])
        for message, item in zip(messages, items, strict=True):
            match item:
                case Tick(ticket):
                    outcome.events += self._process_tick(ticket, message.stored_at)
                case TicketEvent():
                    self._process_fact(message, item, known, outcome)
                case BadFactError():
                    _refuse(message, item, outcome)
        while len(self._tickets) > MAX_CACHED_TICKETS or self._facts > MAX_CACHED_FACTS:
            self._facts -= len(self._tickets.popitem(last=False)[1].facts)
        return outcome

    def forget(self) -> None:
        """Drop what is in memory: an outcome was not stored, so tickets may be ahead of the log."""
        self._tickets.clear()
        self._facts = 0

    def refuse(self, message: Message, reason: Reason, error: str) -> BatchOutcome:
        """The outcome of a message that is dead-lettered without being looked at."""
        outcome = BatchOutcome(position=message.sequence)
        _refuse(message, BadFactError(reason, error), outcome)
        return outcome

    def _process_tick(self, id: str, now: datetime) -> list[Recorded]:
        ticket = self._tickets[id]
        if not ticket.version:
            return []  # a forged tick, of a ticket that nobody has spoken of
        return ticket.tick(self._versions, now, self._limits.historic_after)

    def _process_fact(
        self, message: Message, event: TicketEvent, known: dict[bytes, bytes], outcome: BatchOutcome
    ) -> None:
        key, digest = make_fact_key(event.source, event.id), make_content_digest(event)
        try:
            if self._accept(event, message.stored_at, known.get(key), digest):
                ticket = self._tickets[event.ticket]
                outcome.events += ticket.record(event, self._versions, message.stored_at, self._limits.historic_after)
                self._facts += 1
                outcome.inbox.append(
                    InboxRow(message.sequence, "recorded", event.type, None, key, digest, event.ticket)
                )
                known[key] = digest
            else:
                outcome.inbox.append(
                    InboxRow(message.sequence, "duplicate", event.type, None, None, None, event.ticket)
                )
        except BadFactError as error:
            error.type = event.type
            _refuse(message, error, outcome)

    def _accept(self, event: TicketEvent, stored_at: datetime, known: bytes | None, digest: bytes) -> bool:
        """False for a duplicate. Raises BadFactError in the order of section 3, after what `read` has checked."""
        ticket = self._tickets[event.ticket]
        _check_names(event, self._versions, ticket.state.policy_version, stored_at)
        check_time(event.time, stored_at, self._limits.ahead)
        if isinstance(event.data, Corrected) and event.data.time is not None:
            check_time(event.data.time, stored_at, timedelta(0))  # a clock that has run never has to begin again
        if known is not None and known != digest:
            raise BadFactError(
                Reason.ID_CONFLICT,
                f"id {quote_value(event.id)} of source {quote_value(event.source)} is already another fact; "
                "the first one stays: give the new fact its own id",
            )
        if known is None and len(ticket.facts) >= MAX_FACTS:
            raise BadFactError(
                Reason.TOO_MANY_FACTS,
                f"ticket {quote_value(event.ticket)} has {MAX_FACTS} facts, the limit; look at the publisher",
            )
        leads_elsewhere = isinstance(event.data, Opened | Corrected | PolicyChanged) or ticket.facts.moves
        if known is None and leads_elsewhere and len(self._versions) > 1 and ticket.version:
            _check_course(event, ticket, self._versions)
        return known is None

    def _load_tickets(self, ids: Sequence[str]) -> None:
        """Brings tickets to mind, those that do not exist yet too: one question to the store for the whole batch."""
        missing = {id for id in ids if id not in self._tickets}
        found = self._store.load_tickets(missing) if missing else {}
        self._tickets.update((id, found.get(id) or TicketSla(id)) for id in missing)
        self._facts += sum(len(ticket.facts) for ticket in found.values())
        for id in ids:
            self._tickets.move_to_end(id)


def _read_message(message: Message) -> TicketEvent | Tick | BadFactError:
    try:
        if message.subject.startswith(TICK_PREFIX):
            return _read_tick(message.subject)
        return read_ticket_event(message.body, message.headers, message.subject)
    except BadFactError as error:
        return error


def _read_tick(subject: str) -> Tick:
    """The ticket is all that counts. A tick that names none concerns nobody, and leaves no trace (decision 2)."""
    try:
        ticket = decode_token(subject.removeprefix(TICK_PREFIX))
    except ValueError:
        ticket = ""
    return Tick(ticket if ticket.isprintable() else "")  # no id of a ticket; a store need not know such a text


def _check_names(event: TicketEvent, versions: Versions, judged_by: str | None, stored_at: datetime) -> None:
    """Levels, priorities, reasons and versions are compared exactly; nothing gets a default."""
    if isinstance(event.data, Opened):
        policy = versions.find_for_opening(event.data, event.time, stored_at)
    else:
        policy = versions.get_in_force(event.time) if judged_by is None else versions.get_named(judged_by)
    level: str | None = getattr(event.data, "service_level", None)
    priority: str | None = getattr(event.data, "priority", None)
    match event.data:
        case Excluded(reason=reason) | ExclusionRevoked(reason=reason):
            if not policy.can_exclude(reason):
                raise BadFactError(
                    Reason.INVALID_DATA, describe_unknown("data.reason", reason, policy, policy.exclusions)
                )
        case PolicyChanged(policy_version=version):
            if version not in (known := [each.name for each in versions]):
                raise BadFactError(Reason.INVALID_DATA, describe_unknown("data.policy_version", version, policy, known))
    if level is not None and level not in policy.levels:
        raise BadFactError(
            Reason.UNKNOWN_SERVICE_LEVEL, describe_unknown("service level", level, policy, policy.levels)
        )
    if priority is not None and priority not in policy.priorities:
        raise BadFactError(Reason.UNKNOWN_PRIORITY, describe_unknown("priority", priority, policy, policy.priorities))


def _check_course(event: TicketEvent, ticket: TicketSla, versions: Versions) -> None:
    """Versions may differ in their names: each that this ticket is judged by must have all that its facts name."""
    fact = Fact(event.source, event.id, event.time, event.data, event.sequence, event.time)
    try:
        judge(ticket.facts.copy_with(fact), versions, AFTER_ALL)
    except KeyError as error:
        raise BadFactError(
            Reason.INVALID_DATA,
            f"{error.args[0]}, by which ticket {quote_value(event.ticket)} would be judged from then on",
        ) from None


def describe_unknown(what: str, name: str, policy: Policy, names: Iterable[str]) -> str:
    return (
        f"{what} {quote_value(name)} is not in policy {policy.name} ({', '.join(names)}); add it or fix the publisher"
    )


def _refuse(message: Message, error: BadFactError, outcome: BatchOutcome) -> None:
    type = error.type or UNKNOWN_TYPE
    outcome.inbox.append(InboxRow(message.sequence, "dead_letter", type, str(error.reason), None, None, None))
    outcome.dead.append(DeadLetter(message, error.reason, error.message))
