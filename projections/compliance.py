"""How often were promises kept and broken, and how fast were answers? Counters that only rise, folded from the log."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from events.times import MICROSECOND
from projections.runner import Cursor
from projections.tickets import NO_LEVEL
from sla.engine import InboxRow
from sla.log import (
    Announced,
    Breached,
    BreachRetracted,
    Cancelled,
    Event,
    Fulfilled,
    LogRow,
    State,
    TargetChanged,
    decode_rows,
)
from sla.policy import FIRST_RESPONSE
from sla.ticket import RUNNING_AGAIN

Count = tuple[str, str, str, str, str]  # what, and up to four labels

DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


def name_outcome(met: bool) -> str:
    """The label of a first response."""
    return "met" if met else "late"


class _Counters:
    """
    A table of sums, keyed by what is counted and its labels. Whole numbers, spans in microseconds: a sum of floats
    depends on how the log was cut into batches, and built again it could come out lower.
    """

    name: ClassVar[str]

    def __init__(self, suffix: str = "") -> None:
        self._table = f"{self.name}{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table,)

    def create_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (what TEXT, a TEXT, b TEXT, c TEXT, d TEXT, "
            "n BIGINT NOT NULL, PRIMARY KEY (what, a, b, c, d))"
        )

    def _add(self, cursor: Cursor, sums: Counter[Count]) -> None:
        cursor.executemany(
            f"INSERT INTO {self._table} VALUES (?, ?, ?, ?, ?, ?) "
            f"ON CONFLICT (what, a, b, c, d) DO UPDATE SET n = {self._table}.n + excluded.n",
            [(*key, n) for key, n in sums.items()],
        )

    def read_counts(self, cursor: Cursor) -> dict[Count, int]:
        """Every sum by its key."""
        cursor.execute(f"SELECT what, a, b, c, d, n FROM {self._table}")
        return {(what, a, b, c, d): n for what, a, b, c, d, n in cursor.fetchall()}


class Compliance(_Counters):
    """Breaches, retractions, responses, and how long they took."""

    name: ClassVar[str] = "compliance"
    source: ClassVar[str] = "log"
    layout: ClassVar[int] = 1

    def apply(self, cursor: Cursor, batch: Sequence[LogRow]) -> None:
        sums: Counter[Count] = Counter()
        for _, _, event in decode_rows(batch, Announced):
            if event.objective == FIRST_RESPONSE:
                _count(event, sums)
            else:
                _count_other(event, sums)
        self._add(cursor, sums)


def _count(event: Event, sums: Counter[Count]) -> None:
    match event:
        case Breached(service_level=level, priority=priority, detection=detection):
            sums["breached", level, priority, detection, ""] += 1
            if detection == "live":
                _count_delay(event.delay, sums)
        case BreachRetracted(service_level=level, priority=priority, detection=detection):
            sums["retracted", level, priority, detection, ""] += 1
        case Fulfilled(met=met, replaced_met=None):
            sums["response", *_get_labels(event.state), name_outcome(met), ""] += 1
            _count_answer(event.elapsed, sums)
        case Fulfilled(met=met, replaced_met=bool(before), undoes=undone):
            sums["revised", *_get_labels(event.state), undone or name_outcome(before), name_outcome(met)] += 1
        case Cancelled(cause=cause, undoes=undone):
            sums["cancelled", *_get_labels(event.state), cause, ""] += 1
            if undone is not None:
                sums["revised", *_get_labels(event.state), undone, cause] += 1
        case TargetChanged(undoes=str(undone)) if undone != RUNNING_AGAIN:
            sums["revised", *_get_labels(event.state), undone, RUNNING_AGAIN] += 1
        case _:
            pass  # not counted: it is a state, and states are for the tickets view


def _count_other(event: Announced, sums: Counter[Count]) -> None:
    """Of every other objective: how often which event was announced, and of answers whether they were in time."""
    kind = name_outcome(event.met) if isinstance(event, Fulfilled) else event.KIND
    sums["objective", event.objective, *_get_labels(event.state), kind] += 1


def _get_labels(state: State) -> tuple[str, str]:
    return state.service_level or NO_LEVEL, state.priority or NO_LEVEL


def _count_answer(used: timedelta, sums: Counter[Count]) -> None:
    """Rounded up to the second, from an hour on to the minute: exact for every bucket that a policy's targets make."""
    exact = used.total_seconds()
    step = 60 if exact > 3600 else 1
    sums["answer", str(math.ceil(exact / step) * step), "", "", ""] += 1
    sums["answer_sum", "", "", "", ""] += used // MICROSECOND


def _count_delay(delay: timedelta, sums: Counter[Count]) -> None:
    exact = delay.total_seconds()
    bucket = next((bound for bound in DELAY_BUCKETS if exact <= bound), math.inf)
    sums["delay", str(bucket), "", "", ""] += 1
    sums["delay_sum", "", "", "", ""] += delay // MICROSECOND


class Arrivals(_Counters):
    """What became of the messages that arrived."""

    name: ClassVar[str] = "arrivals"
    source: ClassVar[str] = "inbox"
    layout: ClassVar[int] = 1

    def apply(self, cursor: Cursor, batch: Sequence[InboxRow]) -> None:
        sums: Counter[Count] = Counter()
        for row in batch:
            sums["fact", row.type, row.outcome, "", ""] += 1
            if row.reason is not None:
                sums["dead_letter", row.reason, "", "", ""] += 1
        self._add(cursor, sums)
