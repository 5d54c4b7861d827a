"""The event store: facts and decisions, the inbox, pinned policies and positions. One file of SQLite, one writer."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import msgspec
from eventsourcing.persistence import EventStore, Mapper, StoredEvent, Transcoder
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)

from projections.deadlines import instant, microseconds
from services.faults import reach
from sla.engine import InboxRow, Outcome
from sla.log import STORED, Event, Recorded
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import LEAD, Version, Versions, next_version

INTAKE = "intake"  # the position of the only writer: the stream sequence up to which everything is committed
_TOPICS: dict[str, type[Event]] = {event.TOPIC: event for event in STORED}
_DECODERS = {topic: msgspec.json.Decoder(event) for topic, event in _TOPICS.items()}
_encoder = msgspec.json.Encoder()

_TABLES = (
    """CREATE TABLE IF NOT EXISTS inbox (
        sequence INTEGER PRIMARY KEY, outcome TEXT NOT NULL, type TEXT NOT NULL, reason TEXT,
        fact_key BLOB, digest BLOB, ticket TEXT)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS inbox_fact ON inbox (fact_key) WHERE fact_key IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, position INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS policies (fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, resolved BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS policy_versions (
        version TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, published_at BIGINT NOT NULL,
        effective_from BIGINT NOT NULL UNIQUE, material INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS verifications (
        at BIGINT PRIMARY KEY, tickets BIGINT NOT NULL, differences BIGINT NOT NULL)""",
    f"INSERT INTO positions VALUES ('{INTAKE}', 0) ON CONFLICT DO NOTHING",
)


class StoreError(Exception):
    """The store cannot be used as it is; the text says what to do. Waiting can help if it is not yet migrated."""


class Superseded(StoreError):
    """Another intake has moved the position: this one is not the owner any more, and must stop."""


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
    decoder = _DECODERS.get(topic)
    if decoder is None:
        raise StoreError(
            f"the log has an event of topic {topic!r}, which this version does not know; upgrade the engine"
        )
    return decoder.decode(state)


class _Pool(SQLiteConnectionPool):
    """Full synchronisation where facts are written; views can be rebuilt, so that they need not wait for the disk."""

    synchronous = "FULL"

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={self.synchronous}")
        cursor.execute("PRAGMA wal_autocheckpoint=4000")
        return connection


class _ViewPool(_Pool):
    synchronous = "NORMAL"


class _Recorder(SQLiteApplicationRecorder):
    """Stores an outcome: events, inbox rows and the position after them, in one transaction."""

    def _insert_events(
        self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        before: int = kwargs["before"]
        outcome: Outcome = kwargs["outcome"]
        c.execute(
            "UPDATE positions SET position = ? WHERE name = ? AND position = ?", (outcome.position, INTAKE, before)
        )
        if c.sqlite_cursor.rowcount != 1:
            raise Superseded(f"position {before} of {INTAKE} is not the stored one; another intake works on this store")
        rows = [(s.originator_id, s.originator_version, s.topic, s.state) for s in stored_events]
        c.executemany(self.insert_events_statement, rows)
        c.executemany("INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?, ?)", outcome.inbox)
        return None


class Verification(NamedTuple):
    """What `sla verify` found at an instant: among so many tickets, so many differences."""

    at: datetime
    tickets: int
    differences: int


class Entry(NamedTuple):
    """An event with its place in the whole log."""

    position: int
    ticket: str
    event: Event


class Store:
    """
    One SQLite file. Thread-safe; every method blocks. `create` makes the schema, and only `sla migrate` (and `sla up`)
    pass it; without it, a file that is missing or has no schema raises StoreError.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.exists():
            raise StoreError(f"{path} does not exist; run `sla migrate`")
        self.path = path
        self._writer = threading.Lock()  # SQLite lets one write at a time, and whoever has to wait sleeps
        self._facts = _datastore(_Pool, path)
        self._views = _datastore(_ViewPool, path)
        self._recorder = _Recorder(self._facts)
        if create:
            self._create()
        self._check()
        self._events: EventStore[str] = EventStore(LogMapper(), self._recorder)
        self._versions = Versions([])
        self._policies: dict[str, Policy] = {}

    def close(self) -> None:
        """Closes all connections; what was committed stays."""
        self._facts.close()
        self._views.close()

    def _create(self) -> None:
        self._recorder.create_table()
        with self._facts.transaction(commit=True) as cursor:
            for statement in _TABLES:
                cursor.execute(statement)

    def _check(self) -> None:
        with self._facts.transaction(commit=False) as cursor:
            _check_schema(cursor, self.path)
            cursor.execute("PRAGMA synchronous")
            if cursor.fetchone()[0] != 2:
                raise StoreError("SQLite does not synchronise fully; commits could be lost at a power cut")

    # ---- what intake writes

    def commit(self, outcome: Outcome, before: int) -> None:
        """Stores an outcome if the position still is `before`. If it is not: Superseded, and nothing is stored."""
        with self._writer:
            self._events.put(outcome.events, outcome=outcome, before=before)

    def digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The content digests of the facts that are already recorded."""
        rows = self._select_all("SELECT fact_key, digest FROM inbox WHERE fact_key IN ({})", keys)
        return {row[0]: row[1] for row in rows}

    def belongs_to(self, stream: str, made_at: int) -> bool:
        """Whether this is the stream whose sequences the positions are; the first one that is named becomes it."""
        name = _made_at(stream)
        with self._writer, self._facts.transaction(commit=True) as cursor:
            cursor.execute("INSERT INTO positions VALUES (?, ?) ON CONFLICT DO NOTHING", (name, made_at))
        return self.position(name) == made_at

    def move_to(self, stream: str, made_at: int) -> None:
        """The stream was restored: the same messages under the same sequences, but made anew."""
        with self._writer, self._facts.transaction(commit=True) as cursor:
            cursor.execute(
                "INSERT INTO positions SELECT ?, position FROM positions WHERE name = ? ON CONFLICT DO NOTHING",
                (_first_made_at(stream), _made_at(stream)),
            )
            cursor.execute("UPDATE positions SET position = ? WHERE name = ?", (made_at, _made_at(stream)))

    def first_made_at(self, stream: str) -> int | None:
        """When the stream was made, before it was ever restored."""
        first = self.position(_first_made_at(stream))
        return self.position(_made_at(stream)) if first is None else first

    def publish(
        self, policy: Policy, now: Callable[[], datetime], notice: timedelta = timedelta(0), lead: timedelta = LEAD
    ) -> Version:
        """
        Stores the policy as its version, resolved, so that late news is judged as it was then. Before the first ticket
        event a version may be replaced. Raises Refused; then nothing is stored.
        """
        with self._writer, self._facts.transaction(commit=True) as cursor:
            row = (policy.fingerprint, policy.name, msgspec.json.encode(policy.resolved()))
            cursor.execute("INSERT INTO policies VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
            unused = "NOT EXISTS (SELECT 1 FROM stored_events)"
            cursor.execute(f"DELETE FROM policy_versions WHERE version = ? AND {unused}", (policy.version,))
            version = next_version(self._read_versions(cursor), policy, now(), notice, lead)
            cursor.execute(
                "INSERT INTO policy_versions VALUES (?, ?, ?, ?, ?)",
                (
                    version.name,
                    policy.fingerprint,
                    microseconds(version.published_at),
                    microseconds(version.effective_from),
                    version.material,
                ),
            )
        return version

    def keep_verification(self, found: Verification) -> None:
        """Stores what `sla verify` found; the metrics show the newest."""
        with self._writer, self._facts.transaction(commit=True) as cursor:
            row = (microseconds(found.at), found.tickets, found.differences)
            cursor.execute("INSERT INTO verifications VALUES (?, ?, ?)", row)

    # ---- what everybody reads

    def versions(self) -> Versions:
        """The published versions of the policy; the same object as long as they are the same."""
        with self._facts.transaction(commit=False) as cursor:
            return self._read_versions(cursor)

    def _read_versions(self, cursor: SQLiteCursor) -> Versions:
        cursor.execute("SELECT fingerprint, published_at, effective_from, material FROM policy_versions ORDER BY 3")
        rows = [tuple(row) for row in cursor.fetchall()]
        if [row[0] for row in rows] != [version.policy.fingerprint for version in self._versions]:
            self._versions = Versions(
                Version(self._read_policy(cursor, fingerprint), instant(published), instant(effective), bool(material))
                for fingerprint, published, effective, material in rows
            )
        return self._versions

    def verification(self) -> Verification | None:
        """What `sla verify` found the last time; None if it never ran."""
        with self._facts.transaction(commit=False) as cursor:
            cursor.execute("SELECT at, tickets, differences FROM verifications ORDER BY at DESC LIMIT 1")
            row = cursor.fetchone()
        return None if row is None else Verification(instant(row[0]), row[1], row[2])

    def load(self, ticket: str) -> TicketSla | None:
        """The ticket replayed from its events; None if there are none."""
        return self.load_all([ticket]).get(ticket)

    def load_all(self, tickets: Iterable[str]) -> dict[str, TicketSla]:
        """The tickets replayed from their events; those that have none are left out."""
        rows = self._select_all(
            "SELECT originator_id, originator_version, topic, state FROM stored_events "
            "WHERE originator_id IN ({}) ORDER BY originator_id, originator_version",
            tickets,
        )
        found: dict[str, TicketSla] = {}
        for id, group in groupby(rows, itemgetter(0)):
            events = (Recorded(id, version, decode(topic, state)) for _, version, topic, state in group)
            found[id] = TicketSla.replay(None, events) or TicketSla(id)
        return found

    def _select_all(self, statement: str, values: Iterable[Any]) -> list[Any]:
        """The rows for all values, which stand where the statement has `{}`; SQLite takes only so many at once."""
        wanted, rows = list(values), []
        with self._facts.transaction(commit=False) as cursor:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                cursor.execute(statement.format(",".join("?" * len(some))), some)
                rows += cursor.fetchall()
        return rows

    def policy(self, fingerprint: str) -> Policy:
        """The policy as it was resolved when it was published."""
        with self._facts.transaction(commit=False) as cursor:
            return self._read_policy(cursor, fingerprint)

    def _read_policy(self, cursor: SQLiteCursor, fingerprint: str) -> Policy:
        if fingerprint not in self._policies:
            cursor.execute("SELECT resolved FROM policies WHERE fingerprint = ?", (fingerprint,))
            row = cursor.fetchone()
            if row is None:
                raise StoreError(f"policy {fingerprint} is not in the store; restore a backup")
            self._policies[fingerprint] = Policy.from_resolved(msgspec.json.decode(row[0]))
        return self._policies[fingerprint]

    def entries(self, after: int, limit: int) -> list[Entry]:
        """The log after a position, in the order in which it was written."""
        rows = self._recorder.select_notifications(after, limit, inclusive_of_start=False)
        return [Entry(row.id, str(row.originator_id), decode(row.topic, row.state)) for row in rows]

    def inbox(self, after: int, limit: int) -> list[InboxRow]:
        """What became of messages after a stream sequence."""
        with self._facts.transaction(commit=False) as cursor:
            cursor.execute("SELECT * FROM inbox WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit))
            return [InboxRow(*row) for row in cursor.fetchall()]

    def head(self) -> int:
        """The position of the newest event; 0 if there is none."""
        return self._recorder.max_notification_id() or 0

    def taken(self) -> int:
        """The stream sequence up to which every message is stored."""
        return self.position(INTAKE) or 0

    def position(self, name: str) -> int | None:
        """A stored position; None if it was never stored."""
        with self._facts.transaction(commit=False) as cursor:
            cursor.execute("SELECT position FROM positions WHERE name = ?", (name,))
            row = cursor.fetchone()
        return None if row is None else int(row[0])

    # ---- views

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Cursor]:
        """A transaction for a view and its position. Takes the write lock at its first statement that writes."""
        with self._writer, self._views.transaction(commit=True) as cursor:
            yield cursor.sqlite_cursor
            reach("view.before_commit")
        reach("view.after_commit")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """One consistent picture of the views."""
        with self._views.transaction(commit=False) as cursor:
            yield cursor.sqlite_cursor


def _made_at(stream: str) -> str:
    return f"{stream} made at"


def _first_made_at(stream: str) -> str:
    return f"{stream} first made at"


def _check_schema(cursor: Any, path: Path) -> None:
    ours = ("stored_events", "inbox", "positions", "policies", "policy_versions", "verifications")
    marks = ",".join("?" * len(ours))
    cursor.execute(f"SELECT count(*) FROM sqlite_master WHERE name IN ({marks})", ours)
    if cursor.fetchone()[0] != len(ours):
        raise StoreError(f"{path} has not the schema of this version; run `sla migrate`")


@contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """
    One picture of a whole store, while the engine goes on; nothing can be written, and no permission to write is
    needed. SQLite cannot cut its -wal file short meanwhile.
    """
    with closing(_connect_read_only(path)) as connection:
        connection.execute("BEGIN")
        try:
            _check_schema(connection.cursor(), path)  # the first statement that reads: now it is one picture
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read: {error}") from None
        yield connection


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Without -wal file nobody works on the store; SQLite would have to make one even to read, in a folder not ours."""
    if not path.exists():
        raise StoreError(f"{path} does not exist; run `sla migrate`")
    idle = not path.with_name(f"{path.name}-wal").exists() and not os.access(path.parent, os.W_OK, effective_ids=True)
    address = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if idle else "")
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=5)


def _datastore(pool: type[_Pool], path: Path) -> SQLiteDatastore:
    store = SQLiteDatastore(str(path), originator_id_type="text")
    store.pool.close()
    store.pool = pool(db_name=str(path), lock_timeout=5)
    return store


class Lock:
    """One owner at a time of a role, on one machine: a lock on a file beside the store, freed when its process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def take(self) -> bool:
        """True if this process now is the owner. Whoever's file was deleted owns nothing any more."""
        if self._file is not None and not self._is_there(self._file):
            self.free()
        if self._file is None:
            file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            self._file = file
        return True

    def _is_there(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def free(self) -> None:
        """Let another one have it."""
        if self._file is not None:
            self._file.close()
            self._file = None
