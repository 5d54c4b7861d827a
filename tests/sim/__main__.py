"""`make sim`: many seeds, each a run of its own; a table at the end. One seed again: `python -m tests.sim --seed N`."""

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import structlog

from services.bus.streams import SLA, TICKETS
from services.faults import POINTS
from tests.sim.audit import Problem, find_problems
from tests.sim.world import World
from tests.support.planted import BUGS

KINDS = ("lost", "doubled", "false", "early", "stuck", "differs")
ENOUGH = 1_000  # seeds within which a planted bug must show
TELLING = (604, 91, 99, 41)  # seeds that are sound, and catch what others catch late; tried first
FEW = 100  # seeds after which every fault point must have been reached
SILENT = logging.CRITICAL


class Run(NamedTuple):
    """What came of a seed."""

    seed: int
    problems: list[Problem]
    seen: Counter[str]


def run(seed: int) -> Run:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(SILENT))
    world = World(seed)
    try:
        world.run()
        problems = find_problems(world)
    finally:
        world.close()
    streams = {f"messages in {name}": world.broker.streams[name].newest for name in (TICKETS, SLA)}
    return Run(seed, problems, world.seen + Counter(streams))


def run_seeds(seeds: Iterable[int], processes: int, seconds: float) -> Iterator[Run]:
    """One after the other as they finish, until there are no more seeds or the time is over."""
    give_up = time.monotonic() + seconds
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for found in pool.imap_unordered(run, seeds, chunksize=4):
            yield found
            if time.monotonic() > give_up:
                return


def simulate(seeds: Iterable[int], processes: int, seconds: float) -> int:
    """The table of all runs; the number of problems."""
    started, done, kinds, seen = time.monotonic(), 0, Counter[str](), Counter[str]()
    for found in run_seeds(seeds, processes, seconds):
        done += 1
        seen += found.seen
        for kind, story in found.problems:
            kinds[kind] += 1
            print(f"seed {found.seed}: {kind}: {story[:600]}\n  again: make sim SEED={found.seed}")
    print(f"{done} seeds in {time.monotonic() - started:.0f} s")
    for what, times in sorted(seen.items()):
        print(f"  {what:<40}{times:>9}")
    print("  ".join(f"{kind} {kinds[kind]}" for kind in KINDS))
    missed = [point for point in POINTS if done >= FEW and not seen[f"killed at {point}"]]
    if missed:
        print(f"never killed at {', '.join(missed)}: the harness does not reach what it is for")
    return sum(kinds.values()) + len(missed)


def try_planted_bugs(names: Iterable[str]) -> int:
    """Each bug in processes of its own; the number of those that nobody noticed."""
    unnoticed = 0
    for name in names:
        with multiprocessing.get_context("fork").Pool(os.cpu_count(), BUGS[name]) as pool:
            tried, caught = 0, None
            for found in pool.imap(run, dict.fromkeys((*TELLING, *range(ENOUGH))), chunksize=2):
                tried += 1
                if found.problems:
                    caught = found
                    break
        kinds = sorted({kind for kind, _ in caught.problems}) if caught else []
        verdict = f"caught by seed {caught.seed}: {', '.join(kinds)}" if caught else f"NOT caught by {tried} seeds"
        print(f"  {name:<32}{verdict}", flush=True)
        unnoticed += caught is None
    return unnoticed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many, from 0 on")
    parser.add_argument("--seconds", type=float, default=60, help="at most")
    parser.add_argument("--seed", type=int, help="this one alone, until it is done")
    parser.add_argument("--planted", nargs="*", metavar="BUG", help=f"planted, one after the other: {', '.join(BUGS)}")
    given = parser.parse_args()
    if given.planted is not None:
        return try_planted_bugs(given.planted or list(BUGS))
    if given.seed is not None:
        return simulate([given.seed], 1, float("inf"))
    return simulate(range(given.seeds), os.cpu_count() or 1, given.seconds)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a run
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
        )
    sys.exit(bool(main()))
