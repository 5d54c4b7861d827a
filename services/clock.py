"""Deadline timer: sleeps until the next instant of interest and sends a tick. What a tick means is in sla/."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Self

import structlog
from prometheus_client import CollectorRegistry, Gauge

from events.cloudevents import encode_token
from events.times import to_microseconds
from projections.deadlines import DeadlineRow, Deadlines
from projections.runner import Projection
from services.bus.connection import Bus
from services.bus.publisher import MAX_ATOMIC_BATCH, MIN_ATOMIC_BATCH, Outgoing, Published
from services.bus.streams import TICKETS
from services.errors import PublishRefusedError
from services.faults import reach
from services.runtime.service import POLL_INTERVAL, Now, Service, read_wall_clock
from services.runtime.setup import Backends, Setup
from services.store.interface import Store

log = structlog.get_logger()

MAX_DUE = 10_000  # tickets looked at together: those of an instant
CLOCK_MARGIN_MICROSECONDS = 10  # after the instant: a deadline has passed only when it is over
MIN_CATCH_UP_INTERVAL = 0.05  # seconds between two times that the projection catches up
MAX_RESEND_INTERVAL = 60.0  # seconds between two ticks for the same instant
SKEW_INTERVAL = 10.0  # seconds between two looks at the broker's clock
JUMP_MICROSECONDS = 100_000  # by which our clock may move against the loop's, which never jumps, before another look


@dataclass(slots=True)
class SentTick:
    """
    A tick under way: the instant it is for, how often it was sent, when (monotonic) it is sent again, and the sequence
    in TICKETS up to which intake must have come first: a tick that waits there is not lost.
    """

    at: int
    tries: int
    resend_at: float
    sequence: int = 0


class DeadlineTimer(Service):
    """
    The process `clock`. A row of the projection `deadlines` stays until the log says that its instant was judged; until
    then its tick is sent again, after 1, 2, 4 … 60 s, if intake has committed the one before. Several timers may run:
    the same tick has the same id. The projection catches up every MIN_CATCH_UP_INTERVAL at most; an instant that has
    come does not wait for it, and a sleep is at most POLL_INTERVAL long, should the machine's clock be set.

    Instants are those of the broker's clock, from which ours may differ either way; by how much is measured with each
    answer, as far as the time that it took allows.
    """

    name: ClassVar[str] = "clock"
    summary: ClassVar[str] = "sleeps until the next deadline or warning, and sends a tick when it has come"
    streams: ClassVar[tuple[str, ...]] = (TICKETS,)
    projections: ClassVar[tuple[type[Projection], ...]] = (Deadlines,)

    def __init__(self, bus: Bus, store: Store, now: Now = read_wall_clock, gauge: Gauge | None = None) -> None:
        super().__init__()
        self._bus, self._store, self._now = bus, store, now
        self._deadlines = Deadlines()
        self._publisher = bus.get_publisher(TICKETS)
        self._batches = False
        self._sent: dict[str, SentTick] = {}
        self._skew = 0  # microseconds by which the broker's clock is ahead of ours, as far as is known
        self._gauge = gauge or make_skew_gauge(None)
        self._looked_at = -SKEW_INTERVAL  # when we last looked at the broker's clock, by the loop's time
        self._offset = 0  # of our clock from the loop's then, in microseconds

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds a deadline timer."""
        gauge = make_skew_gauge(setup.registry)
        return lambda at: cls(at.bus, at.store, gauge=gauge)

    async def run(self) -> None:
        self._batches = await self.run_to_completion(self._bus.accepts_batches(TICKETS))
        caught_up_at, log_has_grown, committed_sequence = -MIN_CATCH_UP_INTERVAL, True, 0
        while True:
            if log_has_grown and _read_loop_time() >= caught_up_at + MIN_CATCH_UP_INTERVAL:
                committed_sequence = await self.run_in_thread(self._store.read_committed_sequence) if self._sent else 0
                await self.catch_up(self._store, self._deadlines)
                caught_up_at, log_has_grown = _read_loop_time(), False
            await self._look_at_clock()
            rows, next_instant = await self.run_in_thread(self._read_due)
            await self._send_due(rows, committed_sequence)
            self.record_heartbeat()
            pause = self._choose_pause(next_instant, committed_sequence)
            if log_has_grown:
                await asyncio.sleep(min(pause, max(0.0, caught_up_at + MIN_CATCH_UP_INTERVAL - _read_loop_time())))
            else:
                log_has_grown = await self.sleep(pause) or _read_loop_time() >= caught_up_at + POLL_INTERVAL

    def _estimate_bus_time(self) -> int:
        """Return the broker's time as far as we know it, in microseconds since 1970."""
        return self._now() - CLOCK_MARGIN_MICROSECONDS + self._skew

    async def _look_at_clock(self) -> None:
        """Measure the skew now and then, and when our clock was set."""
        offset = self._now() - round(_read_loop_time() * 1e6)
        has_jumped = abs(offset - self._offset) > JUMP_MICROSECONDS
        if has_jumped or _read_loop_time() >= self._looked_at + SKEW_INTERVAL:
            asked_at = self._now()
            told = to_microseconds(await self.run_to_completion(self._bus.read_clock(TICKETS)))
            self._narrow_skew(told - self._now(), told - asked_at)
            self._looked_at, self._offset = _read_loop_time(), offset

    def _narrow_skew(self, least: int, most: int) -> None:
        """
        Take in that the broker's clock is ahead of ours by at least and at most so many microseconds. The time between
        question and answer lies between the two: what was known stays if it may be so.
        """
        self._skew = min(max(self._skew, least), most)
        self._gauge.set(self._skew / 1e6)

    def _read_due(self) -> tuple[list[DeadlineRow], int | None]:
        """Return the rows whose instant has come, and the next instant, None if there is none. Blocks."""
        now = self._estimate_bus_time()
        with self._store.read_view() as cursor:
            rows = self._deadlines.read_until(cursor, now, MAX_DUE + len(self._sent))
            return rows, self._deadlines.find_next_after(cursor, now)

    def _choose_pause(self, next_instant: int | None, committed_sequence: int) -> float:
        """Return the seconds until the next instant or the next tick to send again, at most POLL_INTERVAL."""
        instants = [POLL_INTERVAL]
        if next_instant is not None:
            instants.append((next_instant - self._estimate_bus_time()) / 1e6)
        resends = [(sent.resend_at - _read_loop_time(), sent.sequence) for sent in self._sent.values()]
        instants += [seconds for seconds, sequence in resends if seconds > 0 or sequence <= committed_sequence]
        return max(0.0, min(instants))

    async def _send_due(self, rows: Sequence[DeadlineRow], committed_sequence: int) -> None:
        """Send a tick for each row that is due. The rows follow from all that is committed up to the sequence."""
        waiting = {row.ticket: row for row in rows}
        self._sent = {ticket: sent for ticket, sent in self._sent.items() if ticket in waiting}
        if due := [row for row in rows if self._is_due(row, committed_sequence)]:
            await self._send(due)

    def _is_due(self, row: DeadlineRow, committed_sequence: int) -> bool:
        return self._is_new(row) or (
            self._sent[row.ticket].resend_at <= _read_loop_time()
            and self._sent[row.ticket].sequence <= committed_sequence
        )

    def _is_new(self, row: DeadlineRow) -> bool:
        return row.ticket not in self._sent or self._sent[row.ticket].at != row.at

    async def _send(self, rows: Sequence[DeadlineRow]) -> None:
        messages = []
        for row in rows:
            tries = 0 if self._is_new(row) else self._sent[row.ticket].tries
            again_at = _read_loop_time() + min(2.0**tries, MAX_RESEND_INTERVAL)
            self._sent[row.ticket] = SentTick(row.at, tries + 1, again_at)
            token = encode_token(row.ticket)
            messages.append(Outgoing(f"clock.due.{token}", {"Nats-Msg-Id": f"{token}:{row.at}:{tries}"}, b""))
        reach("clock.before_tick")
        sent_at = self._now()
        for start in range(0, len(messages), MAX_ATOMIC_BATCH):
            last = await self.run_to_completion(self._publish(messages[start : start + MAX_ATOMIC_BATCH]))
            for row in rows[start : start + MAX_ATOMIC_BATCH]:
                self._sent[row.ticket].sequence = last.sequence
        reach("clock.after_tick")
        log.info("ticks sent", sent=len(messages), late_ms=round((self._estimate_bus_time() - rows[0].at) / 1000, 1))
        await self._correct_early_ticks(rows, last, sent_at)

    async def _publish(self, messages: Sequence[Outgoing]) -> Published:
        """Publish, and return the answer for the last one. A batch with a duplicate in it is refused as a whole."""
        if self._batches and len(messages) >= MIN_ATOMIC_BATCH:
            with suppress(PublishRefusedError):
                return await self._publisher.publish_atomic_batch(messages)
        return (await self._publisher.publish(messages))[-1]

    async def _correct_early_ticks(self, rows: Sequence[DeadlineRow], last: Published, sent_at: int) -> None:
        """
        Send again after the missing time if the broker stored the last tick too early: its clock is behind ours. A
        duplicate says nothing of the broker's clock now: if it was too early then, the next one is due.
        """
        stored = to_microseconds(await self.run_to_completion(self._bus.read_stored_at(TICKETS, last.sequence)))
        missing = rows[-1].at - stored
        if not last.duplicate:
            self._narrow_skew(stored - self._now(), stored - sent_at)
        if missing >= 0:
            for row in rows:
                sent = self._sent[row.ticket]
                sent.resend_at = _read_loop_time() + (0.0 if last.duplicate else missing / 1e6)
                sent.sequence = 0
            log.warning(
                "tick stored early", seconds=missing / 1e6, hint="the broker's clock is behind that of the sender"
            )


def make_skew_gauge(registry: CollectorRegistry | None) -> Gauge:
    text = "By how much the broker's clock is ahead of that of this machine; breaches are on time by the broker's."
    return Gauge("sla_clock_skew_seconds", text, registry=registry)


def _read_loop_time() -> float:
    """Return the time of the event loop, in seconds: it never jumps."""
    return asyncio.get_running_loop().time()
