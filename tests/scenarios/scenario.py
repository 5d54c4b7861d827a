"""What a scenario is made of: the facts given, how they are played, what must follow. The rules have their modules."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from events.tickets import build_ticket_message
from sla.log import State

STOCKHOLM = ZoneInfo("Europe/Stockholm")
CLOCKS = {"CET": timezone(timedelta(hours=1)), "CEST": timezone(timedelta(hours=2))}
BEHIND = timedelta(milliseconds=1)  # the clock sends a tick this long after the instant it is for


def stockholm(text: str) -> datetime:
    """`2025-11-03 10:00[:SS[.ffffff]]`, with CET or CEST behind it where clocks show it twice; in UTC."""
    day, time, *clock = text.split()
    zone = CLOCKS[clock[0]] if clock else STOCKHOLM
    return datetime.fromisoformat(f"{day} {time}").replace(tzinfo=zone).astimezone(UTC)


@dataclass(frozen=True)
class Fact:
    """What another system publishes: it happened at `time`, the broker stores it at `arrives`."""

    kind: str
    data: Mapping[str, Any]
    time: datetime
    arrives: datetime
    id: str | None
    source: str
    sequence: str | None

    def message(self, ticket: str) -> tuple[str, dict[str, str], bytes]:
        """Subject, headers and body. Every id has the ticket in front, so that scenarios can share one bus."""
        other = {name: f"{ticket}/{self.data[name]}" for name in ("corrects", "withdraws") if name in self.data}
        return build_ticket_message(
            f"ticket.{self.kind}",
            ticket,
            source=self.source,
            event_id=f"{ticket}/{self.id}",
            time=self.time,
            data={**self.data, **other},
            sequence=self.sequence,
        )


@dataclass(frozen=True)
class Tick:
    """A tick that somebody sends beside the clock's own, stored at `arrives`."""

    arrives: datetime


@dataclass(frozen=True)
class Asleep:
    """No clock runs from `arrives` to `until`."""

    arrives: datetime
    until: datetime


@dataclass(frozen=True)
class Edited:
    """A later version of the policy is published, in which every target is doubled. It takes effect at once."""

    arrives: datetime


Given = Fact | Tick | Asleep | Edited


@dataclass(frozen=True)
class Scenario:
    """
    `given` in the order of arrival; `then` the kinds announced until `when`. In `also` a kind has what its last message
    says (all of them, if it is a tuple), `inbox` the outcomes, any other name a field of the state; instants as text.
    It is the shipped policy's, or with `pauses` the one that differs from it in letting the clock pause, or with
    `words` or `updates` that of tests/support/words.py or updates.py.
    """

    name: str
    rule: int
    given: tuple[Given, ...]
    then: tuple[str, ...]
    also: Mapping[str, Any] = field(default_factory=dict)
    when: str = "2025-12-15 12:00"
    pauses: bool = False
    words: bool = False
    updates: bool = False

    @property
    def is_shipped(self) -> bool:
        return not (self.pauses or self.words or self.updates)

    def __post_init__(self) -> None:
        """Facts without an id are numbered: responded-1, responded-2 …"""
        numbered, seen = [], dict[str, int]()
        for item in self.given:
            if isinstance(item, Fact):
                seen[item.kind] = seen.get(item.kind, 0) + 1
                item = replace(item, id=item.id or f"{item.kind}-{seen[item.kind]}")
            numbered.append(item)
        arrivals = [*(item.arrives for item in numbered), stockholm(self.when)]
        assert arrivals == sorted(arrivals), f"{self.name}: given is in the order of arrival, before `when`"
        object.__setattr__(self, "given", tuple(numbered))

    def play(self, put: Callable[[Given], None], next_at: Callable[[], datetime | None]) -> None:
        """Hands over what is given and, in between and until `when`, the ticks that a clock would send."""
        end = Tick(stockholm(self.when))
        now = awake = min(item.arrives for item in (*self.given, end))
        for item in (*self.given, end):
            while (due := next_at()) and (at := max(max(due, now) + BEHIND, awake)) < item.arrives:
                put(Tick(at))
                now = at
                following = next_at()
                assert following is None or following >= now, f"{self.name}: the clock would tick again, at once"
            now = item.arrives
            if isinstance(item, Asleep):
                awake = item.until
            elif item is not end:
                put(item)


@dataclass(frozen=True)
class Announced:
    """A message of the stream SLA: its NATS subject and its body."""

    subject: str
    envelope: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.envelope["type"]).removeprefix("sla.")

    def value_of(self, name: str) -> Any:
        if name == "subject":
            return self.subject.rpartition(".")[0]  # without the ticket
        return self.envelope["time"] if name == "time" else self.envelope["data"][name]


def check(scenario: Scenario, announced: Sequence[Announced], state: State, inbox: Sequence[str]) -> None:
    """Raises AssertionError for the first thing that is not as the scenario says."""
    assert tuple(message.kind for message in announced) == scenario.then
    for name, expected in scenario.also.items():
        messages = [message for message in announced if message.kind == name]
        if name == "inbox":
            assert tuple(inbox) == expected
        elif isinstance(expected, Mapping) and messages:
            _check_message(messages[-1], expected)
        elif messages and isinstance(expected, tuple):
            assert len(messages) == len(expected), name
            for message, each in zip(messages, expected, strict=True):
                _check_message(message, each)
        else:
            assert _plain(getattr(state, name)) == _expected(expected), name


def _check_message(message: Announced, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        assert _plain(message.value_of(name)) == _expected(value), f"{message.kind}: {name}"


def _plain(value: Any) -> Any:
    """What a state or a message has, to be compared: instants in UTC, spans as text, ids without the ticket."""
    match value:
        case timedelta():
            return str(value)
        case str() if value[:1].isdigit() and value.endswith("Z"):
            return datetime.fromisoformat(value)
        case str():
            return value.rpartition("/")[2]
        case _:
            return value


def _expected(value: Any) -> Any:
    return stockholm(value) if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d ", value) else value


def build_fact(kind: str, data: Mapping[str, Any], time: str, *, arrives: str = "", **who: str) -> Fact:
    who = {"id": "", "source": "/helpdesk", "sequence": "", **who}
    return Fact(
        kind,
        data,
        stockholm(time),
        stockholm(arrives or time),
        who["id"] or None,
        who["source"],
        who["sequence"] or None,
    )


def opened(service_level: str, priority: str, time: str, channel: str = "", **more: str) -> Fact:
    data = {"service_level": service_level, "priority": priority} | ({"channel": channel} if channel else {})
    return build_fact("opened", data, time, **more)


def changed(priority: str, time: str, **more: str) -> Fact:
    return build_fact("priority_changed", {"priority": priority}, time, **more)


def responded(time: str, by: str = "", **more: str) -> Fact:
    return build_fact("responded", {"by": by} if by else {}, time, **more)


def escalated(time: str, reason: str = "", by: str = "", **more: str) -> Fact:
    said = {"reason": reason, "by": by}
    return build_fact("escalated", {name: text for name, text in said.items() if text}, time, **more)


def levelled(service_level: str, time: str, **more: str) -> Fact:
    return build_fact("service_level_changed", {"service_level": service_level}, time, **more)


def closed(time: str, reason: str = "", **more: str) -> Fact:
    return build_fact("closed", {"reason": reason} if reason else {}, time, **more)


def reopened(time: str, **more: str) -> Fact:
    return build_fact("reopened", {}, time, **more)


def excluded(reason: str, time: str, **more: str) -> Fact:
    return build_fact("excluded", {"reason": reason}, time, **more)


def revoked(reason: str, time: str, **more: str) -> Fact:
    return build_fact("exclusion_revoked", {"reason": reason}, time, **more)


def paused(time: str, reason: str = "", **more: str) -> Fact:
    return build_fact("paused", {"reason": reason} if reason else {}, time, **more)


def resumed(time: str, reason: str = "", **more: str) -> Fact:
    return build_fact("resumed", {"reason": reason} if reason else {}, time, **more)


def corrected(corrects: str, at: str, *, source: str = "/helpdesk", arrives: str = "", **right: str) -> Fact:
    """Said at `at`; `right` are the members of the data, a `time` in Stockholm's among them."""
    if "time" in right:
        right["time"] = stockholm(right["time"]).isoformat()
    return build_fact("corrected", {"corrects": corrects} | right, at, source=source, arrives=arrives)


def withdrawn(withdraws: str, at: str, **more: str) -> Fact:
    return build_fact("fact_withdrawn", {"withdraws": withdraws}, at, **more)


def moved(version: str, time: str, **more: str) -> Fact:
    return build_fact("policy_changed", {"policy_version": version}, time, **more)


def again(fact: Fact, arrives: str) -> Fact:
    """The same message once more; the fact must have an id."""
    assert fact.id is not None
    return replace(fact, arrives=stockholm(arrives))


def tick(arrives: str) -> Tick:
    return Tick(stockholm(arrives))


def asleep(arrives: str, until: str) -> Asleep:
    return Asleep(stockholm(arrives), stockholm(until))


def edited(arrives: str) -> Edited:
    return Edited(stockholm(arrives))


WARNED = ("warning", "warning", "warning")  # at 50, 75 and 90 %
WARNED_TWICE = ("warning", "warning")  # at 75 % and 30 minutes before, by the policy with more words
