"""How long from a fact published to its consequence seen while the engine is half as busy as it can be."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.engine import up
from bench.figures import figure, percentile
from bench.subscriber import Subscriber, connect_subscriber

ROUNDS = 5
BACKLOG = 5_000  # facts, published as fast as possible
SECONDS = 3.0  # at half of the rate at which they were drained


def main() -> int:
    """Prints the rate of each round, and the times at half of it; nothing is promised."""
    print(
        f"latency-load: {ROUNDS} rounds of {BACKLOG:,} facts at once, then {SECONDS:g} s at half of that rate, SQLite"
    )
    with TemporaryDirectory(prefix="sla-bench-") as name, up(Path(name)) as engine:
        rounds = asyncio.run(_rounds(engine.nats_url))
    figure("drained, as seen from outside", [rate for rate, _ in rounds], "facts/s")
    for percent in (50, 99):
        figure(f"p{percent} at half of that", [percentile(spans, percent) for _, spans in rounds], "s")
    return 0


async def _rounds(url: str) -> list[tuple[float, list[float]]]:
    """Facts a second, and seconds from publishing to seeing at half of them; a first backlog only warms up."""
    watching = await connect_subscriber(url)
    await _drained(watching)
    found = []
    for _ in range(ROUNDS):
        rate = await _drained(watching)
        await watching.publish(int(rate / 2 * SECONDS), rate / 2)
        found.append((rate, await watching.round()))
    await watching.nc.close()
    return found


async def _drained(watching: Subscriber) -> float:
    """Facts a second, from the first one published to the last consequence seen."""
    start = perf_counter()
    await watching.publish(BACKLOG)
    await watching.round()
    return BACKLOG / (perf_counter() - start)
