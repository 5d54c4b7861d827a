"""Events of the log as rows, and back. Which events there are is in sla/log.py."""

from collections.abc import Iterable
from typing import Any

import msgspec
from eventsourcing.persistence import Mapper, StoredEvent, Transcoder

from services.errors import StoreError
from sla.log import DECODERS, Event, Recorded

_encoder = msgspec.json.Encoder()


class LogMapper(Mapper[str]):
    """
    The mapper of the eventsourcing library, for the topics of sla/log.py alone: a row that somebody tampered with
    imports nothing (docs/upstream-behaviour.md#e13, docs/upstream-behaviour.md#e14).
    """

    def __init__(self) -> None:
        super().__init__(_NoTranscoder())

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """Return the row of a recorded event."""
        ticket, version, event = domain_event
        return StoredEvent(ticket, version, event.TOPIC, encode_event(event))

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Return the recorded event of a row. Raises what `decode_event` raises."""
        return Recorded(
            str(stored_event.originator_id),
            stored_event.originator_version,
            decode_event(stored_event.topic, stored_event.state),
        )


class _NoTranscoder(Transcoder):
    """A Mapper must have a transcoder; LogMapper encodes whole events itself."""

    def encode(self, obj: Any) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        raise NotImplementedError


def encode_event(event: Event) -> bytes:
    """Return the state of an event, as a row of the log holds it."""
    return _encoder.encode(event)


def decode_event(topic: str, state: bytes) -> Event:
    """Return the event of a row. Raises StoreError for an unknown topic, and msgspec's errors for a broken state."""
    event: Event = _find_decoder(topic).decode(state)
    return event


def check_topics(topics: Iterable[str]) -> None:
    """Raise StoreError for a topic that this version does not know."""
    for topic in topics:
        _find_decoder(topic)


def _find_decoder(topic: str) -> "msgspec.json.Decoder[Any]":
    if topic not in DECODERS:
        raise StoreError(
            f"the log has an event of topic {topic!r}, which this version does not know; upgrade the engine"
        )
    return DECODERS[topic]
