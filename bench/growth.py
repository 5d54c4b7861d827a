"""How cost grows: with open tickets, with the facts of a ticket, with the length of the log, with replicas.

Each part can be run alone: `python -c "from bench.growth import *; keep(by_facts())"`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any, NamedTuple
from uuid import uuid4

from nats.aio.msg import Msg

from bench import idle, memory
from bench.engine import always_open, due_at, opened, process, up
from bench.figures import figure, percentile
from bench.full import BATCH, full
from bench.plots import PLOTS, draw
from events.tickets import build_ticket_message
from projections.registry import PROJECTIONS
from projections.runner import rebuild
from services.bus.connection import connect
from services.bus.embedded_server import EmbeddedNats
from services.bus.publisher import Outgoing, Publisher
from services.bus.streams import TICKETS
from services.maintenance.provision import provision_bus
from services.runtime.settings import load_policy
from services.store.postgres import PostgresDatabase
from services.store.postgres_leases import PARTITION_LOCK
from services.store.sqlite import SqliteFile
from sla.engine import Engine, Message
from tests.support.postgres import new_database, server

LINES, PICTURES = Path("build/growth.jsonl"), Path("docs/growth")
OPEN = (1_000, 10_000, 100_000, 1_000_000)
STARTS, IDLE = 3, 20.0  # starts; seconds at rest
WATCHED, LEAD, SECONDS = 500, 3.0, 5.0  # breaches; seconds until the first of them, and from there to the last
FACTS, ALIKE = (1, 3, 10, 30, 100, 300, 1_000), 20  # facts of a ticket; tickets that have as many
PARTITIONS, INTAKES, BACKLOG, ROUNDS = (1, 2, 4), (1, 2), 20_000, 3
TIMEOUT = 60.0  # seconds


class Point(NamedTuple):
    """On a line of a plot: how much there was, and what was measured then, one value a round."""

    plot: str
    line: str
    x: int
    values: Sequence[float]


def main() -> int:
    """Measures everything anew, and draws it."""
    print("growth: min / median / max of the rounds")
    LINES.unlink(missing_ok=True)
    for part in (by_open, by_history, by_facts, by_replicas):
        keep(part())
    draw(LINES, PICTURES)
    return 0


def keep(points: Iterator[Point]) -> None:
    """Prints the points as they come, and appends them for the plots."""
    LINES.parent.mkdir(exist_ok=True)
    for point in points:
        plot = PLOTS[point.plot]
        figure(f"{point.plot}, {point.line}, {point.x:,}", point.values, plot.unit)
        with LINES.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(point._asdict()) + "\n")


def by_open() -> Iterator[Point]:
    """Start, memory and processor time at rest, and lateness of breaches, with more and more tickets open."""
    for tickets in OPEN:
        folder = full(tickets)
        yield Point("start", "engine", tickets, [idle.start(folder) for _ in range(STARTS)])
        with up(folder, SLA_POLICY_DIR=str(folder / "policy")) as engine:
            sleep(memory.SETTLES)
            held = zip(*(memory.sample(engine) for _ in range(memory.SAMPLES)), strict=True)
            used = idle.idle(engine, IDLE)
            late = asyncio.run(_lateness(engine.nats_url))
        for line, bytes, percent in zip(("engine", "broker"), held, used, strict=True):
            yield Point("memory", line, tickets, [value / 1e6 for value in bytes])
            yield Point("rest", line, tickets, [percent])
        yield Point("lateness", "engine", tickets, [percentile(late, 99) * 1e3])


async def _lateness(url: str) -> list[float]:
    """Seconds from some deadlines until the breaches are heard."""
    nc, name = await connect(url, "bench"), uuid4().hex[:8]
    late, all_heard = list[float](), asyncio.Event()

    async def see(message: Msg) -> None:
        due = datetime.fromisoformat(json.loads(message.data)["data"]["due_at"])
        late.append((datetime.now(UTC) - due).total_seconds())
        if len(late) == WATCHED:
            all_heard.set()

    await nc.subscribe("sla.breached.>", cb=see)
    first, apart = datetime.now(UTC) + timedelta(seconds=LEAD), timedelta(seconds=SECONDS) / WATCHED
    watched = [due_at(f"G-{name}-{number}", first + number * apart) for number in range(WATCHED)]
    await Publisher(nc, TICKETS).publish(watched)
    async with asyncio.timeout(TIMEOUT):
        await all_heard.wait()
    await nc.close()
    return late


def by_history() -> Iterator[Point]:
    """Each view built again, from longer and longer logs: two events a ticket."""
    for tickets in OPEN:
        with closing(SqliteFile(full(tickets) / "up" / "sla.db").open()) as store:
            events = store.read_head()
            for view in PROJECTIONS:
                began = perf_counter()
                for _ in rebuild(store, view):
                    pass
                yield Point("rebuild", view.name, events, [perf_counter() - began])


def by_facts() -> Iterator[Point]:
    """One more fact, of tickets that have more and more of them; the tickets in memory, and read from the store."""
    with TemporaryDirectory(prefix="sla-bench-") as name:
        place = SqliteFile(Path(name) / "sla.db")
        place.migrate(PROJECTIONS)
        with closing(place.open()) as store:
            policy = load_policy(always_open(Path(name) / "policy"))
            store.publish_policy(policy, lambda: datetime.now(UTC), lead=timedelta(0))
            engine, empty = Engine(store), _size(place)

            def take(number: int) -> float:
                began = perf_counter()
                outcome = engine.process(messages := _one_more(number))
                seconds = perf_counter() - began
                store.commit(outcome, {0: messages[0].sequence - 1})
                return seconds / ALIKE * 1e6

            for facts in range(max(FACTS) + 1):
                if facts in FACTS:
                    yield Point("stored", "SQLite", facts, [(_size(place) - empty) / ALIKE / 1e3])
                    yield Point("judge", "in memory", facts, [take(facts)])
                    engine.forget()
                    yield Point("judge", "read from the store", facts, [take(facts + 1)])  # and one, by now
                elif facts - 1 not in FACTS:
                    take(facts)


def _one_more(number: int) -> list[Message]:
    """The same fact of each ticket: it is opened, and then its priority changes to and fro."""
    now = datetime.now(UTC)
    time = now - timedelta(seconds=2 * max(FACTS) - number)
    found = []
    for sequence, ticket in enumerate((f"T-{each}" for each in range(ALIKE)), number * ALIKE + 1):
        message = opened(ticket, time) if number == 0 else _changed(ticket, number, time)
        found.append(Message(sequence, now, message.subject, message.headers, message.body))
    return found


def _changed(ticket: str, number: int, time: datetime) -> Outgoing:
    data, id = {"priority": ("minor", "serious")[number % 2]}, f"{ticket}-{number}"
    return Outgoing(
        *build_ticket_message("ticket.priority_changed", ticket, source="/bench", event_id=id, time=time, data=data)
    )


def _size(place: SqliteFile) -> int:
    """Bytes, without those that SQLite keeps for later."""
    with place.open_snapshot() as store:
        ((found,),) = store.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return int(found)


def by_replicas() -> Iterator[Point]:
    """How fast intakes drain TICKETS into PostgreSQL, by how many they are and in how many partitions it is."""
    with server() as postgres:
        for intakes, partitions in product(INTAKES, PARTITIONS):
            rates = [asyncio.run(_drained(postgres.dsn, intakes, partitions)) for _ in range(ROUNDS)]
            yield Point("replicas", f"{intakes} intake{'s' * (intakes > 1)}", partitions, rates)


async def _drained(dsn: str, intakes: int, partitions: int) -> float:
    """Facts a second. They are published once all partitions have owners, many times as fast as they are taken."""
    place = PostgresDatabase(url := new_database(dsn))
    place.migrate(PROJECTIONS)
    with TemporaryDirectory(prefix="sla-bench-") as folder, ExitStack() as stack, closing(place.connect()) as asking:
        nats = EmbeddedNats(Path(folder), 0)
        await nats.start()
        await provision_bus(nats.url, partitions=partitions)
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": url, "SLA_HTTP_PORT": "0", "SLA_LOG_LEVEL": "warning"}
        command = [str(Path(sys.executable).with_name("sla")), "run", "intake"]
        log = stack.enter_context((Path(folder) / "intakes.log").open("w"))
        for _ in range(intakes):
            stack.enter_context(process(command, os.environ | settings, stderr=log))
        owned = "SELECT count(*), count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s"
        await _until(asking, owned, PARTITION_LOCK, wanted=(partitions, min(intakes, partitions)))
        nc = await connect(nats.url, "bench")
        publisher, began = Publisher(nc, TICKETS), perf_counter()
        for first in range(0, BACKLOG, BATCH):
            now = datetime.now(UTC)
            await publisher.publish_atomic_batch([opened(f"T-{first + number}", now) for number in range(BATCH)])
        await _until(asking, "SELECT count(*) FROM inbox WHERE sequence > %s", 0, wanted=(BACKLOG,))
        seconds = perf_counter() - began
        await nc.close()
        await asyncio.to_thread(stack.close)
        await nats.stop()
    return BACKLOG / seconds


async def _until(asking: Any, query: str, parameter: int, wanted: tuple[int, ...]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while asking.execute(query, (parameter,)).fetchone() != wanted:  # noqa: ASYNC110 - PostgreSQL is asked
            await asyncio.sleep(0.02)
