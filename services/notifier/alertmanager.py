"""Alertmanager: the promises that are broken now are its alerts, all of them sent again and again."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, assert_never

import httpx
import structlog

from events.promises import (
    Announcement,
    SlaApplied,
    SlaBreached,
    SlaBreachRetracted,
    SlaCancelled,
    SlaEscalated,
    SlaFulfilled,
    SlaOverdue,
    SlaTargetChanged,
    SlaWarning,
    read_announcement,
)
from services.bus.connection import strip_credentials
from services.notifier.metrics import Notifications
from services.text.phrases import write_body, write_title
from sla.engine import Message

log = structlog.get_logger()

RESEND_INTERVAL = 15.0  # seconds until all alerts are sent again
RETENTION = timedelta(hours=1)  # Alertmanager keeps an alert so long after it was sent, and we send one that has ended
POST_TIMEOUT = 10.0  # seconds until one try is given up
MAX_ALERTS = 1000  # in one request
MAX_ANSWERED = 10_000  # breaches that were answered late or cancelled, and come back if their ticket is reopened

_KINDS = ("breached", "breach_retracted", "fulfilled", "cancelled", "target_changed")  # historic breaches wake nobody

PromiseKey = tuple[str, str, int]
"""Ticket, objective, cycle."""


class _Ended(NamedTuple):
    breach: Announcement
    at: datetime


class Alerts:
    """The promises that are broken and unanswered, and those for which that has ended lately; times in the zone."""

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._broken: dict[PromiseKey, Announcement] = {}
        self._ended: dict[tuple[str, ...], _Ended] = {}  # by their labels
        self._answered: dict[PromiseKey, Announcement] = {}  # the breach is in effect, and nobody waits for an answer

    def apply(self, message: Message, now: datetime) -> None:
        """Apply the next message of SLA. Raises ValueError for anything else."""
        if message.subject.split(".")[1] not in _KINDS:
            return
        event = read_announcement(message.body)
        data = event.data
        promise = (data.ticket_id, data.objective, data.cycle)
        match data:
            case SlaBreached():
                self._broken[promise] = event
            case SlaBreachRetracted():
                self._end(promise, message.stored_at, now)
                self._answered.pop(promise, None)
            case SlaFulfilled() | SlaCancelled():
                self._end(promise, message.stored_at, now)
            case SlaTargetChanged() if promise in self._answered:  # the ticket was reopened: the clock goes on
                self._broken[promise] = self._answered.pop(promise)
            case SlaApplied() | SlaTargetChanged() | SlaWarning() | SlaOverdue() | SlaEscalated():
                pass  # no alert begins or ends with it
            case _:
                assert_never(data)

    def _end(self, promise: PromiseKey, at: datetime, now: datetime) -> None:
        breach = self._broken.pop(promise, None)
        if breach is None:
            return
        if now - at < RETENTION:
            self._ended[_build_key(breach)] = _Ended(breach, at)
        self._answered[promise] = breach
        if len(self._answered) > MAX_ANSWERED:
            del self._answered[next(iter(self._answered))]

    def list_alerts(self, now: datetime) -> list[dict[str, Any]]:
        """Return all alerts, for POST /api/v2/alerts."""
        self._ended = {key: ended for key, ended in self._ended.items() if now - ended.at < RETENTION}
        alerts = {key: _build_alert(ended.breach, now, ended.at, self._zone) for key, ended in self._ended.items()}
        for breach in self._broken.values():
            alerts[_build_key(breach)] = _build_alert(breach, now, now + RETENTION, self._zone)
        return list(alerts.values())


def _build_labels(breach: Announcement) -> dict[str, str]:
    """Return the labels, which identify an alert and by which it is routed."""
    data = breach.data
    assert isinstance(data, SlaBreached)
    return {
        "alertname": "SlaTicketBreached",
        "ticket": data.ticket_id,
        "service_level": data.service_level,
        "priority": data.priority,
        "objective": data.objective,
        "cycle": str(data.cycle),
        "severity": data.severity,
    }


def _build_key(breach: Announcement) -> tuple[str, ...]:
    return tuple(_build_labels(breach).values())


def _build_alert(breach: Announcement, now: datetime, ends: datetime, zone: str) -> dict[str, Any]:
    return {
        "labels": _build_labels(breach),
        "annotations": {"summary": write_title(breach), "description": write_body(breach, now, zone)},
        "startsAt": breach.time.isoformat(),
        "endsAt": ends.isoformat(),
    }


class Alertmanager:
    """Posts all alerts to one Alertmanager. Nothing is lost while it is away: it gets all of them when it is back."""

    def __init__(self, url: str, alerts: Alerts, count: Notifications) -> None:
        self._url, self._alerts, self._count = f"{url.rstrip('/')}/api/v2/alerts", alerts, count
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Send again: the alerts may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Send all alerts after each change, every RESEND_INTERVAL, and 1, 2, 4 … seconds after a failure."""
        failures = 0
        async with httpx.AsyncClient(timeout=POST_TIMEOUT) as client:
            while True:
                self._changed.clear()
                problem = await self._post(client, self._alerts.list_alerts(datetime.now(UTC)))
                if problem and not failures:
                    log.warning("alertmanager failed", url=strip_credentials(self._url), error=problem)
                failures = failures + 1 if problem else 0
                if failures:
                    await asyncio.sleep(min(2.0 ** (failures - 1), RESEND_INTERVAL))
                else:
                    await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        try:
            async with asyncio.timeout(RESEND_INTERVAL):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _post(self, client: httpx.AsyncClient, alerts: list[dict[str, Any]]) -> str | None:
        """Return what went wrong, None if nothing did."""
        try:
            for start in range(0, len(alerts), MAX_ALERTS):
                async with asyncio.timeout(POST_TIMEOUT):
                    answer = await client.post(self._url, json=alerts[start : start + MAX_ALERTS])
                self._count.add("alertmanager", "sent" if answer.is_success else "retried")
                if not answer.is_success:
                    return f"it answers {answer.status_code}: {answer.text[:200]}"
        except (httpx.HTTPError, TimeoutError) as error:
            self._count.add("alertmanager", "retried")
            return str(error) or type(error).__name__
        return None
