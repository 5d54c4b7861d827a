"""From messages to decisions: which fact or tick a message is, whether it may count, and which ticket it is about."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
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
from sla.log import Recorded
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import Versions

MAX_FACTS = 10_000  # of one ticket
MAX_CACHED_TICKETS, MAX_CACHED_BYTES = 20_000, 160_000_000  # in memory between two batches, estimated
TICK_PREFIX = "clock.due."
RETRY_HEADER = "Sla-Retry"  # of a tick: judge the ticket again, should it be quarantined
UNKNOWN_TYPE = "unknown"  # of a message that is not one of ours


class Message(NamedTuple):
    """A message of the stream TICKETS: `stored_at` is the broker's time, UTC, cut to microseconds."""

    sequence: int
    stored_at: datetime
    subject: str
    headers: Mapping[str, str] | None
    body: bytes


class Tick(NamedTuple):
    """It may be time to look at a ticket; with `retries` at one that is quarantined too. No ticket has the empty id."""

    ticket: str
    retries: bool = False


class OwnFaultError(Exception):
    """
    A fault of the engine, met by reading or judging one message: neither the store nor the bus is to blame. The text is
    what was raised; `is_judging` says that the message was read, and that it may be recorded.
    """

    def __init__(self, text: str, *, is_judging: bool) -> None:
        super().__init__(text)
        self.is_judging = is_judging


@contextmanager
def blame_message(*, is_judging: bool) -> Iterator[None]:
    """
    Raise OwnFaultError for whatever else than BadFactError is raised in here: only pure work on one message is done in
    it, so that nothing else can be at fault (docs/architecture.md#decision-8).
    """
    try:
        yield
    except (BadFactError, MemoryError):
        raise
    except Exception as error:
        raise OwnFaultError(repr(error), is_judging=is_judging) from error


class InboxRow(NamedTuple):
    """The outcome of one message. `key` and `digest` are None for dead letters, which claim no id, and duplicates."""

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
    """What a batch of messages leads to, committed in one transaction; `last_sequence` is the checkpoint after it."""

    events: list[Recorded] = field(default_factory=list)
    inbox: list[InboxRow] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    last_sequence: int = 0


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
    Processes messages in the order of the stream. Keeps the tickets used last in memory: if an outcome could not be
    stored, `forget` must be called.
    """

    def __init__(self, store: EventReader, limits: Limits | None = None) -> None:
        self._store, self._limits = store, limits or Limits()
        self._versions = Versions([])
        self._tickets: OrderedDict[str, TicketSla] = OrderedDict()  # the one used last is last
        self._sizes: dict[str, int] = {}  # of those, as last counted
        self._bytes = 0  # of all of them

    def process(self, messages: Sequence[Message], progress: Callable[[], None] = lambda: None) -> BatchOutcome:
        """
        Return what follows from the messages; `progress` is called before each. Raises what the store raises, and
        OwnFaultError if it is a message that cannot be processed; a BadFactError is a dead letter.
        """
        outcome = BatchOutcome(last_sequence=messages[-1].sequence)
        items, known = self._prepare(messages)
        for message, item in zip(messages, items, strict=True):
            progress()
            if isinstance(item, BadFactError):
                _refuse(message, item, outcome)
                continue
            ticket, fact_id = self._tickets[item.ticket], None
            if isinstance(item, TicketEvent):
                if not self._record(message, item, known, outcome):
                    continue
                fact_id = item.id
            elif not ticket.version:
                continue  # a tick that is forged: the ticket has no facts
            elif item.retries and ticket.quarantined:
                outcome.events.append(ticket.release(message.stored_at))
            with blame_message(is_judging=True):
                outcome.events += ticket.decide(self._versions, message.stored_at, self._limits.historic_after, fact_id)
        self._evict_tickets(item.ticket for item in items if not isinstance(item, BadFactError))
        return outcome

    def quarantine(self, message: Message, error: str) -> BatchOutcome:
        """
        Return the outcome of a message that cannot be judged: its fact is recorded, and its ticket is set aside. Raises
        what `process` raises.
        """
        outcome = BatchOutcome(last_sequence=message.sequence)
        (item,), known = self._prepare([message])
        if isinstance(item, TicketEvent):
            self._record(message, item, known, outcome)
        if not isinstance(item, BadFactError) and (ticket := self._tickets[item.ticket]).version:
            outcome.events.append(ticket.quarantine(error, message.stored_at))
        return outcome

    def _prepare(
        self, messages: Sequence[Message]
    ) -> tuple[list[TicketEvent | Tick | BadFactError], dict[bytes, bytes]]:
        """Return what the messages are, and the digests of the facts that are known; all their tickets are loaded."""
        self._versions = self._store.read_versions()  # after the messages, so that all in force for them are known
        items = [_read_message(message) for message in messages]
        known = self._store.read_digests(
            make_fact_key(item.source, item.id) for item in items if isinstance(item, TicketEvent)
        )
        self._load_tickets([item.ticket for item in items if not isinstance(item, BadFactError)])
        return items, known

    def forget(self) -> None:
        """Drop what is in memory: an outcome was not stored, so tickets may be ahead of the log."""
        self._tickets.clear()
        self._sizes.clear()
        self._bytes = 0

    def refuse(self, message: Message, reason: Reason, error: str) -> BatchOutcome:
        """Return the outcome of a message that is dead-lettered without being looked at."""
        outcome = BatchOutcome(last_sequence=message.sequence)
        _refuse(message, BadFactError(reason, error), outcome)
        return outcome

    def _record(self, message: Message, event: TicketEvent, known: dict[bytes, bytes], outcome: BatchOutcome) -> bool:
        """Record a fact, if it is new and may count, with its inbox row. Return whether it was recorded."""
        key, digest = make_fact_key(event.source, event.id), make_content_digest(event)
        try:
            with blame_message(is_judging=False):
                is_new = self._accept(event, message.stored_at, known.get(key), digest)
        except BadFactError as error:
            error.type = event.type
            _refuse(message, error, outcome)
            return False
        if not is_new:
            outcome.inbox.append(InboxRow(message.sequence, "duplicate", event.type, None, None, None, event.ticket))
            return False
        with blame_message(is_judging=False):
            outcome.events.append(self._tickets[event.ticket].record(event, message.stored_at))
        outcome.inbox.append(InboxRow(message.sequence, "recorded", event.type, None, key, digest, event.ticket))
        known[key] = digest
        return True

    def _accept(self, event: TicketEvent, stored_at: datetime, known: bytes | None, digest: bytes) -> bool:
        """
        Return whether the fact is new; False for a duplicate. Raises BadFactError for the first rule that it breaks,
        in this order, after those of `read_ticket_event`.
        """
        if known == digest:
            return False
        _check_names(event, self._versions, stored_at)
        check_time(event.time, stored_at, self._limits.ahead)
        if isinstance(event.data, Corrected) and event.data.time is not None:
            check_time(event.data.time, stored_at, timedelta(0))  # a clock that has run never has to begin again
        if known is not None:
            raise BadFactError(
                Reason.ID_CONFLICT,
                f"id {quote_value(event.id)} of source {quote_value(event.source)} is already another fact; "
                "the first one stays: give the new fact its own id",
            )
        if len(self._tickets[event.ticket].facts) >= MAX_FACTS:
            raise BadFactError(
                Reason.TOO_MANY_FACTS,
                f"ticket {quote_value(event.ticket)} has {MAX_FACTS} facts, the limit; look at the publisher",
            )
        return True

    def _load_tickets(self, tickets: Sequence[str]) -> None:
        """Load tickets that are not in memory, with one question to the store; those that do not exist are new."""
        missing = {ticket for ticket in tickets if ticket not in self._tickets}
        found = self._store.load_tickets(missing) if missing else {}
        self._tickets.update((ticket, found.get(ticket) or TicketSla(ticket)) for ticket in missing)
        for ticket in tickets:
            self._tickets.move_to_end(ticket)

    def _evict_tickets(self, used: Iterable[str]) -> None:
        """Count what the tickets that were used take now, and drop those used longest ago while all take too much."""
        for id in used:
            self._bytes += self._tickets[id].size - self._sizes.get(id, 0)
            self._sizes[id] = self._tickets[id].size
        while len(self._tickets) > MAX_CACHED_TICKETS or self._bytes > MAX_CACHED_BYTES:
            id, _ = self._tickets.popitem(last=False)
            self._bytes -= self._sizes.pop(id, 0)


def _read_message(message: Message) -> TicketEvent | Tick | BadFactError:
    try:
        with blame_message(is_judging=False):
            if message.subject.startswith(TICK_PREFIX):
                return _read_tick(message.subject, RETRY_HEADER in (message.headers or {}))
            return read_ticket_event(message.body, message.headers, message.subject)
    except BadFactError as error:
        return error


def _read_tick(subject: str, retries: bool) -> Tick:
    """
    Read the ticket, which is all that counts. A tick that names none concerns nobody, and leaves no trace
    (docs/architecture.md#decision-2).
    """
    try:
        ticket = decode_token(subject.removeprefix(TICK_PREFIX))
    except ValueError:
        ticket = ""
    return Tick(ticket if ticket.isprintable() else "", retries)  # no id of a ticket; a store need not know such a text


def _check_names(event: TicketEvent, versions: Versions, stored_at: datetime) -> None:
    """
    Raise BadFactError for a level, priority, reason or version that is not known. Names are compared exactly; nothing
    gets a default. An opening needs a version that can judge it. What else a version has may count for the ticket, now
    or once more is known of it (docs/architecture.md#rule-13), so that no order of arrival decides.
    """
    policies = [version.policy for version in versions]
    if isinstance(event.data, Opened):
        policies = [versions.find_for_opening(event.data, event.time, stored_at)]
    match event.data:
        case Excluded(reason=reason) | ExclusionRevoked(reason=reason):
            if not any(policy.can_exclude(reason) for policy in policies):
                known = _list_names(policy.exclusions for policy in policies)
                raise BadFactError(Reason.INVALID_DATA, _describe_unknown("data.reason", reason, policies, known))
        case PolicyChanged(policy_version=version):
            if version not in (known := [each.name for each in versions]):
                raise BadFactError(
                    Reason.INVALID_DATA, _describe_unknown("data.policy_version", version, policies, known)
                )
    level: str | None = getattr(event.data, "service_level", None)
    if level is not None and not any(level in policy.levels for policy in policies):
        known = _list_names(policy.levels for policy in policies)
        raise BadFactError(Reason.UNKNOWN_SERVICE_LEVEL, _describe_unknown("service level", level, policies, known))
    priority: str | None = getattr(event.data, "priority", None)
    if priority is not None and not any(priority in policy.priorities for policy in policies):
        known = _list_names(policy.priorities for policy in policies)
        raise BadFactError(Reason.UNKNOWN_PRIORITY, _describe_unknown("priority", priority, policies, known))


def _list_names(names: Iterable[Iterable[str]]) -> list[str]:
    """List the names of several versions, each once."""
    return list(dict.fromkeys(chain.from_iterable(names)))


def _describe_unknown(what: str, name: str, policies: Sequence[Policy], names: Iterable[str]) -> str:
    return (
        f"{what} {quote_value(name)} is not in policy {policies[-1].name} ({', '.join(names)}); "
        "add it or fix the publisher"
    )


def _refuse(message: Message, error: BadFactError, outcome: BatchOutcome) -> None:
    event_type = error.type or UNKNOWN_TYPE
    outcome.inbox.append(InboxRow(message.sequence, "dead_letter", event_type, str(error.reason), None, None, None))
    outcome.dead.append(DeadLetter(message, error.reason, error.message))
