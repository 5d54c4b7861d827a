"""What helpdesks send while everything breaks, and what must have become of it, worked out by hand."""

import asyncio
from collections.abc import Coroutine, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client

from tests.support.bus import Fact, fact, now, opened, responded, token

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
TWO_HOURS = 2 * HOUR  # Enterprise critical; open every second (open_all_hours)


class Life(NamedTuple):
    """A ticket: its facts with the seconds after which each is sent, and its end; None if it was not answered."""

    ticket: str
    facts: list[tuple[float, Fact]]
    broken_at: datetime | None
    met: bool | None


def falling(name: str, due_in: float, kind: int, late_by: float = 3.0) -> Life:
    """A ticket whose deadline falls while the engine works, `due_in` seconds from now."""
    due = now() + due_in * SECOND
    first = opened(name, due - TWO_HOURS)
    match kind % 9:
        case 0:  # nobody answers
            return Life(name, [(0, first)], due, None)
        case 1:  # answered in time, and told in time
            answer = responded(name, due - SECOND)
            return Life(name, [(0, first), (max(0.0, due_in - 2), answer)], None, True)
        case 2:  # answered in time, and told too late: the breach is withdrawn
            answer = responded(name, due - 60 * SECOND)
            return Life(name, [(0, first), (due_in + late_by, answer)], None, True)
        case 3:  # answered too late
            answer = responded(name, due + SECOND)
            return Life(name, [(0, first), (due_in + late_by, answer)], due, False)
        case 4:  # lowered in time: the deadline is far away
            lowered = fact("priority_changed", name, due - HOUR, priority="minor")
            return Life(name, [(0, first), (max(0.0, due_in - 3), lowered)], None, None)
        case 5:  # closed in time, and told too late
            end = fact("closed", name, due - 60 * SECOND)
            return Life(name, [(0, first), (due_in + late_by, end)], None, None)
        case 6:  # excluded too late, and revoked: broken after all
            out = fact("excluded", name, due, reason="basic_training")
            back = fact("exclusion_revoked", name, due + SECOND, reason="basic_training")
            return Life(name, [(0, first), (due_in + late_by, out), (due_in + late_by + 1, back)], due, None)
        case 7:  # answered too late by mistake: corrected, it was in time
            answer = responded(name, due + SECOND)
            right = fact(
                "corrected", name, due + SECOND, corrects=answer.event["id"], time=(due - 60 * SECOND).isoformat()
            )
            return Life(name, [(0, first), (due_in + late_by, answer), (due_in + late_by + 1, right)], None, True)
        case _:  # raised, told late: another instant is the deadline, and then it is broken there
            minor = opened(name, due - TWO_HOURS, "minor")
            raised = fact("priority_changed", name, due - HOUR, priority="critical")
            return Life(name, [(0, minor), (due_in + late_by, raised)], due, None)


def past(name: str, kind: int) -> Life:
    """A ticket whose deadline has passed long before it is told."""
    start = now() - 5 * HOUR
    first, due = opened(name, start), start + TWO_HOURS
    match kind % 3:
        case 0:
            return Life(name, [(0, first)], due, None)
        case 1:
            return Life(name, [(0, responded(name, due + HOUR)), (0, first)], due, False)
        case _:
            escalated = fact("escalated", name, start + HOUR)
            return Life(name, [(0, first), (1, responded(name, start + HOUR)), (1, escalated)], None, True)


def bad(ticket: str, kind: int) -> Fact:
    """A message that cannot count; its dead letter has the same bytes."""
    match kind % 3:
        case 0:
            return fact("opened", ticket, now(), service_level="enterprise", priority="urgent")
        case 1:
            good = responded(ticket, now())
            return good._replace(body=good.body[:-1] + f" {kind}".encode())
        case _:
            return responded(ticket, now())._replace(subject=f"tickets.responded.{token(ticket)}-{kind}")


class Publisher:
    """Sends each fact until it is acknowledged, over outages; one in ten once more. Keeps what was acknowledged."""

    def __init__(self, nc: Client, rng: Random) -> None:
        self._nc, self._rng = nc, rng
        self.lives: list[Life] = []
        self.bad: list[Fact] = []
        self._sending: set[asyncio.Task[None]] = set()

    def live(self, life: Life) -> None:
        """Begins to send the facts of a ticket, each at its time, in their order."""
        self.lives.append(life)
        self._begin(self._tell(life))

    def refuse(self, fact: Fact) -> None:
        self.bad.append(fact)
        self._begin(self._send(fact, repeat=False))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _tell(self, life: Life) -> None:
        started = asyncio.get_running_loop().time()
        for after, each in life.facts:
            await asyncio.sleep(started + after - asyncio.get_running_loop().time())
            await self._send(each, repeat=self._rng.random() < 0.1)

    async def _send(self, fact: Fact, repeat: bool) -> None:
        js = self._nc.jetstream()
        acknowledged = False
        while not acknowledged:
            try:
                await js.publish(fact.subject, fact.body, 2.0, "TICKETS", headers=dict(fact.headers))
                acknowledged = not repeat
                repeat = False
            except (nats.errors.Error, OSError):
                await asyncio.sleep(0.1)

    async def all_sent(self) -> None:
        """Waits until everything is acknowledged."""
        while self._sending:
            await asyncio.wait(list(self._sending))
            for task in list(self._sending):
                if task.done():
                    task.result()


def burst(names: Iterator[str], rng: Random, size: int) -> list[Life]:
    """Many at once, whose decisions are announced as one batch."""
    return [past(next(names), rng.randrange(3)) for _ in range(size)]
