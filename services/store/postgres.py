"""The event store in PostgreSQL, for many machines: writers append in turn. Leases are in postgres_leases.py."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from itertools import count, islice
from typing import Any

import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import ConnectionPool, PostgresApplicationRecorder, PostgresDatastore
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row, tuple_row
from psycopg.sql import SQL, Identifier
from psycopg_pool import PoolTimeout

from projections.runner import Projection, create_projection
from services.errors import FencedError, StoreError
from services.faults import reach
from services.store.interface import Store, explain_fencing
from services.store.postgres_errors import read_first_line, translate_errors
from services.store.postgres_leases import IDLE_TIMEOUT_SECONDS, SessionLeases, SessionLock
from services.store.schema import INITIAL_STATEMENTS, TABLES
from sla.engine import BatchOutcome

MIN_POSTGRES_VERSION = 14  # the first that ends idle sessions
CONNECT_TIMEOUT_SECONDS = 5  # also how long to wait for a lock
ROWS_PER_STATEMENT = 1_000
DEFAULTS: dict[str, str | int | None] = {
    "application_name": "sla",
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""
Settings of a connection, unless the address has others. A server that disappears without closing its connections is
noticed within 11 s.
"""

APPEND_LOCK, MIGRATE_LOCK = 0x51A0, 0x51A1  # keys of advisory locks; services/store/postgres_leases.py has more
_LOCK_LOG = (
    f"SELECT set_config('lock_timeout', '{CONNECT_TIMEOUT_SECONDS}s', true), pg_advisory_xact_lock({APPEND_LOCK})"
)
"""Lets one transaction at a time append, until it ends. The statements after it see what the one before has written."""

_EVENTS = """CREATE TABLE IF NOT EXISTS stored_events (
    originator_id TEXT NOT NULL, originator_version BIGINT NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL,
    notification_id BIGINT NOT NULL UNIQUE, PRIMARY KEY (originator_id, originator_version))"""
_HEX = """CREATE OR REPLACE FUNCTION hex(BYTEA) RETURNS TEXT LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT upper(encode($1, ''hex''))'"""  # which SQLite has

_APPEND = """
    WITH moved AS (
        UPDATE partitions SET position = greatest(partitions.position, %s)
        FROM unnest(%s::bigint[], %s::bigint[]) AS before (number, position)
        WHERE partitions.number = before.number AND partitions.position = before.position RETURNING 1),
    is_ours AS (SELECT count(*) = %s AS yes FROM moved),
    events AS (
        INSERT INTO stored_events (originator_id, originator_version, topic, state, notification_id)
        SELECT id, version, topic, state, place + (SELECT coalesce(max(notification_id), 0) FROM stored_events)
        FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
            WITH ORDINALITY AS new (id, version, topic, state, place)
        WHERE (SELECT yes FROM is_ours)),
    messages AS (
        INSERT INTO inbox SELECT * FROM unnest(
            %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::bytea[], %s::text[])
        WHERE (SELECT yes FROM is_ours))
    SELECT yes FROM is_ours"""

READ, WRITE = "SELECT", "SELECT, INSERT, UPDATE, DELETE"
ROLES = {
    "sla_intake": {
        "stored_events": "SELECT, INSERT",
        "inbox": "SELECT, INSERT",
        "partitions": "SELECT, INSERT, UPDATE, DELETE",
        "positions": WRITE,
        "policies": "SELECT, INSERT",
        "policy_versions": "SELECT, INSERT, DELETE",
    },
    "sla_clock": {"positions": "SELECT, UPDATE"},
    "sla_announcer": {"positions": "SELECT, INSERT, UPDATE"},
    "sla_metrics": {"positions": "SELECT, UPDATE"},
    "sla_reader": {},
}
"""What each role may do beside reading: only intake inserts events, and nobody updates or deletes one."""
PROJECTION_WRITERS = ("sla_clock", "sla_metrics")  # roles that may write the tables of projections


@cache
def translate(statement: str) -> str:
    """Return a statement in the SQL of Store as PostgreSQL has it. Text is ordered as in SQLite, by its bytes."""
    statement = re.sub(r"\browid\b", "notification_id", statement.replace("%", "%%").replace("?", "%s"))
    if statement.startswith("CREATE TABLE"):
        for general, specific in (("TEXT", 'TEXT COLLATE "C"'), ("BLOB", "BYTEA"), ("INTEGER", "BIGINT")):
            statement = re.sub(rf"\b{general}\b", specific, statement)
    return statement


class _Cursor:
    """A cursor for statements in the SQL of Store."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> "_Cursor":
        self._cursor.execute(translate(statement).encode(), parameters)
        return self

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Insert many rows by one statement, with `VALUES (…)` repeated: see _limit_idle_transactions."""
        before, values, after = re.split(r"VALUES (\(%s(?:, %s)*\))", translate(statement))
        rows = iter(parameters)
        while some := list(islice(rows, ROWS_PER_STATEMENT)):
            many = f"{before}VALUES {', '.join([values] * len(some))}{after}"
            self._cursor.execute(many.encode(), [value for row in some for value in row])

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


class _Datastore(PostgresDatastore):
    """
    A pool of connections to an address in libpq's form, which the datastore of eventsourcing cannot take. None of its
    types is used.
    """

    def __init__(self, database: "PostgresDatabase") -> None:
        super().__init__("", "", 0, "", "", originator_id_type="text")
        self._database = database
        self.pool.close()
        self.pool = ConnectionPool(
            database.conninfo,
            connection_class=Connection[Any],
            kwargs={"row_factory": dict_row, "autocommit": True},
            min_size=1,
            max_size=8,
            open=False,
            timeout=CONNECT_TIMEOUT_SECONDS,
            reconnect_timeout=CONNECT_TIMEOUT_SECONDS,
            configure=_limit_idle_transactions,
        )

    def register_type_adapters(self) -> None:
        pass

    @contextmanager
    def get_connection(self) -> Iterator[Connection[Any]]:
        self.pool.open()
        with translate_errors(self._database.name):
            try:
                with self.pool.connection() as connection:
                    yield connection
            except PoolTimeout:
                self._database.connect().close()  # raises the reason
                raise


def _limit_idle_transactions(connection: Connection[Any]) -> None:
    """
    Let the server end the session of a process that is paused within a transaction: it would block all others. The
    server notices that between two statements alone, and so nothing is pipelined: what comes in one message is done
    whole, or not at all.
    """
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_SECONDS}s'")


class _PostgresRecorder(PostgresApplicationRecorder):
    """
    Stores the outcome of a batch in one transaction: Store.commit calls it with the events as rows.

    It holds a lock that every writer of the log waits for. So the positions in the log become visible in their order
    and without gaps, and whoever reads the log misses none (docs/upstream-behaviour.md#e6). Nothing is tried again: the
    committed sequences show whether a commit whose answer was lost has happened (docs/upstream-behaviour.md#e9).
    """

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        """Move the committed sequences by compare-and-set; then insert the events and the inbox rows."""
        outcome: BatchOutcome = kwargs["outcome"]
        before: Mapping[int, int] = kwargs["before"]
        events = [(s.originator_id, s.originator_version, s.topic, s.state) for s in stored_events]
        positions = (outcome.last_sequence, list(before), list(before.values()), len(before))
        with self.datastore.get_connection() as connection, connection.transaction():
            connection.execute(_LOCK_LOG.encode())
            reach("intake.in_commit")
            appended = connection.execute(_APPEND, (*positions, *_transpose(events, 4), *_transpose(outcome.inbox, 7)))
            if not (appended.fetchone() or {})["yes"]:
                raise FencedError(explain_fencing(before))


def _transpose(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Return rows as arrays, one a column: five times faster than row by row (docs/upstream-behaviour.md#s2)."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


class PostgresStore(Store):
    """A store in a database of PostgreSQL. Raises StoreError without the schema of this version or a safe server."""

    def __init__(self, database: "PostgresDatabase", *, create: bool = False) -> None:
        self._datastore = _Datastore(database)
        super().__init__(_PostgresRecorder(self._datastore))
        try:
            with self.read_log() as cursor:
                _check_server(cursor, database.name)
            if create:
                with self.write_log() as cursor:
                    for statement in (_EVENTS, _HEX, *TABLES.values(), *INITIAL_STATEMENTS):
                        cursor.execute(statement)
            with self.read_log() as cursor:
                for table in ("stored_events", *TABLES):
                    cursor.execute(f"SELECT 1 FROM {table} LIMIT 0")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._datastore.close()

    @contextmanager
    def write_log(self) -> Iterator[_Cursor]:
        with self._transaction() as cursor:
            cursor.execute(_LOCK_LOG)
            yield cursor

    @contextmanager
    def read_log(self) -> Iterator[_Cursor]:
        with self._datastore.get_connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            yield _Cursor(cursor)

    @contextmanager
    def write_view(self) -> Iterator[_Cursor]:
        with self._transaction() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute(f"SET LOCAL lock_timeout = '{CONNECT_TIMEOUT_SECONDS}s'")
            yield cursor
            reach("view.before_commit")
        reach("view.after_commit")

    @contextmanager
    def read_view(self) -> Iterator[_Cursor]:
        with self._transaction() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield cursor

    @contextmanager
    def _transaction(self) -> Iterator[_Cursor]:
        with (
            self._datastore.get_connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            yield _Cursor(cursor)


def _check_server(cursor: _Cursor, name: str) -> None:
    cursor.execute("SELECT current_setting('server_encoding')::bytea, current_setting('server_version_num')::bigint")
    encoding, version = cursor.fetchone()
    if version < MIN_POSTGRES_VERSION * 10_000:
        raise StoreError(
            f"{name} is PostgreSQL {version // 10_000}; the engine needs {MIN_POSTGRES_VERSION} or newer: upgrade it"
        )
    if encoding != b"UTF8":
        raise StoreError(f"{name} is encoded in {encoding.decode()}; create the database with ENCODING 'UTF8'")
    cursor.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
    fsync, synchronous = cursor.fetchone()
    if fsync != "on" or synchronous == "off":
        raise StoreError(f"{name}: fsync is {fsync}, synchronous_commit {synchronous}; a power cut could lose commits")


class _Snapshot:
    """One transaction that sees the store as it was when it began. Rows are fetched in portions."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._numbers = count(1)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> psycopg.ServerCursor[Any]:
        cursor = self._connection.cursor(name=f"snapshot_{next(self._numbers)}")
        cursor.itersize = 2_000
        return cursor.execute(translate(statement).encode(), parameters)


class PostgresDatabase:
    """Where a store in PostgreSQL is: a `postgresql://` address. Raises ValueError if libpq cannot read it."""

    def __init__(self, url: str) -> None:
        try:
            given: dict[str, Any] = dict(conninfo_to_dict(url))
        except psycopg.Error as error:
            raise ValueError(f"{read_first_line(error)}; write postgresql://USER@HOST/DATABASE") from None
        self.url = url
        self.conninfo = make_conninfo("", **DEFAULTS | given)
        self.name = f"postgresql://{given.get('host', 'localhost')}/{given.get('dbname', '')}"

    def connect(self) -> Connection[Any]:
        """Open a connection outside the pool, which commits each statement. Raises StoreError if there is none."""
        with translate_errors(self.name):
            return psycopg.connect(self.conninfo, autocommit=True)

    def open(self) -> PostgresStore:
        return PostgresStore(self)

    def migrate(self, views: Iterable[type[Projection]]) -> None:
        with closing(self.connect()) as alone, translate_errors(self.name):
            alone.execute(
                "SELECT pg_advisory_lock(%s)", (MIGRATE_LOCK,)
            )  # two at once would fail: docs/upstream-behaviour.md#e7
            with closing(PostgresStore(self, create=True)) as store:
                made = [view() for view in views]
                for view in made:
                    create_projection(store, view)
            with alone.transaction():
                _grant(alone, [table for view in made for table in view.tables])

    @contextmanager
    def open_snapshot(self) -> Iterator[_Snapshot]:
        self.open().close()  # raises if it cannot be read at all
        with closing(self.connect()) as connection, translate_errors(self.name), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield _Snapshot(connection)

    def create_lock(self, role: str) -> SessionLock:
        return SessionLock(self.connect, role)

    def create_leases(self) -> SessionLeases:
        return SessionLeases(self.connect)


def _grant(connection: Connection[Any], tables: Sequence[str]) -> None:
    """Grant the roles that exist what they may do, `tables` of projections included; and on those of later rebuilds."""
    for (role,) in connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),)
    ).fetchall():
        may = dict.fromkeys(("stored_events", *TABLES, *tables), READ) | ROLES[role]
        if role in PROJECTION_WRITERS:
            may |= dict.fromkeys(tables, WRITE)
        for table, privileges in may.items():
            names = {"table": Identifier(table), "role": Identifier(role)}
            connection.execute(SQL("REVOKE ALL ON {table} FROM {role}").format(**names))
            connection.execute(SQL(f"GRANT {privileges} ON {{table}} TO {{role}}").format(**names))
        new = SQL(f"ALTER DEFAULT PRIVILEGES GRANT {WRITE if role in PROJECTION_WRITERS else READ} ON TABLES TO {{}}")
        connection.execute(new.format(Identifier(role)))
