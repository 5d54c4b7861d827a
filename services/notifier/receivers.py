"""Receivers: webhooks and whatever Apprise knows, and which announcement goes to whom. When is not in here."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self, assert_never

import httpx
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from standardwebhooks import Webhook

from events.cloudevents import CONTENT_TYPE
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
)
from services.text.phrases import write_body, write_title

RETRYABLE_STATUSES = (408, 425, 429)  # beside 5xx: what a second try may mend


class NotifyError(Exception):
    """SLA_NOTIFY is not right; each line names the value, the rule and what to do."""


class DeliveryRefusedError(Exception):
    """The receiver will never take this message as it is."""


class UndeliveredError(Exception):
    """The receiver did not take the message now."""


class Receiver(ABC):
    """Somebody who gets announcements. `kind` is the label `target` of the metrics."""

    kind: str
    timeout_seconds: float
    """Seconds until one try is given up."""

    async def deliver(self, event: Announcement, raw: bytes) -> None:
        """Try once. Raises DeliveryRefusedError, or whatever else stands in the way."""
        async with asyncio.timeout(self.timeout_seconds):
            await self._send(event, raw)

    @abstractmethod
    async def _send(self, event: Announcement, raw: bytes) -> None: ...


class WebhookReceiver(Receiver):
    """Posts the CloudEvent, byte for byte, signed as standardwebhooks.com says; `webhook-id` is the id of the event."""

    kind = "webhook"
    timeout_seconds = 10.0

    def __init__(self, url: str, secret: str) -> None:
        self._url, self._signer = url, Webhook(secret)
        self._client = httpx.AsyncClient(timeout=self.timeout_seconds)

    async def _send(self, event: Announcement, raw: bytes) -> None:
        now = datetime.now(UTC)
        headers = {
            "Content-Type": CONTENT_TYPE,
            "webhook-id": event.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(event.id, now, raw.decode()),
        }
        status = (await self._client.post(self._url, content=raw, headers=headers)).status_code
        if status >= 500 or status in RETRYABLE_STATUSES:
            raise UndeliveredError(f"it answers {status}")
        if not 200 <= status < 300:
            raise DeliveryRefusedError(f"it answers {status}; see whether address and secret are right")


class AppriseReceiver(Receiver):
    """Mail, chat, pager: whatever has an address of github.com/caronc/apprise. It does not say why it failed."""

    kind = "apprise"
    timeout_seconds = 15.0

    def __init__(self, url: str, zone: str) -> None:
        self._zone = zone
        try:
            from apprise import Apprise
        except ImportError:
            raise ValueError("Apprise is not installed; pip install 'sla-engine[notify]'") from None
        self._apprise = Apprise()
        if not self._apprise.add(url):
            raise ValueError(f"{url.partition(':')[0]}:… is no address that Apprise knows; see its list of services")

    async def _send(self, event: Announcement, raw: bytes) -> None:
        body = write_body(event, datetime.now(UTC), self._zone)
        if not await self._apprise.async_notify(title=write_title(event), body=body):
            raise UndeliveredError("Apprise could not deliver it")


# ---- the setting


def _check_webhook(url: str) -> str:
    if not re.match(r"https?://[^/@]", url):
        raise ValueError("a webhook is an address that begins with https:// or http://")
    return url


def _check_secret(text: str) -> str:
    if not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", text):
        raise ValueError("a secret is whsec_ and at least 24 bytes in base64; see standardwebhooks.com")
    return text


class Address(BaseModel):
    """Where one receiver is: `webhook` with `secret`, or `apprise`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    webhook: Annotated[str, AfterValidator(_check_webhook)] | None = None
    secret: Annotated[str, AfterValidator(_check_secret)] | None = None
    apprise: str | None = None

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if (self.webhook is None) != (self.secret is None) or (self.webhook is None) == (self.apprise is None):
            raise ValueError("a target has a webhook and its secret, or an address for apprise, and nothing else")
        return self

    def open(self, zone: str) -> Receiver:
        """Return the receiver; times in the zone. Raises ValueError if Apprise does not know the address."""
        if self.webhook is not None and self.secret is not None:
            return WebhookReceiver(self.webhook, self.secret)
        return AppriseReceiver(self.apprise or "", zone)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Notify(BaseModel):
    """
    SLA_NOTIFY: the receivers by name (`targets`), those of breaches, and those of each recipient of escalations. The
    policy names the recipients, in `tell`; one that is not in here has the receivers of breaches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    targets: Mapping[Name, Address] = {}
    breaches: tuple[str, ...] = ()
    recipients: Mapping[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _check_all_known(self) -> Self:
        for where, names in {"breaches": self.breaches, **self.recipients}.items():
            if unknown := [name for name in names if name not in self.targets]:
                raise ValueError(
                    f"{where}: {', '.join(unknown)} is not in targets, which has {', '.join(self.targets)}"
                )
        return self

    def list_receivers(self, recipient: str) -> tuple[str, ...]:
        """Return the names of the receivers of a recipient of escalations."""
        return self.recipients.get(recipient, self.breaches)


def parse_notify(text: str | None) -> Notify:
    """Return what SLA_NOTIFY says, None being nothing. Raises NotifyError."""
    try:
        return Notify.model_validate(yaml.safe_load(text or "{}"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise NotifyError(f"SLA_NOTIFY is not YAML{f', in line {mark.line + 1}' if mark else ''}") from None
    except ValidationError as error:
        lines = [": ".join(("SLA_NOTIFY", *map(str, each["loc"]), each["msg"])) for each in error.errors()]
        raise NotifyError("; ".join(lines)) from None


class Receivers:
    """
    The receivers of SLA_NOTIFY, to whom times are written in the zone. Raises NotifyError if Apprise does not know the
    address of one.
    """

    def __init__(self, notify: Notify, historic_after: timedelta, zone: str) -> None:
        self._notify, self._historic_after = notify, historic_after
        self.by_name = {name: self._open(name, address, zone) for name, address in notify.targets.items()}

    def _open(self, name: str, address: Address, zone: str) -> Receiver:
        try:
            return address.open(zone)
        except ValueError as error:
            raise NotifyError(f"SLA_NOTIFY: targets: {name}: {error}") from None

    def find_receivers(self, event: Announcement) -> set[str]:
        """
        Return the names of the receivers of an event. Nobody is told of an import: of a historic breach, of what ends
        it, and of what was older than `historic_after` when it was detected.
        """
        is_new = event.data.detected_at - event.time <= self._historic_after
        match event.data:
            case SlaBreached(detection="live" | "late") | SlaBreachRetracted(detection="live" | "late"):
                return set(self._notify.breaches)
            case SlaFulfilled(met=False, detection="live" | "late") | SlaCancelled(detection="live" | "late") if is_new:
                return set(self._notify.breaches)
            case SlaOverdue() if is_new:
                return set(self._notify.breaches)
            case SlaEscalated(tell=tell) if is_new:
                return {name for recipient in tell for name in self._notify.list_receivers(recipient)}
            case SlaApplied() | SlaTargetChanged() | SlaWarning() | SlaOverdue():
                return set()
            case SlaFulfilled() | SlaCancelled() | SlaEscalated():
                return set()
            case SlaBreached() | SlaBreachRetracted():
                return set()
            case _:
                assert_never(event.data)
