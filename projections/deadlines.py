"""When must the deadline timer look at a ticket next? One row for each promise that time alone can change."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, NamedTuple

from events.times import to_microseconds
from projections.runner import Cursor
from sla.log import Decision, LogRow, Quarantined, decode_rows
from sla.policy import FIRST_RESPONSE


def _name_promise(event: Decision) -> str:
    """Return the name of a promise among those of its ticket; that of the first response is empty."""
    return "" if event.objective == FIRST_RESPONSE else f"{event.objective}/{event.cycle}"


class DeadlineRow(NamedTuple):
    """A ticket and its next instant of interest, in microseconds since 1970, UTC."""

    at: int
    ticket: str


class Deadlines:
    """The next instant of interest of each promise of each ticket, by instant."""

    name: ClassVar[str] = "deadlines"
    source: ClassVar[str] = "log"
    layout: ClassVar[int] = 2

    def __init__(self, suffix: str = "") -> None:
        self._table = f"deadlines{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table,)

    def create_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} "
            "(ticket TEXT, promise TEXT, at BIGINT NOT NULL, "
            "PRIMARY KEY (ticket, promise), UNIQUE (at, ticket, promise))"
        )

    def apply(self, cursor: Cursor, batch: Sequence[LogRow]) -> None:
        last: dict[tuple[str, str], datetime | None] = {}
        quarantined: list[tuple[str]] = []
        for _, ticket, event in decode_rows(batch, Decision, Quarantined):
            if isinstance(event, Quarantined):
                quarantined.append((ticket,))
                last = {key: at for key, at in last.items() if key[0] != ticket}
            else:
                last[ticket, _name_promise(event)] = event.state.next_at
        cursor.executemany(f"DELETE FROM {self._table} WHERE ticket IN (VALUES (?))", quarantined)
        cursor.executemany(f"DELETE FROM {self._table} WHERE (ticket, promise) IN (VALUES (?, ?))", list(last))
        rows = [(*key, to_microseconds(at)) for key, at in last.items() if at is not None]
        cursor.executemany(f"INSERT INTO {self._table} VALUES (?, ?, ?)", rows)

    def read_until(self, cursor: Cursor, at: int, limit: int) -> list[DeadlineRow]:
        """Return at most `limit` rows up to and including `at`, the earliest first; of each ticket its first one."""
        cursor.execute(f"SELECT at, ticket FROM {self._table} WHERE at <= ? ORDER BY at, ticket LIMIT ?", (at, limit))
        first: dict[str, int] = {}
        for due, ticket in cursor.fetchall():
            first.setdefault(ticket, due)
        return [DeadlineRow(due, ticket) for ticket, due in first.items()]

    def find_next_after(self, cursor: Cursor, at: int) -> int | None:
        """Return the first instant after `at`; None if there is none. Both in microseconds since 1970, UTC."""
        cursor.execute(f"SELECT min(at) FROM {self._table} WHERE at > ?", (at,))
        found = cursor.fetchone()[0]
        return None if found is None else int(found)
