"""How late a breach is seen while a crowd sits at the HTTP port: 1,000 idle connections and 30 open boards."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from urllib.parse import urlsplit

from bench.deadlines import measure_round
from bench.engine import always_open, process, up
from bench.figures import Bounds, compare, figure, percentile
from bench.subscriber import Subscriber, connect_subscriber

IDLE, BOARDS = 1_000, 30
PEERS = 4  # addresses that the connections come from: one peer may have a half of them
ROUNDS = 5
RATIO = Bounds(must=1.25)
PAGE_INTERVAL = 1.0  # seconds between two looks of a board at the page, as board.js has it


def main() -> int:
    """Prints the lateness of breaches without and with the crowd; 1 if it makes them too late."""
    print(f"crowd: {ROUNDS} rounds of breaches a side, without and with {IDLE:,} idle connections and {BOARDS} boards")
    with TemporaryDirectory(prefix="sla-bench-") as name:
        policy = always_open(Path(name) / "policy")
        with up(Path(name), SLA_POLICY_DIR=str(policy)) as engine, asyncio.Runner() as runner:
            watching = runner.run(connect_subscriber(engine.nats_url, time))
            kept = _measured(watching, engine.http_url, runner)
            runner.run(watching.nc.close())
    return 0 if kept else 1


def _measured(watching: Subscriber, url: str, runner: asyncio.Runner) -> bool:
    """The rows; the first round of each side only warms it up."""
    spans: dict[bool, list[list[float]]] = {False: [], True: []}

    def measure(crowded: bool) -> float:
        if crowded:
            with gather_crowd(url):
                spans[crowded].append(runner.run(measure_round(watching)))
        else:
            spans[crowded].append(runner.run(measure_round(watching)))
        return percentile(spans[crowded][-1], 99)

    for crowded in spans:
        measure(crowded)
    kept = compare("lateness p99, alone and in a crowd", partial(measure, False), partial(measure, True), RATIO, ROUNDS)
    for crowded, name in ((False, "p50 alone"), (True, "p50 in a crowd")):
        figure(name, [percentile(each, 50) for each in spans[crowded][1:]], "s")
    return kept


@contextmanager
def gather_crowd(url: str) -> Iterator[None]:
    """The crowd in a process of its own, once all of it is there."""
    with process([sys.executable, "-m", "bench.crowd", url], stdout=subprocess.PIPE) as crowd:
        assert crowd.stdout is not None
        if not crowd.stdout.readline():
            raise TimeoutError("the crowd could not connect")
        yield
        if crowd.poll() is not None:
            raise RuntimeError("the crowd did not stay: its last words are above")


async def _crowd(url: str) -> None:
    """Connect all, say so, and stay."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    there = asyncio.Semaphore(0)

    async def connect(peer: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host, port, local_addr=(f"127.0.0.{2 + peer % PEERS}", 0))

    async def idle(peer: int) -> None:
        """A connection that asks nothing, and comes again when it is closed."""
        while True:
            reader, writer = await connect(peer)
            there.release()
            with suppress(ConnectionError):
                await reader.read()
            writer.close()

    async def look(peer: int) -> None:
        """A board: it follows the events, and fetches the page again after each, once a second at most."""
        reader, writer = await connect(peer)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        there.release()
        while told := await reader.read(65536):
            last = told
            asking, page = await connect(peer)
            page.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await asking.read()
            page.close()
            await asyncio.sleep(PAGE_INTERVAL)
        writer.close()
        raise ConnectionError(f"the stream of events has ended after {last!r}")

    async with asyncio.TaskGroup() as group:
        for peer in range(IDLE):
            group.create_task(idle(peer))
        for peer in range(BOARDS):
            group.create_task(look(peer))
        for _ in range(IDLE + BOARDS):
            await there.acquire()
        print("there", flush=True)


if __name__ == "__main__":
    asyncio.run(_crowd(sys.argv[1]))
