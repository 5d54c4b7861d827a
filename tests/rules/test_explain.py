"""Explanations of tickets: what is counted adds up to the elapsed time, the deadline follows, nothing is left out."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli import explanation
from services.queries.explanation import explain_ticket
from services.queries.point_in_time import PointInTime
from services.queries.ticket_status import build_ticket_status
from sla.explain import ClockExplanation, Explanation, explain
from sla.judge import ZERO
from sla.log import Breached, FactRecorded
from sla.policy import Policy
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import (
    STOCKHOLM,
    Fact,
    Scenario,
    Tick,
    changed,
    closed,
    corrected,
    escalated,
    excluded,
    opened,
    paused,
    reopened,
    responded,
    resumed,
    stockholm,
)
from tests.support import explain_page
from tests.support.examples import examples
from tests.support.histories import close_times, histories
from tests.support.memory import POLICY, World, get_policy, make_pausing_policy, make_versions
from tests.support.objectives import ALL as ALL_OBJECTIVES
from tests.support.objectives import with_objectives
from tests.support.stores import new_store

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WITH_OBJECTIVES = ALL_OBJECTIVES


def explain_world(world: World, at: datetime) -> Explanation:
    return explain(world.ticket_sla.facts, world.events, world.memory.read_versions(), at)


def check(found: Explanation, at: datetime) -> None:
    """Check what must be so of every explanation."""
    for account in found.clocks:
        _check_segments(account, at)
        clock = account.clock
        assert sum((part.end - part.start for part in account.segments if part.counted), ZERO) == account.elapsed
        assert account.elapsed == clock.measure_elapsed(clock.find_end(at))
        late = sum((part.end - part.start for part in account.segments if part.counted and part.overdue), ZERO)
        if clock.response is not None and clock.excluded_by is None and clock.phase.unpromised_by is None:
            assert late == clock.overdue
        elif clock.broken_at is None:
            assert late == ZERO
        _check_steps(account)


def _check_segments(account: ClockExplanation, at: datetime) -> None:
    """One after the other, from the start of the clock to its end, or to the instant of the question."""
    clock = account.clock
    answered = clock.response and not (clock.excluded_by and clock.excluded_by.time <= clock.response.time)
    end = max(clock.started_at, clock.response.time if clock.response and answered else at)
    edges = [clock.started_at, *(part.end for part in account.segments)]
    assert [part.start for part in account.segments] == edges[:-1]
    assert edges[-1] == end
    assert all(part.start < part.end for part in account.segments)


def _check_steps(account: ClockExplanation) -> None:
    """Each deadline is what was left of the target, counted on by the calendar; the last one stands."""
    for before, step in pairwise(account.steps):
        assert before.at <= step.at and before.used <= step.used
    for step in account.steps:
        stretch = step.phase
        if stretch.running and stretch.since == step.at and stretch.broken_at is None:
            assert stretch.due_at == stretch.terms.hours.find_due(step.at, step.remaining)
    assert account.steps[-1].phase.due_at == account.clock.phase.due_at


def list_instants(world: World, end: datetime) -> list[datetime]:
    """Where things happen or are told of, and a little beside."""
    told = [event for event in world.events if isinstance(event, FactRecorded)]
    found = {at + beside for event in told for at in (event.time, event.at) for beside in (ZERO, timedelta(hours=5))}
    return sorted({*found, end, end + 14 * DAY})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_counted_adds_up_in_every_scenario(scenario: Scenario) -> None:
    world = World(policy=get_policy(scenario))
    scenario.play(world.put, world.find_next_instant)
    end = stockholm(scenario.when)
    for at in list_instants(world, end):
        check(explain_world(world, at), at)
    world.put(Tick(end))  # a late answer that waited for it
    if world.ticket_sla.version:
        standing = build_ticket_status(world.ticket_sla, world.memory.read_versions(), PointInTime(now=end))
        accounts = explain_world(world, end).clocks
        assert (standing.first.measure_elapsed(end) or ZERO) == (accounts[0].elapsed if accounts else ZERO)


@examples(200)
@given(histories(), close_times, st.booleans())
def test_what_is_counted_adds_up_in_any_history(facts: list[Fact], at: datetime, pauses: bool) -> None:
    world = World(versions=make_versions(make_pausing_policy() if pauses else POLICY))
    for fact in sorted(facts, key=lambda fact: fact.arrives):
        world.put(fact)
    for instant in (at, max(fact.arrives for fact in facts) + 14 * DAY):
        check(explain_world(world, instant), instant)


@examples(60)
@given(histories(), close_times)
def test_what_is_counted_adds_up_for_every_other_objective(facts: list[Fact], at: datetime) -> None:
    replies = [replace(fact, kind="customer_replied", data={}) if fact.kind == "escalated" else fact for fact in facts]
    world = World(policy=WITH_OBJECTIVES)
    for fact in sorted(replies, key=lambda fact: fact.arrives):
        world.put(fact)
    for instant in (at, max(fact.arrives for fact in facts) + 14 * DAY):
        check(explain_world(world, instant), instant)


def explain_facts(*facts: Fact, policy: Policy = POLICY, when: str) -> Explanation:
    """Explain these facts, and the ticks of a deadline timer until then."""
    world = World(policy=policy)
    Scenario("a story", 1, facts, (), when=when).play(world.put, world.find_next_instant)
    return explain_world(world, stockholm(when))


def list_segments(found: Explanation) -> list[tuple[str, str, str]]:
    """Until when, in Stockholm, of the first response; with a star what counts, with two what is overdue too."""
    return [
        (
            f"{part.end.astimezone(STOCKHOLM):%m-%d %H:%M}",
            part.reason,
            "*" * (part.counted + part.counted * part.overdue),
        )
        for part in found.clocks[0].segments
    ]


HOURS = "foundation hours, policy 2026-01"


def test_holidays_are_named_and_a_change_ends_a_segment() -> None:
    found = explain_facts(
        opened("foundation", "minor", "2026-04-02 17:30"),
        changed("serious", "2026-04-07 10:00"),
        responded("2026-04-07 15:05"),
        when="2026-04-08 12:00",
    )
    assert list_segments(found) == [
        ("04-02 18:00", HOURS, "*"),
        ("04-03 00:00", "outside support hours", ""),
        ("04-04 00:00", "Good Friday", ""),
        ("04-05 00:00", "outside support hours", ""),
        ("04-06 00:00", "Easter Sunday", ""),
        ("04-07 00:00", "Easter Monday", ""),
        ("04-07 09:00", "outside support hours", ""),
        ("04-07 10:00", HOURS, "*"),
        ("04-07 15:05", HOURS, "*"),
    ]
    assert [(step.cause, step.phase.target, step.used, step.remaining) for step in found.clocks[0].steps] == [
        ("opened", 24 * HOUR, 0 * HOUR, 24 * HOUR),
        ("priority_changed", 8 * HOUR, 1.5 * HOUR, 6.5 * HOUR),
    ]


def test_closed_paused_and_excluded_time_says_so() -> None:
    found = explain_facts(
        opened("foundation", "serious", "2025-11-03 09:00"),
        paused("2025-11-03 10:00"),
        resumed("2025-11-03 12:00"),
        closed("2025-11-03 13:00"),
        reopened("2025-11-03 15:00"),
        excluded("basic_training", "2025-11-03 16:00"),
        policy=make_pausing_policy(),
        when="2025-11-03 20:00",
    )
    assert list_segments(found) == [
        ("11-03 10:00", HOURS, "*"),
        ("11-03 12:00", "paused", ""),
        ("11-03 13:00", HOURS, "*"),
        ("11-03 15:00", "closed", ""),
        ("11-03 16:00", HOURS, "*"),
        ("11-03 20:00", "excluded: basic_training", ""),
    ]
    assert [step.cause for step in found.clocks[0].steps] == ["opened", "paused", "resumed", "closed", "reopened"]
    assert found.clocks[0].elapsed == 3 * HOUR


def test_a_closing_that_fulfils_a_promise_is_no_answer_and_stops_nothing() -> None:
    found = explain_facts(
        opened("foundation", "critical", "2025-11-03 09:00"),
        responded("2025-11-03 10:00"),
        closed("2025-11-03 12:00"),
        policy=WITH_OBJECTIVES,
        when="2025-11-03 20:00",
    )
    clocks = {clock.objective: clock for clock in found.clocks}
    ended_by = {name: clock.ended_by.data.type for name, clock in clocks.items() if clock.ended_by}
    assert (ended_by["first_response"], ended_by["resolution"]) == ("ticket.responded", "ticket.closed")
    assert [step.cause for step in clocks["resolution"].steps] == ["opened"]


def test_a_ticket_closed_as_it_was_opened_has_a_deadline_all_the_same() -> None:
    found = explain_facts(
        opened("foundation", "critical", "2025-11-03 09:00"),
        closed("2025-11-03 09:00"),
        policy=with_objectives("resolution"),
        when="2025-11-03 20:00",
    )
    check(found, stockholm("2025-11-03 20:00"))
    assert found.clocks[1].met


def test_the_text_has_a_line_for_each_promise_and_names_that_of_each_decision(tmp_path: Path) -> None:
    engine = explain_page.LocalEngine(new_store(tmp_path / "sla.db"), with_objectives("resolution"))
    facts = opened("foundation", "critical", "2025-11-03 09:00"), responded("2025-11-03 10:00")
    engine.play("T-1", Scenario("late", 1, facts, (), when="2025-11-06 09:00"))
    found = explain_ticket(engine.store, "T-1", PointInTime(now=stockholm("2025-11-06 09:00")))
    assert found is not None
    text = explain_page.capture_stdout(lambda: explanation.print_explanation(found))
    assert re.search(
        r"^first response +met, due Mon 2025-11-03 13:00:00 CET, 1h 00m 00s of 4h 00m 00s used$", text, re.M
    )
    assert re.search(r"^resolution +breached, due Tue 2025-11-04 16:00:00 CET, 27h 00m 00s of 16h", text, re.M)
    assert re.search(r" first response +fulfilled +responded ", text)
    assert re.search(r" resolution +breached +deadline passed ", text)
    engine.store.close()


def test_time_after_the_deadline_is_overdue_until_the_answer() -> None:
    found = explain_facts(
        opened("foundation", "critical", "2025-11-03 14:30"),
        responded("2025-11-04 10:00"),
        when="2025-11-05 12:00",
    )
    assert list_segments(found) == [
        ("11-03 18:00", HOURS, "*"),
        ("11-04 09:00", "outside support hours", ""),
        ("11-04 09:30", HOURS, "*"),
        ("11-04 10:00", HOURS, "**"),
    ]


def test_late_news_is_out_of_order_and_the_breach_that_it_withdraws_is_still_there() -> None:
    found = explain_facts(
        opened("foundation", "critical", "2025-11-03 10:00"),
        responded("2025-11-03 13:00", arrives="2025-11-04 10:00"),
        when="2025-11-05 12:00",
    )
    assert [learned.out_of_order for learned in found.facts] == [False, True]
    assert [learned.original.at for learned in found.facts] == [
        stockholm("2025-11-03 10:00"),
        stockholm("2025-11-04 10:00"),
    ]
    (breach,) = [decided for decided in found.decisions if isinstance(decided.decision, Breached)]
    assert breach.retracted_at == stockholm("2025-11-04 10:00")


def test_a_corrected_fact_stands_as_it_is_right_and_says_what_it_was() -> None:
    found = explain_facts(
        opened("foundation", "critical", "2025-11-03 10:00"),
        corrected("opened-1", "2025-11-03 12:00", priority="minor"),
        when="2025-11-05 12:00",
    )
    opening = found.facts[0]
    assert opening.original.data == {"service_level": "foundation", "priority": "critical"}
    assert opening.fact.data.model_dump(exclude_none=True) == {"service_level": "foundation", "priority": "minor"}
    assert opening.fact.corrected_by is not None and opening.fact.corrected_by.endswith("corrected-1")


def test_a_ticket_that_nobody_has_opened_has_facts_and_no_clock() -> None:
    found = explain_facts(responded("2025-11-03 10:00"), when="2025-11-05 12:00")
    assert len(found.facts) == 1 and found.clocks == ()


def test_a_part_of_a_second_is_added_up_in_the_text_too() -> None:
    assert [explanation.format_exactly(HOUR + timedelta(microseconds=n)) for n in (0, 1, 500_000)] == [
        "1h 00m 00s", "1h 00m 00.000001s", "1h 00m 00.5s",
    ]  # fmt: skip


def test_what_a_publisher_writes_has_no_power_over_the_terminal(tmp_path: Path) -> None:
    engine = explain_page.LocalEngine(new_store(tmp_path / "sla.db"))
    escalation = escalated("2025-11-03 11:00", reason="\x1b[31mred\nT-2 met", id="\x1b]0;title\x07")
    engine.play("T-1", Scenario("hostile", 1, (opened("foundation", "serious", "2025-11-03 10:00"), escalation), ()))
    found = explain_ticket(engine.store, "T-1", PointInTime())
    assert found is not None
    text = explain_page.capture_stdout(lambda: explanation.print_explanation(found))
    assert "\\x1b]0;title\\x07" in text and "\x1b" not in text and "\x07" not in text
    assert "[31mredT-2 met" in text, "a label is kept without what commands a terminal"
    engine.store.close()


def test_the_page_has_what_the_commands_print() -> None:
    assert explain_page.PAGE.read_text(encoding="utf-8") == explain_page.build_page(), "run `make schemas`"
