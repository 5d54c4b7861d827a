"""What must follow from what: the rules of the policy as given, when, then. How they are run is in test_judge.py."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from events.tickets import ticket_message
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
        corrects = {"corrects": f"{ticket}/{self.data['corrects']}"} if "corrects" in self.data else {}
        return ticket_message(
            f"ticket.{self.kind}",
            ticket,
            source=self.source,
            id=f"{ticket}/{self.id}",
            time=self.time,
            data={**self.data, **corrects},
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
    It is the shipped policy's, or with `pauses` the one that differs from it in letting the clock pause.
    """

    name: str
    rule: int
    given: tuple[Given, ...]
    then: tuple[str, ...]
    also: Mapping[str, Any] = field(default_factory=dict)
    when: str = "2025-12-15 12:00"
    pauses: bool = False

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

    def said(self, name: str) -> Any:
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
        elif messages:
            assert len(messages) == len(expected), name
            for message, each in zip(messages, expected, strict=True):
                _check_message(message, each)
        else:
            assert _plain(getattr(state, name)) == _expected(expected), name


def _check_message(message: Announced, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        assert _plain(message.said(name)) == _expected(value), f"{message.kind}: {name}"


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


def _fact(kind: str, data: Mapping[str, Any], time: str, *, arrives: str = "", **who: str) -> Fact:
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
    return _fact("opened", data, time, **more)


def changed(priority: str, time: str, **more: str) -> Fact:
    return _fact("priority_changed", {"priority": priority}, time, **more)


def responded(time: str, by: str = "", **more: str) -> Fact:
    return _fact("responded", {"by": by} if by else {}, time, **more)


def escalated(time: str, reason: str = "", **more: str) -> Fact:
    return _fact("escalated", {"reason": reason} if reason else {}, time, **more)


def levelled(service_level: str, time: str, **more: str) -> Fact:
    return _fact("service_level_changed", {"service_level": service_level}, time, **more)


def closed(time: str, reason: str = "", **more: str) -> Fact:
    return _fact("closed", {"reason": reason} if reason else {}, time, **more)


def reopened(time: str, **more: str) -> Fact:
    return _fact("reopened", {}, time, **more)


def excluded(reason: str, time: str, **more: str) -> Fact:
    return _fact("excluded", {"reason": reason}, time, **more)


def revoked(reason: str, time: str, **more: str) -> Fact:
    return _fact("exclusion_revoked", {"reason": reason}, time, **more)


def paused(time: str, reason: str = "", **more: str) -> Fact:
    return _fact("paused", {"reason": reason} if reason else {}, time, **more)


def resumed(time: str, **more: str) -> Fact:
    return _fact("resumed", {}, time, **more)


def corrected(corrects: str, at: str, *, source: str = "/helpdesk", arrives: str = "", **right: str) -> Fact:
    """Said at `at`; `right` are the members of the data, a `time` in Stockholm's among them."""
    if "time" in right:
        right["time"] = stockholm(right["time"]).isoformat()
    return _fact("corrected", {"corrects": corrects} | right, at, source=source, arrives=arrives)


def moved(version: str, time: str, **more: str) -> Fact:
    return _fact("policy_changed", {"policy_version": version}, time, **more)


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

# November 2025 in Stockholm: Monday is the 3rd, no holidays. Critical, serious, minor are 4, 8, 24 h in Foundation,
# Mon-Fri 09:00-18:00; 1, 4, 12 h in Professional, Mon-Fri 08:00-22:00; 2, 4, 8 h in Enterprise, every day, all day.

DUE = (
    Scenario(
        "an answer in time means no breach, ever",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), responded("2025-11-03 11:30")),
        then=("applied", "fulfilled"),
        also={
            "stage": "fulfilled",
            "due_at": "2025-11-03 14:00",
            "responded_at": "2025-11-03 11:30",
            "met": True,
            "overdue": "0:00:00",
            "breached_at": None,
            "at_risk_at": None,
            "next_at": None,
            "applied": {
                "time": "2025-11-03 10:00",
                "target_seconds": 14400,
                "elapsed_seconds": 0,
                "cause": "opened",
                "cause_id": "opened-1",
                "subject": "sla.applied.foundation.critical",
            },
            "fulfilled": {
                "time": "2025-11-03 11:30",
                "elapsed_seconds": 5400,
                "overdue_seconds": 0,
                "revision": 1,
                "replaces": None,
                "cause": "responded",
                "cause_id": "responded-1",
            },
        },
    ),
    Scenario(
        "an answer exactly at the deadline is in time",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), responded("2025-11-03 14:00")),
        then=("applied", *WARNED, "fulfilled"),
        also={"met": True, "overdue": "0:00:00", "breached_at": None},
    ),
    Scenario(
        "an answer one microsecond after the deadline is late",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), responded("2025-11-03 14:00:00.000001")),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"met": False, "overdue": "0:00:00.000001", "fulfilled": {"overdue_seconds": 0.000001}},
    ),
    Scenario(
        "a target used up exactly at closing time is due at closing time",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-03 14:00"),),
        then=("applied", *WARNED, "breached"),
        also={
            "due_at": "2025-11-03 18:00",
            "breached": {"time": "2025-11-03 18:00", "breached_at": "2025-11-03 18:00", "detection": "live"},
        },
    ),
    Scenario(
        "an answer exactly at closing time, when the target is used up, is in time",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-03 14:00"), responded("2025-11-03 18:00")),
        then=("applied", *WARNED, "fulfilled"),
        also={"met": True},
    ),
    Scenario(
        "an answer after closing is late if the target was used up at closing, though no support time has passed",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-03 14:00"), responded("2025-11-03 20:00")),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"met": False, "overdue": "0:00:00", "fulfilled": {"elapsed_seconds": 14400, "overdue_seconds": 0}},
    ),
    Scenario(
        "an answer in closed time before the deadline has used what was open until then",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-07 17:00"), responded("2025-11-08 11:00")),
        then=("applied", "fulfilled"),
        also={"due_at": "2025-11-10 12:00", "met": True, "fulfilled": {"elapsed_seconds": 3600}},
    ),
    Scenario(
        "a ticket opened on Saturday starts to count on Monday at opening",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-08 12:00"),),
        when="2025-11-08 13:00",
        then=("applied",),
        also={"due_at": "2025-11-10 13:00", "started_at": "2025-11-08 12:00", "at_risk_at": "2025-11-10 12:00"},
    ),
    Scenario(
        "a ticket opened exactly at closing starts to count at the next opening",
        rule=1,
        given=(opened("foundation", "critical", "2025-11-07 18:00"),),
        when="2025-11-07 19:00",
        then=("applied",),
        also={"due_at": "2025-11-10 13:00"},
    ),
    Scenario(
        "twenty-four hours in Foundation are support hours",
        rule=1,
        given=(opened("foundation", "minor", "2025-11-03 10:00"),),
        when="2025-11-03 10:30",
        then=("applied",),
        also={"due_at": "2025-11-05 16:00", "target": "1 day, 0:00:00"},
    ),
    Scenario(
        "Professional, critical, is one hour",
        rule=1,
        given=(opened("professional", "critical", "2025-11-03 10:00"),),
        when="2025-11-03 10:15",
        then=("applied",),
        also={"due_at": "2025-11-03 11:00", "target": "1:00:00"},
    ),
    Scenario(
        "Enterprise, critical, is two hours: longer than Professional, as it is written",
        rule=1,
        given=(opened("enterprise", "critical", "2025-11-03 10:00"),),
        when="2025-11-03 10:15",
        then=("applied",),
        also={"due_at": "2025-11-03 12:00", "target": "2:00:00"},
    ),
    Scenario(
        "Enterprise counts on a Sunday night",
        rule=1,
        given=(opened("enterprise", "critical", "2025-11-09 23:00"), responded("2025-11-10 01:30")),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"due_at": "2025-11-10 01:00", "overdue": "0:30:00"},
    ),
    Scenario(
        "Enterprise does not count on public holidays",
        rule=1,
        given=(opened("enterprise", "critical", "2025-12-24 23:30"),),
        when="2025-12-24 23:45",
        then=("applied",),
        also={"due_at": "2025-12-27 01:30"},
    ),
    Scenario(
        "Easter closes Friday and Monday",
        rule=1,
        given=(opened("foundation", "minor", "2025-04-17 17:30"),),
        when="2025-04-17 17:45",
        then=("applied",),
        also={"due_at": "2025-04-24 14:30"},
    ),
    Scenario(
        "a ticket opened on Ascension Day starts to count on the Friday",
        rule=1,
        given=(opened("professional", "critical", "2025-05-29 23:59:59"),),
        when="2025-05-30 06:00",
        then=("applied",),
        also={"due_at": "2025-05-30 09:00"},
    ),
    Scenario(
        "Midsummer Eve is an ordinary day",
        rule=1,
        given=(opened("professional", "minor", "2025-06-20 10:30"),),
        when="2025-06-20 11:00",
        then=("applied",),
        also={"due_at": "2025-06-23 08:30"},
    ),
    Scenario(
        "eight hours over the night in which clocks go forward end at ten",
        rule=1,
        given=(opened("enterprise", "minor", "2025-03-30 01:00"),),
        when="2025-03-30 03:30",
        then=("applied",),
        also={"due_at": "2025-03-30 10:00 CEST"},
    ),
    Scenario(
        "eight hours over the night in which clocks go back end at half past nine",
        rule=1,
        given=(opened("enterprise", "minor", "2025-10-26 02:30 CEST"),),
        when="2025-10-26 02:30 CET",
        then=("applied",),
        also={"due_at": "2025-10-26 09:30 CET"},
    ),
    Scenario(
        "the second half past two of that night is an hour later",
        rule=1,
        given=(opened("enterprise", "critical", "2025-10-26 02:30 CET"), responded("2025-10-26 04:30 CET")),
        then=("applied", *WARNED, "fulfilled"),
        also={"due_at": "2025-10-26 04:30 CET", "met": True},
    ),
    Scenario(
        "fractions of a second are kept",
        rule=1,
        given=(opened("enterprise", "critical", "2025-11-03 03:30:49.125381"),),
        when="2025-11-03 03:31",
        then=("applied",),
        also={"due_at": "2025-11-03 05:30:49.125381"},
    ),
)

BROKEN = (
    Scenario(
        "no answer by the deadline is a breach",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"),),
        then=("applied", *WARNED, "breached"),
        also={
            "stage": "running",
            "breached_at": "2025-11-03 14:00",
            "met": None,
            "responded_at": None,
            "at_risk_at": None,
            "next_at": None,
            "breached": {
                "time": "2025-11-03 14:00",
                "detected_at": "2025-11-03 14:00:00.001",
                "number": 1,
                "severity": "critical",
                "detection": "live",
                "elapsed_seconds": 14400,
                "cause": "deadline_passed",
                "cause_id": "opened-1",
                "subject": "sla.breached.foundation.critical",
            },
        },
    ),
    Scenario(
        "an answer after the breach is late, and the breach stands",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), responded("2025-11-03 15:00")),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"stage": "fulfilled", "met": False, "overdue": "1:00:00", "breached_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a late answer that is known before the tick does not hide the breach",
        rule=2,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 15:00"),
            responded("2025-11-03 14:30"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={
            "met": False,
            "overdue": "0:30:00",
            "breached": {"breached_at": "2025-11-03 14:00", "detected_at": "2025-11-03 15:00", "detection": "late"},
            "fulfilled": {"detected_at": "2025-11-03 15:00"},
        },
    ),
    Scenario(
        "a late answer waits for the tick that shows its breach",
        rule=2,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 15:00"),
            responded("2025-11-03 14:30"),
        ),
        when="2025-11-03 14:45",
        then=("applied", *WARNED),
        also={
            "stage": "running",
            "met": None,
            "responded_at": None,
            "breached_at": None,
            "next_at": "2025-11-03 14:00",
        },
    ),
    Scenario(
        "at the instant of the deadline the promise is not yet broken",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), tick("2025-11-03 14:00")),
        when="2025-11-03 14:00",
        then=("applied", *WARNED),
        also={"breached_at": None, "next_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "one microsecond later it is broken",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), tick("2025-11-03 14:00:00.000001")),
        when="2025-11-03 14:00:00.000001",
        then=("applied", *WARNED, "breached"),
        also={"breached_at": "2025-11-03 14:00", "breached": {"detected_at": "2025-11-03 14:00:00.000001"}},
    ),
)

TICKS = (
    Scenario(
        "a backlog with the answer in it causes no false alarm",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 13:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True},
    ),
    Scenario(
        "a backlog with a late answer in it breaches at its tick",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 15:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "breached", "fulfilled"),
        also={"met": False, "breached": {"detection": "live", "detected_at": "2025-11-04 09:00:00.001"}},
    ),
    Scenario(
        "a clock that is already due when it is recorded waits for its tick",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),),
        when="2025-11-04 09:00",
        then=("applied",),
        also={"stage": "running", "breached_at": None, "next_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "facts recorded after the deadline do not break the promise either",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 16:00"),
            escalated("2025-11-03 14:30"),
            changed("serious", "2025-11-03 15:00"),
        ),
        when="2025-11-03 15:30",
        then=("applied", *WARNED, "escalated"),
        also={"breached_at": None, "due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a forged tick before its time does nothing",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), tick("2025-11-03 11:00")),
        when="2025-11-03 11:30",
        then=("applied",),
        also={"next_at": "2025-11-03 12:00"},
    ),
    Scenario(
        "doubled ticks breach once",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            tick("2025-11-03 14:00:00.000500"),
            tick("2025-11-03 14:00:00.000500"),
            tick("2025-11-03 14:00:01"),
        ),
        then=("applied", *WARNED, "breached"),
    ),
    Scenario(
        "a tick for a ticket that nobody has heard of does nothing",
        rule=3,
        given=(tick("2025-11-03 11:00"),),
        then=(),
        also={"stage": "pending", "inbox": ()},
    ),
    Scenario(
        "an answer dated four minutes ahead is not announced before its instant",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:34", arrives="2025-11-03 10:30"),
        ),
        when="2025-11-03 10:34",
        then=("applied",),
        also={"stage": "running", "responded_at": None, "next_at": "2025-11-03 10:34"},
    ),
    Scenario(
        "an answer dated four minutes ahead is announced at its instant",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:34", arrives="2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={
            "met": True,
            "next_at": None,
            "fulfilled": {"time": "2025-11-03 10:34", "detected_at": "2025-11-03 10:34:00.001"},
        },
    ),
    Scenario(
        "an opening dated ahead starts its clock at its instant",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:04", arrives="2025-11-03 10:00"),),
        when="2025-11-03 10:05",
        then=("applied",),
        also={
            "due_at": "2025-11-03 14:04",
            "applied": {"time": "2025-11-03 10:04", "detected_at": "2025-11-03 10:04:00.001"},
        },
    ),
    Scenario(
        "before that instant the ticket is pending",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:04", arrives="2025-11-03 10:00"),),
        when="2025-11-03 10:03",
        then=(),
        also={"stage": "pending", "next_at": "2025-11-03 10:04", "service_level": None},
    ),
    Scenario(
        "facts dated exactly five minutes ahead count in their turn",
        rule=3,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            escalated("2025-11-03 10:35", arrives="2025-11-03 10:30"),
            changed("critical", "2025-11-03 10:33", arrives="2025-11-03 10:30"),
        ),
        when="2025-11-03 10:40",
        then=("applied", "target_changed", "escalated"),
        also={
            "target_changed": {"detected_at": "2025-11-03 10:33:00.001"},
            "escalated": {"detected_at": "2025-11-03 10:35:00.001"},
            "next_at": "2025-11-03 12:00",
        },
    ),
    Scenario(
        "a raise dated ahead is announced at its instant, before the warning it brings",
        rule=3,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 12:04", arrives="2025-11-03 12:00"),
        ),
        when="2025-11-03 12:30",
        then=("applied", "target_changed", "warning"),
        also={"warning": {"time": "2025-11-03 12:04", "detected_at": "2025-11-03 12:04:00.001"}},
    ),
    Scenario(
        "a fact that arrives after that instant takes the one dated ahead along, without its tick",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 10:20", until="2025-11-03 10:50"),
            responded("2025-11-03 10:34", arrives="2025-11-03 10:30"),
            escalated("2025-11-03 10:35"),
        ),
        when="2025-11-03 10:40",
        then=("applied", "fulfilled", "escalated"),
        also={"next_at": None, "fulfilled": {"detected_at": "2025-11-03 10:35"}},
    ),
    Scenario(
        "a fact dated more than five minutes ahead is refused",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:35:00.000001", arrives="2025-11-03 10:30"),
        ),
        when="2025-11-03 11:00",
        then=("applied",),
        also={"responded_at": None, "inbox": ("recorded", "time_in_future")},
    ),
    Scenario(
        "a breach is live up to two seconds after the deadline",
        rule=3,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:55", until="2025-11-03 12:00:02"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"breached": {"detection": "live"}},
    ),
    Scenario(
        "a breach is late if the engine was behind",
        rule=3,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:55", until="2025-11-03 12:00:10"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"breached": {"detection": "late", "breached_at": "2025-11-03 12:00"}},
    ),
    Scenario(
        "a breach is live if the fact it rests on has only just arrived",
        rule=3,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-03 16:00"),
        ),
        then=("applied", "warning", "target_changed", "breached"),
        also={
            "breached": {
                "detection": "live",
                "breached_at": "2025-11-03 14:00",
                "detected_at": "2025-11-03 16:00:00.001",
                "cause_id": "priority_changed-1",
            },
            "warning": {"threshold_percent": 50, "time": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "a promise that broke more than a day before anybody told us of the ticket is historic",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-05 10:00"),),
        then=("applied", "breached"),
        also={"breached": {"detection": "historic", "subject": "sla.breached_historic.foundation.critical"}},
    ),
    Scenario(
        "exactly a day before is not yet historic",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 14:00"),),
        then=("applied", "breached"),
        also={"breached": {"detection": "live", "subject": "sla.breached.foundation.critical"}},
    ),
    Scenario(
        "one microsecond more is historic",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 14:00:00.000001"),),
        then=("applied", "breached"),
        also={"breached": {"detection": "historic"}},
    ),
    Scenario(
        "a ticket that was known in time breaches late, not historic, however long the outage",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 10:00", until="2025-11-06 10:00"),
        ),
        then=("applied", "breached"),
        also={"breached": {"detection": "late", "detected_at": "2025-11-06 10:00"}},
    ),
)

PRIORITY = (
    Scenario(
        "raised before the deadline: what is used stays used",
        rule=4,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 12:00"),
        ),
        then=("applied", "target_changed", *WARNED, "breached"),
        also={
            "due_at": "2025-11-03 14:00",
            "target": "4:00:00",
            "priority": "critical",
            "target_changed": {
                "time": "2025-11-03 12:00",
                "old_due_at": "2025-11-03 18:00",
                "old_target_seconds": 28800,
                "due_at": "2025-11-03 14:00",
                "target_seconds": 14400,
                "elapsed_seconds": 7200,
                "cause": "priority_changed",
                "cause_id": "priority_changed-1",
                "subject": "sla.target_changed.foundation.critical",
            },
            "breached": {"cause": "deadline_passed", "cause_id": "priority_changed-1", "elapsed_seconds": 14400},
        },
    ),
    Scenario(
        "lowered before the deadline: it moves",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00"),
            responded("2025-11-03 17:00"),
        ),
        then=("applied", "target_changed", "warning", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "met": True, "target": "8:00:00"},
    ),
    Scenario(
        "lowered at the instant of the deadline: it still moves",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 14:00"),
            responded("2025-11-03 17:30"),
        ),
        then=("applied", *WARNED, "target_changed", "warning", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "met": True},
    ),
    Scenario(
        "lowered one microsecond after the deadline: the promise is broken as it was",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 14:00:00.000001"),
            responded("2025-11-03 17:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "target": "4:00:00",
            "met": False,
            "overdue": "3:00:00",
            "priority": "serious",
            "breached": {"severity": "error", "subject": "sla.breached.foundation.serious", "target_seconds": 14400},
        },
    ),
    Scenario(
        "raised after the breach: the label changes, the judgement does not",
        rule=4,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 10:00"),
            responded("2025-11-04 11:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={
            "priority": "critical",
            "due_at": "2025-11-03 18:00",
            "target": "8:00:00",
            "overdue": "2:00:00",
            "breached": {"priority": "serious", "severity": "error"},
            "fulfilled": {"priority": "critical", "target_seconds": 28800},
        },
    ),
    Scenario(
        "lowered after the breach: the breach stands",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("minor", "2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"priority": "minor", "breached_at": "2025-11-03 14:00", "due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "raised past its budget: the promise breaks at the change, never before",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 12:00"),
        ),
        then=("applied", "target_changed", "breached"),
        also={
            "due_at": "2025-11-04 12:00",
            "target": "4:00:00",
            "target_changed": {"cause": "priority_raised", "old_due_at": "2025-11-05 16:00"},
            "breached": {
                "breached_at": "2025-11-04 12:00",
                "cause": "priority_raised",
                "cause_id": "priority_changed-1",
                "elapsed_seconds": 39600,
                "severity": "critical",
            },
        },
    ),
    Scenario(
        "raised past its budget in closed time: the promise breaks at the change too",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 20:00"),
            responded("2025-11-04 09:30"),
        ),
        then=("applied", "target_changed", "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 20:00",
            "overdue": "0:30:00",
            "breached": {"breached_at": "2025-11-03 20:00", "cause": "priority_raised", "elapsed_seconds": 28800},
        },
    ),
    Scenario(
        "an answer at the instant of a raise past the budget is in time",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 12:00"),
            responded("2025-11-04 12:00"),
        ),
        then=("applied", "target_changed", "fulfilled"),
        also={"met": True, "due_at": "2025-11-04 12:00", "overdue": "0:00:00"},
    ),
    Scenario(
        "exactly used up by the raise is not yet broken",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 14:00"),
            tick("2025-11-03 14:00"),
            responded("2025-11-03 14:00"),
        ),
        then=("applied", "target_changed", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 14:00", "met": True, "warning": {"threshold_percent": 90}},
    ),
    Scenario(
        "exactly used up by the raise, and no answer: the deadline has passed",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 14:00"),
        ),
        then=("applied", "target_changed", "breached"),
        also={"breached": {"breached_at": "2025-11-03 14:00", "cause": "deadline_passed"}},
    ),
    Scenario(
        "exactly used up by a raise in closed time: due at the change, which nothing precedes",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 20:00"),
        ),
        then=("applied", "target_changed", "breached"),
        also={"due_at": "2025-11-03 20:00", "breached": {"cause": "deadline_passed", "elapsed_seconds": 28800}},
    ),
    Scenario(
        "lowered again one microsecond after a raise past the budget: too late",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 12:00"),
            changed("minor", "2025-11-04 12:00:00.000001"),
        ),
        then=("applied", "target_changed", "breached"),
        also={
            "due_at": "2025-11-04 12:00",
            "target": "4:00:00",
            "priority": "minor",
            "breached": {"cause": "priority_raised", "priority": "minor", "severity": "warning"},
        },
    ),
    Scenario(
        "raised and lowered in between: only the target counts, and what is used",
        rule=4,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 11:00"),
            changed("serious", "2025-11-03 11:30"),
            responded("2025-11-03 13:00"),
        ),
        then=("applied", "target_changed", "target_changed", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "target": "8:00:00"},
    ),
    Scenario(
        "changed to the priority it has: nothing to announce",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "changed to the priority it has: what was at risk stays at risk since then",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 13:10"),
        ),
        when="2025-11-03 13:30",
        then=("applied", "warning", "warning"),
        also={"at_risk_at": "2025-11-03 13:00"},
    ),
    Scenario(
        "raised at the same instant as opened: judged as raised",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 10:00"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "priority": "critical"},
    ),
    Scenario(
        "lowered at the instant of the answer: the change comes first",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 13:00"),
            changed("serious", "2025-11-03 13:00"),
        ),
        then=("applied", "warning", "fulfilled", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "fulfilled": {"revision": 2, "target_seconds": 28800, "met": True}},
    ),
    Scenario(
        "raised after the answer: only the label changes",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            changed("critical", "2025-11-03 16:00:00.000001"),
        ),
        then=("applied", "fulfilled"),
        also={"priority": "critical", "due_at": "2025-11-05 16:00", "target": "1 day, 0:00:00", "met": True},
    ),
    Scenario(
        "changes over a night and a weekend use support time only",
        rule=4,
        given=(
            opened("professional", "minor", "2025-11-07 20:00"),
            changed("serious", "2025-11-08 15:00"),
            changed("critical", "2025-11-10 07:00"),
        ),
        then=("applied", "target_changed", "warning", "target_changed", "breached"),
        also={"due_at": "2025-11-10 07:00", "breached": {"elapsed_seconds": 7200, "cause": "priority_raised"}},
    ),
)

ONE_INSTANT = (
    Scenario(
        "several changes at one instant count as the last by sequence, compared as text",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", sequence="9"),
            changed("minor", "2025-11-03 11:00", sequence="10"),
        ),
        when="2025-11-03 11:30",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "several changes at one instant count as the last, though it arrives first",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("minor", "2025-11-03 11:00", sequence="10"),
            changed("serious", "2025-11-03 11:00", sequence="9", arrives="2025-11-03 11:10"),
        ),
        when="2025-11-03 11:30",
        then=("applied", "target_changed", "target_changed"),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "at one instant a change without a sequence comes first",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", sequence="1", id="a"),
            changed("minor", "2025-11-03 11:00", id="b"),
        ),
        when="2025-11-03 11:30",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "at one instant and without sequences the source decides, then the id",
        rule=4,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", source="/helpdesk", id="b"),
            changed("minor", "2025-11-03 11:00", source="/crm", id="c"),
            changed("critical", "2025-11-03 11:00", source="/helpdesk", id="a"),
        ),
        when="2025-11-03 11:30",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 18:00", "priority": "serious", "target_changed": {"cause_id": "b"}},
    ),
    Scenario(
        "a raise past the budget that is undone at its own instant breaks nothing",
        rule=4,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 12:00", id="a"),
            changed("minor", "2025-11-04 12:00", id="b"),
        ),
        when="2025-11-04 12:30",
        then=("applied", "target_changed", "target_changed"),
        also={"due_at": "2025-11-05 16:00", "breached_at": None, "target": "1 day, 0:00:00"},
    ),
    Scenario(
        "lowered and raised again at one instant: as if nothing had happened",
        rule=4,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("minor", "2025-11-03 17:00", id="a"),
            changed("serious", "2025-11-03 17:00", id="b"),
        ),
        when="2025-11-03 17:30",
        then=("applied", "warning", "warning", "target_changed", "target_changed", "warning"),
        also={"due_at": "2025-11-03 18:00", "at_risk_at": "2025-11-03 16:00"},
    ),
    Scenario(
        "everything at one instant: opened, changed, answered, escalated",
        rule=4,
        given=(
            escalated("2025-11-03 10:00"),
            responded("2025-11-03 10:00"),
            changed("critical", "2025-11-03 10:00"),
            opened("foundation", "minor", "2025-11-03 10:00"),
        ),
        then=("applied", "fulfilled", "escalated"),
        also={"due_at": "2025-11-03 14:00", "met": True, "escalation_level": 1},
    ),
)

ANSWERED = (
    Scenario(
        "a second answer changes nothing",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 11:00", "inbox": ("recorded",) * 3},
    ),
    Scenario(
        "an answer that happened earlier and arrives later replaces the first",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:30"),
            responded("2025-11-03 11:00", arrives="2025-11-03 13:00"),
        ),
        then=("applied", "fulfilled", "fulfilled"),
        also={
            "responded_at": "2025-11-03 11:00",
            "fulfilled": (
                {"revision": 1, "elapsed_seconds": 5400, "met": True},
                {"revision": 2, "elapsed_seconds": 3600, "met": True, "cause_id": "responded-2"},
            ),
        },
    ),
    Scenario(
        "an automatic acknowledgement is not a first response",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:00:01", by="automation"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"responded_at": None, "inbox": ("recorded", "recorded")},
    ),
    Scenario(
        "the agent's answer counts, not the automatic one before it",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:00:01", by="automation"),
            responded("2025-11-03 11:00", by="agent"),
        ),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 11:00"},
    ),
    Scenario(
        "two answers at one instant are one",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", id="b"),
            responded("2025-11-03 11:00", id="a"),
        ),
        then=("applied", "fulfilled"),
        also={"fulfilled": {"revision": 1}},
    ),
    Scenario(
        "an earlier answer that was late too corrects how late; the breach stands",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            responded("2025-11-03 15:00", arrives="2025-11-03 17:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "fulfilled"),
        also={
            "overdue": "1:00:00",
            "breached_at": "2025-11-03 14:00",
            "fulfilled": ({"revision": 1, "overdue_seconds": 7200}, {"revision": 2, "overdue_seconds": 3600}),
        },
    ),
    Scenario(
        "an answer in time that a back-dated raise makes late waits for the tick",
        rule=5,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            asleep("2025-11-04 08:00", until="2025-11-04 10:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
        ),
        when="2025-11-04 09:30",
        then=("applied", "fulfilled"),
        also={"stage": "running", "met": None, "breached_at": None, "next_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "an answer in time that a back-dated raise makes late is revised after the breach",
        rule=5,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "fulfilled", "breached", "fulfilled"),
        also={
            "stage": "fulfilled",
            "breached": {"breached_at": "2025-11-03 14:00", "number": 1, "detection": "live"},
            "fulfilled": ({"met": True, "revision": 1}, {"met": False, "revision": 2, "overdue_seconds": 7200}),
        },
    ),
)

LATE_NEWS = (
    Scenario(
        "an answer in time that arrives after the breach withdraws it",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 13:30", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "fulfilled"),
        also={
            "breached_at": None,
            "met": True,
            "stage": "fulfilled",
            "breach_retracted": {
                "number": 1,
                "breached_at": "2025-11-03 14:00",
                "reason": "answered_in_time",
                "cause": "answered_in_time",
                "cause_id": "responded-1",
                "time": "2025-11-03 14:00",
                "detected_at": "2025-11-03 15:00",
                "subject": "sla.breach_retracted.foundation.critical",
            },
        },
    ),
    Scenario(
        "an answer exactly at the deadline that arrives after the breach withdraws it",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 14:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "fulfilled"),
        also={"breached_at": None, "met": True},
    ),
    Scenario(
        "a late answer is replaced by one in time: retracted, then revised",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 15:00"),
            responded("2025-11-03 13:00", arrives="2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "fulfilled"),
        also={"met": True, "fulfilled": {"revision": 2, "met": True, "overdue_seconds": 0}},
    ),
    Scenario(
        "a retraction carries the labels under which the breach was announced",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("minor", "2025-11-03 14:30"),
            responded("2025-11-03 13:30", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "fulfilled"),
        also={
            "breach_retracted": {
                "priority": "critical",
                "severity": "critical",
                "subject": "sla.breach_retracted.foundation.critical",
            },
            "fulfilled": {"priority": "minor"},
        },
    ),
    Scenario(
        "late news that lowers the priority withdraws the breach; the new deadline breaks as number 2",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 15:00"),
        ),
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "target_changed",
            "warning",
            "warning",
            "breached",
        ),
        also={
            "due_at": "2025-11-03 18:00",
            "breach_retracted": {"reason": "deadline_moved", "cause_id": "priority_changed-1", "number": 1},
            "breached": (
                {"number": 1, "breached_at": "2025-11-03 14:00"},
                {"number": 2, "breached_at": "2025-11-03 18:00", "severity": "error"},
            ),
        },
    ),
    Scenario(
        "late news that lowers the priority, and an answer before the new deadline: kept",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 15:00"),
            responded("2025-11-03 15:30"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "fulfilled"),
        also={"met": True, "breached_at": None},
    ),
    Scenario(
        "late news that raises the priority moves the breach: number 2 in the same transaction",
        rule=6,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "breached"),
        also={
            "breached_at": "2025-11-03 14:00",
            "breach_retracted": {"number": 1, "detected_at": "2025-11-04 09:00"},
            "breached": {
                "number": 2,
                "breached_at": "2025-11-03 14:00",
                "detected_at": "2025-11-04 09:00",
                "priority": "critical",
            },
        },
    ),
    Scenario(
        "late news that moves the breach to an instant that no tick has shown: number 2 waits for its tick",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 18:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 19:00"),
        ),
        when="2025-11-03 19:00",
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed"),
        also={
            "breached_at": None,
            "next_at": "2025-11-03 18:00",
            "breached": {"detected_at": "2025-11-03 18:00"},
        },
    ),
    Scenario(
        "late news upon late news: what no tick has shown waits for its tick",
        rule=6,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            opened("enterprise", "critical", "2025-11-03 09:50", arrives="2025-11-04 09:00"),
            opened("professional", "minor", "2025-11-03 09:30", arrives="2025-11-04 10:00"),
        ),
        when="2025-11-04 10:00",
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "target_changed",
            "breached",
            "breach_retracted",
            "target_changed",
        ),
        also={"breached_at": None, "due_at": "2025-11-03 21:30", "next_at": "2025-11-03 21:30"},
    ),
    Scenario(
        "late news that moves the breach of an answered ticket: retracted, breached, revised",
        rule=6,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            responded("2025-11-04 09:30"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 10:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "overdue": "4:30:00",
            "breach_retracted": {"reason": "deadline_moved"},
            "fulfilled": {"revision": 2, "overdue_seconds": 16200, "due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "late news that leaves the instant of the breach as it was leaves the breach",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-04 10:00"),
            opened("foundation", "serious", "2025-11-03 15:00", arrives="2025-11-04 15:00"),
        ),
        then=("applied", *WARNED, "breached", "target_changed"),
        also={
            "breached_at": "2025-11-04 14:00",
            "started_at": "2025-11-03 15:00",
            "target_changed": {"cause": "opening_replaced", "target_seconds": 28800, "due_at": "2025-11-04 14:00"},
        },
    ),
    Scenario(
        "the second breach is withdrawn as the first was",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 15:00"),
            responded("2025-11-03 17:00", arrives="2025-11-03 19:00"),
        ),
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "target_changed",
            "warning",
            "warning",
            "breached",
            "breach_retracted",
            "fulfilled",
        ),
        also={"breached_at": None, "breach_retracted": ({"number": 1}, {"number": 2})},
    ),
    Scenario(
        "a raise past the budget that turns out to be undone at its instant is withdrawn",
        rule=6,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 12:00", id="a"),
            changed("minor", "2025-11-04 12:00", id="b", arrives="2025-11-04 12:30"),
        ),
        when="2025-11-04 12:45",
        then=("applied", "target_changed", "breached", "breach_retracted", "target_changed"),
        also={"due_at": "2025-11-05 16:00", "breached_at": None, "stage": "running"},
    ),
)

BEFORE_OPENED = (
    Scenario(
        "an answer that arrives before the opening waits for it",
        rule=7,
        given=(responded("2025-11-03 11:00"),),
        then=(),
        also={"stage": "pending", "due_at": None, "next_at": None, "inbox": ("recorded",)},
    ),
    Scenario(
        "once the opening arrives, the answer counts",
        rule=7,
        given=(
            responded("2025-11-03 11:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True, "responded_at": "2025-11-03 11:00"},
    ),
    Scenario(
        "an answer dated before the opening counts, with nothing used",
        rule=7,
        given=(
            responded("2025-11-03 09:30"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        then=("applied", "fulfilled"),
        also={
            "met": True,
            "responded_at": "2025-11-03 09:30",
            "due_at": "2025-11-03 14:00",
            "fulfilled": {"elapsed_seconds": 0, "overdue_seconds": 0, "time": "2025-11-03 09:30"},
        },
    ),
    Scenario(
        "an escalation dated before the opening counts",
        rule=7,
        given=(
            escalated("2025-11-03 09:45", reason="urgent"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        when="2025-11-03 10:30",
        then=("applied", "escalated"),
        also={
            "escalation_level": 1,
            "escalated": {"escalated_at": "2025-11-03 09:45", "elapsed_seconds": 0, "reason": "urgent"},
        },
    ),
    Scenario(
        "a change dated before the opening is superseded by it",
        rule=7,
        given=(
            changed("critical", "2025-11-03 09:30"),
            opened("foundation", "serious", "2025-11-03 10:00"),
        ),
        when="2025-11-03 10:30",
        then=("applied",),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "a change that arrives before the opening but happened after it counts",
        rule=7,
        given=(
            changed("critical", "2025-11-03 11:00"),
            opened("foundation", "serious", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 11:45",
        then=("applied",),
        also={"due_at": "2025-11-03 14:00", "priority": "critical", "applied": {"due_at": "2025-11-03 14:00"}},
    ),
    Scenario(
        "answered before the opening: a raise after it is only a label",
        rule=7,
        given=(
            responded("2025-11-03 09:30"),
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 10:00:01"),
        ),
        then=("applied", "fulfilled"),
        also={"target": "1 day, 0:00:00", "priority": "critical", "met": True},
    ),
    Scenario(
        "a pending ticket takes no notice of ticks",
        rule=7,
        given=(escalated("2025-11-03 09:45"), tick("2025-11-03 12:00"), tick("2025-11-04 12:00")),
        then=(),
        also={"stage": "pending", "escalation_level": 0},
    ),
)

OPENED_TWICE = (
    Scenario(
        "a second opening with a later date is ignored",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            opened("enterprise", "minor", "2025-11-03 10:30"),
            responded("2025-11-03 11:00"),
        ),
        then=("applied", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "service_level": "foundation",
            "flags": ("opened_again",),
            "priority": "critical",
            "inbox": ("recorded",) * 3,
        },
    ),
    Scenario(
        "an earlier opening that arrives later moves the clock",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
            responded("2025-11-03 11:45"),
        ),
        then=("applied", "target_changed", "fulfilled"),
        also={
            "started_at": "2025-11-03 10:00",
            "opening_id": "opened-2",
            "target_changed": {
                "time": "2025-11-03 10:00",
                "started_at": "2025-11-03 10:00",
                "old_due_at": "2025-11-03 15:00",
                "due_at": "2025-11-03 14:00",
                "cause": "opening_replaced",
                "cause_id": "opened-2",
            },
        },
    ),
    Scenario(
        "an earlier opening brings its own level and priority",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00"),
            opened("enterprise", "minor", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "target_changed"),
        also={"service_level": "enterprise", "priority": "minor", "due_at": "2025-11-03 18:00"},
    ),
    Scenario(
        "the earlier opening may come from another system and have the same id",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00", source="/helpdesk", id="1"),
            opened("foundation", "critical", "2025-11-03 10:00", source="/crm", id="1", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 11:45",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "target_changed": {"cause": "opening_replaced"}},
    ),
    Scenario(
        "of two openings at one instant the first by source and id counts",
        rule=8,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00", id="b"),
            opened("foundation", "critical", "2025-11-03 10:00", id="a"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "opening_id": "a", "target_changed": {"cause": "opening_replaced"}},
    ),
    Scenario(
        "of two openings at one instant the one without a sequence counts",
        rule=8,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00", id="a", sequence="1"),
            opened("foundation", "critical", "2025-11-03 10:00", id="b"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "opening_id": "b"},
    ),
    Scenario(
        "an earlier opening of an answered ticket revises what was fulfilled",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00"),
            responded("2025-11-03 12:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 13:00"),
        ),
        then=("applied", "fulfilled", "fulfilled"),
        also={"fulfilled": ({"elapsed_seconds": 3600}, {"elapsed_seconds": 7200, "revision": 2, "met": True})},
    ),
    Scenario(
        "a change between the two openings counts once the earlier one is known",
        rule=8,
        given=(
            changed("serious", "2025-11-03 10:30"),
            opened("foundation", "critical", "2025-11-03 11:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "an earlier opening whose deadline has passed breaks at its tick",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 14:00"),
            opened("foundation", "critical", "2025-11-03 09:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", "target_changed", "breached"),
        also={"breached": {"breached_at": "2025-11-03 13:00", "detected_at": "2025-11-03 15:00:00.001"}},
    ),
    Scenario(
        "an answer between the two openings was before the first that was known",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 14:00"),
            responded("2025-11-03 13:30", arrives="2025-11-03 14:10"),
            opened("foundation", "critical", "2025-11-03 09:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", "fulfilled", "breached", "fulfilled"),
        also={"met": False, "overdue": "0:30:00", "fulfilled": ({"elapsed_seconds": 0, "met": True}, {"revision": 2})},
    ),
)

_OPENED = opened("foundation", "critical", "2025-11-03 10:00", id="o")
_ANSWERED = responded("2025-11-03 11:00", id="r")
_ESCALATED = escalated("2025-11-03 10:30", id="e")

DUPLICATES = (
    Scenario(
        "the same facts once more change nothing",
        rule=9,
        given=(
            _OPENED,
            again(_OPENED, "2025-11-03 10:01"),
            _ESCALATED,
            again(_ESCALATED, "2025-11-03 10:31"),
            _ANSWERED,
            again(_ANSWERED, "2025-11-03 11:00"),
        ),
        then=("applied", "escalated", "fulfilled"),
        also={"inbox": ("recorded", "duplicate") * 3, "escalation_level": 1},
    ),
    Scenario(
        "a duplicate is one after a month too",
        rule=9,
        given=(_OPENED, _ANSWERED, again(_OPENED, "2025-12-03 10:00"), again(_ANSWERED, "2025-12-03 10:00")),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "recorded", "duplicate", "duplicate")},
    ),
    Scenario(
        "the same id with another time is a conflict, and the first stays",
        rule=9,
        given=(_OPENED, _ANSWERED, responded("2025-11-03 10:30", id="r", arrives="2025-11-03 11:30")),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 11:00", "inbox": ("recorded", "recorded", "id_conflict")},
    ),
    Scenario(
        "the same id with other data or another type is a conflict",
        rule=9,
        given=(
            _OPENED,
            opened("foundation", "minor", "2025-11-03 10:00", id="o"),
            escalated("2025-11-03 10:00", id="o"),
            responded("2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={"priority": "critical", "inbox": ("recorded", "id_conflict", "id_conflict", "recorded")},
    ),
    Scenario(
        "a default that is written out is the same content",
        rule=9,
        given=(_OPENED, _ANSWERED, responded("2025-11-03 11:00", by="agent", id="r")),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "recorded", "duplicate")},
    ),
    Scenario(
        "the same id from another source is another fact",
        rule=9,
        given=(
            _OPENED,
            escalated("2025-11-03 10:30", id="e", source="/crm"),
            escalated("2025-11-03 10:30", id="e", source="/helpdesk"),
            _ANSWERED,
        ),
        then=("applied", "escalated", "escalated", "fulfilled"),
        also={"escalation_level": 2},
    ),
    Scenario(
        "a refused fact claims no id: the corrected one may use it again",
        rule=9,
        given=(
            opened("gold", "critical", "2025-11-03 10:00", id="o"),
            opened("foundation", "urgent", "2025-11-03 10:00", id="o"),
            _OPENED,
            changed("urgent", "2025-11-03 10:30"),
            _ANSWERED,
        ),
        then=("applied", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "inbox": ("unknown_service_level", "unknown_priority", "recorded", "unknown_priority", "recorded"),
        },
    ),
)

ESCALATED = (
    Scenario(
        "an escalation is told to whom the level says, and moves nothing",
        rule=10,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00", reason="the director called"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "escalated"),
        also={
            "escalation_level": 1,
            "priority": "minor",
            "due_at": "2025-11-05 16:00",
            "stage": "running",
            "escalated": {
                "tell": ["support-escalation"],
                "severity": "error",
                "reason": "the director called",
                "escalated_at": "2025-11-03 11:00",
                "elapsed_seconds": 3600,
                "escalation_level": 1,
                "cause": "escalated",
                "cause_id": "escalated-1",
            },
        },
    ),
    Scenario(
        "in Enterprise the account manager is told too",
        rule=10,
        given=(opened("enterprise", "minor", "2025-11-03 10:00"), escalated("2025-11-03 11:00")),
        when="2025-11-03 12:00",
        then=("applied", "escalated"),
        also={"escalated": {"tell": ["account_manager", "support-escalation"], "reason": None}},
    ),
    Scenario(
        "an escalation does not answer, and each raises the severity of the breach by one step",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00"),
        ),
        then=("applied", "escalated", *WARNED, "breached"),
        also={"responded_at": None, "breached": {"severity": "error", "escalation_level": 1, "priority": "minor"}},
    ),
    Scenario(
        "the severity ends at critical",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00"),
            escalated("2025-11-03 11:30"),
            escalated("2025-11-03 12:00"),
        ),
        then=("applied", "escalated", "escalated", "escalated", *WARNED, "breached"),
        also={
            "escalation_level": 3,
            "breached": {"severity": "critical"},
            "escalated": ({"severity": "error"}, {"severity": "critical"}, {"severity": "critical"}),
        },
    ),
    Scenario(
        "an escalation after the breach and the answer is still told",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 19:00"),
            escalated("2025-11-03 20:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "escalated"),
        also={"escalation_level": 1, "breached": {"severity": "warning", "escalation_level": 0}},
    ),
    Scenario(
        "an escalation that arrives late is told once, whatever its place",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 12:00", id="second"),
            escalated("2025-11-03 11:00", id="first", arrives="2025-11-03 13:00"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "escalated", "escalated", "fulfilled"),
        also={"escalated": ({"cause_id": "second"}, {"cause_id": "first"}), "escalation_level": 2},
    ),
)

ORDER = (
    Scenario(
        "a kept promise told backwards",
        rule=11,
        given=(
            escalated("2025-11-03 15:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 12:30", arrives="2025-11-04 09:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
            opened("foundation", "minor", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "fulfilled", "escalated"),
        also={"due_at": "2025-11-03 14:00", "met": True, "escalation_level": 1},
    ),
    Scenario(
        "a broken promise told backwards, with a tick after each fact",
        rule=11,
        given=(
            responded("2025-11-03 15:00", arrives="2025-11-04 09:00"),
            changed("serious", "2025-11-03 12:00", arrives="2025-11-04 09:01"),
            changed("critical", "2025-11-03 12:30", arrives="2025-11-04 09:02"),
            opened("foundation", "minor", "2025-11-03 10:00", arrives="2025-11-04 09:03"),
        ),
        then=("applied", "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "met": False,
            "overdue": "1:00:00",
            "breached": {"detection": "live", "detected_at": "2025-11-04 09:03:00.001"},
        },
    ),
    Scenario(
        "a kept promise told in the worst order ends as it should",
        rule=11,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 17:00", arrives="2025-11-04 09:01"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-04 09:02"),
        ),
        then=("applied", "breached", "fulfilled", "breach_retracted", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "met": True, "breached_at": None},
    ),
)

WARNINGS = (
    Scenario(
        "warnings come at 50, 75 and 90 per cent of the target",
        rule=12,
        given=(opened("foundation", "critical", "2025-11-03 10:00"),),
        when="2025-11-03 13:59",
        then=("applied", *WARNED),
        also={
            "at_risk_at": "2025-11-03 13:00",
            "next_at": "2025-11-03 14:00",
            "warning": (
                {"threshold_percent": 50, "time": "2025-11-03 12:00", "elapsed_seconds": 7200},
                {"threshold_percent": 75, "time": "2025-11-03 13:00", "cause": "threshold_reached"},
                {"threshold_percent": 90, "time": "2025-11-03 13:36", "detected_at": "2025-11-03 13:36:00.001"},
            ),
        },
    ),
    Scenario(
        "warnings are computed in support time",
        rule=12,
        given=(opened("foundation", "critical", "2025-11-07 16:00"), responded("2025-11-10 10:59")),
        then=("applied", *WARNED, "fulfilled"),
        also={
            "warning": (
                {"time": "2025-11-07 18:00"},
                {"time": "2025-11-10 10:00"},
                {"time": "2025-11-10 10:36"},
            ),
        },
    ),
    Scenario(
        "if one tick passes several, only the highest is sent",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:00", until="2025-11-03 13:10"),
            responded("2025-11-03 13:40"),
        ),
        then=("applied", "warning", "warning", "fulfilled"),
        also={"warning": ({"threshold_percent": 75}, {"threshold_percent": 90})},
    ),
    Scenario(
        "no warning once answered",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:00", until="2025-11-03 13:30"),
            responded("2025-11-03 12:30"),
        ),
        then=("applied", "fulfilled"),
    ),
    Scenario(
        "no warning once broken",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:00", until="2025-11-03 14:00:01"),
        ),
        then=("applied", "breached"),
    ),
    Scenario(
        "a longer target arms again the warnings that lie ahead",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 12:30"),
            responded("2025-11-03 15:00"),
        ),
        then=("applied", "warning", "target_changed", "warning", "fulfilled"),
        also={
            "warning": (
                {"threshold_percent": 50, "time": "2025-11-03 12:00", "due_at": "2025-11-03 14:00"},
                {"threshold_percent": 50, "time": "2025-11-03 14:00", "due_at": "2025-11-03 18:00"},
            ),
        },
    ),
    Scenario(
        "a warning that the longer target has passed as well is not sent again",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 14:00:30"),
            changed("serious", "2025-11-03 13:55", arrives="2025-11-03 14:00:10"),
            responded("2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "target_changed", "fulfilled"),
        also={"warned_percent": 50},
    ),
    Scenario(
        "a deadline that comes back has its warnings behind it",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 12:10"),
            changed("critical", "2025-11-03 12:20"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "warning", "target_changed", "target_changed", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 14:00", "warning": ({"threshold_percent": 50}, {"threshold_percent": 75})},
    ),
    Scenario(
        "a raise that passes a threshold warns at the change",
        rule=12,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 13:10"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "target_changed", "warning", "fulfilled"),
        also={"warning": {"threshold_percent": 75, "time": "2025-11-03 13:10"}},
    ),
    Scenario(
        "a warning is not withdrawn by late news",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", arrives="2025-11-03 13:05"),
        ),
        then=("applied", "warning", "warning", "fulfilled"),
        also={"met": True},
    ),
)

PINNED = (
    Scenario(
        "a ticket is judged by the policy in force when it was opened",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-03 11:00"),
            changed("serious", "2025-11-03 11:30"),
            responded("2025-11-03 19:00"),
        ),
        then=("applied", "target_changed", *WARNED, "breached", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "target": "8:00:00", "policy_version": "2026-01"},
    ),
    Scenario(
        "a ticket opened after the edit is judged by the new policy",
        rule=13,
        given=(
            edited("2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 17:30"),
        ),
        then=("applied", *WARNED, "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "target": "8:00:00", "policy_version": "edited"},
    ),
    Scenario(
        "late news is judged by the policy of the opening",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-04 09:00"),
            opened("foundation", "critical", "2025-11-03 09:00", arrives="2025-11-04 10:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "breached"),
        also={"due_at": "2025-11-03 13:00", "policy_version": "2026-01", "breached": {"policy_version": "2026-01"}},
    ),
    Scenario(
        "a pending ticket is not pinned yet",
        rule=13,
        given=(
            escalated("2025-11-03 09:00"),
            edited("2025-11-03 09:30"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "escalated"),
        also={"policy_version": "edited", "due_at": "2025-11-03 18:00"},
    ),
)

VERSIONS = (
    Scenario(
        "an earlier opening that arrives late brings the version that was in force then",
        rule=13,
        given=(
            edited("2025-11-04 09:00"),
            opened("foundation", "critical", "2025-11-04 10:00"),
            opened("foundation", "critical", "2025-11-04 08:59", arrives="2025-11-04 11:00"),
            responded("2025-11-04 12:30"),
        ),
        then=("applied", "target_changed", "warning", "warning", "fulfilled"),
        also={
            "due_at": "2025-11-04 13:00",
            "policy_version": "2026-01",
            "target_changed": {"cause": "opening_replaced", "old_due_at": "2025-11-04 18:00"},
        },
    ),
    Scenario(
        "a ticket of yesterday that arrives today is judged by the version of yesterday",
        rule=13,
        given=(
            edited("2025-11-04 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 10:00"),
        ),
        then=("applied", "breached"),
        also={"due_at": "2025-11-03 14:00", "policy_version": "2026-01"},
    ),
    Scenario(
        "an open ticket that is moved keeps the time it has used, and gets the target of the new version",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-03 11:00"),
            moved("edited", "2025-11-03 11:30"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "target_changed", "fulfilled"),
        also={
            "due_at": "2025-11-03 18:00",
            "target": "8:00:00",
            "policy_version": "edited",
            "target_changed": {
                "cause": "policy_changed",
                "policy_version": "edited",
                "old_due_at": "2025-11-03 14:00",
                "elapsed_seconds": 5400,
            },
        },
    ),
    Scenario(
        "moved to a version that gives less than is used: it breaks at the move, not before it",
        rule=13,
        given=(
            edited("2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
            moved("2026-01", "2025-11-03 15:00"),
        ),
        then=("applied", "warning", "target_changed", "breached"),
        also={"breached_at": "2025-11-03 15:00", "breached": {"cause": "policy_changed", "policy_version": "2026-01"}},
    ),
    Scenario(
        "what is broken stays under the version it was broken under",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-03 14:30"),
            moved("edited", "2025-11-03 15:00"),
            responded("2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"policy_version": "2026-01", "met": False, "overdue": "2:00:00"},
    ),
    Scenario(
        "a move to a version that nobody has published is a dead letter",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            moved("2031-01", "2025-11-03 10:10"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "invalid_data", "recorded"), "policy_version": "2026-01"},
    ),
)

LEVEL_CHANGED = (
    Scenario(
        "time before a change of level counts under the old hours, time after it under the new ones",
        rule=14,
        given=(
            opened("foundation", "serious", "2025-11-07 16:00"),
            levelled("enterprise", "2025-11-08 10:00"),
        ),
        when="2025-11-08 11:00",
        then=("applied", "target_changed", "warning"),
        also={
            "service_level": "enterprise",
            "due_at": "2025-11-08 12:00",
            "target": "4:00:00",
            "target_changed": {
                "cause": "service_level_changed",
                "time": "2025-11-08 10:00",
                "old_due_at": "2025-11-10 15:00",
                "elapsed_seconds": 7200,
                "subject": "sla.target_changed.enterprise.serious",
            },
        },
    ),
    Scenario(
        "a level whose target is used up already breaks the promise at the change, not before it",
        rule=14,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            levelled("professional", "2025-11-05 12:00"),
        ),
        then=("applied", "warning", "warning", "target_changed", "breached"),
        also={
            "due_at": "2025-11-05 12:00",
            "breached": {"cause": "service_level_changed", "breached_at": "2025-11-05 12:00", "elapsed_seconds": 72000},
        },
    ),
    Scenario(
        "level and priority change at one instant, and only the end of it counts",
        rule=14,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            levelled("enterprise", "2025-11-03 11:00"),
            changed("critical", "2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "target_changed", "target_changed", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 12:00", "service_level": "enterprise", "priority": "critical"},
    ),
    Scenario(
        "once broken, another level is a label",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            levelled("enterprise", "2025-11-03 15:00"),
            responded("2025-11-03 19:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "overdue": "4:00:00",
            "service_level": "enterprise",
            "judged_as": "foundation",
            "fulfilled": {"subject": "sla.fulfilled.enterprise.critical", "elapsed_seconds": 28800},
        },
    ),
    Scenario(
        "a level that changed before the breach and arrives after it withdraws the breach",
        rule=14,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00"),
            levelled("foundation", "2025-11-03 11:00", arrives="2025-11-03 13:00"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "met": True,
            "breach_retracted": {"reason": "deadline_moved", "subject": "sla.breach_retracted.enterprise.critical"},
        },
    ),
    Scenario(
        "a level the policy does not have is a dead letter, in a correction too",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            levelled("gold", "2025-11-03 10:10"),
            corrected("o", "2025-11-03 11:00", priority="urgent"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "unknown_service_level", "unknown_priority", "recorded")},
    ),
)

CLOSED = (
    Scenario(
        "closed without a response: cancelled, and no breach comes",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:30", reason="sent to the wrong address"),
        ),
        then=("applied", "cancelled"),
        also={
            "stage": "cancelled",
            "reason": "sent to the wrong address",
            "next_at": None,
            "met": None,
            "cancelled": {
                "time": "2025-11-03 11:30",
                "cause": "closed",
                "cause_id": "closed-1",
                "reason": "sent to the wrong address",
                "elapsed_seconds": 5400,
                "due_at": "2025-11-03 14:00",
                "subject": "sla.cancelled.foundation.critical",
            },
        },
    ),
    Scenario(
        "closed for no given reason",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), closed("2025-11-03 11:30")),
        then=("applied", "cancelled"),
        also={"reason": "closed", "cancelled": {"reason": "closed"}},
    ),
    Scenario(
        "reopened: the same clock goes on, and the closed time does not count",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            reopened("2025-11-04 10:00"),
            responded("2025-11-04 12:30"),
        ),
        then=("applied", "cancelled", "target_changed", *WARNED[:2], "fulfilled"),
        also={
            "started_at": "2025-11-03 10:00",
            "due_at": "2025-11-04 13:00",
            "met": True,
            "target_changed": {
                "cause": "reopened",
                "old_due_at": "2025-11-03 14:00",
                "target_seconds": 14400,
                "elapsed_seconds": 3600,
            },
            "fulfilled": {"elapsed_seconds": 12600},
        },
    ),
    Scenario(
        "reopened and never answered breaks after what was left of the target",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 13:00"),
            reopened("2025-11-06 10:00"),
        ),
        then=("applied", "warning", "cancelled", "target_changed", "warning", "warning", "breached"),
        also={"breached_at": "2025-11-06 11:00", "due_at": "2025-11-06 11:00"},
    ),
    Scenario(
        "an answered clock never restarts",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
            closed("2025-11-03 12:00"),
            reopened("2025-11-04 10:00"),
        ),
        then=("applied", "fulfilled"),
        also={"stage": "fulfilled", "met": True, "responded_at": "2025-11-03 11:00"},
    ),
    Scenario(
        "the answer with which a ticket is closed counts, at the same instant",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            responded("2025-11-03 11:00"),
        ),
        then=("applied", "cancelled", "fulfilled"),
        also={"stage": "fulfilled", "met": True, "reason": None},
    ),
    Scenario(
        "an answer while the ticket is closed is not the first response",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            responded("2025-11-03 12:00"),
            reopened("2025-11-03 15:00"),
            responded("2025-11-03 16:00", id="counts"),
        ),
        then=("applied", "cancelled", "target_changed", "fulfilled"),
        also={"responded_at": "2025-11-03 16:00", "due_at": "2025-11-03 18:00", "fulfilled": {"cause_id": "counts"}},
    ),
    Scenario(
        "closed after the breach: the breach stands",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), closed("2025-11-03 15:00")),
        then=("applied", *WARNED, "breached", "cancelled"),
        also={"stage": "cancelled", "breached_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a close that arrives after the breach and happened before it withdraws the breach",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 13:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "cancelled"),
        also={"stage": "cancelled", "breached_at": None, "breach_retracted": {"reason": "closed"}},
    ),
    Scenario(
        "priorities that change while the ticket is closed count when it goes on",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            changed("serious", "2025-11-03 12:00"),
            reopened("2025-11-04 09:00"),
        ),
        when="2025-11-04 09:30",
        then=("applied", "cancelled", "target_changed"),
        also={"due_at": "2025-11-04 16:00", "target": "8:00:00"},
    ),
    Scenario(
        "a close of a ticket that nobody has opened waits for the opening",
        rule=14,
        given=(closed("2025-11-03 11:00"),),
        then=(),
        also={"stage": "pending", "inbox": ("recorded",)},
    ),
    Scenario(
        "a close dated before the opening is superseded by it",
        rule=14,
        given=(
            closed("2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True},
    ),
    Scenario(
        "reopened without a close: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            reopened("2025-11-03 11:00"),
            responded("2025-11-03 12:30"),
        ),
        then=("applied", "warning", "fulfilled"),
        also={"flags": ("reopened_without_close",), "due_at": "2025-11-03 14:00"},
    ),
)

EXCLUDED = (
    Scenario(
        "excluded: the promise does not apply, and no breach comes",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), excluded("third_party", "2025-11-03 11:00")),
        then=("applied", "cancelled"),
        also={
            "stage": "excluded",
            "reason": "third_party",
            "next_at": None,
            "cancelled": {"cause": "excluded", "reason": "third_party", "time": "2025-11-03 11:00"},
        },
    ),
    Scenario(
        "excluded after the breach: the breach is withdrawn",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), excluded("force_majeure", "2025-11-03 16:00")),
        then=("applied", *WARNED, "breached", "breach_retracted", "cancelled"),
        also={
            "stage": "excluded",
            "breached_at": None,
            "breach_retracted": {"reason": "excluded", "cause_id": "excluded-1", "number": 1},
        },
    ),
    Scenario(
        "a ticket that was excluded after the breach, and is not",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("training", "2025-11-03 16:00"),
            revoked("training", "2025-11-03 17:00"),
            responded("2025-11-03 17:30"),
        ),
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "cancelled",
            "target_changed",
            "breached",
            "fulfilled",
        ),
        also={
            "stage": "fulfilled",
            "met": False,
            "breached_at": "2025-11-03 14:00",
            "overdue": "3:30:00",
            "target_changed": {"cause": "exclusion_revoked", "old_due_at": "2025-11-03 14:00"},
            "breached": ({"number": 1}, {"number": 2, "breached_at": "2025-11-03 14:00", "detection": "live"}),
        },
    ),
    Scenario(
        "revoked in time: as if it had never been excluded, and the time counts",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("training", "2025-11-03 11:00"),
            revoked("training", "2025-11-03 12:30"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "cancelled", "target_changed", "warning", "warning", "fulfilled"),
        also={"met": True, "due_at": "2025-11-03 14:00", "fulfilled": {"elapsed_seconds": 12600}},
    ),
    Scenario(
        "excluded for two reasons, and one is revoked: still excluded",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("training", "2025-11-03 11:00"),
            excluded("third_party", "2025-11-03 11:30"),
            revoked("third_party", "2025-11-03 12:30"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "excluded", "reason": "training"},
    ),
    Scenario(
        "an answered promise that is excluded is in no report; once revoked, it says again what it said",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
            excluded("customer_environment", "2025-11-03 12:00"),
            revoked("customer_environment", "2025-11-03 15:00"),
        ),
        then=("applied", "fulfilled", "cancelled", "fulfilled"),
        also={
            "stage": "fulfilled",
            "met": True,
            "fulfilled": ({"revision": 1}, {"revision": 2, "met": True, "responded_at": "2025-11-03 11:00"}),
        },
    ),
    Scenario(
        "a revocation that comes before the exclusion it is about is flagged, and the exclusion holds",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            revoked("training", "2025-11-03 11:00"),
            excluded("training", "2025-11-03 12:30"),
        ),
        then=("applied", "warning", "cancelled"),
        also={"stage": "excluded", "flags": ("revoked_without_exclusion",)},
    ),
    Scenario(
        "a reason that the policy does not have is a dead letter",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("too busy", "2025-11-03 11:00"),
            revoked("too busy", "2025-11-03 11:10"),
            excluded("", "2025-11-03 11:20"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "invalid_data", "invalid_data", "invalid_data", "recorded")},
    ),
    Scenario(
        "an exclusion that is corrected to a reason that the policy does not have is none: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("training", "2025-11-03 11:00", id="x"),
            corrected("x", "2025-11-03 11:10", reason="too busy"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "cancelled", "target_changed", "fulfilled"),
        also={
            "stage": "fulfilled",
            "flags": ("reason_not_in_policy",),
            "inbox": ("recorded",) * 4,
            "target_changed": {"cause": "corrected", "due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "an exclusion of a ticket that nobody has opened yet holds once it is opened",
        rule=14,
        given=(
            excluded("preview_feature", "2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "excluded", "reason": "preview_feature"},
    ),
)

PAUSED = (
    Scenario(
        "paused and resumed: the shipped policy lets the time count",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 11:00", reason="waits for the customer"),
            resumed("2025-11-03 13:00"),
            responded("2025-11-03 14:30"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"due_at": "2025-11-03 14:00", "met": False},
    ),
    Scenario(
        "where the policy lets it pause, what is left of the target is left when it goes on",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 11:00"),
            resumed("2025-11-04 13:00"),
            responded("2025-11-04 14:30"),
        ),
        then=("applied", "target_changed", "warning", "fulfilled"),
        also={
            "due_at": "2025-11-04 16:00",
            "met": True,
            "target_changed": {"cause": "resumed", "old_due_at": "2025-11-03 14:00", "target_seconds": 14400},
            "fulfilled": {"elapsed_seconds": 9000},
        },
    ),
    Scenario(
        "while it is paused nothing is due",
        rule=14,
        pauses=True,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), paused("2025-11-03 11:00")),
        then=("applied",),
        also={"stage": "paused", "next_at": None, "breached_at": None},
    ),
    Scenario(
        "a priority that changes during a pause keeps the time used, and the pause",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            paused("2025-11-03 12:00"),
            changed("critical", "2025-11-03 15:00"),
            resumed("2025-11-04 10:00"),
        ),
        when="2025-11-04 10:30",
        then=("applied", "target_changed", "warning"),
        also={"due_at": "2025-11-04 12:00", "target": "4:00:00", "stage": "running"},
    ),
    Scenario(
        "whoever answers during a pause has used what was used before it",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 11:00"),
            responded("2025-11-05 11:00"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True, "fulfilled": {"elapsed_seconds": 3600}},
    ),
    Scenario(
        "a pause that began before the breach and is told after it withdraws the breach",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 13:00", arrives="2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted"),
        also={"stage": "paused", "breached_at": None, "breach_retracted": {"reason": "paused"}},
    ),
    Scenario(
        "a pause after the breach mends nothing",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 15:00"),
            resumed("2025-11-03 16:00"),
            responded("2025-11-03 17:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"met": False, "due_at": "2025-11-03 14:00", "overdue": "2:00:00"},
    ),
    Scenario(
        "resumed without a pause: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            resumed("2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("resumed_without_pause",), "inbox": ("recorded",) * 3},
    ),
)

CORRECTED = (
    Scenario(
        "an opening told with the wrong priority is corrected from the start",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 11:30", priority="serious"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "target_changed"),
        also={
            "priority": "serious",
            "due_at": "2025-11-03 18:00",
            "target_changed": {"cause": "corrected", "cause_id": "corrected-1", "old_due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "a correction that shows that the promise was kept withdraws the breach",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 15:00", id="r"),
            corrected("r", "2025-11-03 16:00", time="2025-11-03 12:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "fulfilled"),
        also={
            "met": True,
            "responded_at": "2025-11-03 12:00",
            "breach_retracted": {"reason": "answered_in_time"},
            "fulfilled": ({"revision": 1, "met": False}, {"revision": 2, "met": True, "cause_id": "corrected-1"}),
        },
    ),
    Scenario(
        "an answer that was an automatic acknowledgement after all is taken back",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", id="r"),
            corrected("r", "2025-11-03 12:30", by="automation"),
        ),
        then=("applied", "fulfilled", "target_changed", *WARNED, "breached"),
        also={
            "stage": "running",
            "met": None,
            "breached_at": "2025-11-03 14:00",
            "target_changed": {"cause": "corrected", "cause_id": "corrected-1"},
        },
    ),
    Scenario(
        "a correction that comes before what it corrects waits for it",
        rule=14,
        given=(
            corrected("o", "2025-11-03 09:30", service_level="enterprise"),
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "warning", "fulfilled"),
        also={"service_level": "enterprise", "due_at": "2025-11-03 12:00", "flags": ()},
    ),
    Scenario(
        "a correction of a fact that nobody has told: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("never", "2025-11-03 11:00", priority="minor"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("corrects_nothing",), "priority": "critical", "inbox": ("recorded",) * 3},
    ),
    Scenario(
        "whoever did not tell a fact does not correct it",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o", source="/helpdesk"),
            corrected("o", "2025-11-03 11:00", priority="minor", source="/crm"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("corrects_nothing",), "priority": "critical"},
    ),
    Scenario(
        "two corrections of one fact: each says what it says, and the later one wins",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 10:30", priority="minor", service_level="professional"),
            corrected("o", "2025-11-03 10:40", priority="serious"),
            responded("2025-11-03 10:50"),
        ),
        then=("applied", "target_changed", "target_changed", "fulfilled"),
        also={"service_level": "professional", "priority": "serious", "due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a corrected time of opening moves the clock",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 11:00", time="2025-11-03 09:00"),
            responded("2025-11-03 12:45"),
        ),
        then=("applied", "target_changed", *WARNED, "fulfilled"),
        also={"started_at": "2025-11-03 09:00", "due_at": "2025-11-03 13:00", "met": True},
    ),
    Scenario(
        "a corrected time that no fact can have is a dead letter",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 11:00", time="2025-11-03 12:00"),
            corrected("o", "2025-11-03 11:00", time="1999-12-31 12:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "time_in_future", "time_out_of_range", "recorded"), "met": True},
    ),
)

CHANNELS = (
    Scenario(
        "by phone for an Enterprise critical ticket, as the policy says",
        rule=14,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00", channel="phone"),
            responded("2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ()},
    ),
    Scenario(
        "a channel that the level does not have: accepted and flagged, and the promise holds",
        rule=14,
        given=(
            opened("enterprise", "serious", "2025-11-03 10:00", channel="phone"),
            responded("2025-11-03 14:30"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"flags": ("channel_not_entitled",), "met": False},
    ),
    Scenario(
        "a correction of the channel takes the flag back",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o", channel="phone"),
            corrected("o", "2025-11-03 10:10", channel="email"),
            responded("2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ()},
    ),
)

SCENARIOS: tuple[Scenario, ...] = (
    *DUE,
    *BROKEN,
    *TICKS,
    *PRIORITY,
    *ONE_INSTANT,
    *ANSWERED,
    *LATE_NEWS,
    *BEFORE_OPENED,
    *OPENED_TWICE,
    *DUPLICATES,
    *ESCALATED,
    *ORDER,
    *WARNINGS,
    *PINNED,
    *VERSIONS,
    *LEVEL_CHANGED,
    *CLOSED,
    *EXCLUDED,
    *PAUSED,
    *CORRECTED,
    *CHANNELS,
)
