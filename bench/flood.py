"""A flood: are breaches on time with 1,000,000 tickets open, and while they come in? Not a part of `make bench`.

`python -m bench.flood [TICKETS]` takes as long as the engine does for so many facts: about ten minutes for a million.
"""

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from nats.aio.msg import Msg

from bench.latency import engine, percentile
from bench.ratio import HEADER, Ratio
from events.tickets import ticket_message
from services.bus import Outgoing, Publisher, connect, last_sequence
from services.settings import SHIPPED_POLICIES, load_policy
from services.streams import TICKETS

OPEN = 1_000_000
BATCH, AHEAD = 1_000, 2_000  # messages published at once, and messages that intake may be behind while they come in
WATCHED, SECONDS = 500, 10.0  # breaches of a round, evenly over so many seconds
LEAD = 5.0  # seconds from an opening to its deadline, at least
ROUNDS = 5
MUST, AIM = 1.5, 1.1
PATIENCE = 60.0  # seconds for the last breach of a round


def main() -> int:
    """Prints how late breaches are with none and with all tickets open; 1 if they are much later with all."""
    tickets = int(sys.argv[1]) if len(sys.argv) > 1 else OPEN
    print(f"flood: {ROUNDS} rounds of {WATCHED} breaches in {SECONDS:g} s a side, SQLite, sync_interval always")
    with TemporaryDirectory(prefix="sla-bench-") as name:
        folder = Path(name)
        settings = {"SLA_POLICY_DIR": str(_always_open(folder / "policy"))}
        with engine(folder, **settings) as (url, process):
            passed = asyncio.run(Flood(url, folder, tickets, process).run())
        started = perf_counter()
        with engine(folder, **settings):
            print(f"  starts again in {perf_counter() - started:.1f} s")
    return 0 if passed else 1


def _always_open(folder: Path) -> Path:
    """The shipped policy with Enterprise open every second, so that a deadline can be had on any day."""
    folder.mkdir()
    shipped = next(SHIPPED_POLICIES.glob("*.yaml")).read_text(encoding="utf-8")
    (folder / "policy.yaml").write_text(shipped.replace("holidays: closed", "holidays: open"), encoding="utf-8")
    return folder


class Flood:
    """Publishes openings, and notes how late each breach is heard. `process` is that of `sla up`."""

    def __init__(self, url: str, folder: Path, tickets: int, process: int) -> None:
        self._url, self._store, self._tickets, self._process = url, folder / "up" / "sla.db", tickets, process
        self._policy = load_policy(folder / "policy")
        self._late: dict[str, float] = {}

    async def run(self) -> bool:
        self._nc = await connect(self._url, "bench")
        self._publisher = Publisher(self._nc, TICKETS)
        await self._nc.subscribe("sla.breached.>", cb=self._see)
        await self._round("warm")
        none = [await self._round(f"none-{number}") for number in range(ROUNDS)]
        before, started = self._memory(), perf_counter()
        during = await self._fill()
        seconds, after = perf_counter() - started, self._memory()
        full = [await self._round(f"full-{number}") for number in range(ROUNDS)]
        await self._nc.close()
        print(HEADER)
        p99 = [tuple(percentile(round, 99) for round in rounds) for rounds in (none, full)]
        ratio = Ratio(f"lateness p99, {self._tickets:,} open", p99[0], p99[1], MUST, AIM, at_most=True, operations=1)
        print(ratio.row())
        for name, rounds in (("none open", none), ("all open", full), ("while they come in", [during])):
            print(f"  {name:<20} {_said(sorted(late for round in rounds for late in round))}")
        print(
            f"  taken in {seconds:.0f} s, {self._tickets / seconds:.0f}/s; memory {before} MB, then {after} MB", end=""
        )
        print(f"; the store has {self._store.stat().st_size >> 20} MB")
        return ratio.passed

    async def _see(self, message: Msg) -> None:
        now = datetime.now(UTC)
        data = json.loads(message.data)["data"]
        self._late[data["ticket_id"]] = (now - datetime.fromisoformat(data["due_at"])).total_seconds()

    async def _round(self, name: str) -> list[float]:
        """How late the breaches of a round were, in seconds, ordered."""
        watched = [f"W-{name}-{number}" for number in range(WATCHED)]
        first = datetime.now(UTC) + timedelta(seconds=LEAD)
        await self._publisher.publish(
            [
                self._opened(ticket, first + timedelta(seconds=SECONDS) * number / WATCHED, "critical")
                for number, ticket in enumerate(watched)
            ]
        )
        return await self._breaches(watched)

    async def _breaches(self, watched: list[str]) -> list[float]:
        give_up = perf_counter() + LEAD + SECONDS + PATIENCE
        while not all(ticket in self._late for ticket in watched):
            if perf_counter() > give_up:
                raise TimeoutError(f"no breach of {[ticket for ticket in watched if ticket not in self._late][:5]}")
            await asyncio.sleep(0.05)
        return sorted(self._late[ticket] for ticket in watched)

    async def _fill(self) -> list[float]:
        """Opens all tickets as fast as they are taken, a breach among every 2,000; how late these were, ordered."""
        watched = []
        for first in range(0, self._tickets, BATCH):
            now = datetime.now(UTC)
            messages = [self._opened(f"T-{first + number}", now, "minor") for number in range(BATCH)]
            if first % (2 * BATCH) == 0:
                watched.append(f"W-fill-{first}")
                messages.append(self._opened(watched[-1], now + timedelta(seconds=LEAD), "critical"))
            await self._publisher.publish(messages)
            await self._taken(AHEAD)
        await self._taken(0)
        return await self._breaches(watched)

    def _opened(self, ticket: str, due_from: datetime, priority: str) -> Outgoing:
        """An Enterprise ticket: `critical` is due at that instant, any other has its whole target from then on."""
        target = self._policy.target("enterprise", priority)
        time = due_from - target if priority == "critical" else due_from
        data = {"service_level": "enterprise", "priority": priority, "channel": "email"}
        message = ticket_message("ticket.opened", ticket, source="/bench", id=ticket, time=time, data=data)
        return Outgoing(*message)

    async def _taken(self, ahead: int) -> None:
        """Waits until intake is at most so many messages behind."""
        with closing(sqlite3.connect(self._store)) as connection:
            while True:
                ((position,),) = connection.execute("SELECT min(position) FROM partitions")
                if await last_sequence(self._nc, TICKETS) - position <= ahead:
                    return
                await asyncio.sleep(0.02)

    def _memory(self) -> int:
        """What the engine and its broker have in memory, in MB."""
        broker = (self._store.parent / "nats" / "nats.pid").read_text()
        pages = (Path(f"/proc/{process}/statm").read_text().split()[1] for process in (self._process, broker.strip()))
        return sum(map(int, pages)) * 4096 // 1_000_000


def _said(late: list[float]) -> str:
    p50, p99, longest = (percentile(late, percent) * 1e3 for percent in (50, 99, 100))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms, of {len(late)}"


if __name__ == "__main__":
    sys.exit(main())
