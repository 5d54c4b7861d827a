"""Histories under a policy with every word, against a walk from minute to minute; each word has its scenarios."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from services.queries.backtest import _name_outcome
from sla.engine import Engine, Limits
from sla.log import Applied, ReminderRaised, WarningRaised
from sla.policy import Policy
from tests.scenarios.scenario import Fact, Tick, changed, opened
from tests.support.examples import examples
from tests.support.memory import World
from tests.support.objectives import with_objectives
from tests.support.oracle import DAY, MINUTE, Oracle
from tests.support.promise_oracle import Terms, walk
from tests.support.target_oracle import count_target
from tests.support.words import POLICY as WORDS_POLICY
from tests.support.words import WORDS, read_policy

STOCKHOLM = ZoneInfo("Europe/Stockholm")
HOUR = timedelta(hours=1)
END = datetime(2026, 1, 9, 12, tzinfo=UTC)
CHRISTMAS = frozenset({date(2025, 12, 25), date(2025, 12, 26), date(2026, 1, 1), date(2026, 1, 6)})
OFFICE = Oracle(STOCKHOLM, [["09:00-17:00"]] * 5 + [[], []], closed=CHRISTMAS)
ALWAYS = Oracle(STOCKHOLM, [["00:00-24:00"]] * 7)


class Case(NamedTuple):
    """A target as the file has it, and for the oracle: by which hours it counts, and a span or the words."""

    text: str
    hours: Oracle
    target: timedelta | str | None

    def find_terms(self, start: datetime) -> Terms | None:
        """What is promised to a ticket that was opened then."""
        if self.target is None:
            return None
        target = count_target(self.hours, start, self.target) if isinstance(self.target, str) else self.target
        return Terms(self.hours, target)


CASES = (
    Case("{within: 90m, hours: always}", ALWAYS, 1.5 * HOUR),
    Case("{within: 20h, hours: always}", ALWAYS, 20 * HOUR),
    Case("3h", OFFICE, 3 * HOUR),
    Case("{within: 9h, hours: office}", OFFICE, 9 * HOUR),
    Case("none", OFFICE, None),
    Case("2 working days", OFFICE, "2 working days"),
    Case("next working day by 12:00", OFFICE, "next working day by 12:00"),
    Case("{within: 2 days, hours: always}", ALWAYS, "2 days"),
)
minutes = st.integers(0, 9 * 24 * 60).map(lambda n: datetime(2025, 12, 23, 6, tzinfo=UTC) + n * MINUTE)
histories = st.lists(
    st.tuples(minutes, st.integers(0, len(CASES) - 1)), min_size=1, max_size=5, unique_by=lambda it: it[0]
)


def make_policy() -> Policy:
    """The words, with a priority for each case."""
    head, _, tail = WORDS.partition("priorities:")
    names = [f"p{n}" for n in range(len(CASES))]
    priorities = "".join(f"  {name}: {{severity: error}}\n" for name in names)
    targets = "".join(f"      {name}: {case.text}\n" for name, case in zip(names, CASES, strict=True))
    before_targets = tail[tail.index("levels:") : tail.index("targets:")]
    return read_policy(f"{head}priorities:\n{priorities}{before_targets}targets:\n{targets}")


POLICY = make_policy()


def tell(history: Sequence[tuple[datetime, int]], order: Sequence[int], end: datetime = END) -> World:
    """The engine, told of an opening and of changes of priority; a tick at each hour of the end shows what broke."""
    (first, priority), *changes = sorted(history)
    facts = [opened("gold", f"p{priority}", _write(first))]
    facts += [changed(f"p{priority}", _write(time), id=f"c{n}") for n, (time, priority) in enumerate(changes)]
    world = World(policy=POLICY)
    world.engine = Engine(world.memory, Limits(historic_after=999 * DAY))
    for n in sorted(range(len(facts)), key=lambda n: (order[n % len(order)], n)):
        fact: Fact = facts[n]
        world.put(Fact(fact.kind, fact.data, fact.time, end, fact.id or "o", fact.source, fact.sequence))
    world.put(Tick(end))
    return world


def _write(time: datetime) -> str:
    return f"{time.astimezone(STOCKHOLM):%Y-%m-%d %H:%M}"


@examples(60)
@given(histories, st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_any_changes_of_hours_and_targets_are_due_as_a_walk_says(
    history: list[tuple[datetime, int]], order: list[int]
) -> None:
    state = tell(history, order).state
    priorities = [(time, f"p{n}") for time, n in sorted(history)]
    terms = {f"p{n}": CASES[n].find_terms(priorities[0][0]) for _, n in history}
    walked = walk(terms, priorities, END)
    if all(terms[name] is None for _, name in priorities):
        assert (state.due_at, state.reason) == (None, "no_promise") and state.kept is None
    elif walked.due_at is None and terms[priorities[-1][1]] is None:
        assert (state.stage, state.reason, state.used) == ("cancelled", "no_promise", walked.used)
    elif walked.due_at is None:
        assert state.due_at is not None and state.due_at > END and state.breached_at is None
    else:
        assert (state.due_at, state.breached_at) == (walked.due_at, walked.due_at)


@examples(60)
@given(histories, st.integers(0, 900), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_warnings_and_reminders_are_those_whose_support_time_has_passed(
    history: list[tuple[datetime, int]], after: int, order: list[int]
) -> None:
    """One tick at the end: of the warnings that have passed, or of the reminders, the last one is sent."""
    end = max(time for time, _ in history) + after * MINUTE
    world = tell(history, order, end)
    priorities = [(time, f"p{n}") for time, n in sorted(history)]
    terms = {f"p{n}": CASES[n].find_terms(priorities[0][0]) for _, n in history}
    walked = walk(terms, priorities, end)
    warnings = [event.threshold for event in world.events if isinstance(event, WarningRaised)]
    reminders = [event.after for event in world.events if isinstance(event, ReminderRaised)]
    promised = terms[[name for since, name in priorities if since <= (walked.due_at or end)][-1]]
    if walked.due_at is not None and walked.due_at < end and promised is not None:
        late = promised.hours.elapsed(walked.due_at, end)
        assert (warnings, reminders) == ([], [span for span in (HOUR, 4 * HOUR) if span <= late][-1:])
    elif promised is not None:
        passed = {"75%": promised.target * 3 / 4, "30m before": promised.target - HOUR / 2}
        assert set(world.state.warned) == {text for text, share in passed.items() if share <= walked.used}
        assert warnings in ([], [max(world.state.warned, key=lambda text: passed[text], default="")])
        assert bool(warnings) == bool(world.state.warned) and reminders == []
    else:
        assert warnings == reminders == []


def test_an_objective_that_a_priority_does_not_have_is_announced_by_nothing_until_it_has() -> None:
    resolved = with_objectives("resolution").to_resolved()
    resolved["levels"][0]["objectives"]["resolution"]["critical"] = "none"
    world = World(policy=Policy.from_resolved(resolved))
    facts = (opened("foundation", "critical", "2025-11-03 10:00"), changed("minor", "2025-11-03 11:00"))
    for n, fact in enumerate(facts):
        world.put(replace(fact, id=f"{n}"))
        if n == 0:
            assert list(world.states) == [("first_response", 1)]
    applied = [event for event in world.events if isinstance(event, Applied)]
    assert [(event.objective, event.cause) for event in applied] == [
        ("first_response", "opened"),
        ("resolution", "priority_changed"),
    ]


def test_backtest_has_no_promise_as_no_outcome() -> None:
    world = World(policy=WORDS_POLICY)
    world.put(replace(opened("gold", "request", "2025-11-03 10:00"), id="o"))
    assert _name_outcome(world.state) == "none"
    world.put(replace(changed("serious", "2025-11-03 11:00", arrives="2025-11-03 13:00"), id="1"))
    world.put(replace(changed("request", "2025-11-03 12:00", arrives="2025-11-03 13:00"), id="2"))
    assert _name_outcome(world.state) == "cancelled"


@examples(40)
@given(histories, st.integers(1, 3000), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_an_earlier_opening_leaves_nothing_of_what_was_promised_as_from_the_later_one(
    history: list[tuple[datetime, int]], earlier: int, order: list[int]
) -> None:
    (first, priority), *_ = sorted(history)
    told = tell(history, order)
    opening = opened("gold", f"p{priority}", _write(first - earlier * MINUTE))
    told.put(replace(opening, arrives=END, id="earlier"))
    at_once = tell([(opening.time, priority), *history], order)
    told.put(Tick(END + MINUTE))
    at_once.put(Tick(END + MINUTE))
    fields = ("stage", "due_at", "target", "breached_at", "priority", "used", "since")
    assert [getattr(told.state, name) for name in fields] == [getattr(at_once.state, name) for name in fields]
