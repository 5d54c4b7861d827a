"""An engine is killed while 1,000 facts a second come in: how soon it is back, and whether each fact counted once."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from uuid import uuid4

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.engine import opened, up
from bench.figures import Bounds, figure
from bench.full import full
from events.cloudevents import decode_token
from services.bus.connection import Bus, connect
from services.bus.publisher import Outgoing, Publisher
from services.bus.streams import SLA, TICKETS, read_last_sequence
from services.errors import TRANSIENT_ERRORS
from services.ports import listen
from services.runtime.connections import RUN_FILE

OTHERS = 100_000
ROUNDS = 3
RATE = 1_000  # facts a second
KILLED_AFTER = 3.0  # seconds
BEHIND = 0.1  # seconds from when a fact was due to its announcement; more is not caught up
QUIET = 3.0  # seconds without an announcement, after which none comes any more
TIMEOUT = 60.0  # seconds
NONE = Bounds(must=0)


class Round(NamedTuple):
    """Seconds from the kill, and so from the next start; facts that led to nothing; announcements too many."""

    ready: float
    caught_up: float
    sent: int
    lost: int
    doubled: int


def main() -> int:
    """Prints how long it took; 1 if a fact was lost or counted twice."""
    print(f"recover: {ROUNDS} x kill -9 after {KILLED_AFTER:g} s of {RATE} facts/s, {OTHERS:,} others open")
    folder = full(OTHERS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # that the bus is away is no news here
    rounds = [asyncio.run(_round(folder)) for _ in range(ROUNDS)]
    figure("start to ready", [each.ready for each in rounds], "s")
    figure(f"start to caught up ({BEHIND:g} s behind)", [each.caught_up for each in rounds], "s")
    of = f"of {sum(each.sent for each in rounds):,}"
    kept = [figure(f"lost, {of}", [each.lost for each in rounds], "facts", NONE)]
    kept.append(figure(f"doubled, {of}", [each.doubled for each in rounds], "facts", NONE))
    return 0 if all(kept) else 1


async def _round(folder: Path) -> Round:
    """The broker dies with its engine, and comes back with the next one, at the same port."""
    with listen("127.0.0.1", 0) as free:
        settings = {"SLA_POLICY_DIR": str(folder / "policy"), "SLA_NATS_PORT": str(free.getsockname()[1])}
    with ExitStack() as stack:
        first = await asyncio.to_thread(stack.enter_context, up(folder, **settings))
        nc = await connect(first.nats_url, "bench")
        before = await read_last_sequence(nc, SLA)
        sender = Sender(nc)
        await nc.subscribe("sla.applied.>", cb=sender.see)
        sending = asyncio.create_task(sender.run())
        await asyncio.sleep(KILLED_AFTER)
        for pid in reversed(first.pids):
            os.kill(pid, signal.SIGKILL)
        (folder / "up" / RUN_FILE).unlink()  # or the dead one would look ready
        sender.killed_at = began = perf_counter()
        await asyncio.to_thread(stack.enter_context, up(folder, **settings))
        ready = perf_counter() - began
        async with asyncio.timeout(TIMEOUT):
            await sender.caught_up.wait()
        caught_up = sender.caught_up_at - began
        sender.stopping = True
        await sending
        applied = await _applied(nc, before, sender.tickets)
        await nc.close()
    lost = sum(ticket not in applied for ticket in sender.tickets)
    return Round(ready, caught_up, len(sender.tickets), lost, applied.total() - len(applied))


class Sender:
    """Opens tickets at a steady rate; what is not acknowledged it sends again, with the same ids."""

    def __init__(self, nc: Client) -> None:
        self._nc, self._publisher = nc, Publisher(nc, TICKETS)
        self._name = f"R-{uuid4().hex[:8]}-"
        self._began = perf_counter()
        self.tickets: list[str] = []
        self.stopping = False
        self.killed_at = float("inf")
        self.caught_up = asyncio.Event()
        self.caught_up_at = 0.0

    async def run(self) -> None:
        """Until `stopping`; then all of `tickets` are acknowledged."""
        while not self.stopping:
            upto = int((perf_counter() - self._began) * RATE)
            new = [f"{self._name}{number}" for number in range(len(self.tickets), upto)]
            self.tickets += new
            await self._publish([opened(ticket, datetime.now(UTC)) for ticket in new])
            await asyncio.sleep(0.005)

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        while True:
            while not self._nc.is_connected:  # noqa: ASYNC110 - the client has no event for it
                await asyncio.sleep(0.01)
            with suppress(*TRANSIENT_ERRORS):
                await self._publisher.publish(messages)
                return

    async def see(self, message: Msg) -> None:
        """Notes when the first fact that was due after the kill is announced in time."""
        now, ticket = perf_counter(), decode_token(message.subject.rpartition(".")[2])
        if self.caught_up.is_set() or not ticket.startswith(self._name):
            return
        due = self._began + int(ticket.removeprefix(self._name)) / RATE
        if due > self.killed_at and now - due < BEHIND:
            self.caught_up_at = now
            self.caught_up.set()


async def _applied(nc: Client, after: int, tickets: Sequence[str]) -> Counter[str]:
    """How often each of the tickets was announced after that message of SLA; returns when nothing more comes."""
    wanted, found = set(tickets), Counter[str]()
    reader = Bus(nc).create_reader(SLA, after, [])
    while messages := await reader.read_batch(QUIET):
        found.update(decode_token(message.subject.rpartition(".")[2]) for message in messages)
    await reader.close()
    return Counter({ticket: count for ticket, count in found.items() if ticket in wanted})
