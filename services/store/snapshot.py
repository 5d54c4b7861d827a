"""What is asked of a snapshot of a whole store: rows, counts, and a copy of it. Comparing one is in `sla verify`."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from types import UnionType
from typing import Any

import msgspec

from services.errors import StoreError
from services.store.interface import Snapshot, Store
from services.store.schema import COPIED_COLUMNS
from sla.engine import InboxRow
from sla.log import FactRecorded, LogRow

Row = tuple[Any, ...]

COPY_ROWS = 5_000  # in one statement
STORAGE_CLASSES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB", type(None): "NULL"}
_decode_fact = msgspec.json.Decoder(FactRecorded).decode


RECORDED_FACTS = (
    "(SELECT ticket, hex(fact_key) fact_key, hex(digest) digest FROM inbox WHERE outcome = 'recorded') recorded_facts"
)
"""In place of a table, the facts of the inbox that were recorded: (ticket, fact_key, digest), bytes in hexadecimal."""


def count_tickets(stored: Snapshot) -> int:
    """Return how many tickets have an event."""
    (total,) = stored.execute("SELECT count(DISTINCT originator_id) FROM stored_events").fetchone()
    return int(total)


def read_facts(stored: Snapshot) -> Iterator[tuple[str, Iterator[FactRecorded]]]:
    """Yield each ticket with its facts as they were recorded, in the order of the ids."""
    rows = stored.execute(
        "SELECT originator_id, state FROM stored_events WHERE topic = ? ORDER BY originator_id, originator_version",
        (FactRecorded.TOPIC,),
    )
    for ticket, group in groupby(rows, itemgetter(0)):
        yield ticket, (_decode_fact(state) for _, state in group)


def read_head(stored: Snapshot) -> int:
    """Return the position of the newest event of the log, 0 if there is none."""
    return int(_read_one(stored, "SELECT max(rowid) FROM stored_events") or 0)


def read_inbox_end(stored: Snapshot) -> int:
    """Return the sequence of the newest message of the inbox, 0 if there is none."""
    return int(_read_one(stored, "SELECT max(sequence) FROM inbox") or 0)


def read_checkpoint(stored: Snapshot, name: str) -> int | None:
    """Return the checkpoint of a reader, None if it has none."""
    position: int | None = _read_one(stored, "SELECT position FROM positions WHERE name = ?", name)
    return position


def _read_one(stored: Snapshot, statement: str, *parameters: object) -> Any:
    row = stored.execute(statement, parameters).fetchone()
    return None if row is None else row[0]


def read_version_rows(stored: Snapshot) -> Iterator[Row]:
    """Yield (version, fingerprint, published_at, effective_from, material, resolved policy or None), as stored."""
    return iter(
        stored.execute(
            "SELECT version, fingerprint, published_at, effective_from, material, resolved "
            "FROM policy_versions LEFT JOIN policies USING (fingerprint)"
        )
    )


def read_log_rows(stored: Snapshot) -> Iterator[LogRow]:
    """Yield the events in the order of the log, undecoded."""
    rows = stored.execute("SELECT rowid, originator_id, topic, state FROM stored_events ORDER BY rowid")
    return (LogRow(*row) for row in rows)


def read_inbox_rows(stored: Snapshot) -> Iterator[InboxRow]:
    """Yield the messages in the order of the inbox."""
    return (InboxRow(*row) for row in stored.execute("SELECT * FROM inbox ORDER BY sequence"))


def read_ticket_rows(stored: Snapshot) -> Iterator[tuple[str, list[Row]]]:
    """Yield each ticket with its events (ticket, version, topic, state) in their order, by the ids of the tickets."""
    rows = stored.execute(
        "SELECT originator_id, originator_version, topic, state FROM stored_events "
        "ORDER BY originator_id, originator_version"
    )
    for ticket, group in groupby(rows, itemgetter(0)):
        yield ticket, list(group)


def select_sorted(stored: Snapshot, table: str, key: Sequence[str]) -> Any:
    """Return a cursor on the rows of a table, or of what stands for one, in the order of a key."""
    return stored.execute(f"SELECT * FROM {table} ORDER BY {', '.join(key)}")


def copy_tables(source: Snapshot, target: Store, checkpoints: Collection[str]) -> None:
    """
    Copy all but the projections into an empty store of either kind, and of the checkpoints only those named. Raises
    StoreError, and copies nothing, if a value has not the type of its column.
    """
    with target.write_log() as cursor:
        cursor.execute("DELETE FROM partitions")
        for table, types in COPIED_COLUMNS.items():
            columns, marks = ", ".join(types), ", ".join("?" * len(types))
            rows = _check_rows(table, types, source.execute(f"SELECT {columns} FROM {table}"))
            while some := list(islice(rows, COPY_ROWS)):
                kept = [row for row in some if table != "positions" or row[0] in checkpoints]
                cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", kept)


def _check_rows(table: str, types: Mapping[str, type | UnionType], rows: Iterable[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if not all(map(isinstance, row, types.values())):
            wrong = [
                f"{column} is {STORAGE_CLASSES[type(value)]}"
                for (column, wanted), value in zip(types.items(), row, strict=True)
                if not isinstance(value, wanted)
            ]
            raise StoreError(f"row {number} of the table {table} has the wrong types: {', '.join(wrong)}")
        yield row
