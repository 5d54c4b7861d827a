"""Whatever the order of arrival, a history ends in the same promise: the one that an oracle reads from the rules."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.cloudevents import Reason
from sla.policy import Policy
from sla.ticket import TicketSla
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import (
    Fact,
    Scenario,
    Tick,
    changed,
    closed,
    corrected,
    escalated,
    excluded,
    levelled,
    moved,
    opened,
    reopened,
    responded,
    revoked,
    stockholm,
)
from tests.support.examples import ALL_EXAMPLES, examples
from tests.support.histories import close_times, find_end, histories, list_corrected_times
from tests.support.judge_checks import (
    ONE_POLICY,
    check_causes,
    check_heard,
    check_ids,
    check_step,
    follow,
    get_outcome,
    read_truth,
)
from tests.support.judge_oracle import find_truth
from tests.support.memory import POLICY, World, get_policy, make_pausing_policy, make_versions

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

HISTORIES: dict[str, tuple[Fact, ...]] = {
    "raised, lowered, answered in between": (
        opened("foundation", "serious", "2025-11-03 10:00"),
        changed("critical", "2025-11-03 11:00"),
        changed("minor", "2025-11-03 13:59"),
        responded("2025-11-05 10:00"),
        responded("2025-11-03 10:30", by="automation"),
        escalated("2025-11-03 15:00"),
    ),
    "raised past the budget, lowered too late, answered at the instant of the raise": (
        opened("foundation", "minor", "2025-11-03 10:00"),
        changed("critical", "2025-11-03 20:00", id="a"),
        changed("minor", "2025-11-03 20:00:00.000001", id="b"),
        responded("2025-11-03 20:00", id="c"),
        responded("2025-11-04 09:30", id="d"),
        escalated("2025-11-03 20:00", id="e"),
    ),
    "changes at one instant, with and without a sequence": (
        opened("foundation", "critical", "2025-11-03 10:00"),
        changed("serious", "2025-11-03 11:00", id="a", sequence="10"),
        changed("critical", "2025-11-03 11:00", id="b", sequence="9"),
        changed("minor", "2025-11-03 11:00", id="c"),
        changed("serious", "2025-11-03 11:00", id="a", source="/crm", sequence="9"),
        responded("2025-11-03 16:00"),
    ),
    "three openings, one of them tied, and changes between": (
        opened("foundation", "critical", "2025-11-03 14:00", id="a"),
        opened("enterprise", "minor", "2025-11-03 10:00", id="b", source="/helpdesk"),
        opened("professional", "minor", "2025-11-03 10:00", id="b", source="/crm"),
        changed("serious", "2025-11-03 10:00", id="c"),
        changed("critical", "2025-11-03 12:00", id="d"),
        responded("2025-11-03 13:30", id="e"),
    ),
    "everything at the opening": (
        opened("enterprise", "minor", "2025-11-08 10:00"),
        changed("critical", "2025-11-08 10:00", id="a"),
        changed("serious", "2025-11-08 09:00", id="b"),
        responded("2025-11-08 10:00"),
        escalated("2025-11-08 10:00", id="e"),
        escalated("2025-11-08 09:00", id="f"),
    ),
    "no answer, and a deadline at closing time": (
        opened("foundation", "critical", "2025-11-03 14:00"),
        changed("serious", "2025-11-03 18:00"),
        changed("critical", "2025-11-04 09:00"),
        escalated("2025-11-04 09:00"),
        responded("2025-11-04 10:00", by="automation"),
    ),
    "closed twice, opened again between, answered while it was closed, another level": (
        opened("foundation", "critical", "2025-11-03 10:00"),
        closed("2025-11-03 12:00", id="a"),
        reopened("2025-11-03 20:00"),
        levelled("enterprise", "2025-11-03 21:00"),
        closed("2025-11-03 22:00", id="b"),
        responded("2025-11-03 13:00"),
    ),
    "excluded for two reasons, one revoked, one corrected to a reason that is none": (
        opened("professional", "critical", "2025-11-03 10:00"),
        excluded("basic_training", "2025-11-03 10:30", id="a"),
        excluded("third_party", "2025-11-03 12:00", id="b"),
        revoked("third_party", "2025-11-03 12:00", id="c"),
        corrected("a", "2025-11-03 13:00", reason="too busy"),
        responded("2025-11-03 11:00:00.000001"),
    ),
    "corrections of an opening, of an answer, and of one another": (
        opened("enterprise", "minor", "2025-11-03 10:00", id="o"),
        responded("2025-11-03 12:00", id="r"),
        corrected("o", "2025-11-03 12:00", time="2025-11-03 09:00", service_level="foundation"),
        corrected("o", "2025-11-03 12:30", priority="critical"),
        corrected("r", "2025-11-03 13:00", time="2025-11-03 13:00"),
        changed("serious", "2025-11-03 09:30"),
    ),
    "moved to another version, back, and past the target between": (
        opened("foundation", "critical", "2025-11-03 10:00", id="o"),
        moved("edited", "2025-11-03 14:00", id="a"),
        levelled("professional", "2025-11-03 14:00", id="b"),
        moved("2026-01", "2025-11-03 15:00", id="c"),
        closed("2025-11-03 14:30"),
        reopened("2025-11-03 16:00"),
    ),
}
NAMED = pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)


def play_in_order(
    items: Sequence[Fact | Tick], end: datetime, policy: Policy = POLICY, edited_at: datetime | None = None
) -> World:
    """The world after these messages, a tick after each, and a last one at the end; checks each step on the way."""
    world, standing = World(versions=make_versions(policy, edited_at)), set[str]()

    def put(item: Fact | Tick) -> None:
        nonlocal standing
        new = world.put(item)
        check_step(isinstance(item, Fact), new)
        for event in new:
            check_causes(event, world.ticket_sla)
        if isinstance(item, Tick) and world.events:
            check_heard(
                world.ticket_sla,
                world.memory.published,
                world.events,
                max(item.arrives, *(event.at for event in world.events)),
            )
        standing = follow(standing, new)
        assert len(standing) == (world.state.breached_at is not None)

    for item in items:
        put(item)
    put(Tick(end))
    check_ids(world.events)
    assert world.put(Tick(end)) == []
    return world


@NAMED
def test_every_order_of_arrival_ends_alike(history: tuple[Fact, ...]) -> None:
    """All permutations or, with a part of the examples, each seventh; a tick after each fact, some facts told twice."""
    history = number_facts(history)
    end = find_end(history)
    start = max(fact.time for fact in history) + MINUTE
    expected = find_truth(history, end)
    states = set()
    for n, order in islice(enumerate(permutations(history)), 0, None, 1 if ALL_EXAMPLES else 7):
        world = play_in_order(list(_add_ticks_and_repeats(order, start, n)), end)
        assert read_truth(world.state) == expected
        states.add(get_outcome(world.state))
    assert len(states) == 1


def _add_ticks_and_repeats(order: Sequence[Fact], start: datetime, n: int) -> list[Fact | Tick]:
    """A fact every ten seconds, its tick after it; one of them, another each time, comes once more at a later place."""
    items: list[Fact | Tick] = []
    for place, fact in enumerate(order):
        at = start + 10 * place * SECOND
        items += [replace(fact, arrives=at), Tick(at + SECOND)]
        if place > n % len(order):
            items.append(replace(order[n % len(order)], arrives=at + 2 * SECOND))
    return items


def number_facts(history: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """The facts with ids, as a scenario gives them."""
    facts = sorted(history, key=lambda fact: fact.arrives)
    return Scenario("a history", 11, tuple(facts), ()).given  # type: ignore[return-value]


@pytest.mark.parametrize(
    "scenario", [each for each in ONE_POLICY if not (each.words or each.updates)], ids=lambda each: each.name
)
def test_every_scenario_ends_as_the_oracle_says(scenario: Scenario) -> None:
    """Not a second look at `also`: here every field of the state is compared, two weeks after the end."""
    world = World(policy=get_policy(scenario))
    scenario.play(world.put, world.find_next_instant)
    end = stockholm(scenario.when) + 14 * DAY
    world.put(Tick(end))
    refused = {reason.value for reason in Reason}
    facts = [item for item in scenario.given if isinstance(item, Fact)]
    recorded = [fact for fact, outcome in zip(facts, world.memory.inbox, strict=True) if outcome not in refused]
    assert read_truth(world.state) == find_truth(recorded, end, scenario.pauses)
    assert world.state.next_at is None


@examples(200)
@given(
    histories(),
    st.lists(close_times, max_size=8),
    st.lists(st.integers(0, 7), max_size=4),
    st.booleans(),
    st.one_of(st.none(), close_times),
)
def test_any_history_ends_as_the_oracle_says(
    facts: list[Fact], ticks: list[datetime], repeated: list[int], pauses: bool, edited_at: datetime | None
) -> None:
    """Any delays, any ticks in between, some facts told again; another version in force from any instant on."""
    repeats = [facts[n % len(facts)] for n in repeated]
    again = [replace(fact, arrives=fact.arrives + (n + 1) * HOUR) for n, fact in enumerate(repeats)]
    items: list[Any] = sorted([*facts, *again, *map(Tick, ticks)], key=lambda item: item.arrives)
    end = find_end(facts, [item.arrives for item in items])
    policy = make_pausing_policy() if pauses else POLICY
    world = play_in_order(items, end, policy, edited_at)
    assert read_truth(world.state) == find_truth(facts, end, pauses, edited_at)
    assert world.state.next_at is None
    at_once = [replace(fact, arrives=max([fact.time, *list_corrected_times(fact)])) for fact in facts]
    in_order = play_in_order(sorted(at_once, key=lambda fact: fact.arrives), end, policy, edited_at)
    assert get_outcome(world.state) == get_outcome(in_order.state)
    replayed = TicketSla.replay(None, world.memory.log[world.ticket])
    assert replayed == world.ticket_sla


@examples(100)
@given(histories())
def test_at_any_time_a_tick_leaves_what_the_oracle_says(facts: list[Fact]) -> None:
    """Not only at the end: after each tick the state is the truth about the facts known by then."""
    world = World(versions=make_versions(POLICY))
    arrived: list[Fact] = []
    for fact in sorted(facts, key=lambda fact: fact.arrives):
        world.put(fact)
        arrived.append(fact)
        at = fact.arrives + SECOND
        world.put(Tick(at))
        assert read_truth(world.state) == find_truth(arrived, at)


@examples(100)
@given(histories())
def test_a_clock_that_ticks_when_asked_leaves_nothing_undone(facts: list[Fact]) -> None:
    """The clock's own ticks are enough: another one, at any time, would find nothing but a warning passed over."""
    given = tuple(sorted(facts, key=lambda fact: fact.arrives))
    scenario = Scenario("any", 11, given, (), when="2025-12-24 12:00")
    world = World(versions=make_versions(POLICY))
    scenario.play(world.put, world.find_next_instant)
    end = stockholm(scenario.when)
    assert world.put(Tick(end)) == []
    assert read_truth(world.state) == find_truth(facts, end)


def test_there_are_scenarios_for_the_oracle() -> None:
    assert len(ONE_POLICY) > len(SCENARIOS) - 10
