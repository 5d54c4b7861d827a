"""A store, and intake without a bus: messages in, and what follows from them stored."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from projections.registry import PROJECTIONS
from services.maintenance.verify import Verifier
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from services.store.interface import Database
from sla.engine import TICK_PREFIX, Engine, Message
from sla.policy import Policy
from tests.support.bus import Fact, fact, opened, responded
from tests.support.stores import address, new_store

START = datetime.fromisoformat("2026-11-02T08:00:00+00:00")
HOUR = timedelta(hours=1)


class Log:
    """A store, and intake without a bus: messages in, what follows from them stored."""

    def __init__(self, path: Path, policy: Policy | None = None) -> None:
        self.database = new_store(path)
        self.database.migrate(PROJECTIONS)
        self.store = self.database.open()
        self.store.publish_policy(policy or load_policy(SHIPPED_POLICIES), lambda: START)
        self.sequence = 0
        self._engine = Engine(self.store)

    @property
    def address(self) -> str:
        """As SLA_DATABASE_URL has it."""
        return address(self.database)

    def take(self, at: datetime, *facts: Fact, ticks: Sequence[str] = ()) -> None:
        """All at one instant, in one batch."""
        before = self.sequence
        sent = [*((f.subject, f.body) for f in facts), *((f"{TICK_PREFIX}{ticket}", b"") for ticket in ticks)]
        messages = [Message(before + n, at, subject, {}, body) for n, (subject, body) in enumerate(sent, 1)]
        self.sequence = before + len(messages)
        self.store.commit(self._engine.process(messages), {0: before})

    def set_aside(self, at: datetime, ticket: str) -> None:
        """A tick that cannot be judged."""
        self.sequence += 1
        tick = Message(self.sequence, at, f"{TICK_PREFIX}{ticket}", {}, b"")
        self.store.commit(self._engine.quarantine(tick, "ZeroDivisionError('a fault')"), {0: tick.sequence - 1})

    def live_through(self, tickets: range) -> None:
        """Openings, breaches, answers in time, too late and corrected, duplicates and bad messages."""
        ids = [f"T-{n}" for n in tickets]
        day = timedelta(days=1)
        first = [opened(t, START + n * HOUR / 60, ("critical", "serious", "minor")[n % 3]) for n, t in enumerate(ids)]
        self.take(START + 2 * HOUR, *first, *first[::5], Fact("tickets.opened.X", b"?"))
        self.take(START + day, ticks=ids)
        self.take(START + 2 * day, *(responded(t, START + 20 * HOUR) for t in ids[::2]))
        self.take(START + 3 * day, *(responded(t, START + 1.5 * HOUR) for t in ids[::3]))
        self.take(START + 4 * day, *(fact("priority_changed", t, START + HOUR, priority="minor") for t in ids[1::4]))
        self.take(START + 5 * day, *(fact("escalated", t, START + HOUR) for t in ids[::7]), ticks=ids)
        self.take(START + 5 * day, *(opened(f"OPEN-{t}", START + 5 * day) for t in ids[::10]))


def verified(store: Database) -> Verifier:
    with store.open_snapshot() as stored, Verifier(stored, PROJECTIONS) as check:
        for _ in (*check.check_projections(), *check.check_tickets()):
            pass
    return check
