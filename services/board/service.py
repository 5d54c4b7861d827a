"""Board: follows the log, and reads from the projections what the board shows. Its HTTP is in routes.py."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, ClassVar, NamedTuple, Self

import structlog

from events.times import from_microseconds
from projections.promises import (
    BROKEN,
    KEPT,
    Cell,
    PageMark,
    PromiseFilter,
    PromiseLabel,
    PromiseRow,
    Promises,
    make_page_mark,
)
from projections.runner import BATCH_ROWS, Projection
from services.errors import ReadOnlyError
from services.queries.report import calculate_share
from services.queries.ticket_status import PromiseStatus, build_promise_statuses
from services.runtime.http_server import is_loopback
from services.runtime.service import POLL_INTERVAL, Now, Service, T, call_without_stop, read_wall_clock
from services.runtime.settings import Settings
from services.runtime.setup import Backends, Setup
from services.store.interface import Store
from sla.calendar import Segment, SupportHours
from sla.log import Announced, AnnouncedEvent, Breached, BreachRetracted, LogRow, decode_rows

log = structlog.get_logger()

MAX_REMEMBERED = 1_000  # announced events that a browser may have missed, and gets when it is back
DAY = timedelta(days=1)
COALESCE_WINDOW = 0.2  # seconds in which what happens is one update
MAX_WINDOWS = 8  # support windows ahead that a browser gets


class BoardSnapshot(NamedTuple):
    """When a page was rendered, and up to which position it has the log."""

    now: datetime
    position: int


class News(NamedTuple):
    """An announced event with its place in the log."""

    position: int
    ticket: str
    event: AnnouncedEvent


class LogTail:
    """What the board remembers of the end of the log: the newest events, and the breaches of the last 24 hours."""

    def __init__(self) -> None:
        self.position = 0
        self.newest: deque[News] = deque(maxlen=MAX_REMEMBERED)
        self._breaches: dict[str, News] = {}

    def load_last_day(self, store: Store, now: datetime) -> None:
        """
        Load the breaches since the first event of the last 24 hours, and begin MAX_REMEMBERED rows before the end of
        the log. Of a day with a million events no others are decoded.
        """
        head = store.read_head()
        low, high = 0, head
        while low < high:
            middle = (low + high) // 2
            found = store.read_log_entries(middle, 1)
            low, high = (middle + 1, high) if found and found[0].event.at < now - DAY else (low, middle)
        self.position, news = min(low, max(0, head - MAX_REMEMBERED)), max(0, head - MAX_REMEMBERED)
        while self.position < news:
            rows = store.read_log_rows(self.position, min(BATCH_ROWS, news - self.position))
            for entry in decode_rows(rows, Breached, BreachRetracted):
                self._apply_breach(News(*entry))
            self.position = rows[-1].position

    def apply(self, rows: Sequence[LogRow]) -> None:
        """Apply the next rows of the log."""
        for entry in decode_rows(rows, Announced):
            news = News(*entry)
            self.newest.append(news)
            self._apply_breach(news)
        if rows:
            self.position = rows[-1].position

    def _apply_breach(self, news: News) -> None:
        match news.event:
            case Breached():
                self._breaches[news.event.id] = news
            case BreachRetracted():
                self._breaches.pop(news.event.breach_id, None)

    def list_breaches(self, now: datetime) -> list[News]:
        """Return the breaches of the last 24 hours that are in effect, the newest first."""
        day_ago = now - DAY
        self._breaches = {id: news for id, news in self._breaches.items() if _get_broken_at(news) > day_ago}
        return sorted(self._breaches.values(), key=_get_broken_at, reverse=True)

    def list_between(self, after: int, until: int) -> list[News] | None:
        """Return what was announced between two positions; None if that is longer ago than is remembered."""
        if after > until or (len(self.newest) == MAX_REMEMBERED and after < self.newest[0].position):
            return None
        return [news for news in self.newest if after < news.position <= until]


def _get_broken_at(news: News) -> datetime:
    assert isinstance(news.event, Breached)
    return news.event.breached_at


class BoardUpdate(NamedTuple):
    """What a browser gets: how far the log is, and what was announced since; None if that is too much."""

    position: int
    news: list[News] | None


class Line(NamedTuple):
    """
    A promise on the board: its status, its hours, support time left (negative when too late; None if nobody waits), and
    where it is in the list.
    """

    status: PromiseStatus
    hours: SupportHours | None
    left: timedelta | None
    mark: PageMark


class Tally(NamedTuple):
    """The open promises of a cell, or of many, by status; and how many of all are kept and broken."""

    late: int = 0
    at_risk: int = 0
    on_track: int = 0
    paused: int = 0
    pending: int = 0
    kept: int = 0
    broken: int = 0

    @property
    def open(self) -> int:
        return self.late + self.at_risk + self.on_track + self.paused + self.pending

    @property
    def share(self) -> float | None:
        """The share kept of all promises that were kept or broken; None if there are none."""
        return calculate_share(self.kept, self.broken)

    def __add__(self, other: object) -> "Tally":
        assert isinstance(other, Tally)
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Board(Service):
    """Writes no fact, and catches up its projections itself, where it may. Any number may run."""

    name: ClassVar[str] = "board"
    summary: ClassVar[str] = "shows tickets and figures as pages, and answers a read-only JSON API"
    projections: ClassVar[tuple[type[Projection], ...]] = (Promises,)
    only_reads: ClassVar[bool] = True

    def __init__(self, store: Store, now: Now = read_wall_clock) -> None:
        super().__init__()
        self.store, self._now = store, now
        self._view = Promises()
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="board-pages")
        self._long_reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="board-past")
        self._updated = asyncio.Event()
        self._ended = False
        self._tail = LogTail()
        self.position = 0  # up to which the log can be seen on the board

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds a board."""
        return lambda at: cls(at.store)

    @classmethod
    def is_wanted(cls, settings: Settings) -> bool:
        """Return False, and say so in the log, if everybody on the network could look at it."""
        if settings.board_token or is_loopback(settings.http_host):
            return True
        hint = "it shows tickets to everybody who can reach SLA_HTTP_HOST; set SLA_BOARD_TOKEN to have it"
        log.warning("left out", service=cls.name, hint=hint)
        return False

    async def run(self) -> None:
        await self.run_in_thread(self._tail.load_last_day, self.store, self.read_now())
        while True:
            before = self.position
            with suppress(ReadOnlyError):  # then it is as far as those who catch it up are
                await self.catch_up(self.store, self._view)
            rows = await self.run_in_thread(self.store.read_log_rows, self._tail.position, BATCH_ROWS)
            self._tail.apply(rows)
            self.position = min(self._tail.position, await self.run_in_thread(self._read_checkpoint))
            self.record_heartbeat()
            if self.position != before:
                self._publish_update()
            if len(rows) < BATCH_ROWS:
                await asyncio.sleep(COALESCE_WINDOW)
                await self.sleep(POLL_INTERVAL if self.position == self._tail.position else COALESCE_WINDOW)

    async def stop(self) -> None:
        self._ended = True
        self._publish_update()
        for readers in (self._readers, self._long_reader):
            readers.shutdown(wait=False, cancel_futures=True)
        await super().stop()

    def read_now(self) -> datetime:
        """Read this machine's clock, in UTC."""
        return from_microseconds(self._now())

    def _publish_update(self) -> None:
        updated, self._updated = self._updated, asyncio.Event()
        updated.set()

    def _read_checkpoint(self) -> int:
        """Read how far the projection is. Blocking."""
        return self.store.read_checkpoint(self._view.name) or 0

    async def ask(self, question: Callable[..., T], *arguments: Any, is_long: bool = False) -> T:
        """
        Do blocking work for a page, in a thread. Long work, about the past, is done one after the other: neither the
        board nor who asks about now waits for it.
        """
        readers = self._long_reader if is_long else self._readers
        return await asyncio.get_running_loop().run_in_executor(readers, call_without_stop, question, *arguments)

    async def follow_updates(self, position: int | None, idle_seconds: float) -> AsyncIterator[BoardUpdate | None]:
        """
        Yield what happens after a position, by default from now on; None each time that nothing does for so many
        seconds. Ends with the service.
        """
        position = self.position if position is None else position
        while not self._ended:
            updated = self._updated
            if self.position != position:
                yield BoardUpdate(self.position, self._tail.list_between(position, self.position))
                position = self.position
                continue
            try:
                async with asyncio.timeout(idle_seconds):
                    await updated.wait()
            except TimeoutError:
                yield None

    # ---- what the pages show

    def list_newest(self) -> list[News]:
        """Return the events announced last, the newest first."""
        return list(reversed(self._tail.newest))

    def list_breaches(self) -> list[News]:
        """Return the breaches of the last 24 hours that are in effect, the newest first."""
        return self._tail.list_breaches(self.read_now())

    def list_lines(self, wanted: PromiseFilter, limit: int, after: PageMark | None, now: datetime) -> list[Line]:
        """Return at most so many promises of the list. Blocking."""
        with self.store.read_view() as cursor:
            rows = self._view.list_page(cursor, wanted, now, limit, after)
        return [build_line(status, now) for status in build_promise_statuses(self.store, rows)]

    def count_tallies(self, now: datetime) -> dict[Cell, Tally]:
        """Count the promises by status, for each objective, level and priority; pending ones have neither. Blocking."""
        with self.store.read_view() as cursor:
            counts = self._view.read_counts(cursor)
            late, at_risk = self._view.count_late(cursor, now), self._view.count_at_risk(cursor, now)
        policies = [version.policy for version in self.store.read_versions()]
        cells = dict.fromkeys(
            (objective, level, name)
            for it in policies
            for objective in it.objectives
            for level in it.levels
            for name in it.priorities
        )
        cells |= dict.fromkeys(label[:3] for label in counts)
        stages = _sum_by(counts, lambda label: label.stage)
        kept = _sum_by(counts, lambda label: label.kept)
        late_and_paused = _sum_by(counts, lambda label: "late" if label[3:] == ("paused", BROKEN) else "")
        return {
            cell: Tally(
                late=late[cell] + late_and_paused[*cell, "late"],
                at_risk=at_risk[cell],
                on_track=max(0, stages[*cell, "running"] - late[cell] - at_risk[cell]),
                paused=stages[*cell, "paused"] - late_and_paused[*cell, "late"],
                pending=stages[*cell, "pending"],
                kept=kept[*cell, KEPT],
                broken=kept[*cell, BROKEN],
            )
            for cell in cells
        }


def _sum_by(counts: Mapping[PromiseLabel, int], get: Callable[[PromiseLabel], str]) -> Counter[tuple[str, ...]]:
    """Sum the promises of each cell by something else that they are counted by."""
    sums = Counter[tuple[str, ...]]()
    for label, n in counts.items():
        sums[*label[:3], get(label)] += n
    return sums


def build_line(status: PromiseStatus, now: datetime) -> Line:
    """Return a promise with the support time that it has left."""
    mark = make_page_mark(PromiseRow(status.key, status.state, status.facts))
    return Line(status, status.hours, status.measure_support_left(now), mark)


def find_windows_ahead(hours: SupportHours, now: datetime) -> list[Segment]:
    """Return the support time ahead, at least of two weeks, as far as a browser needs it."""
    until = hours.find_due(now, timedelta(seconds=1)) + timedelta(days=14)
    return list(islice((each for each in hours.cut_segments(now, until) if each.counted), MAX_WINDOWS))
