"""How many messages arrived, and what became of them? Counted from the inbox, which has a row for each message."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from projections.counters import Count, Counters
from projections.runner import Cursor
from sla.engine import InboxRow


class Arrivals(Counters):
    """Messages by type and outcome (`fact`), and dead letters by reason (`dead_letter`)."""

    name: ClassVar[str] = "arrivals"
    source: ClassVar[str] = "inbox"
    layout: ClassVar[int] = 2

    def apply(self, cursor: Cursor, batch: Sequence[InboxRow]) -> None:
        sums: Counter[Count] = Counter()
        for row in batch:
            sums["fact", row.type, row.outcome, "", "", ""] += 1
            if row.reason is not None:
                sums["dead_letter", row.reason, "", "", "", ""] += 1
        self._add(cursor, sums)
