"""Publishing to a stream: in order and acknowledged, one by one or as one atomic batch. Reading is in reader.py."""

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg

from services.errors import BusError, PublishRefusedError
from services.faults import reach

MIN_ATOMIC_BATCH = 25  # messages: fewer are stored sooner one by one (docs/upstream-behaviour.md#n2)
MAX_ATOMIC_BATCH = 1_000  # messages: the broker refuses more
EXPECTED_SEQUENCE_HEADER = "Nats-Expected-Last-Sequence"
EXPECTED_ID_HEADER = "Nats-Expected-Last-Msg-Id"
ID_HEADER = "Nats-Msg-Id"


class Published(NamedTuple):
    """The broker's acknowledgement of a message. A duplicate was stored before, under this sequence."""

    sequence: int
    duplicate: bool


class Outgoing(NamedTuple):
    """A message to publish."""

    subject: str
    headers: dict[str, str]
    body: bytes


def chain_sequences(messages: Sequence[Outgoing], sequence: int) -> Sequence[Outgoing]:
    """
    Return the messages, which have ids, with headers by which the broker stores each only directly after the one before
    it, the first directly after `sequence`. So of the messages a beginning is stored, whatever happens.

    The sequence alone does not do that: a foreign message in the place of the first one would let the second in.
    """
    before = ""
    for expected, message in enumerate(messages, sequence):
        message.headers[EXPECTED_SEQUENCE_HEADER] = str(expected)
        message.headers.pop(EXPECTED_ID_HEADER, None)
        if before:
            message.headers[EXPECTED_ID_HEADER] = before
        before = message.headers[ID_HEADER]
    return messages


class Publisher:
    """
    Publishes many messages in order, and then waits for all acknowledgements, which come to one inbox.

    A refusal, or no answer, raises BusError. Some of the messages may be stored then; the caller has to find out which
    (docs/upstream-behaviour.md#f9, docs/upstream-behaviour.md#f10). A refusal names the duplicates before it.
    """

    ACKNOWLEDGE_TIMEOUT = 10.0  # seconds for all answers to one call

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc, self._stream = nc, stream
        self._inbox = nc.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._subscription: Any = None

    async def publish(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish the messages; return the broker's answers in their order."""
        if self._subscription is None:
            self._subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._receive_answer)
        loop = asyncio.get_running_loop()
        answers: dict[str, asyncio.Future[Msg]] = {}
        connection = self._count_connections()
        for message in messages:
            token = str(next(self._numbers))
            answers[token] = self._waiting[token] = loop.create_future()
            headers = {"Nats-Expected-Stream": self._stream, **message.headers}
            await self._nc.publish(message.subject, message.body, f"{self._inbox}.{token}", headers)
        published: list[Published] = []
        try:
            async with asyncio.timeout(self.ACKNOWLEDGE_TIMEOUT):
                for answer in answers.values():
                    acknowledgement = await self._wait_for(answer, connection)
                    published.append(_parse_acknowledgement(acknowledgement))
            return published
        except PublishRefusedError as refusal:
            refusal.duplicates = find_duplicates(published)
            raise
        except TimeoutError:
            await self._subscription.unsubscribe()
            self._subscription = None  # it may have been refused
            raise BusError(
                f"no answer from the broker for {self._stream} within {self.ACKNOWLEDGE_TIMEOUT:g} s"
            ) from None
        finally:
            for token in answers:
                self._waiting.pop(token, None)

    def _count_connections(self) -> int | None:
        """Return how many connections there were before this one; None while there is none."""
        return self._nc.stats["reconnects"] if self._nc.is_connected else None

    async def _wait_for(self, answer: asyncio.Future[Msg], connection: int | None) -> Msg:
        """Return the answer. Raises BusError if the connection it would come on was lost: then it never comes."""
        while not answer.done():
            await asyncio.wait([answer], timeout=0.25)
            if not answer.done() and (connection is None or self._count_connections() != connection):
                raise BusError(f"the connection was lost while {self._stream} was published to")
        return answer.result()

    async def publish_atomic_batch(self, messages: Sequence[Outgoing]) -> Published:
        """
        Store all of the messages or none, at most MAX_ATOMIC_BATCH; return the answer to the last.

        The stream must have `allow_atomic`. With `sync_interval: always` a batch costs the broker 4 ms and 0.03 ms a
        message, where a message alone costs 0.2 ms.
        """
        batch = uuid4().hex
        numbered = [
            message._replace(headers={**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)})
            for number, message in enumerate(messages, 1)
        ]
        *others, last = numbered
        for message in others:
            await self._nc.publish(message.subject, message.body, headers=message.headers)
        reach("publisher.in_batch")
        last.headers["Nats-Batch-Commit"] = "1"
        return (await self.publish([last]))[0]

    async def _receive_answer(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


def find_duplicates(published: Sequence[Published]) -> dict[int, int]:
    """Return the places of the messages whose ids were taken already, with the sequences that have them."""
    return {place: answer.sequence for place, answer in enumerate(published) if answer.duplicate}


def _parse_acknowledgement(message: Msg) -> Published:
    if not message.data:  # 503: nobody listens on the subject
        raise BusError("no stream takes this subject; run `sla migrate`, or check the subject and the permissions")
    answer = json.loads(message.data)
    if "error" in answer:
        raise PublishRefusedError(f"the broker refused a message: {answer['error'].get('description')}")
    return Published(answer["seq"], answer.get("duplicate", False))
