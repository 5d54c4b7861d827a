"""Announcer: the outbox relay. It publishes each decision once and in the order of the log; it decides nothing."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import structlog

from events.promises import ANNOUNCEMENT_TYPES, SlaApplied, build_announcement_message, make_subject, to_seconds
from services.bus.connection import Bus
from services.bus.publisher import EXPECTED_SEQUENCE_HEADER, MIN_ATOMIC_BATCH, Outgoing, chain_sequences
from services.bus.streams import SLA
from services.errors import FatalError
from services.faults import reach
from services.runtime.service import POLL_INTERVAL, Replication, Service, ensure_leader
from services.runtime.setup import Backends, Setup
from services.store.interface import Lock, Store
from services.store.schema import ANNOUNCER_CHECKPOINT
from sla.log import Announced, Breached, BreachRetracted, LogEntry, LogRow, decode_rows

log = structlog.get_logger()

POSITION_HEADER = "Sla-Log-Position"
LOG_BATCH = 500  # rows of the log that are read at once
LEADER_CHECK_INTERVAL = 1.0  # seconds between two checks that this process still leads
SAVE_INTERVAL = 0.1  # seconds: after a crash, what SLA says counts; the checkpoint is for metrics and a quick start


class Announcer(Service):
    """
    Publishes with the sequence it expects SLA to have: a message that was stored though the answer was lost, or by
    another announcer, shows as a refusal, after which the newest message of SLA says where to go on.
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
        self._checked_at = 0.0  # when it was last checked that this process leads, by the loop's time
        self._saved = (-1, 0.0)  # the checkpoint, and when it was saved, by the loop's time

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds an announcer."""
        return lambda at: cls(at.bus, at.store, at.find_lock(cls.name))

    async def run(self) -> None:
        await self.acquire_leadership(self._lock)
        position, sequence = await self.run_to_completion(self._find_start())
        self._batches = await self.run_to_completion(self._bus.accepts_batches(SLA))
        while True:
            rows = await self.run_in_thread(self._read_next, position, asyncio.get_running_loop().time())
            self.record_heartbeat()
            if rows:
                sequence = await self.run_to_completion(self._announce(rows, sequence))
                position = rows[-1].position
            else:
                await self.sleep(POLL_INTERVAL if position == self._saved[0] else SAVE_INTERVAL)

    async def stop(self) -> None:
        await super().stop()
        await asyncio.to_thread(self._lock.release)  # a store that does not answer must not stop the loop

    def _read_next(self, position: int, now: float) -> list[LogRow]:
        """Return what follows in the log; save the checkpoint now and then. Blocks. May raise NotLeaderError."""
        if now - self._checked_at >= LEADER_CHECK_INTERVAL:
            ensure_leader(self._lock)
            self._checked_at = now
        if position != self._saved[0] and now - self._saved[1] >= SAVE_INTERVAL:
            self._save_checkpoint(position)
            self._saved = (position, now)
        return self._store.read_log_rows(position, LOG_BATCH)

    async def _find_start(self) -> tuple[int, int]:
        """Return the position of the last announcement, and the last sequence of SLA. What SLA says counts most."""
        sequence = await self._bus.read_last_sequence(SLA)
        saved = await self.run_in_thread(self._store.read_checkpoint, ANNOUNCER_CHECKPOINT)
        if saved is None and sequence:
            raise FatalError(
                f"stream {SLA} has messages, but this store never announced any: everything would be announced again; "
                "restore the store they belong to, or start with an empty stream"
            )
        if saved is None:
            await self.run_in_thread(
                self._save_checkpoint, 0
            )  # before the first message: a crash after it must not look like that
        newest = await self._bus.read_newest(SLA, "sla.>")
        return max(saved or 0, int(newest[0].get(POSITION_HEADER, 0)) if newest else 0), sequence

    async def _announce(self, rows: Sequence[LogRow], sequence: int) -> int:
        """Publish the decisions among the rows; return the last sequence of SLA."""
        messages = [build_announcement(entry) for entry in decode_rows(rows, Announced)]
        if messages:
            reach("announcer.before_publish")
            sequence = await self._publish(messages, sequence)
            reach("announcer.after_publish")
            log.info("announced", messages=len(messages), position=rows[-1].position)
        return sequence

    async def _publish(self, messages: Sequence[Outgoing], sequence: int) -> int:
        if self._batches and len(messages) >= MIN_ATOMIC_BATCH:
            messages[0].headers[EXPECTED_SEQUENCE_HEADER] = str(sequence)
            return (await self._publisher.publish_atomic_batch(messages)).sequence
        return (await self._publisher.publish(chain_sequences(messages, sequence)))[-1].sequence

    def _save_checkpoint(self, position: int) -> None:
        self._store.save_checkpoint(ANNOUNCER_CHECKPOINT, position)


def build_announcement(entry: LogEntry) -> Outgoing:
    """Return the message for a decision: the same decision always makes the same message."""
    event = entry.event
    assert isinstance(event, Announced)
    data = _build_data(entry.ticket, event)
    historic = isinstance(event, Breached) and event.detection == "historic"
    subject = make_subject(event.KIND, data["service_level"], data["priority"], entry.ticket, historic)
    headers, body = build_announcement_message(f"sla.{event.KIND}", event.id, entry.ticket, event.time, data)
    headers |= {"Nats-Msg-Id": event.id, POSITION_HEADER: str(entry.position)}
    return Outgoing(subject, headers, body)


def _build_data(ticket: str, event: Announced) -> dict[str, Any]:
    """Return the fields that events/promises.py has for this kind: those of all kinds, then its own."""
    state = event.state
    labels = event if isinstance(event, Breached | BreachRetracted) else state  # those it was announced under
    assert state.target is not None
    return {
        "ticket_id": ticket,
        "objective": event.objective,
        "cycle": event.cycle,
        "service_level": labels.service_level,
        "priority": labels.priority,
        "policy_version": state.policy_version,
        "started_at": state.started_at,
        "due_at": state.due_at,
        "target_seconds": to_seconds(state.target),
        "elapsed_seconds": to_seconds(event.elapsed),
        "escalation_level": state.escalation_level,
        "cause": event.cause,
        "cause_id": event.cause_id,
        "detected_at": event.at,
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
    if name == "escalated_at":
        return event.time
    if name.endswith("_seconds"):
        return to_seconds(getattr(event, name.removesuffix("_seconds")))
    return getattr(event, name)
