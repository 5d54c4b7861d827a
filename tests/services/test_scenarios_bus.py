"""The scenarios of test_judge.py over the real bus and store: their facts are past by now, so the end is the same."""

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from services.store.interface import Store
from sla.log import State
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import BEHIND, Edited, Fact, Scenario, Tick, stockholm
from tests.support.bus import Fact as Sent
from tests.support.bus import Heard, connected, now, publish, settled, stored
from tests.support.commands import Engine
from tests.support.memory import World

pytestmark = [pytest.mark.stores, pytest.mark.xdist_group("scenarios")]

SAME = (
    "stage", "service_level", "priority", "policy_version", "opening_id", "started_at", "due_at", "target",
    "breached_at", "responded_at", "met", "overdue", "escalation_level", "next_at",
)  # fmt: skip


EVERY = {f"SCENARIO-{number}": scenario for number, scenario in enumerate(SCENARIOS)}


@cache
def in_memory(ticket: str) -> World:
    """The facts arrive when the scenario says it, and the clock runs on until today."""
    world, scenario = World(ticket), EVERY[ticket]
    scenario.play(world.put, world.find_next_instant)
    today, time = now(), stockholm(scenario.when)
    while (due := world.find_next_instant()) and due < today:
        time = max(due, time) + BEHIND
        world.put(Tick(time))
    return world


def chosen() -> dict[str, Scenario]:
    """By ticket: all that are of one policy, and whose facts count whenever they arrive."""
    return {
        ticket: scenario
        for ticket, scenario in EVERY.items()
        if scenario.is_shipped
        and not any(isinstance(item, Edited) for item in scenario.given)
        and "time_in_future" not in in_memory(ticket).memory.inbox
    }


CHOSEN = chosen()


class Seen(NamedTuple):
    """What became of the scenarios over the bus."""

    store: Store
    heard: dict[str, list[Heard]]


@pytest.fixture(scope="module")
def seen(engine: Engine) -> Iterator[Seen]:
    heard = asyncio.run(run_all(engine))
    store = engine.store.open()
    yield Seen(store, heard)
    store.close()


async def run_all(engine: Engine) -> dict[str, list[Heard]]:
    """Publishes the facts of all scenarios in the order in which they arrive; what was said of each ticket."""
    heard: dict[str, list[Heard]] = {ticket: [] for ticket in CHOSEN}
    async with connected(engine.nats_url) as nc:
        await asyncio.gather(*(publish(nc, *messages(ticket, scenario)) for ticket, scenario in CHOSEN.items()))
        await settled(nc, engine.store)
        for each in await stored(nc):
            if each.ticket in heard:
                heard[each.ticket].append(each)
    return heard


def messages(ticket: str, scenario: Scenario) -> list[Sent]:
    sent = (item.message(ticket) for item in scenario.given if isinstance(item, Fact))
    return [Sent(subject, body, headers) for subject, headers, body in sent]


def test_nearly_all_scenarios_run_over_the_bus() -> None:
    assert len(CHOSEN) >= 0.9 * sum(scenario.is_shipped for scenario in SCENARIOS)


@pytest.mark.parametrize("ticket", CHOSEN, ids=[each.name for each in CHOSEN.values()])
def test_over_the_bus_it_ends_as_in_memory(seen: Seen, ticket: str) -> None:
    found, expected = seen.store.load_ticket(ticket), in_memory(ticket)
    state = State() if found is None else found.state
    assert shown(state) == shown(expected.state)
    check_said(seen.heard[ticket], state)


def shown(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in SAME}


def check_said(heard: list[Heard], state: State) -> None:
    """Whoever only listened believes the same."""
    standing: list[Heard] = []
    answer: Heard | None = None
    for each in heard:
        match each.kind:
            case "breached":
                assert standing == [], "a breach beside one that stands"
                standing.append(each)
            case "breach_retracted":
                assert standing.pop().event["id"] == each.data["breach_id"]
            case "fulfilled":
                answer = each
            case "cancelled" | "target_changed":  # whatever it had come to, it runs again or has ended otherwise
                answer = None
    assert [each.data["breached_at"] for each in standing] == ([text(state.breached_at)] if state.breached_at else [])
    assert ("applied" in [each.kind for each in heard]) == (state.stage != "pending")
    if answer is None:
        assert state.stage != "fulfilled"
    else:
        assert answer.data["met"] == state.met and answer.data["responded_at"] == text(state.responded_at)
        assert answer.data["due_at"] == text(state.due_at)
        assert state.overdue is not None and answer.data["overdue_seconds"] == state.overdue.total_seconds()


def text(at: Any) -> str:
    return str(at.isoformat()).replace("+00:00", "Z")
