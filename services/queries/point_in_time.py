"""Which moment a question is about: what was so then (`as of`), and what was known then (`known at`)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile

from services.store.interface import Store
from services.text.formats import format_utc
from sla.log import Recorded
from sla.ticket import TicketSla
from sla.versions import Versions


class NothingKnownError(Exception):
    """Nothing was known, or had happened, at that time; the first of it is of `since`."""

    def __init__(self, what: str, at: datetime, since: datetime) -> None:
        super().__init__(f"{what} at {format_utc(at)}; the first of it is of {format_utc(since)}")
        self.since = since


@dataclass(frozen=True)
class PointInTime:
    """
    A bitemporal instant, asked about at `now`. `as_of` is valid time: judge what had happened by then. `known_at` is
    transaction time: of the log, only what was recorded by then. Both: what was then believed to have been so, or to
    be if nothing else happened. Neither is the present. Raises ValueError for a `known_at` that lies ahead.
    """

    as_of: datetime | None = None
    known_at: datetime | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.known_at is not None and self.known_at > self.now:
            raise ValueError(
                f"{format_utc(self.known_at)} lies ahead; what we will believe then nobody knows yet: --known-at is at "
                "most now, and --as-of may lie ahead"
            )

    @property
    def at(self) -> datetime:
        """The instant the answer is about."""
        return self.as_of or self.known_at or self.now

    @property
    def is_now(self) -> bool:
        """Whether it is about the present, as it is known at present."""
        return self.as_of is None and self.known_at is None

    def select_known(self, events: Iterable[Recorded]) -> list[Recorded]:
        """Return what was recorded of one ticket by then."""
        known_at = self.known_at
        if known_at is None:
            return list(events)
        return list(takewhile(lambda recorded: recorded.event.at <= known_at, events))

    def replay_ticket(self, known: list[Recorded], versions: Versions) -> TicketSla:
        """
        Return the ticket of at least one known event: as it was decided, or with `as_of` as a tick at that instant
        would have left it. Raises NothingKnownError if nothing of it had happened.
        """
        found = TicketSla.replay(None, known)
        assert found is not None
        if self.as_of is None:
            return found
        first = found.facts.every[0].time
        if first > self.as_of:
            raise NothingKnownError(f"nothing had happened to ticket {found.id!r}", self.as_of, first)
        then = TicketSla(found.id, facts=found.facts)
        then.decide(versions, self.as_of)
        return then


def read_known_history(store: Store, ticket: str, when: PointInTime) -> list[Recorded] | None:
    """
    Read what was known of a ticket; None if nothing ever was. Raises NothingKnownError if nothing was then, but later.
    """
    for _, events in store.read_histories([ticket]):
        known = when.select_known(events)
        if not known:
            assert when.known_at is not None
            raise NothingKnownError(f"nothing was known of ticket {ticket!r}", when.known_at, events[0].event.at)
        return known
    return None


def iterate_known_histories(store: Store, when: PointInTime) -> Iterator[list[Recorded]]:
    """
    Yield what was known of each ticket of which anything was; the whole log is read. Raises NothingKnownError if
    nothing was known of any, but later.
    """
    first = store.read_log_entries(0, 1)
    if when.known_at is not None and first and first[0].event.at > when.known_at:
        raise NothingKnownError("nothing was known", when.known_at, first[0].event.at)
    for some in store.read_ticket_ids():
        for _, events in store.read_histories(some):
            if known := when.select_known(events):
                yield known


def iterate_tickets(store: Store, when: PointInTime, versions: Versions) -> Iterator[tuple[TicketSla, list[Recorded]]]:
    """
    Yield each ticket of which something was known and had happened, with what was known of it. Raises
    NothingKnownError if there is none but later.
    """
    begins: set[datetime] = set()
    for known in iterate_known_histories(store, when):
        try:
            ticket = when.replay_ticket(known, versions)
        except NothingKnownError as nothing:
            begins.add(nothing.since)
        else:
            begins.add(when.at)
            yield ticket, known
    if begins and min(begins) > when.at:
        raise NothingKnownError("nothing had happened", when.at, min(begins))
