"""Drawings as SVG: the breaches of a day, and the course of a ticket. All numbers; texts are escaped."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from markupsafe import Markup

HOUR = timedelta(hours=1)


def hours_chart(times: Iterable[datetime], now: datetime) -> Markup:
    """How many were within each of the last 24 hours, as bars; the newest on the right."""
    ago = Counter(min(23, (now - at) // HOUR) for at in times if at <= now)
    highest = max([*ago.values(), 1])
    bars = []
    for hour in range(24):
        n = ago[23 - hour]
        height = round(56 * n / highest, 1) if n else 1
        kind = "bar" if n else "bar none"
        bars.append(
            Markup('<rect class="{}" x="{}" y="{}" width="9" height="{}" rx="1"/>').format(
                kind, hour * 12 + 1.5, round(60 - height, 1), height
            )
        )
    label = f"Breaches within each of the last 24 hours: {sum(ago.values())}, at most {max([*ago.values(), 0])} an hour"
    return Markup('<svg class="chart" viewBox="0 0 288 60" role="img" aria-label="{}">{}</svg>').format(
        label, Markup("").join(bars)
    )
