"""Another time: what was so then by what we know now, and what we believed then."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given

from services.queries.explanation import explain_ticket
from services.queries.point_in_time import NothingKnownError, PointInTime
from services.queries.report import build_report
from services.queries.ticket_status import list_open_promises, read_ticket_status
from sla.log import Breached, State
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import Fact, Given, Scenario, opened, responded, stockholm
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.explain_page import LocalEngine
from tests.support.histories import close_times, histories
from tests.support.judge_checks import read_truth
from tests.support.judge_oracle import find_truth
from tests.support.memory import POLICY, World, make_versions
from tests.support.objectives import ALL as ALL_OBJECTIVES
from tests.support.stores import new_store

SECOND = timedelta(seconds=1)
FAR = stockholm("2026-01-15 12:00")
MONDAY, BEFORE, AFTER = (stockholm(f"2025-11-{text}") for text in ("03 12:00", "04 09:00", "04 11:00"))
EARLIER = stockholm("2025-11-03 09:00")


@examples(150)
@given(histories(), close_times)
def test_as_of_is_what_the_oracle_says_of_all_that_had_happened(facts: list[Fact], at: datetime) -> None:
    world = World(versions=make_versions(POLICY))
    for fact in sorted(facts, key=lambda fact: fact.arrives):
        world.put(fact)
    log, when = world.memory.log[world.ticket], PointInTime(at, None, FAR)
    expected = find_truth(facts, at)
    if world.ticket_sla.facts.every[0].time > at:
        with pytest.raises(NothingKnownError):
            when.replay_ticket(log, world.memory.read_versions())
    else:
        assert read_truth(when.replay_ticket(log, world.memory.read_versions()).state) == expected


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_known_at_is_what_was_decided_by_then(scenario: Scenario) -> None:
    """After each message of every scenario; and both together is what was known, judged for that moment."""
    world = World()
    moments: list[tuple[datetime, State]] = []
    scenario.play(lambda item: moments.append((item.arrives, _apply_and_read(world, item))), world.find_next_instant)
    log = world.memory.log.get(world.ticket, [])
    for n, (at, decided) in enumerate(moments):
        when = PointInTime(None, at, FAR)
        if (known := when.select_known(log)) and (n + 1 == len(moments) or moments[n + 1][0] > at):
            assert when.replay_ticket(known, world.memory.read_versions()).state == decided
    assert PointInTime(None, FAR, FAR).select_known(log) == log


def _apply_and_read(world: World, item: Given) -> State:
    world.put(item)
    return world.state


LATE = Scenario(
    "opened on Monday at 10:00 with four hours, answered at 13:00, of which we were told on Tuesday at 10:00",
    6,
    (opened("foundation", "critical", "2025-11-03 10:00"), responded("2025-11-03 13:00", arrives="2025-11-04 10:00")),
    (),
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    found = LocalEngine(new_store(tmp_path / "sla.db"))
    found.play("T-1", LATE)
    yield found
    found.store.close()


WORDS = [  # as of, known at, the state
    (None, None, "met"),
    (MONDAY, None, "on track"),
    (BEFORE, None, "met"),  # by what we know now
    (None, BEFORE, "breached"),  # by what we knew
    (None, AFTER, "met"),
    (MONDAY, BEFORE, "on track"),
    (BEFORE, BEFORE, "breached"),
    (BEFORE, AFTER, "met"),
    (stockholm("2025-11-03 15:00"), MONDAY, "breached"),  # what we then thought would be
]


@pytest.mark.parametrize(("as_of", "known_at", "word"), WORDS)
def test_show_explain_list_and_report_tell_the_same_of_any_time(
    engine: LocalEngine, as_of: datetime | None, known_at: datetime | None, word: str
) -> None:
    when = PointInTime(as_of, known_at, FAR)
    status = read_ticket_status(engine.store, "T-1", when)
    explained = explain_ticket(engine.store, "T-1", when)
    assert status is not None and explained is not None
    found = explained.to_json()
    assert status.first.get_label(when.at) == found["word"] == word
    assert found["standing"] == status.to_json(when.at)
    assert found["clocks"][0]["elapsed_seconds"] == status.to_json(when.at)["elapsed_seconds"]
    assert [each.ticket for each in list_open_promises(engine.store, when)] == ([] if word == "met" else ["T-1"])
    total = build_report(engine.store, when)["total"]
    assert total[{"met": "kept", "breached": "breached", "on track": "open"}[word]] == total["promises"] == 1


def test_a_breach_that_was_withdrawn_is_told_as_it_was_believed(engine: LocalEngine) -> None:
    def breaches(**when: datetime) -> list[bool]:
        explained = explain_ticket(engine.store, "T-1", PointInTime(**when, now=FAR))
        assert explained is not None
        return [bool(each.retracted_at) for each in explained.decisions if isinstance(each.decision, Breached)]

    assert (breaches(), breaches(known_at=BEFORE), breaches(known_at=MONDAY)) == ([True], [False], [])
    assert [
        count_retracted(engine),
        count_retracted(engine, known_at=AFTER),
        count_retracted(engine, known_at=BEFORE),
    ] == [1, 1, 0]
    assert [count_retracted(engine, as_of=BEFORE), count_retracted(engine, as_of=MONDAY)] == [1, 0], (
        "it is about Monday, 14:00"
    )


def count_retracted(engine: LocalEngine, **when: datetime) -> object:
    return build_report(engine.store, PointInTime(**when, now=FAR))["total"]["retracted"]


def test_a_report_counts_every_objective(tmp_path: Path) -> None:
    # two of the other objectives break and are kept as the first response is
    engine = LocalEngine(new_store(tmp_path / "sla.db"), ALL_OBJECTIVES)
    engine.play("T-1", LATE)
    assert [count_retracted(engine), count_retracted(engine, known_at=AFTER)] == [3, 3]
    engine.store.close()


@pytest.mark.parametrize("when", [{"as_of": EARLIER}, {"known_at": EARLIER}], ids=["as of", "known at"])
def test_before_the_first_event_there_is_nothing_and_that_is_said(
    engine: LocalEngine, when: dict[str, datetime]
) -> None:
    for ask in (
        lambda: read_ticket_status(engine.store, "T-1", PointInTime(**when, now=FAR)),
        lambda: explain_ticket(engine.store, "T-1", PointInTime(**when, now=FAR)),
        lambda: list_open_promises(engine.store, PointInTime(**when, now=FAR)),
        lambda: build_report(engine.store, PointInTime(**when, now=FAR)),
    ):
        with pytest.raises(NothingKnownError, match="2025-11-03T08:00:00Z; the first of it is of 2025-11-03T09:00:00Z"):
            ask()


def test_what_will_be_known_nobody_knows(engine: LocalEngine) -> None:
    with pytest.raises(ValueError, match="--known-at is at most now"):
        PointInTime(known_at=FAR + SECOND, now=FAR)
    assert read_ticket_status(engine.store, "T-2", PointInTime(known_at=BEFORE, now=FAR)) is None


def test_a_fact_that_had_not_happened_is_not_counted(engine: LocalEngine) -> None:
    status = read_ticket_status(engine.store, "T-1", PointInTime(as_of=MONDAY, now=FAR))
    assert status is not None and status.first.facts == 1


def test_the_command_says_it_and_the_answer_is_no(engine: LocalEngine) -> None:
    told = call("explain", "T-1", "--known-at", "2025-11-04T09:00+01:00", SLA_DATABASE_URL=engine.address)
    assert told.code == 0 and "breached" in told.out and "WITHDRAWN" not in told.out
    assert "WITHDRAWN Tue 2025-11-04 10:00:00 CET" in call("explain", "T-1", SLA_DATABASE_URL=engine.address).out
    said = call("show", "T-1", "--as-of", "2025-11-03T09:00+01:00", SLA_DATABASE_URL=engine.address)
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert said.err.startswith("sla: nothing had happened to ticket 'T-1' at 2025-11-03T08:00:00Z")
    assert call("explain", "T-2", SLA_DATABASE_URL=engine.address) == (1, "", "sla: nothing is known of ticket 'T-2'\n")
