"""Dead letters as they lie on the bus: finding them, reading them, sending their originals again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import nats.js.errors
from nats.aio.client import Client

from events.cloudevents import BadFact, Reason, open_envelope
from services.bus import DEAD_LETTERS, TICKETS, BusError, Outgoing, Publisher, StreamReader
from services.screen import wall
from sla.engine import Message

REASONS = tuple(Reason)
COLUMNS = ("sequence", "reason", "refused", "subject", "error")
SILENCE = 10.0  # seconds without a message while some are missing
CHUNK = 500

_ADDED = ("sla-reason", "sla-error", "sla-subject", "sla-sequence", "nats-")
_CONTROL = "sla-original-"  # what the broker acted on when it was sent first: it is not for a second time


class Letter(NamedTuple):
    """A message that could not count. `sequence` is that of the original; `headers` are what it came with."""

    sequence: int
    reason: str
    error: str
    subject: str
    refused_at: datetime
    headers: dict[str, str]
    body: bytes

    def attributes(self) -> dict[str, str | None]:
        """Type, source, id, ticket and time as the publisher gave them, None where they cannot be read."""
        try:
            envelope = open_envelope(self.body, self.headers)
        except BadFact:
            return dict.fromkeys(("type", "source", "id", "ticket_id", "time"))
        ticket, time = envelope.attributes.get("subject"), envelope.attributes.get("time")
        return {
            "type": envelope.type,
            "source": envelope.source,
            "id": envelope.id,
            "ticket_id": ticket if isinstance(ticket, str) else None,
            "time": time if isinstance(time, str) else None,
        }

    def report(self) -> dict[str, object]:
        """What `sla dead list` says of it."""
        return {
            "sequence": self.sequence,
            "reason": self.reason,
            "error": self.error,
            "subject": self.subject,
            "refused_at": self.refused_at,
            **self.attributes(),
        }

    def whole(self) -> dict[str, object]:
        """What `sla dead show` says of it: `body` as text if it is UTF-8, and always in base64."""
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            text = None
        return {**self.report(), "headers": self.headers, "body": text, "body_base64": self.body}

    def row(self) -> tuple[str, ...]:
        """For people, in the order of COLUMNS."""
        return (str(self.sequence), self.reason, wall(self.refused_at, None), _safe(self.subject), self.error)

    def lines(self) -> list[tuple[str, str]]:
        """For people: the reason, the headers and the body, all safe for a terminal."""
        return [
            ("sequence", str(self.sequence)),
            ("reason", self.reason),
            ("error", self.error),
            ("subject", _safe(self.subject)),
            ("refused", wall(self.refused_at, None)),
            *((f"header {_safe(name)}", _safe(value)) for name, value in self.headers.items()),
            ("body", _safe(self.body.decode(errors="backslashreplace"))),
        ]

    def original(self) -> Outgoing:
        """The message as it was published: the same bytes and headers, so that it is the same fact."""
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith(_CONTROL)}
        return Outgoing(self.subject, headers, self.body)


def _safe(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


async def letters(nc: Client) -> AsyncIterator[Letter]:
    """All dead letters there are now, the oldest first."""
    try:
        state = (await nc.jetstream().stream_info(DEAD_LETTERS)).state
    except nats.js.errors.NotFoundError:
        raise BusError(f"stream {DEAD_LETTERS} does not exist; run `sla migrate`") from None
    if not state.messages:
        return
    reader = StreamReader(nc, DEAD_LETTERS, 0)
    try:
        while True:
            async with asyncio.timeout(SILENCE):
                taken = await reader.take()
            for message in taken:
                if message.sequence <= state.last_seq:
                    yield _letter(message)
            if taken[-1].sequence >= state.last_seq or not reader.lag:
                return
    except TimeoutError:
        raise BusError(f"stream {DEAD_LETTERS} does not answer") from None
    finally:
        await reader.close()


def _letter(message: Message) -> Letter:
    headers = {name: str(value) for name, value in (message.headers or {}).items()}
    sequence = headers.get("Sla-Sequence", "")
    return Letter(
        int(sequence) if sequence.isdecimal() else 0,
        headers.get("Sla-Reason", message.subject.partition(".")[2]),
        headers.get("Sla-Error", ""),
        headers.get("Sla-Subject", ""),
        message.stored_at,
        {name: value for name, value in headers.items() if not name.lower().startswith(_ADDED)},
        message.body,
    )


async def find(nc: Client, sequences: Sequence[int]) -> list[Letter]:
    """The dead letters of these originals. Raises BusError with the sequences that are none."""
    found = {letter.sequence: letter async for letter in letters(nc) if letter.sequence in sequences}
    if missing := [str(sequence) for sequence in sequences if sequence not in found]:
        raise BusError(f"{', '.join(missing)}: no such dead letter; `sla dead list` shows them")
    return [found[sequence] for sequence in sequences]


async def all_of(nc: Client) -> list[Letter]:
    """All there are."""
    return [letter async for letter in letters(nc)]


async def replay(nc: Client, sequences: Sequence[int] | None, reason: str | None) -> list[tuple[Letter, int]]:
    """
    Sends originals again: those of the sequences, else those of the reason, else all; equal ones once. Each comes with
    its new sequence in TICKETS.
    """
    if sequences:
        chosen = await find(nc, sequences)
    else:
        chosen = [letter async for letter in letters(nc) if reason in (None, letter.reason)]
    different: dict[bytes, Letter] = {}
    for letter in chosen:
        different.setdefault(_digest(letter), letter)
    waiting, sent = list(different.values()), []
    publisher = Publisher(nc, TICKETS)
    for start in range(0, len(waiting), CHUNK):
        some = waiting[start : start + CHUNK]
        published = await publisher.publish([letter.original() for letter in some])
        sent += [(letter, each.sequence) for letter, each in zip(some, published, strict=True)]
    return sent


def _digest(letter: Letter) -> bytes:
    """A letter that was sent again and refused again is the same message: without this each replay would double it."""
    subject, headers, body = letter.original()
    return blake2b(repr((subject, sorted(headers.items()))).encode() + body, digest_size=16).digest()
