"""The event store: facts and decisions, the inbox, pinned policies and positions. Where it is kept, its kinds say."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import msgspec
from eventsourcing.persistence import ApplicationRecorder, EventStore, Mapper, StoredEvent, Transcoder

from events.times import from_microseconds, to_microseconds
from projections.runner import Cursor, Projection
from services.errors import FencedError, StoreError
from sla.engine import BatchOutcome, InboxRow
from sla.log import DECODERS, Event, LogEntry, LogRow, Recorded, decode_rows
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import MIN_LEAD, Version, Versions, make_next_version

_encoder = msgspec.json.Encoder()

TABLES = {
    "inbox": """CREATE TABLE IF NOT EXISTS inbox (
        sequence INTEGER PRIMARY KEY, outcome TEXT NOT NULL, type TEXT NOT NULL, reason TEXT,
        fact_key BLOB, digest BLOB, ticket TEXT)""",
    "partitions": "CREATE TABLE IF NOT EXISTS partitions (number INTEGER PRIMARY KEY, position BIGINT NOT NULL)",
    "positions": "CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, position BIGINT NOT NULL)",
    "policies": """CREATE TABLE IF NOT EXISTS policies (
        fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, resolved BLOB NOT NULL)""",
    "policy_versions": """CREATE TABLE IF NOT EXISTS policy_versions (
        version TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, published_at BIGINT NOT NULL,
        effective_from BIGINT NOT NULL UNIQUE, material BIGINT NOT NULL)""",
    "verifications": """CREATE TABLE IF NOT EXISTS verifications (
        at INTEGER PRIMARY KEY, tickets BIGINT NOT NULL, differences BIGINT NOT NULL)""",
}
"""Beside `stored_events`, which is eventsourcing's. `partitions` has the position of the only writer of each partition:
the stream sequence up to which everything of it is committed."""

ANNOUNCER_CHECKPOINT = "announcements"  # the name of the place in the log up to which all is announced

INITIAL_STATEMENTS = (
    "CREATE UNIQUE INDEX IF NOT EXISTS inbox_fact ON inbox (fact_key) WHERE fact_key IS NOT NULL",
    "INSERT INTO partitions SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM partitions)",
)
"""What an empty store begins with."""


class LogMapper(Mapper[str]):
    """Events to rows and back. Only the topics of sla/log.py exist: a tampered row imports nothing (TRAPS E13, E14)."""

    def __init__(self) -> None:
        super().__init__(_NoTranscoder())

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """A row of the log."""
        ticket, version, event = domain_event
        return StoredEvent(ticket, version, event.TOPIC, encode(event))

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """The event in a row. Raises StoreError for a topic or a state that this version does not know."""
        return Recorded(
            str(stored_event.originator_id),
            stored_event.originator_version,
            decode(stored_event.topic, stored_event.state),
        )


class _NoTranscoder(Transcoder):
    """LogMapper encodes whole events itself."""

    def encode(self, obj: Any) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        raise NotImplementedError


def encode(event: Event) -> bytes:
    """An event as the log keeps it."""
    return _encoder.encode(event)


def decode(topic: str, state: bytes) -> Event:
    """The event that the log keeps. StoreError for a topic of another version, msgspec's errors for a broken state."""
    event: Event = _find_decoder(topic).decode(state)
    return event


def _find_decoder(topic: str) -> "msgspec.json.Decoder[Any]":
    if topic not in DECODERS:
        raise StoreError(
            f"the log has an event of topic {topic!r}, which this version does not know; upgrade the engine"
        )
    return DECODERS[topic]


class Verification(NamedTuple):
    """What `sla verify` found at an instant: among so many tickets, so many differences."""

    at: datetime
    tickets: int
    differences: int


class Snapshot(Protocol):
    """One picture of a whole store, while the engine goes on; nothing can be written."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any:
        """A cursor: rows as tuples, in a statement of the store's SQL."""
        ...


class Lock(Protocol):
    """One owner at a time of a role; freed when its process ends, whatever ends it."""

    def acquire(self) -> bool:
        """True if this process now is the owner; asked again, whether it still is."""
        ...

    def release(self) -> None:
        """Let another one have it."""
        ...


class PartitionLeases(Protocol):
    """Which partitions of TICKETS this process owns; freed when its process ends, whatever ends it."""

    def acquire_fair_share(self, count: int) -> frozenset[int]:
        """Of so many: takes what nobody owns up to a fair share, and gives back what is more than that."""
        ...

    def acquire_all(self, count: int) -> bool:
        """True if this process now owns all of them; otherwise it owns none."""
        ...

    def release(self) -> None:
        """Let others have them."""
        ...


class Database(Protocol):
    """Where a store is. All of it blocks; StoreError says what is wrong there, and what to do."""

    @property
    def name(self) -> str:
        """For people: without user and password."""
        ...

    def open(self) -> "Store": ...
    def migrate(self, views: Iterable[type[Projection]]) -> None:
        """Creates the schema and the tables of the views, if they do not exist."""
        ...

    def open_snapshot(self) -> AbstractContextManager[Snapshot]: ...
    def create_lock(self, role: str) -> Lock: ...
    def create_leases(self) -> PartitionLeases: ...


class Store(ABC):
    """
    Thread-safe; every method blocks. The statements are in SQL that all kinds of store understand, with `?` for
    parameters; `rowid` is the place of an event in the log.
    """

    def __init__(self, recorder: ApplicationRecorder) -> None:
        self._recorder = recorder
        self._events: EventStore[str] = EventStore(LogMapper(), recorder)
        self._versions = Versions([])
        self._policies: dict[str, Policy] = {}

    @abstractmethod
    def close(self) -> None:
        """Closes all connections; what was committed stays."""

    @abstractmethod
    def write_log(self) -> AbstractContextManager[Cursor]:
        """A transaction of the only writer at the time; it is on the disk when it has ended."""

    @abstractmethod
    def read_log(self) -> AbstractContextManager[Cursor]:
        """A transaction that only reads."""

    @abstractmethod
    def write_view(self) -> AbstractContextManager[Cursor]:
        """A transaction for a view and its position: it need not be on the disk, as a view can be built again."""

    @abstractmethod
    def read_view(self) -> AbstractContextManager[Cursor]:
        """One consistent picture of the views."""

    def is_replaced(self) -> bool:
        """Was the store deleted or replaced since it was opened?"""
        return False

    # ---- what intake writes

    def commit(self, outcome: BatchOutcome, before: Mapping[int, int]) -> None:
        """
        Stores an outcome if the positions of its partitions still are `before`; then they are its own. If they are not:
        FencedError, and nothing is stored.
        """
        self._events.put(outcome.events, outcome=outcome, before=before)

    def read_partitions(self) -> dict[int, int]:
        """The position of each partition."""
        with self.read_log() as cursor:
            cursor.execute("SELECT number, position FROM partitions ORDER BY number")
            return dict(cursor.fetchall())

    def repartition(self, count: int, before: Mapping[int, int]) -> None:
        """Everything up to one position is stored: from there on there are so many partitions. May be FencedError."""
        (position,) = set(before.values())
        with self.write_log() as cursor:
            cursor.execute("SELECT number, position FROM partitions")
            if dict(cursor.fetchall()) != before:
                raise FencedError(explain_fencing(before))
            cursor.execute("DELETE FROM partitions")
            cursor.executemany("INSERT INTO partitions VALUES (?, ?)", [(number, position) for number in range(count)])

    def read_digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The content digests of the facts that are already recorded."""
        rows = self._select_all("SELECT fact_key, digest FROM inbox WHERE fact_key IN ({})", keys)
        return {row[0]: row[1] for row in rows}

    def bind_stream(self, stream: str, made_at: int) -> bool:
        """Whether this is the stream whose sequences the positions are; the first one that is named becomes it."""
        name = name_created_at(stream)
        with self.write_log() as cursor:
            cursor.execute("INSERT INTO positions VALUES (?, ?) ON CONFLICT DO NOTHING", (name, made_at))
        return self.read_checkpoint(name) == made_at

    def rebind_stream(self, stream: str, made_at: int) -> None:
        """The stream was restored: the same messages under the same sequences, but made anew."""
        with self.write_log() as cursor:
            cursor.execute("DELETE FROM positions WHERE name = ?", (name_created_at(stream),))
            cursor.execute("INSERT INTO positions VALUES (?, ?)", (name_created_at(stream), made_at))

    def publish_policy(
        self, policy: Policy, now: Callable[[], datetime], notice: timedelta = timedelta(0), lead: timedelta = MIN_LEAD
    ) -> Version:
        """
        Stores the policy as its version, resolved, so that late news is judged as it was then. Before the first ticket
        event a version may be replaced. Raises Refused; then nothing is stored.
        """
        with self.write_log() as cursor:
            row = (policy.fingerprint, policy.name, msgspec.json.encode(policy.to_resolved()))
            cursor.execute("INSERT INTO policies VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
            unused = "NOT EXISTS (SELECT 1 FROM stored_events)"
            cursor.execute(f"DELETE FROM policy_versions WHERE version = ? AND {unused}", (policy.version,))
            version = make_next_version(self._select_versions(cursor), policy, now(), notice, lead)
            cursor.execute(
                "INSERT INTO policy_versions VALUES (?, ?, ?, ?, ?)",
                (
                    version.name,
                    policy.fingerprint,
                    to_microseconds(version.published_at),
                    to_microseconds(version.effective_from),
                    int(version.material),
                ),
            )
        return version

    def save_verification(self, found: Verification) -> None:
        """Stores what `sla verify` found; the metrics show the newest."""
        with self.write_log() as cursor:
            row = (to_microseconds(found.at), found.tickets, found.differences)
            cursor.execute("INSERT INTO verifications VALUES (?, ?, ?)", row)

    # ---- what everybody reads

    def read_versions(self) -> Versions:
        """The published versions of the policy; the same object as long as they are the same."""
        with self.read_log() as cursor:
            return self._select_versions(cursor)

    def _select_versions(self, cursor: Cursor) -> Versions:
        cursor.execute("SELECT fingerprint, published_at, effective_from, material FROM policy_versions ORDER BY 3")
        rows = [tuple(row) for row in cursor.fetchall()]
        if [row[0] for row in rows] != [version.policy.fingerprint for version in self._versions]:
            self._versions = Versions(
                Version(
                    self._select_policy(cursor, fingerprint),
                    from_microseconds(published),
                    from_microseconds(effective),
                    bool(material),
                )
                for fingerprint, published, effective, material in rows
            )
        return self._versions

    def read_verification(self) -> Verification | None:
        """What `sla verify` found the last time; None if it never ran."""
        with self.read_log() as cursor:
            cursor.execute("SELECT at, tickets, differences FROM verifications ORDER BY at DESC LIMIT 1")
            row = cursor.fetchone()
        return None if row is None else Verification(from_microseconds(row[0]), row[1], row[2])

    def load_ticket(self, ticket: str) -> TicketSla | None:
        """The ticket replayed from its events; None if there are none."""
        return self.load_tickets([ticket]).get(ticket)

    def load_tickets(self, tickets: Iterable[str]) -> dict[str, TicketSla]:
        """The tickets replayed from their events; those that have none are left out."""
        return {id: TicketSla.replay(None, events) or TicketSla(id) for id, events in self.read_histories(tickets)}

    def read_histories(self, tickets: Iterable[str]) -> Iterator[tuple[str, list[Recorded]]]:
        """The events of each of the tickets; those that have none are left out."""
        rows = self._select_all(
            "SELECT originator_id, originator_version, topic, state FROM stored_events "
            "WHERE originator_id IN ({}) ORDER BY originator_id, originator_version",
            tickets,
        )
        for id, group in groupby(rows, itemgetter(0)):
            yield id, [Recorded(id, version, decode(topic, state)) for _, version, topic, state in group]

    def read_ticket_ids(self) -> Iterator[list[str]]:
        """The ids of all tickets, some at a time, in their order; those that come meanwhile may be among them."""
        last = ""
        while True:
            with self.read_log() as cursor:
                cursor.execute(
                    "SELECT DISTINCT originator_id FROM stored_events WHERE originator_id > ? ORDER BY 1 LIMIT 500",
                    (last,),
                )
                some = [row[0] for row in cursor.fetchall()]
            if not some:
                return
            yield some
            last = some[-1]

    def _select_all(self, statement: str, values: Iterable[Any]) -> list[Any]:
        """The rows for all values, which stand where the statement has `{}`; SQLite takes only so many at once."""
        wanted, rows = list(values), []
        with self.read_log() as cursor:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                cursor.execute(statement.format(",".join("?" * len(some))), some)
                rows += cursor.fetchall()
        return rows

    def read_policy(self, fingerprint: str) -> Policy:
        """The policy as it was resolved when it was published."""
        with self.read_log() as cursor:
            return self._select_policy(cursor, fingerprint)

    def _select_policy(self, cursor: Cursor, fingerprint: str) -> Policy:
        if fingerprint not in self._policies:
            cursor.execute("SELECT resolved FROM policies WHERE fingerprint = ?", (fingerprint,))
            row = cursor.fetchone()
            if row is None:
                raise StoreError(f"policy {fingerprint} is not in the store; restore a backup")
            self._policies[fingerprint] = Policy.from_resolved(msgspec.json.decode(row[0]))
        return self._policies[fingerprint]

    def read_log_rows(self, after: int, limit: int) -> list[LogRow]:
        """The log after a position, in the order in which it was written. StoreError if a topic is not known."""
        with self.read_log() as cursor:
            cursor.execute(
                "SELECT rowid, originator_id, topic, state FROM stored_events WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (after, limit),
            )
            rows = list(map(LogRow._make, cursor.fetchall()))
        for topic in {row.topic for row in rows}:
            _find_decoder(topic)
        return rows

    def read_log_entries(self, after: int, limit: int) -> list[LogEntry]:
        """The same, decoded."""
        return list(decode_rows(self.read_log_rows(after, limit), Event))

    def read_inbox(self, after: int, limit: int) -> list[InboxRow]:
        """What became of messages after a stream sequence, as far as nothing before them is missing."""
        with self.read_log() as cursor:
            cursor.execute(
                "SELECT * FROM inbox WHERE sequence > ? AND sequence <= (SELECT min(position) FROM partitions) "
                "ORDER BY sequence LIMIT ?",
                (after, limit),
            )
            return [InboxRow(*row) for row in cursor.fetchall()]

    def read_head(self) -> int:
        """The position of the newest event; 0 if there is none."""
        return self._recorder.max_notification_id() or 0

    def read_committed_sequence(self) -> int:
        """The stream sequence up to which every message is stored."""
        return min(self.read_partitions().values())

    def read_checkpoint(self, name: str) -> int | None:
        """A stored position; None if it was never stored."""
        with self.read_log() as cursor:
            cursor.execute("SELECT position FROM positions WHERE name = ?", (name,))
            row = cursor.fetchone()
        return None if row is None else int(row[0])


def explain_fencing(before: Mapping[int, int]) -> str:
    """Why an outcome is not stored."""
    said = ", ".join(f"{number}: {position}" for number, position in before.items())
    return f"the stored positions are not {said}; another intake works on this store"


def name_created_at(stream: str) -> str:
    """The name under which it is kept when a stream was made."""
    return f"{stream} made at"
