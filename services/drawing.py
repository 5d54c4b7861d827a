"""Drawings as SVG: the breaches of a day, and the course of a ticket. Every text in them is escaped."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time, timedelta
from typing import NamedTuple

from markupsafe import Markup

from sla.calendar import zone_of

HOUR = timedelta(hours=1)

WIDTH, EDGE = 1_000, 12  # of the course of a ticket, in units of its drawing
LANE, LANES = 22, 4  # the height of a line of text, and how many there are for facts
LETTER = 7.4  # about the width of one
BAND = LANES * LANE + 14  # where the stretches are, from above
THICK = 34


def hours_chart(times: Iterable[datetime], now: datetime) -> Markup:
    """How many were within each of the last 24 hours, as bars; the newest on the right."""
    ago = Counter(min(23, (now - at) // HOUR) for at in times if at <= now)
    most = max(ago.values(), default=0)
    bars = Markup("")
    for hour in range(24):
        n = ago[23 - hour]
        height = round(40 * n / most, 1) if n else 1
        bars += Markup('<rect class="{}" x="{}" y="{}" width="9" height="{}"/>').format(
            "bar" if n else "none", hour * 12 + 1.5, round(42 - height, 1), height
        )
    label = f"Breaches in each of the last 24 hours: {sum(ago.values())}, at most {most} in an hour"
    return Markup('<svg class="chart" viewBox="0 0 288 42" role="img" aria-label="{}">{}</svg>').format(label, bars)


class Stretch(NamedTuple):
    """Time [start, end), whether it counts, and why or why not."""

    start: datetime
    end: datetime
    counted: bool
    reason: str


class Sign(NamedTuple):
    """An instant with a word; `kind` is its colour: fact, percent, due, answer or now."""

    at: datetime
    word: str
    kind: str


def course(stretches: Sequence[Stretch], facts: Sequence[Sign], signs: Sequence[Sign], zone: str) -> Markup:
    """
    A ticket from left to right: facts above, what counts and what does not in the middle, thresholds, deadline and now
    below. Stretches are without gaps; what lies outside of them is not drawn.
    """
    start, end = stretches[0].start, max(stretches[-1].end, stretches[0].start + timedelta(seconds=1))

    def x(at: datetime) -> float:
        return round(EDGE + (WIDTH - 2 * EDGE) * ((at - start) / (end - start)), 1)

    due = next((sign.at for sign in signs if sign.kind == "due"), None)
    parts = [
        *(_midnight(x(at), at) for at in _midnights(start, end, zone)),
        *(_stretch(x(part.start), x(part.end), part, due) for each in stretches for part in _cut(each, due)),
        *_signs([sign for sign in facts if start <= sign.at <= end], x, range(LANES), above=True),
        *_signs([sign for sign in signs if start <= sign.at <= end], x, range(2), above=False),
    ]
    label = f"The course of the ticket: {len(facts)} facts; what counts and what does not is in the table below"
    return Markup('<svg class="course" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, BAND + THICK + 2 * LANE + 34, label, Markup("").join(parts)
    )


def _cut(stretch: Stretch, due: datetime | None) -> list[Stretch]:
    """What counts after the deadline is drawn in its own colour."""
    if due is None or not stretch.start < due < stretch.end:
        return [stretch]
    return [stretch._replace(end=due), stretch._replace(start=due)]


def _stretch(left: float, right: float, stretch: Stretch, due: datetime | None) -> Markup:
    late = due is not None and stretch.start >= due
    kind = "idle" if not stretch.counted else "overdue" if late else "counted"
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
        kind, left, BAND, max(0.8, round(right - left, 1)), THICK, stretch.reason
    )


def _midnights(start: datetime, end: datetime, zone: str) -> list[datetime]:
    """Those of the local days between, at most about a dozen."""
    first, last = start.astimezone(zone_of(zone)).date(), end.astimezone(zone_of(zone)).date()
    step = max(1, (last - first).days // 12)
    days = (first + timedelta(days=n) for n in range(1, (last - first).days + 1, step))
    return [datetime.combine(day, time(), zone_of(zone)) for day in days]


def _midnight(x: float, at: datetime) -> Markup:
    return Markup('<path class="day" d="M{0} {1}V{2}"/><text class="day" x="{3}" y="{2}">{4}</text>').format(
        x, BAND - 4, BAND + THICK + 2 * LANE + 26, x + 4, f"{at:%a} {at.day} {at:%b}"
    )


def _signs(signs: Sequence[Sign], x: Callable[[datetime], float], lanes: range, above: bool) -> Iterable[Markup]:
    """Each with its word in the first lane in which there is room; if there is none it has only its line."""
    full = [0.0 for _ in lanes]
    for sign in sorted(signs, key=lambda each: each.at):
        at, width = x(sign.at), LETTER * len(sign.word)
        ends = at + width + 8 > WIDTH
        begins = at - width - 6 if ends else at
        lane = next((n for n in lanes if full[n] <= begins), None)
        if lane is None:
            lane, word = lanes[-1], ""
        else:
            full[lane], word = at + 8 if ends else at + width + 12, sign.word
        y = BAND - 14 - lane * LANE if above else BAND + THICK + 18 + lane * LANE
        line = f"M{at} {y - 12 if above else y + 2}V{BAND + THICK if above else BAND}"
        yield Markup(
            '<g class="{}"><title>{}</title><path d="{}"/><text x="{}" y="{}" text-anchor="{}">{}</text></g>'
        ).format(sign.kind, sign.word, line, at - 5 if ends else at + 5, y, "end" if ends else "start", word)
