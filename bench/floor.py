"""The floor of intake and latency: what these inputs, rows and outputs cost without any model."""

import asyncio
import gc
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from services.bus import Outgoing, connect
from services.postgres import PostgresDatabase
from services.streams import SLA, STREAMS, TICKETS

BATCH = 500  # as services.bus.StreamReader
IN, OUT = "FLOOR_IN", "FLOOR_OUT"  # the streams of the floor of latency, which works beside an engine


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

    def insert(self, events: Sequence[Any], inbox: Sequence[Any]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE partitions SET position = ?", (inbox[-1][0],))
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

    def insert(self, events: Sequence[Any], inbox: Sequence[Any]) -> None:
        places = range(self._place + 1, self._place + len(events) + 1)
        self._place += len(events)
        with self._connection.pipeline(), self._connection.transaction():
            self._connection.execute("UPDATE partitions SET position = %s", (inbox[-1][0],))
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


async def serve(url: str, path: Path) -> None:
    """For each message two rows of events, one of the inbox and one message out, of the size the engine's have."""
    nc = await connect(url, "floor")
    pull, push, rows = Pull(nc, IN), Push(nc), SqliteRows(path)
    await pull.start()
    await push.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as services.wiring
    print("ready", flush=True)
    done = 0
    while True:
        messages = await pull.take()
        keys = [(f"{done + number}", message.subject) for number, message in enumerate(messages)]
        events = [(key, version, "applied/1", b"s" * 450) for key, _ in keys for version in (1, 2)]
        inbox = [(int(key), "recorded", "ticket.opened", None, key.encode(), b"d" * 16, key) for key, _ in keys]
        rows.insert(events, inbox)
        headers = {"Content-Type": "application/cloudevents+json"}
        await push.publish(
            [
                Outgoing(subject.replace("floor_in", "floor_out"), headers | {"Nats-Msg-Id": key}, b"b" * 750)
                for key, subject in keys
            ]
        )
        for message in messages:
            await message.ack()
        done += len(messages)


async def provision(nc: Client) -> None:
    """Two streams like TICKETS and SLA, for the floor alone."""
    of = {stream.name: stream for stream in STREAMS}
    js = nc.jetstream()
    await js.add_stream(of[TICKETS], name=IN, subjects=["floor_in.>"])
    await js.add_stream(of[SLA], name=OUT, subjects=["floor_out.>"])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
