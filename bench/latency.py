"""How long from a fact published to its sla.applied or sla.fulfilled seen: `sla up` against the same hops, raw rows."""

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from nats.aio.client import Client
from nats.aio.msg import Msg

from bench import floor
from bench.ratio import HEADER, compare
from events.tickets import ticket_message
from services.bus import connect
from services.sqlite import SqliteFile
from services.wiring import VIEWS

ROUNDS = 5
SECONDS = 3.0  # of each round of each side
RATES = (100, 1_000)  # facts a second
MUST, AIM = 1.5, 1.25
MUST_MS, AIM_MS = 10.0, 5.0
PATIENCE = 20.0  # seconds for a start, or for the last answer of a round


def main() -> int:
    """Prints ratio and absolute times for each rate; 1 if one of them is too long."""
    print(
        f"latency: {ROUNDS} rounds of {SECONDS:g} s a side, half opened, half responded, SQLite, sync_interval always"
    )
    print(HEADER)
    with (
        TemporaryDirectory(prefix="sla-bench-") as name,
        engine(Path(name)) as (url, _),
        asyncio.Runner() as runner,
        _floor(Path(name), url, runner),
    ):
        watcher = runner.run(_watcher(url))
        rows = [_row(watcher, rate, runner) for rate in RATES]
        runner.run(watcher.close())
    return 0 if all(rows) else 1


def _row(watcher: "Watcher", rate: int, runner: asyncio.Runner) -> bool:
    spans: dict[str, list[list[float]]] = {"floor_in": [], "tickets": []}

    def measured(prefix: str) -> Callable[[], float]:
        def p99() -> float:
            spans[prefix].append(sorted(runner.run(watcher.round(prefix, rate))))
            return percentile(spans[prefix][-1], 99)

        return p99

    for prefix in spans:
        measured(prefix)()  # warm
    spans = {prefix: [] for prefix in spans}
    row = compare(
        f"latency p99, {rate}/s",
        measured("floor_in"),
        measured("tickets"),
        must=MUST,
        aim=AIM,
        rounds=ROUNDS,
        at_most=True,
    )
    for name, prefix in (("floor", "floor_in"), ("ours", "tickets")):
        p50, p99 = ([percentile(one, wanted) * 1e3 for one in spans[prefix]] for wanted in (50, 99))
        verdict = (
            ""
            if name == "floor"
            else f"   must <= {MUST_MS:g} {_said(p99, MUST_MS)}  aim <= {AIM_MS:g} {_said(p99, AIM_MS)}"
        )
        print(f"  {name:<5} p50 {_spread(p50)} ms, p99 {_spread(p99)} ms{verdict}", flush=True)
    return row.passed and median(percentile(one, 99) for one in spans["tickets"]) <= MUST_MS / 1e3


def percentile(ordered: list[float], percent: int) -> float:
    """The value that so many per cent of an ordered list do not exceed."""
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _spread(values: list[float]) -> str:
    return f"{min(values):.2f} / {median(values):.2f} / {max(values):.2f}"


def _said(values: list[float], bound: float) -> str:
    return "pass" if median(values) <= bound else "FAIL"


async def _watcher(url: str) -> "Watcher":
    watcher = Watcher(await connect(url, "bench"))
    await watcher.start()
    gc.freeze()
    return watcher


class Watcher:
    """Publishes facts at a steady rate, and notes when what follows from each of them is seen."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._sent: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._round = 0

    async def start(self) -> None:
        await self._nc.subscribe("sla.>", cb=self._see)
        await self._nc.subscribe("floor_out.>", cb=self._see)

    async def close(self) -> None:
        await self._nc.close()

    async def _see(self, message: Msg) -> None:
        now = perf_counter()
        tokens = message.subject.split(".")
        self._seen[f"{tokens[1]}.{tokens[-1]}"] = now

    async def round(self, prefix: str, rate: int) -> list[float]:
        """Seconds from publishing to seeing, for each fact. On `floor_in` the subject says what is expected."""
        self._round += 1
        self._sent.clear()
        self._seen.clear()
        gc.collect()
        start = perf_counter()
        for number in range(int(rate * SECONDS)):
            await asyncio.sleep(max(0.0, start + number / rate - perf_counter()))
            await self._publish(prefix, number)
        give_up = perf_counter() + PATIENCE
        while len(self._seen) < len(self._sent):
            if perf_counter() > give_up:
                raise TimeoutError(f"{len(self._sent) - len(self._seen)} of {len(self._sent)} facts had no consequence")
            await asyncio.sleep(0.01)
        return [self._seen[key] - sent for key, sent in self._sent.items()]

    async def _publish(self, prefix: str, number: int) -> None:
        ticket = f"L{self._round}-{number // 2}"
        event, outcome, data = EVENTS[number % 2]
        subject, headers, body = ticket_message(
            f"ticket.{event}", ticket, source="/bench", id=f"{event}-{ticket}", time=datetime.now(UTC), data=data
        )
        if prefix == "floor_in":
            subject = f"floor_in.{outcome}.foundation.minor.{ticket}"
        self._sent[f"{outcome}.{ticket}"] = perf_counter()
        await self._nc.publish(subject, body, headers=headers)


EVENTS = (
    ("opened", "applied", {"service_level": "foundation", "priority": "minor", "channel": "email"}),
    ("responded", "fulfilled", {"by": "agent"}),
)


@contextmanager
def engine(folder: Path, **settings: str) -> Iterator[tuple[str, int]]:
    """`sla up` on free ports; the URL of its bus, and its process."""
    environment = os.environ | {"SLA_NATS_PORT": "0", "SLA_HTTP_PORT": "0"} | settings
    command = [str(Path(sys.executable).with_name("sla")), "up", "--data", str(folder / "up")]
    with (folder / "up.log").open("w") as log, _process(command, environment, stderr=log) as process:
        run_file = folder / "up" / "run.json"
        give_up = perf_counter() + PATIENCE
        while not (run_file.exists() and run_file.read_text().endswith("\n")):
            if perf_counter() > give_up:
                raise TimeoutError(f"sla up is not ready: {(folder / 'up.log').read_text()}")
            asyncio.run(asyncio.sleep(0.05))
        yield json.loads(run_file.read_text())["nats_url"], process.pid


@contextmanager
def _floor(folder: Path, url: str, runner: asyncio.Runner) -> Iterator[None]:
    """The floor in a process of its own, as the engine is, on streams and a store of its own."""
    path = folder / "floor.db"
    SqliteFile(path).migrate(VIEWS)
    runner.run(_provision(url))
    with _process([sys.executable, "-m", "bench.floor", url, str(path)], os.environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield


async def _provision(url: str) -> None:
    nc = await connect(url, "bench")
    await floor.provision(nc)
    await nc.close()


@contextmanager
def _process(
    command: list[str], environment: "os._Environ[str] | dict[str, str]", **files: object
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, **files)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


if __name__ == "__main__":
    sys.exit(main())
