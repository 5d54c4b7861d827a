"""Clock: sleeps until the next instant of interest and sends a tick through the bus. What a tick means is in sla/."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import structlog

from events.cloudevents import encode_token
from projections.deadlines import Deadlines, Row, microseconds
from projections.follow import BATCH as ENTRIES
from projections.follow import follow
from services.bus import Bus, Outgoing, Published
from services.faults import reach
from services.service import Now, Service, wall_clock
from services.store import Store
from services.streams import TICKETS

log = structlog.get_logger()

BATCH = 1_000
SLACK = 10  # microseconds after the instant: a deadline has passed only when it is over
POLL = 1.0  # seconds: the longest sleep, so that neither a lost nudge nor a clock that was set matters
GATHER = 0.005  # seconds after a nudge: what was decided is announced first, and is looked at together
LONGEST_PAUSE = 60.0  # seconds between two ticks for the same instant


@dataclass(slots=True)
class Sent:
    """A tick under way: the instant it is for, how often it was sent, and when (monotonic) it is sent again."""

    at: int
    tries: int
    again_at: float


class Clock(Service):
    """
    A row stays until the log says that its instant was judged; until then its tick is sent again, after 1, 2, 4 … 60 s,
    and not while intake falls behind. Several clocks may run: the same tick has the same id.
    """

    name: ClassVar[str] = "clock"

    def __init__(self, bus: Bus, store: Store, now: Now = wall_clock) -> None:
        super().__init__()
        self._bus, self._store, self._now = bus, store, now
        self._deadlines = Deadlines()
        self._publisher = bus.publisher(TICKETS)
        self._sent: dict[str, Sent] = {}
        self._behind = 0  # microseconds by which the broker's clock is behind ours, as last seen
        self._lag = 0

    async def run(self) -> None:
        while True:
            rows, following = await self.in_thread(self._look)
            await self._tick(rows)
            self.works()
            if await self.sleep(self._pause(following)):
                await asyncio.sleep(min(GATHER, self._pause(following)))

    def _bus_now(self) -> int:
        """The broker's time as far as we know it, in microseconds since 1970."""
        return self._now() - SLACK - self._behind

    def _look(self) -> tuple[list[Row], int | None]:
        while follow(self._store, self._deadlines) == ENTRIES:
            self.turns += 1
        now = self._bus_now()
        with self._store.reading() as cursor:
            rows = self._deadlines.until(cursor, now, BATCH + len(self._sent))
            return rows, self._deadlines.after(cursor, now)

    def _pause(self, following: int | None) -> float:
        instants = [POLL]
        if following is not None:
            instants.append((following - self._bus_now()) / 1e6)
        instants += [sent.again_at - _steady() for sent in self._sent.values()]
        return max(0.0, min(instants))

    async def _tick(self, rows: Sequence[Row]) -> None:
        waiting = {row.ticket: row for row in rows}
        self._sent = {ticket: sent for ticket, sent in self._sent.items() if ticket in waiting}
        due = [row for row in rows if self._is_new(row)]
        again = [row for row in rows if not self._is_new(row) and self._sent[row.ticket].again_at <= _steady()]
        if again and await self._falls_behind():
            for row in again:
                self._sent[row.ticket].again_at = _steady() + POLL
            again = []
        if due or again:
            await self._send([*due, *again])

    def _is_new(self, row: Row) -> bool:
        return row.ticket not in self._sent or self._sent[row.ticket].at != row.at

    async def _falls_behind(self) -> bool:
        """Does the number of messages that intake has not stored yet grow?"""
        before = self._lag
        stored = await self.in_thread(self._store.taken)
        self._lag = await self.whole(self._bus.last_sequence(TICKETS)) - stored
        return self._lag > before

    async def _send(self, rows: Sequence[Row]) -> None:
        messages = []
        for row in rows:
            tries = 0 if self._is_new(row) else self._sent[row.ticket].tries
            again_at = _steady() + min(2.0**tries, LONGEST_PAUSE)
            self._sent[row.ticket] = Sent(row.at, tries + 1, again_at)
            token = encode_token(row.ticket)
            messages.append(Outgoing(f"clock.due.{token}", {"Nats-Msg-Id": f"{token}:{row.at}:{tries}"}, b""))
        reach("clock.before_tick")
        sent_at = self._now()
        published = await self.whole(self._publisher.publish(messages))
        reach("clock.after_tick")
        log.info("ticks", sent=len(messages), late_ms=round((self._bus_now() - rows[0].at) / 1000, 1))
        await self._correct(rows, published[-1], sent_at)

    async def _correct(self, rows: Sequence[Row], last: Published, sent_at: int) -> None:
        """
        If the broker stored the last tick too early, its clock is behind ours: send again after the missing time. One
        that was stored before says nothing of the broker's clock now: if it was too early then, the next one is due.
        """
        stored = microseconds(await self.whole(self._bus.stored_at(TICKETS, last.sequence)))
        missing = rows[-1].at - stored
        if not last.duplicate:
            self._behind = max(0, sent_at - stored)
        if missing >= 0:
            wait = 0.0 if last.duplicate else missing / 1e6
            for row in rows:
                self._sent[row.ticket].again_at = _steady() + wait
            log.warning("early", seconds=missing / 1e6, hint="the broker's clock is behind that of the sender")


def _steady() -> float:
    """The time of the event loop, in seconds: it never jumps."""
    return asyncio.get_running_loop().time()
