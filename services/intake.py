"""Intake: reads TICKETS like a log and persists what follows. No other process writes facts; the rules are in sla/."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import ClassVar, Self

import structlog
from prometheus_client import CollectorRegistry, Gauge

from events.cloudevents import Reason
from events.times import to_microseconds
from services.bus.connection import Bus
from services.bus.publisher import Outgoing, chain_sequences
from services.bus.reader import StreamReader
from services.bus.streams import DEAD_LETTERS, TICKETS, split_partition
from services.errors import STORE_ERRORS, BusError, FatalError, PublishRefusedError, SuspicionError
from services.faults import reach
from services.runtime.service import Replication, Service
from services.runtime.setup import Backends, Setup
from services.store.interface import PartitionLeases, Store
from services.store.schema import ACCEPTED_LOSS
from sla.engine import TICK_PREFIX, BatchOutcome, DeadLetter, Engine, Limits, Message, OwnFaultError
from sla.policy import Policy
from sla.versions import VersionRefusedError, find_changes

log = structlog.get_logger()

READ_TIMEOUT = 0.9  # seconds after which intake comes round though nothing has arrived: at each heartbeat of the broker
LEASE_CHECK_INTERVAL = 0.5  # seconds between two checks of the leases
MAX_BLAMED = 3  # messages in a row that are set aside; the next one is not to blame
MAX_ATTEMPTS = 2  # times that a message may end the process while it is judged alone
SUSPECTS = StreamReader.MAX_MESSAGES  # messages that may have been under way when an intake ended uncleanly


class Blame:
    """
    How many messages in a row met a fault of the engine, and the partitions that this process reads: both outlive the
    service, which is built again after an error.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self.reading: frozenset[int] = frozenset()

    def acquit(self) -> None:
        """Record that a message was processed."""
        self._in_a_row = 0

    def put(self, message: Message, fault: str) -> None:
        """Blame a message. Raises SuspicionError if MAX_BLAMED messages before it were blamed."""
        if self._in_a_row >= MAX_BLAMED:
            raise SuspicionError(
                f"{MAX_BLAMED} messages in a row met a fault of the engine and were set aside, and so does message "
                f"{message.sequence}: {fault}. The messages are not to blame, and nothing is lost: see the log, mend "
                "what is wrong, and start intake again"
            )
        self._in_a_row += 1


class Drift:
    """
    Whether the policy file would be resolved to other dates today than its version was when it was published. It
    outlives the service.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        text = "1 if the package holidays knows other days by now than those published; what is published holds."
        self.gauge = Gauge("sla_policy_drift", text, registry=registry)
        self._is_logged = False

    def show(self, published: Policy, file: Policy) -> None:
        """Show what both say of the same version, and log a drift once."""
        drifts = published.fingerprint != file.fingerprint
        self.gauge.set(drifts)
        if drifts and not self._is_logged:
            hint = f"what is published holds; see `sla policy diff {file.version} FILE`, and publish another version"
            log.warning("policy drifted", version=file.version, changes=len(find_changes(published, file)), hint=hint)
            self._is_logged = True


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
        blame: Blame | None = None,
        gap_messages: Gauge | None = None,
        drift: Drift | None = None,
    ) -> None:
        super().__init__()
        self._drift = drift or Drift()
        self._blame, self._gap_messages = blame or Blame(), gap_messages or make_gap_gauge(None)
        self._bus, self._store, self._policy, self._leases, self._notice = bus, store, policy, leases, notice
        self._engine = Engine(store, limits)
        self._dead_letters = bus.get_publisher(DEAD_LETTERS)
        self._checkpoints: dict[int, int] = {}  # of the partitions that are read
        self._dead_lettered: set[int] = set()  # messages whose dead letter was published before this batch
        self._last_dead_letter = 0  # sequence of DEAD_LETTERS up to which that is known

    @classmethod
    def prepare(cls, setup: Setup) -> Callable[[Backends], Self]:
        """Return what builds an intake for the policy of SLA_POLICY_DIR."""
        settings, limits = setup.settings, Limits(setup.settings.max_ahead, setup.settings.historic_after)
        kept = settings.policy_notice, Blame(), make_gap_gauge(setup.registry), Drift(setup.registry)
        return lambda at: cls(at.bus, at.store, setup.policy, limits, at.find_leases(), *kept)

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
        await self._check_gap()
        await self.run_to_completion(self._read_dead_letters())
        some = sorted(leased) if len(leased) < len(stored) else []
        reader = self._bus.create_reader(TICKETS, self._committed_sequence, some)
        suspects = SUSPECTS if await self._begin_reading(leased) else 0
        loop_time, check_at = asyncio.get_running_loop().time, 0.0
        try:
            await self.run_to_completion(reader.start())
            while self._committed_sequence < until:
                self.record_heartbeat()
                if loop_time() >= check_at:
                    if not await self.run_in_thread(keep_leases):
                        break
                    check_at = loop_time() + LEASE_CHECK_INTERVAL
                    if some:
                        await self._check_gap()
                if messages := await reader.read_batch(READ_TIMEOUT):
                    if not some and messages[-1].sequence - len(messages) != self._committed_sequence:
                        await self._check_gap()
                    new = self._select_new(messages)
                    if new:
                        await self.run_to_completion(self._process(new, alone=suspects > 0))
                        suspects -= len(new)
                elif some:
                    await self._skip_to(await self.run_to_completion(reader.find_caught_up_sequence()))
            await self._end_reading(leased)
        except asyncio.CancelledError:
            await self._end_reading(leased)
            raise
        finally:
            await reader.close()

    async def _begin_reading(self, leased: frozenset[int]) -> bool:
        """Return whether an intake before this process may have been ended by a message of these partitions."""
        was_unclean = await self.run_in_thread(self._store.begin_reading, leased)
        was_other = not leased <= self._blame.reading
        self._blame.reading |= leased
        return was_unclean and was_other

    async def _end_reading(self, leased: frozenset[int]) -> None:
        """Record that no message has ended this process."""
        with suppress(*STORE_ERRORS):  # the next intake is more careful than it need be
            await asyncio.to_thread(self._store.end_reading, leased)
            self._blame.reading -= leased

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

    async def _process(self, messages: Sequence[Message], *, alone: bool = False) -> None:
        """
        Decide and persist what follows from a batch, then nudge; message by message if one of them meets a fault of
        ours, or if `alone`. Runs to completion as a whole, so that its steps need not be shielded again. Raises
        whatever else goes wrong: that is an outage, and no message is blamed for it (docs/architecture.md#decision-8).
        """
        reach("intake.taken")
        started = time.perf_counter()
        try:
            if alone:
                outcome = await self._process_each(messages, alone)
            else:
                with self._forget_on_failure():
                    outcome = await self.start_in_thread(self._decide, messages)
                    if outcome.dead:
                        await self._persist(outcome)
        except OwnFaultError as fault:
            log.error("batch failed", error=str(fault), messages=len(messages))
            outcome = await self._process_each(messages, alone)
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

    @contextmanager
    def _forget_on_failure(self) -> Iterator[None]:
        """Have the engine forget its tickets if this fails, and acquit the messages if it does not."""
        try:
            yield
        except BaseException:
            self._engine.forget()
            raise
        self._blame.acquit()

    def _decide(self, messages: Sequence[Message], attempt: bool = False) -> BatchOutcome:
        """
        Return what follows, committed unless there are dead letters to publish first. With `attempt`, the store knows
        meanwhile that the first message is judged. Blocks.
        """
        try:
            outcome = self._engine.process(messages, self.record_heartbeat)
        finally:
            if attempt:
                self._store.end_attempt(messages[0].sequence)
        if not outcome.dead:
            self._commit(outcome)
        return outcome

    async def _persist(self, outcome: BatchOutcome) -> None:
        """
        Publish the dead letters, then commit: after a crash between the two, DEAD_LETTERS says which are there. They
        are published directly after the last one that is known: an intake that was paused for long, and whose place
        another one has taken, is refused, and learns what that one has published.
        """
        while new := [dead for dead in outcome.dead if dead.message.sequence not in self._dead_lettered]:
            letters = chain_sequences([build_dead_letter(dead) for dead in new], self._last_dead_letter)
            try:
                published = await self._dead_letters.publish(letters)
            except PublishRefusedError:
                known = self._last_dead_letter
                await self._read_dead_letters()
                if self._last_dead_letter == known:
                    raise
            else:
                self._last_dead_letter = published[-1].sequence
                self._dead_lettered.update(dead.message.sequence for dead in new)
        reach("intake.after_dead_letters")
        await self.start_in_thread(self._commit, outcome)

    async def _read_dead_letters(self) -> None:
        self._last_dead_letter = await self._bus.read_last_sequence(DEAD_LETTERS)
        self._dead_lettered = await self._bus.find_dead_letter_sequences(self._committed_sequence)

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

    # ---- a message that fails, hangs or kills

    async def _process_each(self, messages: Sequence[Message], attempt: bool) -> BatchOutcome:
        """
        Process each message alone, and set aside those that meet a fault of ours. With `attempt`, also those that hang
        or kill: the store knows how often each was begun and not ended.
        """
        total = BatchOutcome(last_sequence=messages[-1].sequence)
        for message in messages:
            self.record_heartbeat()
            if attempt and await self.start_in_thread(self._store.begin_attempt, message.sequence) > MAX_ATTEMPTS:
                outcome = await self._set_aside(message, f"it has ended intake {MAX_ATTEMPTS} times", is_judging=False)
                await self.start_in_thread(self._store.end_attempt, message.sequence)
            else:
                try:
                    with self._forget_on_failure():
                        outcome = await self.start_in_thread(self._decide, [message], attempt)
                        if outcome.dead:
                            await self._persist(outcome)
                except OwnFaultError as fault:
                    log.error("message failed", error=str(fault), sequence=message.sequence, exc_info=True)
                    outcome = await self._set_aside(message, str(fault), is_judging=fault.is_judging)
            total.events += outcome.events
            total.dead += outcome.dead
        return total

    async def _set_aside(self, message: Message, fault: str, *, is_judging: bool) -> BatchOutcome:
        """
        Quarantine the ticket of a message that was read and could not be judged, and of a tick, which leaves no dead
        letter; dead-letter any other. Raises SuspicionError if that would be one too many in a row.
        """
        self._blame.put(message, fault)
        if is_judging or message.subject.startswith(TICK_PREFIX):
            outcome = await self.start_in_thread(self._engine.quarantine, message, fault)
            log.error("ticket quarantined", sequence=message.sequence, error=fault, hint="see `sla quarantine list`")
        else:
            text = f"{fault}; this is a fault of the engine: report it, then `sla dead replay {message.sequence}`"
            outcome = self._engine.refuse(message, Reason.INTERNAL, text)
        await self._persist(outcome)
        return outcome

    # ---- what must be so before anything is read

    def _publish_policy(self) -> None:
        """Publish the policy of the file if the store has none, or none of its version, yet. Blocks."""
        versions = self._store.read_versions()
        if (same := versions.find_same(self._policy)) is not None:
            self._drift.show(same.policy, self._policy)
            return
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
            raise FatalError(f"policy {self._policy.name}: {error}") from None
        log.info("policy published", version=version.name, effective_from=version.effective_from.isoformat())

    async def _check_gap(self) -> None:
        """
        Raise BusError if messages were acknowledged, and are gone before they were recorded, unless an operator has
        accepted that.
        """
        after = self._committed_sequence
        gap = await self.run_to_completion(self._bus.find_gap(TICKETS, after))
        accepted = await self.run_in_thread(self._store.read_checkpoint, ACCEPTED_LOSS) if gap else None
        is_accepted = gap is None or (accepted is not None and gap.last <= accepted)
        self._gap_messages.set(0 if is_accepted or gap is None else gap.messages)
        if gap is None:
            return
        if not is_accepted:
            raise BusError(
                f"{gap.messages} messages of stream {TICKETS}, from {gap.first} to {gap.last}, were acknowledged, and "
                "are gone before they were recorded: restore the stream, or accept that with `sla accept-loss`"
            )
        log.warning("loss accepted", messages=gap.messages, first=gap.first, last=gap.last)

    async def _check_stream(self, created_at: datetime) -> None:
        """Raise FatalError for another stream of the same name: its first messages would never be read."""
        if not await self.run_in_thread(self._store.bind_stream, TICKETS, to_microseconds(created_at)):
            raise FatalError(
                f"stream {TICKETS} was made anew at {created_at:%Y-%m-%dT%H:%M:%SZ}, and this store belongs to the one "
                "before it; restore both from one backup with `sla restore`, or start with an empty store"
            )


def make_gap_gauge(registry: CollectorRegistry | None) -> Gauge:
    text = "Messages of TICKETS that were acknowledged and are gone before they were recorded; must be 0."
    return Gauge("sla_stream_gap_messages", text, registry=registry)


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
