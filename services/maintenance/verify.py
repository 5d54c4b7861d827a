"""`sla verify`: does the store say what follows from its facts? Every ticket judged again, every view folded again."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, takewhile, zip_longest
from operator import itemgetter
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
from sla.engine import InboxRow
from sla.log import Breached, Event, FactRecorded, LogRow
from sla.policy import Policy
from sla.ticket import NO_LIMIT, TicketSla
from sla.versions import Version, Versions

SHOWN = 20  # differences that are kept to be shown; all are counted
VERIFY_BATCH = 1_000
UNREADABLE = (StoreError, msgspec.MsgspecError, KeyError, TypeError, ValueError)  # what tampered events lead to

Row = tuple[Any, ...]


class StoredDecision(NamedTuple):
    """An event of the log; `fact` is what it was when it arrived, if it is one."""

    event: Event
    fact: TicketEvent | None


class Discrepancy(NamedTuple):
    """Where the store does not say what follows from its facts."""

    where: str
    expected: str
    stored: str


def store_result(database: Database, found: Verification) -> str | None:
    """Stores the result for the metrics; why not, if the store cannot be written."""
    try:
        with closing(database.open()) as store:
            store.save_verification(found)
    except (StoreError, PersistenceError, sqlite3.Error) as error:
        return str(error)
    return None


class Verify:
    """
    Compares a whole store, in one picture of it, with what follows from its facts. `views` and `tickets` do the work,
    and yield how many events they have done. A ticket counts once, with its first difference: the rest follows from it.

    From the version of the policy that was in force, and the instants that were stored, each decision has to come out
    as it was stored, with its id. One thing depends on a setting that nobody recorded: whether a breach that was over
    when the engine first heard of the ticket counted as historic (SLA_HISTORIC_AFTER). Either is accepted there, so
    that a changed setting is no difference; a breach that the engine could have seen must not be historic.

    A tick that never came is not missed in here: that a clock is behind is for the metrics to say.
    """

    def __init__(self, stored: Snapshot, views: Iterable[type[Projection]]) -> None:
        self._stored, self._spare = stored, open_spare()
        self._views = [view() for view in views]
        self.head, self.tickets_seen, self.differences = 0, 0, 0
        self.first: list[Discrepancy] = []
        self._versions = Versions([])
        with self._catch_unreadable("log"):
            self.head = self._read_one("SELECT max(rowid) FROM stored_events") or 0
            self._versions = Versions(self._read_versions())

    def to_verification(self) -> Verification:
        """What is kept in the store."""
        return Verification(datetime.now(UTC), self.tickets_seen, self.differences)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        first = [difference._asdict() for difference in self.first]
        return {"differences": self.differences, "tickets": self.tickets_seen, "events": self.head, "first": first}

    def summarise(self) -> str:
        """For people, on one line."""
        more = f", of which {len(self.first)} are shown" if self.differences > len(self.first) else ""
        return f"{self.differences:,} differences{more}; {self.tickets_seen:,} tickets, {self.head:,} events"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Gives back the disk that the folded views took."""
        self._spare.close()

    def _add_discrepancy(self, where: str, expected: str, stored: str) -> None:
        self.differences += 1
        if len(self.first) < SHOWN:
            self.first.append(Discrepancy(where if where.isprintable() else ascii(where), expected, stored))

    def _read_one(self, statement: str, *parameters: object) -> Any:
        row = self._stored.execute(statement, parameters).fetchone()
        return None if row is None else row[0]

    def _read_versions(self) -> Iterator[Version]:
        for name, fingerprint, published_at, effective_from, material, resolved in self._stored.execute(
            "SELECT version, fingerprint, published_at, effective_from, material, resolved "
            "FROM policy_versions LEFT JOIN policies USING (fingerprint)"
        ):
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
        """A part of the file that is broken is a difference, and ends only the work that reads it."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"{what}: {error}") from None
        except sqlite3.DatabaseError as error:
            self._add_discrepancy(what, "a part of the store that can be read", str(error))

    # ---- views: the log and the inbox folded again, up to where each view stands

    def check_projections(self) -> Iterator[int]:
        """Folds every view again beside the store, and compares the tables."""
        for source, rows in (("log", self._log), ("inbox", self._read_inbox)):
            with self._catch_unreadable(source):
                views = {view: self._read_position(view) for view in self._views if view.source == source}
                yield from self._fold(views, rows())
                for table in (table for view in views for table in view.tables):
                    with self._catch_unreadable(table):
                        self._compare(table, self._read_key(table), table, table)

    def _read_position(self, view: Projection) -> int:
        position: int | None = self._read_one("SELECT position FROM positions WHERE name = ?", view.name)
        end = self.head if view.source == "log" else self._read_one("SELECT max(sequence) FROM inbox") or 0
        if position is None or position > end:
            self._add_discrepancy(f"view {view.name}", f"a position up to {end}", f"position {position}")
        return position or 0

    def _fold(self, views: dict[Projection, int], rows: Iterator[Any]) -> Iterator[int]:
        """A view that cannot take what the log has is left out of `views`: there is nothing to compare it with."""
        cursor = self._spare.cursor()
        for view in views:
            view.create_tables(cursor)
        while batch := list(islice(rows, VERIFY_BATCH)):
            for view, position in list(views.items()):
                try:
                    view.apply(cursor, [row for row in batch if row[0] <= position])
                except (*UNREADABLE, sqlite3.IntegrityError) as error:
                    self._add_discrepancy(f"view {view.name}", "a log that can be folded", explain_error(error))
                    del views[view]
            if isinstance(batch[-1], LogRow):
                yield batch[-1].position

    def _log(self) -> Iterator[LogRow]:
        """The log in its order. That an event cannot be read is for `tickets` to say; that one is gone is said here."""
        before = 0
        for position, ticket, topic, state in self._stored.execute(
            "SELECT rowid, originator_id, topic, state FROM stored_events ORDER BY rowid"
        ):
            if position != before + 1:
                self._add_discrepancy("log", f"event {before + 1}", f"event {position} comes next")
            before = position
            try:
                decode_event(topic, state)
            except UNREADABLE:
                continue
            yield LogRow(position, ticket, topic, state)

    def _read_inbox(self) -> Iterator[InboxRow]:
        return (InboxRow(*row) for row in self._stored.execute("SELECT * FROM inbox ORDER BY sequence"))

    def _read_key(self, table: str) -> list[str]:
        found = self._spare.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,))
        return [name for (name,) in found]

    def _compare(self, name: str, key: Sequence[str], expected: str, stored: str) -> None:
        """The rows of a table beside the store with those of one in it. A sum of 0 is as good as none."""
        order = ", ".join(key)
        ours = self._spare.execute(f"SELECT * FROM {expected} ORDER BY {order}")
        theirs = self._stored.execute(f"SELECT * FROM {stored} ORDER BY {order}")
        columns = [column for column, *_ in ours.description]
        places = [columns.index(column) for column in key]
        for pair in find_unequal(count_rows(columns, ours), count_rows(columns, theirs), places):
            row = pair[0] or pair[1] or ()
            where = " ".join(str(row[place]) for place in places if row[place] != "")
            one, other = (dict(zip(columns, row, strict=True)) if row else None for row in pair)
            self._add_discrepancy(f"{name} {where}", *select_unlike(one, other))

    # ---- tickets: each judged again, and its facts against the inbox

    def check_tickets(self) -> Iterator[int]:
        """Judges every ticket again, in the order of their ids; then compares all facts with the inbox."""
        self._spare.execute("CREATE TABLE facts (ticket TEXT, fact_key TEXT, digest TEXT)")
        with self._catch_unreadable("log"):
            yield from self._judge_all()
        inbox = "(SELECT ticket, hex(fact_key) fact_key, hex(digest) digest FROM inbox WHERE outcome = 'recorded') told"
        with self._catch_unreadable("inbox"):
            self._compare("fact", ["ticket", "fact_key"], "facts", inbox)

    def _judge_all(self) -> Iterator[int]:
        rows = self._stored.execute(
            "SELECT originator_id, originator_version, topic, state FROM stored_events "
            "ORDER BY originator_id, originator_version"
        )
        done = 0
        for id, group in groupby(rows, itemgetter(0)):
            events = list(group)
            self.tickets_seen += 1
            if difference := self._judge(id, events):
                self._add_discrepancy(*difference)
            done += len(events)
            if done % VERIFY_BATCH < len(events) or done == self.head:
                yield done

    def _judge(self, id: str, rows: Sequence[Row]) -> Discrepancy | None:
        """The first difference of a ticket. All facts that can be read are noted, whatever else is wrong."""
        events: list[StoredDecision] = []
        difference = None
        for number, (_, version, topic, state) in enumerate(rows, 1):
            where = f"ticket {id}, event {number}"
            if version != number:
                difference = difference or Discrepancy(where, f"event {number}", f"event {version} comes next")
            try:
                events.append(identify_decision(id, decode_event(topic, state)))
            except UNREADABLE as error:
                difference = difference or Discrepancy(where, "an event that can be read", explain_error(error))
        facts = [build_fact_row(fact) for _, fact in events if fact]
        self._spare.executemany("INSERT INTO facts VALUES (?, ?, ?)", facts)
        try:
            return difference or judge_again(TicketSla(id), events, self._versions)
        except Exception as error:  # noqa: BLE001 - whatever tampered events lead to, the next ticket has its turn
            return Discrepancy(f"ticket {id}", "events that can be judged", explain_error(error))


def explain_error(error: Exception) -> str:
    return ascii(error)[:200]


def identify_decision(ticket: str, event: Event) -> StoredDecision:
    if not isinstance(event, FactRecorded):
        return StoredDecision(event, None)
    data = TICKET_EVENT_TYPES[event.type].model_validate(event.data)
    return StoredDecision(
        event, TicketEvent(event.source, event.id, event.type, ticket, event.time, data, event.sequence)
    )


def build_fact_row(fact: TicketEvent) -> tuple[str, str, str]:
    """As the inbox has it, in SQLite's spelling of bytes."""
    return fact.ticket, make_fact_key(fact.source, fact.id).hex().upper(), make_content_digest(fact).hex().upper()


def judge_again(ticket: TicketSla, events: Sequence[StoredDecision], versions: Versions) -> Discrepancy | None:
    """Each fact recorded again, and a tick wherever a decision came without one; the first event that differs."""
    place = 0
    while place < len(events):
        event, fact = events[place]
        historic_after = guess_historic_after(ticket, events, place)
        made = [] if fact is None else [ticket.record(fact, event.at)]
        made += ticket.decide(versions, event.at, historic_after, fact.id if fact else None)
        for again, told in zip_longest(made, events[place : place + max(len(made), 1)]):
            if again is None or told is None or not is_same(again.event, told.event):
                sides = select_unlike(
                    get_fields(again.event) if again else None, get_fields(told.event) if told else None
                )
                return Discrepancy(f"ticket {ticket.id}, event {place + 1}", *sides)
            place += 1
    return None


def guess_historic_after(ticket: TicketSla, events: Sequence[StoredDecision], place: int) -> timedelta:
    """A setting with which the breaches decided at this instant count as historic, or do not, as they were stored."""
    at = events[place][0].at
    same = takewhile(lambda told: told.event.at == at, events[place:])
    found = [event for event, _ in same if isinstance(event, Breached)]
    if not any(event.detection == "historic" for event in found):
        return NO_LIMIT
    learned_at = ticket.learned_at or at
    return max([learned_at - each.breached_at for each in found if each.detection != "historic"], default=timedelta(0))


def is_same(made: Event, kept: Event) -> bool:
    return made == kept or decode_event(made.TOPIC, encode_event(made)) == kept


def get_fields(event: Event) -> dict[str, Any]:
    return {"topic": event.TOPIC, **msgspec.to_builtins(event)}


def select_unlike(expected: dict[str, Any] | None, stored: dict[str, Any] | None) -> tuple[str, str]:
    """What each side has in the fields in which they differ."""
    one, other = flatten_state(expected or {}), flatten_state(stored or {})
    names = [name for name in one | other if one.get(name) != other.get(name)]
    said = [", ".join(f"{name} {quote_value(side.get(name))}" for name in names) for side in (one, other)]
    return (said[0] if expected else "nothing", said[1] if stored else "nothing")


def flatten_state(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a state become fields of their own, also if the state is written as JSON."""
    state = fields.get("state")
    try:
        inner = msgspec.json.decode(state, type=dict[str, Any]) if isinstance(state, str | bytes) else state
    except msgspec.DecodeError:
        return fields
    rest = {name: value for name, value in fields.items() if name != "state"}
    return rest | {f"state.{name}": value for name, value in (inner or {}).items()}


def open_spare() -> sqlite3.Connection:
    """A database of its own that SQLite keeps in memory, and on the disk what is too much for that."""
    spare = sqlite3.connect("", isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-64000"):
        spare.execute(f"PRAGMA {setting}")
    spare.execute("BEGIN")
    return spare


def count_rows(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[Row]:
    if "n" not in columns:
        return iter(rows)
    return (row for row in rows if row[columns.index("n")] != 0)


def find_unequal(
    expected: Iterator[Row], stored: Iterator[Row], places: Sequence[int]
) -> Iterator[tuple[Row | None, Row | None]]:
    """Pairs of rows that are not equal, from two iterators in the order of their keys; None where there is none."""

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
