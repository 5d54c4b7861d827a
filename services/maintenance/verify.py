"""`sla verify`: compare a store with what follows from its facts: each ticket judged, each projection built again."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile, zip_longest
from typing import Any, NamedTuple, Self

import msgspec
from eventsourcing.persistence import PersistenceError

from events.cloudevents import quote_value
from events.tickets import TICKET_EVENT_TYPES, TicketEvent, make_content_digest, make_fact_key
from events.times import from_microseconds
from projections.runner import Projection
from services.errors import StoreError
from services.store.event_mapper import decode_event, encode_event
from services.store.interface import Database, Snapshot, Verification
from services.store.snapshot import (
    RECORDED_FACTS,
    Row,
    read_checkpoint,
    read_head,
    read_inbox_end,
    read_inbox_rows,
    read_log_rows,
    read_ticket_rows,
    read_version_rows,
    select_sorted,
)
from sla.log import (
    Breached,
    Event,
    FactRecorded,
    Fulfilled,
    LogRow,
    Quarantined,
    Released,
    StateUpdated,
    WarningRaised,
)
from sla.policy import FIRST_RESPONSE, Policy
from sla.ticket import NEVER_HISTORIC, TicketSla
from sla.versions import Version, Versions

MAX_SHOWN = 20  # discrepancies that are kept to be shown; all are counted
VERIFY_BATCH = 1_000
READ_ERRORS = (StoreError, msgspec.MsgspecError, KeyError, TypeError, ValueError)  # what tampered events lead to


class LoggedEvent(NamedTuple):
    """An event of the log; `fact` is what it was when it arrived, if it is one."""

    event: Event
    fact: TicketEvent | None


class Discrepancy(NamedTuple):
    """Where the store does not say what follows from its facts."""

    where: str
    expected: str
    stored: str


def store_result(database: Database, found: Verification) -> str | None:
    """Store the result for the metrics. Return why not, if the store cannot be written."""
    try:
        with closing(database.open()) as store:
            store.save_verification(found)
    except (StoreError, PersistenceError, sqlite3.Error) as error:
        return str(error)
    return None


class Verifier:
    """
    Compares a whole store, in one snapshot of it, with what follows from its facts. `check_projections` and
    `check_tickets` do the work, and yield how many events they have done. A ticket counts once, with its first
    discrepancy: the rest follows from it.

    From the version of the policy that was in force, and the instants that were stored, each decision has to come out
    as it was stored, with its id. One thing depends on a setting that nobody recorded: whether a breach that was over
    when the engine first heard of the ticket counted as historic (SLA_HISTORIC_AFTER). Either is accepted there, so
    that a changed setting is no discrepancy; a breach that the engine could have seen must not be historic.

    A tick that never came is not missed in here: that the deadline timer is behind is for the metrics to say.
    """

    def __init__(self, stored: Snapshot, projections: Iterable[type[Projection]]) -> None:
        self._stored, self._rebuilt = stored, open_temporary_database()
        self._projections = [projection() for projection in projections]
        self.head, self.tickets_seen, self.differences = 0, 0, 0
        self.shown: list[Discrepancy] = []
        self._versions = Versions([])
        with self._catch_unreadable("log"):
            self.head = read_head(self._stored)
            self._versions = Versions(self._read_versions())

    def build_verification(self) -> Verification:
        """Return what is kept in the store."""
        return Verification(datetime.now(UTC), self.tickets_seen, self.differences)

    def to_json(self) -> dict[str, Any]:
        """Return the result for programs."""
        first = [discrepancy._asdict() for discrepancy in self.shown]
        return {"differences": self.differences, "tickets": self.tickets_seen, "events": self.head, "first": first}

    def format_summary(self) -> str:
        """Return the result for people, on one line."""
        more = f", of which {len(self.shown)} are shown" if self.differences > len(self.shown) else ""
        return f"{self.differences:,} differences{more}; {self.tickets_seen:,} tickets, {self.head:,} events"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Give back the disk that the rebuilt projections took."""
        self._rebuilt.close()

    def _add_discrepancy(self, where: str, expected: str, stored: str) -> None:
        self.differences += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(Discrepancy(where if where.isprintable() else ascii(where), expected, stored))

    def _read_versions(self) -> Iterator[Version]:
        for row in read_version_rows(self._stored):
            name, fingerprint, published_at, effective_from, material, resolved = row
            try:
                policy = Policy.from_resolved(msgspec.json.decode(resolved))
                version = Version(
                    policy, from_microseconds(published_at), from_microseconds(effective_from), bool(material)
                )
            except Exception as error:  # noqa: BLE001 - whatever the row has, it is no policy
                self._add_discrepancy(f"policy {name}", "a resolved policy", explain_error(error))
                continue
            if (policy.fingerprint, policy.version) == (fingerprint, name):
                yield version
            else:
                self._add_discrepancy(
                    f"policy {name}", f"that of {fingerprint}", f"{policy.version} of {policy.fingerprint}"
                )

    @contextmanager
    def _catch_unreadable(self, what: str) -> Iterator[None]:
        """Record a part of the file that is broken as a discrepancy; it ends only the work that reads it."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"{what}: {error}") from None
        except sqlite3.DatabaseError as error:
            self._add_discrepancy(what, "a part of the store that can be read", str(error))

    def add_discrepancies(self, found: Iterable[Discrepancy]) -> None:
        """Count what was found in comparing something else."""
        for discrepancy in found:
            self._add_discrepancy(*discrepancy)

    # ---- projections: the log and the inbox applied again, up to the checkpoint of each

    def check_projections(self) -> Iterator[int]:
        """Build every projection again beside the store, and compare the tables."""
        for source, rows in (("log", self._read_log), ("inbox", lambda: read_inbox_rows(self._stored))):
            with self._catch_unreadable(source):
                checkpoints = {each: self._read_checkpoint(each) for each in self._projections if each.source == source}
                yield from self._rebuild(checkpoints, rows())
                for table in (table for projection in checkpoints for table in projection.tables):
                    with self._catch_unreadable(table):
                        self._compare(table, self._read_key(table), table, table)

    def _read_checkpoint(self, projection: Projection) -> int:
        checkpoint = read_checkpoint(self._stored, projection.name)
        end = self.head if projection.source == "log" else read_inbox_end(self._stored)
        if checkpoint is None or checkpoint > end:
            self._add_discrepancy(f"view {projection.name}", f"a position up to {end}", f"position {checkpoint}")
        return checkpoint or 0

    def _rebuild(self, checkpoints: dict[Projection, int], rows: Iterator[Any]) -> Iterator[int]:
        """
        Apply the rows up to the checkpoint of each projection. One that cannot take what the log has is removed from
        `checkpoints`: there is nothing to compare it with.
        """
        cursor = self._rebuilt.cursor()
        for projection in checkpoints:
            projection.create_tables(cursor)
        while batch := list(islice(rows, VERIFY_BATCH)):
            for projection, checkpoint in list(checkpoints.items()):
                try:
                    projection.apply(cursor, [row for row in batch if row[0] <= checkpoint])
                except (*READ_ERRORS, sqlite3.IntegrityError) as error:
                    self._add_discrepancy(f"view {projection.name}", "a log that can be folded", explain_error(error))
                    del checkpoints[projection]
            if isinstance(batch[-1], LogRow):
                yield batch[-1].position

    def _read_log(self) -> Iterator[LogRow]:
        """
        Yield the log in its order. An event that is gone is recorded here; one that cannot be read is left out, and
        recorded by `check_tickets`.
        """
        before = 0
        for row in read_log_rows(self._stored):
            if row.position != before + 1:
                self._add_discrepancy("log", f"event {before + 1}", f"event {row.position} comes next")
            before = row.position
            try:
                decode_event(row.topic, row.state)
            except READ_ERRORS:
                continue
            yield row

    def _read_key(self, table: str) -> list[str]:
        found = self._rebuilt.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,))
        return [name for (name,) in found]

    def _compare(self, name: str, key: Sequence[str], expected: str, stored: str) -> None:
        """Compare the rows of a table beside the store with those of one in it. A sum of 0 is as good as none."""
        ours, theirs = select_sorted(self._rebuilt, expected, key), select_sorted(self._stored, stored, key)
        columns = [column for column, *_ in ours.description]
        places = [columns.index(column) for column in key]
        for pair in find_unequal(drop_zero_sums(columns, ours), drop_zero_sums(columns, theirs), places):
            row = pair[0] or pair[1] or ()
            where = " ".join(str(row[place]) for place in places if row[place] != "")
            one, other = (dict(zip(columns, row, strict=True)) if row else None for row in pair)
            self._add_discrepancy(f"{name} {where}", *select_unlike(one, other))

    # ---- tickets: each judged again, and its facts against the inbox

    def check_tickets(self) -> Iterator[int]:
        """Judge every ticket again, in the order of their ids; then compare all facts with the inbox."""
        self._rebuilt.execute("CREATE TABLE facts (ticket TEXT, fact_key TEXT, digest TEXT)")
        with self._catch_unreadable("log"):
            yield from self._judge_all()
        with self._catch_unreadable("inbox"):
            self._compare("fact", ["ticket", "fact_key"], "facts", RECORDED_FACTS)

    def _judge_all(self) -> Iterator[int]:
        done = 0
        for ticket, rows in read_ticket_rows(self._stored):
            self.tickets_seen += 1
            if discrepancy := self._judge(ticket, rows):
                self._add_discrepancy(*discrepancy)
            done += len(rows)
            if done % VERIFY_BATCH < len(rows) or done == self.head:
                yield done

    def _judge(self, ticket: str, rows: Sequence[Row]) -> Discrepancy | None:
        """Return the first discrepancy of a ticket. All facts that can be read are noted, whatever else is wrong."""
        events: list[LoggedEvent] = []
        discrepancy = None
        for number, (_, version, topic, state) in enumerate(rows, 1):
            where = f"ticket {ticket}, event {number}"
            if version != number:
                discrepancy = discrepancy or Discrepancy(where, f"event {number}", f"event {version} comes next")
            try:
                events.append(identify_fact(ticket, decode_event(topic, state)))
            except READ_ERRORS as error:
                discrepancy = discrepancy or Discrepancy(where, "an event that can be read", explain_error(error))
        facts = [build_fact_row(fact) for _, fact in events if fact]
        self._rebuilt.executemany("INSERT INTO facts VALUES (?, ?, ?)", facts)
        try:
            return discrepancy or judge_again(TicketSla(ticket), events, self._versions)
        except Exception as error:  # noqa: BLE001 - whatever tampered events lead to, the next ticket has its turn
            return Discrepancy(f"ticket {ticket}", "events that can be judged", explain_error(error))


def explain_error(error: Exception) -> str:
    return ascii(error)[:200]


def identify_fact(ticket: str, event: Event) -> LoggedEvent:
    if not isinstance(event, FactRecorded):
        return LoggedEvent(event, None)
    data = TICKET_EVENT_TYPES[event.type].model_validate(event.data)
    fact = TicketEvent(
        event.source, event.id, event.type, ticket, event.time, data, event.sequence, event.flags, event.trace
    )
    return LoggedEvent(event, fact)


def build_fact_row(fact: TicketEvent) -> tuple[str, str, str]:
    """Return a fact as RECORDED_FACTS has it: bytes are written as SQLite writes them."""
    return fact.ticket, make_fact_key(fact.source, fact.id).hex().upper(), make_content_digest(fact).hex().upper()


def judge_again(ticket: TicketSla, events: Sequence[LoggedEvent], versions: Versions) -> Discrepancy | None:
    """
    Record each fact again, and tick wherever a decision came without one. Return the first event that differs.
    """
    place = 0
    while place < len(events):
        event, fact = events[place]
        historic_after = guess_historic_after(ticket, events, place)
        made = [] if fact is None else [ticket.record(fact, event.at)]
        following = events[place + len(made)].event if place + len(made) < len(events) else None
        if isinstance(following, Quarantined):
            made.append(ticket.quarantine(following.error, following.at))  # the fault may be mended by now
        elif isinstance(event, Released):
            made = [ticket.release(event.at)]
        made += ticket.decide(versions, event.at, historic_after, fact.id if fact else None)
        for again, logged in zip_longest(made, events[place : place + max(len(made), 1)]):
            if again is None or logged is None or not is_same(again.event, logged.event):
                sides = select_unlike(
                    get_fields(again.event) if again else None, get_fields(logged.event) if logged else None
                )
                return Discrepancy(f"ticket {ticket.id}, event {place + 1}", *sides)
            place += 1
    return None


def guess_historic_after(ticket: TicketSla, events: Sequence[LoggedEvent], place: int) -> timedelta:
    """
    Return a setting with which what was decided at this instant comes out as stored: breaches and answers that are
    historic or not, and thresholds that were warned of or passed over.
    """
    at = events[place][0].at
    found = [event for event, _ in takewhile(lambda logged: logged.event.at == at, events[place:])]
    about = [(event, instant) for event in found if (instant := find_judged_instant(event)) is not None]
    if not any(is_historic(ticket, event) for event in found):
        return NEVER_HISTORIC
    learned_at = ticket.learned_at or at
    spans = [learned_at - instant for event, instant in about if not is_historic(ticket, event)]
    return max(spans, default=timedelta(0))


def find_judged_instant(event: Event) -> datetime | None:
    """Return the instant that is historic or not, of an event about one."""
    match event:
        case Breached(breached_at=instant) | Fulfilled(responded_at=instant) | WarningRaised(time=instant):
            return instant
        case _:
            return None


def is_historic(ticket: TicketSla, event: Event) -> bool:
    """Return whether an event is about what was long ago, or passes over the warning of it."""
    match event:
        case Breached(detection=detection) | Fulfilled(detection=detection):
            return detection == "historic"
        case StateUpdated():
            key = event.objective, event.cycle
            before = ticket.first if event.objective == FIRST_RESPONSE else ticket.others.get(key)
            return before is not None and not set(event.state.warned) <= set(before.state.warned)
        case _:
            return False


def is_same(made: Event, kept: Event) -> bool:
    return made == kept or decode_event(made.TOPIC, encode_event(made)) == kept


def get_fields(event: Event) -> dict[str, Any]:
    return {"topic": event.TOPIC, **msgspec.to_builtins(event)}


def select_unlike(expected: dict[str, Any] | None, stored: dict[str, Any] | None) -> tuple[str, str]:
    """Return what each side has in the fields in which they differ."""
    one, other = flatten_state(expected or {}), flatten_state(stored or {})
    names = [name for name in one | other if one.get(name) != other.get(name)]
    texts = [", ".join(f"{name} {quote_value(side.get(name))}" for name in names) for side in (one, other)]
    return (texts[0] if expected else "nothing", texts[1] if stored else "nothing")


def flatten_state(fields: dict[str, Any]) -> dict[str, Any]:
    """Make the fields of a state fields of their own, also if the state is written as JSON."""
    state = fields.get("state")
    try:
        inner = msgspec.json.decode(state, type=dict[str, Any]) if isinstance(state, str | bytes) else state
    except msgspec.DecodeError:
        return fields
    rest = {name: value for name, value in fields.items() if name != "state"}
    return rest | {f"state.{name}": value for name, value in (inner or {}).items()}


def open_temporary_database() -> sqlite3.Connection:
    """Open a database of its own, which SQLite keeps in memory, and on the disk what is too much for that."""
    database = sqlite3.connect("", isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-64000"):
        database.execute(f"PRAGMA {setting}")
    database.execute("BEGIN")
    return database


def drop_zero_sums(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[Row]:
    if "n" not in columns:
        return iter(rows)
    return (row for row in rows if row[columns.index("n")] != 0)


def find_unequal(
    expected: Iterator[Row], stored: Iterator[Row], places: Sequence[int]
) -> Iterator[tuple[Row | None, Row | None]]:
    """Yield the pairs of rows that are not equal, from two iterators in the order of their keys; None for no row."""

    def key(row: Row) -> list[tuple[bool, str]]:
        return [(row[place] is not None, str(row[place])) for place in places]  # nothing comes before text in SQLite

    ours, theirs = next(expected, None), next(stored, None)
    while ours is not None or theirs is not None:
        if ours == theirs:
            ours, theirs = next(expected, None), next(stored, None)
        elif theirs is None or (ours is not None and key(ours) < key(theirs)):
            yield ours, None
            ours = next(expected, None)
        elif ours is None or key(theirs) < key(ours):
            yield None, theirs
            theirs = next(stored, None)
        else:
            yield ours, theirs
            ours, theirs = next(expected, None), next(stored, None)
