"""Whatever happens to a ticket has an answer: versions with other names, all objectives, all kinds of facts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.tickets import (
    Closed,
    Corrected,
    CustomerReplied,
    Escalated,
    Excluded,
    ExclusionRevoked,
    FactWithdrawn,
    Opened,
    Paused,
    PolicyChanged,
    PriorityChanged,
    Reopened,
    Responded,
    Resumed,
    ServiceLevelChanged,
    TicketData,
)
from sla.calendar import END_OF_HOURS
from sla.judge import ZERO, Facts, Kept, judge
from sla.judge import Fact as Known
from sla.log import Cancelled, State
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import BEFORE_ALL, MIN_LEAD, Version, Versions
from tests.scenarios.scenario import Fact, Tick
from tests.support.examples import ALL_EXAMPLES, examples
from tests.support.histories import AHEAD, BASE, DAY, HOUR
from tests.support.judge_checks import check_heard, get_outcome
from tests.support.memory import POLICY, World
from tests.support.objectives import RULES, TIMES

MINUTE = timedelta(minutes=1)
END = BASE + 60 * DAY


def make_version(name: str, levels: Sequence[str], priorities: Sequence[str], *objectives: str, pauses: bool) -> Policy:
    """The shipped policy with other names and objectives; targets are as long as the version's number says."""
    shipped = POLICY.to_resolved()
    template = shipped["levels"][0]
    targets = {each: int(name) * (n + 1) * 3600 for n, each in enumerate(priorities)}
    return Policy.from_resolved(
        shipped
        | {
            "version": name,
            "priorities": [{"name": each, "severity": "error", "description": ""} for each in priorities],
            "levels": [
                template
                | {
                    "name": each,
                    "targets": targets,
                    "channels": {},
                    "objectives": {
                        objective: {priority: TIMES[objective] * target for priority, target in targets.items()}
                        for objective in objectives
                    },
                }
                for each in levels
            ],
            "exclusions": ["third_party"] if pauses else [],
            "objectives": {"first_response": {"pauses": pauses}}
            | {each: RULES[each] | {"pauses": not pauses} for each in objectives},
        }
    )


FIRST = make_version("1", ("gold", "silver"), ("high", "low"), *RULES, pauses=True)
SECOND = make_version("2", ("gold", "platinum"), ("high", "urgent"), "each_resolution", "next_response", pauses=False)
THIRD = make_version("3", ("silver", "platinum"), ("low", "urgent"), "twin", "resolution", pauses=True)

times = st.builds(
    lambda quarters, seconds: BASE + quarters * HOUR / 4 + timedelta(seconds=seconds),
    st.integers(0, 4 * 24 * 3),
    st.sampled_from([0, 0, 0, 50, 70]),
)
LEVELS, PRIORITIES, REASONS = ("gold", "silver", "platinum"), ("high", "low", "urgent"), ("third_party", "training")
levels, priorities, reasons = map(st.sampled_from, (LEVELS, PRIORITIES, REASONS))
ids = st.sampled_from([f"f{n}" for n in range(14)])


def make_fact(kind: str, **data: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(data))


corrections = st.fixed_dictionaries(
    {"corrects": ids},
    optional={
        "priority": priorities,
        "service_level": levels,
        "by": st.sampled_from(["agent", "automation"]),
        "reason": st.sampled_from(["third_party", "too busy", ""]),
        "time": times.map(datetime.isoformat),
    },
)
said = st.one_of(
    make_fact("opened", service_level=levels, priority=priorities),
    make_fact("priority_changed", priority=priorities),
    make_fact("service_level_changed", service_level=levels),
    make_fact("responded"),
    make_fact("responded"),
    make_fact("responded", by=st.just("automation")),
    make_fact("customer_replied"),
    make_fact("customer_replied"),
    make_fact("escalated"),
    make_fact("escalated", by=st.sampled_from(["account_manager", "mailbox"])),
    make_fact("details_changed", team=st.sampled_from(["web", "chat"])),
    make_fact("closed"),
    make_fact("reopened"),
    make_fact("paused", reason=reasons),
    make_fact("resumed", reason=reasons),
    make_fact("excluded", reason=reasons),
    make_fact("exclusion_revoked", reason=reasons),
    make_fact("policy_changed", policy_version=st.sampled_from(["1", "2", "3"])),
    make_fact("fact_withdrawn", withdraws=ids),
    st.tuples(st.just("corrected"), corrections),
    st.tuples(st.just("corrected"), corrections),
)
delays = st.one_of(st.just(-AHEAD), st.just(timedelta(0)), st.integers(0, 48).map(lambda hours: hours * HOUR))


@st.composite
def facts_of_a_ticket(draw: st.DrawFn) -> list[Fact]:
    """Facts that arrive up to five minutes early and up to two days late; many are at one instant."""
    opening = ("opened", {"service_level": draw(levels), "priority": draw(priorities)})
    found = []
    for n, (kind, data) in enumerate([opening, *draw(st.lists(said, min_size=1, max_size=12))]):
        time = draw(times)
        arrives = max([time + draw(delays), *([datetime.fromisoformat(data["time"])] if "time" in data else [])])
        sequence = draw(st.sampled_from([None, None, "1", "2"]))
        found.append(Fact(kind, data, time, arrives, f"f{n}", draw(st.sampled_from(["/a", "/a", "/b"])), sequence))
    return found


KINDS: list[Callable[[Random], TicketData]] = [
    lambda chance: Opened(service_level=chance.choice(LEVELS), priority=chance.choice(PRIORITIES)),
    lambda chance: PriorityChanged(priority=chance.choice(PRIORITIES)),
    lambda chance: ServiceLevelChanged(service_level=chance.choice(LEVELS)),
    lambda chance: PolicyChanged(policy_version=chance.choice("123")),
    lambda chance: Excluded(reason=chance.choice(REASONS)),
    lambda chance: ExclusionRevoked(reason=chance.choice(REASONS)),
    lambda chance: Corrected(corrects=f"f{chance.randrange(70)}", priority=chance.choice(PRIORITIES)),
    lambda chance: Corrected(corrects=f"f{chance.randrange(70)}", reason=chance.choice(REASONS)),
    lambda chance: FactWithdrawn(withdraws=f"f{chance.randrange(70)}"),
    lambda chance: chance.choice((Closed(), Reopened())),
    lambda chance: chance.choice((Closed(), Reopened())),
    lambda chance: chance.choice((CustomerReplied(), Responded())),
    lambda chance: chance.choice((CustomerReplied(), Responded())),
    lambda chance: chance.choice((Paused(), Resumed())),
    lambda chance: Escalated(by=chance.choice((None, "ticket", "account_manager", "mailbox"))),
]


def publish(effects: Sequence[datetime]) -> Versions:
    """The first version, and the two others in effect from these instants on."""
    later = [
        Version(policy, BEFORE_ALL, effect + n * timedelta(microseconds=1), material=True)
        for n, (policy, effect) in enumerate(zip((SECOND, THIRD), effects, strict=True))
    ]
    return Versions([*Versions.only(FIRST), *later])


def play(items: Sequence[Fact | Tick | Versions], versions: Versions, looks_ahead: bool = False) -> World:
    """The world after these messages, and versions that are published between them, and a last tick."""
    world = World(versions=versions)
    for item in (*items, Tick(END)):
        if isinstance(item, Versions):
            world.memory.published = item
            continue
        world.put(item)
        check_kept(world, [item.arrives, *([item.arrives + HOUR, END] if looks_ahead else [])])
    assert world.put(Tick(END)) == []
    if world.events:
        check_heard(world.ticket_sla, world.memory.published, world.events, END)
    assert "internal" not in world.memory.inbox
    return world


def check_kept(world: World, instants: Sequence[datetime]) -> None:
    """What is kept from one judgement to the next changes no verdict, and the log has the whole ticket."""
    ticket, versions = world.ticket_sla, world.memory.published
    for now in instants:
        replayed = TicketSla.replay(None, world.memory.log.get(world.ticket, ())) or TicketSla(world.ticket)
        assert replayed == ticket
        assert judge(ticket.facts, versions, now) == judge(replayed.facts, versions, now)


def list_outcomes(world: World) -> dict[tuple[str, int], State]:
    """The promises whose clock has started, as it turned out."""
    return {key: state for key, each in world.states.items() if (state := get_outcome(each)) != State()}


@pytest.mark.parametrize("seed", [*range(200 if ALL_EXAMPLES else 60), 328])
def test_what_is_kept_changes_no_verdict(seed: int) -> None:
    """Long histories, of one or of all kinds of facts; now goes on, and is another for a question in between."""
    chance = Random(seed)
    versions = publish([BASE + chance.randrange(40) * HOUR for _ in range(2)])
    kept, afresh = Facts(), Facts()
    kinds = chance.sample(KINDS, chance.randint(2, len(KINDS)))
    now, opening = BASE, Opened(service_level="gold", priority="high")
    for n in range(70):
        data = chance.choice(kinds)(chance) if n else opening
        ahead = chance.choice([5 * MINUTE, ZERO, ZERO, -HOUR, -chance.randrange(40) * HOUR])
        fact = Known("/a", f"f{n}", now + ahead, data, chance.choice([None, "1"]), now)
        if isinstance(data, Corrected):
            fact = msgspec.structs.replace(
                fact, data=data.model_copy(update={"time": chance.choice([None, now - HOUR])})
            )
        kept.add(fact)
        afresh.add(fact)
        for instant in chance.choice([(now,), (now,), (now, now - 3 * HOUR, now), (END, now)]):
            afresh.kept = Kept()
            found = judge(kept, versions, instant)
            assert found == judge(afresh, versions, instant)
        now += chance.choice([ZERO, MINUTE, 5 * MINUTE, HOUR, 3 * HOUR])


def test_a_cycle_that_is_the_last_one_again_has_the_labels_of_what_was_corrected_meanwhile() -> None:
    """A second reply came between the answer and a change; the change was another one, and the reply was before all."""
    told: list[tuple[str, float, TicketData]] = [
        ("o", 0, Opened(service_level="gold", priority="high")),
        ("a0", 1, Responded()),
        ("r1", 2, CustomerReplied()),
        ("a1", 3, Responded()),
        ("c", 6, PriorityChanged(priority="low")),
        ("r2", 4, CustomerReplied()),
        ("x", 7, Corrected(corrects="c", priority="high")),
        ("y", 7, Corrected(corrects="r2", time=BASE + HOUR / 2)),
    ]
    versions, facts = publish([END, END]), Facts()
    for id, hours, data in told:
        facts.add(Known("/a", id, BASE + hours * HOUR, data, None, BASE + 7 * HOUR))
        verdict = judge(facts, versions, BASE + 8 * HOUR)
    (clock,) = verdict.cycles["next_response"]
    assert clock.priority == "high"


@examples(200)
@given(facts_of_a_ticket(), st.lists(times, max_size=4), st.data(), st.booleans())
def test_no_history_stops_the_engine_while_versions_are_published(
    facts: list[Fact], ticks: list[datetime], data: st.DataObject, looks_ahead: bool
) -> None:
    """A version takes effect a minute before a fact happens, as often as not between its arrival and that."""
    openings = [fact for fact in facts if fact.kind == "opened"]
    instants = st.sampled_from([fact.time - MINUTE for fact in (*facts, *3 * openings)])
    effects = data.draw(st.lists(instants, min_size=2, max_size=2))
    items: list[Fact | Tick] = sorted([*facts, *map(Tick, ticks)], key=lambda item: item.arrives)
    every = publish(effects)
    published: list[Fact | Tick | Versions] = []
    for item in items:
        known = Versions(each for each in every if each.is_first or each.effective_from <= item.arrives + MIN_LEAD)
        published += [known, item]
    play([*published, every], Versions.only(FIRST), looks_ahead)


@examples(200)
@given(facts_of_a_ticket(), st.randoms(use_true_random=False), st.lists(times, min_size=2, max_size=2))
def test_the_order_of_arrival_does_not_matter_across_versions(
    facts: list[Fact], chance: Random, effects: list[datetime]
) -> None:
    last = BASE + 10 * DAY
    ends, refused = [], []
    for order in (facts, sorted(facts, key=lambda fact: fact.time), chance.sample(facts, len(facts))):
        arrived = [replace(fact, arrives=last + n * HOUR) for n, fact in enumerate(order)]
        world = play(list(arrived), publish(effects))
        ends.append(list_outcomes(world))
        refused.append({fact.id for fact, said in zip(order, world.memory.inbox, strict=True) if said != "recorded"})
    assert all(end == ends[0] for end in ends)
    assert all(each == refused[0] for each in refused)


# ---- the faults that were found


def tell(kind: str, at: datetime, arrives: datetime | None = None, **data: str) -> Fact:
    return Fact(kind, data, at, arrives or at, f"{kind}-{at:%d%H%M}", "/a", None)


@pytest.mark.parametrize(("level", "priority"), [("gold", "low"), ("silver", "high")])
def test_an_opening_dated_ahead_stays_in_the_version_that_had_its_names(level: str, priority: str) -> None:
    """The version that takes effect before it happens has not."""
    opened_at = BASE + HOUR
    world = World(versions=Versions.only(FIRST))
    world.put(tell("opened", opened_at, opened_at - AHEAD, service_level=level, priority=priority))
    world.memory.published = Versions([*Versions.only(FIRST), Version(SECOND, BASE, opened_at - MINUTE, material=True)])
    world.put(Tick(opened_at + MINUTE))
    assert (world.state.stage, world.state.policy_version, world.state.priority) == ("running", "1", priority)
    again = tell("opened", opened_at, opened_at + MINUTE, service_level=level, priority=priority)
    world.put(again)
    assert world.memory.inbox == ["recorded", "duplicate"]
    world.put(replace(again, id="another"))
    assert world.memory.inbox[2:] == ["unknown_priority" if priority == "low" else "unknown_service_level"]


def test_a_move_to_a_version_without_the_names_is_kept_and_flagged_whenever_it_is_known() -> None:
    """One comes before the change that gives the ticket a priority which the other version does not have."""
    versions = publish([END, END])
    world = World(versions=versions)
    for fact in (
        tell("opened", BASE, service_level="gold", priority="high"),
        tell("policy_changed", BASE + 2 * HOUR, policy_version="2"),
        tell("priority_changed", BASE + HOUR, BASE + 3 * HOUR, priority="low"),
        tell("policy_changed", BASE + 4 * HOUR, policy_version="2"),
    ):
        world.put(fact)
    assert world.memory.inbox == ["recorded"] * 4
    assert (world.state.policy_version, world.state.priority) == ("1", "low")
    assert world.state.flags == ("not_in_version",)


def test_an_objective_that_no_version_has_for_the_labels_begins_with_those_of_the_opening() -> None:
    """A reply after the move to a version without a next response, and to a level that only that version has."""
    third = make_version("3", ("gold", "platinum"), ("high", "low"), pauses=False)
    versions = Versions([*Versions.only(FIRST), Version(third, BEFORE_ALL, END, material=True)])
    world = World(versions=versions)
    for fact in (
        tell("opened", BASE, service_level="gold", priority="low"),
        tell("policy_changed", BASE + HOUR, policy_version="3"),
        tell("service_level_changed", BASE + 2 * HOUR, service_level="platinum"),
        tell("responded", BASE + 3 * HOUR),
        tell("customer_replied", BASE + 4 * HOUR),
    ):
        world.put(fact)
    assert world.memory.inbox == ["recorded"] * 5
    found = world.states["next_response", 1]
    assert (found.policy_version, found.service_level, found.target) == ("1", "gold", 2 * HOUR)


def test_a_target_that_is_never_used_up_is_due_on_the_last_day_that_is_known() -> None:
    """An hour a week, and ten years of it."""
    resolved = FIRST.to_resolved()
    for level in resolved["levels"]:
        level["hours"] = {"mon": ["10:00-11:00"]}
        level["targets"] = dict.fromkeys(level["targets"], 3650 * 24 * 3600)
    world = World(policy=Policy.from_resolved(resolved))
    world.put(tell("opened", BASE, service_level="gold", priority="low"))
    assert world.memory.inbox == ["recorded"] and world.state.due_at == END_OF_HOURS


def test_cycles_that_vanish_are_cancelled_in_one_order_whether_the_ticket_was_in_memory_or_read_from_the_log() -> None:
    """An earlier opening, of a version that promises none of what has begun: a reply's clock, and one before it."""
    early = make_version("4", ("gold",), ("high",), "twin", pauses=False)
    versions = Versions(
        [Version(early, BEFORE_ALL, BEFORE_ALL, material=True), Version(FIRST, BASE, BASE, material=True)]
    )
    told = (
        tell("opened", BASE + HOUR, service_level="gold", priority="high"),
        tell("responded", BASE + 2 * HOUR),
        tell("customer_replied", BASE + 3 * HOUR),
        tell("opened", BASE - HOUR, BASE + 4 * HOUR, service_level="gold", priority="high"),
    )
    kept, replayed = World(versions=versions), World(versions=versions, forgets=True)
    for fact in told:
        assert kept.put(fact) == replayed.put(fact)
    gone = [event.objective for event in kept.events if isinstance(event, Cancelled)]
    vanished = ["each_resolution", "each_response", "each_response", "next_response", "resolution", "update"]
    assert gone == vanished


def test_a_change_to_a_name_of_the_version_in_force_moves_the_ticket_there() -> None:
    """A customer with an open ticket buys the level that came with the new version; two names in one update too."""
    platinum = tell("service_level_changed", BASE + 2 * HOUR, service_level="platinum")
    urgent = tell("priority_changed", BASE + 2 * HOUR, priority="urgent")
    opening = tell("opened", BASE, service_level="gold", priority="high")
    pair = tell("opened", BASE, service_level="silver", priority="low")
    for told in ((opening, platinum), (pair, platinum, urgent), (pair, urgent, platinum)):
        world = play(told, publish([BASE + HOUR, END]))
        assert (world.state.policy_version, world.state.service_level) == ("2", "platinum")
        assert world.state.flags == ("moved_by_change", "no_such_objective")
        assert set(world.memory.inbox) == {"recorded"}
    early = play((opening, platinum), publish([BASE + 3 * HOUR, END]))
    assert (early.state.service_level, early.state.flags) == ("gold", ("not_in_version",))
    alone = play((pair, platinum), publish([BASE + HOUR, END]))
    assert (alone.state.service_level, alone.state.flags) == ("silver", ("not_in_version",))


def test_a_move_that_did_not_happen_is_none_later_either() -> None:
    """It came while the ticket had a level that the other version lacks, and was told in order or before that."""
    opening = tell("opened", BASE, service_level="gold", priority="high")
    away = tell("service_level_changed", BASE + HOUR, service_level="silver")
    move = tell("policy_changed", BASE + 2 * HOUR, policy_version="2")
    back = tell("service_level_changed", BASE + 3 * HOUR, service_level="gold")
    answer, reply = tell("responded", BASE + 3.5 * HOUR), tell("customer_replied", BASE + 4 * HOUR)
    for order in ((opening, away, move, back, answer, reply), (move, opening, away, back, answer, reply)):
        world = play([replace(fact, arrives=BASE + 5 * HOUR) for fact in order], publish([END, END]))
        assert world.states["next_response", 1].policy_version == "1"
