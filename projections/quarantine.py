"""Which tickets are set aside, since when and why? One row for each ticket whose judging failed."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from events.times import to_microseconds
from projections.runner import Cursor
from sla.log import LogRow, Quarantined, Released, decode_rows


class QuarantineRow(NamedTuple):
    """A ticket that is set aside, since when in microseconds since 1970, UTC, and the fault that was met."""

    ticket: str
    since: int
    error: str


class Quarantine:
    """The tickets that are recorded and not judged (docs/architecture.md#decision-8)."""

    name: ClassVar[str] = "quarantine"
    source: ClassVar[str] = "log"
    layout: ClassVar[int] = 1

    def __init__(self, suffix: str = "") -> None:
        self._table = f"quarantine{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table,)

    def create_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} "
            "(ticket TEXT PRIMARY KEY, since BIGINT NOT NULL, error TEXT NOT NULL)"
        )

    def apply(self, cursor: Cursor, batch: Sequence[LogRow]) -> None:
        last = {ticket: event for _, ticket, event in decode_rows(batch, Quarantined, Released)}
        cursor.executemany(f"DELETE FROM {self._table} WHERE ticket IN (VALUES (?))", [(ticket,) for ticket in last])
        rows = [
            (ticket, to_microseconds(event.at), event.error)
            for ticket, event in last.items()
            if isinstance(event, Quarantined)
        ]
        cursor.executemany(f"INSERT INTO {self._table} VALUES (?, ?, ?)", rows)

    def read_rows(self, cursor: Cursor) -> list[QuarantineRow]:
        """Return all rows, the oldest first."""
        cursor.execute(f"SELECT ticket, since, error FROM {self._table} ORDER BY since, ticket")
        return list(map(QuarantineRow._make, cursor.fetchall()))

    def count(self, cursor: Cursor) -> int:
        """Return how many tickets are set aside."""
        cursor.execute(f"SELECT count(*) FROM {self._table}")
        return int(cursor.fetchone()[0])
