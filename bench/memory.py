"""How much memory an open ticket takes: engine and broker with 1,000,000 open, against the same with none."""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep

from bench.engine import Up, always_open, resident, up
from bench.figures import Bounds, figure
from bench.full import full

TICKETS = 1_000_000
SETTLES = 20.0  # seconds after the start
SAMPLES, APART = 5, 2.0  # seconds
BOUNDS = Bounds(must=1.2, aim=0.7)  # kB


def main() -> int:
    """Prints what each process has in memory, and what that is for each ticket; 1 if it is too much."""
    print(f"memory: {SAMPLES} samples, {APART:g} s apart, {SETTLES:g} s after the start, {TICKETS:,} open and none")
    with TemporaryDirectory(prefix="sla-bench-") as name:
        always_open(Path(name) / "policy")
        empty = _at_rest(Path(name))
    loaded = _at_rest(full(TICKETS))
    for open_now, found in (("none", empty), (f"{TICKETS:,}", loaded)):
        for process, values in zip(("engine", "broker"), zip(*found, strict=True), strict=True):
            figure(f"{process}, {open_now} open", [value / 1e6 for value in values], "MB")
    base = median(map(sum, empty))
    return 0 if figure("one open ticket", [(sum(each) - base) / TICKETS / 1e3 for each in loaded], "kB", BOUNDS) else 1


def _at_rest(folder: Path) -> list[tuple[int, int]]:
    """Bytes that engine and broker have in memory when they have nothing to do."""
    with up(folder, SLA_POLICY_DIR=str(folder / "policy")) as engine:
        sleep(SETTLES)
        return [sample(engine) for _ in range(SAMPLES)]


def sample(engine: Up) -> tuple[int, int]:
    """Of engine and broker, after a while."""
    sleep(APART)
    return resident(*engine.pids), resident(engine.broker)
