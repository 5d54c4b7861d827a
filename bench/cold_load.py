"""How long it takes to bring a batch of tickets to mind that are not in memory, against a raw SELECT of their rows."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from bench.engine import opened
from bench.figures import UNBOUND, compare
from bench.intake import Place
from bench.rebuild import connected, judge_all, places
from events.tickets import build_ticket_message
from services.bus.publisher import Outgoing
from services.store.postgres import translate

TICKETS = 10_000
LOADED = 500  # as many as a batch has messages
ROUNDS = 9

SELECT = (
    "SELECT originator_id, originator_version, topic, state FROM stored_events "
    f"WHERE originator_id IN ({','.join('?' * LOADED)}) ORDER BY originator_id, originator_version"
)


def main() -> int:
    """Prints a row for each kind of store; nothing is promised."""
    print(f"cold-load: {LOADED} of {TICKETS:,} tickets with 4 facts each, others in each of {ROUNDS} rounds")
    with places() as made:
        for kind, place in made:
            _measured(kind, place)
    return 0


def _measured(kind: str, place: Place) -> None:
    now = datetime.now(UTC)
    ids = [f"T-{number}" for number in range(TICKETS)]
    with closing(place.open()) as store, closing(connected(place)) as raw:
        judge_all(store, [fact for id in ids for fact in _facts(id, now)])
        statement = SELECT if isinstance(raw, sqlite3.Connection) else translate(SELECT)
        floor = _timed(ids, lambda some: raw.execute(statement, some).fetchall())
        compare(f"{kind}: a ticket loaded", floor, _timed(ids, store.load_tickets), UNBOUND, ROUNDS, LOADED)


def _facts(ticket: str, now: datetime) -> list[Outgoing]:
    """Opened, made more urgent, answered and closed, in the hour before `now`."""
    minutes = {"priority_changed": 50, "responded": 40, "closed": 30}
    data = {"priority_changed": {"priority": "serious"}}
    others = [
        build_ticket_message(
            f"ticket.{event}",
            ticket,
            source="/bench",
            event_id=f"{event}-{ticket}",
            time=now - timedelta(minutes=ago),
            data=data.get(event, {}),
        )
        for event, ago in minutes.items()
    ]
    return [opened(ticket, now - timedelta(hours=1)), *(Outgoing(*each) for each in others)]


def _timed(ids: list[str], load: Callable[[list[str]], Any]) -> Callable[[], float]:
    """In the same round both sides are given the same tickets."""
    chance = random.Random(2026)

    def seconds() -> float:
        some = chance.sample(ids, LOADED)
        start = perf_counter()
        found = load(some)
        taken = perf_counter() - start
        assert len(found) >= LOADED
        return taken

    return seconds
