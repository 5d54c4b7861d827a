"""The rules, scenario by scenario, through the engine in memory. Whatever the order of arrival: test_judge_order.py."""

from collections import Counter
from datetime import timedelta

import msgspec
import pytest

from events import promises
from events.cloudevents import encode_token
from sla.log import Announced as AnnouncedEvent
from sla.log import Event
from sla.policy import FIRST_RESPONSE
from sla.ticket import TicketSla
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import (
    Announced,
    Fact,
    Given,
    Scenario,
    Tick,
    check,
    escalated,
    opened,
    stockholm,
    tick,
)
from tests.support.judge_checks import ONE_POLICY, check_ids, check_step, follow
from tests.support.memory import World, get_policy

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


def play_scenario(scenario: Scenario, forgets: bool = False) -> World:
    world = World(policy=get_policy(scenario), forgets=forgets)
    scenario.play(world.put, world.find_next_instant)
    return world


@each_scenario
def test_what_follows_is_what_the_scenario_says(scenario: Scenario) -> None:
    world = play_scenario(scenario)
    check(scenario, world.list_announced(), world.state, world.memory.inbox)


@each_scenario
def test_every_announcement_is_a_valid_message(scenario: Scenario) -> None:
    world = play_scenario(scenario)
    decided = [event for event in world.events if isinstance(event, AnnouncedEvent)]
    for event, announced in zip(decided, world.list_announced(), strict=True):
        check_message(world.ticket, event, announced)


def check_message(ticket: str, event: AnnouncedEvent, announced: Announced) -> None:
    envelope = announced.envelope
    data = promises.ANNOUNCEMENT_TYPES[envelope["type"]].model_validate_json(msgspec.json.encode(envelope["data"]))
    assert set(envelope["data"]) == set(type(data).model_fields)
    assert envelope["specversion"] == "1.0" and envelope["source"] == "/sla"
    assert envelope["id"] == event.id and envelope["subject"] == data.ticket_id == ticket
    historic = getattr(event, "detection", None) == "historic" and announced.kind in promises.HISTORIC_KINDS
    kind = f"{announced.kind}_historic" if historic else announced.kind
    assert announced.subject == f"sla.{kind}.{data.service_level}.{data.priority}.{encode_token(ticket)}"


@each_scenario
def test_the_log_alone_gives_the_same_ticket(scenario: Scenario) -> None:
    world = play_scenario(scenario)
    replayed = TicketSla.replay(None, world.memory.log.get(world.ticket, ()))
    if replayed is not None:
        assert replayed == world.ticket_sla


@each_scenario
def test_an_engine_that_remembers_nothing_decides_the_same(scenario: Scenario) -> None:
    assert play_scenario(scenario, forgets=True).events == play_scenario(scenario).events


@each_scenario
def test_what_every_history_must_keep_to(scenario: Scenario) -> None:
    world = World(policy=get_policy(scenario))
    steps = []
    scenario.play(lambda item: steps.append((item, world.put(item), world.state)), world.find_next_instant)
    standing: set[str] = set()
    for item, new, state in steps:
        check_step(isinstance(item, Fact), new)
        standing = follow(standing, select_first_response(new))
        assert len(standing) == (state.breached_at is not None)
    check_ids(select_first_response(world.events))


def select_first_response(events: list[Event]) -> list[Event]:
    return [event for event in events if getattr(event, "objective", FIRST_RESPONSE) == FIRST_RESPONSE]


@each_scenario
def test_a_tick_once_more_does_nothing(scenario: Scenario) -> None:
    world = World(policy=get_policy(scenario))

    def twice(item: Given) -> None:
        world.put(item)
        if isinstance(item, Tick):
            assert world.put(item) == []

    scenario.play(twice, world.find_next_instant)


@pytest.mark.parametrize("scenario", ONE_POLICY, ids=lambda scenario: scenario.name)
def test_a_batch_decides_what_its_messages_decide_one_by_one(scenario: Scenario) -> None:
    alone, together = World(policy=get_policy(scenario)), World(policy=get_policy(scenario))
    items: list[Given] = []
    scenario.play(lambda item: (items.append(item), alone.put(item)), alone.find_next_instant)
    together.take([together.make_message(item) for item in items])
    assert together.events == alone.events


def test_time_does_not_go_back_when_the_clock_of_the_broker_does() -> None:
    world = World()
    world.put(opened("foundation", "critical", "2025-11-03 10:00", id="o"))
    world.put(tick("2025-11-03 14:00:01"))
    assert world.put(escalated("2025-11-03 13:30", arrives="2025-11-03 13:40", id="e"))
    assert world.state.breached_at == stockholm("2025-11-03 14:00")
    assert world.events[-1].at == stockholm("2025-11-03 14:00:01")


def test_each_rule_has_its_scenarios() -> None:
    covered = Counter(scenario.rule for scenario in SCENARIOS)
    assert all(covered[rule] >= 3 for rule in range(1, 15)), covered


def test_no_two_scenarios_have_one_name() -> None:
    assert max(Counter(scenario.name for scenario in SCENARIOS).values()) == 1


@each_scenario
def test_the_clock_of_a_scenario_is_never_early(scenario: Scenario) -> None:
    world = World(policy=get_policy(scenario))

    def put(item: Given) -> None:
        if item not in scenario.given:
            due = world.find_next_instant()
            assert due is not None and item.arrives >= due + timedelta(milliseconds=1)
        world.put(item)

    scenario.play(put, world.find_next_instant)
