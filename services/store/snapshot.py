"""What is asked of a snapshot of a whole store: facts, counts, and a copy of it. Comparing one is in `sla verify`."""

from collections.abc import Collection, Iterator
from itertools import groupby, islice
from operator import itemgetter

import msgspec

from services.store.interface import Snapshot, Store
from services.store.schema import COPIED_COLUMNS
from sla.log import FactRecorded

COPY_ROWS = 5_000  # in one statement
_decode_fact = msgspec.json.Decoder(FactRecorded).decode


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


def copy_tables(source: Snapshot, target: Store, checkpoints: Collection[str]) -> None:
    """Copy all but the projections into an empty store of either kind, and of the checkpoints only those named."""
    with target.write_log() as cursor:
        cursor.execute("DELETE FROM partitions")
        for table, columns in COPIED_COLUMNS.items():
            rows = iter(source.execute(f"SELECT {columns} FROM {table}"))
            while some := list(islice(rows, COPY_ROWS)):
                marks = ", ".join("?" * len(some[0]))
                kept = [row for row in some if table != "positions" or row[0] in checkpoints]
                cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", kept)
