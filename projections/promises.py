"""What became of each promise, which ones wait, and how many were kept? Why, the log says."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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

OPEN_STAGES = ("pending", "running", "paused")
OPEN_STATES = ("open", *OPEN_STAGES, "at_risk", "breached")
STATES = (*OPEN_STATES, "fulfilled", "cancelled", "excluded", "kept", "broken")
"""
What a filter may ask for: a stage, or `open` (any of OPEN_STAGES), `at_risk`, `breached` (broken and open), `kept` and
`broken` (whatever became of it since).
"""

KEPT, BROKEN, UNDECIDED = "kept", "broken", "undecided"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


Cell = tuple[str, str, str]  # objective, service level, priority


class PromiseKey(NamedTuple):
    """Which promise."""

    ticket: str
    objective: str = FIRST_RESPONSE
    cycle: int = 1


class PromiseRow(NamedTuple):
    """A promise, its state as decided, and the number of facts of its ticket."""

    key: PromiseKey
    state: State
    facts: int


class PromiseLabel(NamedTuple):
    """
    What promises are counted by: level and priority are those it is judged by (docs/architecture.md#rule-4), `kept` is
    KEPT, BROKEN or UNDECIDED.
    """

    objective: str
    service_level: str
    priority: str
    stage: str
    kept: str


class PromiseFilter(NamedTuple):
    """
    Which promises: those of an objective, of the level and priority they are judged by, of a customer and a team, and
    in one of STATES at `now`; and those whose ticket, customer or title has the words of `search` in it. None is any.
    """

    objective: str | None = None
    service_level: str | None = None
    priority: str | None = None
    customer: str | None = None
    team: str | None = None
    state: str | None = None
    search: str | None = None

    def matches(self, row: PromiseRow, now: datetime) -> bool:
        """Return whether a promise is among them at `now`."""
        state, label = row.state, make_label(row.key.objective, row.state)
        exact = {
            "objective": label.objective,
            "service_level": label.service_level,
            "priority": label.priority,
            "customer": state.customer or "",
            "team": state.team or "",
        }
        return (
            all(getattr(self, name) in (None, value) for name, value in exact.items())
            and (self.state is None or self.state in _list_states(state, label, now))
            and (self.search is None or self.search.casefold() in _write_searched(row.key.ticket, state))
        )


def _list_states(state: State, label: PromiseLabel, now: datetime) -> Iterable[str]:
    """Yield which of STATES a promise is in."""
    yield label.stage
    yield label.kept
    if label.stage in OPEN_STAGES:
        yield "open"
        if label.kept == BROKEN:
            yield "breached"
    if is_at_risk(state, now):
        yield "at_risk"


def is_at_risk(state: State, now: datetime) -> bool:
    """Return whether a promise is running, not broken, and has used 75 % of its target at `now`."""
    at = _get_at_risk_at(state)
    return at is not None and at <= to_microseconds(now)


class Span(NamedTuple):
    """The promises that began in [start, end), of an objective and of a customer; None is no bound, and any."""

    start: datetime | None = None
    end: datetime | None = None
    objective: str | None = None
    customer: str | None = None

    def has(self, objective: str, state: State) -> bool:
        """Return whether a promise is among them."""
        began = state.started_at
        return (
            began is not None
            and is_promised(state)
            and (self.start is None or began >= self.start)
            and (self.end is None or began < self.end)
            and self.objective in (None, objective)
            and self.customer in (None, state.customer)
        )


class PageMark(NamedTuple):
    """The place of a promise in the list: open ones by deadline, then all others (`until` None), both by key."""

    until: int | None
    ticket: str
    objective: str
    cycle: int


START_OF_LIST = PageMark(-(2**62), "", "", 0)  # before every promise


def make_page_mark(row: PromiseRow) -> PageMark:
    """Return the place of a promise in the list."""
    return PageMark(get_open_until(row.state), *row.key)


@dataclass(slots=True)
class PromiseChange:
    """
    What a batch says of one promise: the state after it, how many facts of its ticket came (counted with the first
    response) and how many breaches were retracted, and the support time of the last answer, whether or not it counts.
    """

    state: State = field(default_factory=State)
    facts: int = 0
    retracted: int = 0
    answer: timedelta | None = None

    def apply(self, event: Decision) -> None:
        """Apply a decision about this promise."""
        self.state = event.state
        if isinstance(event, BreachRetracted):
            self.retracted += 1
        if isinstance(event, Fulfilled):
            self.answer = event.elapsed


def is_promised(state: State) -> bool:
    """Return whether there is a promise: not if the policy has `none` for its level and priority, and had all along."""
    return state.stage == "pending" or state.due_at is not None


def name_kept(state: State) -> str:
    """Return KEPT, BROKEN or UNDECIDED (docs/architecture.md#rule-16)."""
    return UNDECIDED if state.kept is None else KEPT if state.kept else BROKEN


def make_label(objective: str, state: State) -> PromiseLabel:
    """Return what a promise is counted by."""
    level, priority = state.judged
    return PromiseLabel(objective, level or NO_LEVEL, priority or NO_LEVEL, state.stage, name_kept(state))


class Promises:
    """
    A row for each promise, and the number of promises for each label. A pending ticket has a first response, without a
    level; a first response that is not promised has a row that is in no list and no sum. Retractions and the answer are
    kept whatever the stage: they count again if a late-arriving fact says so.
    """

    name: ClassVar[str] = "promises"
    source: ClassVar[str] = "log"
    layout: ClassVar[int] = 2

    def __init__(self, suffix: str = "") -> None:
        self._table, self._counts = f"promises{suffix}", f"promise_counts{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table, self._counts)

    def create_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (ticket TEXT, objective TEXT, cycle INTEGER, "
            "facts INTEGER NOT NULL, service_level TEXT NOT NULL, priority TEXT NOT NULL, stage TEXT NOT NULL, "
            "kept TEXT NOT NULL, customer TEXT NOT NULL, team TEXT NOT NULL, policy_version TEXT NOT NULL, "
            "searched TEXT NOT NULL, open_until BIGINT, at_risk_at BIGINT, started_at BIGINT, "
            "retracted INTEGER NOT NULL, answer BIGINT, state TEXT NOT NULL, PRIMARY KEY (ticket, objective, cycle), "
            "UNIQUE (open_until, ticket, objective, cycle), UNIQUE (at_risk_at, ticket, objective, cycle), "
            "UNIQUE (started_at, ticket, objective, cycle))"
        )
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._counts} (objective TEXT, service_level TEXT, priority TEXT, "
            "stage TEXT, kept TEXT, n INTEGER NOT NULL, "
            "PRIMARY KEY (objective, service_level, priority, stage, kept))"
        )

    def apply(self, cursor: Cursor, batch: Sequence[LogRow]) -> None:
        facts = Counter(PromiseKey(row.ticket) for row in batch if row.topic == FactRecorded.TOPIC)
        changes = defaultdict[PromiseKey, PromiseChange](PromiseChange)
        for _, ticket, event in decode_rows(batch, Decision):
            changes[PromiseKey(ticket, event.objective, event.cycle)].apply(event)
        before = self._read_labels(cursor, [*{**facts, **changes}])
        for key, number in facts.items():
            if key in changes or key not in before:
                changes[key].facts += number
        cursor.executemany(
            f"UPDATE {self._table} SET facts = facts + more.column1 FROM (VALUES (?, ?, ?, ?)) AS more "
            "WHERE ticket = more.column2 AND objective = more.column3 AND cycle = more.column4",
            [(number, *key) for key, number in facts.items() if key not in changes],
        )
        labels = {key: make_label(key.objective, change.state) for key, change in changes.items()}
        self._save(cursor, changes, labels)
        counts = Counter(labels[key] for key, change in changes.items() if is_promised(change.state))
        counts.subtract(label for key, label in before.items() if key in changes and label is not None)
        cursor.executemany(
            f"INSERT INTO {self._counts} VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (objective, service_level, priority, stage, kept) "
            f"DO UPDATE SET n = {self._counts}.n + excluded.n",
            [(*label, change) for label, change in counts.items() if change],
        )
        cursor.execute(f"DELETE FROM {self._counts} WHERE n = 0")

    def _read_labels(self, cursor: Cursor, keys: Sequence[PromiseKey]) -> dict[PromiseKey, PromiseLabel | None]:
        """Return the label of each of these promises that has a row, None for one that is not promised."""
        if not keys:
            return {}
        cursor.execute(  # joined: SQLite reads the whole table for a row value IN many
            f"WITH wanted (ticket, objective, cycle) AS (VALUES {','.join(['(?, ?, ?)'] * len(keys))}) "
            "SELECT ticket, objective, cycle, service_level, priority, stage, kept, started_at "
            f"FROM wanted JOIN {self._table} USING (ticket, objective, cycle)",
            [value for key in keys for value in key],
        )
        return {
            PromiseKey(ticket, objective, cycle): PromiseLabel(objective, level, priority, stage, kept)
            if stage == "pending" or started_at is not None
            else None
            for ticket, objective, cycle, level, priority, stage, kept, started_at in cursor.fetchall()
        }

    def _save(
        self, cursor: Cursor, changes: Mapping[PromiseKey, PromiseChange], labels: Mapping[PromiseKey, PromiseLabel]
    ) -> None:
        replaced = (
            "service_level", "priority", "stage", "kept", "customer", "team", "policy_version", "searched",
            "open_until", "at_risk_at", "started_at", "state",
        )  # fmt: skip
        columns = ("ticket", "objective", "cycle", "facts", "retracted", "answer", *replaced)
        cursor.executemany(
            f"INSERT INTO {self._table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
            "ON CONFLICT (ticket, objective, cycle) DO UPDATE SET "
            f"facts = {self._table}.facts + excluded.facts, retracted = {self._table}.retracted + excluded.retracted, "
            f"answer = coalesce(excluded.answer, {self._table}.answer), "
            + ", ".join(f"{name} = excluded.{name}" for name in replaced),
            [(*key, *_list_values(key.ticket, change, labels[key])) for key, change in changes.items()],
        )

    # ---- sums

    def read_counts(self, cursor: Cursor) -> dict[PromiseLabel, int]:
        """Return how many promises there are for each label."""
        cursor.execute(f"SELECT objective, service_level, priority, stage, kept, n FROM {self._counts}")
        return {PromiseLabel(*label): n for *label, n in cursor.fetchall()}

    def sum_outcomes(self, cursor: Cursor, by: Sequence[str], within: Span) -> Iterable[tuple[Any, ...]]:
        """
        Return sums of the promises of a span. A row has the columns `by`, stage and kept, and the numbers of promises
        and of retracted breaches.
        """
        columns, where, between = _select_span(by, within)
        cursor.execute(
            f"SELECT {columns}stage, kept, count(*), CAST(sum(retracted) AS BIGINT) "
            f"FROM {self._table} WHERE {where} GROUP BY {columns}stage, kept",
            between,
        )
        return cursor.fetchall()

    def list_answers(self, cursor: Cursor, by: Sequence[str], within: Span) -> Iterable[tuple[Any, ...]]:
        """Return of each of these promises that is fulfilled the columns `by` and the support time until then."""
        columns, where, between = _select_span(by, within)
        cursor.execute(f"SELECT {columns}answer FROM {self._table} WHERE {where} AND stage = 'fulfilled'", between)
        return cursor.fetchall()

    def count_late(self, cursor: Cursor, now: datetime) -> Counter[Cell]:
        """Count by objective, level and priority the running promises whose deadline is `now` or before."""
        return self._count_cells(cursor, "open_until <= ? AND stage = 'running'", now)

    def count_at_risk(self, cursor: Cursor, now: datetime) -> Counter[Cell]:
        """Count by objective, level and priority the promises that are at risk at `now`."""
        return self._count_cells(cursor, "at_risk_at <= ?", now)

    def _count_cells(self, cursor: Cursor, where: str, now: datetime) -> Counter[Cell]:
        cursor.execute(
            f"SELECT objective, service_level, priority, count(*) FROM {self._table} WHERE {where} "
            "GROUP BY objective, service_level, priority",
            (to_microseconds(now),),
        )
        return Counter({(objective, level, priority): n for objective, level, priority, n in cursor.fetchall()})

    # ---- lists

    def list_open(
        self, cursor: Cursor, wanted: PromiseFilter, now: datetime, limit: int | None = None
    ) -> list[PromiseRow]:
        """
        Return the open promises by deadline, pending ones last. With a limit, at least the first so many of each
        version, objective, level and priority, which have the same support hours, and all that are paused: what is left
        of them does not follow from their deadline.
        """
        where, values = _select_wanted(wanted, now)
        within = "policy_version, objective, service_level, priority ORDER BY open_until, ticket, objective, cycle"
        ranked = f"SELECT *, row_number() OVER (PARTITION BY {within}) AS place FROM {self._table}"
        rest = f"WHERE open_until IS NOT NULL{where} "
        order = "ORDER BY open_until, ticket, objective, cycle"
        if limit is None:
            return self._select(cursor, self._table, f"{rest}{order}", values)
        return self._select(
            cursor, f"({ranked} {rest}) AS ranked", f"WHERE place <= ? OR stage = 'paused' {order}", (*values, limit)
        )

    def list_page(
        self, cursor: Cursor, wanted: PromiseFilter, now: datetime, limit: int, after: PageMark | None = None
    ) -> list[PromiseRow]:
        """Return at most `limit` promises after a place in the list: open ones by deadline, then all others by key."""
        where, values = _select_wanted(wanted, now)
        key, found = "ticket, objective, cycle", list[PromiseRow]()
        if after is None or after.until is not None:
            rest = f"WHERE (open_until, {key}) > (?, ?, ?, ?){where} ORDER BY open_until, {key} LIMIT ?"
            found = self._select(cursor, self._table, rest, (*(after or START_OF_LIST), *values, limit))
            after = None
        if len(found) < limit and wanted.state not in OPEN_STATES:
            ended = "open_until IS NULL AND started_at IS NOT NULL"
            rest = f"WHERE {ended} AND ({key}) > (?, ?, ?){where} ORDER BY {key} LIMIT ?"
            start = (after or START_OF_LIST)[1:]
            found += self._select(cursor, self._table, rest, (*start, *values, limit - len(found)))
        return found

    def list_tickets(self, cursor: Cursor) -> list[str]:
        """Return every ticket that was opened, by its id."""
        cursor.execute(f"SELECT DISTINCT ticket FROM {self._table} WHERE stage <> 'pending' ORDER BY ticket")
        return [ticket for (ticket,) in cursor.fetchall()]

    def _select(self, cursor: Cursor, source: str, rest: str, values: Sequence[Any]) -> list[PromiseRow]:
        """Return rows; the facts of a ticket are counted with its first response."""
        cursor.execute(f"SELECT ticket, objective, cycle, facts, state FROM {source} {rest}", values)
        found = [
            PromiseRow(PromiseKey(*key), _decoder.decode(state), facts) for *key, facts, state in cursor.fetchall()
        ]
        tickets = list({row.key.ticket for row in found if row.key.objective != FIRST_RESPONSE})
        counted = dict[str, int]()
        for n in range(0, len(tickets), MAX_MARKS):
            some = tickets[n : n + MAX_MARKS]
            cursor.execute(
                f"SELECT ticket, facts FROM {self._table} WHERE objective = ? AND cycle = 1 "
                f"AND ticket IN ({','.join('?' * len(some))})",
                (FIRST_RESPONSE, *some),
            )
            counted |= dict(cursor.fetchall())
        return [row._replace(facts=counted.get(row.key.ticket, row.facts)) for row in found]


MAX_MARKS = 1_000  # parameters of one statement


def _list_values(ticket: str, change: PromiseChange, label: PromiseLabel) -> tuple[Any, ...]:
    """Return the columns of a row beside its key."""
    state = change.state
    return (
        change.facts,
        change.retracted,
        None if change.answer is None else change.answer // MICROSECOND,
        label.service_level,
        label.priority,
        label.stage,
        label.kept,
        state.customer or "",
        state.team or "",
        state.policy_version or "",
        _write_searched(ticket, state),
        get_open_until(state),
        _get_at_risk_at(state),
        to_microseconds(state.started_at) if state.started_at and is_promised(state) else None,
        _encoder.encode(state).decode(),
    )


def _write_searched(ticket: str, state: State) -> str:
    """Return the text that a search looks into."""
    return "\n".join((ticket, state.customer or "", state.title or "")).casefold()


def _select_wanted(wanted: PromiseFilter, now: datetime) -> tuple[str, list[Any]]:
    """Return the conditions of a filter, each after an AND, and their parameters."""
    given = {name: value for name, value in wanted._asdict().items() if value is not None}
    state, search = given.pop("state", None), given.pop("search", None)
    conditions, values = [f"{name} = ?" for name in given], list[Any](given.values())
    match state:
        case "open":
            conditions.append("open_until IS NOT NULL")
        case "breached":
            conditions.append(f"open_until IS NOT NULL AND kept = '{BROKEN}'")
        case "at_risk":
            conditions.append("at_risk_at <= ?")
            values.append(to_microseconds(now))
        case "kept" | "broken":
            conditions.append("kept = ?")
            values.append(state)
        case str():
            conditions.append("stage = ?")
            values.append(state)
    if search is not None:
        conditions.append("searched LIKE ? ESCAPE '!'")
        values.append(f"%{search.casefold().replace('!', '!!').replace('%', '!%').replace('_', '!_')}%")
    return "".join(f" AND {condition}" for condition in conditions), values


def _select_span(by: Sequence[str], within: Span) -> tuple[str, str, list[Any]]:
    """Return parts of a statement for the promises of a span: columns, a condition, and its parameters."""
    assert set(by) <= {"objective", "service_level", "priority", "customer"}
    conditions = {
        "started_at >= ?": None if within.start is None else to_microseconds(within.start),
        "started_at < ?": None if within.end is None else to_microseconds(within.end),
        "objective = ?": within.objective,
        "customer = ?": within.customer,
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    return "".join(f"{name}, " for name in by), " AND ".join(["started_at IS NOT NULL", *given]), [*given.values()]


_PENDING = to_microseconds(datetime.fromisoformat("9999-01-01T00:00:00Z"))  # pending tickets are listed last


def get_open_until(state: State) -> int | None:
    """Return what open promises are listed by, the deadline in microseconds; None for one that does not wait."""
    if state.stage == "pending":
        return _PENDING
    return to_microseconds(state.due_at) if state.stage in OPEN_STAGES and state.due_at else None


def _get_at_risk_at(state: State) -> int | None:
    return to_microseconds(state.at_risk_at) if state.at_risk_at and state.stage == "running" else None
