"""Objectives beside the first response: next response, resolution, or one's own; judged by the same function."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.times import from_microseconds
from projections.deadlines import Deadlines
from projections.registry import PROJECTIONS
from projections.runner import catch_up
from sla.log import Announced, Breached, BreachRetracted, EscalationRaised, Fulfilled, State
from sla.policy import Policy
from sla.policy_file import PolicyError, load_policy_file
from sla.ticket import TicketSla
from tests.scenarios.scenario import (
    STOCKHOLM,
    Fact,
    Scenario,
    Tick,
    changed,
    closed,
    escalated,
    levelled,
    moved,
    opened,
    paused,
    reopened,
    responded,
    resumed,
    stockholm,
    withdrawn,
)
from tests.scenarios.scenario import build_fact as fact
from tests.scenarios.scenario import excluded as excluded_for
from tests.support.bus import fact as sent
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.histories import DAY, find_end, histories, list_corrected_times
from tests.support.judge_checks import check_heard, get_outcome
from tests.support.memory import SHIPPED, World
from tests.support.objectives import ALL, RULES, doubled, with_objectives
from tests.support.store_log import HOUR, START, Log, verified
from tests.support.stores import rows

pytestmark = pytest.mark.stores


def customer_replied(time: str, **more: str) -> Fact:
    return fact("customer_replied", {}, time, **more)


def play(policy: Policy, facts: Sequence[Fact]) -> World:
    """The facts as they arrive, the ticks that a clock would send, and one long after the last fact."""
    world = World(policy=policy)
    given = tuple(sorted(facts, key=lambda each: each.arrives))
    end = find_end(facts, [each.arrives for each in facts]) + 30 * DAY
    Scenario("any", 14, given, (), when=f"{end.astimezone(STOCKHOLM):%Y-%m-%d %H:%M}").play(
        world.put, world.find_next_instant
    )
    world.put(Tick(end))
    check_heard(world.ticket_sla, world.memory.published, world.events, end)
    return world


def get_state(world: World, objective: str, cycle: int = 1) -> State:
    return world.ticket_sla.others[objective, cycle].state


def list_announced(world: World, objective: str) -> list[tuple[str, int]]:
    """What was announced of an objective, with the cycle."""
    events = (event for event in world.events if isinstance(event, Announced) and event.objective == objective)
    return [(event.KIND, event.cycle) for event in events if event.KIND != "warning"]


# ---- next response


def test_the_next_response_runs_from_each_reply_of_the_customer_to_the_answer() -> None:
    """Foundation, serious: 8 hours."""
    world = play(
        with_objectives("next_response"),
        [
            opened("foundation", "serious", "2025-11-03 09:00"),
            customer_replied("2025-11-03 09:30"),  # nobody has answered yet: the first response runs
            responded("2025-11-03 10:00"),
            customer_replied("2025-11-03 11:00"),
            customer_replied("2025-11-03 12:00"),  # waits with the one before it
            responded("2025-11-03 15:00"),
            customer_replied("2025-11-04 09:00"),
            responded("2025-11-05 09:00"),
        ],
    )
    assert list_announced(world, "next_response") == [
        ("applied", 1), ("fulfilled", 1), ("applied", 2), ("breached", 2), ("fulfilled", 2),
    ]  # fmt: skip
    first, second = get_state(world, "next_response"), get_state(world, "next_response", 2)
    assert (first.met, first.started_at, first.target) == (True, stockholm("2025-11-03 11:00"), 8 * DAY / 24)
    assert (second.met, second.due_at) == (False, stockholm("2025-11-04 17:00"))
    assert world.state.met is True


def test_nobody_waits_for_a_next_response_before_the_first_one() -> None:
    world = play(
        with_objectives("next_response"),
        [opened("foundation", "serious", "2025-11-03 09:00"), customer_replied("2025-11-03 09:30")],
    )
    assert world.ticket_sla.others == {}


def test_late_news_takes_a_cycle_away_and_withdraws_its_breach() -> None:
    """There was an answer to the second reply: the same one as to the first, which came later than we were told."""
    world = play(
        with_objectives("next_response"),
        [
            opened("foundation", "serious", "2025-11-03 09:00"),
            responded("2025-11-03 09:30"),
            customer_replied("2025-11-03 10:00"),
            responded("2025-11-03 10:30", id="wrong"),
            customer_replied("2025-11-03 11:00"),
            fact(
                "corrected",
                {"corrects": "wrong", "time": stockholm("2025-11-03 11:30").isoformat()},
                "2025-11-04 17:00",
            ),
        ],
    )
    assert list_announced(world, "next_response") == [
        ("applied", 1), ("fulfilled", 1), ("applied", 2), ("breached", 2), ("fulfilled", 1),
        ("breach_retracted", 2), ("cancelled", 2),
    ]  # fmt: skip
    gone = get_state(world, "next_response", 2)
    assert (gone.stage, gone.reason, gone.breached_at, gone.next_at) == ("cancelled", "corrected", None, None)


def test_an_out_of_office_reply_that_is_withdrawn_starts_no_next_response() -> None:
    world = play(
        with_objectives("next_response"),
        [
            opened("foundation", "serious", "2025-11-03 09:00"),
            responded("2025-11-03 09:30"),
            customer_replied("2025-11-03 10:00", id="away"),
            withdrawn("away", "2025-11-04 17:00"),
        ],
    )
    assert list_announced(world, "next_response") == [
        ("applied", 1), ("breached", 1), ("breach_retracted", 1), ("cancelled", 1),
    ]  # fmt: skip
    gone = get_state(world, "next_response", 1)
    assert (gone.stage, gone.reason, gone.breached_at, gone.stopped) == ("cancelled", "corrected", None, True)


def test_a_reply_at_the_instant_of_an_answer_was_before_it() -> None:
    world = play(
        with_objectives("next_response"),
        [
            opened("foundation", "serious", "2025-11-03 09:00"),
            responded("2025-11-03 09:30"),
            customer_replied("2025-11-03 09:30"),
            customer_replied("2025-11-03 10:00"),
            responded("2025-11-03 10:30"),
            customer_replied("2025-11-03 10:30"),
        ],
    )
    assert list_announced(world, "next_response") == [("applied", 1), ("fulfilled", 1)]


def test_another_opening_gives_a_reply_other_labels() -> None:
    world = play(
        with_objectives("next_response"),
        [
            opened("foundation", "serious", "2025-11-03 09:00"),
            responded("2025-11-03 09:30"),
            customer_replied("2025-11-03 10:00"),
            opened("foundation", "critical", "2025-11-03 08:00", arrives="2025-11-03 11:00"),
            responded("2025-11-03 13:30"),
        ],
    )
    assert (get_state(world, "next_response").target, get_state(world, "next_response").priority) == (
        4 * HOUR,
        "critical",
    )


def test_an_escalation_is_told_once_whatever_is_promised() -> None:
    world = play(
        with_objectives("resolution"),
        [
            opened("foundation", "serious", "2025-11-03 09:00"),
            escalated("2025-11-03 09:30"),
            closed("2025-11-03 10:00"),
        ],
    )
    assert [event.objective for event in world.events if isinstance(event, EscalationRaised)] == ["first_response"]
    assert get_state(world, "resolution").escalation_level == 1


def test_a_reply_to_a_closed_ticket_waits_all_the_same() -> None:
    """In three ways of helpdesks: reopened after the reply, before it, and never."""
    begin = [
        opened("enterprise", "serious", "2025-11-03 09:00"),
        responded("2025-11-03 10:00"),
        closed("2025-11-03 11:00"),
    ]
    reply, answer = customer_replied("2025-11-06 11:00"), responded("2025-11-06 11:10", id="a")
    for more in (["2025-11-06 11:00:01"], ["2025-11-06 10:59:59"], []):
        world = play(with_objectives("next_response"), [*begin, reply, *map(reopened, more), answer])
        found = get_state(world, "next_response")
        assert (found.stage, found.met, found.started_at) == ("fulfilled", True, stockholm("2025-11-06 11:00"))
        (told,) = [
            event for event in world.events if isinstance(event, Fulfilled) and event.objective != "first_response"
        ]
        assert told.elapsed == timedelta(minutes=10)
        assert world.state.responded_at == stockholm("2025-11-03 10:00")
        assert ("replied_while_closed" in world.state.flags) == (more != ["2025-11-06 10:59:59"])
        assert "answered_while_closed" not in world.state.flags


def test_a_reply_that_was_closed_unanswered_goes_on_with_the_next_reply() -> None:
    """The time between does not count; a second close ends it again, with its minute for an answer."""
    begin = [
        opened("enterprise", "serious", "2025-11-03 09:00"),
        responded("2025-11-03 10:00"),
        customer_replied("2025-11-03 11:00"),
        closed("2025-11-03 12:00"),
        customer_replied("2025-11-05 11:00"),
    ]
    world = play(with_objectives("next_response"), [*begin, responded("2025-11-05 12:00", id="a")])
    assert list_announced(world, "next_response") == [
        ("applied", 1), ("cancelled", 1), ("target_changed", 1), ("fulfilled", 1),
    ]  # fmt: skip
    assert get_state(world, "next_response").due_at == stockholm("2025-11-05 14:00")
    for seconds, stage in ((60, "fulfilled"), (61, "cancelled")):
        answer = responded(f"2025-11-05 13:0{seconds // 60}:{seconds % 60:02}", id="a")
        world = play(with_objectives("next_response"), [*begin, closed("2025-11-05 13:00", id="b"), answer])
        assert get_state(world, "next_response").stage == stage
        assert ("answered_while_closed" in world.state.flags) == (stage == "cancelled")


# ---- resolution


def test_a_resolution_runs_on_when_the_ticket_is_opened_again() -> None:
    """Foundation, critical: 16 hours; nine a day."""
    world = play(
        with_objectives("resolution"),
        [
            opened("foundation", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            closed("2025-11-03 12:00"),
            reopened("2025-11-05 12:00"),
            closed("2025-11-06 18:00"),
        ],
    )
    assert list_announced(world, "resolution") == [
        ("applied", 1), ("fulfilled", 1), ("target_changed", 1), ("breached", 1), ("fulfilled", 1),
    ]  # fmt: skip
    found = get_state(world, "resolution")
    assert (found.due_at, found.met, str(found.overdue)) == (stockholm("2025-11-06 16:00"), False, "2:00:00")
    assert world.state.stage == "fulfilled" and world.state.met is True


def test_a_resolution_that_pauses_waits_and_the_first_response_does_not() -> None:
    world = play(
        with_objectives("resolution"),
        [
            opened("foundation", "critical", "2025-11-03 09:00"),
            paused("2025-11-03 10:00"),
            resumed("2025-11-05 10:00"),
        ],
    )
    assert get_state(world, "resolution").due_at == stockholm("2025-11-06 16:00")
    assert world.state.due_at == stockholm("2025-11-03 13:00")


def test_a_resolution_that_repeats_begins_again_with_each_reopening() -> None:
    world = play(
        with_objectives("each_resolution"),
        [
            opened("foundation", "critical", "2025-11-03 09:00"),
            closed("2025-11-03 12:00"),
            reopened("2025-11-05 12:00"),
            changed("serious", "2025-11-05 13:00"),
            closed("2025-11-06 10:00"),
        ],
    )
    first, second = get_state(world, "each_resolution"), get_state(world, "each_resolution", 2)
    assert (first.met, first.responded_at) == (True, stockholm("2025-11-03 12:00"))
    assert (second.started_at, second.due_at) == (stockholm("2025-11-05 12:00"), stockholm("2025-11-10 17:00"))
    assert second.met is True


def test_an_exclusion_is_for_all_objectives() -> None:
    world = play(
        with_objectives("resolution"),
        [opened("foundation", "critical", "2025-11-03 09:00"), excluded_for("basic_training", "2025-11-07 09:00")],
    )
    assert {world.state.stage, get_state(world, "resolution").stage} == {"excluded"}
    assert list_announced(world, "resolution")[-2:] == [("breach_retracted", 1), ("cancelled", 1)]


# ---- the same function


@examples(100)
@given(histories())
def test_an_objective_with_the_rules_of_the_first_response_is_judged_as_it(facts: list[Fact]) -> None:
    world = play(with_objectives("twin"), facts)
    if world.ticket_sla.others:
        twin = get_state(world, "twin")
        assert get_outcome(twin) == get_outcome(State(**_list_fields(world.state) | {"flags": ()}))


@examples(100)
@given(histories(), st.data())
def test_whatever_the_order_of_arrival_each_objective_ends_the_same(facts: list[Fact], data: st.DataObject) -> None:
    replies = st.lists(st.sampled_from(facts), max_size=3)
    more = [
        replace(each, kind="customer_replied", data={}, id=f"r{n}", arrives=each.time)
        for n, each in enumerate(data.draw(replies))
    ]
    facts = [*facts, *more]
    in_order = [replace(each, arrives=max([each.time, *list_corrected_times(each)])) for each in facts]
    one, other = play(ALL, facts), play(ALL, in_order)
    for world in (one, other):
        check_world(world)
    alive = [{key: get_outcome(each.state) for key, each in world.ticket_sla.others.items() if not _is_gone(each.state)}
             for world in (one, other)]  # fmt: skip
    assert alive[0] == alive[1]
    assert TicketSla.replay(None, one.memory.log[one.ticket]) == one.ticket_sla


def check_world(world: World) -> None:
    """Whoever only listens believes what the state says, of each promise."""
    standing: dict[tuple[str, int], str] = {}
    ids: set[str] = set()
    for event in world.events:
        if not isinstance(event, Announced):
            continue
        key = (event.objective, event.cycle)
        assert event.id not in ids
        ids.add(event.id)
        match event:
            case Breached():
                assert key not in standing
                standing[key] = event.id
            case BreachRetracted():
                assert standing.pop(key) == event.breach_id
            case Fulfilled(met=met):
                assert met != (key in standing)
    broken = {key for key, each in world.ticket_sla.others.items() if each.state.breached_at}
    assert {key for key in standing if key[0] != "first_response"} == broken


def _is_gone(found: State) -> bool:
    return (found.stage, found.reason) == ("cancelled", "corrected")


def _list_fields(found: State) -> dict[str, Any]:
    return {name: getattr(found, name) for name in State.__struct_fields__}


# ---- the store, the views and the command line


def test_objectives_are_stored_counted_shown_and_verified(tmp_path: Path) -> None:
    log = Log(tmp_path / "sla.db")
    log.store.publish_policy(with_objectives("resolution", "next_response"), lambda: START, lead=timedelta(0))
    log.take(START, sent("opened", "T-1", START, service_level="enterprise", priority="critical"))
    log.take(START + HOUR, sent("responded", "T-1", START + HOUR))
    log.take(START + 2 * HOUR, sent("customer_replied", "T-1", START + 2 * HOUR))
    deadlines = Deadlines()
    catch_up(log.store, deadlines)
    with log.store.read_view() as cursor:
        (first,) = deadlines.read_until(cursor, 2**62, 10)
    assert from_microseconds(first.at) == START + 3 * HOUR, "half of the next response, before half of the resolution"
    now = START + 2 * HOUR
    for _ in range(20):
        catch_up(log.store, deadlines)
        with log.store.read_view() as cursor:
            following = deadlines.find_next_after(cursor, 0)
        if following is not None:
            now = max(now, from_microseconds(following)) + timedelta(milliseconds=1)
            log.take(now, ticks=["T-1"])
    log.take(START + 9 * HOUR, sent("closed", "T-1", START + 9 * HOUR))
    for view in PROJECTIONS:
        catch_up(log.store, view())
    assert rows(log.database, "SELECT * FROM deadlines") == []
    assert rows(log.database, "SELECT * FROM promise_counts ORDER BY objective") == [
        ("first_response", "enterprise", "critical", "fulfilled", "kept", 1),
        ("next_response", "enterprise", "critical", "cancelled", "broken", 1),
        ("resolution", "enterprise", "critical", "fulfilled", "broken", 1),
    ]
    ((state,),) = rows(log.database, "SELECT state FROM promises WHERE objective = 'first_response'")
    assert json.loads(state)["due_at"] == (START + 2 * HOUR).isoformat().replace("+00:00", "Z")
    counted = rows(log.database, "SELECT what, a, d, n FROM compliance WHERE d IN ('late', 'closed') ORDER BY what, a")
    assert counted == [("cancelled", "next_response", "closed", 1), ("fulfilled", "resolution", "late", 1)]
    said = call("show", "T-1", "-o", "json", SLA_DATABASE_URL=log.address)
    report = json.loads(said.out)
    assert (report["stage"], report["met"], report["breaches"]) == ("fulfilled", True, 0)
    _, following, resolution = report["promises"]
    assert (following["objective"], following["cycle"], following["stage"]) == ("next_response", 1, "cancelled")
    assert (following["breached"], following["met"], following["kept"]) == (True, None, False)
    assert (resolution["met"], resolution["overdue_seconds"], resolution["target_seconds"]) == (False, 3600, 8 * 3600)
    assert "resolution 1" in call("show", "T-1", SLA_DATABASE_URL=log.address).out
    log.store.close()
    assert verified(log.database).shown == []


def test_a_breach_of_an_objective_names_it_on_the_bus() -> None:
    world = play(with_objectives("resolution"), [opened("foundation", "critical", "2025-11-03 09:00")])
    first, resolution = [each for each in world.list_announced() if each.kind == "breached"]
    assert (first.value_of("objective"), resolution.value_of("objective")) == ("first_response", "resolution")
    assert first.envelope["id"] != resolution.envelope["id"] and resolution.value_of("cycle") == 1
    assert resolution.subject == first.subject


# ---- the file

OBJECTIVES = """
objectives:
  first_response: {pauses: false}
  resolution: {starts: opened, stops: closed, pauses: true}
"""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "stops: closed",
            "stops: solved",
            "objectives: resolution: stops: 'solved' is not allowed; write one of responded",
        ),
        ("starts: opened", "starts: customer_replied", "a reply or an answer waits for a response; write responded"),
        ("starts: opened", "starts: responded", "a reply or an answer waits for a response; write responded"),
        ("starts: opened", "starts: [opened, opened]", "give each of them once, and at least one"),
        ("starts: opened", "starts: []", "give each of them once, and at least one"),
        (
            "starts: opened",
            "starts: {opened: yes}",
            "objectives: resolution: starts is a mapping; write a single value",
        ),
        ("starts: opened, stops: closed", "starts: [opened, responded], stops: responded", "add repeats: true"),
        ("opened, stops: closed", "[customer_replied, responded], stops: responded", "leave one of the two out"),
        ("pauses: true", "pauses: maybe", "objectives: resolution: pauses: 'maybe' is not a yes or no"),
        (", pauses: true", ", every: day", "'every' is an unknown key; known are starts, stops, pauses, repeats"),
        ("    # no targets", "    objectives: {response: {critical: 1h}}", "'response' is an unknown key"),
        ("    # no targets", "", "level foundation has no objectives; add it"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        load_policy_file(write_policy(tmp_path, old, new))


def test_a_file_with_objectives_is_judged_like_its_resolved_form(tmp_path: Path) -> None:
    policy = load_policy_file(
        write_policy(
            tmp_path, "    # no targets", "    objectives: {resolution: {critical: 16h, serious: 9h, minor: 1h}}"
        )
    )
    assert policy.objectives["resolution"]._asdict() == {"name": "resolution"} | RULES["resolution"]
    again = Policy.from_resolved(json.loads(policy.canonical))
    assert (
        again.fingerprint == policy.fingerprint and str(again.get_target("foundation", "minor", "resolution")) == "1h"
    )


def write_policy(folder: Path, old: str, new: str) -> Path:
    """The shipped policy with a resolution, but no targets for it."""
    text = SHIPPED.read_text(encoding="utf-8").replace("objectives:\n  first_response: {pauses: false}\n", OBJECTIVES)
    text = text.replace("    targets:\n", "    # no targets\n    targets:\n")
    assert old in text
    path = folder / "policy.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


# ---- versions: every clock that begins after the move is judged by the other one


@pytest.mark.parametrize("move", ["2025-11-03 09:00", "2025-11-03 10:00", "2025-11-03 13:00", "2025-11-04 09:00"])
@pytest.mark.parametrize("answer", ["2025-11-03 09:30", "2025-11-03 14:00"])
def test_a_next_response_is_judged_by_the_version_the_ticket_was_moved_to_before(move: str, answer: str) -> None:
    """Foundation, critical: the first response is due at 13:00, the next one has 8 hours after the move."""
    world = World(versions=doubled("next_response", "resolution"))
    for each in (
        opened("foundation", "critical", "2025-11-03 09:00", id="o"),
        moved("doubled", move, id="m"),
        responded(answer, arrives="2025-11-04 09:00", id="r"),
        customer_replied("2025-11-05 09:00", id="c"),
    ):
        world.put(each)
    found = get_state(world, "next_response")
    assert (found.policy_version, found.target) == ("doubled", 8 * HOUR)
    assert get_state(world, "resolution").policy_version == "doubled"


def test_an_objective_that_the_other_version_does_not_have_goes_on_under_the_one_before() -> None:
    """Moved while nobody waits for a next response; the reply after it is no dead letter."""
    world = World(versions=doubled("resolution"))
    for each in (
        opened("foundation", "critical", "2025-11-03 09:00", id="o"),
        moved("doubled", "2025-11-03 09:30", id="m"),
        responded("2025-11-03 10:00", id="r"),
        customer_replied("2025-11-05 09:00", id="c"),
    ):
        world.put(each)
    assert world.memory.inbox == ["recorded"] * 4
    assert (world.state.policy_version, get_state(world, "next_response").target) == ("doubled", 4 * HOUR)


# ---- levels: the label of every clock


def test_a_level_that_changes_is_for_all_objectives() -> None:
    world = play(
        with_objectives("resolution"),
        [opened("foundation", "critical", "2025-11-03 09:00"), levelled("enterprise", "2025-11-03 10:00")],
    )
    assert get_state(world, "resolution").due_at == stockholm("2025-11-03 17:00")


def test_a_policy_says_how_long_after_a_close_an_answer_counts() -> None:
    told = [
        opened("enterprise", "minor", "2025-11-03 09:00"),
        closed("2025-11-03 10:00"),
        responded("2025-11-03 10:05"),
    ]
    for seconds, stage in ((0, "cancelled"), (299, "cancelled"), (300, "fulfilled")):
        policy = Policy.from_resolved(with_objectives().to_resolved() | {"closing_answer": seconds})
        assert play(policy, told).state.stage == stage


def test_labels_are_the_latest_by_time_and_every_announcement_has_them() -> None:
    """Of the first response and of what else is promised, whatever the order of arrival."""
    details = {"customer": "Acme AB", "title": "It is slow", "url": "https://a.example/1", "team": "web"}
    told = [
        fact("opened", {"service_level": "enterprise", "priority": "minor"} | details, "2025-11-03 09:00"),
        fact(
            "details_changed",
            {"team": "chat", "assignee": "Kim"},
            "2025-11-03 11:00",
            id="late",
            arrives="2025-11-03 12:00",
        ),
        fact("details_changed", {"team": "phone", "title": "It stands"}, "2025-11-03 10:00", id="early"),
        closed("2025-11-03 13:00"),
    ]
    world = play(with_objectives("resolution"), told)
    for found in (world.state, get_state(world, "resolution")):
        assert (found.customer, found.team, found.assignee, found.title) == ("Acme AB", "chat", "Kim", "It stands")
    data = world.list_announced()[-1].envelope["data"]
    assert {name: data[name] for name in ("team", "assignee", "url")} == {
        "team": "chat", "assignee": "Kim", "url": "https://a.example/1",
    }  # fmt: skip


def test_what_a_fact_causes_carries_its_trace() -> None:
    """A breach that a tick shows has that of the fact which set the deadline."""
    world, trace = World(), {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}
    message = world.make_message(opened("enterprise", "critical", "2025-11-03 09:00", id="o"))
    body = json.dumps(json.loads(message.body) | trace).encode()
    world.take([message._replace(body=body)])
    world.put(Tick(stockholm("2025-11-03 12:00")))
    world.put(responded("2025-11-03 12:30", id="r"))
    kinds = {each.kind: {name: each.envelope.get(name) for name in trace} for each in world.list_announced()}
    assert kinds["applied"] == kinds["breached"] == trace
    assert kinds["fulfilled"] == dict.fromkeys(trace)
