"""The streams as the engine creates them, and the partitions of TICKETS. What their messages are is not in here."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import nats.js.errors
from nats.aio.client import Client
from nats.js.api import (
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
    SubjectTransform,
)

from events.cloudevents import MAX_BODY
from services.errors import BusError

TICKETS = "TICKETS"
SLA = "SLA"
DEAD_LETTERS = "DEAD_LETTERS"
UNDELIVERED = "UNDELIVERED"

REQUEST_TIMEOUT = 2.0  # seconds until a request to the broker is given up: it may have been lost with a connection
_GIB = 1024**3

STREAMS = (
    StreamConfig(
        name=TICKETS,
        subjects=["tickets.*.*", "clock.due.*"],
        description="What happened to tickets, and the ticks of the clock: kept until it is full, then publishers wait",
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,  # `old` would silently drop unread facts: docs/upstream-behaviour.md#n4
        max_bytes=2 * _GIB,
        max_msg_size=MAX_BODY,
        deny_delete=True,
        deny_purge=True,
        duplicate_window=120,
        allow_atomic=True,  # many ticks with one fsync: docs/upstream-behaviour.md#n2
    ),
    StreamConfig(
        name=SLA,
        subjects=["sla.>"],
        description="What became of the promises: applied, warnings, breaches, retractions, first responses",
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=1 * _GIB,
        deny_delete=True,
        deny_purge=True,
        duplicate_window=120,
        allow_atomic=True,  # many messages with one fsync: docs/upstream-behaviour.md#n2
    ),
    StreamConfig(
        name=DEAD_LETTERS,
        subjects=["dead_letters.*"],
        description="Messages that cannot count, as they came, with the reason",
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=_GIB // 4,
        duplicate_window=24 * 3600,  # a crash between publishing and committing must not double one
    ),
    StreamConfig(
        name=UNDELIVERED,
        subjects=["undelivered.*"],
        description="Announcements that a target of the notifier refused, or did not take in time",
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=_GIB // 16,
        duplicate_window=24 * 3600,
    ),
)


async def read_stream_info(nc: Client, stream: str, subjects: str | None = None) -> StreamInfo:
    """Return state and settings of a stream, and of the subjects in it. Raises BusError if there is no such stream."""
    try:
        return await nc.jetstream(timeout=REQUEST_TIMEOUT).stream_info(stream, subjects)
    except nats.js.errors.NotFoundError:
        raise BusError(f"stream {stream} does not exist; run `sla migrate`, or restore it") from None


async def read_last_sequence(nc: Client, stream: str) -> int:
    """Return the sequence of the newest message, 0 if there never was one. Raises BusError without the stream."""
    return (await read_stream_info(nc, stream)).state.last_seq


class Gap(NamedTuple):
    """Messages that a stream had acknowledged, and has no more: the first, the last, and how many of those between."""

    first: int
    last: int
    messages: int


async def find_gap(nc: Client, stream: str, after: int) -> Gap | None:
    """Return which messages after a sequence are gone, None if none is. Raises BusError without the stream."""
    state = (await read_stream_info(nc, stream)).state
    missing = range(after + 1, state.first_seq)  # the first sequence of an empty stream is the next one
    deleted: list[int] = []
    if state.num_deleted:
        request = json.dumps({"deleted_details": True}).encode()
        answer = await nc.request(f"$JS.API.STREAM.INFO.{stream}", request, timeout=REQUEST_TIMEOUT)
        found = json.loads(answer.data).get("state", {}).get("deleted") or []
        deleted = [sequence for sequence in found if sequence > max(after, state.first_seq)]
    if not missing and not deleted:
        return None
    first, last = min([*missing[:1], *deleted]), max([*missing[-1:], *deleted])
    return Gap(first, last, len(missing) + len(deleted))


def split_partition(subject: str) -> tuple[int, str]:
    """Return the partition and the original subject of a message of TICKETS, from the subject it is stored under."""
    number, _, rest = subject.partition(".")
    return (int(number), rest) if number.isdecimal() else (0, subject)


async def provision(
    nc: Client, partitions: int | None = None, consumers: Iterable[tuple[str, ConsumerConfig]] = ()
) -> list[str]:
    """
    Create the streams that are missing, TICKETS in so many partitions (by default one), and durable consumers, each of
    a stream.

    Returns a line for each setting that differs from what the engine would create: an operator's settings are reported,
    never reset (docs/upstream-behaviour.md#f11).
    """
    js = nc.jetstream()
    drift = []
    for wanted in STREAMS:
        assert wanted.name is not None
        try:
            found = (await js.stream_info(wanted.name)).config
        except nats.js.errors.NotFoundError:
            await js.add_stream(build_stream(wanted.name, partitions or 1))
            continue
        drift += find_drift(
            wanted, found, (*BREAKING_SETTINGS, "max_msg_size", "deny_delete", "deny_purge", "allow_atomic")
        )
    for stream, consumer in consumers:
        assert consumer.durable_name is not None
        try:
            await js.consumer_info(stream, consumer.durable_name)
        except nats.js.errors.NotFoundError:
            await js.add_consumer(stream, consumer)
    return drift


def build_stream(name: str, partitions: int = 1) -> StreamConfig:
    """Return a stream as the engine creates it, TICKETS in so many partitions."""
    (found,) = (each for each in STREAMS if each.name == name)
    return replace(found, subject_transform=build_partition_transform(partitions)) if name == TICKETS else found


def build_partition_transform(partitions: int) -> SubjectTransform | None:
    """
    Return the transform that stores TICKETS in so many partitions: it puts the partition, which is the same for all
    messages of a ticket, before the subject. One partition needs none.
    """
    if partitions == 1:
        return None
    kept = "".join(f".{{{{wildcard({place})}}}}" for place in (1, 2, 3))
    return SubjectTransform("*.*.*", f"{{{{partition({partitions},3)}}}}{kept}")


def read_partition_count(config: StreamConfig) -> int:
    """Return in how many partitions a stream is stored."""
    transform = config.subject_transform
    found = re.match(r"\{\{ *partition\((\d+), *3\) *\}\}\.", transform.dest) if transform else None
    return int(found[1]) if found else 1


async def repartition(nc: Client, partitions: int) -> None:
    """Store the messages that come from now on in so many partitions. No intake may run meanwhile."""
    js = nc.jetstream()
    config = (await js.stream_info(TICKETS)).config
    await js.update_stream(replace(config, subject_transform=build_partition_transform(partitions)))


BREAKING_SETTINGS = ("subjects", "discard", "sealed", "no_ack")
"""Settings of a stream without which messages are refused, dropped, or not acknowledged."""


def find_drift(wanted: StreamConfig, found: StreamConfig, settings: Iterable[str]) -> list[str]:
    """Return a line for each of the settings of a stream that is not as wanted."""
    differ = []
    for setting in settings:
        expected, actual = getattr(wanted, setting), getattr(found, setting)
        same_subjects = setting == "subjects" and sorted(expected) == sorted(actual or [])
        if (expected or None) != (actual or None) and not same_subjects:
            differ.append(
                f"stream {wanted.name}: {setting} is {actual}, the engine expects {expected}; "
                f"see `nats stream edit {wanted.name}`"
            )
    return differ
