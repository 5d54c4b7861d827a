"""What is the outcome of each ticket's first response, and how many are in each state? Why, the log says."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import msgspec

from events.times import MICROSECOND, to_microseconds
from projections.runner import Cursor
from sla.log import BreachRetracted, Decision, FactRecorded, Fulfilled, LogRow, State, decode_rows
from sla.policy import FIRST_RESPONSE

NO_LEVEL = "none"
"""The label of a pending ticket, which has neither level nor priority yet."""

OPEN_STAGES = "open"
"""In a filter: any stage in which a ticket waits for its first response."""

ANSWERED = ("met", "late")
TICKET_OUTCOMES = (*ANSWERED, "breached", "open", "cancelled", "excluded")

Label = tuple[str, str, str]  # service level, priority, stage

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


class TicketRow(msgspec.Struct, frozen=True):
    """One ticket: its id, the number of its facts, and its state as decided."""

    ticket: str
    facts: int
    state: State


class TicketFilter(NamedTuple):
    """Which tickets: those of a level, a priority and a stage; None is any. The stage OPEN_STAGES is all that wait."""

    service_level: str | None = None
    priority: str | None = None
    stage: str | None = None


class PageMark(NamedTuple):
    """The place of a ticket in the list: open ones by deadline, then all others (`until` None), both by id."""

    until: int | None
    ticket: str


START_OF_LIST = PageMark(-(2**62), "")  # before every ticket


def make_page_mark(row: TicketRow) -> PageMark:
    """Return the place of a ticket in the list."""
    return PageMark(get_open_until(row.state), row.ticket)


class TicketOutcome(NamedTuple):
    """
    The outcome of a ticket's first response, as columns of its row. `came_to` is the outcome: met, late, breached (and
    not answered), open, cancelled or excluded. `opened_at` is None before the ticket is opened. `broken` is 1 if a
    breach is in effect, `retracted` the number of breaches retracted. `answer` is the support time until the last
    response known, whether or not it counts now. Instants and spans in microseconds.
    """

    opened_at: int | None
    service_level: str
    priority: str
    customer: str
    came_to: str
    broken: int
    retracted: int
    answer: int | None


@dataclass(slots=True)
class FoldedTicket:
    """The log of one ticket, folded."""

    facts: int = 0
    state: State = field(default_factory=State)
    retracted: int = 0
    answer: timedelta | None = None

    def apply(self, event: Decision) -> None:
        """Apply a decision about this ticket; only the first response counts."""
        if event.objective != FIRST_RESPONSE:
            return
        self.state = event.state
        if isinstance(event, BreachRetracted):
            self.retracted += 1
        if isinstance(event, Fulfilled):
            self.answer = event.elapsed

    def make_outcome(self) -> TicketOutcome:
        """Return the outcome so far."""
        state = self.state
        return TicketOutcome(
            None if state.started_at is None else to_microseconds(state.started_at),
            state.service_level or NO_LEVEL,
            state.priority or NO_LEVEL,
            state.customer or "",
            _name_ticket_outcome(state),
            int(state.breached_at is not None),
            self.retracted,
            None if self.answer is None else self.answer // MICROSECOND,
        )


def _name_ticket_outcome(state: State) -> str:
    match state.stage:
        case "fulfilled":
            return "met" if state.met else "late"
        case "cancelled" | "excluded":
            return state.stage
        case _:
            return "open" if state.breached_at is None else "breached"


def make_label(state: State) -> Label:
    """Return level, priority and stage as the labels of the metrics."""
    return (state.service_level or NO_LEVEL, state.priority or NO_LEVEL, state.stage)


class Tickets:
    """
    A row for each ticket with its outcome, and the number of tickets for each level, priority and stage. Retractions
    and the answer are kept whatever the stage: they count again if a late-arriving fact says so.
    """

    name: ClassVar[str] = "tickets"
    source: ClassVar[str] = "log"
    layout: ClassVar[int] = 3

    def __init__(self, suffix: str = "") -> None:
        self._table, self._counts = f"tickets{suffix}", f"ticket_counts{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table, self._counts)

    def create_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (ticket TEXT PRIMARY KEY, facts INTEGER NOT NULL, "
            "stage TEXT NOT NULL, open_until BIGINT, at_risk_at BIGINT, "
            "opened_at BIGINT, service_level TEXT NOT NULL, priority TEXT NOT NULL, customer TEXT NOT NULL, "
            "came_to TEXT NOT NULL, broken INTEGER NOT NULL, retracted INTEGER NOT NULL, answer BIGINT, "
            "state TEXT NOT NULL, "
            "UNIQUE (open_until, ticket), UNIQUE (at_risk_at, ticket), UNIQUE (opened_at, ticket))"
        )
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._counts} (service_level TEXT, priority TEXT, stage TEXT, "
            "n INTEGER NOT NULL, PRIMARY KEY (service_level, priority, stage))"
        )

    def apply(self, cursor: Cursor, batch: Sequence[LogRow]) -> None:
        facts = Counter(row.ticket for row in batch if row.topic == FactRecorded.TOPIC)
        tickets = {row.ticket for row in batch}
        rows = self._read_rows(cursor, tickets)
        before = Counter(make_label(row.state) for row in rows.values())
        rows |= {ticket: FoldedTicket() for ticket in tickets - rows.keys()}
        for ticket, number in facts.items():
            rows[ticket].facts += number
        for _, ticket, event in decode_rows(batch, Decision):
            rows[ticket].apply(event)
        self._save(cursor, rows)
        after = Counter(make_label(row.state) for row in rows.values())
        after.subtract(before)
        cursor.executemany(
            f"INSERT INTO {self._counts} VALUES (?, ?, ?, ?) "
            f"ON CONFLICT (service_level, priority, stage) DO UPDATE SET n = {self._counts}.n + excluded.n",
            [(*key, change) for key, change in after.items() if change],
        )
        cursor.execute(f"DELETE FROM {self._counts} WHERE n = 0")

    def _read_rows(self, cursor: Cursor, tickets: set[str]) -> dict[str, FoldedTicket]:
        marks = ",".join("?" * len(tickets))
        cursor.execute(
            f"SELECT ticket, facts, state, retracted, answer FROM {self._table} WHERE ticket IN ({marks})",
            list(tickets),
        )
        return {
            ticket: FoldedTicket(
                facts, _decoder.decode(state), retracted, None if answer is None else answer * MICROSECOND
            )
            for ticket, facts, state, retracted, answer in cursor.fetchall()
        }

    def _save(self, cursor: Cursor, rows: dict[str, FoldedTicket]) -> None:
        columns = ("facts", "stage", "open_until", "at_risk_at", *TicketOutcome._fields, "state")
        cursor.executemany(
            f"INSERT INTO {self._table} VALUES (?{', ?' * len(columns)}) ON CONFLICT (ticket) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in columns),
            [
                (
                    ticket,
                    row.facts,
                    row.state.stage,
                    get_open_until(row.state),
                    _get_at_risk_at(row.state),
                    *row.make_outcome(),
                    _encoder.encode(row.state).decode(),
                )
                for ticket, row in rows.items()
            ],
        )

    def sum_outcomes(
        self, cursor: Cursor, by: Sequence[str], start: int | None = None, end: int | None = None
    ) -> Iterable[tuple[Any, ...]]:
        """
        Return sums of the tickets opened in [start, end), in microseconds; None is no bound. A row has the columns `by`
        of TicketOutcome, the outcome, and the numbers of tickets, of breaches in effect and of retracted ones.
        """
        columns, where, between = _select_period(by, start, end)
        cursor.execute(
            f"SELECT {columns}came_to, count(*), CAST(sum(broken) AS BIGINT), CAST(sum(retracted) AS BIGINT) "
            f"FROM {self._table} WHERE {where} GROUP BY {columns}came_to",
            between,
        )
        return cursor.fetchall()

    def list_answers(
        self, cursor: Cursor, by: Sequence[str], start: int | None = None, end: int | None = None
    ) -> Iterable[tuple[Any, ...]]:
        """Return of each of these tickets that was answered the columns `by` and the support time until the answer."""
        columns, where, between = _select_period(by, start, end)
        cursor.execute(
            f"SELECT {columns}answer FROM {self._table} WHERE {where} AND came_to IN ('met', 'late')", between
        )
        return cursor.fetchall()

    def list_open(self, cursor: Cursor, limit: int) -> list[TicketRow]:
        """Return at most `limit` tickets that wait for a first response, by deadline; pending ones are last."""
        return self._select(cursor, "WHERE open_until IS NOT NULL ORDER BY open_until, ticket LIMIT ?", (limit,))

    def list_page(
        self, cursor: Cursor, wanted: TicketFilter, limit: int, after: PageMark | None = None
    ) -> list[TicketRow]:
        """Return at most `limit` tickets after a place in the list: open ones by deadline, then all others by id."""
        conditions, values = _select_wanted(wanted)
        found: list[TicketRow] = []
        if after is None or after.until is not None:
            rest = f"WHERE (open_until, ticket) > (?, ?){conditions} ORDER BY open_until, ticket LIMIT ?"
            found = self._select(cursor, rest, (*(after or START_OF_LIST), *values, limit))
            after = None
        if len(found) < limit and wanted.stage != OPEN_STAGES:
            rest = f"WHERE open_until IS NULL AND ticket > ?{conditions} ORDER BY ticket LIMIT ?"
            found += self._select(cursor, rest, (after.ticket if after else "", *values, limit - len(found)))
        return found

    def list_all(self, cursor: Cursor) -> list[TicketRow]:
        """Return every ticket, by its id."""
        return self._select(cursor, "ORDER BY ticket", ())

    def _select(self, cursor: Cursor, rest: str, values: Sequence[Any]) -> list[TicketRow]:
        cursor.execute(f"SELECT ticket, facts, state FROM {self._table} {rest}", values)
        return [TicketRow(ticket, facts, _decoder.decode(state)) for ticket, facts, state in cursor.fetchall()]

    def count_late(self, cursor: Cursor, now: datetime) -> Counter[tuple[str, str]]:
        """Count by level and priority the running tickets whose deadline is `now` or before."""
        cursor.execute(
            f"SELECT service_level, priority, count(*) FROM {self._table} "
            "WHERE open_until <= ? AND stage = 'running' GROUP BY service_level, priority",
            (to_microseconds(now),),
        )
        return Counter({(level, priority): n for level, priority, n in cursor.fetchall()})

    def read_counts(self, cursor: Cursor) -> dict[Label, int]:
        """Return how many tickets there are for each level, priority and stage."""
        cursor.execute(f"SELECT service_level, priority, stage, n FROM {self._counts}")
        return {(level, priority, stage): n for level, priority, stage, n in cursor.fetchall()}

    def count_at_risk(self, cursor: Cursor, now: datetime) -> Counter[tuple[str, str]]:
        """Count by level and priority the running, unbroken tickets that have used 75 % of their target at `now`."""
        cursor.execute(f"SELECT state FROM {self._table} WHERE at_risk_at <= ?", (to_microseconds(now),))
        states = (_decoder.decode(state) for (state,) in cursor.fetchall())
        return Counter(make_label(state)[:2] for state in states)


def _select_wanted(wanted: TicketFilter) -> tuple[str, list[str]]:
    """Return the conditions of a filter, each after an AND, and their parameters; open stages are no condition here."""
    stage = None if wanted.stage == OPEN_STAGES else wanted.stage
    named = {name: value for name, value in wanted._replace(stage=stage)._asdict().items() if value is not None}
    return "".join(f" AND {name} = ?" for name in named), list(named.values())


def _select_period(by: Sequence[str], start: int | None, end: int | None) -> tuple[str, str, list[int]]:
    """Return parts of a statement for tickets opened in [start, end): columns, a condition, and its parameters."""
    assert set(by) <= set(TicketOutcome._fields)
    bounds = [(f"opened_at {sign} ?", at) for sign, at in ((">=", start), ("<", end)) if at is not None]
    where = " AND ".join(["opened_at IS NOT NULL", *(text for text, _ in bounds)])
    return "".join(f"{name}, " for name in by), where, [at for _, at in bounds]


_PENDING = to_microseconds(datetime.fromisoformat("9999-01-01T00:00:00Z"))  # pending tickets are listed last


def get_open_until(state: State) -> int | None:
    """Return what open tickets are listed by, the deadline in microseconds; None for a ticket that does not wait."""
    if state.stage == "pending":
        return _PENDING
    return to_microseconds(state.due_at) if state.stage in ("running", "paused") and state.due_at else None


def _get_at_risk_at(state: State) -> int | None:
    return to_microseconds(state.at_risk_at) if state.at_risk_at and state.stage == "running" else None
