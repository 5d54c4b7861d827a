"""The demo: what it tells at any hour of any day, and `sla up --demo` as people start it."""

import asyncio
import json
import os
import pty
import random
import select
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nats
import pytest

from events.cloudevents import parse_time
from events.tickets import read_ticket_event
from services.bus.publisher import Outgoing
from services.demo import generate
from services.demo.playback import (
    MOST_OPEN,
    NOMINAL_START,
    DemoEvent,
    Planned,
    Trickle,
    describe_span,
    find_opening_before,
    find_opening_with,
    plan_feed,
    read_bundled,
)
from services.runtime.connections import read_run_file
from services.runtime.settings import SHIPPED_POLICIES
from sla.engine import BatchOutcome, Engine, Message
from sla.log import Announced, Breached, BreachRetracted, Fulfilled, WarningRaised
from sla.policy import Level, Policy
from sla.policy_file import load_policy_file
from sla.ticket import TicketSla
from sla.versions import Versions
from tests.support.commands import SLA, clean_environment

POLICY = load_policy_file(SHIPPED_POLICIES / "cention-support.yaml")
HALF_A_MINUTE = timedelta(seconds=30)
SLACK = timedelta(microseconds=10)  # a deadline has passed when it is over


def stockholm(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Stockholm")).astimezone(UTC)


STARTS = {
    "monday morning": stockholm("2026-11-23 10:00"),
    "sunday night": stockholm("2026-11-22 23:30"),
    "saturday noon": stockholm("2026-11-21 12:00"),
    "the night before a working day": stockholm("2026-11-24 03:00"),
    "christmas day": stockholm("2026-12-25 15:00"),
    "boxing day, the second closed day": stockholm("2026-12-26 20:00"),
    "five seconds before foundation closes": stockholm("2026-11-24 17:59:55"),
    "five seconds before enterprise closes": stockholm("2026-12-24 23:59:55"),
    "the hour that clocks skip": stockholm("2026-03-29 03:00"),
    "the hour that occurs twice": stockholm("2026-10-25 02:30"),
}


# ---- the file


def test_the_file_is_what_demo_day_writes() -> None:
    assert generate.DEMO_FILE.read_text(encoding="utf-8") == generate.render_file()


def test_every_line_is_a_ticket_event_and_only_the_urgent_one_cannot_count() -> None:
    events = [read_ticket_event(message.body, message.headers, message.subject) for message in as_they_stand()]
    assert 150 <= len(events) <= 300
    urgent = [event for event in events if getattr(event.data, "priority", None) == "urgent"]
    assert len(urgent) == 1
    fed = judged(plan_feed(read_bundled(), POLICY, NOMINAL_START))
    assert [dead.reason for dead in fed.dead] == ["unknown_priority"]


def test_the_day_has_all_that_a_day_has() -> None:
    lines = read_bundled()
    opened = [line["data"] for line in lines if line["type"] == "ticket.opened"]
    pairs = {(data["service_level"], data["priority"]) for data in opened}
    assert pairs >= {(level, priority) for level in POLICY.levels for priority in POLICY.priorities}
    assert {line["source"] for line in lines} == {"/helpdesk/nordkraft", "/helpdesk/havsvik", "/crm/fjallbank"}
    assert {data["channel"] for data in opened} == {"email", "portal", "phone"}
    assert all(data["customer"] for data in opened)
    assert {line["data"].get("by") for line in lines if line["type"] == "ticket.responded"} == {"agent", "automation"}
    assert {"ticket.priority_changed", "ticket.escalated"} < {line["type"] for line in lines}
    assert Counter((line["source"], line["id"]) for line in lines).most_common(2)[0][1] == 2
    assert Counter(Counter((line["source"], line["id"]) for line in lines).values())[2] == 1


def test_an_answer_overtakes_its_opening() -> None:
    first = dict[str, str]()
    for line in read_bundled():
        first.setdefault(line["subject"], line["type"])
    assert Counter(first.values())["ticket.responded"] == 1


def test_on_the_nominal_day_no_time_moves() -> None:
    planned = plan_feed(read_bundled(), POLICY, NOMINAL_START)
    assert [time_of(each.message) for each in planned] == [parse_time(line["time"]) for line in read_bundled()]


# ---- at any time of any day


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_nothing_is_dated_in_the_future_or_before_its_opening(start: datetime) -> None:
    openings: dict[str, datetime] = {}
    planned = plan_feed(read_bundled(), POLICY, start)
    for at, message in planned:
        event = json.loads(message.body)
        assert parse_time(event["time"]) <= at
        assert not [name for name in event if name.startswith("demo")]
        if event["type"] == "ticket.opened":
            openings[event["subject"]] = parse_time(event["time"])
    assert all(time_of(message) >= openings[json.loads(message.body)["subject"]] for _, message in planned)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_half_a_minute_shows_everything_at_any_time(start: datetime) -> None:
    told = judged(plan_feed(read_bundled(), POLICY, start)).told
    seen = [event for event in told if event.at <= start + HALF_A_MINUTE]
    breaches = [event for event in seen if isinstance(event, Breached)]
    is_open = any(level.hours.measure(start, start + HALF_A_MINUTE) for level in POLICY.levels.values())
    # after a day on which all are closed, the thresholds were passed too long ago
    assert len([event for event in seen if isinstance(event, WarningRaised)]) >= (2 if is_open else 0)
    assert len(breaches) >= 10
    assert [event for event in breaches if event.detection == "live"], "one that would wake somebody"
    assert {event.service_level for event in breaches} == set(POLICY.levels)
    assert len({(event.at - start) // timedelta(seconds=5) for event in breaches}) >= 5, "they come one after the other"
    assert len([event for event in seen if isinstance(event, Fulfilled) and not event.met]) >= 4
    assert [event for event in seen if isinstance(event, Fulfilled) and event.met]


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_one_breach_is_withdrawn_some_seconds_after_it_was_told(start: datetime) -> None:
    by_ticket = judged(plan_feed(read_bundled(), POLICY, start)).by_ticket
    (story,) = (
        events for ticket, events in by_ticket.items() if any(isinstance(event, BreachRetracted) for event in events)
    )
    breached, retracted, answered = story[-3:]
    assert isinstance(breached, Breached)
    assert isinstance(retracted, BreachRetracted)
    assert retracted.reason == "answered_in_time"
    assert isinstance(answered, Fulfilled)
    assert answered.met
    assert timedelta(seconds=3) < retracted.at - breached.at < timedelta(seconds=20)


def test_while_support_is_open_deadlines_pass_while_somebody_watches() -> None:
    start = STARTS["monday morning"]
    told = judged(plan_feed(read_bundled(), POLICY, start)).told
    breaches = [event for event in told if isinstance(event, Breached) and event.breached_at > start]
    assert {event.service_level for event in breaches} == set(POLICY.levels)
    assert all(event.at - event.breached_at == SLACK for event in breaches if event.cause == "deadline_passed")
    assert {"deadline_passed", "priority_raised"} == {event.cause for event in breaches}


def test_the_doubled_delivery_counts_once() -> None:
    assert judged(plan_feed(read_bundled(), POLICY, NOMINAL_START)).outcomes["duplicate"] == 1


def test_a_second_demo_tells_of_other_tickets() -> None:
    first, second = (plan_feed(read_bundled(), POLICY, NOMINAL_START + timedelta(seconds=n)) for n in (0, 1))
    assert not names(first) & names(second)
    assert judged([*first, *second]).outcomes["duplicate"] == 2


def test_a_policy_with_other_names_makes_dead_letters_and_no_error() -> None:
    resolved = POLICY.to_resolved()
    resolved["levels"] = [level | {"name": "bronze"} for level in resolved["levels"][:1]]
    other = Policy.from_resolved(resolved)
    found = judged(plan_feed(read_bundled(), other, NOMINAL_START), other)
    assert {dead.reason for dead in found.dead} == {"unknown_service_level"}


# ---- searching support hours backwards


@pytest.mark.parametrize("level", POLICY.levels.values(), ids=POLICY.levels)
def test_opened_before_is_the_latest_instant_from_which_so_much_was_counted(level: Level) -> None:
    chance, hours = random.Random(7), level.hours
    for _ in range(200):
        now = stockholm("2026-01-01 00:00") + timedelta(seconds=chance.uniform(0, 366 * 86400))
        used = timedelta(microseconds=chance.choice([1, 10**6, chance.randrange(1, 40 * 3600 * 10**6)]))
        found = find_opening_before(hours, used, now)
        assert hours.measure(found, now) == used
        assert hours.measure(found + timedelta(microseconds=1), now) < used
    assert find_opening_before(hours, timedelta(0), now) == now


def test_what_is_due_soon_is_due_then_or_was_due_when_the_clock_stopped() -> None:
    level = POLICY.levels["foundation"]
    for now, due_at in (
        ("2026-11-24 10:00", "2026-11-24 10:00:09"),  # open
        ("2026-11-24 17:59:55", "2026-11-24 17:59:55"),  # closes before
        ("2026-11-24 03:00", "2026-11-23 18:00"),
        ("2026-12-25 12:00", "2026-12-24 18:00"),
    ):
        opened = find_opening_with(timedelta(seconds=9), level, "serious", stockholm(now))
        assert level.targets["serious"].find_due(opened) == stockholm(due_at)


def test_what_is_not_due_soon_keeps_its_time_left() -> None:
    level, night = POLICY.levels["foundation"], stockholm("2026-11-24 03:00")
    opened = find_opening_with(timedelta(hours=2), level, "serious", night)
    assert level.targets["serious"].find_due(opened) == stockholm("2026-11-24 11:00")


# ---- the trickle


@pytest.mark.parametrize("start", [STARTS["monday morning"], STARTS["christmas day"]], ids=["open", "closed"])
def test_the_trickle_is_sound_bounded_and_goes_on_breaking_promises(start: datetime) -> None:
    trickle, planned = Trickle(POLICY, "run"), []
    open_tickets: set[str] = set()
    for number in range(600):
        at = start + timedelta(seconds=2 * number)
        message = trickle.build_next(at)
        planned.append(Planned(at, message))
        event = read_ticket_event(message.body, message.headers, message.subject)
        assert event.time <= at
        if event.type == "ticket.opened":
            open_tickets.add(event.ticket)
        elif event.type == "ticket.responded" and getattr(event.data, "by", "") == "agent":
            open_tickets.discard(event.ticket)
        assert len(open_tickets) <= MOST_OPEN
    found = judged(planned)
    assert found.outcomes == {"recorded": 600}
    assert len([event for event in found.told if isinstance(event, Breached)]) > 20


def test_the_trickle_is_the_same_for_the_same_seed() -> None:
    one, other = (Trickle(POLICY, "run", seed=3) for _ in range(2))
    now = NOMINAL_START
    assert [one.build_next(now) for _ in range(50)] == [other.build_next(now) for _ in range(50)]


def test_spans_read_well() -> None:
    spans = [
        timedelta(milliseconds=3.2),
        timedelta(seconds=12.5),
        timedelta(minutes=41),
        timedelta(hours=5, minutes=12),
    ]
    assert [describe_span(span) for span in spans] == ["3 ms", "12.5 s", "41 min", "5 h 12 min"]


# ---- as people start it


@pytest.mark.parts
def test_sla_up_demo_shows_what_happens_and_ends_cleanly(tmp_path: Path) -> None:
    environment = clean_environment(SLA_NATS_PORT="0", SLA_HTTP_PORT="0")
    with demo(tmp_path, environment, subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = seen(process.stdout.fileno(), ("breach  ", "breach withdrawn", "late answer", "metrics ", "bus "))
        address = read_run_file(tmp_path / "data")
        subjects = announced(address)
        nats_server = children(process.pid)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    breach = next(line for line in lines if "breach  " in line)
    ticket = breach.split()[2]
    assert any(subject.endswith(f".{ticket}") for subject in subjects["breached"] + subjects["breached_historic"])
    assert {"warning", "breached", "fulfilled", "breach_retracted"} <= set(subjects)
    assert process.returncode == 0
    assert "stopped" in rest.decode()
    assert b"Traceback" not in errors
    assert b'"level": "info"' not in errors
    assert b"\x1b" not in rest
    assert nats_server
    assert not [pid for pid in nats_server if Path(f"/proc/{pid}").exists()]


@pytest.mark.parts
def test_a_reader_that_leaves_ends_it_cleanly(tmp_path: Path) -> None:
    environment = clean_environment(SLA_NATS_PORT="0", SLA_HTTP_PORT="0")
    with demo(tmp_path, environment, subprocess.PIPE) as process:
        assert process.stdout is not None
        seen(process.stdout.fileno(), ("metrics ",))
        process.stdout.close()
        assert process.wait(15) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parts
def test_on_a_terminal_the_summary_stays_in_its_place_and_sigterm_ends_it(tmp_path: Path) -> None:
    environment = clean_environment(SLA_NATS_PORT="0", SLA_HTTP_PORT="0", TERM="xterm", NO_COLOR="")
    ours, theirs = pty.openpty()
    with demo(tmp_path, environment, theirs) as process:
        os.close(theirs)
        lines = seen(ours, ("breach  ", "\r\x1b[K", " open, "))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    os.close(ours)
    assert any("\x1b[31m" in line for line in lines), "breaches are red"


@contextmanager
def demo(folder: Path, environment: dict[str, str], stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [SLA, "up", "--demo", "--data", folder / "data"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:  # a test has failed: its nats-server is to end as well
                process.terminate()


def seen(file: int, wanted: Iterable[str], within: float = 40.0) -> list[str]:
    """The lines read until all the wanted texts were in them."""
    text, give_up = "", time.monotonic() + within
    while any(each not in text for each in wanted):
        assert time.monotonic() < give_up, text
        if select.select([file], [], [], 0.2)[0]:
            chunk = os.read(file, 65536)
            assert chunk, f"it ended: {text}"
            text += chunk.decode()
    return text.splitlines()


def announced(address: str) -> dict[str, list[str]]:
    """The subjects of the stream SLA by kind, without those of answers in time."""

    async def read_all() -> dict[str, list[str]]:
        nc = await nats.connect(address)
        found: dict[str, list[str]] = defaultdict(list)
        subscription = await nc.jetstream().subscribe("sla.>", stream="SLA", ordered_consumer=True)
        for _ in range((await nc.jetstream().stream_info("SLA")).state.messages):
            message = await subscription.next_msg(timeout=5)
            data = json.loads(message.data)["data"]
            assert parse_time(data["detected_at"]) <= datetime.now(UTC)
            if data.get("met") is not True:
                found[message.subject.split(".")[1]].append(message.subject)
        await nc.close()
        return found

    return asyncio.run(read_all())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# ---- judging in memory


class Judged:
    """Takes planned messages at their instants, and ticks whenever a ticket asks for one."""

    def __init__(self, policy: Policy) -> None:
        self._versions = Versions.only(policy)
        self._engine = Engine(self)
        self._digests: dict[bytes, bytes] = {}
        self._ticks: list[tuple[datetime, str]] = []
        self._sequence = 0
        self.outcomes: Counter[str] = Counter()
        self.by_ticket: dict[str, list[Announced]] = defaultdict(list)
        self.told: list[Announced] = []
        self.dead: list[Any] = []

    def feed(self, planned: Iterable[Planned]) -> None:
        """What is fed together is stored together, before any tick."""
        now = None
        for at, message in planned:
            if now is not None and at > now:
                self.tick(until=at)
            self._take(at, message.subject, message.headers, message.body)
            now = at
        if now is not None:
            self.tick(until=now + timedelta(minutes=1))

    def tick(self, until: datetime) -> None:
        while self._ticks and self._ticks[0][0] + SLACK <= until:
            at, token = heappop(self._ticks)
            self._take(at + SLACK, f"clock.due.{token}", None, b"")

    def _take(self, at: datetime, subject: str, headers: dict[str, str] | None, body: bytes) -> None:
        self._sequence += 1
        outcome: BatchOutcome = self._engine.process([Message(self._sequence, at, subject, headers, body)])
        for row in outcome.inbox:
            self.outcomes[row.outcome] += 1
            if row.key is not None and row.digest is not None:
                self._digests[row.key] = row.digest
        self.dead += outcome.dead
        for recorded in outcome.events:
            if isinstance(recorded.event, Announced):
                self.told.append(recorded.event)
                self.by_ticket[recorded.originator_id].append(recorded.event)
            next_at = getattr(getattr(recorded.event, "state", None), "next_at", None)
            if next_at is not None:
                heappush(self._ticks, (max(next_at, at), recorded.originator_id))

    def load_tickets(self, tickets: Iterable[str]) -> dict[str, TicketSla]:
        return {}

    def read_digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: self._digests[key] for key in keys if key in self._digests}

    def read_versions(self) -> Versions:
        return self._versions


def judged(planned: Iterable[Planned], policy: Policy = POLICY) -> Judged:
    found = Judged(policy)
    found.feed(planned)
    return found


def as_they_stand() -> list[Outgoing]:
    """The lines of the file as messages, with their extension attributes."""
    return [
        Outgoing(
            f"tickets.{line['type'].removeprefix('ticket.')}.{line['subject']}",
            {"Content-Type": "application/cloudevents+json"},
            json.dumps(line).encode(),
        )
        for line in read_bundled()
    ]


def names(planned: Iterable[Planned]) -> set[str]:
    events: list[DemoEvent] = [json.loads(each.message.body) for each in planned]
    return {event["id"] for event in events} | {event["subject"] for event in events}


def time_of(message: Outgoing) -> datetime:
    return parse_time(json.loads(message.body)["time"])
