"""Who owns what on PostgreSQL: locks that a session holds, and that the server frees when it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from eventsourcing.persistence import DatabaseError
from psycopg import Connection

from services.errors import ReadOnlyError, StoreError

IDLE_TIMEOUT_SECONDS = 4  # seconds after which a session that holds locks and says nothing is ended by the server
ROLE, MEMBERS, PARTITION = 0x51A2, 0x51A3, 0x51A4
"""Keys of advisory locks, before a second one: the role, none, the partition."""


@contextmanager
def translate_errors(who: str) -> Iterator[None]:
    """What PostgreSQL says against it, in one line and with what to do."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ReadOnlyError(
            f"{who}: {first_line(error)}; see deploy/postgres/roles.sql, and run `sla migrate`"
        ) from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise StoreError(f"{who}: {first_line(error)}; run `sla migrate`") from None
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        raise StoreError(f"{who}: {first_line(error)}") from None
    except psycopg.Error as error:
        raise DatabaseError(f"{who}: {first_line(error)}") from error


def first_line(error: psycopg.Error) -> str:
    """The first line of what PostgreSQL says."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class _Session:
    """
    A connection that holds advisory locks, which the server frees when it ends. Whoever has them says something every
    second or so; after SILENT seconds without a word the server ends the session, so that no paused process keeps them.
    """

    def __init__(self, connect: Callable[[], Connection[Any]]) -> None:
        self._connect = connect
        self._connection: Connection[Any] | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def ask(self, statement: str, *parameters: Any) -> Any:
        """The one value of an answer. StoreError if the session has ended, with all its locks."""
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute(f"SET idle_session_timeout = '{IDLE_TIMEOUT_SECONDS}s'")
        try:
            with translate_errors("the session that holds locks"):
                (value,) = self._connection.execute(statement, parameters).fetchone() or (None,)
                return value
        except StoreError:
            self.close()
            raise

    def release(self) -> None:
        """Gives its locks back now: the server ends a session a moment after its connection is closed."""
        with suppress(StoreError):
            if self._connection is not None:
                self.ask("SELECT pg_advisory_unlock_all()")
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SessionLock:
    """One owner at a time of a role. StoreError if it was the owner and is it no more."""

    def __init__(self, connect: Callable[[], Connection[Any]], role: str) -> None:
        self._session, self._role = _Session(connect), role
        self._mine = False

    def acquire(self) -> bool:
        if self._mine:
            self._mine = False
            self._session.ask("SELECT 1")
            self._mine = True
        else:
            self._mine = self._session.ask("SELECT pg_try_advisory_lock(%s, hashtext(%s))", ROLE, self._role)
        return self._mine

    def release(self) -> None:
        self._mine = False
        self._session.release()


class SessionLeases:
    """Partitions, each with a lock. How many processes there are, a lock says that all of them share."""

    def __init__(self, connect: Callable[[], Connection[Any]]) -> None:
        self._session = _Session(connect)
        self._held: set[int] = set()

    def acquire_fair_share(self, count: int) -> frozenset[int]:
        fair = -(-count // self._members())
        for number in sorted(self._held, reverse=True):
            if len(self._held) > fair or number >= count:
                self._give(number)
        for number in range(count):
            if len(self._held) < fair and number not in self._held:
                self._try(number)
        return frozenset(self._held)

    def acquire_all(self, count: int) -> bool:
        self._members()
        if all(number in self._held or self._try(number) for number in range(count)):
            return True
        for number in tuple(self._held):
            self._give(number)
        return False

    def release(self) -> None:
        self._held.clear()
        self._session.release()

    def _members(self) -> int:
        if not self._session.is_open:
            self._held.clear()
            self._session.ask("SELECT pg_advisory_lock_shared(%s, 0)", MEMBERS)
        members: int = self._session.ask(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objsubid = 2 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            MEMBERS,
        )
        return members

    def _try(self, number: int) -> bool:
        got: bool = self._session.ask("SELECT pg_try_advisory_lock(%s, %s)", PARTITION, number)
        if got:
            self._held.add(number)
        return got

    def _give(self, number: int) -> None:
        self._session.ask("SELECT pg_advisory_unlock(%s, %s)", PARTITION, number)
        self._held.discard(number)
