"""Intake: reads TICKETS like a log and persists what follows. No other process writes facts; the rules are in sla/."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import ClassVar, Self

import structlog

from events.cloudevents import Reason
from events.times import to_microseconds
from services.bus.connection import Bus
from services.bus.publisher import Outgoing
from services.bus.streams import DEAD_LETTERS, TICKETS, split_partition
from services.errors import ENVIRONMENT_ERRORS, FatalError
from services.faults import reach
from services.runtime.service import Replication, Service
from services.runtime.setup import Backends, Setup
from services.store.interface import PartitionLeases, Store
from sla.engine import TICK_PREFIX, BatchOutcome, DeadLetter, Engine, Limits, Message
from sla.policy import Policy
from sla.versions import VersionRefusedError

log = structlog.get_logger()

READ_TIMEOUT = 0.9  # seconds after which intake comes round though nothing has arrived: at each heartbeat of the broker
LEASE_CHECK_INTERVAL = 0.5  # seconds between two checks of the leases


class Intake(Service):
    """
    Persists each batch in one transaction, with the events, the inbox rows and the checkpoints: a crash loses and
    doubles nothing.

    It reads the partitions of TICKETS that it holds leases of, all together in the order of the stream, so that they
    have one checkpoint from the first batch on. Other intakes read the rest.
    """

    name: ClassVar[str] = "intake"
    summary: ClassVar[str] = "decides what follows from each ticket event, and stores it"
    streams: ClassVar[tuple[str, ...]] = (TICKETS, DEAD_LETTERS)
    replication: ClassVar[Replication] = Replication.PARTITION_LEASES

    def __init__(
        self,
        bus: Bus,
        store: Store,
        policy: Policy,
        limits: Limits,
        leases: PartitionLeases,
        notice: timedelta = timedelta(0),
    ) -> None:
        super().__init__()
        self._bus, self._store, self._policy, self._leases, self._notice = bus, store, policy, leases, notice
        self._engine = Engine(store, limits)
        self._dead_letters = bus.get_publisher(DEAD_LETTERS)
        self._checkpoints: dict[int, int] = {}  # of the partitions that are read
        self._dead_lettered: set[int] = set()  # messages whose dead letter was published before this batch

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds an intake for the policy of SLA_POLICY_DIR."""
        settings, limits = setup.settings, Limits(setup.settings.max_ahead, setup.settings.historic_after)
        return lambda at: cls(at.bus, at.store, setup.policy, limits, at.find_leases(), settings.policy_notice)

    async def run(self) -> None:
        while True:
            stored = await self.run_in_thread(self._store.read_partitions)
            count = await self.run_to_completion(self._bus.count_partitions(TICKETS))
            if count != len(stored):
                await self._repartition(stored, count)
            elif leased := await self.run_in_thread(self._leases.acquire_fair_share, count):
                await self._read(leased, partial(self._keep_leases, leased, count))
            else:
                await self._stand_by()

    def _keep_leases(self, leased: frozenset[int], count: int) -> bool:
        return self._leases.acquire_fair_share(count) == leased

    async def _stand_by(self) -> None:
        self.record_heartbeat()
        await self.sleep(LEASE_CHECK_INTERVAL)

    async def stop(self) -> None:
        await super().stop()
        await asyncio.to_thread(self._leases.release)  # a store that does not answer must not stop the loop

    async def _repartition(self, stored: Mapping[int, int], count: int) -> None:
        """Take over a new number of partitions: one intake alone processes what was stored before the change."""

        def acquire_all() -> bool:
            return self._leases.acquire_all(max(len(stored), count))

        if not await self.run_in_thread(acquire_all):
            await self._stand_by()
            return
        newest = await self.run_to_completion(self._bus.read_last_sequence(TICKETS))
        await self._read(frozenset(stored), acquire_all, until=newest)
        if self._committed_sequence >= newest:
            await self.run_in_thread(self._store.repartition, count, self._checkpoints)
            log.info("repartitioned", partitions=count, before=len(stored), position=self._committed_sequence)

    # ---- read, process, persist, nudge

    async def _read(self, leased: frozenset[int], keep_leases: Callable[[], bool], until: float = inf) -> None:
        """Read these partitions as long as their leases are held, or until all up to a sequence is committed."""
        self._engine.forget()
        await self.run_in_thread(self._publish_policy)
        await self._check_stream(await self.run_to_completion(self._bus.read_created_at(TICKETS)))
        stored = await self.run_in_thread(self._store.read_partitions)
        self._checkpoints = {number: stored[number] for number in leased}
        self._dead_lettered = await self.run_to_completion(
            self._bus.find_dead_letter_sequences(self._committed_sequence)
        )
        some = sorted(leased) if len(leased) < len(stored) else []
        reader = self._bus.create_reader(TICKETS, self._committed_sequence, some)
        loop_time, check_at = asyncio.get_running_loop().time, 0.0
        try:
            await self.run_to_completion(reader.start())
            while self._committed_sequence < until:
                self.record_heartbeat()
                if loop_time() >= check_at:
                    if not await self.run_in_thread(keep_leases):
                        return
                    check_at = loop_time() + LEASE_CHECK_INTERVAL
                if messages := await reader.read_batch(READ_TIMEOUT):
                    if new := self._select_new(messages):
                        await self.run_to_completion(self._process(new))
                elif some:
                    await self._skip_to(await self.run_to_completion(reader.find_caught_up_sequence()))
        finally:
            await reader.close()

    def _select_new(self, messages: Sequence[Message]) -> list[Message]:
        """
        Return the messages after the checkpoint of their partition, under the subject they were sent to. Checkpoints
        differ if different intakes read the partitions before.
        """
        new = []
        for message in messages:
            number, subject = split_partition(message.subject)
            if message.sequence > self._checkpoints.get(number, 0):
                new.append(message._replace(subject=subject))
        return new

    async def _process(self, messages: Sequence[Message]) -> None:
        """
        Decide and persist what follows from a batch, then nudge; if the batch fails, message by message. Runs to
        completion as a whole, so that its steps need not be shielded again.
        """
        reach("intake.taken")
        started = time.perf_counter()
        try:
            outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._decide, messages)
            if outcome.dead:
                await self._persist(outcome)
        except Exception as error:
            self._engine.forget()
            if isinstance(error, ENVIRONMENT_ERRORS):
                raise
            log.error("batch failed", error=repr(error), messages=len(messages))
            outcome = await self._process_one_by_one(messages)
        if outcome.events:
            await self._bus.nudge()
        log.info(
            "batch",
            messages=len(messages),
            events=len(outcome.events),
            dead_letters=len(outcome.dead),
            position=outcome.last_sequence,
            ms=round((time.perf_counter() - started) * 1000, 1),
        )

    def _decide(self, messages: Sequence[Message]) -> BatchOutcome:
        """Return what follows, committed unless there are dead letters to publish first. Blocks."""
        outcome = self._engine.process(messages)
        if not outcome.dead:
            self._commit(outcome)
        return outcome

    async def _persist(self, outcome: BatchOutcome) -> None:
        """Publish the dead letters, then commit: after a crash between the two, DEAD_LETTERS says which are there."""
        new = [dead for dead in outcome.dead if dead.message.sequence not in self._dead_lettered]
        if new:
            await self._dead_letters.publish([build_dead_letter(dead) for dead in new])
            self._dead_lettered.update(dead.message.sequence for dead in new)
        reach("intake.after_dead_letters")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, outcome)

    def _commit(self, outcome: BatchOutcome) -> None:
        """Commit, and move the checkpoints. Blocks. Raises FencedError if another intake has moved them."""
        reach("intake.before_commit")
        self._store.commit(outcome, self._checkpoints)
        self._checkpoints = {number: max(before, outcome.last_sequence) for number, before in self._checkpoints.items()}
        self._dead_lettered = {sequence for sequence in self._dead_lettered if sequence > self._committed_sequence}
        reach("intake.after_commit")

    @property
    def _committed_sequence(self) -> int:
        """The sequence up to which all that this process reads is committed."""
        return min(self._checkpoints.values())

    async def _skip_to(self, sequence: int) -> None:
        """Move the checkpoints to a sequence up to which these partitions have nothing more."""
        if sequence > self._committed_sequence:
            await self.run_in_thread(self._commit, BatchOutcome(last_sequence=sequence))

    # ---- a batch that fails

    async def _process_one_by_one(self, messages: Sequence[Message]) -> BatchOutcome:
        """Find the message that makes a batch fail, dead-letter it, and let all others through."""
        total = BatchOutcome(last_sequence=messages[-1].sequence)
        for message in messages:
            self.record_heartbeat()
            try:
                outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._decide, [message])
                if outcome.dead:
                    await self._persist(outcome)
            except Exception as error:
                self._engine.forget()
                if isinstance(error, ENVIRONMENT_ERRORS):
                    raise
                log.error("message failed", error=repr(error), sequence=message.sequence, exc_info=True)
                outcome = self._refuse(message, error)
                await self._persist(outcome)
            total.events += outcome.events
            total.dead += outcome.dead
        return total

    def _refuse(self, message: Message, error: Exception) -> BatchOutcome:
        if message.subject.startswith(TICK_PREFIX):
            return BatchOutcome(last_sequence=message.sequence)  # a tick is a hint; it is sent again
        text = f"{error!r}; this is a fault of the engine: report it, then `sla dead replay {message.sequence}`"
        return self._engine.refuse(message, Reason.INTERNAL, text)

    # ---- what must be so before anything is read

    def _publish_policy(self) -> None:
        """Publish the policy of the file if the store has none, or none of its version, yet. Blocks."""
        if self._is_published():
            return
        versions = self._store.read_versions()
        if len(versions) and (name := versions.get_in_force(datetime.now(UTC)).name) != self._policy.name:
            log.warning(
                "policy not published",
                file=self._policy.name,
                in_force=name,
                hint="the file is not published; it has another name",
            )
            return
        try:
            version = self._store.publish_policy(self._policy, lambda: datetime.now(UTC), self._notice, timedelta(0))
        except VersionRefusedError as error:
            if self._is_published():
                return  # by another intake, a moment ago
            raise FatalError(f"policy {self._policy.name}: {error}") from None
        log.info("policy published", version=version.name, effective_from=version.effective_from.isoformat())

    def _is_published(self) -> bool:
        return self._policy.fingerprint in {version.policy.fingerprint for version in self._store.read_versions()}

    async def _check_stream(self, created_at: datetime) -> None:
        """Raise FatalError for another stream of the same name: its first messages would never be read."""
        if not await self.run_in_thread(self._store.bind_stream, TICKETS, to_microseconds(created_at)):
            raise FatalError(
                f"stream {TICKETS} was made anew at {created_at:%Y-%m-%dT%H:%M:%SZ}, and this store belongs to the one "
                "before it; restore both from one backup with `sla restore`, or start with an empty store"
            )


def build_dead_letter(dead: DeadLetter) -> Outgoing:
    """Return the original bytes and headers, with the reason; the id is the sequence of the original."""
    message = dead.message
    headers = {_rename_header(name): str(value) for name, value in (message.headers or {}).items()}
    error = dead.error.encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")
    headers |= {
        "Sla-Reason": str(dead.reason),
        "Sla-Error": error[:1000],
        "Sla-Subject": message.subject,
        "Sla-Sequence": str(message.sequence),
        "Nats-Msg-Id": str(message.sequence),
    }
    return Outgoing(f"dead_letters.{dead.reason}", headers, message.body)


def _rename_header(header: str) -> str:
    """Return another name for a header on which the broker would act."""
    return f"Sla-Original-{header}" if header.lower().startswith("nats-") else header
