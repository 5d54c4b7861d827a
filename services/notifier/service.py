"""Notifier: delivers announcements to people and their systems, as any subscriber can. It decides nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.aio.client import Client
from nats.js.api import AckPolicy as Acks
from nats.js.api import ConsumerConfig, DeliverPolicy

from events.promises import Announcement, read_announcement
from services.bus.connection import Bus
from services.bus.publisher import Outgoing
from services.bus.reader import StreamReader
from services.bus.streams import SLA, UNDELIVERED
from services.errors import BUS_ERRORS, BusError
from services.notifier.alertmanager import Alertmanager, Alerts
from services.notifier.metrics import Notifications
from services.notifier.receivers import DeliveryRefusedError, Receiver, Receivers, parse_notify
from services.runtime.service import POLL_INTERVAL, Service
from services.runtime.settings import Settings
from services.runtime.setup import Backends, Setup

log = structlog.get_logger()

DELIVERED = ("breached", "overdue", "breach_retracted", "fulfilled", "cancelled", "escalated")
SUBJECTS = tuple(f"sla.{kind}.>" for kind in DELIVERED)
MAX_IN_FLIGHT = 8  # messages under way to one receiver
MAX_BACKOFF = 300.0  # seconds between two tries
SHUTDOWN_TIMEOUT = 3.0  # seconds for what is under way when the process ends; what is not finished comes again


def build_consumer(receiver: str) -> ConsumerConfig:
    """Return the durable consumer of a receiver. Each has its own: one that is away delays nobody else."""
    return ConsumerConfig(
        durable_name=f"notifier_{receiver}",
        filter_subjects=list(SUBJECTS),
        deliver_policy=DeliverPolicy.NEW,
        ack_policy=Acks.EXPLICIT,
        ack_wait=20,  # seconds, longer than any try: after a crash it comes again
        max_deliver=-1,  # `backoff` and a maximum end silently (docs/upstream-behaviour.md#f2)
    )


class _Broker(NatsBroker):
    """The broker of FastStream, on a connection that is made as all of ours are."""

    def __init__(self, connect: Callable[[], Awaitable[Client]]) -> None:
        super().__init__(logger=None, graceful_timeout=SHUTDOWN_TIMEOUT)
        self._open_connection = connect

    async def _connect(self) -> Client:
        connection = await self._open_connection()
        publish = connection.publish

        async def publish_patiently(*arguments: Any, **named: Any) -> None:
            if connection.is_closed:
                # FastStream retries at once, for ever (docs/upstream-behaviour.md#f7)
                await asyncio.sleep(POLL_INTERVAL)
            await publish(*arguments, **named)

        connection.publish = publish_patiently  # type: ignore[method-assign]
        self.config.connect(connection)
        return connection

    def check(self) -> None:
        """Raise BusError if there is no connection and never will be."""
        if self._connection is not None and self._connection.is_closed:
            raise BusError(f"the broker has ended the connection for good: {self._connection.last_error}")

    async def end(self) -> None:
        """Let what is under way finish, and close the connection even if it is lost."""
        connection = self._connection
        try:
            await self.stop()
        except* (nats.errors.Error, OSError):
            pass
        if connection is not None:
            with suppress(OSError):  # the broker has hung up a moment before
                await connection.close()


class Notifier(Service):
    """
    Delivers each message until its receiver took it, refused it for good, or `retry_for` has passed; then it goes to
    UNDELIVERED. At least once: a receiver that gets it twice sees the same id twice.
    """

    name: ClassVar[str] = "notifier"
    summary: ClassVar[str] = "delivers announcements to Alertmanager, webhooks, mail and chat"
    streams: ClassVar[tuple[str, ...]] = (SLA, UNDELIVERED)
    needs_store: ClassVar[bool] = False

    def __init__(
        self,
        bus: Bus,
        connect: Callable[[], Awaitable[Client]],
        inbox: str,
        receivers: Receivers,
        alertmanagers: Sequence[str],
        count: Notifications,
        retry_for: timedelta,
        zone: str,
    ) -> None:
        super().__init__()
        self._bus, self._receivers, self._count, self._retry_for = bus, receivers, count, retry_for
        self._undelivered = bus.get_publisher(UNDELIVERED)
        self._alerts = Alerts(zone)
        self._alertmanagers = [Alertmanager(url, self._alerts, count) for url in alertmanagers]
        self._senders: list[asyncio.Task[None]] = []
        self._broker = _Broker(connect)
        for name, receiver in receivers.by_name.items():
            self._subscribe(name, receiver, inbox)

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds a notifier; what it counts goes on. Raises NotifyError if SLA_NOTIFY is not right."""
        settings, zone, count = setup.settings, setup.policy.zone, Notifications()
        receivers = Receivers(parse_notify(settings.notify), settings.historic_after, zone)
        alertmanagers = [url.strip() for url in (settings.alertmanager_url or "").split(",") if url.strip()]
        setup.registry.register(count)
        own = (setup.inbox, receivers, alertmanagers, count, settings.notify_for, zone)
        return lambda at: cls(at.bus, setup.connect, *own)

    @classmethod
    def is_wanted(cls, settings: Settings) -> bool:
        """Return whether there is anybody to notify."""
        return settings.notifies

    def _subscribe(self, name: str, receiver: Receiver, inbox: str) -> None:
        @self._broker.subscriber(
            "sla.>",
            stream=JStream(SLA, declare=False),
            durable=build_consumer(name).durable_name,
            pull_sub=PullSub(batch_size=MAX_IN_FLIGHT),
            ack_policy=AckPolicy.MANUAL,
            inbox_prefix=f"{inbox}.".encode(),  # that of the connection is not heeded
        )
        async def announced(message: NatsMessage) -> None:
            try:
                event = read_announcement(message.body)
            except ValueError as error:
                log.error("announcement unreadable", target=name, subject=message.raw_message.subject, error=str(error))
                return await message.reject()
            if name not in self._receivers.find_receivers(event):
                return await message.ack()
            try:
                await receiver.deliver(event, message.body)
            except Exception as error:  # noqa: BLE001 - whatever stands in the way, it is tried again
                return await self._handle_failure(name, receiver, event, message, error)
            self._count.add(receiver.kind, "sent")
            log.info("notified", target=name, ticket=event.ticket, type=event.data.type, id=event.id)
            return await message.ack()

    async def _handle_failure(
        self, name: str, receiver: Receiver, event: Announcement, message: NatsMessage, error: Exception
    ) -> None:
        stored = message.raw_message.metadata
        about = {"target": name, "ticket": event.ticket, "id": event.id, "error": str(error) or type(error).__name__}
        if (
            isinstance(error, DeliveryRefusedError)
            or datetime.now(UTC) - stored.timestamp.astimezone(UTC) > self._retry_for
        ):
            try:
                await self._publish_undelivered(name, event, message, about["error"])
            except BUS_ERRORS as lost:
                about["error"] += f"; and it could not be kept: {lost}"
            else:
                self._count.add(receiver.kind, "given_up")
                log.error("given up", **about)
                return await message.ack()
        delay = min(2.0 ** min(stored.num_delivered - 1, 30), MAX_BACKOFF)
        self._count.add(receiver.kind, "retried")
        log.warning("retrying", **about, seconds=delay)
        return await message.nack(delay)

    async def _publish_undelivered(self, name: str, event: Announcement, message: NatsMessage, error: str) -> None:
        headers = {
            "Content-Type": "application/cloudevents+json",
            "Sla-Target": name,
            "Sla-Error": error.encode("ascii", "backslashreplace").decode().replace("\n", " ")[:1000],
            "Sla-Subject": message.raw_message.subject,
            "Nats-Msg-Id": f"{name}/{event.id}",
        }
        await self._undelivered.publish([Outgoing(f"undelivered.{name}", headers, message.body)])

    async def run(self) -> None:
        await self.run_to_completion(self._check_subscriptions())
        if self._receivers.by_name:
            await self._broker.start()
        reader = self._bus.create_reader(SLA, 0)
        try:
            if self._alertmanagers:
                await self._replay(reader)
                self._senders = [asyncio.create_task(each.run()) for each in self._alertmanagers]
            while True:
                self.record_heartbeat()
                await (self._update_alerts(reader) if self._alertmanagers else self.sleep(POLL_INTERVAL))
                await self.run_to_completion(self._check_subscriptions())
        finally:
            await reader.close()

    async def stop(self) -> None:
        await super().stop()
        for task in self._senders:
            task.cancel()
        await self._broker.end()

    async def _check_subscriptions(self) -> None:
        """Raise BusError if a consumer is gone: its subscriber waits in silence (docs/upstream-behaviour.md#f8)."""
        self._broker.check()
        for name in self._receivers.by_name:
            await self._bus.check_consumer(SLA, f"notifier_{name}")
        for task in self._senders:
            if task.done():
                task.result()

    async def _replay(self, reader: StreamReader) -> None:
        """Find out from all that SLA holds what is broken now: a restart needs no memory of its own."""
        newest, last = await self.run_to_completion(self._bus.read_last_sequence(SLA)), 0
        while last < newest:
            self.record_heartbeat()
            last = await self._read_batch(reader)

    async def _update_alerts(self, reader: StreamReader) -> None:
        if await self._read_batch(reader):
            for alertmanager in self._alertmanagers:
                alertmanager.wake()

    async def _read_batch(self, reader: StreamReader) -> int:
        """Apply what has arrived to the alerts. Return the sequence of the last message, 0 if none came."""
        messages = await reader.read_batch(POLL_INTERVAL)
        for message in messages:
            try:
                self._alerts.apply(message, datetime.now(UTC))
            except ValueError as error:
                log.error(
                    "announcement unreadable", subject=message.subject, sequence=message.sequence, error=str(error)
                )
        return messages[-1].sequence if messages else 0
