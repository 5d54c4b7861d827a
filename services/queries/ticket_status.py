"""The status of a promise, of a ticket, and of all that wait. What is decided is in sla/, how it looks in cli/."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from heapq import nsmallest
from typing import NamedTuple

from events.cloudevents import quote_value
from events.promises import to_seconds
from projections.promises import NO_LEVEL, OPEN_STAGES, PromiseFilter, PromiseKey, PromiseRow, Promises, is_at_risk
from projections.runner import catch_up
from services.errors import ReadOnlyError
from services.queries.point_in_time import PointInTime, iterate_tickets, read_known_history
from services.store.interface import Store
from sla.calendar import SupportHours
from sla.decisions import Promise
from sla.judge import Cause
from sla.log import Quarantined, State
from sla.policy import FIRST_RESPONSE, Policy
from sla.ticket import TicketSla
from sla.versions import Versions

ANY_OPEN = PromiseFilter(state="open")


class PromiseStatus(NamedTuple):
    """
    The status of a promise: its state as decided, the number of facts of its ticket, and its policy (None while it is
    pending). While its ticket is `quarantined` its state is as it was before, and nothing is judged.
    """

    key: PromiseKey
    state: State
    facts: int
    policy: Policy | None
    quarantined: Quarantined | None = None

    @property
    def ticket(self) -> str:
        return self.key.ticket

    @property
    def hours(self) -> SupportHours | None:
        """The support hours it is judged by; None while it is pending."""
        level, priority = self.state.judged
        if self.policy is None or level is None or self.state.started_at is None:
            return None
        target = self.policy.find_target(level, priority or "", self.key.objective)
        return None if target is None else target.hours

    @property
    def responded_at(self) -> datetime | None:
        """When somebody responded; None if nobody did, and for a promise that closing the ticket fulfils."""
        rule = self.policy.objectives.get(self.key.objective) if self.policy else None
        return None if rule is not None and rule.stops != "responded" else self.state.responded_at

    def measure_elapsed(self, now: datetime) -> timedelta | None:
        """Return the support time used until it was fulfilled or excluded, or now; None while it is pending."""
        state, hours = self.state, self.hours
        if state.started_at is None or state.due_at is None:
            return None
        if state.stopped or hours is None:
            return state.used
        return state.used + hours.measure(state.since or state.started_at, state.responded_at or now)

    def measure_left(self, now: datetime) -> timedelta | None:
        """Return the wall time until the deadline, negative after it; None if nobody waits for one."""
        due_at = self.state.due_at
        return None if due_at is None or self.state.stage != "running" else due_at - now

    def measure_support_left(self, now: datetime) -> timedelta | None:
        """Return the support time left, negative after the deadline; None if nobody waits for one."""
        state, hours = self.state, self.hours
        if hours is None or state.due_at is None or state.target is None or state.stage not in OPEN_STAGES:
            return None
        if state.stopped:
            return state.target - state.used
        return hours.measure(now, state.due_at) - hours.measure(state.due_at, now)

    def get_label(self, now: datetime) -> str:
        """Return the stage as people say it (docs/policy.md), with the reason of one that has a reason."""
        state = self.state
        if self.quarantined is not None:
            return "quarantined"
        match state.stage, state.met:
            case "fulfilled", met:
                return "met" if met else "answered late" if self.responded_at else "closed late"
            case "running", _ if state.breached_at is not None:
                return "breached"
            case "running", _:
                return "at risk" if is_at_risk(state, now) else "on track"
            case "cancelled", _ if state.reason == Cause.NO_PROMISE:
                return "no promise"
            case stage, _:
                return f"{stage}: {state.reason}" if state.reason else stage

    def to_json(self, now: datetime) -> dict[str, object]:
        """
        Return the promise as the API has it (services/board/openapi.yaml): instants in UTC, spans in seconds of support
        time, None for what is not known. Level and priority are those it is judged by.
        """
        state = self.state
        level, priority = state.judged
        return {
            "ticket_id": self.ticket,
            "service_level": level,
            "priority": priority,
            "stage": state.stage,
            "breached": state.breached_at is not None,
            "breached_at": state.breached_at,
            "breaches": int(state.breached_at is not None),
            "started_at": state.started_at,
            "due_at": state.due_at,
            "target_seconds": convert_to_seconds(state.target),
            "elapsed_seconds": convert_to_seconds(self.measure_elapsed(now)),
            "responded_at": self.responded_at,
            "met": state.met,
            "overdue_seconds": convert_to_seconds(state.overdue),
            "escalation_level": state.escalation_level,
            "policy_version": state.policy_version,
            "facts": self.facts,
            "objective": self.key.objective,
            "cycle": self.key.cycle,
            "fulfilled_at": state.responded_at,
            "kept": state.kept,
            "customer": state.customer,
            "title": state.title,
            "url": state.url,
            "team": state.team,
            "assignee": state.assignee,
            "reason": state.reason,
            "flags": list(state.flags),
            "quarantined_at": self.quarantined.at if self.quarantined else None,
        }


class TicketStatus(NamedTuple):
    """The status of a ticket: that of its first response, and of every other promise, by objective and cycle."""

    first: PromiseStatus
    others: tuple[PromiseStatus, ...]

    @property
    def promises(self) -> tuple[PromiseStatus, ...]:
        return (self.first, *self.others)

    def to_json(self, now: datetime) -> dict[str, object]:
        """Return its first response under the labels that the ticket has now, and all its promises."""
        promises = [each.to_json(now) for each in self.promises]
        state = self.first.state
        labels = {"service_level": state.service_level, "priority": state.priority}
        first = {name: value for name, value in promises[0].items() if name not in ("objective", "cycle")}
        return first | labels | {"promises": promises}


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
    facts = len(ticket.facts) if when.as_of is None else sum(fact.time <= when.as_of for fact in ticket.facts)

    def build(promise: Promise) -> PromiseStatus:
        state, key = promise.state, PromiseKey(ticket.id, promise.objective, promise.cycle)
        policy = versions.get_named(state.policy_version) if state.policy_version else None
        return PromiseStatus(key, state, facts, policy, ticket.quarantined)

    return TicketStatus(build(ticket.first), tuple(build(promise) for _, promise in sorted(ticket.others.items())))


def check_filter(wanted: PromiseFilter, versions: Versions, states: Sequence[str]) -> None:
    """Raise ValueError if a filter asks for what no version of the policy has, or for a state that is none of these."""
    policies = [version.policy for version in versions]
    known = {
        "objective": [FIRST_RESPONSE, *(name for each in policies for name in each.objectives)],
        "service_level": [NO_LEVEL, *(name for each in policies for name in each.levels)],
        "priority": [NO_LEVEL, *(name for each in policies for name in each.priorities)],
        "state": states,
    }
    for name, names in known.items():
        given = getattr(wanted, name)
        if given is not None and given not in names:
            called = "level" if name == "service_level" else name
            choice = ", ".join(dict.fromkeys(names))
            raise ValueError(f"{called} {quote_value(given)} is not known; it is one of {choice}")


def list_open_promises(
    store: Store, when: PointInTime, wanted: PromiseFilter = ANY_OPEN, limit: int | None = None
) -> list[PromiseStatus]:
    """
    Return the open promises among those wanted by support time left, least first; pending ones are last. At another
    time than now the whole log is read. Raises NothingKnownError for a time before the first event.
    """
    found = _list_open_now(store, when, wanted, limit) if when.is_now else list_open_then(store, when, wanted)
    ranked = ((each.measure_support_left(when.at), each) for each in found)
    pending = timedelta.max
    ordered = ((pending if left is None else left, each.key, each) for left, each in ranked)
    if limit is None:
        return [each for _, _, each in sorted(ordered)]
    return [each for _, _, each in nsmallest(limit, ordered)]


def _list_open_now(
    store: Store, when: PointInTime, wanted: PromiseFilter, limit: int | None
) -> Iterator[PromiseStatus]:
    view = Promises()
    with suppress(ReadOnlyError):  # then it is as far as the processes that catch it up are
        catch_up(store, view)
    with store.read_view() as cursor:
        rows = view.list_open(cursor, wanted, when.now, limit)
    return build_promise_statuses(store, rows)


def build_promise_statuses(store: Store, rows: Iterable[PromiseRow]) -> Iterator[PromiseStatus]:
    """Yield the status of each row of the projection."""
    policy = cache(store.read_policy)
    for key, state, facts in rows:
        yield PromiseStatus(key, state, facts, policy(state.policy_fingerprint) if state.policy_fingerprint else None)


def list_open_then(store: Store, when: PointInTime, wanted: PromiseFilter) -> Iterator[PromiseStatus]:
    """Yield the promises among those wanted that were open at another time; the whole log is read."""
    versions = store.read_versions()
    for ticket, _ in iterate_tickets(store, when, versions):
        for each in build_ticket_status(ticket, versions, when).promises:
            row = PromiseRow(each.key, each.state, each.facts)
            if each.state.stage in OPEN_STAGES and wanted.matches(row, when.at):
                yield each
