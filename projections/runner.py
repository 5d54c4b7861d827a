"""How a read model follows the log: a batch and its position in one transaction. What it keeps is not here."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

from sla.log import LogRow

BATCH_ROWS = 1_000  # rows; where there is no hurry


class NotMigratedError(Exception):
    """The tables of a view do not exist yet."""


class Cursor(Protocol):
    """What a view needs of a database cursor (DB-API, parameters as `?`)."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any: ...
    def executemany(self, statement: str, parameters: Any, /) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class LogSource(Protocol):
    """What following needs of the store."""

    def read_log_rows(self, after: int, limit: int) -> Sequence[LogRow]: ...
    def read_inbox(self, after: int, limit: int) -> Sequence[Any]: ...
    def read_checkpoint(self, name: str) -> int | None: ...
    def write_view(self) -> AbstractContextManager[Any]: ...


class Projection(Protocol):
    """
    A read model: `apply` batches and answer questions. `source` is what it follows: "log" (rows of facts and decisions,
    of which a view decodes what it needs) or "inbox" (what became of messages). `layout` is the version of its tables:
    with another one it begins anew. `suffix` stands behind the names of its tables while it is built again; their
    indexes are constraints, which have no names that could collide.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    layout: ClassVar[int]

    def __init__(self, suffix: str = "") -> None: ...

    @property
    def tables(self) -> tuple[str, ...]:
        """Its tables."""
        ...

    def create_tables(self, cursor: Cursor) -> None:
        """Its tables, if they do not exist."""
        ...

    def apply(self, cursor: Cursor, batch: Sequence[Any]) -> None:
        """Take over a batch, in the order of the log."""
        ...


def create_projection(store: LogSource, projection: Projection, position_name: str | None = None) -> None:
    """The tables of a view, and its position at the beginning of the log, if they do not exist in this layout."""
    name = position_name or projection.name
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


def run_batch(
    store: LogSource, projection: Projection, position_name: str | None = None, limit: int = BATCH_ROWS
) -> int:
    """
    One batch. Returns how many entries it had; 0 means that the view is up to date.

    Several processes may follow one view: who finds the position moved by another takes nothing and tries again.
    """
    name = position_name or projection.name
    position = store.read_checkpoint(name)
    if position is None:
        raise NotMigratedError(f"view {name} has no position; run `sla migrate`")
    batch = _read(store, projection, position, limit)
    if not batch:
        return 0
    with store.write_view() as cursor:
        cursor.execute(
            "UPDATE positions SET position = ? WHERE name = ? AND position = ?", (batch[-1][0], name, position)
        )
        if cursor.rowcount == 1:
            projection.apply(cursor, batch)
    return len(batch)


def _read(store: LogSource, projection: Projection, position: int, limit: int) -> Sequence[Any]:
    return store.read_inbox(position, limit) if projection.source == "inbox" else store.read_log_rows(position, limit)


def catch_up(store: LogSource, projection: Projection) -> None:
    """Follow until the view is up to date with what the log has now."""
    while run_batch(store, projection) == BATCH_ROWS:
        pass


def rebuild(store: LogSource, view: type[Projection]) -> Iterator[int]:
    """
    Build a view again from the first entry beside the live one, then put it in its place in one transaction.

    Yields how many entries have been read so far.
    """
    live, spare = view(), view("_rebuild")
    name = f"{live.name}.rebuild"
    with store.write_view() as cursor:
        cursor.execute("DELETE FROM positions WHERE name = ?", (name,))
        for table in spare.tables:
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
    create_projection(store, spare, name)
    done = 0
    while True:
        while taken := run_batch(store, spare, name):
            done += taken
            yield done
        if _swap(store, live, spare, name):
            return


def _swap(store: LogSource, live: Projection, spare: Projection, name: str) -> bool:
    """Puts the spare view in the place of the live one; False if the live one has read further meanwhile."""
    with store.write_view() as cursor:
        built = "(SELECT position FROM positions WHERE name = ?)"
        cursor.execute(
            f"UPDATE positions SET position = {built} WHERE name = ? AND position <= {built}", (name, live.name, name)
        )
        if cursor.rowcount != 1:
            return False
        for table, replacement in zip(live.tables, spare.tables, strict=True):
            cursor.execute(f"DROP TABLE {table}")
            cursor.execute(f"ALTER TABLE {replacement} RENAME TO {table}")
        cursor.execute("DELETE FROM positions WHERE name = ?", (name,))
    return True
