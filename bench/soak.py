"""Do latency and memory stay as they are while facts come in for minutes, and does each lead to one consequence?"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.engine import Up, resident, up
from bench.figures import Bounds, figure, percentile
from bench.subscriber import connect_subscriber
from services.bus.streams import SLA, read_last_sequence

RATE = 1_000  # facts a second
MINUTES, MINUTE = 10, 60  # a minute in seconds
NONE = Bounds(must=0)


def main() -> int:
    """Prints the first minute and the last; 1 if a fact was lost or had two consequences."""
    print(f"soak: {RATE:,} facts/s for {MINUTES} minutes, SQLite, synced")
    with TemporaryDirectory(prefix="sla-bench-") as name, up(Path(name)) as engine:
        return 0 if asyncio.run(_soaked(engine)) else 1


async def _soaked(engine: Up) -> bool:
    watching, facts = await connect_subscriber(engine.nats_url), RATE * MINUTE
    held = {}
    for name, minutes in (("first", 1), ("between", MINUTES - 2), ("last", 1)):
        await watching.publish(minutes * facts, RATE)
        held[name] = {"engine": resident(*engine.pids), "broker": resident(engine.broker)}
    lost = await watching.missing()
    spans = watching.spans()
    for name, minute in (("first", spans[:facts]), ("last", spans[-facts:])):
        for percent in (50, 99):
            figure(f"p{percent}, {name} minute", [percentile(minute, percent)], "s")
        for process, bytes in held[name].items():
            figure(f"{process}, end of the {name} minute", [bytes / 1e6], "MB")
    doubled = await read_last_sequence(watching.nc, SLA) - len(watching.seen)
    await watching.nc.close()
    kept = figure(f"lost, of {len(watching.expected):,}", [lost], "facts", NONE)
    return figure("doubled", [doubled], "facts", NONE) and kept
