"""The story of a ticket: what is counted adds up to the elapsed time, the deadline follows, and nothing is left out."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.past import When
from services.reading import as_it_stands
from sla.explain import Account, Story, explain
from sla.judge import ZERO
from sla.log import FactRecorded
from tests.memory import POLICY, World, in_turn, pausing_policy, policy_of
from tests.scenarios import (
    SCENARIOS,
    Fact,
    Scenario,
    Tick,
    stockholm,
)
from tests.test_judge_order import close_times, histories

DAY = timedelta(days=1)
OF_OLD = datetime.fromisoformat("2000-01-01T00:00:00Z")


def story(world: World, at: datetime) -> Story:
    return explain(world.ticket_sla.facts, world.events, world.memory.versions(), at)


def check(found: Story, at: datetime) -> None:
    """What must be so of every story, whatever it tells."""
    for account in found.accounts:
        _check_parts(account, at)
        clock = account.clock
        assert sum((part.end - part.start for part in account.parts if part.counted), ZERO) == account.elapsed
        assert account.elapsed == clock.elapsed(clock.counts_until(at))
        late = sum((part.end - part.start for part in account.parts if part.counted and part.overdue), ZERO)
        if clock.response is not None and clock.excluded_by is None:
            assert late == clock.overdue
        elif clock.broken_at is None:
            assert late == ZERO
        _check_steps(account)


def _check_parts(account: Account, at: datetime) -> None:
    """One after the other, from the start of the clock to its end, or to the instant of the question."""
    clock = account.clock
    answered = clock.response and not (clock.excluded_by and clock.excluded_by.time <= clock.response.time)
    end = max(clock.started_at, clock.response.time if clock.response and answered else at)
    edges = [clock.started_at, *(part.end for part in account.parts)]
    assert [part.start for part in account.parts] == edges[:-1]
    assert edges[-1] == end
    assert all(part.start < part.end for part in account.parts)


def _check_steps(account: Account) -> None:
    """Each deadline is what was left of the target, counted on by the calendar; the last one stands."""
    for before, step in pairwise(account.steps):
        assert before.at <= step.at and before.used <= step.used
    for step in account.steps:
        stretch = step.stretch
        if stretch.running and stretch.since == step.at and stretch.broken_at is None:
            assert stretch.due_at == stretch.level.hours.due(step.at, step.remaining)
    if account.clock.excluded_by is None:
        assert account.steps[-1].stretch.due_at == account.clock.stretch.due_at


def instants(world: World, end: datetime) -> list[datetime]:
    """Where things happen or are told of, and a little beside."""
    told = [event for event in world.events if isinstance(event, FactRecorded)]
    found = {at + beside for event in told for at in (event.time, event.at) for beside in (ZERO, timedelta(hours=5))}
    return sorted({*found, end, end + 14 * DAY})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_counted_adds_up_in_every_scenario(scenario: Scenario) -> None:
    world = World(policy=policy_of(scenario))
    scenario.play(world.put, world.next_at)
    end = stockholm(scenario.when)
    for at in instants(world, end):
        check(story(world, at), at)
    world.put(Tick(end))  # a late answer that waited for it
    if world.ticket_sla.version:
        standing = as_it_stands(world.ticket_sla, world.memory.versions(), When(None, None, end))
        accounts = story(world, end).accounts
        assert standing.elapsed(end) == (accounts[0].elapsed if accounts else None)


@settings(max_examples=200, deadline=None)
@given(histories(), close_times, st.booleans())
def test_what_is_counted_adds_up_in_any_history(facts: list[Fact], at: datetime, pauses: bool) -> None:
    world = World(versions=in_turn(pausing_policy() if pauses else POLICY))
    for fact in sorted(facts, key=lambda fact: fact.arrives):
        world.put(fact)
    for instant in (at, max(fact.arrives for fact in facts) + 14 * DAY):
        check(story(world, instant), instant)
