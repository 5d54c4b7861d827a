"""What a store can do, whichever kind it is: the log, the inbox, published policies and checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import msgspec
from eventsourcing.persistence import ApplicationRecorder, EventStore

from events.times import from_microseconds, to_microseconds
from projections.runner import Cursor, Projection
from services.errors import FencedError, StoreError
from services.store.event_mapper import LogMapper, check_topics, decode_event
from services.store.schema import build_created_at_key
from sla.engine import BatchOutcome, InboxRow
from sla.log import Event, LogEntry, LogRow, Recorded, decode_rows
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import MIN_LEAD, Version, Versions, make_next_version


class Verification(NamedTuple):
    """What `sla verify` found: when it looked, how many tickets it judged again, and how many differed."""

    at: datetime
    tickets: int
    differences: int


class Snapshot(Protocol):
    """A whole store as it was at one instant, for reading alone; the engine goes on writing meanwhile."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Return a cursor over rows as tuples. The SQL is that of Store."""
        ...


class Lock(Protocol):
    """Leader election for a role: one process at a time holds the lock. Released when the process ends, however."""

    def acquire(self) -> bool:
        """Acquire the lock unless another process holds it; return whether this process holds it now."""
        ...

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        ...


class PartitionLeases(Protocol):
    """The partitions of TICKETS that this process may consume. Released when the process ends, however."""

    def acquire_fair_share(self, count: int) -> frozenset[int]:
        """
        Acquire free partitions up to a fair share of `count`, release what is more; return those that are held now.

        To be called every second or so: that keeps the leases, and notices that processes have come or gone.
        """
        ...

    def acquire_all(self, count: int) -> bool:
        """Acquire all of `count` partitions and return True; if one is not to be had, release all and return False."""
        ...

    def release(self) -> None:
        """Release all partitions."""
        ...


class Database(Protocol):
    """Where a store is. Every method blocks, and raises StoreError with what is wrong there and what to do."""

    @property
    def name(self) -> str:
        """The address for people: without user and password."""
        ...

    def open(self) -> "Store":
        """Open the store. Raises StoreError if it has not the schema of this version."""
        ...

    def migrate(self, views: Iterable[type[Projection]]) -> None:
        """Create the schema and the tables of the projections, as far as they do not exist."""
        ...

    def open_snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open a snapshot, which ends with the context."""
        ...

    def create_lock(self, role: str) -> Lock:
        """Return the lock of a role, not acquired yet."""
        ...

    def create_leases(self) -> PartitionLeases:
        """Return the leases of this process, none acquired yet."""
        ...


class Store(ABC):
    """
    The event store. Thread-safe; every method blocks.

    The SQL is what all kinds of store understand: `?` for a parameter, and `rowid` for the position of an event in the
    log, from 1 on without gaps.
    """

    def __init__(self, recorder: ApplicationRecorder) -> None:
        self._recorder = recorder
        self._events: EventStore[str] = EventStore(LogMapper(), recorder)
        self._versions = Versions([])
        self._policies: dict[str, Policy] = {}

    @abstractmethod
    def close(self) -> None:
        """Close all connections; what was committed stays."""

    @abstractmethod
    def write_log(self) -> AbstractContextManager[Cursor]:
        """Begin a transaction of the only writer at the time. When the context has ended it is on the disk."""

    @abstractmethod
    def read_log(self) -> AbstractContextManager[Cursor]:
        """Begin a transaction that only reads."""

    @abstractmethod
    def write_view(self) -> AbstractContextManager[Cursor]:
        """Begin a transaction for a projection and its checkpoint. A power cut may undo it: both are built again."""

    @abstractmethod
    def read_view(self) -> AbstractContextManager[Cursor]:
        """Begin a transaction that reads the projections as they are at one instant."""

    def is_replaced(self) -> bool:
        """Return whether the store was deleted or replaced since it was opened."""
        return False

    # ---- what intake writes

    def commit(self, outcome: BatchOutcome, before: Mapping[int, int]) -> None:
        """
        Store the outcome of a batch in one transaction: events, inbox rows, and the committed sequence.

        `before` has the committed sequence of each partition that the batch is from; it is the fencing token. If one of
        them was moved by another process, FencedError is raised, and nothing is stored.
        """
        self._events.put(outcome.events, outcome=outcome, before=before)

    def read_partitions(self) -> dict[int, int]:
        """Return the committed sequence of each partition, in their order."""
        with self.read_log() as cursor:
            cursor.execute("SELECT number, position FROM partitions ORDER BY number")
            return dict(cursor.fetchall())

    def repartition(self, count: int, before: Mapping[int, int]) -> None:
        """
        Replace the partitions, which all have the same committed sequence in `before`, by `count` new ones.

        Raises FencedError if they are not stored as `before` says.
        """
        (position,) = set(before.values())
        with self.write_log() as cursor:
            cursor.execute("SELECT number, position FROM partitions")
            if dict(cursor.fetchall()) != before:
                raise FencedError(explain_fencing(before))
            cursor.execute("DELETE FROM partitions")
            cursor.executemany("INSERT INTO partitions VALUES (?, ?)", [(number, position) for number in range(count)])

    def begin_reading(self, partitions: Collection[int]) -> bool:
        """Record that an intake reads these partitions. Return whether one that did has not ended in peace."""
        names = [_name_reading(number) for number in partitions]
        with self.write_log() as cursor:
            cursor.execute(f"SELECT count(*) FROM positions WHERE name IN ({_make_marks(names)})", names)
            was_unclean = bool(cursor.fetchone()[0])
            cursor.executemany(
                "INSERT INTO positions VALUES (?, ?) ON CONFLICT (name) DO NOTHING", [(name, 1) for name in names]
            )
        return was_unclean

    def end_reading(self, partitions: Collection[int]) -> None:
        """Record that the intake that read these partitions ends in peace."""
        self._delete_positions([_name_reading(number) for number in partitions])

    def begin_attempt(self, sequence: int) -> int:
        """Record that a message is processed alone. Return how often that was begun, and never ended before."""
        name = _name_attempt(sequence)
        with self.write_log() as cursor:
            one_more = "ON CONFLICT (name) DO UPDATE SET position = positions.position + 1"
            cursor.execute(f"INSERT INTO positions VALUES (?, 1) {one_more}", (name,))
            cursor.execute("SELECT position FROM positions WHERE name = ?", (name,))
            return int(cursor.fetchone()[0])

    def end_attempt(self, sequence: int) -> None:
        """Record that a message neither hangs nor kills."""
        self._delete_positions([_name_attempt(sequence)])

    def _delete_positions(self, names: Sequence[str]) -> None:
        with self.write_log() as cursor:
            cursor.execute(f"DELETE FROM positions WHERE name IN ({_make_marks(names)})", names)

    def read_digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the content digest of each fact that is recorded already, by its idempotency key."""
        rows = self._select_all("SELECT fact_key, digest FROM inbox WHERE fact_key IN ({})", keys)
        return {row[0]: row[1] for row in rows}

    def bind_stream(self, stream: str, created_at: int) -> bool:
        """
        Return whether the committed sequences are those of this stream, created at `created_at` (microseconds).

        A store that is not bound to a stream of this name yet is bound to this one.
        """
        key = build_created_at_key(stream)
        with self.write_log() as cursor:
            cursor.execute("INSERT INTO positions VALUES (?, ?) ON CONFLICT DO NOTHING", (key, created_at))
        return self.read_checkpoint(key) == created_at

    def rebind_stream(self, stream: str, created_at: int) -> None:
        """Bind the store to a stream that was restored: re-created with the same messages under the same sequences."""
        key = build_created_at_key(stream)
        with self.write_log() as cursor:
            cursor.execute("DELETE FROM positions WHERE name = ?", (key,))
            cursor.execute("INSERT INTO positions VALUES (?, ?)", (key, created_at))

    def publish_policy(
        self, policy: Policy, now: Callable[[], datetime], notice: timedelta = timedelta(0), lead: timedelta = MIN_LEAD
    ) -> Version:
        """
        Store the policy as the next version, and return that. It is stored resolved, so that a late-arriving fact is
        judged as it was then; so a version that says the same stays as it is. Before the first ticket event one that
        says something else is replaced.

        Raises VersionRefusedError, and stores nothing, if it cannot follow the versions there are.
        """
        with self.write_log() as cursor:
            if (same := self._select_versions(cursor).find_same(policy)) is not None:
                return same
            row = (policy.fingerprint, policy.name, msgspec.json.encode(policy.to_resolved()))
            cursor.execute("INSERT INTO policies VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
            unused = "NOT EXISTS (SELECT 1 FROM stored_events)"
            cursor.execute(f"DELETE FROM policy_versions WHERE version = ? AND {unused}", (policy.version,))
            version = make_next_version(self._select_versions(cursor), policy, now(), notice, lead)
            cursor.execute(
                "INSERT INTO policy_versions VALUES (?, ?, ?, ?, ?, ?)",
                (
                    version.name,
                    policy.fingerprint,
                    to_microseconds(version.published_at),
                    to_microseconds(version.effective_from),
                    int(version.material),
                    policy.source,
                ),
            )
        return version

    # ---- what other processes write

    def save_checkpoints(self, checkpoints: Mapping[str, int]) -> None:
        """Store how far a reader of the log has come, and what belongs to that, in one transaction."""
        with self.write_view() as cursor:
            cursor.executemany(
                "INSERT INTO positions VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                list(checkpoints.items()),
            )

    def save_verification(self, found: Verification) -> None:
        """Store what `sla verify` found; the metrics show the newest."""
        with self.write_log() as cursor:
            row = (to_microseconds(found.at), found.tickets, found.differences)
            cursor.execute("INSERT INTO verifications VALUES (?, ?, ?)", row)

    # ---- what everybody reads

    def read_versions(self) -> Versions:
        """Return the published versions of the policy: the same object as long as they are the same."""
        with self.read_log() as cursor:
            return self._select_versions(cursor)

    def _select_versions(self, cursor: Cursor) -> Versions:
        cursor.execute(
            "SELECT fingerprint, published_at, effective_from, material, source FROM policy_versions ORDER BY 3"
        )
        rows = [tuple(row) for row in cursor.fetchall()]
        if [row[0] for row in rows] != [version.policy.fingerprint for version in self._versions]:
            self._versions = Versions(
                Version(
                    replace(self._select_policy(cursor, fingerprint), source=source),
                    from_microseconds(published),
                    from_microseconds(effective),
                    bool(material),
                )
                for fingerprint, published, effective, material, source in rows
            )
        return self._versions

    def read_verification(self) -> Verification | None:
        """Return what `sla verify` found the last time; None if it never ran."""
        with self.read_log() as cursor:
            cursor.execute("SELECT at, tickets, differences FROM verifications ORDER BY at DESC LIMIT 1")
            row = cursor.fetchone()
        return None if row is None else Verification(from_microseconds(row[0]), row[1], row[2])

    def load_ticket(self, ticket: str) -> TicketSla | None:
        """Return a ticket, replayed from its events; None if there are none."""
        return self.load_tickets([ticket]).get(ticket)

    def load_tickets(self, tickets: Iterable[str]) -> dict[str, TicketSla]:
        """Return tickets by their id, replayed from their events; those that have none are left out."""
        histories = self.read_histories(tickets)
        return {ticket: TicketSla.replay(None, events) or TicketSla(ticket) for ticket, events in histories}

    def read_histories(self, tickets: Iterable[str]) -> Iterator[tuple[str, list[Recorded]]]:
        """Yield each of the tickets with its events; those that have none are left out."""
        rows = self._select_all(
            "SELECT originator_id, originator_version, topic, state FROM stored_events "
            "WHERE originator_id IN ({}) ORDER BY originator_id, originator_version",
            tickets,
        )
        for ticket, group in groupby(rows, itemgetter(0)):
            yield ticket, [Recorded(ticket, version, decode_event(topic, state)) for _, version, topic, state in group]

    def read_ticket_ids(self) -> Iterator[list[str]]:
        """Yield the ids of all tickets in their order, in batches. Tickets that come meanwhile may be among them."""
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
        """Return the rows for all values, which stand for `{}` in the statement. SQLite takes only so many at once."""
        wanted, rows = list(values), []
        with self.read_log() as cursor:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                cursor.execute(statement.format(_make_marks(some)), some)
                rows += cursor.fetchall()
        return rows

    def read_policy(self, fingerprint: str) -> Policy:
        """Return the policy as it was resolved when it was published. Raises StoreError if it is not in the store."""
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
        """Return the log after a position, in its order. Raises StoreError if a topic is not known."""
        with self.read_log() as cursor:
            cursor.execute(
                "SELECT rowid, originator_id, topic, state FROM stored_events WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (after, limit),
            )
            rows = list(map(LogRow._make, cursor.fetchall()))
        check_topics({row.topic for row in rows})
        return rows

    def read_log_entries(self, after: int, limit: int) -> list[LogEntry]:
        """Return the same as `read_log_rows`, decoded."""
        return list(decode_rows(self.read_log_rows(after, limit), Event))

    def read_inbox(self, after: int, limit: int) -> list[InboxRow]:
        """Return what became of messages after a sequence of TICKETS, as far as every partition is stored."""
        with self.read_log() as cursor:
            cursor.execute(
                "SELECT * FROM inbox WHERE sequence > ? AND sequence <= (SELECT min(position) FROM partitions) "
                "ORDER BY sequence LIMIT ?",
                (after, limit),
            )
            return [InboxRow(*row) for row in cursor.fetchall()]

    def read_head(self) -> int:
        """Return the position of the newest event of the log; 0 if there is none."""
        return self._recorder.max_notification_id() or 0

    def read_committed_sequence(self) -> int:
        """Return the sequence of TICKETS up to which the messages of all partitions are stored."""
        return min(self.read_partitions().values())

    def read_checkpoint(self, name: str) -> int | None:
        """Return how far a reader of the log has come; None if it never stored a checkpoint."""
        return self.read_checkpoints([name]).get(name)

    def read_checkpoints(self, names: Sequence[str]) -> dict[str, int]:
        """Return these checkpoints as they are at one instant; those that were never stored are left out."""
        with self.read_log() as cursor:
            cursor.execute(f"SELECT name, position FROM positions WHERE name IN ({_make_marks(names)})", names)
            return dict(cursor.fetchall())


def _name_reading(partition: int) -> str:
    return f"intake reads {partition}"


def _name_attempt(sequence: int) -> str:
    return f"intake tries {sequence}"


def _make_marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def explain_fencing(before: Mapping[int, int]) -> str:
    """Return the message of FencedError."""
    said = ", ".join(f"{number}: {position}" for number, position in before.items())
    return f"the stored positions are not {said}; another intake works on this store"
