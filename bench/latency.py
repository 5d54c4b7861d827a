"""How long from a fact published to its sla.applied or sla.fulfilled seen: `sla up` against the same hops, raw rows."""

import asyncio
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import baseline
from bench.engine import up
from bench.figures import Bounds, compare, figure, percentile
from bench.subscriber import Subscriber, connect_subscriber

ROUNDS = 5
SECONDS = 3.0  # of each round of each side
RATES = (100, 1_000)  # facts a second
RATIO = Bounds(must=1.5, aim=1.25)
P99 = Bounds(must=0.010, aim=0.005)  # seconds


def main() -> int:
    """Prints ratio and absolute times for each rate; 1 if one of them is too long."""
    print(f"latency: {ROUNDS} rounds of {SECONDS:g} s a side, half opened, half responded, SQLite, synced")
    with (
        TemporaryDirectory(prefix="sla-bench-") as name,
        up(Path(name)) as engine,
        baseline.running("serve", engine.nats_url, f"{name}/baseline.db"),
        asyncio.Runner() as runner,
    ):
        watching = runner.run(connect_subscriber(engine.nats_url))
        kept = [_measured(watching, rate, runner) for rate in RATES]
        runner.run(watching.nc.close())
    return 0 if all(kept) else 1


def _measured(watching: Subscriber, rate: int, runner: asyncio.Runner) -> bool:
    """The rows of one rate; the first round of each side only warms it up."""
    p50: dict[str, list[float]] = {"floor_in": [], "tickets": []}
    p99: dict[str, list[float]] = {"floor_in": [], "tickets": []}

    def measure(to: str) -> float:
        runner.run(watching.publish(int(rate * SECONDS), rate, to))
        spans = runner.run(watching.round())
        p50[to].append(percentile(spans, 50))
        p99[to].append(percentile(spans, 99))
        return p99[to][-1]

    for to in p50:
        measure(to)
    kept = compare(f"latency p99, {rate}/s", partial(measure, "floor_in"), partial(measure, "tickets"), RATIO, ROUNDS)
    figure(f"floor, p50, {rate}/s", p50["floor_in"][1:], "s")
    figure(f"p50, {rate}/s", p50["tickets"][1:], "s")
    return figure(f"p99, {rate}/s", p99["tickets"][1:], "s", P99) and kept
