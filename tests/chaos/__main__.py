"""`make chaos`: real processes on a real nats-server, broken in every way we know; a table at the end."""

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp

from tests.chaos.crew import FAKETIME, FAULTS
from tests.chaos.run import Chaos
from tests.support.planted import BUGS

KINDS = ("lost", "doubled", "false", "early", "stuck", "late", "differs", "not reached")
SHOWN = 20  # problems of a seed
SEEDS = (1, 2)
"""The first one is run; a planted bug may take another to be caught."""
HAPPENS = {"kill": "killed", "fail": "failed", "stop": "stopped"}
STATES = (
    *(f"{role} {HAPPENS[fault.partition(':')[2]]} at {fault}" for role, faults in FAULTS.items() for fault in faults),
    *("nats-server killed", "nats-server paused", "consumer deleted", "a clock cut off", "disk full"),
    *("a clock jumped", "an old intake woke up, and was refused", "healed by itself"),
    *("foreign message on SLA", "store restored beside a newer SLA"),
    *("stream SLA deleted, and noticed", "stream TICKETS deleted, and refused"),
)
"""What every run must reach; one that was not reached fails it."""


def run(seed: int, planted: str | None = None) -> Chaos:
    """One seed in a folder of its own; its logs are kept if there are problems."""
    folder, started = Path(mkdtemp(prefix="sla-chaos-")), time.monotonic()
    chaos = Chaos(seed, folder, planted)
    asyncio.run(chaos.run())
    missed = [state for state in STATES if not chaos.seen[state]]
    if not chaos.problems:
        chaos.problems += [("not reached", state) for state in missed]
    if not chaos.problems:
        shutil.rmtree(folder)
    print(f"seed {seed}: {time.monotonic() - started:.0f} s, {len(STATES) - len(missed)} of {len(STATES)} states")
    for kind, story in chaos.problems[:SHOWN]:
        print(f"  {kind}: {story[:1500]}")
    if chaos.problems:
        print(f"  logs: {folder}\n  again: make chaos SEED={seed}", flush=True)
    return chaos


def chaos(seeds: Iterable[int]) -> int:
    """The table of all seeds; the number of problems."""
    seen, kinds = Counter[str](), Counter[str]()
    for seed in seeds:
        found = run(seed)
        seen += found.seen
        kinds.update(kind for kind, _ in found.problems)
    for what, times in sorted(seen.items()):
        print(f"  {what:<60}{times:>6}")
    print("  ".join(f"{kind} {kinds[kind]}" for kind in KINDS))
    return kinds.total()


def planted(names: Iterable[str]) -> int:
    """Each bug in all services; the number of those that no seed noticed."""
    unnoticed = 0
    for name in names:
        found = next((each for seed in SEEDS if (each := run(seed, name)).problems), None)
        kinds = sorted({kind for kind, _ in found.problems}) if found else []
        print(f"  {name:<32}{'caught: ' + ', '.join(kinds) if kinds else 'NOT caught'}", flush=True)
        unnoticed += not kinds
    return unnoticed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, action="append", help=f"this one; without it {SEEDS[0]}")
    parser.add_argument("--planted", nargs="*", metavar="BUG", help=f"planted, one after the other: {', '.join(BUGS)}")
    given = parser.parse_args()
    if not FAKETIME.exists() or os.geteuid() != 0:
        sys.exit(f"chaos needs root (a small disk is mounted) and {FAKETIME}: apt-get install faketime")
    if given.planted is not None:
        return planted(given.planted or list(BUGS))
    return chaos(given.seed or SEEDS[:1])


if __name__ == "__main__":
    sys.exit(bool(main()))
