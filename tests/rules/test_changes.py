"""Changes of a ticket whatever state it is in, and several of them at one instant: each counts for what it changes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sla.log import State, TargetChanged
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import AFTER_ALL, BEFORE_ALL, Version, Versions
from tests.scenarios.scenario import (
    Fact,
    Tick,
    changed,
    closed,
    levelled,
    moved,
    opened,
    paused,
    reopened,
    resumed,
    stockholm,
)
from tests.support.examples import examples
from tests.support.histories import find_end, histories
from tests.support.memory import POLICY, World, make_pausing_policy
from tests.support.objectives import ALL, RULES

HOUR = timedelta(hours=1)


def make_versions(first: Policy, second: Policy) -> Versions:
    """Two versions, the second one named `edited`; a ticket is pinned to the first, and may be moved."""
    later = Policy.from_resolved(second.to_resolved() | {"version": "edited"})
    return Versions([*Versions.only(first), Version(later, BEFORE_ALL, AFTER_ALL, material=True)])


def put(versions: Versions, facts: Sequence[Fact]) -> World:
    world = World(versions=versions)
    for fact in facts:
        world.put(fact)
    return world


def permute(*facts: Fact) -> list[tuple[Fact, ...]]:
    """The facts in each order in which an instant may have them: by their ids, which are given in turn."""
    return [tuple(replace(fact, id=f"f{n}") for n, fact in enumerate(order)) for order in permutations(facts)]


def find_id(kind: str, facts: Sequence[Fact]) -> str:
    return next(f"T-1/{fact.id}" for fact in facts if fact.kind == kind)


def list_alive(world: World) -> dict[tuple[str, int], State]:
    """The promises whose clock has started, as it turned out."""
    return {key: state for key, state in world.states.items() if state.reason != "corrected"}


def find_last_change(world: World, objective: str = "first_response") -> TargetChanged:
    found = [event for event in world.events if isinstance(event, TargetChanged) and event.objective == objective]
    return found[-1]


# ---- moved to a version that lets the clock run


def test_a_paused_ticket_that_is_moved_to_a_version_that_does_not_pause_runs_on_with_what_is_left() -> None:
    """Foundation, critical: 4 hours, one of them used before the pause."""
    facts = [
        opened("foundation", "critical", "2025-11-03 10:00", id="o"),
        paused("2025-11-03 11:00", id="p"),
        moved("edited", "2025-11-03 12:00", id="m"),
    ]
    world = put(make_versions(make_pausing_policy(), POLICY), facts)
    assert world.memory.inbox == ["recorded"] * 3
    assert (world.state.stage, world.state.policy_version) == ("running", "edited")
    assert world.state.due_at == stockholm("2025-11-03 15:00")
    event = find_last_change(world)
    assert (event.cause, event.cause_id, event.elapsed) == ("policy_changed", "T-1/m", HOUR)
    assert event.old_due_at == stockholm("2025-11-03 14:00")


@pytest.mark.parametrize(
    "at_once",
    permute(moved("edited", "2025-11-03 12:00"), changed("serious", "2025-11-03 12:00")),
)
def test_the_move_is_what_lets_it_run_whatever_else_changes_then(at_once: Sequence[Fact]) -> None:
    """Foundation, serious: 8 hours, one of them used."""
    facts = [opened("foundation", "critical", "2025-11-03 10:00", id="o"), paused("2025-11-03 11:00", id="p"), *at_once]
    world = put(make_versions(make_pausing_policy(), POLICY), facts)
    assert (world.state.due_at, world.state.target) == (stockholm("2025-11-04 10:00"), 8 * HOUR)
    assert (find_last_change(world).cause, find_last_change(world).cause_id) == (
        "policy_changed",
        find_id("policy_changed", at_once),
    )


def test_a_resolution_runs_on_too_if_the_other_version_does_not_pause_it() -> None:
    """Foundation, critical: 16 hours, one of them used before the pause."""
    resolved = ALL.to_resolved()
    resolved["objectives"] = resolved["objectives"] | {"resolution": RULES["resolution"] | {"pauses": False}}
    facts = [
        opened("foundation", "critical", "2025-11-03 10:00", id="o"),
        paused("2025-11-03 11:00", id="p"),
        moved("edited", "2025-11-03 12:00", id="m"),
    ]
    world = put(make_versions(ALL, Policy.from_resolved(resolved)), facts)
    found = world.states["resolution", 1]
    assert (found.stage, found.due_at) == ("running", stockholm("2025-11-04 18:00"))
    assert find_last_change(world, "resolution").cause == "policy_changed"


def test_a_ticket_on_hold_that_nothing_paused_stops_when_it_is_moved_to_a_version_that_pauses() -> None:
    facts = [
        opened("foundation", "critical", "2025-11-03 10:00", id="o"),
        paused("2025-11-03 11:00", id="p"),
        moved("edited", "2025-11-03 12:00", id="m"),
        resumed("2025-11-03 16:00", id="r"),
    ]
    world = put(make_versions(POLICY, make_pausing_policy()), facts)
    assert (world.state.stage, world.state.due_at) == ("running", stockholm("2025-11-03 18:00"))
    assert find_last_change(world).cause == "resumed"


# ---- several at one instant


@pytest.mark.parametrize("at_once", permute(reopened("2025-11-03 15:00"), resumed("2025-11-03 15:00")))
def test_a_closed_ticket_that_nothing_paused_runs_because_it_is_reopened(at_once: Sequence[Fact]) -> None:
    """The one that comes last in the order of the facts arrives first."""
    facts = [
        opened("foundation", "critical", "2025-11-03 10:00", id="o"),
        closed("2025-11-03 11:00", id="c"),
        *reversed(at_once),
    ]
    world = put(Versions.only(make_pausing_policy()), facts)
    assert world.state.due_at == stockholm("2025-11-03 18:00")
    assert (find_last_change(world).cause, find_last_change(world).cause_id) == (
        "reopened",
        find_id("reopened", at_once),
    )


@pytest.mark.parametrize(
    ("other", "due_at", "stage"),
    [
        (changed("critical", "2025-11-05 12:00"), "2025-11-07 10:00", "running"),
        (levelled("enterprise", "2025-11-05 12:00"), "2025-11-06 04:00", "running"),
        (moved("edited", "2025-11-05 12:00"), "2025-11-10 17:00", "running"),
        (paused("2025-11-05 12:00"), "2025-11-10 17:00", "paused"),
        (resumed("2025-11-05 12:00"), "2025-11-10 17:00", "running"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fact) else "",
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_ticket_reopened_and_changed_at_once_begins_another_cycle_of_a_repeating_resolution(
    other: Fact, due_at: str, stage: str, turned: bool
) -> None:
    """Foundation, serious: 32 hours, critical 16; Enterprise, serious: 16 hours, day and night."""
    resolved = ALL.to_resolved()
    resolved["objectives"] = {"each_resolution": RULES["each_resolution"] | {"pauses": True}}
    policy = Policy.from_resolved(resolved)
    at_once = permute(reopened("2025-11-05 12:00"), other)[turned]
    facts = [opened("foundation", "serious", "2025-11-03 09:00", id="o"), closed("2025-11-03 12:00", id="c"), *at_once]
    world = put(make_versions(policy, policy), facts)
    assert world.memory.inbox == ["recorded"] * 4
    second = world.states["each_resolution", 2]
    assert (second.started_at, second.opening_id) == (stockholm("2025-11-05 12:00"), find_id("reopened", at_once))
    assert (second.due_at, second.stage) == (stockholm(due_at), stage)
    assert world.states["each_resolution", 1].met is True


@pytest.mark.parametrize("at_once", permute(reopened("2025-11-03 15:00"), closed("2025-11-03 15:00")))
def test_a_ticket_reopened_and_closed_at_once_is_what_the_last_of_the_two_says(at_once: Sequence[Fact]) -> None:
    facts = [opened("foundation", "serious", "2025-11-03 09:00", id="o"), closed("2025-11-03 12:00", id="c"), *at_once]
    world = put(Versions.only(ALL), facts)
    cycles = {key[1] for key in list_alive(world) if key[0] == "each_resolution"}
    assert cycles == ({1, 2} if at_once[-1].kind == "reopened" else {1})


# ---- any history


@examples(150)
@given(histories(), st.booleans(), st.booleans(), st.sampled_from([1, 6, 24]))
def test_no_history_stops_the_engine_and_its_order_of_arrival_does_not_matter(
    facts: list[Fact], first_pauses: bool, second_pauses: bool, hours: int
) -> None:
    """Times lie on a grid of hours, so that many changes are at one instant; versions pause one clock or the other."""
    replies = [replace(fact, kind="customer_replied") if fact.kind == "escalated" else fact for fact in facts]
    grid = [replace(fact, time=_round(fact, hours)) for fact in replies]
    grid = [replace(fact, arrives=max(fact.arrives, fact.time)) for fact in grid]
    versions = make_versions(_make_policy(first_pauses), _make_policy(second_pauses))
    end = Tick(find_end(grid, [fact.arrives for fact in grid]))
    by_arrival = put(versions, sorted(grid, key=lambda fact: fact.arrives))
    by_time = put(versions, [replace(fact, arrives=end.arrives) for fact in sorted(grid, key=lambda fact: fact.time)])
    ends = []
    for world in (by_arrival, by_time):
        world.put(end)
        assert world.put(end) == []
        assert set(world.memory.inbox) == {"recorded"}
        assert TicketSla.replay(None, world.memory.log[world.ticket]) == world.ticket_sla
        ends.append({key: _get_outcome(state) for key, state in list_alive(world).items()})
    assert ends[0] == ends[1]


def _round(fact: Fact, hours: int) -> datetime:
    return fact.time.replace(hour=fact.time.hour - fact.time.hour % hours, minute=0, second=0, microsecond=0)


def _make_policy(pauses: bool) -> Policy:
    """All objectives; the first response pauses, or the others do."""
    resolved = ALL.to_resolved()
    rules = {name: rule | {"pauses": not pauses} for name, rule in RULES.items()}
    first = {"first_response": {"pauses": True}} if pauses else {}
    return Policy.from_resolved(resolved | {"version": "2026-01", "objectives": rules | first})


def _get_outcome(state: State) -> State:
    """The state apart from what depends on when the engine learned of the facts: which warnings were sent."""
    return State(**{name: getattr(state, name) for name in State.__struct_fields__} | {"warned": (), "next_at": None})
