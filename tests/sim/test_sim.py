"""A few seeds of the simulation with every run of the tests, more in CI; `make sim` runs thousands."""

from collections import Counter

import pytest

from services.bus.streams import SLA, TICKETS
from tests.sim.audit import Problem, find_problems
from tests.sim.world import World
from tests.support.examples import ALL_EXAMPLES


def describe_run(seed: int) -> tuple[list[Problem], list[bytes], Counter[str]]:
    """What is wrong after a run, all that it published, and what happened in it."""
    world = World(seed)
    try:
        world.run()
        published = [each.body for name in (TICKETS, SLA) for each in world.broker.streams[name].messages]
        return find_problems(world), published, world.seen
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(12 if ALL_EXAMPLES else 4))
def test_whatever_fails_nothing_is_lost_doubled_false_or_early(seed: int) -> None:
    problems, published, _ = describe_run(seed)
    assert problems == []
    assert published


def test_a_seed_is_the_same_run_each_time() -> None:
    _, *first = describe_run(7)
    _, *second = describe_run(7)
    assert first == second
