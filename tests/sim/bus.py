"""A simulated JetStream: streams with the broker's rules, and connections that lose, delay and break."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple, Protocol

from events.times import from_microseconds
from services.bus.publisher import (
    EXPECTED_ID_HEADER,
    EXPECTED_SEQUENCE_HEADER,
    ID_HEADER,
    Outgoing,
    Published,
    find_duplicates,
)
from services.bus.streams import DEAD_LETTERS, SLA, STREAMS, TICKETS
from services.errors import BusError, PublishRefusedError
from services.faults import reach
from sla.engine import Message
from tests.sim.loop import Crashed

MILLISECOND = 0.001


class Stored(NamedTuple):
    """A message of a stream; `at` is the broker's time in microseconds since 1970."""

    sequence: int
    at: int
    subject: str
    headers: dict[str, str]
    body: bytes


class Stream:
    """One stream: de-duplication within its window, then the expected sequence, then the message.

    docs/upstream-behaviour.md#n2 and #n3 have how the broker does it.
    """

    def __init__(self, name: str, now: Callable[[], int]) -> None:
        (config,) = (each for each in STREAMS if each.name == name)
        self.name, self._now = name, now
        self.window = timedelta(seconds=config.duplicate_window or 0) // timedelta(microseconds=1)
        self.made_at = from_microseconds(now())
        self.messages: list[Stored] = []
        self._ids: dict[str, tuple[int, int]] = {}
        self.grown = asyncio.Event()

    @property
    def newest(self) -> int:
        return len(self.messages)

    def put(self, message: Outgoing) -> Published:
        """Stores one message, or says that it is there. BusError for another last sequence, or id, than expected."""
        id = message.headers.get(ID_HEADER)
        if id is not None and (known := self.known(id)):
            return Published(known, True)
        self.expect(message)
        stored = Stored(self.newest + 1, self._now(), message.subject, dict(message.headers), message.body)
        self.messages.append(stored)
        if id is not None:
            self._ids[id] = (stored.sequence, stored.at)
        self.grown.set()
        return Published(stored.sequence, False)

    def cut(self, newest: int) -> None:
        """The stream of an older backup in its place: the messages up to `newest`, and no memory of any id."""
        del self.messages[newest:]
        self.made_at = from_microseconds(self._now())
        self._ids.clear()

    def known(self, id: str) -> int:
        """The sequence under which an id was stored within the window, else 0."""
        sequence, at = self._ids.get(id, (0, 0))
        return sequence if self._now() - at <= self.window else 0

    def expect(self, message: Outgoing) -> None:
        expected, last = (message.headers.get(name) for name in (EXPECTED_SEQUENCE_HEADER, EXPECTED_ID_HEADER))
        if expected is not None and int(expected) != self.newest:
            raise PublishRefusedError(f"the broker refused a message: wrong last sequence: {self.newest}")
        if last is not None and last != self.messages[-1].headers.get(ID_HEADER):
            raise PublishRefusedError("the broker refused a message: wrong last msg ID")


class Broker:
    """The streams, and who listens for nudges."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.streams = {name: Stream(name, now) for name in (TICKETS, SLA, DEAD_LETTERS)}
        self.connections: list[SimBus] = []
        self.restarts = 0

    def restart(self) -> None:
        """Every connection is lost, and every consumer: they lived in memory."""
        self.restarts += 1


class Owner(Protocol):
    """The process of a connection: it may be dead, or paused until an instant of the loop."""

    dead: bool
    resume_at: float


class SimBus:
    """The Bus of one simulated process. `chance` is how likely each thing that can fail is to."""

    def __init__(self, broker: Broker, rng: Random, owner: Owner, seen: Counter[str]) -> None:
        self.broker, self._rng, self._owner, self.seen = broker, rng, owner, seen
        self.chance = 0.0
        self._wake: Callable[[], None] = lambda: None
        broker.connections.append(self)

    def get_publisher(self, stream: str) -> "SimPublisher":
        return SimPublisher(self, self.broker.streams[stream])

    def create_reader(self, stream: str, after: int, partitions: Sequence[int] = ()) -> "SimReader":
        return SimReader(self, self.broker.streams[stream], after)

    async def read_last_sequence(self, stream: str) -> int:
        await self.hop("request")
        return self.broker.streams[stream].newest

    async def read_ends(self, stream: str) -> tuple[int, int]:
        await self.hop("request")
        newest = self.broker.streams[stream].newest
        return min(newest, 1), newest

    async def count_partitions(self, stream: str) -> int:
        await self.hop("request")
        return 1

    async def find_gap(self, stream: str, after: int) -> None:
        await self.hop("request")

    async def find_dead_letter_sequences(self, sequence: int) -> set[int]:
        await self.hop("request")
        messages = self.broker.streams[TICKETS].messages[sequence : sequence + 1]
        letters = self.broker.streams[DEAD_LETTERS].messages
        return {int(letter.headers["Sla-Sequence"]) for letter in letters if messages and letter.at >= messages[0].at}

    async def read_created_at(self, stream: str) -> datetime:
        await self.hop("request")
        return self.broker.streams[stream].made_at

    async def accepts_batches(self, stream: str) -> bool:
        await self.hop("request")
        return True

    async def count_messages(self, stream: str, subject: str) -> dict[str, int]:
        await self.hop("request")
        return Counter(each.subject for each in self.broker.streams[stream].messages)

    async def read_stored_at(self, stream: str, sequence: int) -> datetime:
        await self.hop("request")
        return from_microseconds(self.broker.streams[stream].messages[sequence - 1].at)

    async def read_clock(self, stream: str) -> datetime:
        await self.hop("request")
        return from_microseconds(self.broker.now())

    async def nudge(self) -> None:
        """Core NATS: it may be lost."""
        for connection in self.broker.connections:
            if not connection.gone() and not self.happens("nudge lost", 3):
                connection._wake()

    async def listen_for_nudges(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    # ---- what can go wrong

    def happens(self, what: str, times: float = 1) -> bool:
        """Whether it goes wrong now; counted."""
        happens = self._rng.random() < self.chance * times
        self.seen[what] += happens
        return happens

    async def hop(self, what: str) -> None:
        """A message on its way: it takes its time, and with bad luck a connection is lost."""
        await asyncio.sleep(self.delay() + max(0.0, self._owner.resume_at - asyncio.get_running_loop().time()))
        if self._owner.dead:
            raise Crashed
        if self.happens(f"{what} lost"):
            raise BusError(f"the connection was lost during a {what}")

    def delay(self) -> float:
        return self._rng.expovariate(1 / (200 * MILLISECOND if self.happens("delay", 5) else MILLISECOND / 4))

    def gone(self) -> bool:
        """A process that was killed does nothing more, whatever its tasks still want to finish."""
        return self._owner.dead


class SimPublisher:
    """services.bus.publisher.Publisher: in order; all, some or none may be stored when it fails."""

    def __init__(self, bus: SimBus, stream: Stream) -> None:
        self._bus, self._stream = bus, stream

    async def publish(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Each is stored when it arrives; the answers come after the last."""
        published: list[Published] = []
        refusal: PublishRefusedError | None = None
        for message in messages:
            await self._bus.hop("publish")
            try:
                published.append(self._stream.put(message))
            except PublishRefusedError as error:
                refusal = refusal or error
                error.duplicates = find_duplicates(published)
        if refusal:
            raise refusal
        await asyncio.sleep(self._bus.delay())
        if self._bus.happens("acknowledgement lost", 2):
            raise BusError("no answer from the broker")
        return published

    async def publish_atomic_batch(self, messages: Sequence[Outgoing]) -> Published:
        """All or none (docs/upstream-behaviour.md#n2)."""
        await self._bus.hop("publish")
        reach("publisher.in_batch")
        if any(self._stream.known(message.headers.get(ID_HEADER, "")) for message in messages):
            raise PublishRefusedError("the broker refused a message: duplicate in batch")
        self._stream.expect(messages[0])
        for message in messages:
            headers = {name: value for name, value in message.headers.items() if name != EXPECTED_SEQUENCE_HEADER}
            published = self._stream.put(message._replace(headers=headers))
        if self._bus.happens("acknowledgement lost", 2):
            raise BusError("no answer from the broker")
        return published


class SimReader:
    """services.bus.reader.StreamReader: whatever has arrived, in order, until the consumer is lost."""

    def __init__(self, bus: SimBus, stream: Stream, after: int) -> None:
        self._bus, self._stream, self._after = bus, stream, after
        self._made = -1  # restarts of the broker when the consumer was made

    @property
    def lag(self) -> int:
        return self._stream.newest - self._after

    async def start(self) -> None:
        await self._bus.hop("request")
        if self._stream.newest < self._after:
            raise BusError("not the stream this store belongs to")
        self._made = self._bus.broker.restarts

    async def read_batch(self, within: float = float("inf")) -> list[Message]:
        """Waits for a message; the consumer may be gone, which is noticed in a while."""
        try:
            async with asyncio.timeout(within):
                while self._stream.newest <= self._after:
                    self._stream.grown.clear()
                    await self._stream.grown.wait()
        except TimeoutError:
            self._check()
            return []
        await asyncio.sleep(self._bus.delay())
        self._check()
        size = self._bus._rng.choice((1, 2, 3, 10, 500))
        arrived = self._stream.messages[self._after : self._after + size]
        self._after = arrived[-1].sequence
        return [
            Message(each.sequence, from_microseconds(each.at), each.subject, each.headers, each.body)
            for each in arrived
        ]

    def _check(self) -> None:
        if self._made != self._bus.broker.restarts or self._bus.happens("consumer lost"):
            raise BusError("messages were missed, or the consumer is gone; it is made again")

    async def close(self) -> None:
        self._made = -1
