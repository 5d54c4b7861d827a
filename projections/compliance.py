"""What was announced of promises, and how fast were they fulfilled? Counted from the log, so that no sum ever falls."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, assert_never

from events.times import MICROSECOND
from projections.counters import Count, Counters
from projections.promises import NO_LEVEL
from projections.runner import Cursor
from sla.decisions import RUNNING_AGAIN
from sla.log import (
    Announced,
    AnnouncedEvent,
    Applied,
    Breached,
    BreachRetracted,
    Cancelled,
    EscalationRaised,
    Fulfilled,
    LogRow,
    ReminderRaised,
    TargetChanged,
    WarningRaised,
    decode_rows,
)

DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


def name_outcome(met: bool) -> str:
    """Return the outcome of a promise that is fulfilled, as a label."""
    return "met" if met else "late"


class Compliance(Counters):
    """
    Announcements by kind, objective, and the level and priority that the promise is judged by: `breached`, `retracted`,
    `fulfilled` (the first one), `revised`, `cancelled`; the support time until a promise was fulfilled (`answer`), by
    objective, and the detection delay of live breaches (`delay`).
    """

    name: ClassVar[str] = "compliance"
    source: ClassVar[str] = "log"
    layout: ClassVar[int] = 2

    def apply(self, cursor: Cursor, batch: Sequence[LogRow]) -> None:
        sums: Counter[Count] = Counter()
        for _, _, event in decode_rows(batch, Announced):
            _count(event, sums)
        self._add(cursor, sums)


def _count(event: AnnouncedEvent, sums: Counter[Count]) -> None:
    """Count an announcement; those that are not counted make a state, which the projection of promises counts."""
    level, priority = event.state.judged
    labels = (event.objective, level or NO_LEVEL, priority or NO_LEVEL)
    match event:
        case Breached(service_level=level, priority=priority, detection=detection):
            sums["breached", event.objective, level, priority, detection, ""] += 1
            if detection == "live":
                _count_delay(event.delay, sums)
        case BreachRetracted(service_level=level, priority=priority, detection=detection):
            sums["retracted", event.objective, level, priority, detection, ""] += 1
        case Fulfilled(met=met, replaced_met=None):
            sums["fulfilled", *labels, name_outcome(met), event.detection] += 1
            _count_answer(event.objective, event.elapsed, sums)
        case Fulfilled(met=met, replaced_met=before, undoes=undone):
            sums["revised", *labels, undone or name_outcome(bool(before)), name_outcome(met)] += 1
        case Cancelled(cause=cause, undoes=undone):
            sums["cancelled", *labels, cause, ""] += 1
            if undone is not None:
                sums["revised", *labels, undone, cause] += 1
        case TargetChanged(undoes=undone):
            if undone not in (None, RUNNING_AGAIN):
                sums["revised", *labels, undone, RUNNING_AGAIN] += 1
        case Applied() | WarningRaised() | ReminderRaised() | EscalationRaised():
            pass
        case _:
            assert_never(event)


def round_up(seconds: float) -> int:
    """Round up to the second, above an hour to the minute, as answers are counted: few values, exact for buckets."""
    step = 60 if seconds > 3600 else 1
    return math.ceil(seconds / step) * step


def _count_answer(objective: str, used: timedelta, sums: Counter[Count]) -> None:
    sums["answer", objective, str(round_up(used.total_seconds())), "", "", ""] += 1
    sums["answer_sum", objective, "", "", "", ""] += used // MICROSECOND


def _count_delay(delay: timedelta, sums: Counter[Count]) -> None:
    exact = delay.total_seconds()
    bucket = next((bound for bound in DELAY_BUCKETS if exact <= bound), math.inf)
    sums["delay", str(bucket), "", "", "", ""] += 1
    sums["delay_sum", "", "", "", "", ""] += delay // MICROSECOND
