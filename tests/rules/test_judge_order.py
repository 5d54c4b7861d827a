"""Whatever the order of arrival, a history ends in the same promise: the one that an oracle reads from the rules."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.cloudevents import Reason
from sla.log import State
from sla.policy import Policy
from sla.ticket import TicketSla
from tests.rules.test_judge import ONE_POLICY, check_ids, check_step, follow
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
from tests.support.judge_oracle import Truth, truth
from tests.support.memory import POLICY, World, in_turn, pausing_policy, policy_of

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
AHEAD = timedelta(minutes=5)

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
        excluded("training", "2025-11-03 10:30", id="a"),
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


def outcome(state: State) -> State:
    """The state apart from what depends on when the engine was told: which warnings were sent."""
    return replaced(state, warned_percent=0, next_at=None)


def replaced(state: State, **changes: object) -> State:
    return State(**{name: getattr(state, name) for name in State.__struct_fields__} | changes)


def as_truth(state: State) -> Truth:
    said = {name: getattr(state, name) for name in Truth.__dataclass_fields__}
    if state.opening_id is not None:
        said["opening_id"] = state.opening_id.rpartition("/")[2]
    return Truth(**said)


def end_of(history: Sequence[Fact], arrivals: Sequence[datetime] = ()) -> datetime:
    """Long after every deadline."""
    return max([fact.time for fact in history] + list(arrivals)) + 14 * DAY


def told(
    items: Sequence[Fact | Tick], end: datetime, policy: Policy = POLICY, edited_at: datetime | None = None
) -> World:
    """The world after these messages, a tick after each, and a last one at the end; checks each step on the way."""
    world, standing = World(versions=in_turn(policy, edited_at)), set[str]()

    def put(item: Fact | Tick) -> None:
        nonlocal standing
        new = world.put(item)
        check_step(isinstance(item, Fact), new)
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
    """All permutations, a tick after each fact, some facts told twice."""
    history = numbered(history)
    end = end_of(history)
    start = max(fact.time for fact in history) + MINUTE
    expected = truth(history, end)
    states = set()
    for n, order in enumerate(permutations(history)):
        world = told(list(_with_ticks_and_repeats(order, start, n)), end)
        assert as_truth(world.state) == expected
        states.add(outcome(world.state))
    assert len(states) == 1


def _with_ticks_and_repeats(order: Sequence[Fact], start: datetime, n: int) -> list[Fact | Tick]:
    """A fact every ten seconds, its tick after it; one of them, another each time, comes once more at a later place."""
    items: list[Fact | Tick] = []
    for place, fact in enumerate(order):
        at = start + 10 * place * SECOND
        items += [replace(fact, arrives=at), Tick(at + SECOND)]
        if place > n % len(order):
            items.append(replace(order[n % len(order)], arrives=at + 2 * SECOND))
    return items


def numbered(history: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """The facts with ids, as a scenario gives them."""
    facts = sorted(history, key=lambda fact: fact.arrives)
    return Scenario("a history", 11, tuple(facts), ()).given  # type: ignore[return-value]


@pytest.mark.parametrize("scenario", ONE_POLICY, ids=lambda scenario: scenario.name)
def test_every_scenario_ends_as_the_oracle_says(scenario: Scenario) -> None:
    """Not a second look at `also`: here every field of the state is compared, two weeks after the end."""
    world = World(policy=policy_of(scenario))
    scenario.play(world.put, world.next_at)
    end = stockholm(scenario.when) + 14 * DAY
    world.put(Tick(end))
    refused = {reason.value for reason in Reason}
    facts = [item for item in scenario.given if isinstance(item, Fact)]
    recorded = [fact for fact, outcome in zip(facts, world.memory.inbox, strict=True) if outcome not in refused]
    assert as_truth(world.state) == truth(recorded, end, scenario.pauses)
    assert world.state.next_at is None


# Times lie on a coarse grid over a weekend, a few of them a microsecond beside it: ties and edges are common.
BASE = stockholm("2025-11-07 08:00")
times = st.builds(
    lambda halves, micros: BASE + halves * HOUR / 2 + timedelta(microseconds=micros),
    st.integers(0, 2 * 24 * 4),
    st.sampled_from([0, 0, 0, 0, 1, -1]),
)
close_times = st.one_of(times, st.sampled_from([BASE + n * HOUR for n in (1, 2, 3, 5, 9, 10, 10.5)]))
levels = st.sampled_from(["foundation", "professional", "enterprise"])
priorities = st.sampled_from(["critical", "serious", "minor"])
reasons = st.sampled_from(["third_party", "training"])
ids = st.sampled_from([f"f{n}" for n in range(8)])
corrections = st.fixed_dictionaries(
    {"corrects": ids},
    optional={
        "priority": priorities,
        "service_level": levels,
        "by": st.sampled_from(["agent", "automation"]),
        "reason": st.one_of(reasons, st.just("too busy")),
        "time": close_times.map(datetime.isoformat),
    },
)
kinds_of_data = st.one_of(
    st.tuples(st.just("opened"), st.fixed_dictionaries({"service_level": levels, "priority": priorities})),
    st.tuples(st.just("priority_changed"), st.fixed_dictionaries({"priority": priorities})),
    st.tuples(st.just("service_level_changed"), st.fixed_dictionaries({"service_level": levels})),
    st.tuples(st.just("responded"), st.sampled_from([{}, {}, {"by": "agent"}, {"by": "automation"}])),
    st.tuples(st.sampled_from(["escalated", "closed", "reopened", "paused", "resumed"]), st.just({})),
    st.tuples(st.sampled_from(["closed", "reopened"]), st.just({})),
    st.tuples(st.sampled_from(["excluded", "exclusion_revoked"]), st.fixed_dictionaries({"reason": reasons})),
    st.tuples(st.just("corrected"), corrections),
    st.tuples(st.just("policy_changed"), st.sampled_from([{"policy_version": v} for v in ("2026-01", "edited")])),
)
delays = st.one_of(
    st.just(timedelta(0)),
    st.just(-AHEAD),
    st.integers(-300, 0).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, 48).map(lambda hours: hours * HOUR),
)
anybody = st.sampled_from(["/helpdesk", "/crm"])
sequences = st.sampled_from([None, None, "1", "10", "9"])


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Facts that arrive up to five minutes early and up to two days late; the first is an opening, most often."""
    first = ("opened", {"service_level": draw(levels), "priority": draw(priorities)})
    said = [first, *draw(st.lists(kinds_of_data, min_size=1, max_size=7))]
    facts = []
    for n, (kind, data) in enumerate(said):
        time = draw(close_times if n else st.sampled_from([BASE + HOUR, BASE + 2 * HOUR, BASE + 30 * HOUR]))
        arrives = time + draw(delays)
        fact = Fact(kind, data, time, arrives, f"f{n}", draw(anybody), draw(sequences))
        facts.append(replace(fact, arrives=max([arrives, *said_time(fact)])))
    return facts


def said_time(fact: Fact) -> list[datetime]:
    """The time that a correction gives."""
    return [datetime.fromisoformat(fact.data["time"])] if "time" in fact.data else []


@settings(max_examples=200, deadline=None)
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
    items = sorted([*facts, *again, *map(Tick, ticks)], key=lambda item: item.arrives)
    end = end_of(facts, [item.arrives for item in items])
    policy = pausing_policy() if pauses else POLICY
    world = told(items, end, policy, edited_at)
    assert as_truth(world.state) == truth(facts, end, pauses, edited_at)
    assert world.state.next_at is None
    at_once = [replace(fact, arrives=max([fact.time, *said_time(fact)])) for fact in facts]
    in_order = told(sorted(at_once, key=lambda fact: fact.arrives), end, policy, edited_at)
    assert outcome(world.state) == outcome(in_order.state)
    replayed = TicketSla.replay(None, world.memory.log[world.ticket])
    assert replayed == world.ticket_sla


@settings(max_examples=100, deadline=None)
@given(histories())
def test_at_any_time_a_tick_leaves_what_the_oracle_says(facts: list[Fact]) -> None:
    """Not only at the end: after each tick the state is the truth about the facts known by then."""
    world = World(versions=in_turn(POLICY))
    arrived: list[Fact] = []
    for fact in sorted(facts, key=lambda fact: fact.arrives):
        world.put(fact)
        arrived.append(fact)
        at = fact.arrives + SECOND
        world.put(Tick(at))
        assert as_truth(world.state) == truth(arrived, at)


@settings(max_examples=100, deadline=None)
@given(histories())
def test_a_clock_that_ticks_when_asked_leaves_nothing_undone(facts: list[Fact]) -> None:
    """The clock's own ticks are enough: another one, at any time, would find nothing but a warning passed over."""
    given = tuple(sorted(facts, key=lambda fact: fact.arrives))
    scenario = Scenario("any", 11, given, (), when="2025-12-24 12:00")
    world = World(versions=in_turn(POLICY))
    scenario.play(world.put, world.next_at)
    end = stockholm(scenario.when)
    assert world.put(Tick(end)) == []
    assert as_truth(world.state) == truth(facts, end)


def test_there_are_scenarios_for_the_oracle() -> None:
    assert len(ONE_POLICY) > len(SCENARIOS) - 10
