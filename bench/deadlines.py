"""How long from a deadline to its sla.breached seen, with many tickets open: `sla up` against a heap in memory."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from time import time
from uuid import uuid4

from bench import baseline
from bench.engine import due_at, up
from bench.figures import UNBOUND, Bounds, compare, figure, percentile
from bench.full import full
from bench.subscriber import Subscriber, connect_subscriber
from services.bus.publisher import Publisher
from services.bus.streams import TICKETS

OPEN = 1_000_000
ROUNDS = 5
WATCHED, RATE = 500, 100  # breaches of a round, and how many a second
LEAD = timedelta(seconds=2)  # from the openings to the first deadline
P99 = Bounds(must=0.015, aim=0.005)  # seconds
NONE = Bounds(must=0)


def main() -> int:
    """Prints how late breaches are seen; 1 if that is too late, or one of them was early."""
    print(f"deadlines: {ROUNDS} rounds of {WATCHED} breaches a side, {RATE}/s, {OPEN:,} others open, SQLite, synced")
    folder = full(OPEN)
    with (
        up(folder, SLA_POLICY_DIR=str(folder / "policy")) as engine,
        baseline.running("remind", engine.nats_url, str(OPEN)),
        asyncio.Runner() as runner,
    ):
        watching = runner.run(connect_subscriber(engine.nats_url, time))
        kept = _measured(watching, runner)
        runner.run(_leave(watching))
    return 0 if kept else 1


def _measured(watching: Subscriber, runner: asyncio.Runner) -> bool:
    """The rows; the first round of each side only warms it up."""
    spans: dict[str, list[list[float]]] = {"floor": [], "ours": []}

    def measure(side: str) -> float:
        spans[side].append(runner.run(measure_round(watching, to_floor=side == "floor")))
        return percentile(spans[side][-1], 99)

    for side in spans:
        measure(side)
    compare(f"lateness p99, {RATE}/s", partial(measure, "floor"), partial(measure, "ours"), UNBOUND, ROUNDS)
    ours = spans["ours"][1:]
    figure("floor, p50", [percentile(each, 50) for each in spans["floor"][1:]], "s")
    figure("p50", [percentile(each, 50) for each in ours], "s")
    kept = figure("p99", [percentile(each, 99) for each in ours], "s", P99)
    early = sum(late < 0 for each in spans["ours"] for late in each)
    return figure("early", [early], "breaches", NONE) and kept


async def measure_round(watching: Subscriber, to_floor: bool = False) -> list[float]:
    """Return how late each breach of a round was seen, in seconds."""
    await _due(watching, to_floor)
    return await watching.round()


async def _due(watching: Subscriber, to_floor: bool) -> None:
    """Opens a round's tickets with their deadlines evenly in time, or tells the floor of these instants."""
    name, first = uuid4().hex[:8], datetime.now(UTC) + LEAD
    dues = {f"W-{name}-{number}": first + timedelta(seconds=number / RATE) for number in range(WATCHED)}
    watching.expected |= {f"breached.{ticket}": due.timestamp() for ticket, due in dues.items()}
    if not to_floor:
        await Publisher(watching.nc, TICKETS).publish_atomic_batch(
            [due_at(ticket, due) for ticket, due in dues.items()]
        )
        return
    for ticket, due in dues.items():
        subject = f"floor_due.breached.enterprise.critical.{ticket}"
        await watching.nc.publish(subject, str(due.timestamp()).encode())


async def _leave(watching: Subscriber) -> None:
    """The store is kept for other benches: without the streams of the floor."""
    for stream in (baseline.IN, baseline.OUT):
        await watching.nc.jetstream().delete_stream(stream)
    await watching.nc.close()
