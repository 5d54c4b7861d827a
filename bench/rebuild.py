"""How fast a view is built again from the first event on, against a raw SELECT of the same rows."""

import gc
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bench.figures import Bounds, compare
from bench.intake import Place, backlog
from projections.registry import PROJECTIONS
from projections.runner import BATCH_ROWS, Projection, catch_up, rebuild
from services.bus.publisher import Outgoing
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from services.store.interface import Store
from services.store.postgres import PostgresDatabase, translate
from services.store.sqlite import SqliteFile
from sla.engine import Engine, Message
from tests.support.postgres import new_database, server

EVENTS = {"SQLite": 100_000, "PostgreSQL": 20_000}
ROUNDS = 5
TAKEN = 500  # messages, as services.bus.reader.StreamReader
SPEED = Bounds(must=0.15, aim=0.40, at_most=False)

SELECT = {
    "log": "SELECT rowid, originator_id, topic, state FROM stored_events WHERE rowid > ? ORDER BY rowid LIMIT ?",
    "inbox": "SELECT * FROM inbox WHERE sequence > ? ORDER BY sequence LIMIT ?",
}
"""What a view follows, in the batches that it follows it in."""


def main() -> int:
    """Prints a row for each view and kind of store; 1 if one is too slow."""
    sizes = ", ".join(f"{events:,} on {kind}" for kind, events in EVENTS.items())
    print(f"rebuild: {ROUNDS} rounds; events: {sizes}; half of them facts")
    with places() as made:
        rows = [row for kind, place in made for row in _measured(kind, place)]
    return 0 if all(rows) else 1


@contextmanager
def places() -> Iterator[list[tuple[str, Place]]]:
    """An empty store of each kind, migrated."""
    gc.set_threshold(50_000, 20, 50)  # as services.wiring
    with TemporaryDirectory(prefix="sla-bench-") as folder, server() as postgres:
        made: list[tuple[str, Place]] = [
            ("SQLite", SqliteFile(Path(folder) / "sla.db")),
            ("PostgreSQL", PostgresDatabase(new_database(postgres.dsn))),
        ]
        for _, place in made:
            place.migrate(PROJECTIONS)
        yield made


def _measured(kind: str, place: Place) -> list[bool]:
    with closing(place.open()) as store, closing(connected(place)) as raw:
        facts = EVENTS[kind] // 2
        judge_all(store, backlog(load_policy(SHIPPED_POLICIES), facts))
        assert store.read_head() == EVENTS[kind]
        for view in PROJECTIONS:
            catch_up(store, view())
        return [_row(f"{kind}: rebuild {view.name}", store, raw, view) for view in PROJECTIONS]


def judge_all(store: Store, messages: Sequence[Outgoing]) -> None:
    """Into an empty store, as intake does it, without a broker."""
    now = datetime.now(UTC)
    store.publish_policy(load_policy(SHIPPED_POLICIES), lambda: now, lead=timedelta(0))
    engine = Engine(store)
    for first in range(0, len(messages), TAKEN):
        store.commit(engine.process(stored(messages[first : first + TAKEN], first, now)), {0: first})


def stored(messages: Sequence[Outgoing], first: int, now: datetime) -> list[Message]:
    """As the broker hands them over: the first one has the sequence after `first`."""
    return [Message(n, now, each.subject, each.headers, each.body) for n, each in enumerate(messages, first + 1)]


def connected(place: Place) -> Any:
    """A connection of the driver, without the engine's store."""
    if isinstance(place, SqliteFile):
        return sqlite3.connect(place.path, isolation_level=None)
    return place.connect()


def _row(name: str, store: Store, raw: Any, view: type[Projection]) -> bool:
    statement = SELECT[view.source] if isinstance(raw, sqlite3.Connection) else translate(SELECT[view.source])
    rows = _select(raw, statement)

    def ours() -> int:
        return max(rebuild(store, view))

    return compare(name, _timed(rows, lambda: _select(raw, statement)), _timed(rows, ours), SPEED, ROUNDS, rows)


def _select(raw: Any, statement: str) -> int:
    """How many rows there were."""
    last = found = 0
    while batch := raw.execute(statement, (last, BATCH_ROWS)).fetchall():
        last, found = batch[-1][0], found + len(batch)
    return found


def _timed(rows: int, read: Callable[[], int]) -> Callable[[], float]:
    def seconds() -> float:
        start = perf_counter()
        assert read() == rows
        return perf_counter() - start

    return seconds
