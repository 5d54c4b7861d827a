"""The streams as we make them, and the partitions of TICKETS. What is in them, and who reads it, is not in here."""

import re
from collections.abc import Iterable
from dataclasses import replace

import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, SubjectTransform

from events.cloudevents import MAX_BODY

TICKETS = "TICKETS"
SLA = "SLA"
DEAD_LETTERS = "DEAD_LETTERS"
UNDELIVERED = "UNDELIVERED"

_GIB = 1024**3

STREAMS = (
    StreamConfig(
        name=TICKETS,
        subjects=["tickets.*.*", "clock.due.*"],
        description="What happened to tickets, and the ticks of the clock: kept until it is full, then publishers wait",
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,  # `old` would drop acknowledged, unread facts without a word (TRAPS N4)
        max_bytes=2 * _GIB,
        max_msg_size=MAX_BODY,
        deny_delete=True,
        deny_purge=True,
        duplicate_window=120,
        allow_atomic=True,  # many ticks for one visit to the disk (TRAPS N2)
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
        allow_atomic=True,  # many messages for one visit to the disk (TRAPS N2)
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


def split_partition(subject: str) -> tuple[int, str]:
    """Which partition of TICKETS a message is in, by the subject it was stored under, and the one it was sent to."""
    number, _, rest = subject.partition(".")
    return (int(number), rest) if number.isdecimal() else (0, subject)


async def provision(nc: Client, partitions: int | None = None, consumers: Iterable[ConsumerConfig] = ()) -> list[str]:
    """
    Creates the streams that are missing, TICKETS in so many partitions, one if nothing is said, and durable consumers
    of SLA. Returns a line for each stream that differs from what we would create: an operator's settings are reported,
    never reset (TRAPS F11).
    """
    js = nc.jetstream()
    drift = []
    for wanted in STREAMS:
        assert wanted.name is not None
        try:
            found = (await js.stream_info(wanted.name)).config
        except nats.js.errors.NotFoundError:
            transform = build_partition_transform(partitions or 1) if wanted.name == TICKETS else None
            await js.add_stream(replace(wanted, subject_transform=transform))
            continue
        drift += find_drift(
            wanted, found, (*BREAKING_SETTINGS, "max_msg_size", "deny_delete", "deny_purge", "allow_atomic")
        )
    for consumer in consumers:
        assert consumer.durable_name is not None
        try:
            await js.consumer_info(SLA, consumer.durable_name)
        except nats.js.errors.NotFoundError:
            await js.add_consumer(SLA, consumer)
    return drift


def build_partition_transform(partitions: int) -> SubjectTransform | None:
    """
    How TICKETS is stored in so many partitions: the number of the partition, the same for all that concerns a ticket,
    before the subject. One partition needs none.
    """
    if partitions == 1:
        return None
    kept = "".join(f".{{{{wildcard({place})}}}}" for place in (1, 2, 3))
    return SubjectTransform("*.*.*", f"{{{{partition({partitions},3)}}}}{kept}")


def read_partition_count(config: StreamConfig) -> int:
    """In how many partitions a stream is stored."""
    transform = config.subject_transform
    found = re.match(r"\{\{ *partition\((\d+), *3\) *\}\}\.", transform.dest) if transform else None
    return int(found[1]) if found else 1


async def repartition(nc: Client, partitions: int) -> None:
    """Stores what comes from now on in so many partitions. No intake may work meanwhile."""
    js = nc.jetstream()
    config = (await js.stream_info(TICKETS)).config
    await js.update_stream(replace(config, subject_transform=build_partition_transform(partitions)))


BREAKING_SETTINGS = ("subjects", "discard", "sealed", "no_ack")
"""Settings of a stream without which messages are refused, dropped, or not acknowledged."""


def find_drift(wanted: StreamConfig, found: StreamConfig, settings: Iterable[str]) -> list[str]:
    """A line for each of the settings that is not as we would make it."""
    differ = []
    for setting in settings:
        ours, theirs = getattr(wanted, setting), getattr(found, setting)
        if (ours or None) != (theirs or None) and not (setting == "subjects" and sorted(ours) == sorted(theirs or [])):
            differ.append(
                f"stream {wanted.name}: {setting} is {theirs}, the engine expects {ours}; "
                f"see `nats stream edit {wanted.name}`"
            )
    return differ
