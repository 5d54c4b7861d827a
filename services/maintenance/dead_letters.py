"""Dead letters on the bus: find and group them, publish their originals again, discard them. How they look: the CLI."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import nats.js.errors
from nats.aio.client import Client

from events.cloudevents import BadFactError, Reason, open_envelope
from services.bus.publisher import Outgoing, Publisher
from services.bus.reader import StreamReader
from services.bus.streams import DEAD_LETTERS, TICKETS
from services.errors import BusError
from sla.engine import Message

DEAD_LETTER_REASONS = tuple(Reason)
DEAD_LETTER_TIMEOUT = 10.0  # seconds without a message while some are missing
RESEND_BATCH = 500
MAX_DELETES_IN_FLIGHT = 50
MESSAGE_NOT_FOUND = 10043  # the code of JetStream for a message that somebody else has deleted

_ADDED_HEADERS = ("sla-reason", "sla-error", "sla-subject", "sla-sequence", "nats-")
_CONTROL_HEADERS = "sla-original-"  # what the broker acted on when it was sent first: it is not for a second time


class WaitingDeadLetter(NamedTuple):
    """
    A message that could not count. `sequence` is that of the original in TICKETS, `position` that of the dead letter in
    its stream; `headers` are those the original came with.
    """

    sequence: int
    position: int
    reason: str
    error: str
    subject: str
    refused_at: datetime
    headers: dict[str, str]
    body: bytes

    def read_attributes(self) -> dict[str, str | None]:
        """Return type, source, id, ticket and time as the publisher gave them, None where they cannot be read."""
        try:
            envelope = open_envelope(self.body, self.headers)
        except BadFactError:
            return dict.fromkeys(("type", "source", "id", "ticket_id", "time"))
        ticket, time = envelope.attributes.get("subject"), envelope.attributes.get("time")
        return {
            "type": envelope.type,
            "source": envelope.source,
            "id": envelope.id,
            "ticket_id": ticket if isinstance(ticket, str) else None,
            "time": time if isinstance(time, str) else None,
        }

    def to_json(self) -> dict[str, object]:
        """Return what `sla dead list -o json` prints."""
        return {
            "sequence": self.sequence,
            "reason": self.reason,
            "error": self.error,
            "subject": self.subject,
            "refused_at": self.refused_at,
            **self.read_attributes(),
        }

    def to_full_json(self) -> dict[str, object]:
        """Return what `sla dead show -o json` prints: `body` as text if it is UTF-8, and always in base64."""
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            text = None
        return {**self.to_json(), "headers": self.headers, "body": text, "body_base64": self.body}

    def build_original(self) -> Outgoing:
        """Return the message as it was published: the same bytes and headers, so that it is the same fact."""
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith(_CONTROL_HEADERS)}
        return Outgoing(self.subject, headers, self.body)


async def read_dead_letters(nc: Client) -> AsyncIterator[WaitingDeadLetter]:
    """Yield all dead letters there are now, the oldest first."""
    try:
        state = (await nc.jetstream().stream_info(DEAD_LETTERS)).state
    except nats.js.errors.NotFoundError:
        raise BusError(f"stream {DEAD_LETTERS} does not exist; run `sla migrate`") from None
    if not state.messages:
        return
    reader = StreamReader(nc, DEAD_LETTERS, 0)
    try:
        while True:
            async with asyncio.timeout(DEAD_LETTER_TIMEOUT):
                messages = await reader.read_batch()
            for message in messages:
                if message.sequence <= state.last_seq:
                    yield _build_dead_letter(message)
            if messages[-1].sequence >= state.last_seq or not reader.lag:
                return
    except TimeoutError:
        raise BusError(f"stream {DEAD_LETTERS} does not answer") from None
    finally:
        await reader.close()


def _build_dead_letter(message: Message) -> WaitingDeadLetter:
    headers = {name: str(value) for name, value in (message.headers or {}).items()}
    sequence = headers.get("Sla-Sequence", "")
    return WaitingDeadLetter(
        int(sequence) if sequence.isdecimal() else 0,
        message.sequence,
        headers.get("Sla-Reason", message.subject.partition(".")[2]),
        headers.get("Sla-Error", ""),
        headers.get("Sla-Subject", ""),
        message.stored_at,
        {name: value for name, value in headers.items() if not name.lower().startswith(_ADDED_HEADERS)},
        message.body,
    )


async def find_dead_letters(nc: Client, sequences: Sequence[int]) -> list[WaitingDeadLetter]:
    """Return the dead letters of these originals. Raises BusError with the sequences that are none."""
    found = {letter.sequence: letter async for letter in read_dead_letters(nc) if letter.sequence in sequences}
    if missing := [str(sequence) for sequence in sequences if sequence not in found]:
        raise BusError(f"{', '.join(missing)}: no such dead letter; `sla dead list` shows them")
    return [found[sequence] for sequence in sequences]


class DeadLetterChoice(NamedTuple):
    """Which dead letters: those of these originals, else all of the reason and the source, where they are given."""

    sequences: Sequence[int] = ()
    reason: str | None = None
    source: str | None = None


async def select_dead_letters(nc: Client, choice: DeadLetterChoice) -> list[WaitingDeadLetter]:
    """Return the dead letters of a choice, the oldest first. Raises BusError with the sequences that are none."""
    if choice.sequences:
        return await find_dead_letters(nc, choice.sequences)
    return [
        letter
        async for letter in read_dead_letters(nc)
        if choice.reason in (None, letter.reason) and choice.source in (None, letter.read_attributes()["source"])
    ]


class DeadLetterGroup(NamedTuple):
    """Dead letters that one mistake has made: one reason, one publisher. `source` is None where it cannot be read."""

    letters: int
    reason: str
    source: str | None
    oldest: datetime
    newest: datetime


def group_dead_letters(found: Iterable[WaitingDeadLetter]) -> list[DeadLetterGroup]:
    """Group by reason and source, the largest group first."""
    times: defaultdict[tuple[str, str | None], list[datetime]] = defaultdict(list)
    for letter in found:
        times[letter.reason, letter.read_attributes()["source"]].append(letter.refused_at)
    made = [DeadLetterGroup(len(at), reason, source, min(at), max(at)) for (reason, source), at in times.items()]
    return sorted(made, key=lambda group: (-group.letters, group.reason, group.source or ""))


async def replay(nc: Client, choice: DeadLetterChoice) -> list[tuple[WaitingDeadLetter, int]]:
    """
    Publish originals again, equal ones once, and remove their dead letters: what is still wrong comes back as a new
    one. Return each with its new sequence in TICKETS. A crash in between leaves dead letters, and to publish those
    again changes nothing.
    """
    equal: defaultdict[bytes, list[WaitingDeadLetter]] = defaultdict(list)
    for letter in await select_dead_letters(nc, choice):
        equal[_make_digest(letter)].append(letter)
    waiting, sent = list(equal.values()), []
    publisher = Publisher(nc, TICKETS)
    for start in range(0, len(waiting), RESEND_BATCH):
        some = waiting[start : start + RESEND_BATCH]
        published = await publisher.publish([same[0].build_original() for same in some])
        await _remove(nc, [letter for same in some for letter in same])
        sent += [(same[0], each.sequence) for same, each in zip(some, published, strict=True)]
    return sent


async def discard(nc: Client, choice: DeadLetterChoice) -> list[WaitingDeadLetter]:
    """Remove dead letters for good, and return them. What comes while it works stays."""
    found = await select_dead_letters(nc, choice)
    await _remove(nc, found)
    return found


async def _remove(nc: Client, found: Sequence[WaitingDeadLetter]) -> None:
    js = nc.jetstream()
    for start in range(0, len(found), MAX_DELETES_IN_FLIGHT):
        some = found[start : start + MAX_DELETES_IN_FLIGHT]
        answers = await asyncio.gather(
            *(js.delete_msg(DEAD_LETTERS, letter.position) for letter in some), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and getattr(answer, "err_code", None) != MESSAGE_NOT_FOUND:
                raise answer


def _make_digest(letter: WaitingDeadLetter) -> bytes:
    """Return the same digest for dead letters of the same message, refused more than once."""
    subject, headers, body = letter.build_original()
    return blake2b(repr((subject, sorted(headers.items()))).encode() + body, digest_size=16).digest()
