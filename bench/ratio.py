"""Ratios: ours against a floor that does the same without us, both measured turn by turn in the same run.

A ratio is floor / ours for speed (how many times as fast we are, at least `must`) and ours / floor for latency (how
many times as long we take, at most `must`). The median of the rounds is what is compared; no round is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

MIN_ROUNDS = 5

HEADER = (
    f"{'bench':<34} {'floor':>11} {'ours':>11}   {'ratio min':>9} {'median':>7} {'max':>7}   {'must':>12}  {'aim':>12}"
)


@dataclass(frozen=True)
class Ratio:
    """What the rounds of one bench measured: seconds a round of each, and the bounds for the median of their ratios."""

    name: str
    floor: tuple[float, ...]
    ours: tuple[float, ...]
    must: float
    aim: float
    at_most: bool
    operations: int

    @property
    def ratios(self) -> tuple[float, ...]:
        """One ratio for each round."""
        pairs = zip(self.floor, self.ours, strict=True)
        return tuple(ours / floor if self.at_most else floor / ours for floor, ours in pairs)

    def within(self, bound: float) -> bool:
        """Whether the median of the ratios keeps a bound."""
        ratio = median(self.ratios)
        return ratio <= bound if self.at_most else ratio >= bound

    @property
    def passed(self) -> bool:
        """Whether the figure we must reach was reached."""
        return self.within(self.must)

    def row(self) -> str:
        """A line under HEADER: median time of one operation of each, the ratios, and each bound with its verdict."""
        sign = "<=" if self.at_most else ">="
        bounds = [f"{sign}{bound:>5g} {'pass' if self.within(bound) else 'FAIL'}" for bound in (self.must, self.aim)]
        times = [_duration(median(rounds) / self.operations) for rounds in (self.floor, self.ours)]
        ratios = self.ratios
        return (
            f"{self.name:<34} {times[0]:>11} {times[1]:>11}   "
            f"{min(ratios):>9.2f} {median(ratios):>7.2f} {max(ratios):>7.2f}   {bounds[0]}  {bounds[1]}"
        )


def compare(
    name: str,
    floor: Callable[[], float],
    ours: Callable[[], float],
    *,
    must: float,
    aim: float,
    rounds: int = MIN_ROUNDS,
    at_most: bool = False,
    operations: int = 1,
) -> Ratio:
    """
    Calls both once per round, the other one first in every second round, prints the row and returns it. Each returns
    the seconds it took for `operations` operations (or the seconds of a percentile, with `at_most`).
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"{rounds} rounds; a ratio takes at least {MIN_ROUNDS}")
    measured: dict[Callable[[], float], list[float]] = {floor: [], ours: []}
    for number in range(rounds):
        for side in (floor, ours) if number % 2 == 0 else (ours, floor):
            measured[side].append(side())
    ratio = Ratio(name, tuple(measured[floor]), tuple(measured[ours]), must, aim, at_most, operations)
    print(ratio.row(), flush=True)
    return ratio


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
