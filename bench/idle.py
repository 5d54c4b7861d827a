"""What an engine costs that has nothing to do: its start, and its processor time, with 1,000,000 open and with none."""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

from bench.engine import Up, always_open, cpu, up
from bench.figures import Bounds, figure
from bench.full import full

TICKETS = 1_000_000
STARTS = 3
SETTLES = 10.0  # seconds after the start
WINDOWS, SECONDS = 3, 20.0
MOST = Bounds(must=1.0)  # per cent of a core


def main() -> int:
    """Prints seconds to ready and per cent of a core; 1 if the engine takes too much of it."""
    print(f"rest: {STARTS} starts, then {WINDOWS} x {SECONDS:g} s at rest, {TICKETS:,} open and none")
    with TemporaryDirectory(prefix="sla-bench-") as name:
        always_open(Path(name) / "policy")
        none, kept = _measured("none", Path(name))
    loaded, also_kept = _measured(f"{TICKETS:,}", full(TICKETS))
    figure("1,000 open tickets", [(value - median(none)) * 1e3 / TICKETS for value in loaded], "%")
    return 0 if kept and also_kept else 1


def _measured(open_now: str, folder: Path) -> tuple[list[float], bool]:
    """Per cent of a core that the processes take together, and whether the engine keeps what it must."""
    figure(f"start to ready, {open_now} open", [start(folder) for _ in range(STARTS)], "s")
    with up(folder, SLA_POLICY_DIR=str(folder / "policy")) as running:
        sleep(SETTLES)
        engine, broker = zip(*(idle(running, SECONDS) for _ in range(WINDOWS)), strict=True)
    kept = figure(f"engine, {open_now} open", engine, "%", MOST)
    figure(f"broker, {open_now} open", broker, "%")
    return [sum(pair) for pair in zip(engine, broker, strict=True)], kept


def start(folder: Path) -> float:
    """Seconds until an engine is ready."""
    began = perf_counter()
    with up(folder, SLA_POLICY_DIR=str(folder / "policy")):
        return perf_counter() - began


def idle(engine: Up, seconds: float) -> tuple[float, float]:
    """Per cent of a core that engine and broker take, in so many seconds."""
    both = engine.pids, (engine.broker,)
    before, began = [cpu(*pids) for pids in both], perf_counter()
    sleep(seconds)
    taken = perf_counter() - began
    of_engine, of_broker = ((cpu(*pids) - used) / taken * 100 for pids, used in zip(both, before, strict=True))
    return of_engine, of_broker
