"""Publishes facts at a steady rate, and notes when what is expected is seen. What it is judged by is not in here."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from math import inf
from time import perf_counter

from nats.aio.client import Client
from nats.aio.msg import Msg

from events.tickets import build_ticket_message
from services.bus.connection import connect

RESULT_TIMEOUT = 60.0  # seconds for the last one that is expected
EVENTS = (
    ("opened", "applied", {"service_level": "foundation", "priority": "minor", "channel": "email"}),
    ("responded", "fulfilled", {"by": "agent"}),
)


async def connect_subscriber(url: str, clock: Callable[[], float] = perf_counter) -> "Subscriber":
    """Return one that is connected and listens, to an engine and to a baseline beside it."""
    nc = await connect(url, "bench")
    subscriber = Subscriber(nc, clock)
    await nc.subscribe("sla.>", cb=subscriber.see)
    await nc.subscribe("floor_out.>", cb=subscriber.see)
    await nc.flush()
    gc.freeze()
    return subscriber


class Subscriber:
    """A key is the event and the ticket of a subject: `applied.T-1`. Instants are in seconds of the `clock`."""

    def __init__(self, nc: Client, clock: Callable[[], float]) -> None:
        self.nc, self._clock = nc, clock
        self.expected: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self._all_seen = asyncio.Event()
        self._numbers = count()

    async def see(self, message: Msg) -> None:
        """Only the first one of each key counts; what is not expected does not."""
        now = self._clock()
        tokens = message.subject.split(".")
        key = f"{tokens[1]}.{tokens[-1]}"
        if key in self.expected and key not in self.seen:
            self.seen[key] = now
            if len(self.seen) == len(self.expected):
                self._all_seen.set()

    async def missing(self) -> int:
        """How many of the expected have not come: 0 as soon as all have, else what is left after RESULT_TIMEOUT."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RESULT_TIMEOUT):
                while len(self.seen) < len(self.expected):
                    self._all_seen.clear()
                    await self._all_seen.wait()
        return len(self.expected) - len(self.seen)

    def spans(self) -> list[float]:
        """Seconds from the instant of each until it was seen, in the order in which they were expected."""
        return [self.seen[key] - at for key, at in self.expected.items() if key in self.seen]

    async def round(self) -> list[float]:
        """The spans once all are seen, and the end of a round: nothing is expected then. TimeoutError if some miss."""
        if missing := await self.missing():
            raise TimeoutError(f"{missing} of {len(self.expected)} had no consequence within {RESULT_TIMEOUT:g} s")
        spans = self.spans()
        self.expected.clear()
        self.seen.clear()
        gc.collect()
        return spans

    async def publish(self, facts: int, rate: float = inf, to: str = "tickets") -> None:
        """
        So many facts, so many a second, each expected from now on: every ticket is opened, then answered. To another
        stream than TICKETS, the subject says what is expected.
        """
        start = self._clock()
        for number in range(facts):
            await asyncio.sleep(max(0.0, start + number / rate - self._clock()))
            await self._fact(to)

    async def _fact(self, to: str) -> None:
        number = next(self._numbers)
        ticket = f"L-{number // 2}"
        event, outcome, data = EVENTS[number % 2]
        subject, headers, body = build_ticket_message(
            f"ticket.{event}", ticket, source="/bench", event_id=f"{event}-{ticket}", time=datetime.now(UTC), data=data
        )
        if to != "tickets":
            subject = f"{to}.{outcome}.foundation.minor.{ticket}"
        self.expected[f"{outcome}.{ticket}"] = self._clock()
        await self.nc.publish(subject, body, headers=headers)
