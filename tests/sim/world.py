"""One simulated run: processes that die and pause, publishers that repeat and are late, a clock that jumps."""

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import count
from pathlib import Path
from random import Random
from sqlite3 import OperationalError
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from eventsourcing.persistence import OperationalError as Unavailable

from events.promises import make_event_id
from events.times import from_microseconds, to_microseconds
from projections import runner as following
from projections.registry import PROJECTIONS
from services import faults
from services.announcer import Announcer
from services.bus.publisher import EXPECTED_ID_HEADER, EXPECTED_SEQUENCE_HEADER, ID_HEADER, Outgoing
from services.bus.streams import SLA, TICKETS
from services.clock import DeadlineTimer
from services.errors import BUS_ERRORS, FatalError, StoreError
from services.intake import Intake
from services.metrics import Metrics
from services.runtime.service import Service
from services.runtime.supervisor import Supervisor
from services.store.schema import ANNOUNCER_CHECKPOINT
from services.store.sqlite import FileLeases, SqliteFile, SqliteStore
from sla.engine import BatchOutcome, Engine, Limits, Message, OwnFaultError
from sla.versions import AFTER_ALL, BEFORE_ALL
from tests.scenarios.scenario import Fact
from tests.sim.bus import Broker, SimBus, Stored
from tests.sim.loop import Crashed, SimLoop
from tests.support.judge_oracle import Truth, find_truth
from tests.support.memory import POLICY, make_edited_policy

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=n) for n in (1, 60, 3600, 86400))
MICROSECOND = timedelta(microseconds=1)
PAUSES = (0.1, 1, 5)  # seconds for which a process stands still
SERVICES = ("intake", "clock", "announcer", "metrics")
OUTAGES = (*BUS_ERRORS, StoreError, OperationalError, Unavailable)  # that are simulated: any other is a fault of ours
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
STARTS = (
    "2025-12-22 07:00",
    "2026-03-27 12:00",
    "2026-04-01 09:00",
    "2026-06-17 16:00",
    "2026-10-23 20:00",
    "2026-11-16 08:00",
)
STEPS = {  # how often each happens
    "publish": 40,
    "again": 8,
    "bad": 5,
    "wait": 25,
    "jump": 6,
    "near": 8,
    "kill": 3,
    "arm": 4,
    "pause": 2,
    "steal": 2,
    "restart": 1,
    "rebuild": 1,
    "foreign": 4,
    "garbage": 3,
    "oversleep": 1,
    "copy": 2,
    "restore store": 1,
    "fail over": 1,
    "restore SLA": 1,
}
KINDS = {  # how often each happens, once a ticket is opened
    "opened": 2,
    "priority_changed": 6,
    "responded": 5,
    "escalated": 4,
    "service_level_changed": 2,
    "closed": 2,
    "reopened": 2,
    "excluded": 1,
    "exclusion_revoked": 1,
    "paused": 1,
    "resumed": 1,
    "corrected": 2,
    "fact_withdrawn": 2,
    "policy_changed": 1,
}
LEVELS, PRIORITIES = ("foundation", "professional", "enterprise"), ("critical", "serious", "minor")

_running: ContextVar["SimProcess"] = ContextVar("running")


@dataclass(frozen=True)
class Sent:
    """What a message of a publisher is: a fact of a ticket, or why it must be refused."""

    ticket: str
    fact: Fact
    refused: str | None = None


def _drop_expectations(message: Outgoing) -> Outgoing:
    """The message as a stranger would copy it: without what the broker would hold against it."""
    expected = (EXPECTED_ID_HEADER, EXPECTED_SEQUENCE_HEADER)
    return message._replace(headers={name: text for name, text in message.headers.items() if name not in expected})


@cache
def _migrated() -> bytes:
    """An empty store, made once and copied for each run."""
    with TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "sla.db"
        SqliteFile(path).migrate(PROJECTIONS)
        with closing(SqliteStore(path)) as store:
            store.publish_policy(POLICY, lambda: BEFORE_ALL)
        return path.read_bytes()


class FaultyEngine(Engine):
    """Now and then a batch meets a fault of the engine when it is done, and none of its messages alone does."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.store, Limits())
        self._world = world

    def process(self, messages: Sequence[Message], progress: Callable[[], None] = lambda: None) -> BatchOutcome:
        outcome = super().process(messages, progress)
        if len(messages) > 1 and self._world.rng.random() < self._world.crashes:
            self._world.seen["batch failed"] += 1
            raise OwnFaultError("injected", is_judging=True)
        return outcome


class SimLock:
    """A role's lock: its holder loses it when it dies, and may lose it without noticing, as a paused one does."""

    def __init__(self, held: dict[str, "SimProcess"], role: str, process: "SimProcess") -> None:
        self._held, self._role, self._process = held, role, process

    def acquire(self) -> bool:
        holder = self._held.get(self._role)
        if holder is None or holder.dead or holder is self._process:
            self._held[self._role] = self._process
        return self._held[self._role] is self._process

    def release(self) -> None:
        if self._held.get(self._role) is self._process and not self._process.dead:
            del self._held[self._role]


class SimProcess:
    """One or more services that live and die together, with a connection and a clock of their own."""

    def __init__(self, world: "World", names: tuple[str, ...]) -> None:
        self.world, self.names, self.dead, self.resume_at = world, names, False, 0.0
        self.skew = world.rng.choice((0, 0, 0, 500, 2_000_000, -1_000, -2_000_000))
        self.bus = SimBus(world.broker, world.rng, self, world.seen)
        self.bus.chance = world.chance
        context = copy_context()
        context.run(_running.set, self)
        self.task = world.loop.create_task(self._run(), context=context)

    async def _run(self) -> None:
        supervisors = [Supervisor(name, partial(self._build, name)) for name in self.names]
        await self.bus.listen_for_nudges(lambda: [supervisor.wake() for supervisor in supervisors])
        try:
            async with asyncio.TaskGroup() as group:
                for supervisor in supervisors:
                    group.create_task(supervisor.run())
        except BaseExceptionGroup as errors:
            if errors.split((FatalError, Crashed))[1]:
                self.world.unexpected.append(repr(errors.exceptions))
            self.world.seen["ended by itself"] += errors.split(FatalError)[0] is not None
        finally:
            self.dead = True

    def _build(self, name: str) -> Service:
        service = self._build_service(name)
        run = service.run

        async def run_watched() -> None:
            try:
                await run()
            except (FatalError, Crashed, *OUTAGES):
                raise
            except Exception as error:
                self.world.unexpected.append(f"{name}: {error!r}")
                raise

        service.run = run_watched  # type: ignore[method-assign]
        return service

    def _build_service(self, name: str) -> Service:
        world, bus = self.world, self.bus
        lock = SimLock(world.locks, name, self)
        match name:
            case "intake":
                intake = Intake(bus, world.store, POLICY, Limits(), FileLeases(lock))
                intake._engine = FaultyEngine(world)
                return intake
            case "clock":
                return DeadlineTimer(bus, world.store, self.now)
            case "announcer":
                return Announcer(bus, world.store, lock)
            case _:
                return Metrics(bus, world.store, POLICY, lock, self.now)

    def now(self) -> int:
        return self.world.now() + self.skew

    def kill(self) -> None:
        self.dead = True
        self.task.cancel()
        if Intake.name in self.names:
            self.world.note_attempts()


class World:
    """Everything there is in one run. `problems` is empty if every promise about promises was kept."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, Random(seed)
        self.seen: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.chance = self.rng.choice((0.0, 0.003, 0.01, 0.03))
        self.crashes = self.rng.choice((0.0, 0.002, 0.01))
        self.loop = SimLoop(self._thread_pause, self._held_up)
        self._offset = to_microseconds(datetime.fromisoformat(f"{self.rng.choice(STARTS)}Z").astimezone(UTC))
        self._offset += self.rng.randrange(3 * 86400) * 1_000_000 + self.rng.randrange(1_000_000)
        self.broker = Broker(self.now)
        self.locks: dict[str, SimProcess] = {}
        self.processes: list[SimProcess] = []
        self.armed: deque[str] = deque()
        self.sent: dict[bytes, Sent] = {}
        self.facts: dict[str, list[Fact]] = {f"T-{n}": [] for n in range(self.rng.choice((1, 2, 3, 4, 5, 40)))}
        self._numbers = count(1)
        self._storage = TemporaryDirectory(dir=MEMORY, prefix="sla-sim-")
        self._stores = (Path(self._storage.name) / f"sla-{number}.db" for number in count())
        path = next(self._stores)
        path.write_bytes(_migrated())
        self.store = SqliteStore(path)
        self._old_stores: list[SqliteStore] = []
        self.copy: bytes | None = None  # of the store, as it was
        self.interrupted: Counter[int] = Counter()  # how often a message was processed alone when an intake was killed
        self.foreign: set[int] = set()  # sequences of what strangers put on SLA
        self.forged: set[str] = set()  # ids of decisions that a stranger used before they were made
        within = timedelta(days=6) * self.rng.random()
        self.edited_at = self.time() + within if self.rng.random() < 0.5 else AFTER_ALL
        self.store.publish_policy(
            replace(make_edited_policy(), effective_from=self.edited_at), self.time, lead=timedelta(0)
        )

    def now(self) -> int:
        """The broker's time: microseconds since 1970."""
        return self._offset + int(self.loop.time() * 1e6)

    def jump(self, by: timedelta) -> None:
        """The clocks on the walls go forward; nobody slept."""
        self._offset += by // MICROSECOND

    def note_attempts(self) -> None:
        """Note which messages were processed alone at this moment."""
        with self.store.read_view() as cursor:
            cursor.execute("SELECT name FROM positions WHERE name LIKE 'intake tries %'")
            self.interrupted.update(int(name.rpartition(" ")[2]) for (name,) in cursor.fetchall())

    # ---- what can go wrong in a process

    def _thread_pause(self) -> float:
        slow = self.rng.random() < self.chance
        return self.rng.expovariate(1 / (0.5 if slow else 0.0002))

    def _held_up(self) -> float | None:
        """Seconds until the work of the current process may be done; None if never, as it is dead."""
        process = _running.get(None)
        if process is None:
            return 0.0
        return None if process.dead else max(0.0, process.resume_at - self.loop.time())

    def reach(self, point: str) -> None:
        """A fault point: the process is killed here, or the store fails, or nothing happens."""
        process = _running.get(None)
        if process is None:
            return
        if process.dead:
            raise Crashed(point)
        killed = bool(self.armed) and self.armed[0] == point
        if killed:
            self.armed.popleft()
        if killed or self.rng.random() < self.crashes:
            self.seen[f"killed at {point}"] += 1
            process.kill()
            raise Crashed(point)
        if self.rng.random() < self.crashes and not point.startswith("publisher"):
            self.seen[f"failed at {point}"] += 1
            raise OperationalError(f"injected at {point}")

    # ---- the run

    def run(self) -> None:
        faults.install(self.reach)
        self.loop.set_exception_handler(lambda *_: None)
        try:
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self._play())
        finally:
            faults.install(None)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.loop.run_until_complete(asyncio.sleep(10))
        for store in (self.store, *self._old_stores):
            store.close()
        self._storage.cleanup()
        self.loop.close()
        asyncio.set_event_loop(None)

    async def _play(self) -> None:
        self._start()
        for _ in range(self.rng.randint(20, 120)):
            await self._step()
            self._supervise(0.3)
        await self._heal()

    def _start(self) -> None:
        together = self.rng.random() < 0.5
        crews = [SERVICES] if together else [(name,) for name in SERVICES]
        if self.rng.random() < 0.5:
            crews += [SERVICES] if self.rng.random() < 0.5 else [(name,) for name in self.rng.sample(SERVICES, 2)]
        self.processes = [SimProcess(self, crew) for crew in crews]

    def _supervise(self, chance: float) -> None:
        """What has died is started again, sooner or later."""
        for place, process in enumerate(self.processes):
            if process.dead and self.rng.random() < chance:
                self.processes[place] = SimProcess(self, process.names)

    async def _step(self) -> None:
        rng = self.rng
        what = rng.choices(
            list(STEPS),
            list(STEPS.values()),
        )[0]
        self.seen[what] += 1
        match what:
            case "publish":
                for _ in range(rng.choice((1, 1, 1, 2, 8, len(self.facts)))):
                    self._publish(self._fact())
            case "again":
                self._publish_again()
            case "bad":
                self._publish(self._bad())
            case "wait":
                await asyncio.sleep(rng.choice((0.0002, 0.002, 0.02, 0.2, 1.0, 3.0)))
            case "jump":
                self.jump(rng.choice((MINUTE, HOUR, 5 * HOUR, DAY, 4 * DAY)) * rng.random())
            case "near":
                await self._near_a_deadline()
            case "kill":
                rng.choice(self.processes).kill()
            case "arm":
                self.armed.append(rng.choice(faults.POINTS))
            case "pause":
                rng.choice(self.processes).resume_at = self.loop.time() + rng.choice(PAUSES)
            case "steal":
                self.locks.pop(rng.choice(SERVICES), None)
            case "restart":
                self.broker.restart()
            case "rebuild":
                self._rebuild()
            case "foreign":
                for _ in range(rng.choice((1, 1, 3))):
                    self._put_foreign()
            case "garbage":
                self._put_garbage()
            case "oversleep":
                await self._oversleep()
            case "copy":
                self.copy = self._copy_store()
            case "restore store":
                self._restore_store(self.copy)
            case "fail over":
                behind = self._copy_store()
                for _ in range(rng.choice((1, 5))):
                    self._publish(self._fact())
                await asyncio.sleep(rng.choice((0.01, 0.1, 1.0)))
                self._restore_store(behind)
            case "restore SLA":
                self._restore_sla()

    def _copy_store(self) -> bytes | None:
        """The store as it is; None as long as the announcer refuses a used SLA beside it."""
        if self.store.read_checkpoint(ANNOUNCER_CHECKPOINT) is None:
            return None
        with closing(sqlite3.connect(":memory:")) as target:
            with closing(sqlite3.connect(self.store.path)) as source:
                source.backup(target)
            return target.serialize()

    def _restore_store(self, copy: bytes | None) -> None:
        """All processes end, and start on the store as it was; the streams are as they are."""
        if copy is None:
            return
        for process in self.processes:
            process.kill()
        self._old_stores.append(self.store)  # what is dead may still look into it
        path = next(self._stores)
        path.write_bytes(copy)
        self.store = SqliteStore(path)

    def _restore_sla(self) -> None:
        """All processes end, and start beside the SLA of an older backup."""
        stream = self.broker.streams[SLA]
        if stream.newest > 1:
            for process in self.processes:
                process.kill()
            stream.cut(self.rng.randrange(1, stream.newest))
            self.foreign = {sequence for sequence in self.foreign if sequence <= stream.newest}

    def _put_foreign(self) -> None:
        """A stranger on SLA: a message of its own, one with the id of a decision to come, a copy of an announcement."""
        rng, stream, ticket = self.rng, self.broker.streams[SLA], self.rng.choice(list(self.facts))
        if self.store.read_checkpoint(ANNOUNCER_CHECKPOINT) is None:
            return  # the announcer would refuse SLA
        id = make_event_id(ticket, "first_response", 1, rng.choice(("applied", "breached")), 1, 1)
        body = msgspec.json.encode({"id": id, "data": {"detected_at": self.time()}})
        foreign = [
            Outgoing("sla.hello", {}, b"hello"),
            Outgoing("sla.hello", {"": "", ID_HEADER: f"hello-{stream.newest}"}, b"{"),
            Outgoing(f"sla.applied.enterprise.critical.{ticket}", {ID_HEADER: id}, b"{}"),
            Outgoing(f"sla.applied.other.other.{ticket}", {ID_HEADER: id}, body),
            *(Outgoing(each.subject, each.headers, each.body) for each in stream.messages[-5:]),
        ]
        stored = stream.put(_drop_expectations(rng.choice(foreign)))
        if not stored.duplicate:
            self.foreign.add(stored.sequence)
            self.forged.add(id)

    def _put_garbage(self) -> None:
        """A stranger on TICKETS: what nobody can read, and ticks that nobody sent."""
        ticket, body = self.rng.choice(list(self.facts)), b"\xff\x00 %d" % next(self._numbers)
        subject = self.rng.choice(
            (f"tickets.opened.{ticket}", "tickets.*.>", "tickets.hello.$JS", f"clock.due.{ticket}")
        )
        headers = self.rng.choice(({}, {"": "\x00"}, {"Nats-Expected-Stream": "SLA", "Sla-Sequence": "1"}))
        self.sent[body] = replace(self._fact(), refused="malformed")
        self.broker.streams[TICKETS].put(Outgoing(subject, headers, body))

    async def _oversleep(self) -> None:
        """An intake is paused over a bad message; another one has its role for longer than the broker knows an id."""
        self._publish(self._bad())
        await asyncio.sleep(self.rng.choice((0.0005, 0.002, 0.005)))
        if owner := self.locks.pop("intake", None):
            owner.resume_at = self.loop.time() + PAUSES[-1]
            await asyncio.sleep(PAUSES[-1] / 2)
            self.jump(2 * DAY)
            await asyncio.sleep(PAUSES[-1] / 2)

    def read_announcements(self) -> list[Stored]:
        """What the engine has put on SLA."""
        return [each for each in self.broker.streams[SLA].messages if each.sequence not in self.foreign]

    def _rebuild(self) -> None:
        for _ in following.rebuild(self.store, self.rng.choice(PROJECTIONS)):
            pass

    async def _near_a_deadline(self) -> None:
        """The clock stands just before a deadline, and passes it while everybody works."""
        dues = [
            found.due_at for ticket in self.facts if (found := self.truth(ticket)).stage == "running" and found.due_at
        ]
        ahead = [at for at in dues if at > self.time()]
        if ahead:
            before = self.rng.choice((MICROSECOND, SECOND / 1000, SECOND / 10))
            self.jump(max(timedelta(0), min(ahead) - before - self.time()))
            await asyncio.sleep(self.rng.choice((0.001, 0.3)))

    def time(self) -> datetime:
        return from_microseconds(self.now())

    def truth(self, ticket: str) -> Truth:
        return find_truth(self.facts[ticket], self.time(), edited_at=self.edited_at)

    async def _heal(self) -> None:
        """Nothing fails any more; what is dead is started; long after every deadline all must be done."""
        self.chance = self.crashes = 0.0
        self.armed.clear()
        for process in self.processes:
            process.resume_at, process.bus.chance, process.skew = 0.0, 0.0, 0
        self._supervise(1.1)
        self.jump(20 * DAY)
        give_up = self.loop.time() + 400
        while not (done := self.drained()) and self.loop.time() < give_up:
            self._supervise(1.1)
            await asyncio.sleep(0.5)
        if not done:
            self.unexpected.append("stuck: " + self.standing())

    def drained(self) -> bool:
        """Every backlog is empty, and no instant waits for its judgement."""
        head, taken = self.store.read_head(), self.store.read_committed_sequence()
        with self.store.read_view() as cursor:
            cursor.execute("SELECT count(*) FROM deadlines WHERE at <= ?", (self.now(),))
            due = cursor.fetchone()[0]
            cursor.execute("SELECT max(sequence) FROM inbox")
            arrived = cursor.fetchone()[0] or 0
        at_head = all(
            self.store.read_checkpoint(name) == head
            for name in ("announcements", "deadlines", "promises", "compliance")
        )
        return (
            at_head
            and not due
            and taken == self.broker.streams[TICKETS].newest
            and self.store.read_checkpoint("arrivals") == arrived
        )

    def standing(self) -> str:
        names = ("intake", "announcements", "deadlines", "promises", "compliance", "arrivals")
        positions = {name: self.store.read_checkpoint(name) for name in names}
        problems = [(process.names, process.dead) for process in self.processes]
        return f"log {self.store.read_head()}, stream {self.broker.streams[TICKETS].newest}, {positions}, {problems}"

    # ---- the publishers

    def _publish(self, sent: Sent | None) -> None:
        if sent is not None:
            subject, headers, body = sent.fact.message(sent.ticket)
            self._put(subject, headers, body, sent)

    def _put(self, subject: str, headers: dict[str, str], body: bytes, sent: Sent) -> None:
        if sent.refused == "malformed":
            body = b"{" + body
        if sent.refused == "wrong_subject":
            subject += "-other"
        if sent.refused is None and not any(fact.id == sent.fact.id for fact in self.facts[sent.ticket]):
            self.facts[sent.ticket].append(sent.fact)
        self.sent[body] = sent
        for _ in range(self.rng.choice((1, 1, 1, 1, 2))):  # an acknowledgement was lost, so it is sent again
            self.broker.streams[TICKETS].put(Outgoing(subject, headers, body))

    def _publish_again(self) -> None:
        """The same bytes once more, long after every window."""
        stored = [each for each in self.broker.streams[TICKETS].messages if each.body]
        if stored:
            old = self.rng.choice(stored)
            self.broker.streams[TICKETS].put(Outgoing(old.subject, old.headers, old.body))

    def _fact(self) -> Sent:
        rng = self.rng
        ticket = rng.choice(list(self.facts))
        opened = any(fact.kind == "opened" for fact in self.facts[ticket])
        kind = rng.choices(list(KINDS), [24 if kind == "opened" and not opened else n for kind, n in KINDS.items()])[0]
        data = {}
        if kind == "opened":
            data = {"service_level": rng.choice(LEVELS), "priority": rng.choice(PRIORITIES)}
        elif kind == "priority_changed":
            data = {"priority": rng.choice(PRIORITIES)}
        elif kind == "service_level_changed":
            data = {"service_level": rng.choice(LEVELS)}
        elif kind in ("excluded", "exclusion_revoked"):
            data = {"reason": rng.choice(("third_party", "basic_training"))}
        elif kind in ("paused", "resumed") and rng.random() < 0.5:
            data = {"reason": rng.choice(("waits for the customer", "waits for a supplier"))}
        elif kind == "policy_changed":
            data = {"policy_version": rng.choice((POLICY.version, make_edited_policy().version))}
        elif kind == "corrected":
            data = self._correction(ticket)
        elif kind == "fact_withdrawn":
            data = {"withdraws": rng.choice([str(fact.id) for fact in self.facts[ticket]] or ["f0"])}
        elif kind == "responded" and rng.random() < 0.2:
            data = {"by": "automation"}
        sequence = rng.choice((None, None, None, "1", "10", "9"))
        fact = Fact(
            kind, data, self._when(ticket), self.time(), f"f{next(self._numbers)}", rng.choice(("/a", "/b")), sequence
        )
        return Sent(ticket, fact)

    def _correction(self, ticket: str) -> dict[str, Any]:
        """Of a fact of this ticket, most often by another source; what it says may not be for that kind of fact."""
        rng = self.rng
        known = [fact.id for fact in self.facts[ticket] if fact.kind != "corrected"]
        right: dict[str, Any] = {
            "priority": rng.choice(PRIORITIES),
            "service_level": rng.choice(LEVELS),
            "by": rng.choice(("agent", "automation")),
            "time": min(self._when(ticket), self.time()).isoformat(),
        }
        names = rng.sample(list(right), rng.randint(1, 3))
        return {"corrects": rng.choice(known or ["f0"])} | {name: right[name] for name in names}

    def _when(self, ticket: str) -> datetime:
        """When it happened: now, a while ago, a little ahead; at an instant that matters, or just beside it."""
        rng, now = self.rng, self.time()
        if rng.random() < 0.25:
            found = self.truth(ticket)
            told = [fact.time for fact in self.facts[ticket]]
            instants = [found.due_at, found.started_at, found.responded_at, self.edited_at, *told]
            near = [at for at in instants if at is not None and at <= now + 4 * MINUTE]
            if near:
                return rng.choice(near) + rng.choice((0, 0, 1, -1)) * MICROSECOND
        span = rng.choice((0 * HOUR, 0 * HOUR, MINUTE, HOUR, 6 * HOUR, 2 * DAY, -4 * MINUTE))
        return now - span * rng.random()

    def _bad(self) -> Sent:
        sent = self._fact()
        reason = self.rng.choice(("malformed", "wrong_subject", "unknown_priority", "time_in_future", "id_conflict"))
        match reason:
            case "unknown_priority":
                fact = replace(sent.fact, kind="priority_changed", data={"priority": "urgent"})
                return Sent(sent.ticket, fact, reason)
            case "time_in_future":
                return Sent(sent.ticket, replace(sent.fact, time=self.time() + HOUR), reason)
            case "id_conflict":
                return self._conflict() or Sent(sent.ticket, sent.fact, "malformed")
            case _:
                return Sent(sent.ticket, sent.fact, reason)

    def _conflict(self) -> Sent | None:
        """An id that is taken, with another time: whichever is stored first stays, and this one is second."""
        taken = [(ticket, fact) for ticket, facts in self.facts.items() for fact in facts]
        if not taken:
            return None
        ticket, fact = self.rng.choice(taken)
        return Sent(ticket, replace(fact, time=fact.time - SECOND, sequence="2"), "id_conflict")
