"""A load of tickets whose end is worked out by hand, its publisher, and what must have become of it."""

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from projections.registry import PROJECTIONS
from services.bus.reader import StreamReader
from services.maintenance.verify import Verifier
from services.runtime.settings import load_policy
from services.store.interface import Database
from sla.engine import Engine, Message
from sla.log import Announced
from sla.versions import Versions
from tests.support.bus import Fact, ago, fact, opened, responded, stored
from tests.support.memory import Memory

HOUR = timedelta(hours=1)


class Life(NamedTuple):
    """The facts of a ticket in the order in which they are sent; `broken_at` and `met` are worked out by hand."""

    ticket: str
    facts: list[Fact]
    broken_at: datetime | None
    met: bool | None


def lives(count: int) -> Iterator[Life]:
    """Enterprise, open every second: critical 2 h, serious 4 h, minor 8 h."""
    for n in range(count):
        ticket = f"LIFE.{n}"
        start = ago(hours=9) + timedelta(seconds=n)
        late, in_time = responded(ticket, start + 3 * HOUR), responded(ticket, start + HOUR)
        raised = fact("priority_changed", ticket, start + HOUR, priority="critical")
        lowered = fact("priority_changed", ticket, start + HOUR, priority="serious")
        first, minor = opened(ticket, start), opened(ticket, start, "minor")
        escalated = fact("escalated", ticket, start + HOUR / 2)
        match n % 8:
            case 0:
                yield Life(ticket, [first], start + 2 * HOUR, None)
            case 1:
                yield Life(ticket, [first, in_time], None, True)
            case 2:
                yield Life(ticket, [late, first, escalated], start + 2 * HOUR, False)
            case 3:
                yield Life(ticket, [minor, raised, late], start + 2 * HOUR, False)
            case 4:
                yield Life(ticket, [first, late, lowered], None, True)
            case 5:
                yield Life(ticket, [minor], start + 8 * HOUR, None)
            case 6:
                yield Life(ticket, [first, late, in_time], None, True)
            case _:
                yield Life(ticket, [opened(ticket, ago(hours=0.4)), escalated], None, None)


def load(every: Iterable[Life], seed: int = 7) -> list[Fact]:
    """All facts; those of a ticket in their order, the tickets mixed, and one in ten sent twice."""
    shuffle = random.Random(seed)
    queues = [list(life.facts) for life in every]
    found: list[Fact] = []
    while queues:
        queue = queues[shuffle.randrange(min(len(queues), 40))]
        found.append(queue.pop(0))
        if shuffle.random() < 0.1:
            found.append(shuffle.choice(found[-100:]))
        if not queue:
            queues.remove(queue)
    return found


async def send(nc: Client, facts: Iterable[Fact]) -> None:
    """A publisher that tries each again until it is acknowledged, over outages and in order."""
    waiting = list(facts)
    js = nc.jetstream()
    for start in range(0, len(waiting), 50):
        some = waiting[start : start + 50]
        while some:
            answers = await asyncio.gather(
                *(js.publish(f.subject, f.body, 2.0, "TICKETS", headers=dict(f.headers)) for f in some),
                return_exceptions=True,
            )
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, nats.errors.Error | OSError):
                    raise answer
            some = [f for f, answer in zip(some, answers, strict=True) if isinstance(answer, BaseException)]


async def check_log_and_streams(nc: Client, store: Database, policy: str) -> None:
    """Log, SLA and DEAD_LETTERS are what an engine in memory makes of TICKETS: each decision once, in its order."""
    reader, messages = StreamReader(nc, "TICKETS", 0), list[Message]()
    last = (await nc.jetstream().stream_info("TICKETS")).state.last_seq
    while not messages or messages[-1].sequence < last:
        messages += await reader.read_batch()
    await reader.close()
    expected = Engine(Memory(Versions.only(load_policy(Path(policy))))).process(messages)
    with closing(store.open()) as found:
        log = found.read_log_entries(0, 1_000_000)
    assert [entry[1:] for entry in log] == [(recorded.originator_id, recorded.event) for recorded in expected.events]
    decided = [entry.event.id for entry in log if isinstance(entry.event, Announced)]
    said = [heard.event["id"] for heard in await stored(nc)]
    assert said == decided and len(set(said)) == len(said)
    dead = await stored(nc, "DEAD_LETTERS", "dead_letters.>")
    assert [int(heard.headers["Sla-Sequence"]) for heard in dead] == [each.message.sequence for each in expected.dead]
    with store.open_snapshot() as snapshot, Verifier(snapshot, PROJECTIONS) as verify:
        for _ in (*verify.check_projections(), *verify.check_tickets()):
            pass
    assert verify.shown == []


def check_lives(store: Database, every: list[Life]) -> None:
    """Each ticket has the state that was worked out by hand."""
    with closing(store.open()) as found:
        tickets = found.load_tickets(life.ticket for life in every)
    states = {id: (ticket.state.breached_at, ticket.state.met) for id, ticket in tickets.items()}
    assert states == {life.ticket: (life.broken_at, life.met) for life in every}
