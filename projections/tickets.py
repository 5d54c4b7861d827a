"""What became of each ticket's first response, and how many are in each state? Why it is there, the log says."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from projections.deadlines import microseconds
from projections.follow import Cursor
from sla.log import Decision, FactRecorded, State
from sla.policy import FIRST

NONE = "none"  # the label of a pending ticket, which has no level yet

Label = tuple[str, str, str]  # service level, priority, stage

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


class Row(msgspec.Struct, frozen=True):
    """One ticket: its id, the number of its facts, and its state as decided."""

    ticket: str
    facts: int
    state: State


def label(state: State) -> Label:
    """Level, priority and stage, as the metrics name them."""
    return (state.service_level or NONE, state.priority or NONE, state.stage)


class Tickets:
    """One row a ticket, and the number of tickets for each level, priority and stage."""

    name: ClassVar[str] = "tickets"
    source: ClassVar[str] = "entries"
    layout: ClassVar[int] = 1

    def __init__(self, suffix: str = "") -> None:
        self._table, self._counts = f"tickets{suffix}", f"ticket_counts{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table, self._counts)

    def create(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (ticket TEXT PRIMARY KEY, facts INTEGER NOT NULL, "
            "state TEXT NOT NULL, open_until BIGINT, at_risk_at BIGINT, "
            "UNIQUE (open_until, ticket), UNIQUE (at_risk_at, ticket))"
        )
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._counts} (service_level TEXT, priority TEXT, stage TEXT, "
            "n INTEGER NOT NULL, PRIMARY KEY (service_level, priority, stage))"
        )

    def apply(self, cursor: Cursor, batch: Sequence[Any]) -> None:
        rows = self._rows(cursor, {entry.ticket for entry in batch})
        before = Counter(label(state) for _, state in rows.values())
        for entry in batch:
            facts, state = rows.get(entry.ticket, (0, State()))
            if isinstance(entry.event, FactRecorded):
                rows[entry.ticket] = (facts + 1, state)
            elif isinstance(entry.event, Decision) and entry.event.objective == FIRST:
                rows[entry.ticket] = (facts, entry.event.state)
        self._save(cursor, rows)
        after = Counter(label(state) for _, state in rows.values())
        after.subtract(before)
        cursor.executemany(
            f"INSERT INTO {self._counts} VALUES (?, ?, ?, ?) "
            f"ON CONFLICT (service_level, priority, stage) DO UPDATE SET n = {self._counts}.n + excluded.n",
            [(*key, change) for key, change in after.items() if change],
        )
        cursor.execute(f"DELETE FROM {self._counts} WHERE n = 0")

    def _rows(self, cursor: Cursor, tickets: set[str]) -> dict[str, tuple[int, State]]:
        marks = ",".join("?" * len(tickets))
        cursor.execute(f"SELECT ticket, facts, state FROM {self._table} WHERE ticket IN ({marks})", list(tickets))
        return {ticket: (facts, _decoder.decode(state)) for ticket, facts, state in cursor.fetchall()}

    def _save(self, cursor: Cursor, rows: dict[str, tuple[int, State]]) -> None:
        cursor.executemany(
            f"INSERT INTO {self._table} VALUES (?, ?, ?, ?, ?) ON CONFLICT (ticket) DO UPDATE SET "
            "facts = excluded.facts, state = excluded.state, "
            "open_until = excluded.open_until, at_risk_at = excluded.at_risk_at",
            [
                (ticket, facts, _encoder.encode(state).decode(), _open_until(state), _at_risk_at(state))
                for ticket, (facts, state) in rows.items()
            ],
        )

    def open(self, cursor: Cursor, limit: int) -> list[Row]:
        """Tickets without a first response, by deadline: those with no time left come first, then the pending ones."""
        cursor.execute(
            f"SELECT ticket, facts, state FROM {self._table} WHERE open_until IS NOT NULL "
            "ORDER BY open_until, ticket LIMIT ?",
            (limit,),
        )
        return [Row(ticket, facts, _decoder.decode(state)) for ticket, facts, state in cursor.fetchall()]

    def all(self, cursor: Cursor) -> list[Row]:
        """Every ticket, by its id."""
        cursor.execute(f"SELECT ticket, facts, state FROM {self._table} ORDER BY ticket")
        return [Row(ticket, facts, _decoder.decode(state)) for ticket, facts, state in cursor.fetchall()]

    def counts(self, cursor: Cursor) -> dict[Label, int]:
        """How many tickets there are for each level, priority and stage."""
        cursor.execute(f"SELECT service_level, priority, stage, n FROM {self._counts}")
        return {(level, priority, stage): n for level, priority, stage, n in cursor.fetchall()}

    def at_risk(self, cursor: Cursor, now: datetime) -> Counter[tuple[str, str]]:
        """Tickets by level and priority that run, have not broken, and have used 75 % of their target at `now`."""
        cursor.execute(f"SELECT state FROM {self._table} WHERE at_risk_at <= ?", (microseconds(now),))
        states = (_decoder.decode(state) for (state,) in cursor.fetchall())
        return Counter(label(state)[:2] for state in states)


_PENDING = microseconds(datetime.fromisoformat("9999-01-01T00:00:00Z"))  # pending tickets are listed last


def _open_until(state: State) -> int | None:
    if state.stage == "pending":
        return _PENDING
    return microseconds(state.due_at) if state.stage in ("running", "paused") and state.due_at else None


def _at_risk_at(state: State) -> int | None:
    return microseconds(state.at_risk_at) if state.at_risk_at and state.stage == "running" else None
