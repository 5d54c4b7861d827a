"""Reading a stream like a log, with an ephemeral pull consumer. Publishing is in publisher.py."""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import Any
from uuid import uuid4

import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from services.bus.streams import REQUEST_TIMEOUT, read_last_sequence
from services.errors import BusError
from sla.engine import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StreamReader:
    """
    Reads a stream, or some of its partitions, like a log: from a sequence or an instant on, in order, in batches of
    what has arrived, without acknowledgements.

    If messages were missed, or the consumer is gone (docs/upstream-behaviour.md#f8), `read_batch` raises BusError. When
    it is called again, it re-creates the consumer, and goes on after the last message that it returned.
    """

    MAX_MESSAGES = 500  # of a batch, and of a request to the broker
    HEARTBEAT_TIMEOUT = 2.5  # seconds without a message or a heartbeat, after which the consumer is re-created

    def __init__(
        self, nc: Client, stream: str, after: int, partitions: Sequence[int] = (), since: datetime | None = None
    ) -> None:
        self._nc, self._stream, self._partitions, self._since = nc, stream, partitions, since
        self._after = after  # the last sequence that was returned
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._requested = 0  # messages the broker may still send for the last request
        self._next = 0  # the consumer sequence expected next; 0 if the consumer has to be re-created
        self._consumer = ""
        self._generation = 0
        self._inbox = ""
        self._subscription: Any = None
        self.pending = 0  # messages behind the newest one that has arrived, or that it was started after

    @property
    def lag(self) -> int:
        """How many messages are stored and not yet returned, as far as is known."""
        return self.pending + len(self._arrived)

    async def read_batch(self, within: float = inf) -> list[Message]:
        """
        Return the messages that have arrived, at most MAX_MESSAGES. Wait for one if there is none; after `within`
        seconds return an empty list.
        """
        give_up = asyncio.get_running_loop().time() + within
        if self._next == 0 and not self._arrived:
            await self.start()
        while not self._arrived:
            if self._next == 0:
                raise BusError(f"messages of {self._stream} were missed, or the consumer is gone; it is made again")
            if self._requested <= 0:
                await self._request_messages()
            self._wake.clear()
            try:
                async with asyncio.timeout(self.HEARTBEAT_TIMEOUT):
                    await self._wake.wait()
            except TimeoutError:
                self._next = 0
            if not self._arrived and self._next and asyncio.get_running_loop().time() >= give_up:
                return []
        batch = [self._arrived.popleft() for _ in range(min(self.MAX_MESSAGES, len(self._arrived)))]
        self._after = batch[-1].sequence
        if self._requested <= 0 and self._next and len(self._arrived) < self.MAX_MESSAGES:
            await self._request_messages()
        return batch

    async def close(self) -> None:
        """Stop receiving. The broker deletes the consumer by itself after a while."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None

    async def start(self) -> None:
        """Create the consumer. Raises BusError if the stream is missing, or is not the one that was read before."""
        await self.close()
        self._arrived.clear()
        js = self._nc.jetstream(timeout=REQUEST_TIMEOUT)
        newest = await read_last_sequence(self._nc, self._stream)
        if newest < self._after:
            raise BusError(
                f"stream {self._stream} ends at {newest}, but everything up to {self._after} is already stored: it is "
                "not the stream this store belongs to; restore the stream, or start with an empty store"
            )
        by_time = self._since is not None and self._after == 0
        config = ConsumerConfig(
            name=uuid4().hex,  # in the subject of the request, so that permissions can tell consumers apart
            deliver_policy=DeliverPolicy.BY_START_TIME if by_time else DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=None if by_time else self._after + 1,
            opt_start_time=self._since if by_time else None,
            filter_subjects=[f"{number}.>" for number in self._partitions] or None,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=30,
            mem_storage=True,
            num_replicas=1,
        )
        made = await js.add_consumer(self._stream, config)
        self._consumer, self.pending = made.name, made.num_pending or 0
        self._inbox = self._nc.new_inbox()
        self._generation += 1
        self._subscription = await self._nc.subscribe(self._inbox, cb=partial(self._receive, self._generation))
        self._requested, self._next = 0, 1

    async def find_caught_up_sequence(self) -> int:
        """
        Return the sequence of the stream up to which this reader has returned everything of its partitions.

        The broker is asked for it, since a reader does not receive the messages of other partitions.
        """
        newest = await read_last_sequence(self._nc, self._stream)
        try:
            info = await self._nc.jetstream(timeout=REQUEST_TIMEOUT).consumer_info(self._stream, self._consumer)
        except nats.js.errors.NotFoundError:
            self._next = 0
            return self._after
        delivered = info.delivered.consumer_seq if info.delivered else 0
        is_all = info.num_pending == 0 and delivered == self._next - 1 and not self._arrived
        return newest if is_all else self._after

    async def _request_messages(self) -> None:
        request = {"batch": self.MAX_MESSAGES, "expires": 30_000_000_000, "idle_heartbeat": 1_000_000_000}
        self._requested = self.MAX_MESSAGES
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._nc.publish(subject, json.dumps(request).encode(), self._inbox)

    async def _receive(self, generation: int, message: Msg) -> None:
        if generation != self._generation:
            return  # from a consumer that was replaced
        if not message.reply.startswith("$JS.ACK."):
            self._handle_status(message)
            return
        tokens = message.reply.split(".")
        first = 5 if len(tokens) == 9 else 7  # newer servers may name domain and account before the stream
        sequence, number, stored_ns, self.pending = map(int, tokens[first : first + 4])
        if number != self._next:
            self._next = 0  # a message was missed: re-create the consumer after what was returned
        else:
            self._next += 1
            self._requested -= 1
            stored_at = _EPOCH + timedelta(microseconds=stored_ns // 1000)
            self._arrived.append(Message(sequence, stored_at, message.subject, message.headers, message.data))
        self._wake.set()

    def _handle_status(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status", "")
        if status == "100":
            self._wake.set()
            return
        self._requested = 0
        if status not in ("408", "404"):
            self._next = 0  # the consumer is gone, or the server shuts down
        self._wake.set()
