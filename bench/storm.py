"""How long from one instant at which many deadlines are until the last sla.breached is seen, against raw rows."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from uuid import uuid4

from bench import baseline
from bench.engine import always_open, due_at, up
from bench.figures import UNBOUND, Bounds, compare, figure
from bench.subscriber import Subscriber, connect_subscriber
from services.bus.publisher import MAX_ATOMIC_BATCH, Outgoing, Publisher
from services.bus.streams import TICKETS

ROUNDS = 5
DUE = 10_000  # tickets at one instant
LEAD = timedelta(seconds=15)  # from the openings to that instant: all are announced, and warned of, well before it
LAST = Bounds(must=1.0, aim=0.3)  # seconds


def main() -> int:
    """Prints how long a storm takes; 1 if it is too long."""
    print(f"storm: {ROUNDS} rounds of {DUE:,} tickets due at one instant, SQLite, synced")
    with (
        TemporaryDirectory(prefix="sla-bench-") as name,
        up(Path(name), SLA_POLICY_DIR=str(always_open(Path(name) / "policy"))) as engine,
        baseline.running("storm", engine.nats_url, f"{name}/baseline.db"),
        asyncio.Runner() as runner,
    ):
        watching = runner.run(connect_subscriber(engine.nats_url, time))
        kept = _measured(watching, runner)
        runner.run(watching.nc.close())
    return 0 if kept else 1


def _measured(watching: Subscriber, runner: asyncio.Runner) -> bool:
    """The rows; the first round of each side only warms it up."""
    last = []

    def raw() -> float:
        return runner.run(_floor(watching))

    def ours() -> float:
        last.append(runner.run(_ours(watching)))
        return last[-1]

    raw()
    ours()
    compare("storm, last breach", raw, ours, UNBOUND, ROUNDS)
    return figure("last breach", last[1:], "s", LAST)


async def _ours(watching: Subscriber) -> float:
    """Seconds from the instant on. What the openings lead to, a warning at the end, is over before it comes."""
    tickets, due = _tickets(), datetime.now(UTC) + LEAD
    watching.expected |= {f"warning.{ticket}": time() for ticket in tickets}
    await _publish(watching, TICKETS, [due_at(ticket, due) for ticket in tickets])
    await watching.round()
    if datetime.now(UTC) > due - LEAD / 10:
        raise TimeoutError(f"{DUE} openings took longer than {LEAD}; make it longer")
    watching.expected |= {f"breached.{ticket}": due.timestamp() for ticket in tickets}
    return max(await watching.round())


async def _floor(watching: Subscriber) -> float:
    """Seconds from when the floor is told to take what lies in its stream."""
    tickets = _tickets()
    ticks = [
        Outgoing(f"floor_in.breached.enterprise.critical.{ticket}", {"Nats-Msg-Id": ticket}, b"") for ticket in tickets
    ]
    await _publish(watching, baseline.IN, ticks)
    keys = [f"breached.{ticket}" for ticket in tickets]
    watching.expected |= dict.fromkeys(keys, time())
    await watching.nc.publish("floor_go", str(DUE).encode())
    return max(await watching.round())


def _tickets() -> list[str]:
    name = uuid4().hex[:8]
    return [f"S-{name}-{number}" for number in range(DUE)]


async def _publish(watching: Subscriber, stream: str, messages: list[Outgoing]) -> None:
    publisher = Publisher(watching.nc, stream)
    for first in range(0, DUE, MAX_ATOMIC_BATCH):
        await publisher.publish_atomic_batch(messages[first : first + MAX_ATOMIC_BATCH])
