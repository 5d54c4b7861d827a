"""Figures: what a bench measured, round by round, against a floor of the same run; printed, and kept as a JSON line.

A ratio is floor / ours for speed (how many times as fast we are, at least `must`) and ours / floor for durations (how
many times as long we take, at most `must`). The median of the rounds is what is compared; no round is left out. Where
the floor itself varies by more than SPREAD, there is no ratio, and what must hold was not shown.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from time import perf_counter
from typing import NamedTuple

MIN_ROUNDS = 5
SPREAD = 2.0
LINES = Path("build/bench.jsonl")

HEADER = f"{'':<40} {'floor':>9} {'ours min':>9} {'median':>9} {'max':>9}   {'ratio min':>9} {'median':>7} {'max':>7}"
_UNITS = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))}


class Bounds(NamedTuple):
    """What a median must keep, and what we aim at; None where nothing is promised."""

    must: float | None = None
    aim: float | None = None
    at_most: bool = True

    def keeps(self, bound: float | None, value: float) -> bool:
        return bound is None or (value <= bound if self.at_most else value >= bound)

    def said(self, value: float, unit: str = "") -> str:
        """Each bound with its verdict."""
        sign = "<=" if self.at_most else ">="
        named = [("must", self.must), ("aim", self.aim)]
        return "  ".join(
            f"{name} {sign} {_quantity(bound, unit) if unit else f'{bound:g}'} "
            f"{'pass' if self.keeps(bound, value) else 'FAIL'}"
            for name, bound in named
            if bound is not None
        )


UNBOUND = Bounds()


def ratio(name: str, floor: Sequence[float], ours: Sequence[float], bounds: Bounds, operations: int = 1) -> bool:
    """
    Prints the seconds of one operation and the paired ratios of at least MIN_ROUNDS rounds. Whether `must` is kept.
    `bounds.at_most` says that the seconds are a duration to be judged, and not the time that some work took.
    """
    if len(floor) < MIN_ROUNDS:
        raise ValueError(f"{len(floor)} rounds; a ratio takes at least {MIN_ROUNDS}")
    pairs = list(zip(floor, ours, strict=True))
    ratios = [ours / floor if bounds.at_most else floor / ours for floor, ours in pairs]
    steady = max(floor) <= SPREAD * min(floor)
    passed = steady and bounds.keeps(bounds.must, median(ratios))
    times = [_quantity(value / operations) for value in (median(floor), min(ours), median(ours), max(ours))]
    said = (
        f"{min(ratios):>9.2f} {median(ratios):>7.2f} {max(ratios):>7.2f}   {bounds.said(median(ratios))}"
        if steady
        else f"no ratio: the floor varies from {_quantity(min(floor))} to {_quantity(max(floor))}"
    )
    print(f"{name:<40} {''.join(f'{time:>10}' for time in times)[1:]}   {said}".rstrip(), flush=True)
    _keep(name, floor=floor, ours=ours, operations=operations, ratios=ratios if steady else None, bounds=bounds)
    return passed


def compare(
    name: str,
    floor: Callable[[], float],
    ours: Callable[[], float],
    bounds: Bounds,
    rounds: int = MIN_ROUNDS,
    operations: int = 1,
) -> bool:
    """
    Calls both once a round, the other one first in every second round. Each returns the seconds it took for
    `operations` operations, or those of a percentile. Whether `must` is kept.
    """
    measured: dict[Callable[[], float], list[float]] = {floor: [], ours: []}
    for number in range(rounds):
        for side in (floor, ours) if number % 2 == 0 else (ours, floor):
            measured[side].append(side())
    return ratio(name, measured[floor], measured[ours], bounds, operations)


def figure(name: str, values: Sequence[float], unit: str, bounds: Bounds = UNBOUND) -> bool:
    """Prints what has no floor: min, median and max. Whether `must` is kept."""
    said = " / ".join(_quantity(value, unit) for value in (min(values), median(values), max(values)))
    print(f"  {name:<38} {said}   {bounds.said(median(values), unit)}".rstrip(), flush=True)
    _keep(name, values=values, unit=unit, bounds=bounds)
    return bounds.keeps(bounds.must, median(values))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many per cent of the values do not exceed."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def machine() -> str:
    """On what it is measured: cores, Python, and how long the disk takes to keep 4 kB."""
    taken = []
    with TemporaryFile(dir=".") as file:
        for _ in range(101):
            start = perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, 0)
            os.fdatasync(file.fileno())
            taken.append(perf_counter() - start)
    disk = f"fdatasync of 4 kB p50 {_quantity(median(taken))}, p99 {_quantity(percentile(taken, 99))}"
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; {disk}"


def _keep(name: str, bounds: Bounds, **found: object) -> None:
    LINES.parent.mkdir(exist_ok=True)
    with LINES.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"name": name, **found, **bounds._asdict()}) + "\n")


def _quantity(value: float, unit: str = "s") -> str:
    sizes = _UNITS.get(unit, ((1.0, unit),))
    size, name = next((each for each in sizes if abs(value) >= each[0]), sizes[-1])
    scaled = value / size
    return f"{scaled:,.0f} {name}" if abs(scaled) >= 1_000 else f"{scaled:.3g} {name}"
