"""Intake: reads TICKETS like a log and stores what follows. It alone writes the event store; the rules are in sla/."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import structlog

from events.cloudevents import Reason
from projections.deadlines import microseconds
from services.bus import DEAD_LETTERS, TICKETS, Bus, Outgoing, chained
from services.faults import reach
from services.service import OUTAGES, Fatal, Service
from services.store import Lock, Store, Superseded
from sla.engine import TICK_PREFIX, DeadLetter, Engine, Limits, Message, Outcome
from sla.policy import Policy
from sla.versions import Refused

log = structlog.get_logger()

IDLE = 0.9  # seconds after which intake comes round though nothing has arrived: at each heartbeat of the broker


class Intake(Service):
    """One transaction a batch holds the events, the inbox rows and the position: a crash loses and doubles nothing."""

    name: ClassVar[str] = "intake"

    def __init__(
        self, bus: Bus, store: Store, policy: Policy, limits: Limits, lock: Lock, notice: timedelta = timedelta(0)
    ) -> None:
        super().__init__()
        self._bus, self._store, self._policy, self._lock, self._notice = bus, store, policy, lock, notice
        self._engine = Engine(store, limits)
        self._dead_letters = bus.publisher(DEAD_LETTERS)
        self._position = self._refused = self._letters = 0

    async def run(self) -> None:
        while not self._lock.take():
            self.works()  # a standby works by waiting
            await self.sleep(0.5)
        self._engine.forget()
        await self.in_thread(self._publish)
        made_at = await self.whole(self._bus.made_at(TICKETS))
        await self._check_stream(made_at)
        self._position = await self.in_thread(self._store.taken)
        since = await self.in_thread(self._store.first_made_at, TICKETS)
        self._refused, self._letters = await self.whole(self._where(since or 0))
        reader = self._bus.reader(TICKETS, self._position)
        try:
            await self.whole(reader.start())
            while True:
                self.works()
                if messages := await reader.take(IDLE):
                    await self.whole(self._take(messages))
        finally:
            await reader.close()

    async def stop(self) -> None:
        await super().stop()
        self._lock.free()

    def _publish(self) -> None:
        """Blocking. The policy of the file is published if there is none, or none of its version, yet."""
        versions = self._store.versions()
        if self._policy.fingerprint in {version.policy.fingerprint for version in versions}:
            return
        if len(versions) and (name := versions.at(datetime.now(UTC)).name) != self._policy.name:
            log.warning(
                "policy", file=self._policy.name, in_force=name, hint="the file is not published; it has another name"
            )
            return
        try:
            version = self._store.publish(self._policy, lambda: datetime.now(UTC), self._notice, timedelta(0))
        except Refused as error:
            raise Fatal(f"policy {self._policy.name}: {error}") from None
        log.info("published", version=version.name, effective_from=version.effective_from.isoformat())

    async def _where(self, since: int) -> tuple[int, int]:
        """
        The newest message that has its dead letter, committed or not, and the last sequence of DEAD_LETTERS. A letter
        from before `since` is of another stream.
        """
        newest = await self._bus.newest(DEAD_LETTERS, "dead_letters.*")
        refused = int(newest[0].get("Sla-Sequence", 0)) if newest and microseconds(newest[1]) > since else 0
        return refused, await self._bus.last_sequence(DEAD_LETTERS)

    async def _check_stream(self, made_at: datetime) -> None:
        """Sequences mean nothing in another stream of the same name: its first messages would never be read."""
        if not await self.in_thread(self._store.belongs_to, TICKETS, microseconds(made_at)):
            raise Fatal(
                f"stream {TICKETS} was made anew at {made_at:%Y-%m-%dT%H:%M:%SZ}, and this store belongs to the one "
                "before it; restore both from one backup with `sla restore`, or start with an empty store"
            )

    async def _take(self, messages: Sequence[Message]) -> None:
        reach("intake.taken")
        started = time.perf_counter()
        try:
            outcome = await self._store_outcome(messages)
        except (Fatal, *OUTAGES):
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

    async def _store_outcome(self, messages: Sequence[Message]) -> Outcome:
        """Dead letters are published before the commit; DEAD_LETTERS says after a crash which are there already."""
        try:
            outcome = await self.in_thread(self._take_and_commit, messages)
            if outcome.dead:
                await self._commit(outcome)
        except BaseException:
            self._engine.forget()
            raise
        return outcome

    def _take_and_commit(self, messages: Sequence[Message]) -> Outcome:
        """Blocking. One visit to the thread, unless there are dead letters: those go before the commit."""
        outcome = self._engine.take(messages)
        if not outcome.dead:
            self._put(outcome)
        return outcome

    async def _commit(self, outcome: Outcome) -> None:
        letters = [dead_letter(dead) for dead in outcome.dead if dead.message.sequence > self._refused]
        if letters:
            published = await self._dead_letters.publish(chained(letters, self._letters))
            self._refused, self._letters = outcome.dead[-1].message.sequence, published[-1].sequence
        reach("intake.after_dead_letters")
        await self.in_thread(self._put, outcome)

    def _put(self, outcome: Outcome) -> None:
        reach("intake.before_commit")
        try:
            self._store.commit(outcome, self._position)
        except Superseded as error:
            raise Fatal(str(error)) from None
        self._position = outcome.position
        reach("intake.after_commit")

    async def _one_by_one(self, messages: Sequence[Message]) -> Outcome:
        """A batch failed, and not for the connection: find the message that did it, and let all others through."""
        whole = Outcome(position=messages[-1].sequence)
        for message in messages:
            self.works()
            try:
                outcome = await self._store_outcome([message])
            except (Fatal, *OUTAGES):
                raise
            except Exception as error:
                log.error("message", error=repr(error), sequence=message.sequence, exc_info=True)
                outcome = self._internal(message, error)
                await self._commit(outcome)
            whole.events += outcome.events
            whole.dead += outcome.dead
        return whole

    def _internal(self, message: Message, error: Exception) -> Outcome:
        if message.subject.startswith(TICK_PREFIX):
            return Outcome(position=message.sequence)  # a tick is a hint; it is sent again
        text = f"{error!r}; this is a fault of the engine: report it, then `sla dead replay {message.sequence}`"
        return self._engine.refuse(message, Reason.INTERNAL, text)


def dead_letter(dead: DeadLetter) -> Outgoing:
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
