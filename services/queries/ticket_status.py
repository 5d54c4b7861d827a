"""What `sla show` and `sla list` say of a ticket. What is decided about it is in sla/, how it looks in screen.py."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import nsmallest
from typing import NamedTuple

from events.promises import to_seconds
from projections.runner import catch_up
from projections.tickets import Tickets, get_open_until
from services.errors import ReadOnlyError
from services.queries.point_in_time import PointInTime, iterate_tickets, read_known_history
from services.store.interface import Store
from services.text.formats import format_span, format_time_left, format_wall_time, format_wall_time_briefly
from sla.decisions import Promise
from sla.judge import judge
from sla.log import State
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import Versions

ALL = 2**63 - 1
COLUMNS = ("ticket", "state", "level", "priority", "due", "left")


class TicketStatus(NamedTuple):
    """
    How a ticket stands: its state as decided, the number of its facts, its policy (None while it is pending), and what
    is promised beside the first response. `used` is the support time used before it was excluded, if it is.
    """

    ticket: str
    state: State
    facts: int
    policy: Policy | None
    others: tuple[Promise, ...] = ()
    used: timedelta | None = None

    def measure_elapsed(self, now: datetime) -> timedelta | None:
        """Support time used until the first response, an exclusion, or now; None while the ticket is pending."""
        state = self.state
        if self.used is not None:
            return self.used
        if self.policy is None or state.service_level is None or state.started_at is None:
            return None
        if state.stopped:
            return state.used
        hours = self.policy.get_level(state.judged_as or state.service_level).hours
        return state.used + hours.measure(state.since or state.started_at, state.responded_at or now)

    def measure_left(self, now: datetime) -> timedelta | None:
        """Time on the wall clock until the deadline, negative after it; None if nobody waits for one."""
        due_at = self.state.due_at
        return None if due_at is None or self.state.stage != "running" else due_at - now

    def get_label(self, now: datetime) -> str:
        """The stage for people. Section 4."""
        state = self.state
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
        """The object of section 5: instants in UTC, spans in seconds of support time, None for what is not known."""
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
            "target_seconds": _convert_to_seconds(state.target),
            "elapsed_seconds": _convert_to_seconds(self.measure_elapsed(now)),
            "responded_at": state.responded_at,
            "met": state.met,
            "overdue_seconds": _convert_to_seconds(state.overdue),
            "escalation_level": state.escalation_level,
            "policy_version": state.policy_version,
            "facts": self.facts,
            "reason": state.reason,
            "flags": list(state.flags),
            "objectives": [_describe_objective(promise) for promise in self.others],
        }

    def to_fields(self, now: datetime) -> list[tuple[str, str]]:
        """What `sla show` tells people; wall times are those of the policy's zone."""
        state, zone = self.state, self.policy.zone if self.policy else None
        return [
            ("ticket", self.ticket),
            ("state", self.get_label(now)),
            ("service level", state.service_level or "-"),
            ("priority", state.priority or "-"),
            ("opened", format_wall_time(state.started_at, zone)),
            ("due", format_wall_time(state.due_at, zone)),
            ("time left", format_time_left(self.measure_left(now))),
            ("target", format_span(state.target)),
            ("used", format_span(self.measure_elapsed(now))),
            ("breached", format_wall_time(state.breached_at, zone)),
            ("responded", format_wall_time(state.responded_at, zone)),
            ("overdue", format_span(state.overdue)),
            ("escalations", str(state.escalation_level)),
            ("policy", f"{self.policy.name} {state.policy_version}" if self.policy else "-"),
            ("facts", str(self.facts)),
            ("look at", ", ".join(state.flags) or "-"),
            *((f"{each.objective} {each.cycle}", _format_objective(each.state, zone)) for each in self.others),
        ]

    def to_row(self, now: datetime) -> tuple[str, ...]:
        """What `sla list` tells people, in the order of COLUMNS."""
        state, zone = self.state, self.policy.zone if self.policy else None
        level, priority = state.service_level or "-", state.priority or "-"
        return (
            self.ticket,
            self.get_label(now),
            level,
            priority,
            format_wall_time_briefly(state.due_at, zone),
            format_time_left(self.measure_left(now)),
        )


def _describe_objective(promise: Promise) -> dict[str, object]:
    """As the object of a ticket, for one other objective; `stopped_at` is when it was answered or closed."""
    state = promise.state
    return {
        "objective": promise.objective,
        "cycle": promise.cycle,
        "stage": state.stage,
        "breached": state.breached_at is not None,
        "breached_at": state.breached_at,
        "started_at": state.started_at,
        "due_at": state.due_at,
        "target_seconds": _convert_to_seconds(state.target),
        "stopped_at": state.responded_at,
        "met": state.met,
        "overdue_seconds": _convert_to_seconds(state.overdue),
        "reason": state.reason,
    }


def _format_objective(state: State, zone: str | None) -> str:
    """On one line, for people."""
    word = {True: "met", False: "late"}.get(state.met, state.stage) if state.met is not None else state.stage
    broken = ", breached" if state.breached_at is not None and state.met is None else ""
    return f"{word}{broken}, due {format_wall_time(state.due_at, zone)}"


def _convert_to_seconds(length: timedelta | None) -> int | float | None:
    return None if length is None else to_seconds(length)


def read_ticket_status(
    store: Store,
    ticket: str,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    now: datetime | None = None,
) -> TicketStatus | None:
    """
    One ticket, replayed from its events, so that it is never behind; None if nothing is known of it. Raises ValueError
    for a `known_at` that lies ahead, NothingKnownError for a time before its first event.
    """
    when = PointInTime(as_of, known_at, now or datetime.now(UTC)).check()
    known = read_known_history(store, ticket, when)
    if known is None:
        return None
    versions = store.read_versions()
    return build_ticket_status(when.replay_ticket(known, versions), versions, when)


def build_ticket_status(ticket: TicketSla, versions: Versions, when: PointInTime) -> TicketStatus:
    """The ticket at that time: as it was decided, and with `as_of` only with the facts that had happened."""
    state = ticket.state
    policy = versions.get_named(state.policy_version) if state.policy_version else None
    facts = len(ticket.facts) if when.as_of is None else sum(fact.time <= when.as_of for fact in ticket.facts)
    used = None
    if state.stage == "excluded" and (clock := judge(ticket.facts, versions, when.at).clock):
        used = clock.measure_elapsed(clock.find_end(when.at))
    return TicketStatus(ticket.id, state, facts, policy, _list_other_promises(ticket), used)


def _list_other_promises(ticket: TicketSla) -> tuple[Promise, ...]:
    return tuple(promise for _, promise in sorted(ticket.others.items()))


def list_waiting(
    store: Store,
    limit: int | None,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    now: datetime | None = None,
) -> Iterator[TicketStatus]:
    """
    The open tickets by time left, least first; the pending ones last. At another time than now the whole log is read.
    Raises as `standing` does.
    """
    when = PointInTime(as_of, known_at, now or datetime.now(UTC)).check()
    if not when.is_now:
        yield from _list_waiting_then(store, limit, when)
        return
    view = Tickets()
    with suppress(ReadOnlyError):  # then it is as far as those who follow it are
        catch_up(store, view)
    with store.read_view() as cursor:
        rows = view.list_open(cursor, ALL if limit is None else limit)
    policy = cache(store.read_policy)
    tickets: dict[str, TicketSla] = {}
    if any(len(version.policy.objectives) > 1 for version in store.read_versions()):
        tickets = store.load_tickets(row.ticket for row in rows)
    for row in rows:
        fingerprint = row.state.policy_fingerprint
        others = _list_other_promises(tickets[row.ticket]) if row.ticket in tickets else ()
        yield TicketStatus(row.ticket, row.state, row.facts, policy(fingerprint) if fingerprint else None, others)


def _list_waiting_then(store: Store, limit: int | None, when: PointInTime) -> Iterator[TicketStatus]:
    """Those that were open then."""
    versions = store.read_versions()
    found = (build_ticket_status(ticket, versions, when) for ticket, _ in iterate_tickets(store, when, versions))
    waits = ((until, each.ticket, each) for each in found if (until := get_open_until(each.state)) is not None)
    for _, _, each in nsmallest(ALL if limit is None else limit, waits):
        yield each
