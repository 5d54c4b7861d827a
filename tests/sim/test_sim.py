"""A few seeds of the simulation with every run of the tests, more in CI; `make sim` runs thousands."""

from collections import Counter

import pytest

from services.bus.streams import SLA, TICKETS
from tests.sim.audit import Problem, audit
from tests.sim.world import World
from tests.support.examples import ALL_EXAMPLES


def told(seed: int) -> tuple[list[Problem], list[bytes], Counter[str]]:
    """What is wrong after a run, all that it published, and what happened in it."""
    world = World(seed)
    try:
        world.run()
        published = [each.body for name in (TICKETS, SLA) for each in world.broker.streams[name].messages]
        return audit(world), published, world.seen
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(12 if ALL_EXAMPLES else 4))
def test_whatever_fails_nothing_is_lost_doubled_false_or_early(seed: int) -> None:
    problems, published, _ = told(seed)
    assert problems == []
    assert published


def test_a_seed_is_the_same_run_each_time() -> None:
    _, *first = told(7)
    _, *second = told(7)
    assert first == second
