"""Intake: reads TICKETS like a log and stores what follows. It alone writes the event store; the rules are in sla/."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import ClassVar

import structlog

from events.cloudevents import Reason
from events.times import to_microseconds
from services.bus.connection import Bus, Outgoing
from services.bus.streams import DEAD_LETTERS, TICKETS, split_partition
from services.errors import TRANSIENT_ERRORS, FatalError
from services.faults import reach
from services.runtime.service import Service
from services.store.interface import PartitionLeases, Store
from sla.engine import TICK_PREFIX, BatchOutcome, DeadLetter, Engine, Limits, Message
from sla.policy import Policy
from sla.versions import VersionRefusedError

log = structlog.get_logger()

READ_TIMEOUT = 0.9  # seconds after which intake comes round though nothing has arrived: at each heartbeat of the broker
LEASE_CHECK_INTERVAL = 0.5  # seconds between two looks at who owns which partition


class Intake(Service):
    """
    One transaction a batch holds the events, the inbox rows and the positions: a crash loses and doubles nothing.

    It reads the partitions of TICKETS that it owns, all together in the order of the stream, so that they stand at one
    position from the first batch on. Others own the rest.
    """

    name: ClassVar[str] = "intake"

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
        self._positions: dict[int, int] = {}  # of the partitions that are read
        self._refused: set[int] = set()  # messages that had their dead letters before it was known that they needed one

    async def run(self) -> None:
        while True:
            stored = await self.run_in_thread(self._store.read_partitions)
            count = await self.run_to_completion(self._bus.count_partitions(TICKETS))
            if count != len(stored):
                await self._divide(stored, count)
            elif mine := await self.run_in_thread(self._leases.acquire_fair_share, count):
                await self._read(mine, partial(self._still_owns, mine, count))
            else:
                await self._stand_by()

    def _still_owns(self, mine: frozenset[int], count: int) -> bool:
        return self._leases.acquire_fair_share(count) == mine

    async def _stand_by(self) -> None:
        self.record_heartbeat()
        await self.sleep(LEASE_CHECK_INTERVAL)

    async def stop(self) -> None:
        await super().stop()
        self._leases.release()

    async def _divide(self, stored: Mapping[int, int], count: int) -> None:
        """The number of partitions was changed: one intake alone takes what was stored before that."""

        def owns_all() -> bool:
            return self._leases.acquire_all(max(len(stored), count))

        if not await self.run_in_thread(owns_all):
            await self._stand_by()
            return
        newest = await self.run_to_completion(self._bus.read_last_sequence(TICKETS))
        await self._read(frozenset(stored), owns_all, until=newest)
        if self._lowest() >= newest:
            await self.run_in_thread(self._store.repartition, count, self._positions)
            log.info("divided", partitions=count, before=len(stored), position=self._lowest())

    async def _read(self, mine: frozenset[int], owns: Callable[[], bool], until: float = inf) -> None:
        """As long as this process owns these partitions; or until everything up to a message is stored."""
        self._engine.forget()
        await self.run_in_thread(self._publish)
        await self._check_stream(await self.run_to_completion(self._bus.read_created_at(TICKETS)))
        stored = await self.run_in_thread(self._store.read_partitions)
        self._positions = {number: stored[number] for number in mine}
        self._refused = await self.run_to_completion(self._bus.find_dead_letter_sequences(self._lowest()))
        some = sorted(mine) if len(mine) < len(stored) else []
        reader = self._bus.create_reader(TICKETS, self._lowest(), some)
        clock, look_at = asyncio.get_running_loop().time, 0.0
        try:
            await self.run_to_completion(reader.start())
            while self._lowest() < until:
                self.record_heartbeat()
                if clock() >= look_at:
                    if not await self.run_in_thread(owns):
                        return
                    look_at = clock() + LEASE_CHECK_INTERVAL
                if messages := await reader.read_batch(READ_TIMEOUT):
                    await self.run_to_completion(self._take_new(messages))
                elif some:
                    await self._pass_over(await self.run_to_completion(reader.find_caught_up_sequence()))
        finally:
            await reader.close()

    def _lowest(self) -> int:
        """Up to there everything is stored of what this process reads."""
        return min(self._positions.values())

    async def _take_new(self, messages: Sequence[Message]) -> None:
        """Each partition from its own position on: they differ if they had different owners before."""
        new = []
        for message in messages:
            number, subject = split_partition(message.subject)
            if message.sequence > self._positions.get(number, 0):
                new.append(message._replace(subject=subject))
        if new:
            await self._take(new)

    async def _pass_over(self, seen: int) -> None:
        """Nothing up to there is in these partitions."""
        if seen > self._lowest():
            await self.run_in_thread(self._put, BatchOutcome(position=seen))

    def _publish(self) -> None:
        """Blocking. The policy of the file is published if there is none, or none of its version, yet."""
        if self._is_published():
            return
        versions = self._store.read_versions()
        if len(versions) and (name := versions.get_in_force(datetime.now(UTC)).name) != self._policy.name:
            log.warning(
                "policy", file=self._policy.name, in_force=name, hint="the file is not published; it has another name"
            )
            return
        try:
            version = self._store.publish_policy(self._policy, lambda: datetime.now(UTC), self._notice, timedelta(0))
        except VersionRefusedError as error:
            if self._is_published():
                return  # by another intake, a moment ago
            raise FatalError(f"policy {self._policy.name}: {error}") from None
        log.info("published", version=version.name, effective_from=version.effective_from.isoformat())

    def _is_published(self) -> bool:
        return self._policy.fingerprint in {version.policy.fingerprint for version in self._store.read_versions()}

    async def _check_stream(self, made_at: datetime) -> None:
        """Sequences mean nothing in another stream of the same name: its first messages would never be read."""
        if not await self.run_in_thread(self._store.bind_stream, TICKETS, to_microseconds(made_at)):
            raise FatalError(
                f"stream {TICKETS} was made anew at {made_at:%Y-%m-%dT%H:%M:%SZ}, and this store belongs to the one "
                "before it; restore both from one backup with `sla restore`, or start with an empty store"
            )

    async def _take(self, messages: Sequence[Message]) -> None:
        reach("intake.taken")
        started = time.perf_counter()
        try:
            outcome = await self._store_outcome(messages)
        except (FatalError, *TRANSIENT_ERRORS):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next message must not wait for it
            log.error("batch", error=repr(error), messages=len(messages))
            outcome = await self._one_by_one(messages)
        if outcome.events:
            await self._bus.nudge()
        log.info(
            "batch",
            messages=len(messages),
            events=len(outcome.events),
            dead_letters=len(outcome.dead),
            position=outcome.position,
            ms=round((time.perf_counter() - started) * 1000, 1),
        )

    async def _store_outcome(self, messages: Sequence[Message]) -> BatchOutcome:
        """Dead letters are published before the commit; DEAD_LETTERS says after a crash which are there already."""
        try:
            outcome = await self.run_in_thread(self._take_and_commit, messages)
            if outcome.dead:
                await self._commit(outcome)
        except BaseException:
            self._engine.forget()
            raise
        return outcome

    def _take_and_commit(self, messages: Sequence[Message]) -> BatchOutcome:
        """Blocking. One visit to the thread, unless there are dead letters: those go before the commit."""
        outcome = self._engine.process(messages)
        if not outcome.dead:
            self._put(outcome)
        return outcome

    async def _commit(self, outcome: BatchOutcome) -> None:
        new = [dead for dead in outcome.dead if dead.message.sequence not in self._refused]
        if new:
            await self._dead_letters.publish([build_dead_letter(dead) for dead in new])
            self._refused.update(dead.message.sequence for dead in new)
        reach("intake.after_dead_letters")
        await self.run_in_thread(self._put, outcome)

    def _put(self, outcome: BatchOutcome) -> None:
        reach("intake.before_commit")
        self._store.commit(outcome, self._positions)
        self._positions = {number: max(before, outcome.position) for number, before in self._positions.items()}
        self._refused = {sequence for sequence in self._refused if sequence > self._lowest()}
        reach("intake.after_commit")

    async def _one_by_one(self, messages: Sequence[Message]) -> BatchOutcome:
        """A batch failed, and not for the connection: find the message that did it, and let all others through."""
        whole = BatchOutcome(position=messages[-1].sequence)
        for message in messages:
            self.record_heartbeat()
            try:
                outcome = await self._store_outcome([message])
            except (FatalError, *TRANSIENT_ERRORS):
                raise
            except Exception as error:
                log.error("message", error=repr(error), sequence=message.sequence, exc_info=True)
                outcome = self._internal(message, error)
                await self._commit(outcome)
            whole.events += outcome.events
            whole.dead += outcome.dead
        return whole

    def _internal(self, message: Message, error: Exception) -> BatchOutcome:
        if message.subject.startswith(TICK_PREFIX):
            return BatchOutcome(position=message.sequence)  # a tick is a hint; it is sent again
        text = f"{error!r}; this is a fault of the engine: report it, then `sla dead replay {message.sequence}`"
        return self._engine.refuse(message, Reason.INTERNAL, text)


def build_dead_letter(dead: DeadLetter) -> Outgoing:
    """The original bytes and headers, with the reason; its id is the sequence of the original."""
    message = dead.message
    headers = {_kept(name): str(value) for name, value in (message.headers or {}).items()}
    error = dead.error.encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")
    headers |= {
        "Sla-Reason": str(dead.reason),
        "Sla-Error": error[:1000],
        "Sla-Subject": message.subject,
        "Sla-Sequence": str(message.sequence),
        "Nats-Msg-Id": str(message.sequence),
    }
    return Outgoing(f"dead_letters.{dead.reason}", headers, message.body)


def _kept(header: str) -> str:
    """The broker acts on headers of its own; those of the original are kept under another name."""
    return f"Sla-Original-{header}" if header.lower().startswith("nats-") else header
