"""Cycles that an answer starts, and those of a response to every message, compared with a naive oracle."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sla.judge import judge
from tests.scenarios.scenario import Fact, Tick, stockholm
from tests.support.examples import examples
from tests.support.judge_checks import check_heard
from tests.support.memory import World
from tests.support.objectives import RULES
from tests.support.updates import POLICY, Walked, walk

BASE, MINUTE = stockholm("2025-11-03 09:00"), timedelta(minutes=1)
kinds = st.sampled_from(["responded", "responded", "customer_replied", "closed", "reopened"])


@pytest.mark.parametrize("objective", ["update", "each_response"])
@examples(200)
@given(st.dictionaries(st.integers(1, 40), kinds, max_size=9), st.data())
def test_the_cycles_are_those_of_the_oracle(objective: str, told: dict[int, str], data: st.DataObject) -> None:
    """Whatever the order of arrival."""
    priority = "critical" if objective == "update" else "serious"
    end = BASE + 600 * MINUTE
    history = [("opened", {"service_level": "gold", "priority": priority}, BASE)]
    history += [(kind, {}, BASE + (minute // 2 * 10 + minute % 2) * MINUTE) for minute, kind in told.items()]
    facts = [Fact(*said, end, f"f{n}", "/helpdesk", None) for n, said in enumerate(history)]
    world = World(policy=POLICY)
    for fact in data.draw(st.permutations(facts)):
        world.put(fact)
    world.put(Tick(end))
    check_heard(world.ticket_sla, world.memory.published, world.events, end)
    clocks = judge(world.ticket_sla.facts, world.memory.published, end).cycles[objective]
    found = [
        Walked(each.started_at, each.response.time if each.response else None, each.measure_elapsed(each.find_end(end)))
        for each in clocks
    ]
    assert found == walk(facts, objective, end)


def test_the_rules_of_the_file_are_those_of_the_policy() -> None:
    assert POLICY.objectives["each_response"]._asdict() == {"name": "each_response"} | RULES["each_response"]
    assert POLICY.awaits_replies
