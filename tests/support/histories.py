"""Histories of a ticket for hypothesis: facts that arrive early, late and out of order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import strategies as st

from tests.scenarios.scenario import Fact, stockholm

HOUR, DAY, AHEAD = timedelta(hours=1), timedelta(days=1), timedelta(minutes=5)


def find_end(history: Sequence[Fact], arrivals: Sequence[datetime] = ()) -> datetime:
    """Long after every deadline."""
    return max([fact.time for fact in history] + list(arrivals)) + 14 * DAY


# Times lie on a coarse grid over a weekend, a few of them a microsecond beside it: ties and edges are common.
BASE = stockholm("2025-11-07 08:00")
times = st.builds(
    lambda halves, micros: BASE + halves * HOUR / 2 + timedelta(microseconds=micros),
    st.integers(0, 2 * 24 * 4),
    st.sampled_from([0, 0, 0, 0, 1, -1, 40_000_000, 60_000_001]),
)
close_times = st.one_of(times, st.sampled_from([BASE + n * HOUR for n in (1, 2, 3, 5, 9, 10, 10.5)]))
levels = st.sampled_from(["foundation", "professional", "enterprise"])
priorities = st.sampled_from(["critical", "serious", "minor"])
reasons = st.sampled_from(["third_party", "basic_training"])
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
    st.tuples(st.just("escalated"), st.sampled_from([{}, *({"by": by} for by in ("ticket", "account_manager"))])),
    st.tuples(st.sampled_from(["closed", "reopened", "paused", "resumed"]), st.just({})),
    st.tuples(st.sampled_from(["paused", "resumed"]), st.fixed_dictionaries({"reason": reasons})),
    st.tuples(st.sampled_from(["closed", "reopened"]), st.just({})),
    st.tuples(st.sampled_from(["excluded", "exclusion_revoked"]), st.fixed_dictionaries({"reason": reasons})),
    st.tuples(st.just("corrected"), corrections),
    st.tuples(st.just("fact_withdrawn"), st.fixed_dictionaries({"withdraws": ids})),
    st.tuples(st.just("details_changed"), st.sampled_from([{"team": "web"}, {"team": "chat", "customer": "Acme"}])),
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
        facts.append(replace(fact, arrives=max([arrives, *list_corrected_times(fact)])))
    return facts


def list_corrected_times(fact: Fact) -> list[datetime]:
    """The time that a correction gives."""
    return [datetime.fromisoformat(fact.data["time"])] if "time" in fact.data else []
