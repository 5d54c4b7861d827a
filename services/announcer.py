"""Announcer: the outbox relay. It publishes each decision once and in the order of the log; it decides nothing."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, NamedTuple, Self
from uuid import uuid4

import msgspec
import structlog

from events.promises import (
    ANNOUNCEMENT_TYPES,
    SlaApplied,
    build_announcement_message,
    make_subject,
    to_seconds,
)
from events.times import to_microseconds
from services.bus.connection import Bus
from services.bus.publisher import (
    EXPECTED_SEQUENCE_HEADER,
    ID_HEADER,
    MIN_ATOMIC_BATCH,
    Outgoing,
    Published,
    chain_sequences,
    find_duplicates,
)
from services.bus.streams import SLA
from services.errors import BusError, FatalError, PublishRefusedError
from services.faults import reach
from services.runtime.service import POLL_INTERVAL, Replication, Service, ensure_leader
from services.runtime.setup import Backends, Setup
from services.store.interface import Lock, Store
from services.store.schema import ANNOUNCED_SEQUENCE, ANNOUNCED_SINCE, ANNOUNCER_CHECKPOINT, build_created_at_key
from sla.engine import Message
from sla.log import Announced, Breached, BreachRetracted, EscalationRaised, Fulfilled, LogEntry, LogRow, decode_rows

log = structlog.get_logger()

LOG_BATCH = 500  # rows of the log that are read at once
LEADER_CHECK_INTERVAL = 1.0  # seconds between two checks that this process still leads
SAVE_INTERVAL = 0.1  # seconds between two checkpoints: what SLA got since the last one is read again after a crash


_CHECKPOINTS = (ANNOUNCER_CHECKPOINT, ANNOUNCED_SEQUENCE, build_created_at_key(SLA))


class Announcer(Service):
    """
    Publishes each decision of the log once, whatever else is on SLA.

    Its checkpoint is a pair, stored in one transaction: a position in the log up to which everything is announced, and
    a sequence of SLA after which everything lies that is announced of what follows in the log; with it, when that SLA
    was created. On a start SLA is read from that sequence on; what is found there by its id and subject is not
    published again. Places in the log are never compared with places in SLA: after a restore or a failover they do not
    correspond.

    Each message is published with the sequence that SLA is expected to have. If the broker refuses, because an answer
    was lost, or because another announcer or a stranger was faster, what is new there is read, and the rest published
    at once. A stranger that took the id of a decision does not keep it from being announced: that goes under the id
    with a suffix.

    The store may be older than SLA (a restore, a failover): what it decides again is there already. SLA holds messages
    then whose decisions are still to come; the saved sequence stays before them until they have come, or until the log
    is past their time and they are known to be a stranger's. What SLA has discarded since the saved sequence counts as
    not announced: twice is better than never.

    SLA may be another one, restored from an older backup than the store: it was created at another time, or ends before
    the saved sequence. Then all of it is read, and what the log has announced and SLA lacks is published again; if it
    has discarded its oldest messages, only what was decided after the oldest that it still holds. An SLA without any
    message was made anew: nothing of the past is put into it, and ANNOUNCED_SINCE remembers that. A store that never
    announced anything refuses a used SLA.
    """

    name: ClassVar[str] = "announcer"
    summary: ClassVar[str] = "publishes each decision once, in the order of the log"
    streams: ClassVar[tuple[str, ...]] = (SLA,)
    checkpoint: ClassVar[str | None] = ANNOUNCER_CHECKPOINT
    replication: ClassVar[Replication] = Replication.LEADER

    def __init__(self, bus: Bus, store: Store, lock: Lock) -> None:
        super().__init__()
        self._bus, self._store, self._lock = bus, store, lock
        self._publisher = bus.get_publisher(SLA)
        self._batches = False
        self._sequence = 0  # of SLA, up to which it is known what is there
        self._unmatched: dict[bytes, Unmatched] = {}  # by key, in the order of SLA
        self._passed_at = 0  # the latest `at` of a decision that was passed in the log, in microseconds
        self._horizon: tuple[int, int] | None = None  # see _forget_strangers
        self._checked_at = 0.0  # when it was last checked that this process leads, by the loop's time
        self._made_at = 0  # when SLA was created, in microseconds
        self._saved = (-1, -1)  # the checkpoint: position and sequence
        self._saved_at = 0.0  # by the loop's time

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds an announcer."""
        return lambda at: cls(at.bus, at.store, at.find_lock(cls.name))

    async def run(self) -> None:
        await self.acquire_leadership(self._lock)
        position = await self.run_to_completion(self._resume())
        self._batches = await self.run_to_completion(self._bus.accepts_batches(SLA))
        while True:
            rows = await self.run_in_thread(self._read_next, position, asyncio.get_running_loop().time())
            self.record_heartbeat()
            if rows:
                await self.run_to_completion(self._announce(rows))
                position = rows[-1].position
            else:
                await self.sleep(POLL_INTERVAL if self._build_checkpoint(position) == self._saved else SAVE_INTERVAL)

    async def stop(self) -> None:
        await super().stop()
        await asyncio.to_thread(self._lock.release)  # a store that does not answer must not stop the loop

    # ---- the log, and the checkpoint

    def _read_next(self, position: int, now: float) -> list[LogRow]:
        """Return what follows in the log; save the checkpoint now and then. Blocks. May raise NotLeaderError."""
        if now - self._checked_at >= LEADER_CHECK_INTERVAL:
            ensure_leader(self._lock)
            self._checked_at = now
            if self._store.read_checkpoint(ANNOUNCER_CHECKPOINT) != self._saved[0]:
                self._saved = (-1, -1)  # a leader before, which was paused meanwhile, has saved its own
        if self._build_checkpoint(position) != self._saved and now - self._saved_at >= SAVE_INTERVAL:
            self._save_checkpoint(position)
            self._saved_at = now
        partitions = self._store.read_partitions().values() if self._unmatched else ()
        rows = self._store.read_log_rows(position, LOG_BATCH)
        if partitions and not rows:
            self._forget_strangers(min(partitions), max(partitions))
        return rows

    def _build_checkpoint(self, position: int) -> tuple[int, int]:
        """Return the position, and the sequence of SLA after which all lies that is announced of what follows it."""
        oldest = next(iter(self._unmatched.values()), None)
        return position, self._sequence if oldest is None else oldest.sequence - 1

    def _save_checkpoint(self, position: int) -> None:
        self._saved = self._build_checkpoint(position)
        self._store.save_checkpoints(dict(zip(_CHECKPOINTS, (*self._saved, self._made_at), strict=True)))

    def _forget_strangers(self, committed: int, newest: int) -> None:
        """
        Forget what nobody will decide any more. To be called when all that was decided of TICKETS up to `committed`, by
        every partition, is announced; some partition has come to `newest`.

        Decisions that were passed in the log are of messages up to `newest`. Once every partition has come so far, all
        is decided that was in TICKETS before them.
        """
        sequence, at = self._horizon = self._horizon or (newest, self._passed_at)
        if committed >= sequence:
            self._unmatched = {key: each for key, each in self._unmatched.items() if each.at >= at}
            self._horizon = None

    # ---- SLA

    async def _resume(self) -> int:
        """Read what SLA has after the saved sequence; return the saved position. Raises FatalError for another SLA."""
        self._made_at = to_microseconds(await self._bus.read_created_at(SLA))
        oldest, newest = await self._bus.read_ends(SLA)
        saved = await self.run_in_thread(self._store.read_checkpoints, _CHECKPOINTS)
        if ANNOUNCER_CHECKPOINT not in saved and newest:
            raise FatalError(
                f"stream {SLA} has messages, but this store never announced any: everything would be announced again; "
                "restore the store they belong to, or start with an empty stream"
            )
        position, self._sequence, made_at = (saved.get(name, 0) for name in _CHECKPOINTS)
        if ANNOUNCER_CHECKPOINT not in saved:  # a crash after the first message must not look like that
            await self.run_in_thread(self._save_checkpoint, 0)
        elif made_at != self._made_at or self._sequence > newest:
            position = await self._begin_again(position, oldest, newest)
        await self._read_on()
        return position

    async def _begin_again(self, position: int, oldest: int, newest: int) -> int:
        """Return after which position SLA is to be completed, as it is not the one that was announced on."""
        is_empty = newest < max(oldest, 1)
        log.warning("SLA is another one", announced_up_to=self._sequence, ends_at=newest, made_anew=is_empty)
        self._sequence = newest if is_empty else 0
        if is_empty:
            await self.run_in_thread(self._store.save_checkpoints, {ANNOUNCED_SINCE: position})
        else:
            since = await self._bus.read_stored_at(SLA, oldest) if oldest > 1 else None
            position = await self.run_in_thread(self._find_decided_since, since)
        await self.run_in_thread(self._save_checkpoint, position)
        return position

    def _find_decided_since(self, since: datetime | None) -> int:
        """Return the position in the log before the first decision of this instant or later. Blocks."""
        position = self._store.read_checkpoint(ANNOUNCED_SINCE) or 0
        while since is not None and (rows := self._store.read_log_rows(position, LOG_BATCH)):
            for entry in decode_rows(rows, Announced):
                if entry.event.at >= since:
                    return entry.position - 1
            position = rows[-1].position
        return position

    async def _read_on(self) -> None:
        """Read what is new on SLA."""
        newest = await self._bus.read_last_sequence(SLA)
        if newest < self._sequence:
            raise BusError(f"stream {SLA} ends at {newest}, and {self._sequence} were there: it is another one now")
        if newest > self._sequence:
            reader = self._bus.create_reader(SLA, self._sequence)
            try:
                await reader.start()
                while reader.lag:
                    for message in await reader.read_batch():
                        self._note(message)
                    self.record_heartbeat()
            finally:
                await reader.close()
            self._sequence = max(newest, self._sequence)

    def _note(self, message: Message) -> None:
        """Remember a message of SLA if it may be the announcement of a decision that is still to come in the log."""
        self._sequence = message.sequence
        if found := read_identity(message):
            id, at = found
            self._unmatched.setdefault(build_key(id, message.subject), Unmatched(message.sequence, at))

    def _select_new(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Return those that are not on SLA yet."""
        keys = [build_key(message.headers[ID_HEADER].partition("/")[0], message.subject) for message in messages]
        return [each for key, each in zip(keys, messages, strict=True) if self._unmatched.pop(key, None) is None]

    # ---- announce

    async def _announce(self, rows: Sequence[LogRow]) -> None:
        """Publish the decisions among the rows."""
        entries = list(decode_rows(rows, Announced))
        if new := self._select_new([build_announcement(entry) for entry in entries]):
            reach("announcer.before_publish")
            await self._publish_all(new)
            reach("announcer.after_publish")
        if entries:
            self._passed_at = max(self._passed_at, *(to_microseconds(entry.event.at) for entry in entries))
            log.info("announced", messages=len(entries), position=rows[-1].position)

    async def _publish_all(self, messages: Sequence[Outgoing]) -> None:
        """
        Publish messages, though others publish on SLA meanwhile. Raises PublishRefusedError if the broker refuses them
        for another reason than that.
        """
        as_batch = self._batches
        while messages:
            known = self._sequence
            refusal: PublishRefusedError | None = None
            try:
                answers = await self._publish(messages, as_batch and len(messages) >= MIN_ATOMIC_BATCH)
            except PublishRefusedError as error:
                refusal, duplicates = error, error.duplicates
            else:
                duplicates = find_duplicates(answers)
                if not duplicates:
                    self._sequence = answers[-1].sequence
                    return
            await self.run_in_thread(ensure_leader, self._lock)
            await self._read_on()
            if refusal and not duplicates and self._sequence == known:
                if not as_batch:
                    raise refusal
                as_batch = False  # one of them may be a duplicate: then the broker refuses all, and names none
            for place, sequence in duplicates.items():
                if sequence <= known:
                    rename(messages[place])
            messages = self._select_new(messages)
            self.record_heartbeat()

    async def _publish(self, messages: Sequence[Outgoing], as_batch: bool) -> Sequence[Published]:
        if as_batch:
            messages[0].headers[EXPECTED_SEQUENCE_HEADER] = str(self._sequence)
            return [await self._publisher.publish_atomic_batch(messages)]
        return await self._publisher.publish(chain_sequences(messages, self._sequence))


class Unmatched(NamedTuple):
    """An announcement on SLA whose decision has not come in the log: its sequence, and when it was decided, in µs."""

    sequence: int
    at: int


class _Detected(msgspec.Struct):
    detected_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Identified(msgspec.Struct):
    id: str
    data: _Detected


_open = msgspec.json.Decoder(_Identified).decode


def read_identity(message: Message) -> tuple[str, int] | None:
    """
    Return the id of an announcement, whichever version made it, and when it was decided, in microseconds since 1970;
    None for a message of a stranger.
    """
    try:
        envelope = _open(message.body)
        at = to_microseconds(envelope.data.detected_at)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
    id = str((message.headers or {}).get(ID_HEADER)).partition("/")[0]
    return (id, at) if id == envelope.id else None


def build_key(id: str, subject: str) -> bytes:
    """Return what an announcement is found by: short, as there may be a million."""
    return blake2b(f"{id} {subject}".encode(), digest_size=16).digest()


def rename(message: Outgoing) -> None:
    """Give a message another id for the broker, which has stored something else under the one it has."""
    message.headers[ID_HEADER] = f"{message.headers[ID_HEADER].partition('/')[0]}/{uuid4().hex}"


def build_announcement(entry: LogEntry) -> Outgoing:
    """Return the message for a decision: the same decision always makes the same message."""
    event = entry.event
    assert isinstance(event, Announced)
    data = _build_data(entry.ticket, event)
    historic = isinstance(event, Breached | BreachRetracted) and event.detection == "historic"
    subject = make_subject(event.KIND, data["service_level"], data["priority"], entry.ticket, historic)
    headers, body = build_announcement_message(
        f"sla.{event.KIND}", event.id, entry.ticket, event.time, data, event.trace
    )
    return Outgoing(subject, headers | {ID_HEADER: event.id}, body)


def _build_data(ticket: str, event: Announced) -> dict[str, Any]:
    """Return the fields that events/promises.py has for this kind: those of all kinds, then its own."""
    state = event.state
    level, priority = state.judged
    if isinstance(event, Breached | BreachRetracted):  # those it was announced under
        level, priority = event.service_level, event.priority
    elif isinstance(event, EscalationRaised):
        level, priority = state.service_level, state.priority
    assert state.started_at is not None
    return {
        "ticket_id": ticket,
        "objective": event.objective,
        "cycle": event.cycle,
        "service_level": level,
        "priority": priority,
        "policy_version": state.policy_version,
        "started_at": state.started_at,
        "due_at": state.due_at or state.started_at,
        "target_seconds": to_seconds(state.target or timedelta()),
        "elapsed_seconds": to_seconds(event.elapsed),
        "escalation_level": state.escalation_level,
        "cause": event.cause,
        "cause_id": event.cause_id,
        "detected_at": event.at,
        "customer": state.customer,
        "title": state.title,
        "url": state.url,
        "team": state.team,
        "assignee": state.assignee,
        **{name: _read_field(event, name) for name in _OWN_FIELDS[event.KIND]},
    }


_OWN_FIELDS = {
    kind.removeprefix("sla."): tuple(name for name in data.model_fields if name not in SlaApplied.model_fields)
    for kind, data in ANNOUNCEMENT_TYPES.items()
}
"""The fields of each kind beside those that all have, which are all that `applied` has."""


def _read_field(event: Announced, name: str) -> Any:
    """Return the attribute of this name; `x_seconds` is the span `x`."""
    if name == "breach_id" and isinstance(event, Breached):
        return event.id
    if isinstance(event, Fulfilled) and name in ("fulfilled_at", "responded_at"):
        return event.responded_at if name == "fulfilled_at" or event.fulfilled_by == "responded" else None
    if name == "escalated_at":
        return event.time
    if name.endswith("_seconds"):
        return to_seconds(getattr(event, name.removesuffix("_seconds")))
    return getattr(event, name)
