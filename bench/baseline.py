"""The floors of intake, latency, deadlines and storm: what these inputs, rows and outputs cost without any model."""

import asyncio
import gc
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from bench.engine import process
from projections.registry import PROJECTIONS
from services.bus.connection import connect
from services.bus.publisher import MIN_ATOMIC_BATCH, Outgoing
from services.bus.streams import SLA, STREAMS, TICKETS
from services.store.postgres import PostgresDatabase
from services.store.sqlite import SqliteFile

BATCH = 500  # as services.bus.reader.StreamReader
IN, OUT = "FLOOR_IN", "FLOOR_OUT"  # the streams of a floor that works beside an engine


class Pull:
    """Takes what has arrived, in order, and acknowledges without waiting: a bare pull consumer."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc, self._stream = nc, stream
        self._arrived: list[Msg] = []
        self._wake = asyncio.Event()
        self._asked = 0

    async def start(self) -> None:
        config = ConsumerConfig(durable_name="floor", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=10 * BATCH)
        await self._nc.jetstream().add_consumer(self._stream, config)
        self._inbox = self._nc.new_inbox()
        self._subscription = await self._nc.subscribe(self._inbox, cb=self._arrive)

    async def take(self) -> list[Msg]:
        while not self._arrived:
            if self._asked <= 0:
                self._asked = BATCH
                request = json.dumps({"batch": BATCH, "expires": 30_000_000_000}).encode()
                await self._nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.floor", request, self._inbox)
            self._wake.clear()
            await self._wake.wait()
        taken, self._arrived = self._arrived, []
        return taken

    async def close(self) -> None:
        await self._subscription.unsubscribe()
        await self._nc.jetstream().delete_consumer(self._stream, "floor")

    async def _arrive(self, message: Msg) -> None:
        if message.reply:
            self._asked -= 1
            self._arrived.append(message)
        else:
            self._asked = 0  # the request has expired
        self._wake.set()


class Push:
    """Publishes and waits for all acknowledgements, without looking at more than their number."""

    def __init__(self, nc: Client) -> None:
        self._nc, self._missing, self._done = nc, 0, asyncio.Event()
        self._inbox = nc.new_inbox()

    async def start(self) -> None:
        self._subscription = await self._nc.subscribe(self._inbox, cb=self._answered)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._missing = len(messages)
        self._done.clear()
        for message in messages:
            await self._nc.publish(message.subject, message.body, self._inbox, message.headers)
        await self._done.wait()

    async def publish_as_one(self, messages: Sequence[Outgoing]) -> None:
        """All of the messages or none, as the engine does with many: one visit of the broker to the disk."""
        batch = uuid4().hex
        self._missing = 1
        self._done.clear()
        for number, message in enumerate(messages, 1):
            headers = message.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            last = number == len(messages)
            if last:
                headers["Nats-Batch-Commit"] = "1"
            await self._nc.publish(message.subject, message.body, self._inbox if last else "", headers)
        await self._done.wait()

    async def close(self) -> None:
        await self._subscription.unsubscribe()

    async def _answered(self, message: Msg) -> None:
        assert b'"seq"' in message.data, message.data
        self._missing -= 1
        if not self._missing:
            self._done.set()


class SqliteRows:
    """Inserts into the tables of a migrated store, and commits as safely as the engine does."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA wal_autocheckpoint=4000")

    def insert(self, events: Sequence[Any], inbox: Sequence[Any], position: int) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE partitions SET position = ?", (position,))
        connection.executemany("INSERT INTO stored_events VALUES (?, ?, ?, ?)", events)
        connection.executemany("INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?, ?)", inbox)
        connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class PostgresRows:
    """The same in PostgreSQL: one transaction, rows as arrays, places in the log counted here."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._connection = database.connect()
        self._place = 0

    def insert(self, events: Sequence[Any], inbox: Sequence[Any], position: int) -> None:
        places = range(self._place + 1, self._place + len(events) + 1)
        self._place += len(events)
        with self._connection.pipeline(), self._connection.transaction():
            self._connection.execute("UPDATE partitions SET position = %s", (position,))
            columns = [list(column) for column in zip(*events, strict=True)]
            self._connection.execute(
                "INSERT INTO stored_events SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[], "
                "%s::bigint[])",
                (*columns, list(places)),
            )
            self._connection.execute(
                "INSERT INTO inbox SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bytea[], "
                "%s::bytea[], %s::text[])",
                [list(column) for column in zip(*inbox, strict=True)],
            )

    def close(self) -> None:
        self._connection.close()


class Hops:
    """
    For each fact two rows of events and one of the inbox, for each tick one row of an event; and one message out. All
    are of the size the engine's have.
    """

    def __init__(self, nc: Client, path: Path, ticks: bool = False) -> None:
        SqliteFile(path).migrate(PROJECTIONS)
        self._pull, self._push, self._rows = Pull(nc, IN), Push(nc), SqliteRows(path)
        self._ticks, self._done = ticks, 0

    async def start(self) -> None:
        await self._pull.start()
        await self._push.start()

    async def take(self) -> int:
        """How many had arrived and are done; waits for one. Many go out as one, as the engine's do."""
        messages = await self._pull.take()
        keys = [(f"{self._done + number}", message.subject) for number, message in enumerate(messages)]
        if self._ticks:
            events, inbox = [(key, 1, "breached/1", b"s" * 790) for key, _ in keys], []
        else:
            events = [(key, version, "applied/1", b"s" * 450) for key, _ in keys for version in (1, 2)]
            inbox = [(int(key), "recorded", "ticket.opened", None, key.encode(), b"d" * 16, key) for key, _ in keys]
        self._rows.insert(events, inbox, self._done + len(messages))
        out = [_out(subject.replace("floor_in", "floor_out"), key) for key, subject in keys]
        await (self._push.publish_as_one if len(out) >= MIN_ATOMIC_BATCH else self._push.publish)(out)
        for message in messages:
            await message.ack()
        self._done += len(messages)
        return len(messages)


def _out(subject: str, key: str) -> Outgoing:
    return Outgoing(subject, {"Content-Type": "application/cloudevents+json", "Nats-Msg-Id": key}, b"b" * 750)


async def serve(nc: Client, path: str) -> None:
    """The floor of latency: takes what comes."""
    hops = Hops(nc, Path(path))
    await hops.start()
    ready()
    while True:
        await hops.take()


async def storm(nc: Client, path: str) -> None:
    """The floor of storm: takes so many ticks, a multiple of BATCH, when it is told to on `floor_go`."""
    hops = Hops(nc, Path(path), ticks=True)
    await hops.start()
    go = await nc.subscribe("floor_go")
    await nc.flush()
    ready()
    while True:
        left = int((await go.next_msg(timeout=None)).data)
        while left:
            left -= await hops.take()


async def remind(nc: Client, others: str) -> None:
    """The floor of deadlines: a message out at each instant told on `floor_due.>`, with others waiting beside them."""
    heap = [(inf, f"T-{number}") for number in range(int(others))]
    told, push = asyncio.Event(), Push(nc)

    async def tell(message: Msg) -> None:
        heappush(heap, (float(message.data), message.subject.replace("floor_due", "floor_out")))
        told.set()

    await push.start()
    await nc.subscribe("floor_due.>", cb=tell)
    await nc.flush()
    ready()
    while True:
        told.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(heap[0][0] - time()):
                await told.wait()
        due = []
        while heap[0][0] <= time():
            _, subject = heappop(heap)
            due.append(_out(subject, subject))
        if due:
            await push.publish(due)


def ready() -> None:
    """As services.wiring, the garbage collector looks at little; whoever started this process goes on."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    print("ready", flush=True)


async def provision(nc: Client) -> None:
    """Two streams like TICKETS and SLA, for the floor alone."""
    of = {stream.name: stream for stream in STREAMS}
    js = nc.jetstream()
    await js.add_stream(of[TICKETS], name=IN, subjects=["floor_in.>"])
    await js.add_stream(of[SLA], name=OUT, subjects=["floor_out.>"])


@contextmanager
def running(mode: str, url: str, argument: str) -> Iterator[None]:
    """A floor in a process of its own, as the engine is, on the same broker; ready."""
    command = [sys.executable, "-m", "bench.baseline", mode, url, argument]
    with process(command, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        yield


async def main(mode: str, url: str, argument: str) -> None:
    """One of the modes, until the process is ended."""
    nc = await connect(url, "floor")
    await provision(nc)
    await {"serve": serve, "storm": storm, "remind": remind}[mode](nc, argument)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
