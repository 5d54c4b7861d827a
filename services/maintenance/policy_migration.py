"""Moves of open tickets to another version of the policy: each is an event, a fact like others. Nothing is edited."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from nats.aio.client import Client

from events.tickets import PolicyChanged, build_ticket_message
from projections.promises import PromiseFilter, Promises
from projections.runner import catch_up
from services.bus.publisher import Outgoing, Publisher
from services.bus.streams import TICKETS
from services.errors import ReadOnlyError
from services.store.interface import Store
from sla.judge import Clock, CycleKey, Fact, Facts, Verdict, judge
from sla.policy import FIRST_RESPONSE, Policy
from sla.versions import Versions

MIGRATION_SOURCE = "/sla/policy"
BATCH_TICKETS = 1_000


class PolicyMove(NamedTuple):
    """
    What would become of a clock, of an objective and its cycle, under another version: it `breaks` if more is used than
    that one gives; it has no `new_due_at` if that one promises nothing; `why_not` says why the ticket cannot move.
    """

    ticket: str
    objective: str
    cycle: int
    service_level: str
    priority: str
    policy_version: str
    due_at: datetime
    new_due_at: datetime | None
    breaks: bool
    why_not: str | None


def find_moves(store: Store, to: Policy, now: datetime) -> Iterator[PolicyMove]:
    """
    Yield, ticket by ticket, the move of every clock that has neither ended nor broken and is under another version.
    """
    versions, view = store.read_versions(), Promises()
    first_only = all(len(version.policy.objectives) == 1 for version in versions)
    with suppress(ReadOnlyError):
        catch_up(store, view)
    with store.read_view() as cursor:
        wanted = (
            [
                key.ticket
                for key, state, _ in view.list_open(cursor, PromiseFilter(), now)
                if state.stage != "pending" and state.kept is None and state.policy_version != to.version
            ]
            if first_only
            else view.list_tickets(cursor)
        )
    for start in range(0, len(wanted), BATCH_TICKETS):
        for ticket, found in store.load_tickets(wanted[start : start + BATCH_TICKETS]).items():
            yield from _find_ticket_moves(ticket, found.facts, versions, to, now)


def _find_ticket_moves(
    ticket: str, facts: Facts, versions: Versions, to: Policy, now: datetime
) -> Iterator[PolicyMove]:
    here = {
        key: clock
        for key, clock in _list_clocks(judge(facts, versions, now))
        if _is_open(clock) and clock.phase.policy.version != to.version and key[0] in to.objectives
    }
    if not here:
        return
    moved = Fact(MIGRATION_SOURCE, "", now, PolicyChanged(policy_version=to.version), None, now)
    there = dict(_list_clocks(judge(facts.copy_with(moved), versions, now + timedelta(microseconds=1))))
    for key, clock in here.items():
        then, version, due_at = there.get(key), clock.phase.policy.version, clock.phase.due_at
        keeps = then is not None and then.phase.unpromised_by is None
        breaks, new_due_at = (then.broken_at is not None, then.phase.due_at) if then and keeps else (False, None)
        labels = (clock.service_level.name, clock.priority)
        yield PolicyMove(ticket, *key, *labels, version, due_at, new_due_at, breaks, to.find_missing(*labels))


def _is_open(clock: Clock) -> bool:
    ended_by = clock.excluded_by or clock.response or clock.closed_by or clock.phase.unpromised_by
    return ended_by is None and clock.broken_at is None


def _list_clocks(verdict: Verdict) -> Iterator[tuple[CycleKey, Clock]]:
    if verdict.clock is not None:
        yield (FIRST_RESPONSE, 1), verdict.clock
        yield from verdict.others.items()


def build_move_messages(moves: Iterable[PolicyMove], version: str, now: datetime) -> list[Outgoing]:
    """Build the events that move each ticket that can move, once; the same ones for the same instant."""
    tickets = dict.fromkeys(move.ticket for move in moves if move.why_not is None)
    return [_build_move_message(ticket, version, now) for ticket in tickets]


def _build_move_message(ticket: str, version: str, now: datetime) -> Outgoing:
    subject, headers, body = build_ticket_message(
        PolicyChanged.type,
        ticket,
        source=MIGRATION_SOURCE,
        event_id=f"{ticket}/{version}/{now.isoformat()}",
        time=now,
        data={"policy_version": version},
    )
    return Outgoing(subject, headers, body)


async def publish_moves(nc: Client, messages: Sequence[Outgoing]) -> None:
    """Publish to TICKETS, and wait until the bus has stored all."""
    publisher = Publisher(nc, TICKETS)
    for start in range(0, len(messages), BATCH_TICKETS):
        await publisher.publish(messages[start : start + BATCH_TICKETS])
