"""What people would write instead of the engine, as processes; how they do is measured in bench/comparison.py.

`python -m bench.comparison_engines polling|handlers URL FOLDER`: FOLDER has `policy/`, and gets the store. Both use our
calendar.
"""

import asyncio
import json
import logging
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from heapq import heappop, heappush
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from faststream import FastStream
from faststream.nats import JStream, NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.bus.connection import connect
from services.bus.streams import SLA, STREAMS, TICKETS
from services.runtime.settings import load_policy
from sla.policy import Policy

IN, OUT = "RIVAL_IN", "RIVAL_OUT"
BATCH, EVERY = 500, 1.0  # facts, as services.bus.reader.StreamReader; seconds between two looks of the polling job


async def provision(nc: Client) -> None:
    """Streams of their own, like TICKETS and SLA."""
    of = {stream.name: stream for stream in STREAMS}
    await nc.jetstream().add_stream(of[TICKETS], name=IN, subjects=["rival_in.>"])
    await nc.jetstream().add_stream(of[SLA], name=OUT, subjects=["rival_out.>"])


def due(policy: Policy, fact: dict[str, Any]) -> datetime:
    """When the promise to a ticket that was opened breaks."""
    level, priority = fact["data"]["service_level"], fact["data"]["priority"]
    return policy.get_target(level, priority).find_due(datetime.fromisoformat(fact["time"]))


def said(outcome: str, ticket: str, level: str, priority: str, due_at: datetime) -> tuple[str, dict[str, Any]]:
    """Subject and body of what is published: an envelope like the engine's, with what these know."""
    data = {"ticket_id": ticket, "service_level": level, "priority": priority, "due_at": due_at.isoformat()}
    about = {"id": f"{outcome}-{ticket}", "subject": ticket, "time": datetime.now(UTC).isoformat(), "data": data}
    body = {"specversion": "1.0", "type": f"sla.{outcome}", "source": "/rival"} | about
    return f"rival_out.{outcome}.{level}.{priority}.{ticket}", body


TABLE = "tickets (id TEXT PRIMARY KEY, level, priority, opened_at, due_at, responded_at, breached_at)"
TICKET = "SELECT id, level, priority, due_at FROM tickets WHERE"


class Polling:
    """A table, looked at every second. It acknowledges and marks what was published, and publishes it with an id."""

    def __init__(self, nc: Client, folder: Path) -> None:
        self._js, self._policy = nc.jetstream(), load_policy(folder / "policy")
        self._db = sqlite3.connect(folder / "tickets.db")
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        self._db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE}")
        self._db.execute("CREATE INDEX IF NOT EXISTS tickets_due ON tickets (due_at)")

    async def consume(self) -> None:
        pulled = await self._js.pull_subscribe("rival_in.>", "polling", IN)
        print("ready", flush=True)
        while True:
            with suppress(TimeoutError):  # nothing has come
                await self._take(await pulled.fetch(BATCH, timeout=30))

    async def _take(self, messages: Iterable[Msg]) -> None:
        with self._db:
            stored = [(message, *self._store(json.loads(message.data))) for message in messages]
        await self._publish([(outcome, *row) for _, outcome, row in stored if row])
        for message, _, row in stored:
            await (message.ack() if row else message.nak(delay=1))  # an answer that came before its ticket

    def _store(self, fact: dict[str, Any]) -> tuple[str, Any]:
        """What follows, and the row of the ticket then; None if there is none."""
        ticket, data, at = fact["subject"], fact["data"], datetime.fromisoformat(fact["time"]).timestamp()
        if opened := fact["type"] == "ticket.opened":
            row = (ticket, data["service_level"], data["priority"], at, due(self._policy, fact).timestamp())
            self._db.execute("INSERT OR IGNORE INTO tickets VALUES (?, ?, ?, ?, ?, NULL, NULL)", row)
        else:
            self._db.execute("UPDATE tickets SET responded_at = ? WHERE id = ? AND responded_at IS NULL", (at, ticket))
        return "applied" if opened else "fulfilled", self._db.execute(f"{TICKET} id = ?", (ticket,)).fetchone()

    async def _publish(self, outcomes: Iterable[tuple[str, str, str, str, float]]) -> None:
        acknowledged = []
        for outcome, ticket, level, priority, due_at in outcomes:
            subject, body = said(outcome, ticket, level, priority, datetime.fromtimestamp(due_at, UTC))
            headers = {"Nats-Msg-Id": body["id"]}
            acknowledged.append(await self._js.publish_async(subject, json.dumps(body).encode(), headers=headers))
        await asyncio.gather(*acknowledged)

    async def poll(self) -> None:
        late = f"{TICKET} breached_at IS NULL AND responded_at IS NULL AND due_at <= ?"
        while True:
            now = datetime.now(UTC).timestamp()
            rows = self._db.execute(late, (now,)).fetchall()
            await self._publish([("breached", *row) for row in rows])
            with self._db:
                self._db.executemany("UPDATE tickets SET breached_at = ? WHERE id = ?", [(now, row[0]) for row in rows])
            await asyncio.sleep(EVERY)


class Ticket(Aggregate):
    """A ticket, as the tutorial of eventsourcing writes aggregates."""

    @event("Opened")
    def __init__(self, name: str, level: str, priority: str, due_at: datetime) -> None:
        self.name, self.level, self.priority, self.due_at = name, level, priority, due_at
        self.waits = True

    @staticmethod
    def create_id(name: str, *_: Any, **__: Any) -> UUID:
        return uuid5(NAMESPACE_URL, f"/tickets/{name}")

    @event("Responded")
    def respond(self, at: datetime) -> None:
        self.waits = False

    @event("Breached")
    def breach(self, at: datetime) -> None:
        self.waits = False


class Tickets(Application[UUID]):
    def find(self, name: str) -> Any:
        with suppress(AggregateNotFoundError):
            return self.repository.get(Ticket.create_id(name))

    def waiting(self) -> list[tuple[datetime, str]]:
        """Deadline and name of each ticket that waits, from the log of all events; the first one first."""
        stored = self.recorder.select_notifications(None, sys.maxsize)
        happened: list[Any] = [self.mapper.to_domain_event(each) for each in stored]
        ended = {each.originator_id for each in happened if not isinstance(each, Aggregate.Created)}
        return sorted((each.due_at, each.name) for each in happened if each.originator_id not in ended)


async def handlers(url: str, folder: Path) -> None:
    """As in FastStream's tutorial, but durable, and quiet below warnings as the engine is in a bench."""
    policy = load_policy(folder / "policy")
    tickets = Tickets({"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "handlers.db")})
    heap, added = tickets.waiting(), asyncio.Event()
    app = FastStream(broker := NatsBroker(url, logger=logging.getLogger("handlers")))

    async def publish(outcome: str, ticket: Ticket) -> None:
        subject, body = said(outcome, ticket.name, ticket.level, ticket.priority, ticket.due_at)
        await broker.publish(body, subject, stream=OUT)

    @broker.subscriber("rival_in.>", stream=JStream(IN, declare=False), durable="handlers")
    async def handle(fact: dict[str, Any]) -> None:
        name, data = fact["subject"], fact["data"]
        ticket = tickets.find(name)
        if opened := fact["type"] == "ticket.opened":
            ticket = ticket or Ticket(name, data["service_level"], data["priority"], due(policy, fact))
            heappush(heap, (ticket.due_at, name))
            added.set()
        else:
            ticket.respond(datetime.fromisoformat(fact["time"]))
        tickets.save(ticket)
        await publish("applied" if opened else "fulfilled", ticket)

    async def breaches() -> None:
        while True:
            added.clear()
            left = (heap[0][0] - datetime.now(UTC)).total_seconds() if heap else None
            if left is None or left > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(added.wait(), left)
            elif (ticket := tickets.find(heappop(heap)[1])).waits:
                await publish("breached", ticket)
                ticket = tickets.find(ticket.name)  # it may have been answered meanwhile
                ticket.breach(datetime.now(UTC))
                tickets.save(ticket)

    @app.after_startup
    async def ready() -> None:
        running.add(asyncio.create_task(breaches()))
        print("ready", flush=True)

    running = set[asyncio.Task[None]]()
    await app.run()


async def polling(url: str, folder: Path) -> None:
    job = Polling(await connect(url, "polling"), folder)
    await asyncio.gather(job.consume(), job.poll())


if __name__ == "__main__":
    asyncio.run({"polling": polling, "handlers": handlers}[sys.argv[1]](sys.argv[2], Path(sys.argv[3])))
