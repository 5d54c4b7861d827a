"""
How a projection follows its source, the log or the inbox. Which questions a projection answers is not in here.

- A *checkpoint* is the last position of the source that a projection has applied. `sla migrate` creates tables and
  checkpoint (`create_projection`); with another layout it drops both, and the projection begins again at 0.
- A *batch* is one transaction (`run_batch`): read what comes after the checkpoint, move the checkpoint, apply the rows.
  So each row is applied once, whatever crashes. The checkpoint moves only from where it was read (compare and set): of
  two processes that run one projection, the slower one applies nothing and reads again. Repeated batches *catch up*.
- A *rebuild* folds the source from 0 into spare tables (suffix `_rebuild`) with a checkpoint of their own, while the
  live ones go on. The *swap* is one transaction: spare tables take the names of the live ones, their checkpoint becomes
  the live one. If the live projection has read further meanwhile, the spare one catches up and the swap is repeated.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from sla.log import LogRow

BATCH_ROWS = 1_000  # where there is no hurry


class NotMigratedError(Exception):
    """The tables of a projection do not exist yet."""


class Cursor(Protocol):
    """What a projection needs of a database cursor (DB-API, parameters as `?`)."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any: ...
    def executemany(self, statement: str, parameters: Any, /) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class LogSource(Protocol):
    """What the runner needs of the store: both sources by position, checkpoints, and a transaction."""

    def read_log_rows(self, after: int, limit: int) -> Sequence[LogRow]: ...
    def read_inbox(self, after: int, limit: int) -> Sequence[Any]: ...
    def read_checkpoint(self, name: str) -> int | None: ...
    def write_view(self) -> AbstractContextManager[Any]: ...


class Projection(Protocol):
    """
    Tables folded from the log, and the questions they answer.

    `source` is "log" (rows of facts and decisions, of which a projection decodes what it needs) or "inbox" (what became
    of each message). `layout` is the version of its tables. `suffix` is appended to their names during a rebuild; their
    indexes are constraints, whose names cannot collide.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    layout: ClassVar[int]

    def __init__(self, suffix: str = "") -> None: ...

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of its tables."""
        ...

    def create_tables(self, cursor: Cursor) -> None:
        """Create the tables that do not exist."""
        ...

    def apply(self, cursor: Cursor, batch: Sequence[Any]) -> None:
        """Fold a batch into the tables; rows come in the order of the source, each once."""
        ...


def create_projection(store: LogSource, projection: Projection, checkpoint: str | None = None) -> None:
    """
    Create the tables, and a checkpoint at 0, unless they exist in this layout; those of another layout are dropped.

    `checkpoint` is its name, that of the projection by default.
    """
    name = checkpoint or projection.name
    with store.write_view() as cursor:
        cursor.execute("INSERT INTO positions VALUES (?, 1) ON CONFLICT DO NOTHING", (f"{name} layout",))
        cursor.execute("SELECT position FROM positions WHERE name = ?", (f"{name} layout",))
        if cursor.fetchone()[0] != projection.layout:
            for table in projection.tables:
                cursor.execute(f"DROP TABLE IF EXISTS {table}")
            cursor.execute("DELETE FROM positions WHERE name = ?", (name,))
            cursor.execute("UPDATE positions SET position = ? WHERE name = ?", (projection.layout, f"{name} layout"))
        cursor.execute("INSERT INTO positions VALUES (?, 0) ON CONFLICT DO NOTHING", (name,))
        projection.create_tables(cursor)


def run_batch(store: LogSource, projection: Projection, checkpoint: str | None = None, limit: int = BATCH_ROWS) -> int:
    """
    Apply one batch of at most `limit` rows. Returns how many rows it had; 0 means that the projection has caught up.

    The rows count too if another process has moved the checkpoint and nothing was applied: there may be more to read.
    Raises NotMigratedError if there is no checkpoint.
    """
    name = checkpoint or projection.name
    applied = store.read_checkpoint(name)
    if applied is None:
        raise NotMigratedError(f"view {name} has no position; run `sla migrate`")
    batch = _read_source(store, projection, applied, limit)
    if not batch:
        return 0
    with store.write_view() as cursor:
        cursor.execute(
            "UPDATE positions SET position = ? WHERE name = ? AND position = ?", (batch[-1][0], name, applied)
        )
        if cursor.rowcount == 1:
            projection.apply(cursor, batch)
    return len(batch)


def _read_source(store: LogSource, projection: Projection, after: int, limit: int) -> Sequence[Any]:
    return store.read_inbox(after, limit) if projection.source == "inbox" else store.read_log_rows(after, limit)


def catch_up(store: LogSource, projection: Projection) -> None:
    """Run batches until one is not full: all that the source had at the beginning is applied."""
    while run_batch(store, projection) == BATCH_ROWS:
        pass


def rebuild(store: LogSource, projection_type: type[Projection]) -> Iterator[int]:
    """
    Build a projection again from the first row beside the live one, then swap them in one transaction.

    Yields after each batch how many rows have been read so far. A rebuild that was broken off begins again.
    """
    live, spare = projection_type(), projection_type("_rebuild")
    checkpoint = f"{live.name}.rebuild"
    with store.write_view() as cursor:
        cursor.execute("DELETE FROM positions WHERE name = ?", (checkpoint,))
        for table in spare.tables:
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
    create_projection(store, spare, checkpoint)
    done = 0
    while True:
        while rows := run_batch(store, spare, checkpoint):
            done += rows
            yield done
        if _swap(store, live, spare, checkpoint):
            return


def _swap(store: LogSource, live: Projection, spare: Projection, checkpoint: str) -> bool:
    """Put the spare tables in the place of the live ones. Returns False if the live projection has read further."""
    with store.write_view() as cursor:
        built = "(SELECT position FROM positions WHERE name = ?)"
        cursor.execute(
            f"UPDATE positions SET position = {built} WHERE name = ? AND position <= {built}",
            (checkpoint, live.name, checkpoint),
        )
        if cursor.rowcount != 1:
            return False
        for table, replacement in zip(live.tables, spare.tables, strict=True):
            cursor.execute(f"DROP TABLE {table}")
            cursor.execute(f"ALTER TABLE {replacement} RENAME TO {table}")
        cursor.execute("DELETE FROM positions WHERE name = ?", (checkpoint,))
    return True
