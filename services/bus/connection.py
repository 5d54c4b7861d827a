"""The connection to NATS, and the Bus on it: all that a service asks of the broker. What messages mean is not here."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client, ServerVersion
from nats.aio.msg import Msg

from events.times import parse_instant
from services.bus.credentials import ANONYMOUS, Credentials
from services.bus.publisher import Publisher
from services.bus.reader import StreamReader
from services.bus.streams import (
    BREAKING_SETTINGS,
    DEAD_LETTERS,
    REQUEST_TIMEOUT,
    STREAMS,
    TICKETS,
    Gap,
    find_drift,
    find_gap,
    read_last_sequence,
    read_partition_count,
    read_stream_info,
)
from services.errors import BusError

log = structlog.get_logger()

NUDGE_SUBJECT = "engine.log"  # core NATS, empty: the log has grown
MIN_NATS_VERSION = (2, 12)  # of nats-server: the first with atomic batches
VERSION_CHECK_INTERVAL = 2.0  # seconds between two looks at whether a server that is too old was replaced


class _Client(Client):
    """
    Reads subjects that are not UTF-8, which the broker stores: nats-py closes the connection at one, and again at each
    start (docs/upstream-behaviour.md#f20).
    """

    def _build_message(self, sid: int, subject: bytes, *rest: Any) -> Msg:
        message: Msg = super()._build_message(sid, subject.decode(errors="backslashreplace").encode(), *rest)
        return message


def strip_credentials(url: str) -> str:
    """Return the address without user and password, so that everybody may read it."""
    return re.sub(r"//[^@/,]*@", "//", url)


def add_credentials(url: str, user: str, password: str) -> str:
    """Return the address with user and password."""
    return url.replace("//", f"//{user}:{password}@", 1)


def explain_old_server(version: ServerVersion) -> str | None:
    """Return why a nats-server of this version cannot be used; None if it can."""
    if (version.major, version.minor) >= MIN_NATS_VERSION:
        return None
    found, needed = f"{version.major}.{version.minor}.{version.patch}", ".".join(map(str, MIN_NATS_VERSION))
    return f"nats-server is {found}, and {needed} or newer is needed; upgrade it"


async def connect(
    url: str,
    name: str,
    credentials: Credentials = ANONYMOUS,
    within: float | None = None,
    on_error: Callable[[str], None] = lambda _: None,
) -> Client:
    """
    Open a connection that reconnects for ever (docs/upstream-behaviour.md#f7).

    Waits for a server that is not there yet, is too old, or refuses us; with `within` at most so many seconds, and then
    raises BusError. Each error goes to `on_error`, and is logged unless it is the same as the one before.
    """
    last = ""

    async def report_error(error: Exception) -> None:
        nonlocal last
        if isinstance(error, ConnectionResetError | BrokenPipeError) and last:
            return  # the broker closes connections that it refuses, and we may see that before its reason
        before, last = last, credentials.explain_error(error)
        if last != before:
            log.warning("bus", name=name, error=last)
        on_error(last)

    async def forget_error() -> None:
        nonlocal last
        last = ""

    options = {
        "name": f"sla {name}",
        "error_cb": report_error,
        "reconnected_cb": forget_error,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 1,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "drain_timeout": 5,
        "no_echo": True,  # a nudge reaches the services of its own process without the broker
        **credentials.build_options(url),
    }
    try:
        async with asyncio.timeout(within):
            while True:
                nc = _Client()
                await nc.connect(url, **options)
                if not (why := explain_old_server(nc.connected_server_version)):
                    return nc
                await nc.close()
                await report_error(BusError(why))
                await asyncio.sleep(VERSION_CHECK_INTERVAL)
    except TimeoutError:
        why = last or "nobody listens there; start it, or set SLA_NATS_URL"
        raise BusError(f"no bus at {strip_credentials(url)} within {within:g} s: {why}") from None


class Bus:
    """All that a service asks of the broker, on one connection. The simulation has a Bus of its own (tests/sim)."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._publishers: dict[str, Publisher] = {}
        self._wakes: list[Callable[[], None]] = []

    def get_publisher(self, stream: str) -> Publisher:
        """Return the one publisher of a stream: a service that is re-created leaves no subscription behind."""
        return self._publishers.setdefault(stream, Publisher(self._nc, stream))

    def create_reader(self, stream: str, after: int, partitions: Sequence[int] = ()) -> StreamReader:
        """Return a reader of what follows a sequence, in some partitions or, if none are named, in all."""
        return StreamReader(self._nc, stream, after, partitions)

    async def count_partitions(self, stream: str) -> int:
        """Return in how many partitions a stream is stored now."""
        return read_partition_count((await read_stream_info(self._nc, stream)).config)

    async def find_dead_letter_sequences(self, sequence: int) -> set[int]:
        """Return which messages of TICKETS after this sequence have a dead letter already."""
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
            # the newest may be discarded meanwhile
            while last < newest.seq and (batch := await reader.read_batch(REQUEST_TIMEOUT)):
                headers = [str((dead_letter.headers or {}).get("Sla-Sequence")) for dead_letter in batch]
                found |= {int(sequence) for sequence in headers if sequence.isdecimal()}
                last = batch[-1].sequence
        finally:
            await reader.close()
        return found

    async def find_gap(self, stream: str, after: int) -> Gap | None:
        """Return which messages after a sequence are gone, None if none is."""
        return await find_gap(self._nc, stream, after)

    @property
    def close_reason(self) -> str | None:
        """Why the connection is closed for ever; else None. nats-py closes it at any error but a lost connection."""
        return str(self._nc.last_error or "it was closed") if self._nc.is_closed else None

    async def read_last_sequence(self, stream: str) -> int:
        """Return the sequence of the newest message, 0 if there never was one. Raises BusError without the stream."""
        return await read_last_sequence(self._nc, stream)

    async def read_ends(self, stream: str) -> tuple[int, int]:
        """
        Return the sequences of the oldest message that a stream still holds, and of the newest that it ever had. The
        first is the higher one, or 0, if it holds none.
        """
        state = (await read_stream_info(self._nc, stream)).state
        return state.first_seq, state.last_seq

    async def find_breaking_settings(self, stream: str) -> list[str]:
        """Return a line for each setting of a stream that breaks the engine. Raises BusError without the stream."""
        (wanted,) = (config for config in STREAMS if config.name == stream)
        return find_drift(wanted, (await read_stream_info(self._nc, stream)).config, BREAKING_SETTINGS)

    async def check_consumer(self, stream: str, durable: str) -> None:
        """Raise BusError if there is no such consumer."""
        try:
            await self._nc.jetstream(timeout=REQUEST_TIMEOUT).consumer_info(stream, durable)
        except nats.js.errors.NotFoundError:
            raise BusError(f"consumer {durable} of {stream} does not exist; run `sla migrate`") from None

    async def read_created_at(self, stream: str) -> datetime:
        """Return when a stream was created: another instant means another stream of the same name."""
        created_at = (await read_stream_info(self._nc, stream)).created
        assert created_at is not None
        return created_at

    async def accepts_batches(self, stream: str) -> bool:
        """Return whether a stream accepts atomic batches. An older one, or one that an operator made, may not."""
        return bool((await read_stream_info(self._nc, stream)).config.allow_atomic)

    async def count_messages(self, stream: str, subject: str) -> dict[str, int]:
        """Return how many messages there are of each subject that matches."""
        info = await read_stream_info(self._nc, stream, subject)
        return info.state.subjects or {}

    async def read_stored_at(self, stream: str, sequence: int) -> datetime:
        """Return the broker's time of a message."""
        stored_at = (await self._nc.jetstream(timeout=REQUEST_TIMEOUT).get_msg(stream, sequence)).time
        assert stored_at is not None
        return stored_at

    async def read_clock(self, stream: str) -> datetime:
        """Return the time by the clock of the broker that stores a stream."""
        answer = await self._nc.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=REQUEST_TIMEOUT)
        found = json.loads(answer.data)
        if "ts" not in found:
            raise BusError(f"the broker does not say what time it is for {stream}: {found.get('error', found)}")
        return parse_instant(found["ts"])

    async def nudge(self) -> None:
        """Wake all services, here and elsewhere: the log has grown. It may be lost, and so services also poll."""
        for wake in self._wakes:
            wake()
        await self._nc.publish(NUDGE_SUBJECT, b"")

    async def listen_for_nudges(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever the log has grown, until the connection is closed."""
        self._wakes.append(wake)

        async def receive(_: Msg) -> None:
            wake()

        await self._nc.subscribe(NUDGE_SUBJECT, cb=receive)
