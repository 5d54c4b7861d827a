"""NATS: reading a stream like a log, and publishing in order. What the messages mean is not in here."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from math import inf
from typing import Any, NamedTuple
from uuid import uuid4

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client, ServerVersion
from nats.aio.msg import Msg
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    StreamInfo,
)

from services.bus.credentials import ANONYMOUS, Credentials
from services.bus.streams import BREAKING_SETTINGS, DEAD_LETTERS, STREAMS, TICKETS, find_drift, read_partition_count
from services.errors import BusError, PublishRefusedError
from services.faults import reach
from sla.engine import Message

log = structlog.get_logger()

NUDGE_SUBJECT = "engine.log"  # core NATS, empty: the log has grown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Published(NamedTuple):
    """What the broker said of a published message; a duplicate was stored before, under this sequence."""

    sequence: int
    duplicate: bool


class Outgoing(NamedTuple):
    """A message to publish."""

    subject: str
    headers: dict[str, str]
    body: bytes


MIN_ATOMIC_BATCH, MAX_ATOMIC_BATCH = (
    25,
    1_000,
)  # messages of an atomic batch: fewer are stored sooner one by one (TRAPS N2)
EXPECTED_SEQUENCE_HEADER = "Nats-Expected-Last-Sequence"


def chain_sequences(messages: Sequence[Outgoing], sequence: int) -> Sequence[Outgoing]:
    """Each is stored only right after the one before it, the first after `sequence`: what is stored is a beginning."""
    for expected, message in enumerate(messages, sequence):
        message.headers[EXPECTED_SEQUENCE_HEADER] = str(expected)
    return messages


def strip_credentials(url: str) -> str:
    """The address without user and password, for everybody to read."""
    return re.sub(r"//[^@/,]*@", "//", url)


MIN_NATS_VERSION = (2, 12)  # of nats-server: the first with atomic batches
VERSION_CHECK_INTERVAL = 2.0  # seconds until we look whether a server that is too old was replaced


def explain_old_server(version: ServerVersion) -> str | None:
    """Why this nats-server will not do; None if it will."""
    if (version.major, version.minor) >= MIN_NATS_VERSION:
        return None
    found, needed = f"{version.major}.{version.minor}.{version.patch}", ".".join(map(str, MIN_NATS_VERSION))
    return f"nats-server is {found}, and {needed} or newer is needed; upgrade it"


async def connect(
    url: str,
    name: str,
    access: Credentials = ANONYMOUS,
    within: float | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Client:
    """
    A connection that reconnects for ever (TRAPS F7). Waits for a server that is not there yet, is too old or refuses
    us; with `within`, at most so many seconds, then BusError. `told` hears what goes wrong, and it is logged once.
    """
    last = ""

    async def failed(error: Exception) -> None:
        nonlocal last
        if isinstance(error, ConnectionResetError | BrokenPipeError) and last:
            return  # the broker hangs up on those whom it refuses, and we may see that first
        said, last = last, access.explain_error(error)
        if last != said:
            log.warning("bus", name=name, error=last)
        told(last)

    async def connected_again() -> None:
        nonlocal last
        last = ""

    options = {
        "name": f"sla {name}",
        "error_cb": failed,
        "reconnected_cb": connected_again,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 1,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "drain_timeout": 5,
        "no_echo": True,  # a nudge reaches the services of its own process without the broker
        **access.build_options(url),
    }
    try:
        async with asyncio.timeout(within):
            while why := explain_old_server((nc := await nats.connect(url, **options)).connected_server_version):
                await nc.close()
                await failed(BusError(why))
                await asyncio.sleep(VERSION_CHECK_INTERVAL)
            return nc
    except TimeoutError:
        why = last or "nobody listens there; start it, or set SLA_NATS_URL"
        raise BusError(f"no bus at {strip_credentials(url)} within {within:g} s: {why}") from None


REQUEST_TIMEOUT = 2.0  # seconds until a request to the broker is given up: it may have been lost with a connection


async def read_stream_info(nc: Client, stream: str, subjects: str | None = None) -> StreamInfo:
    """What the broker says of a stream, and of the subjects in it. BusError if there is no such stream."""
    try:
        return await nc.jetstream(timeout=REQUEST_TIMEOUT).stream_info(stream, subjects)
    except nats.js.errors.NotFoundError:
        raise BusError(f"stream {stream} does not exist; run `sla migrate`, or restore it") from None


async def read_last_sequence(nc: Client, stream: str) -> int:
    """The sequence of the newest message of a stream, 0 if there never was one; BusError if there is no stream."""
    return (await read_stream_info(nc, stream)).state.last_seq


class Publisher:
    """
    Publishes many messages in order and waits for all acknowledgements; one inbox for the answers. A refusal or silence
    raises BusError: some of the messages may be stored then, and the caller has to look (TRAPS F9, F10).
    """

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc, self._stream = nc, stream
        self._inbox = nc.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._subscription: Any = None

    ACKNOWLEDGE_TIMEOUT = 10.0  # seconds for all answers to one call

    async def publish(self, messages: Sequence[Outgoing]) -> list[Published]:
        """The broker's answers, in the order of the messages."""
        if self._subscription is None:
            self._subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._answered)
        loop = asyncio.get_running_loop()
        answers: dict[str, asyncio.Future[Msg]] = {}
        connection = self._connection()
        for message in messages:
            token = str(next(self._numbers))
            answers[token] = self._waiting[token] = loop.create_future()
            headers = {"Nats-Expected-Stream": self._stream, **message.headers}
            await self._nc.publish(message.subject, message.body, f"{self._inbox}.{token}", headers)
        try:
            async with asyncio.timeout(self.ACKNOWLEDGE_TIMEOUT):
                return [_parse_acknowledgement(await self._answer(answer, connection)) for answer in answers.values()]
        except TimeoutError:
            await self._subscription.unsubscribe()
            self._subscription = None  # it may have been refused
            raise BusError(
                f"no answer from the broker for {self._stream} within {self.ACKNOWLEDGE_TIMEOUT:g} s"
            ) from None
        finally:
            for token in answers:
                self._waiting.pop(token, None)

    def _connection(self) -> int | None:
        """Which connection it is, counted; None while there is none."""
        return self._nc.stats["reconnects"] if self._nc.is_connected else None

    async def _answer(self, answer: asyncio.Future[Msg], connection: int | None) -> Msg:
        """Raises BusError if the connection was lost: what the broker answered then never comes."""
        while not answer.done():
            await asyncio.wait([answer], timeout=0.25)
            if not answer.done() and (connection is None or self._connection() != connection):
                raise BusError(f"the connection was lost while {self._stream} was published to")
        return answer.result()

    async def publish_atomic_batch(self, messages: Sequence[Outgoing]) -> Published:
        """
        All of the messages or none, at most MAX_ATOMIC_BATCH; the answer is for the last. The stream must allow it.
        With `sync_interval: always` one costs the broker 4 ms and 0.03 ms a message, where each alone costs 0.2 ms.
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

    async def _answered(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


def _parse_acknowledgement(message: Msg) -> Published:
    if not message.data:  # 503: nobody listens on the subject
        raise BusError("no stream takes this subject; run `sla migrate`, or check the subject and the permissions")
    answer = json.loads(message.data)
    if "error" in answer:
        raise PublishRefusedError(f"the broker refused a message: {answer['error'].get('description')}")
    return Published(answer["seq"], answer.get("duplicate", False))


class StreamReader:
    """
    Reads a stream like a log, from a sequence or an instant on, or some of its partitions: in order, without
    acknowledgements, whatever has arrived. If messages are missed or the consumer is gone (TRAPS F8), `take` raises
    BusError, and goes on after the last message that was taken when it is called again.
    """

    MAX_MESSAGES = 500
    HEARTBEAT_TIMEOUT = 2.5  # seconds without a message or a heartbeat, after which the consumer is made again

    def __init__(
        self, nc: Client, stream: str, after: int, partitions: Sequence[int] = (), since: datetime | None = None
    ) -> None:
        self._nc, self._stream, self._partitions, self._since = nc, stream, partitions, since
        self._after = after  # the last sequence taken
        self._arrived: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._asked = 0  # messages the broker may still send for the last request
        self._next = 0  # the consumer sequence expected next; 0: there is no consumer
        self._consumer = ""
        self._generation = 0
        self._inbox = ""
        self._subscription: Any = None
        self.pending = 0  # messages behind the newest one that has arrived

    @property
    def lag(self) -> int:
        """Messages stored and not yet taken, as far as is known."""
        return self.pending + len(self._arrived)

    async def read_batch(self, within: float = inf) -> list[Message]:
        """All messages that have arrived, at most BATCH. Waits for one; after `within` seconds there may be none."""
        give_up = asyncio.get_running_loop().time() + within
        if self._next == 0 and not self._arrived:
            await self.start()
        while not self._arrived:
            if self._next == 0:
                raise BusError(f"messages of {self._stream} were missed, or the consumer is gone; it is made again")
            if self._asked <= 0:
                await self._ask()
            self._wake.clear()
            try:
                async with asyncio.timeout(self.HEARTBEAT_TIMEOUT):
                    await self._wake.wait()
            except TimeoutError:
                self._next = 0
            if not self._arrived and self._next and asyncio.get_running_loop().time() >= give_up:
                return []
        taken = [self._arrived.popleft() for _ in range(min(self.MAX_MESSAGES, len(self._arrived)))]
        self._after = taken[-1].sequence
        if self._asked <= 0 and self._next and len(self._arrived) < self.MAX_MESSAGES:
            await self._ask()
        return taken

    async def close(self) -> None:
        """Ends the consumer; the broker forgets it by itself if that fails."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None

    async def start(self) -> None:
        """Makes the consumer. Raises BusError if the stream is missing, or is not the one that was read before."""
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
            name=uuid4().hex,  # so that the subject of the request has it, and permissions can tell it from others
            deliver_policy=DeliverPolicy.BY_START_TIME if by_time else DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=None if by_time else self._after + 1,
            opt_start_time=self._since if by_time else None,
            filter_subjects=[f"{number}.>" for number in self._partitions] or None,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=30,
            mem_storage=True,
            num_replicas=1,
        )
        self._consumer = (await js.add_consumer(self._stream, config)).name
        self._inbox = self._nc.new_inbox()
        self._generation += 1
        self._subscription = await self._nc.subscribe(self._inbox, cb=partial(self._receive, self._generation))
        self._asked, self._next = 0, 1

    async def find_caught_up_sequence(self) -> int:
        """The sequence up to which all was taken, as the broker says: a reader hears nothing of other partitions."""
        newest = await read_last_sequence(self._nc, self._stream)
        try:
            info = await self._nc.jetstream(timeout=REQUEST_TIMEOUT).consumer_info(self._stream, self._consumer)
        except nats.js.errors.NotFoundError:
            self._next = 0
            return self._after
        delivered = info.delivered.consumer_seq if info.delivered else 0
        is_all = info.num_pending == 0 and delivered == self._next - 1 and not self._arrived
        return newest if is_all else self._after

    async def _ask(self) -> None:
        request = {"batch": self.MAX_MESSAGES, "expires": 30_000_000_000, "idle_heartbeat": 1_000_000_000}
        self._asked = self.MAX_MESSAGES
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._nc.publish(subject, json.dumps(request).encode(), self._inbox)

    async def _receive(self, generation: int, message: Msg) -> None:
        if generation != self._generation:
            return  # of a consumer that was given up
        if not message.reply.startswith("$JS.ACK."):
            self._status(message)
            return
        tokens = message.reply.split(".")
        first = 5 if len(tokens) == 9 else 7  # newer servers may name domain and account before the stream
        sequence, number, stored_ns, self.pending = map(int, tokens[first : first + 4])
        if number != self._next:
            self._next = 0  # something was missed: start again from what was taken
        else:
            self._next += 1
            self._asked -= 1
            stored_at = _EPOCH + timedelta(microseconds=stored_ns // 1000)
            self._arrived.append(Message(sequence, stored_at, message.subject, message.headers, message.data))
        self._wake.set()

    def _status(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status", "")
        if status == "100":
            self._wake.set()
            return
        self._asked = 0
        if status not in ("408", "404"):
            self._next = 0  # the consumer is gone, or the server goes down
        self._wake.set()


class Bus:
    """All that a service asks of the bus, on one connection. The simulation has another one (tests/sim)."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._publishers: dict[str, Publisher] = {}
        self._wakes: list[Callable[[], None]] = []

    def get_publisher(self, stream: str) -> Publisher:
        """One for each stream: a service that is built again leaves no subscription behind."""
        return self._publishers.setdefault(stream, Publisher(self._nc, stream))

    def create_reader(self, stream: str, after: int, partitions: Sequence[int] = ()) -> StreamReader:
        return StreamReader(self._nc, stream, after, partitions)

    async def count_partitions(self, stream: str) -> int:
        """In how many partitions a stream is stored now."""
        return read_partition_count((await read_stream_info(self._nc, stream)).config)

    async def find_dead_letter_sequences(self, sequence: int) -> set[int]:
        """Which messages of TICKETS after this one have a dead letter already."""
        try:
            since = await self.read_stored_at(TICKETS, sequence + 1)
            newest = await self._nc.jetstream(timeout=REQUEST_TIMEOUT).get_last_msg(DEAD_LETTERS, "dead_letters.*")
        except nats.js.errors.NotFoundError:
            return set()
        found = set[int]()
        if newest.time is None or newest.seq is None or newest.time < since:
            return found
        reader = StreamReader(self._nc, DEAD_LETTERS, 0, since=since)
        try:
            last = 0
            while last < newest.seq and (
                letters := await reader.read_batch(REQUEST_TIMEOUT)
            ):  # it may be discarded meanwhile
                said = [str((letter.headers or {}).get("Sla-Sequence")) for letter in letters]
                found |= {int(sequence) for sequence in said if sequence.isdecimal()}
                last = letters[-1].sequence
        finally:
            await reader.close()
        return found

    @property
    def close_reason(self) -> str | None:
        """Why there is no connection and never will be: nats-py gives up after any error but a lost connection."""
        return str(self._nc.last_error or "it was closed") if self._nc.is_closed else None

    async def read_last_sequence(self, stream: str) -> int:
        """The sequence of the newest message, 0 if there never was one; BusError if there is no stream."""
        return await read_last_sequence(self._nc, stream)

    async def find_breaking_settings(self, stream: str) -> list[str]:
        """What about the settings of a stream breaks the engine; BusError if there is no stream."""
        (wanted,) = (config for config in STREAMS if config.name == stream)
        return find_drift(wanted, (await read_stream_info(self._nc, stream)).config, BREAKING_SETTINGS)

    async def check_consumer(self, stream: str, durable: str) -> None:
        """BusError if there is no such consumer."""
        try:
            await self._nc.jetstream(timeout=REQUEST_TIMEOUT).consumer_info(stream, durable)
        except nats.js.errors.NotFoundError:
            raise BusError(f"consumer {durable} of {stream} does not exist; run `sla migrate`") from None

    async def read_created_at(self, stream: str) -> datetime:
        """When the stream was made: another instant means another stream of the same name."""
        made_at = (await read_stream_info(self._nc, stream)).created
        assert made_at is not None
        return made_at

    async def accepts_batches(self, stream: str) -> bool:
        """Whether a stream stores many messages as one. An older one, or one of an operator, may not."""
        return bool((await read_stream_info(self._nc, stream)).config.allow_atomic)

    async def read_newest(self, stream: str, subject: str) -> tuple[dict[str, str], datetime] | None:
        """Headers and the broker's time of the newest message on a subject; None if there is none."""
        try:
            found = await self._nc.jetstream(timeout=REQUEST_TIMEOUT).get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return None
        assert found.time is not None
        return found.headers or {}, found.time

    async def count_messages(self, stream: str, subject: str) -> dict[str, int]:
        """How many messages there are of each subject that matches."""
        info = await read_stream_info(self._nc, stream, subject)
        return info.state.subjects or {}

    async def read_stored_at(self, stream: str, sequence: int) -> datetime:
        """The broker's time of a message."""
        stored_at = (await self._nc.jetstream(timeout=REQUEST_TIMEOUT).get_msg(stream, sequence)).time
        assert stored_at is not None
        return stored_at

    async def nudge(self) -> None:
        """Tells everybody that the log has grown. May be lost: who waits also looks now and then."""
        for wake in self._wakes:
            wake()
        await self._nc.publish(NUDGE_SUBJECT, b"")

    async def listen_for_nudges(self, wake: Callable[[], None]) -> None:
        """Calls `wake` whenever the log has grown, until the connection is closed."""
        self._wakes.append(wake)

        async def nudged(_: Msg) -> None:
            wake()

        await self._nc.subscribe(NUDGE_SUBJECT, cb=nudged)
