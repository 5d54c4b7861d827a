"""Charts as SVG: the breaches of a day, and the timeline of a ticket. Every text in them is escaped."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time, timedelta
from typing import NamedTuple

from markupsafe import Markup

from sla.calendar import get_zone

HOUR = timedelta(hours=1)

WIDTH, MARGIN = 1_000, 12  # of the timeline of a ticket, in units of its drawing
CHARACTER_WIDTH, LANE_HEIGHT = 7.4, 22  # about the width of a letter, and the height of a line of words
MAX_LANES = 4  # of words at most, above and below
BAR_HEIGHT = 34


def draw_hours_chart(times: Iterable[datetime], now: datetime) -> Markup:
    """Draw how many were within each of the last 24 hours, as bars; the newest on the right."""
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
    """Time [start, end), whether it counts, and why; `ahead` if it is not used, or not yet."""

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
    segments: Sequence[ChartSegment], facts: Sequence[ChartMark], marks: Sequence[ChartMark], zone: str
) -> Markup:
    """
    Draw a ticket from left to right: facts above, what counts and what does not in the middle, thresholds, deadline and
    now below. The segments are without gaps; what lies outside of them is not drawn.
    """
    start, end = segments[0].start, max(segments[-1].end, segments[0].start + timedelta(seconds=1))

    def x(at: datetime) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * ((at - start) / (end - start)), 1)

    above, below = (_place_marks([each for each in some if start <= each.at <= end], x) for some in (facts, marks))
    top = LANE_HEIGHT * max((each.lane + 1 for each in above), default=0) + 6
    bottom = top + BAR_HEIGHT + LANE_HEIGHT * max((each.lane + 1 for each in below), default=0) + 30
    due = next((mark.at for mark in marks if mark.kind == "due"), None)
    parts = [
        *(_draw_midnight(x(at), at, top, bottom) for at in _find_midnights(start, end, zone)),
        *(
            _draw_segment(x(part.start), x(part.end), top, part, due)
            for each in segments
            for part in _cut_at_deadline(each, due)
        ),
        *(_draw_line(each, top - 20 - each.lane * LANE_HEIGHT, top + BAR_HEIGHT) for each in above),
        *(_draw_line(each, top, top + BAR_HEIGHT + 21 + each.lane * LANE_HEIGHT) for each in below),
        *(_draw_word(each, top - 8 - each.lane * LANE_HEIGHT) for each in above),
        *(_draw_word(each, top + BAR_HEIGHT + 18 + each.lane * LANE_HEIGHT) for each in below),
    ]
    label = f"The course of the ticket: {len(facts)} facts; what counts and what does not is in the table below"
    return Markup('<svg class="course" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, bottom, label, Markup("").join(parts)
    )


def _cut_at_deadline(segment: ChartSegment, due: datetime | None) -> list[ChartSegment]:
    """Cut a segment at the deadline: what counts after it has its own colour."""
    if due is None or not segment.start < due < segment.end:
        return [segment]
    return [segment._replace(end=due), segment._replace(start=due)]


def _draw_segment(left: float, right: float, top: int, segment: ChartSegment, due: datetime | None) -> Markup:
    late = due is not None and segment.start >= due
    kind = "idle" if not segment.counted else "ahead" if segment.ahead else "overdue" if late else "counted"
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
        kind, left, top, max(0.8, round(right - left, 1)), BAR_HEIGHT, segment.reason
    )


def _find_midnights(start: datetime, end: datetime, zone: str) -> list[datetime]:
    """Return the midnights of the local days between, at most about a dozen."""
    first, last = start.astimezone(get_zone(zone)).date(), end.astimezone(get_zone(zone)).date()
    step = max(1, (last - first).days // 8)
    days = (first + timedelta(days=n) for n in range(1, (last - first).days + 1, step))
    return [datetime.combine(day, time(), get_zone(zone)) for day in days]


def _draw_midnight(x: float, at: datetime, top: int, bottom: int) -> Markup:
    return Markup('<path class="day" d="M{0} {1}V{2}"/><text class="day" x="{3}" y="{4}">{5}</text>').format(
        x, top - 4, bottom, x + 4, bottom - 5, f"{at:%a} {at.day} {at:%b}"
    )


class _PlacedMark(NamedTuple):
    """A mark where it is drawn; without its word if there is no room for it."""

    x: float
    word: str
    kind: str
    lane: int
    to_the_left: bool
    title: str


def _place_marks(marks: Sequence[ChartMark], x: Callable[[datetime], float]) -> list[_PlacedMark]:
    """Place each mark in the first lane in which its word has room, the most important first."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(MAX_LANES)]
    found = []
    for mark in sorted(marks, key=lambda each: (each.kind not in ("due", "answer"), each.at)):
        at, width = x(mark.at), CHARACTER_WIDTH * len(mark.word) + 10
        to_the_left = at + width > WIDTH
        left, right = (at - width, at + 2) if to_the_left else (at - 2, at + width)
        free = (n for n, lane in enumerate(taken) if all(right < other or end < left for other, end in lane))
        lane = next(free, None)
        if lane is not None:
            taken[lane].append((left, right))
        word = mark.word if lane is not None else ""
        found.append(_PlacedMark(at, word, mark.kind, lane or 0, to_the_left, mark.word))
    return found


def _draw_line(mark: _PlacedMark, start: int, end: int) -> Markup:
    """Draw a line through the segments."""
    return Markup('<path class="{}" d="M{} {}V{}"><title>{}</title></path>').format(
        mark.kind, mark.x, start, end, mark.title
    )


def _draw_word(mark: _PlacedMark, y: int) -> Markup:
    """Draw the word beside the line."""
    at, anchor = (mark.x - 5, "end") if mark.to_the_left else (mark.x + 5, "start")
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        mark.kind, at, y, anchor, mark.word
    )
