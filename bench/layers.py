"""Where the time goes between a message and its announcement: each layer alone, in a batch and for a fact alone."""

import asyncio
import gc
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from nats.aio.client import Client

from bench.figures import figure
from bench.intake import backlog
from bench.rebuild import stored
from events.tickets import TicketEvent, read_ticket_event
from projections.registry import PROJECTIONS
from projections.runner import run_batch
from services.announcer import build_announcement
from services.bus.connection import connect
from services.bus.embedded_server import EmbeddedNats
from services.bus.publisher import MIN_ATOMIC_BATCH, Outgoing, Publisher
from services.bus.streams import SLA, provision
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from services.store.event_mapper import encode_event
from services.store.interface import Store
from services.store.sqlite import SqliteFile
from sla.engine import Engine, Limits, Message
from sla.log import Announced, Event, Recorded, decode_rows
from sla.ticket import TicketSla

BATCHES = {500: 10, 1: 500}  # how many of each size
WARM = 2  # batches before them, of the same size


def main() -> int:
    """Prints the seconds of a fact in each layer; nothing is promised."""
    print("layers: seconds a fact, which is two events and one announcement; min / median / max of the batches")
    gc.set_threshold(50_000, 20, 50)  # as services.wiring
    for size, batches in BATCHES.items():
        with TemporaryDirectory(prefix="sla-bench-") as folder:
            layers = asyncio.run(_measured(Path(folder), size, batches))
        for name, taken in layers.items():
            figure(f"{size}: {name}", [seconds / size for seconds in taken[WARM:]], "s")
    return 0


async def _measured(folder: Path, size: int, batches: int) -> dict[str, list[float]]:
    """The seconds that each batch took, by layer."""
    place, policy = SqliteFile(folder / "sla.db"), load_policy(SHIPPED_POLICIES)
    place.migrate(PROJECTIONS)
    facts = backlog(policy, -(-(WARM + batches) * size // 10) * 10)
    broker = EmbeddedNats(folder / "nats", 0)
    await broker.start()
    try:
        nc = await connect(broker.url, "bench")
        await provision(nc)
        with closing(place.open()) as store:
            now = datetime.now(UTC)
            store.publish_policy(policy, lambda: now, lead=timedelta(0))
            way = Way(store, nc)
            for first in range(0, (WARM + batches) * size, size):
                await way.go(stored(facts[first : first + size], first, now))
        await nc.close()
    finally:
        await broker.stop()
    return way.laps.taken


class Laps:
    """The seconds since the lap before, by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)
        self._last = perf_counter()

    def begin(self) -> None:
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        self.taken[name].append(perf_counter() - self._last)
        self._last = perf_counter()


class Way:
    """A batch goes through one layer after the other. What the engine does at one go is also measured as a whole."""

    def __init__(self, store: Store, nc: Client) -> None:
        self._store, self._publisher, self._engine = store, Publisher(nc, SLA), Engine(store)
        self._versions = store.read_versions()
        self._tickets: dict[str, TicketSla] = {}  # beside those of the engine
        self._views = [view() for view in PROJECTIONS]
        self._position = 0  # in the log
        self.laps = Laps()

    async def go(self, messages: Sequence[Message]) -> None:
        """As intake, announcer and the views do it; each layer is what came before its lap."""
        lap = self.laps.lap
        self.laps.begin()
        facts = [read_ticket_event(message.body, message.headers, message.subject) for message in messages]
        lap("read and validate the message")
        events = [event for fact in facts for event in self._judge(fact, messages[0].stored_at)]
        lap("judge the fact")
        for event in events:
            encode_event(event.event)
        lap("encode the events")
        outcome = self._engine.process(messages)
        lap("Engine.take: read, look up, judge")
        self._store.commit(outcome, {0: messages[0].sequence - 1})
        lap("commit, with encoding")
        rows = self._store.read_log_rows(self._position, len(events))
        lap("read the rows of the log")
        announced = list(decode_rows(rows, Announced))
        lap("decode what is announced")
        out = [build_announcement(entry) for entry in announced]
        lap("make the announcement")
        await self._publish(out)
        lap("publish it")
        for view in self._views:
            run_batch(self._store, view)
            lap(f"follow: {view.name}")
        replayed = list(decode_rows(rows, Event))
        lap("decode all events, as at replay")
        assert (len(replayed), len(out)) == (2 * len(messages), len(messages))
        self._position = rows[-1].position

    def _judge(self, fact: TicketEvent, now: datetime) -> list[Recorded]:
        ticket = self._tickets.setdefault(fact.ticket, TicketSla(fact.ticket))
        recorded = ticket.record(fact, now)
        return [recorded, *ticket.decide(self._versions, now, Limits().historic_after, fact.id)]

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        """Many as one, as the announcer does."""
        if len(messages) >= MIN_ATOMIC_BATCH:
            await self._publisher.publish_atomic_batch(messages)
        else:
            await self._publisher.publish(messages)
