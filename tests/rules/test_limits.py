"""What is bounded: memory, the work for one fact of a large ticket, and the time that an end under load may take."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from traceback import extract_stack
from typing import Any

import pytest

import sla.engine
import sla.judge
import sla.ticket
from events.tickets import Escalated, Opened, PriorityChanged
from sla.engine import Engine, Message
from sla.judge import Fact, Facts, Labels, judge
from sla.ticket import BYTES_OF_FACT
from sla.versions import Versions
from tests.scenarios.scenario import Fact as Sent
from tests.support.bus import connected, deployment, nats_server, opened, position, rows, settled, stored, until
from tests.support.memory import POLICY, Memory

ONE = Versions.only(POLICY)
START = datetime(2026, 11, 23, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)


# ---- calls


def test_from_the_engine_to_the_judgement_it_is_three_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = list[list[str]]()

    def judge_here(*arguments: Any) -> Any:
        stacks.append([frame.name for frame in extract_stack()[:-1]])
        return judge(*arguments)

    monkeypatch.setattr(sla.ticket, "judge", judge_here)
    Kept().take("T-1", "opened", service_level="foundation", priority="critical")
    (calls,) = stacks
    assert [*calls[calls.index("process") :], "judge"] == ["process", "decide", "judge"]


# ---- memory


class Kept:
    """An engine on a store in memory, and how many facts of how many tickets it keeps in mind."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.engine = Engine(self.memory)
        self._numbers = count(1)

    def take(self, ticket: str, kind: str, **data: str) -> None:
        n = next(self._numbers)
        sent = Sent(kind, data, START, START, f"f{n}", "/a", None)
        self.memory.save(self.engine.process([Message(n, START, *sent.message(ticket))]))

    def count_facts(self) -> dict[str, int]:
        return {id: len(ticket.facts) for id, ticket in self.engine._tickets.items()}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(sla.engine, "MAX_CACHED_BYTES", 10 * (BYTES_OF_FACT + 200))
    return Kept()


def test_few_tickets_of_many_facts_do_not_fill_the_memory(kept: Kept) -> None:
    for n in range(60):
        ticket = f"T-{n % 3}"
        kept.take(ticket, "escalated", reason=f"number {n}")
        assert sum(kept.count_facts().values()) <= 10 and kept.count_facts().get(ticket, 0) in (0, n // 3 + 1)
    assert {id: len(ticket.facts) for id, ticket in kept.memory.load_tickets(["T-0", "T-1", "T-2"]).items()} == {
        "T-0": 20,
        "T-1": 20,
        "T-2": 20,
    }


def test_what_was_told_of_tickets_that_are_never_opened_is_forgotten_and_found_again(kept: Kept) -> None:
    for n in range(100):
        kept.take(f"ORPHAN-{n}", "escalated", reason="nobody knows this ticket")
    assert list(kept.count_facts()) == [f"ORPHAN-{n}" for n in range(91, 100)]
    kept.take("ORPHAN-0", "opened", service_level="enterprise", priority="critical")
    kinds = [recorded.event.KIND for recorded in kept.memory.log["ORPHAN-0"] if hasattr(recorded.event, "KIND")]
    assert kinds == ["applied", "escalated"]


def test_long_texts_count_for_what_they_take(kept: Kept) -> None:
    """Ten facts of 1.7 kB fit; with 500 emoji each, which take 4 kB in memory and as UTF-8, only two."""
    for n in range(20):
        kept.take(f"T-{n}", "escalated", reason="😀" * 500)
    assert list(kept.count_facts()) == ["T-18", "T-19"]


def test_what_could_not_be_stored_is_neither_kept_nor_counted(kept: Kept) -> None:
    for n in range(8):
        kept.take("T-1", "escalated", reason=f"number {n}")
    kept.engine.forget()
    for n in range(5):
        kept.take("T-2", "escalated", reason=f"number {n}")
    assert kept.count_facts() == {"T-2": 5}


# ---- the work for one fact


def generate_facts(rng: Random, number: int) -> Iterator[Fact]:
    """A ticket whose priority is changed again and again while its promise runs, and that is escalated meanwhile."""
    yield Fact("/a", "0", START, Opened(service_level="foundation", priority="minor"), None, START)
    for n in range(1, number):
        data = Escalated() if n % 3 == 0 else PriorityChanged(priority=rng.choice(("critical", "serious", "minor")))
        yield Fact("/a", str(n), START + n * SECOND, data, None, START)


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[Fact]:
    """The changes that were folded, each as often as that was done."""
    found = []
    apply_change = sla.judge._apply_change

    def counted(labels: Labels, change: Fact, *more: Any) -> Labels:
        found.append(change)
        return apply_change(labels, change, *more)

    monkeypatch.setattr(sla.judge, "_apply_change", counted)
    return found


def test_each_fact_of_a_ticket_is_folded_once_if_they_arrive_in_their_order(folds: list[Fact]) -> None:
    known = Facts()
    for fact in generate_facts(Random(1), 1_000):
        known.add(fact)
        judge(known, ONE, fact.time)
    assert len(folds) == len({fact.id for fact in folds}) > 300


def test_a_fact_that_arrives_late_is_folded_with_those_that_happened_after_it(folds: list[Fact]) -> None:
    every, known = list(generate_facts(Random(1), 301)), Facts()
    late = every.pop(200)
    for fact in every:
        known.add(fact)
    judge(known, ONE, START + 400 * SECOND)
    folds.clear()
    known.add(late)
    judge(known, ONE, START + 400 * SECOND)
    assert folds and {fact.time >= late.time for fact in folds} == {True}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_remembered_changes_no_verdict(seed: int) -> None:
    rng = Random(seed)
    every = list(generate_facts(rng, 30))
    every += [
        Fact("/b", fact.id, fact.time, fact.data, rng.choice(("1", None)), START) for fact in rng.sample(every, 5)
    ]
    earlier = Opened(service_level="enterprise", priority="serious")
    every.append(Fact("/a", "earlier", START - SECOND, earlier, None, START))
    rng.shuffle(every)
    known = Facts()
    for n, fact in enumerate(every, 1):
        known.add(fact)
        afresh = Facts()
        for each in every[:n]:
            afresh.add(each)
        for now in (START + rng.randrange(40) * SECOND, START + 40 * SECOND):
            assert judge(known, ONE, now) == judge(afresh, ONE, now)


# ---- the end


@pytest.mark.parts
@pytest.mark.anyio
@pytest.mark.xdist_group("limits")
async def test_a_process_that_is_asked_to_end_under_load_ends_in_time_and_loses_nothing(tmp_path: Path) -> None:
    services = ("intake", "clock", "announcer", "metrics")
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server) as deployed,
        connected(server.url) as nc,
    ):
        js, sent = nc.jetstream(), 0

        async def flood() -> None:
            nonlocal sent
            for n in count():
                tickets = [opened(f"T.{n}.{m}", START) for m in range(20)]
                await asyncio.gather(*(js.publish(each.subject, each.body, headers=each.headers) for each in tickets))
                sent += len(tickets)

        flooding = asyncio.create_task(flood())
        seen = 0
        for _ in range(2):
            process = deployed.run(*services).process
            await until("it works", lambda before=seen: position(deployed.store, "intake") > before + 200)
            process.end()  # within 10 s, with 0 and without a traceback
            seen = position(deployed.store, "intake")
        flooding.cancel()
        await asyncio.wait([flooding])
        last = deployed.run(*services).process
        try:
            await settled(nc, deployed.store)
            last.end()
        finally:
            last.kill()
        assert rows(deployed.store, "SELECT outcome, count(*) FROM inbox GROUP BY outcome")[0][0] == "recorded"
        ((recorded, tickets),) = rows(deployed.store, "SELECT count(*), count(DISTINCT ticket) FROM inbox")
        assert sent <= recorded == tickets <= sent + 20
        announced = [each.headers["Nats-Msg-Id"] for each in await stored(nc)]
        assert len(announced) == len(set(announced)) >= recorded


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
