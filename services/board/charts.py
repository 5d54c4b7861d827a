"""Drawings as SVG: the breaches of a day, and the course of a ticket. Every text in them is escaped."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time, timedelta
from typing import NamedTuple

from markupsafe import Markup

from sla.calendar import get_zone

HOUR = timedelta(hours=1)

WIDTH, EDGE = 1_000, 12  # of the course of a ticket, in units of its drawing
CHARACTER_WIDTH, LANE = 7.4, 22  # about the width of a letter, and the height of a line of words
LANES = 4  # of words at most, above and below
THICK = 34  # the height of the stretches


def draw_hours_chart(times: Iterable[datetime], now: datetime) -> Markup:
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


class ChartSegment(NamedTuple):
    """Time [start, end), whether it counts, and why or why not; `ahead` if it is not used, or not yet."""

    start: datetime
    end: datetime
    counted: bool
    reason: str
    ahead: bool = False


class ChartMark(NamedTuple):
    """An instant with a word; `kind` is its colour: fact, percent, due, answer or now."""

    at: datetime
    word: str
    kind: str


def draw_timeline(
    stretches: Sequence[ChartSegment], facts: Sequence[ChartMark], signs: Sequence[ChartMark], zone: str
) -> Markup:
    """
    A ticket from left to right: facts above, what counts and what does not in the middle, thresholds, deadline and now
    below. Stretches are without gaps; what lies outside of them is not drawn.
    """
    start, end = stretches[0].start, max(stretches[-1].end, stretches[0].start + timedelta(seconds=1))

    def x(at: datetime) -> float:
        return round(EDGE + (WIDTH - 2 * EDGE) * ((at - start) / (end - start)), 1)

    above, below = (_place_marks([each for each in some if start <= each.at <= end], x) for some in (facts, signs))
    top = LANE * max((each.lane + 1 for each in above), default=0) + 6
    bottom = top + THICK + LANE * max((each.lane + 1 for each in below), default=0) + 30
    due = next((sign.at for sign in signs if sign.kind == "due"), None)
    parts = [
        *(_draw_midnight(x(at), at, top, bottom) for at in _find_midnights(start, end, zone)),
        *(
            _draw_segment(x(part.start), x(part.end), top, part, due)
            for each in stretches
            for part in _cut_at_deadline(each, due)
        ),
        *(_draw_line(each, top - 20 - each.lane * LANE, top + THICK) for each in above),
        *(_draw_line(each, top, top + THICK + 21 + each.lane * LANE) for each in below),
        *(_draw_word(each, top - 8 - each.lane * LANE) for each in above),
        *(_draw_word(each, top + THICK + 18 + each.lane * LANE) for each in below),
    ]
    label = f"The course of the ticket: {len(facts)} facts; what counts and what does not is in the table below"
    return Markup('<svg class="course" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, bottom, label, Markup("").join(parts)
    )


def _cut_at_deadline(stretch: ChartSegment, due: datetime | None) -> list[ChartSegment]:
    """What counts after the deadline is drawn in its own colour."""
    if due is None or not stretch.start < due < stretch.end:
        return [stretch]
    return [stretch._replace(end=due), stretch._replace(start=due)]


def _draw_segment(left: float, right: float, top: int, stretch: ChartSegment, due: datetime | None) -> Markup:
    late = due is not None and stretch.start >= due
    kind = "idle" if not stretch.counted else "ahead" if stretch.ahead else "overdue" if late else "counted"
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
        kind, left, top, max(0.8, round(right - left, 1)), THICK, stretch.reason
    )


def _find_midnights(start: datetime, end: datetime, zone: str) -> list[datetime]:
    """Those of the local days between, at most about a dozen."""
    first, last = start.astimezone(get_zone(zone)).date(), end.astimezone(get_zone(zone)).date()
    step = max(1, (last - first).days // 8)
    days = (first + timedelta(days=n) for n in range(1, (last - first).days + 1, step))
    return [datetime.combine(day, time(), get_zone(zone)) for day in days]


def _draw_midnight(x: float, at: datetime, top: int, bottom: int) -> Markup:
    return Markup('<path class="day" d="M{0} {1}V{2}"/><text class="day" x="{3}" y="{4}">{5}</text>').format(
        x, top - 4, bottom, x + 4, bottom - 5, f"{at:%a} {at.day} {at:%b}"
    )


class _Placed(NamedTuple):
    """A sign where it is drawn; without its word if there is no room for it."""

    x: float
    word: str
    kind: str
    lane: int
    to_the_left: bool
    title: str


def _place_marks(signs: Sequence[ChartMark], x: Callable[[datetime], float]) -> list[_Placed]:
    """Each in the first lane in which its word has room, the most important first."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(LANES)]
    found = []
    for sign in sorted(signs, key=lambda each: (each.kind not in ("due", "answer"), each.at)):
        at, width = x(sign.at), CHARACTER_WIDTH * len(sign.word) + 10
        to_the_left = at + width > WIDTH
        left, right = (at - width, at + 2) if to_the_left else (at - 2, at + width)
        free = (n for n, lane in enumerate(taken) if all(right < other or end < left for other, end in lane))
        lane = next(free, None)
        if lane is not None:
            taken[lane].append((left, right))
        word = sign.word if lane is not None else ""
        found.append(_Placed(at, word, sign.kind, lane or 0, to_the_left, sign.word))
    return found


def _draw_line(sign: _Placed, start: int, end: int) -> Markup:
    """A line through the stretches."""
    return Markup('<path class="{}" d="M{} {}V{}"><title>{}</title></path>').format(
        sign.kind, sign.x, start, end, sign.title
    )


def _draw_word(sign: _Placed, y: int) -> Markup:
    """The word beside the line."""
    at, anchor = (sign.x - 5, "end") if sign.to_the_left else (sign.x + 5, "start")
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        sign.kind, at, y, anchor, sign.word
    )
