"""
Leader election and partition leases on PostgreSQL: advisory locks of a session, which ends when it is silent.

The problem
    Several processes run the same service. Of `announcer` and `metrics` one may work at a time (a role has a leader),
    and each partition of TICKETS may be read by one `intake` at a time. A process that dies, hangs or is cut off has to
    be replaced within seconds, and must do no harm if it wakes up later.

A lease is a session advisory lock
    Each SessionLock and each SessionLeases has a connection of its own. The server releases what its session holds when
    the session ends, for whatever reason. `idle_session_timeout` ends a session from which no statement has come for
    IDLE_TIMEOUT_SECONDS. So to hold a lease is to send a statement every second or so: `acquire` of a lock that is held
    sends `SELECT 1`, and `acquire_fair_share` counts the members. Only the server's clock is asked; no clocks are
    compared, and no row has to be written, expired or cleaned up.

        standby --- acquire() returns True ---> leader --- release(), or its process ends ---> (released)
           ^                                      |
           +-------- StoreError: session ended ---+     the supervisor starts the service again, as a standby

Fair share
    Every SessionLeases also holds the shared lock MEMBERS_LOCK; how many sessions hold it is the number of intakes.
    Each intake holds at most ceil(partitions / intakes): it releases the highest numbers of what it has too many, and
    tries the lowest that it has not. After two rounds of everybody all partitions are held. An intake may hold none (as
    the fourth of four, of 9 partitions), and is a standby. `acquire_all`, for the change to another number of
    partitions, is all or none: who misses one releases everything, so that two at once do not wait for each other.

A lease alone is not safe: fencing
    Between the last look at a lease and a commit a process may be paused for any time, and lose the lease meanwhile. So
    each write also has a fencing token, which the write itself compares:

        intake      the committed sequence of its partitions (Store.commit). It is moved by compare-and-set in the
                    transaction that stores the batch: if another process has moved it, FencedError, nothing is stored
        announcer   the last sequence of the stream SLA, which each message expects; else the broker refuses it
        metrics     the checkpoint of each projection, moved by compare-and-set with its rows (projections/runner.py)

    If the former holder commits before the new one, its batch is stored, and the new one is fenced and begins again at
    the stored sequence: whichever of the two is first, each message is stored once. `clock` needs neither lease nor
    token: several may run, since the broker stores a tick of one id once, and to judge a ticket again decides nothing.

What happens when
    the process ends or is killed    its sockets close, the session ends at once; replaced at the next try, 0.5 s later
    it is paused, or its host is     no statement comes: the session is ended after IDLE_TIMEOUT_SECONDS; when the
    gone or cut off                  process wakes up, its next statement raises StoreError, and a commit is fenced
    it is paused in a transaction    `idle_in_transaction_session_timeout`, the same time: rolled back, and the lock on
                                     the log is free again (services/store/postgres.py)
    its connection breaks            StoreError; what it held counts as lost, though the server may notice later
    PostgreSQL restarts              all sessions end, so nobody holds a lease, and nobody can commit; all acquire anew
    the service is stopped           `release` unlocks before it closes: a server ends a closed session a moment later

Measured in tests/services/test_replicas.py: killed processes are replaced in about 1 s, paused ones in about 5 s. Why
it was decided so is in docs/adr/0011-partitions-are-leased-by-sessions.md.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psycopg import Connection

from services.errors import StoreError
from services.store.postgres_errors import translate_errors

IDLE_TIMEOUT_SECONDS = 4  # without a statement, after which the server ends a session, and so releases its locks

# First keys of advisory locks. The second key is a hash of the role, 0, and the number of the partition.
ROLE_LOCK = 0x51A2
MEMBERS_LOCK = 0x51A3
PARTITION_LOCK = 0x51A4


class _LockSession:
    """A connection for advisory locks. The server ends its session after IDLE_TIMEOUT_SECONDS without a statement."""

    def __init__(self, connect: Callable[[], Connection[Any]]) -> None:
        self._connect = connect
        self._connection: Connection[Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a session, as far as is known."""
        return self._connection is not None

    def query(self, statement: str, *parameters: Any) -> Any:
        """Return the one value of the result. Raises StoreError if the session has ended, with all its locks."""
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute(f"SET idle_session_timeout = '{IDLE_TIMEOUT_SECONDS}s'")
        try:
            with translate_errors("the session that holds locks"):
                (value,) = self._connection.execute(statement, parameters).fetchone() or (None,)
                return value
        except StoreError:
            self._close()
            raise

    def release(self) -> None:
        """Release all locks, and close the connection. The server ends the session only a moment after that."""
        with suppress(StoreError):
            if self._connection is not None:
                self.query("SELECT pg_advisory_unlock_all()")
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SessionLock:
    """The lock of a role. `acquire` raises StoreError if this process held the lock, and has lost it."""

    def __init__(self, connect: Callable[[], Connection[Any]], role: str) -> None:
        self._session, self._role = _LockSession(connect), role
        self._is_held = False

    def acquire(self) -> bool:
        if self._is_held:
            self._is_held = False  # unless the session answers
            self._session.query("SELECT 1")
            self._is_held = True
        else:
            self._is_held = self._session.query("SELECT pg_try_advisory_lock(%s, hashtext(%s))", ROLE_LOCK, self._role)
        return self._is_held

    def release(self) -> None:
        self._is_held = False
        self._session.release()


class SessionLeases:
    """Leases of partitions: a lock for each, and one lock that all processes share, which shows how many they are."""

    def __init__(self, connect: Callable[[], Connection[Any]]) -> None:
        self._session = _LockSession(connect)
        self._held: set[int] = set()

    def acquire_fair_share(self, count: int) -> frozenset[int]:
        fair = -(-count // self._count_members())
        for number in sorted(self._held, reverse=True):
            if len(self._held) > fair or number >= count:
                self._release_one(number)
        for number in range(count):
            if len(self._held) < fair and number not in self._held:
                self._acquire_one(number)
        return frozenset(self._held)

    def acquire_all(self, count: int) -> bool:
        self._count_members()
        if all(number in self._held or self._acquire_one(number) for number in range(count)):
            return True
        for number in tuple(self._held):
            self._release_one(number)
        return False

    def release(self) -> None:
        self._held.clear()
        self._session.release()

    def _count_members(self) -> int:
        """Return how many processes share the partitions, this one included: it joins with the first statement."""
        if not self._session.is_open:
            self._held.clear()
            self._session.query("SELECT pg_advisory_lock_shared(%s, 0)", MEMBERS_LOCK)
        members: int = self._session.query(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objsubid = 2 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            MEMBERS_LOCK,
        )
        return members

    def _acquire_one(self, number: int) -> bool:
        acquired: bool = self._session.query("SELECT pg_try_advisory_lock(%s, %s)", PARTITION_LOCK, number)
        if acquired:
            self._held.add(number)
        return acquired

    def _release_one(self, number: int) -> None:
        self._session.query("SELECT pg_advisory_unlock(%s, %s)", PARTITION_LOCK, number)
        self._held.discard(number)
