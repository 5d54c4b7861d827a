"""The event store in one file of SQLite, for one machine: one writer at a time, and locks on files beside it."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from eventsourcing.persistence import InterfaceError, OperationalError, StoredEvent
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)

from projections.runner import Projection, create_projection
from services.errors import FencedError, ReadOnlyError, StoreError
from services.faults import reach
from services.store.interface import Lock, Store, explain_fencing
from services.store.schema import INITIAL_STATEMENTS, TABLES
from sla.engine import BatchOutcome

CANNOT_WRITE = ("database or disk is full", "disk I/O error", "unable to open database file")


class _Pool(SQLiteConnectionPool):
    """Connections that write the log: each commit waits for its fsync."""

    synchronous = "FULL"

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={self.synchronous}")
        cursor.execute("PRAGMA wal_autocheckpoint=4000")
        return connection


class _ViewPool(_Pool):
    """Connections that write projections: these can be built again, and so do not wait for the disk."""

    synchronous = "NORMAL"


class _SqliteRecorder(SQLiteApplicationRecorder):
    """Stores the outcome of a batch in one transaction: Store.commit calls it with the events as rows."""

    def __init__(self, datastore: SQLiteDatastore, writer: threading.Lock) -> None:
        super().__init__(datastore)
        self._writer = writer

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        """Move the committed sequences by compare-and-set; then insert the events and the inbox rows."""
        outcome: BatchOutcome = kwargs["outcome"]
        before: Mapping[int, int] = kwargs["before"]
        events = [(s.originator_id, s.originator_version, s.topic, s.state) for s in stored_events]
        with self._writer, self.datastore.transaction(commit=True) as cursor:
            for number, position in before.items():
                cursor.execute(
                    "UPDATE partitions SET position = max(position, ?) WHERE number = ? AND position = ?",
                    (outcome.last_sequence, number, position),
                )
                if cursor.sqlite_cursor.rowcount != 1:
                    raise FencedError(explain_fencing(before))
            reach("intake.in_commit")
            cursor.executemany(self.insert_events_statement, events)
            cursor.executemany("INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?, ?)", outcome.inbox)


class SqliteStore(Store):
    """A store in one file. With `create` the schema is created; otherwise StoreError is raised where it is missing."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.exists():
            raise StoreError(f"{path} does not exist; run `sla migrate`")
        self.path = path
        self._writer = threading.Lock()  # SQLite lets one connection write at a time, and makes others poll
        with _name_file(path):
            self._facts = _open_datastore(_Pool, path)
            self._views = _open_datastore(_ViewPool, path)
        recorder = _SqliteRecorder(self._facts, self._writer)
        if create:
            with _name_file(path):
                recorder.create_table()
                with self._facts.transaction(commit=True) as cursor:
                    for statement in (*TABLES.values(), *INITIAL_STATEMENTS):
                        cursor.execute(statement)
        self._check()
        self._file, self._is_immutable = _identify_file(path), _is_immutable(path)
        super().__init__(recorder)

    def close(self) -> None:
        self._facts.close()
        self._views.close()

    def _check(self) -> None:
        with self._facts.transaction(commit=False) as cursor:
            _check_schema(cursor, self.path)
            cursor.execute("PRAGMA synchronous")
            if cursor.fetchone()[0] != 2:
                raise StoreError("SQLite does not synchronise fully; commits could be lost at a power cut")

    def is_replaced(self) -> bool:
        has_begun = self._is_immutable and not _is_immutable(self.path)  # somebody else works on it now
        return has_begun or _identify_file(self.path) != self._file

    @contextmanager
    def write_log(self) -> Iterator[sqlite3.Cursor]:
        with self._writer, _name_file(self.path), self._facts.transaction(commit=True) as cursor:
            yield _use_plain_rows(cursor)

    @contextmanager
    def read_log(self) -> Iterator[sqlite3.Cursor]:
        with self._facts.transaction(commit=False) as cursor:
            yield _use_plain_rows(cursor)

    @contextmanager
    def write_view(self) -> Iterator[sqlite3.Cursor]:
        with self._writer, _name_file(self.path), self._views.transaction(commit=True) as cursor:
            yield _use_plain_rows(cursor)
            reach("view.before_commit")
        reach("view.after_commit")

    @contextmanager
    def read_view(self) -> Iterator[sqlite3.Cursor]:
        with self._views.transaction(commit=False) as cursor:
            yield _use_plain_rows(cursor)


def _use_plain_rows(cursor: SQLiteCursor) -> sqlite3.Cursor:
    """Return the cursor with rows as tuples: eventsourcing's have names too, which cost half of the time of reading."""
    cursor.sqlite_cursor.row_factory = None
    return cursor.sqlite_cursor


@contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Raise StoreError, with the file, for what SQLite says without it: that the file or its disk cannot be written."""
    try:
        yield
    except (InterfaceError, OperationalError, sqlite3.OperationalError) as error:
        if "readonly" in str(error):
            raise ReadOnlyError(f"{path} cannot be written by this user: {error}") from None
        if str(error) in CANNOT_WRITE:
            raise StoreError(f"{path}: {error}; see to its disk, and whether this user may write there") from None
        raise


class SqliteFile:
    """Where a store in SQLite is: a file, with its lock files beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> SqliteStore:
        return SqliteStore(self.path)

    def migrate(self, views: Iterable[type[Projection]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(SqliteStore(self.path, create=True)) as store:
            for view in views:
                create_projection(store, view())

    @contextmanager
    def open_snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read in one transaction, without permission to write. SQLite cannot truncate its -wal file meanwhile."""
        with closing(_connect_read_only(self.path)) as connection:
            connection.execute("BEGIN")
            try:
                _check_schema(connection.cursor(), self.path)  # the first statement that reads begins the snapshot
            except sqlite3.Error as error:
                raise StoreError(f"{self.path} cannot be read: {error}") from None
            yield connection

    def create_lock(self, role: str) -> "FileLock":
        return FileLock(self.path.with_name(f"{self.path.name}.{role}.lock"))

    def create_leases(self) -> "FileLeases":
        return FileLeases(self.create_lock("intake"))


def _check_schema(cursor: Any, path: Path) -> None:
    ours = ("stored_events", *TABLES)
    marks = ",".join("?" * len(ours))
    cursor.execute(f"SELECT count(*) FROM sqlite_master WHERE name IN ({marks})", ours)
    if cursor.fetchone()[0] != len(ours):
        raise StoreError(f"{path} has not the schema of this version; run `sla migrate`")


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """
    Connect to a file that may be in a folder we cannot write to. Even to read, SQLite has to create a -wal file, unless
    the file is said to be immutable.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist; run `sla migrate`")
    address = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if _is_immutable(path) else "")
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=5)


def _is_immutable(path: Path) -> bool:
    """Return whether nobody works on a file, and we could not: then SQLite reads it only if it is told so."""
    has_log = path.with_name(f"{path.name}-wal").exists()
    return path.exists() and not has_log and not os.access(path.parent, os.W_OK, effective_ids=True)


def _open_datastore(pool: type[_Pool], path: Path) -> SQLiteDatastore:
    address = f"file:{quote(str(path))}?mode=ro&immutable=1" if _is_immutable(path) else str(path)
    store = SQLiteDatastore(address, originator_id_type="text")
    store.pool.close()
    store.pool = pool(db_name=address, lock_timeout=5)
    return store


def _identify_file(path: Path) -> tuple[int, int] | None:
    """Return which file has this name now, as device and inode; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class FileLock:
    """A lock among the processes of one machine: an advisory lock on a file, which ends with its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Acquire the lock unless another process holds it. A lock whose file was deleted is no longer held."""
        if self._opened is not None and not self._is_in_place(self._opened):
            self.release()
        if self._opened is None:
            file = open(self._path, "ab", buffering=0)  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
            except OSError as error:
                file.close()  # also on a full disk: the traceback would keep the file open, and so the lock
                if isinstance(error, BlockingIOError):
                    return False
                raise
            self._opened = file
        return True

    def _is_in_place(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class FileLeases:
    """Leases on one machine: one process holds all partitions."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def acquire_fair_share(self, count: int) -> frozenset[int]:
        return frozenset(range(count)) if self._lock.acquire() else frozenset()

    def acquire_all(self, count: int) -> bool:
        return self._lock.acquire()

    def release(self) -> None:
        self._lock.release()
