"""How fast a backlog is drained: the engine against pulling, inserting and publishing the same without it."""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import structlog
from nats.aio.client import Client

from bench.baseline import PostgresRows, Pull, Push, SqliteRows
from bench.figures import Bounds, compare
from events.tickets import build_ticket_message
from projections.registry import PROJECTIONS
from services.announcer import Announcer
from services.bus.connection import Bus, connect
from services.bus.embedded_server import EmbeddedNats
from services.bus.publisher import Outgoing, Publisher
from services.bus.streams import SLA, STREAMS, TICKETS, provision, read_last_sequence
from services.clock import DeadlineTimer
from services.intake import Intake
from services.metrics import Metrics
from services.runtime.service import Service
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from services.store.postgres import PostgresDatabase
from services.store.sqlite import SqliteFile
from sla.engine import Limits
from sla.policy import Policy
from tests.support.postgres import new_database, server

Place = SqliteFile | PostgresDatabase

FACTS = 5_000
ROUNDS = 5
SPEED = Bounds(must=0.30, aim=0.55, at_most=False)
NOT_COUNTED = Bounds(at_most=False)


def main() -> int:
    """
    Prints a row for the two services that do the work, and one for the four of `sla up`; 1 if one is too slow.

    The broker is that of `sla up`, which writes each message to the disk before it acknowledges
    (docs/upstream-behaviour.md#n1). The floor publishes one by one, without waiting. In the last row, which decides
    nothing, it publishes a batch as one, as the engine does: that ratio is what the model and the safety cost.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    gc.set_threshold(50_000, 20, 50)  # as services.wiring
    print(f"intake: {FACTS} facts a round (70 % opened, 20 % responded, 10 % priority changed), one process")
    with TemporaryDirectory(prefix="sla-bench-") as folder, server() as postgres:
        numbers = count()
        stores: dict[str, Callable[[], Place]] = {
            "SQLite": lambda: SqliteFile(Path(folder) / f"{next(numbers)}.db"),
            "PostgreSQL": lambda: PostgresDatabase(new_database(postgres.dsn)),
        }
        rows = [row for name, store in stores.items() for row in measured(name, Path(folder) / name, store)]
        return 0 if all(rows) else 1


def measured(name: str, folder: Path, store: Callable[[], Place]) -> list[bool]:
    """The rows of one kind of store."""
    with asyncio.Runner() as runner:
        bench = Bench(name, folder, store, runner)
        try:
            return bench.rows()
        finally:
            runner.run(bench.close())


class Bench:
    """One broker with one backlog; every round starts with an empty store and an empty SLA stream."""

    def __init__(self, name: str, folder: Path, store: Callable[[], Place], runner: asyncio.Runner) -> None:
        self._name, self._new_store, self._runner = name, store, runner
        self._policy = load_policy(SHIPPED_POLICIES)
        self._server = EmbeddedNats(folder / "nats", 0)

    async def close(self) -> None:
        await self._nc.close()
        await self._server.stop()

    def rows(self) -> list[bool]:
        self._runner.run(self._prepare())
        gc.freeze()
        one_by_one, as_one = self._timed(self._floor), self._timed(self._floor_as_one)
        two, four = self._timed(self._two), self._timed(self._four)
        table = (
            (f"{self._name}: intake, announcer", one_by_one, two, SPEED),
            (f"{self._name}: all services", one_by_one, four, SPEED),
            (f"{self._name}: (not counted) batch floor", as_one, two, NOT_COUNTED),
        )
        rows = [compare(name, floor, ours, bounds, ROUNDS, FACTS) for name, floor, ours, bounds in table]
        return rows[:2]

    async def _prepare(self) -> None:
        """The backlog, and what the engine makes of it: the floor has to store and publish the same."""
        await self._server.start()
        self._nc = await connect(self._server.url, "bench")
        await provision(self._nc)
        await Publisher(self._nc, TICKETS).publish(backlog(self._policy, FACTS))
        place = await self._fresh()
        await self._two(place)
        with place.open_snapshot() as stored:
            events = "SELECT originator_id, originator_version, topic, state FROM stored_events ORDER BY rowid"
            self._events = list(stored.execute(events))
            self._inbox = list(stored.execute("SELECT * FROM inbox ORDER BY sequence"))
        self._outputs = await published(self._nc)
        assert (len(self._events), len(self._inbox), len(self._outputs)) == (2 * FACTS, FACTS, FACTS)

    def _timed(self, drain: Callable[[Place], Awaitable[float]]) -> Callable[[], float]:
        async def once() -> float:
            place = await self._fresh()
            gc.collect()
            return await drain(place)

        return lambda: self._runner.run(once())

    async def _fresh(self) -> Place:
        place = self._new_store()
        place.migrate(PROJECTIONS)
        js = self._nc.jetstream()
        await js.delete_stream(SLA)
        await js.add_stream(next(stream for stream in STREAMS if stream.name == SLA))
        return place

    async def _floor_as_one(self, place: Place) -> float:
        return await self._floor(place, as_one=True)

    async def _floor(self, place: Place, as_one: bool = False) -> float:
        pull, push = Pull(self._nc, TICKETS), Push(self._nc)
        rows = SqliteRows(place.path) if isinstance(place, SqliteFile) else PostgresRows(place)
        await pull.start()
        await push.start()
        start, done = perf_counter(), 0
        while done < FACTS:
            messages = await pull.take()
            upto = done + len(messages)
            rows.insert(self._events[2 * done : 2 * upto], self._inbox[done:upto], upto)
            await (push.publish_as_one if as_one else push.publish)(self._outputs[done:upto])
            for message in messages:
                await message.ack()
            done = upto
        await self._nc.flush()
        seconds = perf_counter() - start
        await pull.close()
        await push.close()
        rows.close()
        return seconds

    async def _two(self, place: Place) -> float:
        return await self._engine(place, everything=False)

    async def _four(self, place: Place) -> float:
        return await self._engine(place, everything=True)

    async def _engine(self, place: Place, everything: bool) -> float:
        store, nc = place.open(), await connect(self._server.url, "engine")
        bus = Bus(nc)  # one for all, as in services.wiring: that is how a nudge gets round
        services: list[Service] = [
            Intake(bus, store, self._policy, Limits(), place.create_leases()),
            Announcer(bus, store, place.create_lock("announcer")),
        ]
        if everything:
            services += [DeadlineTimer(bus, store), Metrics(bus, store, self._policy, place.create_lock("metrics"))]
        for service in services:
            await bus.listen_for_nudges(service.wake)
        start = perf_counter()
        running = [asyncio.create_task(service.run()) for service in services]
        while await read_last_sequence(self._nc, SLA) < FACTS:
            done, _ = await asyncio.wait(running, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # none of them ends by itself, unless it failed
        seconds = perf_counter() - start
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for service in services:
            await service.stop()
        await nc.close()
        store.close()
        return seconds


async def published(nc: Client) -> list[Outgoing]:
    """What the engine has published, as a publisher without its precautions would send it."""
    found: list[Outgoing] = []
    pull = Pull(nc, SLA)
    await pull.start()
    while len(found) < FACTS:
        for message in await pull.take():
            assert message.headers is not None
            headers = {name: message.headers[name] for name in ("Content-Type", "Nats-Msg-Id")}
            found.append(Outgoing(message.subject, headers, message.data))
    await pull.close()
    return found


def backlog(policy: Policy, facts: int) -> list[Outgoing]:
    """Seven tickets opened, then two of them answered and one of the others changed, and so on."""
    chance = random.Random(2026)
    now = datetime.now(UTC).replace(microsecond=0)
    found = []
    for first in range(0, facts, 10):
        tickets = [f"T-{first + number}" for number in range(7)]
        for ticket in tickets:
            data = {"service_level": chance.choice(list(policy.levels)), "priority": "minor", "channel": "email"}
            found.append(_message("opened", ticket, now - timedelta(seconds=60), data))
        for ticket in tickets[:2]:
            answered = now - timedelta(seconds=chance.randrange(50))
            found.append(_message("responded", ticket, answered, {"by": "agent"}))
        found.append(_message("priority_changed", tickets[2], now, {"priority": "serious"}))
    return found


def _message(event: str, ticket: str, time: datetime, data: dict[str, Any]) -> Outgoing:
    type, id = f"ticket.{event}", f"{event}-{ticket}"
    return Outgoing(*build_ticket_message(type, ticket, source="/bench", event_id=id, time=time, data=data))
