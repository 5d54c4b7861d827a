"""An engine as its users run it, `sla up`, and what its processes cost; what is measured of it is in the benches."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import IO, Any, NamedTuple

from events.tickets import build_ticket_message
from services.bus.publisher import Outgoing
from services.runtime.connections import read_run_file
from services.runtime.settings import SHIPPED_POLICIES, load_policy

TIMEOUT = 60.0  # seconds for a start, or an end
_CRITICAL = load_policy(SHIPPED_POLICIES).get_target("enterprise", "critical").measure(datetime.now(UTC))


class Up(NamedTuple):
    """A running engine: the addresses of its bus and its HTTP port, its store, its processes, and its broker."""

    nats_url: str
    http_url: str
    store: Path
    pids: tuple[int, ...]
    broker: int


@contextmanager
def up(folder: Path, **settings: str) -> Iterator[Up]:
    """`sla up` with its data in the folder, on free ports, once it is ready."""
    environment = os.environ | {"SLA_NATS_PORT": "0", "SLA_HTTP_PORT": "0", "SLA_LOG_LEVEL": "warning"} | settings
    command = [str(Path(sys.executable).with_name("sla")), "up", "--data", str(folder / "up")]
    with (folder / "up.log").open("w") as log, process(command, environment, stderr=log) as engine:
        run_file = folder / "up" / "run.json"
        _until(engine, lambda: run_file.exists() and run_file.read_text().endswith("\n"), folder / "up.log")
        found = json.loads(run_file.read_text())
        broker = int((folder / "up" / "nats" / "nats.pid").read_text())
        children = map(int, Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split())
        pids = (engine.pid, *(pid for pid in children if pid != broker))
        yield Up(read_run_file(folder / "up"), found["http_url"], folder / "up" / "sla.db", pids, broker)


@contextmanager
def process(
    command: list[str],
    environment: Mapping[str, str] = os.environ,
    stdout: int | None = None,
    stderr: IO[Any] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with the block."""
    started = subprocess.Popen(command, env=dict(environment), stdout=stdout, stderr=stderr)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(TIMEOUT)


def _until(engine: "subprocess.Popen[bytes]", is_ready: Callable[[], bool], log: Path) -> None:
    give_up = perf_counter() + TIMEOUT
    while not is_ready():
        if engine.poll() is not None or perf_counter() > give_up:
            raise TimeoutError(f"sla up is not ready (exit code {engine.poll()}): {log.read_text()[-2_000:]}")
        asyncio.run(asyncio.sleep(0.02))


def always_open(folder: Path) -> Path:
    """A policy folder: the shipped one with Enterprise open every second, so that any instant can be a deadline."""
    folder.mkdir(exist_ok=True)
    shipped = next(SHIPPED_POLICIES.glob("*.yaml")).read_text(encoding="utf-8")
    (folder / "policy.yaml").write_text(shipped.replace("holidays: closed", "holidays: open"), encoding="utf-8")
    return folder


def opened(ticket: str, time: datetime, priority: str = "minor", level: str = "enterprise") -> Outgoing:
    """The message that a ticket was opened."""
    data = {"service_level": level, "priority": priority, "channel": "email"}
    return Outgoing(
        *build_ticket_message("ticket.opened", ticket, source="/bench", event_id=ticket, time=time, data=data)
    )


def due_at(ticket: str, at: datetime) -> Outgoing:
    """The message that a critical ticket was opened whose deadline is that instant, with `always_open`."""
    return opened(ticket, at - _CRITICAL, "critical")


def cpu(*pids: int) -> float:
    """Seconds of processor time that the processes have used."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def resident(*pids: int) -> int:
    """Bytes that the processes have in memory."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")
