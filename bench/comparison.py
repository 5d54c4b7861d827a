"""The whole engine against what people write instead (bench/comparison_engines.py), each on a broker of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep, time
from typing import NamedTuple

import httpx
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.comparison_engines import IN, OUT, provision
from bench.engine import always_open, cpu, due_at, opened, process
from bench.figures import UNBOUND, Bounds, figure, percentile
from events.tickets import build_ticket_message
from projections.registry import PROJECTIONS
from services.bus import streams
from services.bus.connection import Bus, connect
from services.bus.embedded_server import EmbeddedNats
from services.bus.publisher import Outgoing, Publisher
from services.bus.streams import SLA, TICKETS, read_last_sequence
from services.errors import TRANSIENT_ERRORS
from services.ports import listen
from services.store.sqlite import SqliteFile
from sla.engine import Message

FACTS, ROUNDS = 5_000, 2  # a backlog; all of them stay open
AS_ONE = 1_000  # messages that the broker stores as one, at most
SETTLES, REST = 2.0, 6.0  # seconds
STEADY, STEADY_SECONDS = 100, 5.0  # facts a second
DUE, DUE_SECONDS, AHEAD = 200, 10.0, 3.0  # tickets that fall due in so many seconds, the first so many ahead
KILLS, RATE, WORKS = 5, 1_000, 1.0  # facts a second; seconds that it works before it is killed
ANSWERED_AFTER, DUE_AFTER = 500, timedelta(seconds=2)  # tickets opened meanwhile, which is a second; from the opening
UNANSWERED = 10  # one ticket of so many
QUIET = 3.0  # seconds without a consequence, after which none comes any more
TIMEOUT = 180.0  # seconds
MUST = dict.fromkeys(("early", "lost", "doubled", "untrue"), Bounds(must=0))  # of the engine

Row = dict[str, tuple[Sequence[float], str]]


class Peer(NamedTuple):
    """One of the three. `start` runs it on its store, once it is ready, and gives its process."""

    streams: tuple[str, str]  # of facts, and of consequences
    subjects: tuple[str, str]  # the first tokens of these
    url: str
    broker: Path  # the file with the process of the broker
    start: Callable[[], AbstractContextManager[int]]


def main() -> int:
    """Prints a table of the three; 1 if the engine lost, doubled or announced what is not true."""
    print(f"peers: {ROUNDS} x {FACTS:,} facts, {STEADY}/s, {DUE} breaches, {KILLS} x kill -9 at {RATE:,} facts/s")
    found: dict[str, Row] = {}
    kept = []
    for name in ("engine", "polling", "handlers"):
        with TemporaryDirectory(prefix="sla-bench-") as folder:
            always_open(Path(folder) / "policy")
            found[name] = asyncio.run(_peer(name, Path(folder)))
        bounds = MUST if name == "engine" else {}
        kept += [figure(f"{name}: {what}", *row, bounds.get(what, UNBOUND)) for what, row in found[name].items()]
    print(f"\n| | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    for what in found["engine"]:
        print(f"| {what} | {' | '.join(_cell(*row[what]) for row in found.values())} |")
    return 0 if all(kept) else 1


def _cell(values: Sequence[float], unit: str) -> str:
    value, unit = (median(values) * 1e3, "ms") if unit == "s" else (median(values), unit)
    return f"{value:,.{0 if value >= 100 or value == int(value) else 2}f} {unit}".rstrip()


async def _peer(name: str, folder: Path) -> Row:
    """On a broker of its own, which stays when the peer is killed."""
    server = EmbeddedNats(folder / "nats", 0)
    await server.start()
    try:
        nc = await connect(server.url, "bench")
        await streams.provision(nc)
        await provision(nc)
        await nc.close()
        broker = folder / "nats/nats.pid"
        if name == "engine":
            SqliteFile(folder / "sla.db").migrate(PROJECTIONS)
            started = partial(_engine, server.url, folder)
            return await _measured(Peer((TICKETS, SLA), ("tickets", "sla"), server.url, broker, started))
        started = partial(_rival, name, server.url, folder)
        return await _measured(Peer((IN, OUT), ("rival_in", "rival_out"), server.url, broker, started))
    finally:
        await server.stop()


@contextmanager
def _engine(url: str, folder: Path) -> Iterator[int]:
    """All of its services in one process, ready."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    settings = {
        "SLA_NATS_URL": url,
        "SLA_DATABASE_URL": f"sqlite:///{folder / 'sla.db'}",
        "SLA_POLICY_DIR": str(folder / "policy"),
        "SLA_HTTP_PORT": str(port),
        "SLA_LOG_LEVEL": "warning",
    }
    command = [str(Path(sys.executable).with_name("sla")), "run", "intake", "clock", "announcer", "metrics", "board"]
    with (folder / "log").open("a") as log, process(command, os.environ | settings, stderr=log) as engine:
        give_up = perf_counter() + TIMEOUT
        while not _is_ready(port):
            if engine.poll() is not None or perf_counter() > give_up:
                raise TimeoutError((folder / "log").read_text()[-2_000:])
            sleep(0.02)
        yield engine.pid


def _is_ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").is_success
    return False


@contextmanager
def _rival(name: str, url: str, folder: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "bench.comparison_engines", name, url, str(folder)]
    with (folder / "log").open("a") as log, process(command, stdout=subprocess.PIPE, stderr=log) as rival:
        assert rival.stdout is not None
        if rival.stdout.readline() != b"ready\n":
            raise RuntimeError((folder / "log").read_text()[-2_000:])
        yield rival.pid


async def _measured(peer: Peer) -> Row:
    """One after the other, on one store."""
    with ExitStack() as running:
        pid = await asyncio.to_thread(running.enter_context, peer.start())
        load = Load(await connect(peer.url, "bench"), peer)
        await load.nc.subscribe(f"{peer.subjects[1]}.>", cb=load.see)
        empty = await _at_rest(pid, peer.broker)
        drained = [await load.backlog(pid, f"B{number}-") for number in range(ROUNDS)]
        full = await _at_rest(pid, peer.broker)
        latency, late = await load.latencies(), await load.lateness()
        killed = await _killed(peer, pid, load, running)
        await load.nc.close()
    spans = {f"latency p{each}": ([percentile(latency, each)], "s") for each in (50, 99)}
    spans |= {f"lateness of a breach p{each}": ([percentile(late, each)], "s") for each in (50, 99)}
    return {
        "backlog": (drained, "facts/s"),
        **spans,
        "early": ([sum(each < 0 for each in late)], ""),
        f"at rest, {ROUNDS * FACTS:,} open": ([full], "%"),
        "at rest, 1,000 open": ([(full - empty) / (ROUNDS * FACTS / 1_000)], "%"),
        **killed,
    }


async def _at_rest(pid: int, broker: Path) -> float:
    """Per cent of a core that it and its broker take."""
    await asyncio.sleep(SETTLES)
    pids = pid, int(await asyncio.to_thread(broker.read_text))
    before, began = cpu(*pids), perf_counter()
    await asyncio.sleep(REST)
    return (cpu(*pids) - before) / (perf_counter() - began) * 100


class Load:
    """Publishes facts, and notes when what follows from each of them is seen first."""

    def __init__(self, nc: Client, peer: Peer) -> None:
        self.nc, self._subject = nc, peer.subjects[0]
        self._publisher = Publisher(nc, peer.streams[0])
        self._seen: dict[str, float] = {}
        self._more = asyncio.Event()

    async def see(self, message: Msg) -> None:
        self._seen.setdefault(_outcome(message.subject), time())
        self._more.set()

    async def _all(self, outcomes: Collection[str]) -> list[float]:
        """When each of them was seen."""
        async with asyncio.timeout(TIMEOUT):
            for outcome in outcomes:
                while outcome not in self._seen:
                    self._more.clear()
                    await self._more.wait()
        return [self._seen[outcome] for outcome in outcomes]

    def _to(self, fact: Outgoing) -> Outgoing:
        return fact._replace(subject=fact.subject.replace("tickets", self._subject, 1))

    async def backlog(self, pid: int, name: str) -> float:
        """Facts a second, from when it wakes up and finds them."""
        tickets = [f"{name}{number}" for number in range(FACTS)]
        os.kill(pid, signal.SIGSTOP)
        try:
            for first in range(0, FACTS, AS_ONE):
                facts = [self._to(opened(ticket, datetime.now(UTC))) for ticket in tickets[first : first + AS_ONE]]
                await self._publisher.publish_atomic_batch(facts)
            began = time()
        finally:
            os.kill(pid, signal.SIGCONT)  # or nothing but SIGKILL would end it
        return FACTS / (max(await self._all([f"applied.{ticket}" for ticket in tickets])) - began)

    async def latencies(self) -> list[float]:
        """Seconds from a fact to its consequence, half opened, half responded."""
        sent, start = dict[str, float](), perf_counter()
        for number in range(int(STEADY * STEADY_SECONDS)):
            await asyncio.sleep(max(0.0, start + number / STEADY - perf_counter()))
            ticket, now = f"L{number // 2}", datetime.now(UTC)
            subject, headers, body = self._to(_responded(ticket, now) if number % 2 else opened(ticket, now))
            sent[f"{'fulfilled' if number % 2 else 'applied'}.{ticket}"] = time()
            await self.nc.publish(subject, body, headers=headers)
        return [seen - began for seen, began in zip(await self._all(sent), sent.values(), strict=True)]

    async def lateness(self) -> list[float]:
        """Seconds from a deadline to its breach."""
        first = time() + AHEAD
        due = {f"D{number}": first + number * DUE_SECONDS / DUE for number in range(DUE)}
        await self.publish([due_at(ticket, datetime.fromtimestamp(at, UTC)) for ticket, at in due.items()])
        seen = await self._all([f"breached.{ticket}" for ticket in due])
        return [at - wanted for at, wanted in zip(seen, due.values(), strict=True)]

    async def publish(self, facts: Sequence[Outgoing]) -> None:
        """Until all are acknowledged, with the same ids."""
        while facts:
            with suppress(*TRANSIENT_ERRORS):
                await self._publisher.publish([self._to(fact) for fact in facts])
                return
            await asyncio.sleep(0.1)


def _responded(ticket: str, at: datetime) -> Outgoing:
    id, data = f"responded-{ticket}", {"by": "agent"}
    return Outgoing(*build_ticket_message("ticket.responded", ticket, source="/bench", event_id=id, time=at, data=data))


def _outcome(subject: str) -> str:
    tokens = subject.split(".")
    return f"{tokens[1]}.{tokens[-1]}"


class Sender:
    """Opens tickets at a steady rate, and answers most of them in time."""

    def __init__(self) -> None:
        self.due: dict[str, datetime] = {}
        self.answered: set[str] = set()
        self.stopping = False

    async def run(self, load: Load) -> None:
        """Until `stopping`; then all facts are acknowledged."""
        sent, began = 0, perf_counter()
        while not self.stopping:
            upto = int((perf_counter() - began) * RATE)
            await load.publish([fact for number in range(sent, upto) for fact in self._facts(number)])
            sent = upto
            await asyncio.sleep(0.005)

    def _facts(self, number: int) -> list[Outgoing]:
        """None for a ticket that nobody answers."""
        now, ticket = datetime.now(UTC), number // 2 - (ANSWERED_AFTER if number % 2 else 0)
        if number % 2 == 0:
            self.due[f"K{ticket}"] = now + DUE_AFTER
            return [due_at(f"K{ticket}", now + DUE_AFTER)]
        if ticket < 0 or ticket % UNANSWERED == 0:
            return []
        self.answered.add(f"K{ticket}")
        return [_responded(f"K{ticket}", now)]


async def _killed(peer: Peer, pid: int, load: Load, running: ExitStack) -> Row:
    """Every fact, and every deadline without an answer, has a consequence."""
    before = [await read_last_sequence(load.nc, stream) for stream in peer.streams]
    sender = Sender()
    sending = asyncio.create_task(sender.run(load))
    for _ in range(KILLS):
        await asyncio.sleep(WORKS)
        os.kill(pid, signal.SIGKILL)
        pid = await asyncio.to_thread(running.enter_context, peer.start())
    await asyncio.sleep(WORKS)
    sender.stopping = True
    await sending
    await _quiet(load.nc, peer)
    facts, told = [await _read(load.nc, *each) for each in zip(peer.streams, before, strict=True)]
    return _counted(sender, facts, Counter(_outcome(message.subject) for message in told))


def _counted(sender: Sender, facts: Sequence[Message], told: Counter[str]) -> Row:
    """A breach is untrue if the broker had the answer before the deadline. A ticket may have several warnings."""
    arrived = {_outcome(fact.subject): fact.stored_at for fact in reversed(facts)}
    ends = [f"{'fulfilled' if ticket in sender.answered else 'breached'}.{ticket}" for ticket in sender.due]
    in_time = [ticket for ticket in sender.answered if arrived[f"responded.{ticket}"] < sender.due[ticket]]
    once = [count for outcome, count in told.items() if not outcome.startswith("warning")]
    return {
        "facts sent": ([len(sender.due) + len(sender.answered)], ""),
        "answers before the deadline": ([len(in_time)], ""),
        "lost": ([sum(not told[each] for each in (*(f"applied.{ticket}" for ticket in sender.due), *ends))], ""),
        "doubled": ([sum(once) - len(once)], ""),
        "untrue": ([sum(told[f"breached.{ticket}"] > 0 for ticket in in_time)], ""),
    }


async def _quiet(nc: Client, peer: Peer) -> None:
    """Returns when nobody has a fact to take or to acknowledge, and nothing comes any more."""
    busy, before, now = True, 0, 1
    async with asyncio.timeout(TIMEOUT):  # what is still under way is not lost
        while busy or before != now:
            before = await read_last_sequence(nc, peer.streams[1])
            await asyncio.sleep(QUIET)
            consumers = await nc.jetstream().consumers_info(peer.streams[0])
            busy = any(each.num_pending or each.num_ack_pending for each in consumers)
            now = await read_last_sequence(nc, peer.streams[1])


async def _read(nc: Client, stream: str, after: int) -> list[Message]:
    """What was stored since."""
    reader, found = Bus(nc).create_reader(stream, after), list[Message]()
    while messages := await reader.read_batch(1.0):
        found += messages
    await reader.close()
    return found
