"""Announcer: tells the bus what was decided, each decision once and in the order of the log. It decides nothing."""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import structlog

from events.promises import build_message, make_subject, to_seconds
from services.bus.connection import EXPECTED_SEQUENCE_HEADER, MIN_ATOMIC_BATCH, Bus, Outgoing, chain_sequences
from services.bus.streams import SLA
from services.errors import FatalError
from services.faults import reach
from services.runtime.service import Service, ensure_leader
from services.store.interface import ANNOUNCER_CHECKPOINT, Lock, Store
from sla.log import (
    Announced,
    Applied,
    Breached,
    BreachRetracted,
    Cancelled,
    EscalationRaised,
    Fulfilled,
    LogEntry,
    LogRow,
    TargetChanged,
    WarningRaised,
    decode_rows,
)

log = structlog.get_logger()

POSITION_HEADER = "Sla-Log-Position"
LOG_BATCH = 500
POLL = 2.0  # seconds: the longest sleep, should a nudge be lost
LEADER_CHECK_INTERVAL = 1.0  # seconds between two looks at whether this process still has the role
SAVE_INTERVAL = 0.1  # seconds: after a crash, what SLA says counts; the saved position is for metrics and a quick start


class Announcer(Service):
    """
    Publishes with the sequence it expects SLA to have: a message that was stored though the answer was lost, or by
    another announcer, shows as a refusal, after which the newest message of SLA says where to go on.
    """

    name: ClassVar[str] = "announcer"

    def __init__(self, bus: Bus, store: Store, lock: Lock) -> None:
        super().__init__()
        self._bus, self._store, self._lock = bus, store, lock
        self._publisher = bus.get_publisher(SLA)
        self._batches = False
        self._looked = 0.0  # at the lock, by the loop's time
        self._saved = (-1, 0.0)  # the position, and when it was saved (by the loop's time)

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
                await self.sleep(POLL if position == self._saved[0] else SAVE_INTERVAL)

    async def stop(self) -> None:
        await super().stop()
        self._lock.release()

    def _read_next(self, position: int, now: float) -> list[LogRow]:
        """Blocking. What follows in the log; saves now and then how far everything was announced."""
        if now - self._looked >= LEADER_CHECK_INTERVAL:
            ensure_leader(self._lock)
            self._looked = now
        if position != self._saved[0] and now - self._saved[1] >= SAVE_INTERVAL:
            self._save_checkpoint(position)
            self._saved = (position, now)
        return self._store.read_log_rows(position, LOG_BATCH)

    async def _find_start(self) -> tuple[int, int]:
        """The position after the last announcement, and the last sequence of SLA. What SLA says counts most."""
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
        """Publishes what is to be announced; returns the last sequence of SLA."""
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
        with self._store.write_view() as cursor:
            cursor.execute(
                "INSERT INTO positions VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                (ANNOUNCER_CHECKPOINT, position),
            )


def build_announcement(entry: LogEntry) -> Outgoing:
    """The message for a decision: the same decision always makes the same message."""
    event = entry.event
    assert isinstance(event, Announced)
    data = _common(entry.ticket, event) | _also(event)
    historic = isinstance(event, Breached | BreachRetracted) and event.detection == "historic"
    subject = make_subject(event.KIND, data["service_level"], data["priority"], entry.ticket, historic)
    headers, body = build_message(f"sla.{event.KIND}", event.id, entry.ticket, event.time, data)
    headers |= {"Nats-Msg-Id": event.id, POSITION_HEADER: str(entry.position)}
    return Outgoing(subject, headers, body)


def _common(ticket: str, event: Announced) -> dict[str, Any]:
    """What every message has, as in events/promises.py."""
    state = event.state
    assert state.target is not None
    return {
        "ticket_id": ticket,
        "objective": event.objective,
        "cycle": event.cycle,
        "service_level": state.service_level,
        "priority": state.priority,
        "policy_version": state.policy_version,
        "started_at": state.started_at,
        "due_at": state.due_at,
        "target_seconds": to_seconds(state.target),
        "elapsed_seconds": to_seconds(event.elapsed),
        "escalation_level": state.escalation_level,
        "cause": event.cause,
        "cause_id": event.cause_id,
        "detected_at": event.at,
    }


def _also(event: Announced) -> dict[str, Any]:
    """What the messages of its kind have beside that. A breach keeps the labels that it was announced under."""
    match event:
        case Applied():
            return {}
        case TargetChanged():
            return {"old_due_at": event.old_due_at, "old_target_seconds": to_seconds(event.old_target)}
        case WarningRaised():
            return {"threshold_percent": event.threshold_percent}
        case Breached():
            return {
                "service_level": event.service_level,
                "priority": event.priority,
                "breach_id": event.id,
                "number": event.number,
                "breached_at": event.breached_at,
                "severity": event.severity,
                "detection": event.detection,
            }
        case BreachRetracted():
            return {
                "service_level": event.service_level,
                "priority": event.priority,
                "breach_id": event.breach_id,
                "number": event.number,
                "breached_at": event.breached_at,
                "severity": event.severity,
                "reason": event.reason,
            }
        case Fulfilled():
            return {
                "responded_at": event.responded_at,
                "met": event.met,
                "overdue_seconds": to_seconds(event.overdue),
                "revision": event.revision,
                "replaces": event.replaces,
            }
        case Cancelled():
            return {"reason": event.reason}
        case EscalationRaised():
            return {
                "tell": event.tell,
                "severity": event.severity,
                "reason": event.reason,
                "escalated_at": event.time,
            }
        case _:
            raise TypeError(f"{type(event).__name__} has no message; add it to services/announcer.py")
