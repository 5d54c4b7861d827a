"""Which moment a question is about: what was so then (`as of`), and what was known then (`known at`)."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple, Self

from services.store.interface import Store
from services.text.formats import format_utc
from sla.log import Recorded
from sla.ticket import TicketSla
from sla.versions import Versions


class NothingKnownError(Exception):
    """There was nothing to tell of at that time, but there is `since`."""

    def __init__(self, what: str, at: datetime, since: datetime) -> None:
        super().__init__(f"{what} at {format_utc(at)}; the first of it is of {format_utc(since)}")
        self.since = since


class PointInTime(NamedTuple):
    """
    Asked at `now`. `as_of`: judge what had happened by then. `known_at`: of the log, only what was recorded by then.
    Both: what we then thought had been so, or would be if nothing else happened.
    """

    as_of: datetime | None
    known_at: datetime | None
    now: datetime

    @property
    def at(self) -> datetime:
        """The instant the answer is about."""
        return self.as_of or self.known_at or self.now

    @property
    def is_now(self) -> bool:
        """Is it about the present, as it is known at present?"""
        return self.as_of is None and self.known_at is None

    def check(self) -> Self:
        """Raises ValueError for what nobody can know."""
        if self.known_at is not None and self.known_at > self.now:
            raise ValueError(
                f"{format_utc(self.known_at)} lies ahead; what we will believe then nobody knows yet: --known-at is at "
                "most now, and --as-of may lie ahead"
            )
        return self

    def select_known(self, events: Iterable[Recorded]) -> list[Recorded]:
        """What was recorded of one ticket by then."""
        if self.known_at is None:
            return list(events)
        known_at = self.known_at
        return list(takewhile(lambda recorded: recorded.event.at <= known_at, events))

    def replay_ticket(self, known: list[Recorded], versions: Versions) -> TicketSla:
        """
        The ticket of at least one event that was known: as it was decided, or with `as_of` as a tick at that instant
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
        then.tick(versions, self.as_of)
        return then


def read_known_history(store: Store, ticket: str, when: PointInTime) -> list[Recorded] | None:
    """What was known of a ticket; None if nothing ever was. Raises NothingKnownError if nothing was then."""
    for _, events in store.read_histories([ticket]):
        known = when.select_known(events)
        if not known:
            assert when.known_at is not None
            raise NothingKnownError(f"nothing was known of ticket {ticket!r}", when.known_at, events[0].event.at)
        return known
    return None


def iterate_known_histories(store: Store, when: PointInTime) -> Iterator[list[Recorded]]:
    """What was known of each ticket of which anything was. Raises NothingKnownError if nothing was of any."""
    first = store.read_log_entries(0, 1)
    if when.known_at is not None and first and first[0].event.at > when.known_at:
        raise NothingKnownError("nothing was known", when.known_at, first[0].event.at)
    for some in store.read_ticket_ids():
        for _, events in store.read_histories(some):
            if known := when.select_known(events):
                yield known


def iterate_tickets(store: Store, when: PointInTime, versions: Versions) -> Iterator[tuple[TicketSla, list[Recorded]]]:
    """
    Each ticket of which something was known and had happened, and what was known of it. Raises NothingKnownError if
    there is none but later.
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
