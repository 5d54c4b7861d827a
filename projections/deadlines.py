"""When must the clock look at a ticket next? One row for each ticket that time alone can change."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from projections.follow import Cursor
from sla.log import Decision

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """An instant as microseconds since 1970, UTC: what tables keep."""
    return (at - _EPOCH) // _MICROSECOND


def instant(at: int) -> datetime:
    """The instant that a table keeps."""
    return _EPOCH + timedelta(microseconds=at)


class Row(NamedTuple):
    """`at` is in microseconds since 1970, UTC."""

    at: int
    ticket: str


class Deadlines:
    """The next instant of interest of each ticket, by instant."""

    name: ClassVar[str] = "deadlines"
    source: ClassVar[str] = "entries"

    def __init__(self, suffix: str = "") -> None:
        self._table = f"deadlines{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table,)

    def create(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} "
            "(ticket TEXT PRIMARY KEY, at BIGINT NOT NULL, UNIQUE (at, ticket))"
        )

    def apply(self, cursor: Cursor, batch: Sequence[Any]) -> None:
        last = {entry.ticket: entry.event.state.next_at for entry in batch if isinstance(entry.event, Decision)}
        cursor.executemany(f"DELETE FROM {self._table} WHERE ticket = ?", [(ticket,) for ticket in last])
        rows = [(ticket, microseconds(at)) for ticket, at in last.items() if at is not None]
        cursor.executemany(f"INSERT INTO {self._table} VALUES (?, ?)", rows)

    def until(self, cursor: Cursor, at: int, limit: int) -> list[Row]:
        """The rows up to an instant, the earliest first."""
        cursor.execute(f"SELECT at, ticket FROM {self._table} WHERE at <= ? ORDER BY at, ticket LIMIT ?", (at, limit))
        return [Row(*row) for row in cursor.fetchall()]

    def after(self, cursor: Cursor, at: int) -> int | None:
        """The first instant after another one; None if there is none."""
        cursor.execute(f"SELECT min(at) FROM {self._table} WHERE at > ?", (at,))
        found = cursor.fetchone()[0]
        return None if found is None else int(found)
