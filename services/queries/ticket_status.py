"""The status of a ticket, and of all that wait. What is decided is in sla/, how it is shown in cli/ and board/."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from heapq import nsmallest
from typing import NamedTuple

from events.promises import to_seconds
from projections.runner import catch_up
from projections.tickets import Tickets, get_open_until
from services.errors import ReadOnlyError
from services.queries.point_in_time import PointInTime, iterate_tickets, read_known_history
from services.store.interface import Store
from sla.calendar import SupportHours
from sla.decisions import Promise
from sla.log import Quarantined, State
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import Versions

NO_ROW_LIMIT = 2**63 - 1


class TicketStatus(NamedTuple):
    """
    The status of a ticket: its state as decided, the number of its facts, its policy (None while it is pending), and
    what is promised beside the first response. While it is `quarantined` its state is as it was before, and nothing is
    judged.
    """

    ticket: str
    state: State
    facts: int
    policy: Policy | None
    others: tuple[Promise, ...] = ()
    quarantined: Quarantined | None = None

    @property
    def hours(self) -> SupportHours | None:
        """The support hours its first response is judged by; None while it is pending."""
        state = self.state
        if self.policy is None or state.service_level is None or state.started_at is None:
            return None
        level, priority = state.judged
        return self.policy.get_target(level or "", priority or "").hours

    def measure_elapsed(self, now: datetime) -> timedelta | None:
        """Return the support time used until the first response, an exclusion, or now; None while it is pending."""
        state, hours = self.state, self.hours
        if hours is None or state.started_at is None:
            return None
        if state.stopped:
            return state.used
        return state.used + hours.measure(state.since or state.started_at, state.responded_at or now)

    def measure_left(self, now: datetime) -> timedelta | None:
        """Return the wall time until the deadline, negative after it; None if nobody waits for one."""
        due_at = self.state.due_at
        return None if due_at is None or self.state.stage != "running" else due_at - now

    def get_label(self, now: datetime) -> str:
        """Return the stage as people say it (docs/policy.md), with the reason of one that has a reason."""
        state = self.state
        if self.quarantined is not None:
            return "quarantined"
        match state.stage, state.met:
            case "fulfilled", met:
                return "met" if met else "answered late"
            case "running", _ if state.breached_at is not None:
                return "breached"
            case "running", _ if state.at_risk_at is not None and state.at_risk_at <= now:
                return "at risk"
            case "running", _:
                return "on track"
            case stage, _:
                return f"{stage}: {state.reason}" if state.reason else stage

    def to_json(self, now: datetime) -> dict[str, object]:
        """
        Return the ticket as the API has it (services/board/openapi.yaml): instants in UTC, spans in seconds of support
        time, None for what is not known.
        """
        state = self.state
        return {
            "ticket_id": self.ticket,
            "service_level": state.service_level,
            "priority": state.priority,
            "stage": state.stage,
            "breached": state.breached_at is not None,
            "breached_at": state.breached_at,
            "breaches": int(state.breached_at is not None),
            "started_at": state.started_at,
            "due_at": state.due_at,
            "target_seconds": convert_to_seconds(state.target),
            "elapsed_seconds": convert_to_seconds(self.measure_elapsed(now)),
            "responded_at": state.responded_at,
            "met": state.met,
            "overdue_seconds": convert_to_seconds(state.overdue),
            "escalation_level": state.escalation_level,
            "policy_version": state.policy_version,
            "facts": self.facts,
            "reason": state.reason,
            "flags": list(state.flags),
            "quarantined_at": self.quarantined.at if self.quarantined else None,
            "objectives": [_encode_objective(promise) for promise in self.others],
        }


def _encode_objective(promise: Promise) -> dict[str, object]:
    """Return what `to_json` has of one other objective; `stopped_at` is when it was answered or closed."""
    state = promise.state
    return {
        "objective": promise.objective,
        "cycle": promise.cycle,
        "stage": state.stage,
        "breached": state.breached_at is not None,
        "breached_at": state.breached_at,
        "started_at": state.started_at,
        "due_at": state.due_at,
        "target_seconds": convert_to_seconds(state.target),
        "stopped_at": state.responded_at,
        "met": state.met,
        "overdue_seconds": convert_to_seconds(state.overdue),
        "reason": state.reason,
    }


def convert_to_seconds(length: timedelta | None) -> int | float | None:
    """Return a span as JSON has it; None for none."""
    return None if length is None else to_seconds(length)


def read_ticket_status(store: Store, ticket: str, when: PointInTime) -> TicketStatus | None:
    """
    Read one ticket, replayed from its events, so that it is never behind; None if nothing is known of it. Raises
    NothingKnownError for a time before its first event.
    """
    known = read_known_history(store, ticket, when)
    if known is None:
        return None
    versions = store.read_versions()
    return build_ticket_status(when.replay_ticket(known, versions), versions, when)


def build_ticket_status(ticket: TicketSla, versions: Versions, when: PointInTime) -> TicketStatus:
    """Return the status at that time: as it was decided, and with `as_of` only with the facts that had happened."""
    state = ticket.state
    policy = versions.get_named(state.policy_version) if state.policy_version else None
    facts = len(ticket.facts) if when.as_of is None else sum(fact.time <= when.as_of for fact in ticket.facts)
    return TicketStatus(ticket.id, state, facts, policy, _list_other_promises(ticket), ticket.quarantined)


def _list_other_promises(ticket: TicketSla) -> tuple[Promise, ...]:
    return tuple(promise for _, promise in sorted(ticket.others.items()))


def list_waiting(store: Store, when: PointInTime, limit: int | None = None) -> Iterator[TicketStatus]:
    """
    Yield the open tickets by time left, least first; the pending ones last. At another time than now the whole log is
    read. Raises NothingKnownError for a time before the first event.
    """
    if not when.is_now:
        yield from _list_waiting_then(store, when, limit)
        return
    view = Tickets()
    with suppress(ReadOnlyError):  # then it is as far as the processes that catch it up are
        catch_up(store, view)
    with store.read_view() as cursor:
        rows = view.list_open(cursor, NO_ROW_LIMIT if limit is None else limit)
    policy = cache(store.read_policy)
    tickets: dict[str, TicketSla] = {}
    if any(len(version.policy.objectives) > 1 for version in store.read_versions()):
        tickets = store.load_tickets(row.ticket for row in rows)
    for row in rows:
        fingerprint = row.state.policy_fingerprint
        others = _list_other_promises(tickets[row.ticket]) if row.ticket in tickets else ()
        yield TicketStatus(row.ticket, row.state, row.facts, policy(fingerprint) if fingerprint else None, others)


def _list_waiting_then(store: Store, when: PointInTime, limit: int | None) -> Iterator[TicketStatus]:
    versions = store.read_versions()
    found = (build_ticket_status(ticket, versions, when) for ticket, _ in iterate_tickets(store, when, versions))
    waits = ((until, each.ticket, each) for each in found if (until := get_open_until(each.state)) is not None)
    for _, _, each in nsmallest(NO_ROW_LIMIT if limit is None else limit, waits):
        yield each
