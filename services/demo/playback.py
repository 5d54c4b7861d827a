"""`sla up --demo`: publish a bundled day of three helpdesks, then a steady trickle; show what comes of it. No judging.

`demo.jsonl` holds one CloudEvent a line, of one nominal Wednesday; `python -m services.demo.generate` wrote it. The
real start stands for 14:30 of that day (`NOMINAL_START`). Extension attributes, CloudEvents integers, say what becomes
of an event:

- `demoat`: milliseconds after the start at which it is fed. What is fed at the same time stands together.
- `demoleft`, of an opening: milliseconds of support time that the ticket has left at the start. When it was opened
  follows from that, by searching the support hours of the loaded policy backwards. At night, on a weekend or a holiday
  the clock of a level may stand still, and what should be due within the minute would not be: such a ticket was due
  when its clock stopped, and breaks as soon as it is fed.
- `demobefore`: milliseconds before the deadline of its ticket at which it happened, though we hear of it only now.

Events with neither `demoleft` nor `demobefore` keep their distance from the start. So no fact is dated in the future,
and on the nominal day itself every time stays as it is. Ids and tickets end in the start time (hexadecimal seconds): a
second demo on the same folder is about other tickets.
"""

import asyncio
import contextlib
import os
import random
import shutil
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from queue import Full, Queue
from threading import Thread
from typing import Any, ClassVar, NamedTuple

import msgspec
import structlog
from nats.aio.client import Client

from events.cloudevents import CONTENT_TYPE, encode_token, format_time, parse_time
from events.promises import (
    ANNOUNCEMENT_TYPES,
    SlaApplied,
    SlaBreached,
    SlaBreachRetracted,
    SlaFulfilled,
    SlaTargetChanged,
)
from events.tickets import build_ticket_message
from projections.arrivals import Arrivals
from projections.promises import BROKEN, KEPT, OPEN_STAGES, Promises
from services.bus import connection as bus
from services.bus.publisher import Outgoing, Publisher
from services.bus.reader import StreamReader
from services.bus.streams import DEAD_LETTERS, SLA, TICKETS, read_last_sequence
from services.errors import BUS_ERRORS
from services.runtime.service import Service
from services.store.interface import Database, Store
from services.text.phrases import choose_wording
from sla.calendar import SupportHours, get_zone
from sla.engine import Message
from sla.policy import Level, Policy

log = structlog.get_logger()

DemoEvent = dict[str, Any]

NOMINAL_START = datetime(2026, 3, 18, 13, 30, tzinfo=UTC)  # Wednesday 14:30 in Stockholm: all levels are open
SOON = timedelta(minutes=1)  # a ticket with at most this left is meant to break while somebody watches
SEED = 20260318
TRICKLE_EVERY = 2.0  # seconds
MOST_OPEN = 40  # tickets of the trickle without an answer
REMEMBERED = 1_000  # tickets of which the display knows when the engine learned of their deadline
DEAD_LETTERS_SHOWN = 5
SOURCES = {"NK": "/helpdesk/nordkraft", "HV": "/helpdesk/havsvik", "FB": "/crm/fjallbank"}

_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_ZERO = timedelta(0)


# ---- the day


class Planned(NamedTuple):
    """A message, and the instant from which on it may be fed; no fact in it is dated later."""

    at: datetime
    message: Outgoing


def read_bundled() -> list[DemoEvent]:
    """Return the day as it is in the file."""
    text = files("services.demo").joinpath("demo.jsonl").read_text(encoding="utf-8")
    return [msgspec.json.decode(line) for line in text.splitlines()]


def make_run_id(start: datetime) -> str:
    """Return what the ids of one run end in: eight hexadecimal digits, other ones each second."""
    return f"{int(start.timestamp()):08x}"


def plan_feed(events: Sequence[DemoEvent], policy: Policy, start: datetime) -> list[Planned]:
    """Return the events as they are fed from `start` (UTC) on, in that order."""
    openings = {event["subject"]: event for event in reversed(events) if event["type"] == "ticket.opened"}
    planned = [
        Planned(
            start + event["demoat"] * _MILLISECOND,
            build_demo_message(event, find_event_time(event, openings, policy, start), make_run_id(start)),
        )
        for event in events
    ]
    return sorted(planned, key=lambda each: each.at)


def find_opening_before(hours: SupportHours, used: timedelta, now: datetime) -> datetime:
    """Return the latest instant from which `used` support time was counted until `now`: the inverse of `measure`."""
    if used <= _ZERO:
        return now
    step = used
    while hours.measure(now - step, now) < used:
        step *= 2
    enough, too_little = step // _MICROSECOND, 0  # microseconds before now
    while enough - too_little > 1:
        middle = (enough + too_little) // 2
        if hours.measure(now - middle * _MICROSECOND, now) < used:
            too_little = middle
        else:
            enough = middle
    return now - enough * _MICROSECOND


def find_opening_with(left: timedelta, level: Level, priority: str, now: datetime) -> datetime:
    """
    Return when a ticket was opened that has so much of its target left now; if its clock stands still, see `demoleft`.
    """
    target = level.targets[priority]
    if _ZERO < left <= SOON and target.hours.measure(now, now + left) < left:
        left = _ZERO
    return find_opening_before(target.hours, target.measure(now) - left, now)


def find_event_time(event: DemoEvent, openings: Mapping[str, DemoEvent], policy: Policy, start: datetime) -> datetime:
    opening = openings.get(event["subject"], event)
    promise = _find_promise(opening, policy)
    if promise is not None and "demoleft" in event:
        return find_opening_with(event["demoleft"] * _MILLISECOND, *promise, start)
    if promise is not None and "demobefore" in event:
        level, priority = promise
        before: timedelta = event["demobefore"] * _MILLISECOND
        return level.targets[priority].find_due(find_event_time(opening, openings, policy, start)) - before
    return parse_time(event["time"]) + (start - NOMINAL_START)


def _find_promise(opening: DemoEvent, policy: Policy) -> tuple[Level, str] | None:
    """Return level and priority of a ticket; None if this policy does not have them, and it ends as a dead letter."""
    level, priority = policy.levels.get(opening["data"].get("service_level")), opening["data"].get("priority")
    return None if level is None or priority not in level.targets else (level, priority)


def build_demo_message(event: DemoEvent, time: datetime, run: str) -> Outgoing:
    ticket = f"{event['subject']}-{run}"
    plain = {name: value for name, value in event.items() if not name.startswith("demo")}
    plain |= {"id": f"{event['id']}-{run}", "subject": ticket, "time": format_time(time)}
    subject = f"tickets.{event['type'].removeprefix('ticket.')}.{encode_token(ticket)}"
    return Outgoing(subject, {"Content-Type": CONTENT_TYPE}, msgspec.json.encode(plain))


# ---- the trickle


class _OpenTicket(NamedTuple):
    ticket: str
    source: str
    level: Level


class Trickle:
    """Ticket events without end, the same ones for the same seed, with the names of the loaded policy."""

    def __init__(self, policy: Policy, run: str, seed: int = SEED) -> None:
        self._policy, self._run, self._random = policy, run, random.Random(seed)
        self._open: deque[_OpenTicket] = deque()
        self._number = 0

    def build_next(self, now: datetime) -> Outgoing:
        """Return the next event, not dated later than `now` (UTC)."""
        self._number += 1
        if len(self._open) >= MOST_OPEN:
            return self._build_event(self._open.popleft(), now, "ticket.responded", {"by": "agent", "channel": "email"})
        chance = self._random.random()
        if chance < 0.45 or not self._open:
            return self._build_opening(now)
        ticket = self._random.choice(self._open)
        if chance < 0.80:
            self._open.remove(ticket)
            return self._build_event(ticket, now, "ticket.responded", {"by": "agent", "channel": "email"})
        if chance < 0.87:
            return self._build_event(ticket, now, "ticket.responded", {"by": "automation"})
        if chance < 0.94:
            priority = self._random.choice(list(ticket.level.targets))
            return self._build_event(ticket, now, "ticket.priority_changed", {"priority": priority})
        return self._build_event(
            ticket, now, "ticket.escalated", {"reason": "The customer asked when somebody will answer."}
        )

    def _build_opening(self, now: datetime) -> Outgoing:
        """Build an opening. Every third one comes from a system that was slow to publish: it has only seconds left."""
        slow = self._random.random() < 1 / 3
        levels = [level for level in self._policy.levels.values() if level.targets]
        if slow:
            levels = [level for level in levels if level.hours.is_open(now)] or levels
        level = self._random.choice(levels)
        priority = self._random.choice(list(level.targets))
        left = timedelta(seconds=self._random.uniform(3, 30)) if slow else level.targets[priority].measure(now)
        prefix, source = self._random.choice(list(SOURCES.items()))
        ticket = _OpenTicket(f"{prefix}-{900_000 + self._number}-{self._run}", source, level)
        self._open.append(ticket)
        data = {"service_level": level.name, "priority": priority, "channel": "portal"}
        return self._build_event(ticket, find_opening_with(left, level, priority, now), "ticket.opened", data)

    def _build_event(self, ticket: _OpenTicket, time: datetime, event_type: str, data: Mapping[str, str]) -> Outgoing:
        event_id = f"trickle-{self._number}-{self._run}"
        return Outgoing(
            *build_ticket_message(
                event_type, ticket.ticket, source=ticket.source, event_id=event_id, time=time, data=data
            )
        )


# ---- the display


class Display:
    """
    Lines on stdout, above a status line if it is a terminal; colours only there, and not with NO_COLOR. A thread
    writes, so that a reader that has stopped reading never stops the engine: lines are left out. `on_closed` is called
    when nobody can read any more.
    """

    COLOURS: ClassVar[dict[str, str]] = {"red": "31", "green": "32", "yellow": "33", "grey": "90"}

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed, self._loop = on_closed, asyncio.get_running_loop()
        self._file = sys.stdout.fileno()
        self.is_terminal = os.isatty(self._file) and os.environ.get("TERM") != "dumb"
        self._coloured = self.is_terminal and not os.environ.get("NO_COLOR")
        self._queue: Queue[tuple[str, str] | None] = Queue(1_000)
        self._thread = Thread(target=self._write, name="display", daemon=True)
        self._thread.start()

    def print_line(self, text: str, colour: str | None = None) -> None:
        """Print a line that stays."""
        if colour is not None and self._coloured:
            text = f"\x1b[{self.COLOURS[colour]}m{text}\x1b[0m"
        self._put((f"{text}\n", ""))

    def show_status(self, text: str) -> None:
        """Show the status line from now on, on a terminal; else print a line like others."""
        self._put(("", text) if self.is_terminal else (f"{text}\n", ""))

    def close(self) -> None:
        """Write what is left, within a second."""
        self._put(None)
        self._thread.join(1.0)

    def _put(self, item: tuple[str, str] | None) -> None:
        with contextlib.suppress(Full):
            self._queue.put_nowait(item)

    def _write(self) -> None:
        encoding, status = sys.stdout.encoding or "utf-8", ""
        try:
            while item := self._queue.get():
                text, status = item[0], item[1] or status
                if self.is_terminal:
                    text = f"\r\x1b[K{text}{status[: shutil.get_terminal_size().columns - 1]}"
                rest = text.encode(encoding, "backslashreplace")
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            if self.is_terminal:
                os.write(self._file, b"\n")
        except OSError:
            with contextlib.suppress(RuntimeError):  # the loop has ended before us
                self._loop.call_soon_threadsafe(self._on_closed)


def describe_span(span: timedelta) -> str:
    """Format a span for people: `3 ms`, `12.5 s`, `41 min`, `5 h 12 min`."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


class Reporter:
    """From announcements to lines. It knows when the engine learned of a deadline, of as many tickets as matter."""

    def __init__(self, policy: Policy) -> None:
        self._zone = get_zone(policy.zone)
        self._learned: OrderedDict[str, datetime] = OrderedDict()

    def format_line(self, message: Message) -> tuple[str, str] | None:
        """Return the line for a message of SLA and its colour; None for those that are only counted."""
        body = msgspec.json.decode(message.body)
        data = ANNOUNCEMENT_TYPES[body["type"]].model_validate_json(msgspec.json.encode(body["data"]))
        match data:
            case SlaApplied() | SlaTargetChanged():
                self._remember(data.ticket_id, data.detected_at)
                return None
            case SlaBreached():
                known = max(data.breached_at, self._learned.get(data.ticket_id, data.breached_at))
                note = "" if data.detection == "live" else f", {data.detection}"
                noticed = f"noticed after {describe_span(data.detected_at - known)}{note}"
                return self._format_row(data, f"due {self._format_local(data.due_at)}, {noticed}"), "red"
            case SlaBreachRetracted():
                return self._format_row(data, data.reason.replace("_", " ")), "green"
            case SlaFulfilled(met=False):
                late = timedelta(seconds=data.overdue_seconds)
                how = (
                    f"{describe_span(late)} of support time too late" if late else "too late, while support was closed"
                )
                return self._format_row(data, f"due {self._format_local(data.due_at)}, answered {how}"), "yellow"
            case _:  # its wording has no label
                return None

    def format_now(self) -> str:
        """Return the time of day where the policy is."""
        return datetime.now(self._zone).strftime("%H:%M:%S")

    def _remember(self, ticket: str, at: datetime) -> None:
        self._learned[ticket] = at
        self._learned.move_to_end(ticket)
        if len(self._learned) > REMEMBERED:
            self._learned.popitem(last=False)

    def _format_row(self, data: SlaBreached | SlaBreachRetracted | SlaFulfilled, text: str) -> str:
        label, promise = choose_wording(data).label or "", f"{data.service_level} {data.priority}"
        return f"{self.format_now()} {label:<16}  {data.ticket_id:<18}  {promise:<21}  {text}"

    def _format_local(self, at: datetime) -> str:
        local, today = at.astimezone(self._zone), datetime.now(self._zone).date()
        return local.strftime("%H:%M:%S" if local.date() == today else "%a %d %b %H:%M:%S")


# ---- the service


async def play(
    url: str, database: Database, policy: Policy, welcome: Iterable[str], on_closed: Callable[[], None]
) -> None:
    """
    Feed and show until it is cancelled. `welcome` stands at the top; `on_closed` is called when nobody can read any
    more.
    """
    display = Display(on_closed)
    for line in welcome:
        display.print_line(line)
    nc = await bus.connect(url, "demo")
    store = await asyncio.to_thread(database.open)
    demo = Demo(nc, store, policy, display)
    try:
        await demo.run()
    finally:
        await demo.stop()
        store.close()
        await nc.close()
        display.print_line("stopped; the data stays, and the next start goes on with it")
        display.close()


class Demo(Service):
    """Publishes as any helpdesk does, and listens as any subscriber does; the figures come from the projections."""

    name: ClassVar[str] = "demo"

    def __init__(self, nc: Client, store: Store, policy: Policy, display: Display) -> None:
        super().__init__()
        self._nc, self._store, self._policy, self._display = nc, store, policy, display
        self._publisher = Publisher(nc, TICKETS)
        self._reporter = Reporter(policy)
        self._promises, self._arrivals = Promises(), Arrivals()
        self._dead_letters = 0

    async def run(self) -> None:
        announcements = StreamReader(self._nc, SLA, await read_last_sequence(self._nc, SLA))
        dead_letters = StreamReader(self._nc, DEAD_LETTERS, await read_last_sequence(self._nc, DEAD_LETTERS))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(announcements, self._handle_announcement))
            group.create_task(self._listen(dead_letters, self._handle_dead_letter))
            group.create_task(self._show_summary())
            group.create_task(self._feed())

    async def _feed(self) -> None:
        start = datetime.now(UTC)
        for at, messages in group_by_instant(plan_feed(read_bundled(), self._policy, start)):
            await sleep_until(at)
            await self._publish(messages)
        self._display.print_line(
            f"{self._reporter.format_now()} the bundled day is told; now an event every {TRICKLE_EVERY:g} s", "grey"
        )
        trickle = Trickle(self._policy, make_run_id(start))
        while True:
            await asyncio.sleep(TRICKLE_EVERY)
            await self._publish([trickle.build_next(datetime.now(UTC))])

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish until the broker has stored them: a fact that is sent twice counts once."""
        while True:
            try:
                await self._publisher.publish(messages)
                return
            except BUS_ERRORS as error:
                log.warning("waiting", service=self.name, reason=str(error) or type(error).__name__)
                await asyncio.sleep(1.0)

    async def _listen(self, reader: StreamReader, show: Callable[[Message], None]) -> None:
        while True:
            try:
                for message in await reader.read_batch():
                    show(message)
            except BUS_ERRORS as error:
                log.warning("waiting", service=self.name, reason=str(error) or type(error).__name__)
                await asyncio.sleep(1.0)

    def _handle_announcement(self, message: Message) -> None:
        if found := self._reporter.format_line(message):
            self._display.print_line(*found)

    def _handle_dead_letter(self, message: Message) -> None:
        self._dead_letters += 1
        if self._dead_letters <= DEAD_LETTERS_SHOWN:
            headers = message.headers or {}
            why = f"{headers.get('Sla-Reason')}: {headers.get('Sla-Error')}"
            text = f"{self._reporter.format_now()} {'dead letter':<16}  {why}"
            self._display.print_line(text, "grey")

    async def _show_summary(self) -> None:
        every = 1.0 if self._display.is_terminal else 10.0
        facts = (await self.run_in_thread(self._read_figures))[1]
        while True:
            await asyncio.sleep(every)
            figures, now_facts = await self.run_in_thread(self._read_figures)
            rate = f"{now_facts} facts, {(now_facts - facts) / every:.1f}/s"
            self._display.show_status(f"{self._reporter.format_now()} tickets: {figures} | {rate}")
            facts = now_facts

    def _read_figures(self) -> tuple[str, int]:
        """Return what the projections say of all tickets in the store, and how many facts they know."""
        with self._store.read_view() as cursor:
            promises, at_risk = (
                self._promises.read_counts(cursor),
                self._promises.count_at_risk(cursor, datetime.now(UTC)),
            )
            arrivals = self._arrivals.read_counts(cursor)
        open_ = sum(n for label, n in promises.items() if label.stage in OPEN_STAGES)
        broken = sum(n for label, n in promises.items() if label.kept == BROKEN)
        kept = sum(n for label, n in promises.items() if label.kept == KEPT)
        late = sum(n for label, n in promises.items() if (label.stage, label.kept) == ("fulfilled", BROKEN))
        facts = sum(n for (what, _, outcome, *_), n in arrivals.items() if (what, outcome) == ("fact", "recorded"))
        return f"{open_} open, {at_risk.total()} at risk, {broken} breached | answered: {kept} met, {late} late", facts


def group_by_instant(planned: Sequence[Planned]) -> Iterator[tuple[datetime, list[Outgoing]]]:
    """Group what is fed at the same instant, to be published at once: an answer is there before a tick can be."""
    at, messages = planned[0].at, list[Outgoing]()
    for each in planned:
        if each.at != at:
            yield at, messages
            at, messages = each.at, []
        messages.append(each.message)
    yield at, messages


async def sleep_until(at: datetime) -> None:
    """Sleep by the wall clock, as facts are dated by it."""
    while (left := (at - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - nobody wakes us
        await asyncio.sleep(min(left, 1.0))
