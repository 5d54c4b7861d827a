"""Bugs planted on purpose: each breaks the engine in this process. A harness that catches none of them is broken."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import sla.decisions
from projections import runner as following
from services import announcer, clock, intake
from services.announcer import Announcer
from services.bus.publisher import EXPECTED_SEQUENCE_HEADER, ID_HEADER, Outgoing
from services.bus.streams import SLA
from services.runtime import service
from services.store.interface import Store
from services.store.schema import ANNOUNCER_CHECKPOINT
from services.store.sqlite import SqliteStore, _SqliteRecorder
from sla.decisions import decide_retraction
from sla.engine import TICK_PREFIX, BatchOutcome, Engine, Message
from sla.judge import Clock as Judged
from sla.log import Recorded
from sla.ticket import TicketSla
from sla.versions import Versions


def mark_before_publish() -> None:
    """The announcer saves its position, then publishes, and believes its position alone."""

    def next_(self: Announcer, position: int, now: float) -> list[Any]:
        rows = self._store.read_log_rows(position, announcer.LOG_BATCH)
        if rows:
            self._save_checkpoint(rows[-1].position)
        return rows

    Announcer._read_next = next_
    _believe_the_saved_position()


def _believe_the_saved_position() -> None:
    async def where(self: Announcer) -> int:
        self._sequence = await self._bus.read_last_sequence(SLA)
        return await self.run_in_thread(self._store.read_checkpoint, ANNOUNCER_CHECKPOINT) or 0

    Announcer._resume = where


def position_before_store() -> None:
    """As an acknowledgement before the commit: the position moves first, and what belongs to it follows."""
    commit = SqliteStore.commit

    def apart(self: SqliteStore, outcome: BatchOutcome, before: dict[int, int]) -> None:
        with self.write_view() as cursor:
            cursor.execute("UPDATE partitions SET position = ?", (outcome.last_sequence,))
        commit(self, outcome, dict.fromkeys(before, outcome.last_sequence))

    SqliteStore.commit = apart


def no_inbox() -> None:
    """Nobody remembers which facts are recorded."""
    commit = SqliteStore.commit

    def keyless(self: SqliteStore, outcome: BatchOutcome, before: dict[int, int]) -> None:
        outcome.inbox = [row._replace(key=None) for row in outcome.inbox]
        commit(self, outcome, before)

    SqliteStore.commit = keyless


def tick_without_queueing() -> None:
    """Ticks go before the facts that were stored before them."""
    take = Engine.process

    def ticks_first(self: Engine, messages: Sequence[Message], *progress: Callable[[], None]) -> BatchOutcome:
        ticks_first = sorted(messages, key=lambda message: not message.subject.startswith(TICK_PREFIX))
        outcome = take(self, ticks_first, *progress)
        outcome.last_sequence = messages[-1].sequence
        return outcome

    Engine.process = ticks_first


def tick_ahead_of_time() -> None:
    """The engine believes a tick, not the broker's clock."""
    decide = TicketSla.decide

    def decide_ahead(
        self: TicketSla, versions: Versions, now: datetime, historic_after: timedelta, fact_id: str | None = None
    ) -> list[Recorded]:
        ahead = timedelta(0) if fact_id else timedelta(seconds=2)
        return decide(self, versions, now + ahead, historic_after, fact_id)

    TicketSla.decide = decide_ahead
    clock.CLOCK_MARGIN_MICROSECONDS = -1_000_000


def random_ids() -> None:
    """A decision has another id each time it is made."""
    sla.decisions.make_event_id = lambda *_: str(uuid4())  # type: ignore[attr-defined]


def rebuild_that_announces() -> None:
    """A rebuild sets the announcer back too."""
    rebuild = following.rebuild

    def everything(store: Store, view: Any) -> Iterator[int]:
        yield from rebuild(store, view)
        with store.write_view() as cursor:
            cursor.execute("UPDATE positions SET position = 0 WHERE name = ?", (ANNOUNCER_CHECKPOINT,))

    following.rebuild = everything
    _believe_the_saved_position()


def no_compare_and_set() -> None:
    """Whoever writes the position last is right: an old owner that wakes up stores on."""
    insert = _SqliteRecorder.insert_events

    def anyway(self: _SqliteRecorder, stored_events: Any, **kwargs: Any) -> Any:
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT number, position FROM partitions")
            before = {row[0]: row[1] for row in cursor.fetchall()}
        return insert(self, stored_events, **kwargs | {"before": before})

    _SqliteRecorder.insert_events = anyway


def tick_once() -> None:
    """A tick that was sent is taken for judged."""
    clock.MAX_RESEND_INTERVAL = float("inf")
    send = clock.DeadlineTimer._send

    async def once(self: clock.DeadlineTimer, rows: Any) -> None:
        await send(self, rows)
        for row in rows:
            self._sent[row.ticket].resend_at = float("inf")

    clock.DeadlineTimer._send = once


def announce_without_expecting() -> None:
    """Only the broker's window keeps an announcement from being stored twice."""
    announcer.chain_sequences = lambda messages, sequence: messages  # type: ignore[attr-defined]
    announcer.MIN_ATOMIC_BATCH = 1_000_000  # type: ignore[attr-defined]
    _believe_the_saved_position()


def chain_by_sequence_alone() -> None:
    """A stranger in the place of a message lets the one behind it in."""

    def chain(messages: Sequence[Outgoing], sequence: int) -> Sequence[Outgoing]:
        for expected, message in enumerate(messages, sequence):
            message.headers[EXPECTED_SEQUENCE_HEADER] = str(expected)
        return messages

    announcer.chain_sequences = chain  # type: ignore[attr-defined]


def forget_what_is_ahead() -> None:
    """The checkpoint passes what SLA has and the log, of an older store, has not decided again yet."""
    Announcer._build_checkpoint = lambda self, position: (position, self._sequence)


def take_all_for_strangers() -> None:
    """What SLA has ahead of the log is forgotten as soon as the log is quiet."""
    Announcer._forget_strangers = lambda self, *_: self._unmatched.clear()


def believe_ids_alone() -> None:
    """A stranger's message counts as the announcement whose id it has."""
    announcer.read_identity = lambda message: ((message.headers or {}).get(ID_HEADER, ""), 0)  # type: ignore[attr-defined]
    announcer.build_key = lambda id, _: id.encode()  # type: ignore[attr-defined]


def take_a_duplicate_for_stored() -> None:
    """What the broker does not store, because somebody took its id, counts as announced."""
    announcer.find_duplicates = lambda _: {}  # type: ignore[attr-defined]


def believe_any_stream() -> None:
    """The checkpoint counts for an SLA that was restored from an older backup, too."""

    async def go_on(self: Announcer, position: int, oldest: int, newest: int) -> int:
        self._sequence = newest
        return position

    Announcer._begin_again = go_on


def view_after_position() -> None:
    """A follower saves its position in a transaction of its own, and its view in the next."""

    def apart(store: Any, projection: Any, checkpoint: str | None = None, limit: int = following.BATCH_ROWS) -> int:
        name = checkpoint or projection.name
        position = store.read_checkpoint(name)
        batch = following._read_source(store, projection, position, limit)
        if batch:
            with store.write_view() as cursor:
                cursor.execute("UPDATE positions SET position = ? WHERE name = ?", (batch[-1][0], name))
            with store.write_view() as cursor:
                projection.apply(cursor, batch)
        return len(batch)

    following.run_batch = service.run_batch = apart  # type: ignore[attr-defined]


def no_retraction() -> None:
    """A breach that turned out to be untrue stays."""
    sla.decisions.DECISIONS = tuple(each for each in sla.decisions.DECISIONS if each is not decide_retraction)


def memory_after_a_failure() -> None:
    """What was not stored is not forgotten either."""
    Engine.forget = lambda self: None


def dead_letters_after_the_commit() -> None:
    """A message is refused, and its dead letter published when that is already stored."""

    async def late(self: intake.Intake, outcome: BatchOutcome) -> None:
        await self.run_in_thread(self._commit, outcome)
        await self._dead_letters.publish([intake.build_dead_letter(dead) for dead in outcome.dead])

    intake.Intake._persist = late


def dead_letters_without_expecting() -> None:
    """Only the broker's day of remembered ids keeps a dead letter from being stored twice."""
    intake.chain_sequences = lambda messages, sequence: messages  # type: ignore[attr-defined]


def late_at_the_deadline() -> None:
    """An answer at the very deadline is taken for late."""
    Judged.met = property(lambda self: None if self.response is None else self.response.time < self.phase.due_at)


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__.replace("_", "-"): bug
    for bug in (
        mark_before_publish,
        position_before_store,
        no_inbox,
        tick_without_queueing,
        tick_ahead_of_time,
        random_ids,
        rebuild_that_announces,
        no_compare_and_set,
        tick_once,
        announce_without_expecting,
        chain_by_sequence_alone,
        forget_what_is_ahead,
        take_all_for_strangers,
        believe_ids_alone,
        take_a_duplicate_for_stored,
        believe_any_stream,
        view_after_position,
        no_retraction,
        memory_after_a_failure,
        dead_letters_after_the_commit,
        dead_letters_without_expecting,
        late_at_the_deadline,
    )
}
