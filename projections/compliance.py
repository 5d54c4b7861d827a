"""How often were promises kept and broken, and how fast were answers? Counted from the announcements in the log."""

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
    State,
    TargetChanged,
    WarningRaised,
    decode_rows,
)
from sla.policy import FIRST_RESPONSE

DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


def name_outcome(met: bool) -> str:
    """Return the label of a first response."""
    return "met" if met else "late"


class Compliance(Counters):
    """
    Announcements by kind and labels. Of the first response: `breached`, `retracted`, `response`, `revised`,
    `cancelled`, support time until the answer (`answer`) and detection delay (`delay`). Of others: `objective`.
    """

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


def _count(event: AnnouncedEvent, sums: Counter[Count]) -> None:
    """Count an announcement of a first response. The others make a state, which the tickets projection counts."""
    match event:
        case Breached(service_level=level, priority=priority, detection=detection):
            sums["breached", level, priority, detection, ""] += 1
            if detection == "live":
                _count_delay(event.delay, sums)
        case BreachRetracted(service_level=level, priority=priority, detection=detection):
            sums["retracted", level, priority, detection, ""] += 1
        case Fulfilled(met=met, replaced_met=before, undoes=undone):
            if before is None:
                sums["response", *_get_labels(event.state), name_outcome(met), ""] += 1
                _count_answer(event.elapsed, sums)
            else:
                sums["revised", *_get_labels(event.state), undone or name_outcome(before), name_outcome(met)] += 1
        case Cancelled(cause=cause, undoes=undone):
            sums["cancelled", *_get_labels(event.state), cause, ""] += 1
            if undone is not None:
                sums["revised", *_get_labels(event.state), undone, cause] += 1
        case TargetChanged(undoes=undone):
            if undone not in (None, RUNNING_AGAIN):
                sums["revised", *_get_labels(event.state), undone, RUNNING_AGAIN] += 1
        case Applied() | WarningRaised() | EscalationRaised():
            pass
        case _:
            assert_never(event)


def _count_other(event: AnnouncedEvent, sums: Counter[Count]) -> None:
    """Count an announcement of any other objective by its kind; an answer by whether it was in time."""
    kind = name_outcome(event.met) if isinstance(event, Fulfilled) else event.KIND
    sums["objective", event.objective, *_get_labels(event.state), kind] += 1


def _get_labels(state: State) -> tuple[str, str]:
    return state.service_level or NO_LEVEL, state.priority or NO_LEVEL


def _count_answer(used: timedelta, sums: Counter[Count]) -> None:
    """Count rounded up to the second, above an hour to the minute: exact for all buckets made of a policy's targets."""
    exact = used.total_seconds()
    step = 60 if exact > 3600 else 1
    sums["answer", str(math.ceil(exact / step) * step), "", "", ""] += 1
    sums["answer_sum", "", "", "", ""] += used // MICROSECOND


def _count_delay(delay: timedelta, sums: Counter[Count]) -> None:
    exact = delay.total_seconds()
    bucket = next((bound for bound in DELAY_BUCKETS if exact <= bound), math.inf)
    sums["delay", str(bucket), "", "", ""] += 1
    sums["delay_sum", "", "", "", ""] += delay // MICROSECOND
