"""Several of each service on PostgreSQL, and TICKETS in partitions: who dies is replaced, and nothing is lost."""

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nats.aio.client import Client

from projections.registry import PROJECTIONS
from services.maintenance import backup as module
from services.maintenance.backup import backup, restore
from services.maintenance.verify import Verifier
from services.runtime.settings import Settings, parse_database_url
from services.store.interface import Database
from services.store.postgres_leases import PARTITION_LOCK
from sla.log import Announced
from tests.support.bus import (
    SLA,
    Deployment,
    Service,
    ago,
    connected,
    environment,
    nats_server,
    open_all_hours,
    opened,
    publish,
    samples,
    settled,
    stored,
    total,
    until,
)
from tests.support.lives import Life, lives, load, send
from tests.support.postgres import Server as Postgres
from tests.support.postgres import new_database, server
from tests.support.stores import position, rows

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.xdist_group("replicas")]

PARTITIONS = 8
TAKEN_OVER_WITHIN = 6.0  # seconds after which a silent owner has lost its partitions: 4 of silence, and a look


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with server() as found:
        yield found


class Crew(NamedTuple):
    """A deployment on PostgreSQL, and its processes by role."""

    deployed: Deployment
    nc: Client
    services: dict[str, list[Service]]

    @property
    def store(self) -> Database:
        return self.deployed.store

    def call(self, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        wanted = environment(**self.deployed.settings | settings)
        return subprocess.run([SLA, command], env=wanted, capture_output=True, text=True, check=False)

    def migrate(self, partitions: int) -> subprocess.CompletedProcess[str]:
        return self.call("migrate", SLA_PARTITIONS=str(partitions))

    async def start(self, **copies: int) -> None:
        """So many of each; ready when it returns."""
        for role, count in copies.items():
            self.services.setdefault(role, []).extend(self.deployed.run(role) for _ in range(count))
        for service in [service for role in copies for service in self.services[role]]:
            await service.ready()

    def read_shares(self) -> dict[int, int]:
        """How many partitions each session owns, by the process of the server."""
        held = "SELECT pid, count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = ? AND granted GROUP BY pid"
        return dict(rows(self.store, held, PARTITION_LOCK))

    async def wait_for_shares(self, *wanted: int) -> float:
        """Waits until the partitions are shared like that; the seconds it took."""
        began = time.monotonic()
        await until(f"shares of {wanted}", lambda: sorted(self.read_shares().values()) == sorted(wanted))
        return time.monotonic() - began

    def end(self) -> None:
        for service in [service for services in self.services.values() for service in services]:
            service.process.end()

    async def check(self, every: list[Life]) -> Counter[str]:
        """What was sent against the inbox, the log against the bus, promises against the facts."""
        found = Counter[str]()
        facts = {f.event["id"] for life in every for f in life.facts}
        outcomes = dict(rows(self.store, "SELECT outcome, count(*) FROM inbox GROUP BY outcome"))
        found["facts lost"] = len(facts) - outcomes["recorded"]
        with closing(self.store.open()) as store:
            log = [entry.event for entry in store.read_log_entries(0, 1_000_000) if isinstance(entry.event, Announced)]
        said = await stored(self.nc)
        ids = [heard.event["id"] for heard in said]
        found["announcements lost"] = len({event.id for event in log}.difference(ids))
        found["announcements doubled"] = len(ids) - len(set(ids))
        found["announcements out of order"] = ids != [event.id for event in log]
        breaches = dict[str, str]()
        for heard in said:
            if heard.kind == "breached":
                found["breaches doubled"] += heard.ticket in breaches
                breaches[heard.ticket] = heard.data["breached_at"]
            elif heard.kind == "breach_retracted":
                del breaches[heard.ticket]
        broken = {life.ticket: life.broken_at for life in every if life.broken_at}
        told = {ticket: datetime.fromisoformat(at) for ticket, at in breaches.items()}
        found["breaches wrong"] = len(broken.items() ^ told.items())
        with self.store.open_snapshot() as picture, Verifier(picture, PROJECTIONS) as verify:
            for _ in (*verify.check_projections(), *verify.check_tickets()):
                pass
        found["differences"] = verify.differences
        return found


@pytest.fixture
async def crew(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Crew]:
    async with start_crew(tmp_path, postgres) as found:
        yield found


@asynccontextmanager
async def start_crew(folder: Path, postgres: Postgres, partitions: int | None = PARTITIONS) -> AsyncIterator[Crew]:
    """Migrated, unless `partitions` is None."""
    url = new_database(postgres.dsn)
    async with nats_server(folder / "nats") as nats, connected(nats.url) as nc:
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": url}
        settings["SLA_POLICY_DIR"] = open_all_hours(folder / "policy")
        crew = Crew(Deployment(folder, nats, parse_database_url(url), settings), nc, {})
        assert partitions is None or crew.migrate(partitions).returncode == 0
        try:
            yield crew
        finally:
            for service in [service for services in crew.services.values() for service in services]:
                service.process.kill()


NOTHING = dict.fromkeys(
    (
        "facts lost",
        "announcements lost",
        "announcements doubled",
        "announcements out of order",
        "breaches doubled",
        "breaches wrong",
        "differences",
    ),
    0,
)


async def test_what_dies_is_replaced_and_nothing_is_lost_or_doubled(crew: Crew) -> None:
    every = list(lives(480))
    facts = load(every)
    await crew.start(intake=3, clock=2, announcer=2, metrics=2)
    await crew.wait_for_shares(3, 3, 2)
    roles = ("intake", "announcer", "clock", "metrics", "intake", "announcer")
    share = -(-len(facts) // len(roles))
    taken_over = []
    for turn, role in enumerate(roles):
        sending = asyncio.create_task(send(crew.nc, facts[turn * share : (turn + 1) * share]))
        before = position(crew.store, "announcements")
        await until("it is announced", lambda before=before: position(crew.store, "announcements") > before)
        victim = crew.services[role].pop(0)
        victim.process.kill()
        if role == "intake":
            taken_over.append(await crew.wait_for_shares(4, 4))
        await sending
        await crew.start(**{role: 1})
    await crew.wait_for_shares(3, 3, 2)
    await settled(crew.nc, crew.store)
    found = await crew.check(every)
    print(f"taken over after {', '.join(f'{seconds:.1f}' for seconds in taken_over)} s; {dict(found)}")
    assert max(taken_over) < TAKEN_OVER_WITHIN
    assert found == NOTHING
    shown = [await samples(service.http_url) for service in crew.services["metrics"]]
    active = [each for each in shown if total(each, "sla_metrics_active")]
    assert len(active) == 1 and total(active[0], "sla_promises") == len(every)
    crew.end()


@pytest.mark.parametrize("point", ["intake.taken", "intake.in_commit"])
async def test_an_owner_that_stands_still_is_replaced_and_stores_nothing_when_it_wakes_up(
    crew: Crew, point: str
) -> None:
    """Also if it stands still within a transaction, where all others wait for it."""
    every = list(lives(160))
    facts = load(every)
    asleep = crew.deployed.run("intake", SLA_FAULT=f"{point}:5:stop").process
    crew.services["intake"] = [Service(asleep, "")]
    await crew.start(clock=1, announcer=1, metrics=1)
    crew.services["intake"].append(crew.deployed.run("intake"))
    await crew.wait_for_shares(4, 4)
    sending = asyncio.create_task(publish_slowly(crew.nc, facts))
    taken_over = await crew.wait_for_shares(8)
    await sending
    await settled(crew.nc, crew.store)
    os.kill(asleep.process.pid, signal.SIGCONT)
    await publish(crew.nc, *(opened(f"LATER-{n}", ago(hours=0.1)) for n in range(20)))
    await crew.wait_for_shares(4, 4)
    await settled(crew.nc, crew.store)
    print(f"asleep at {point}, and replaced after {taken_over:.1f} s")
    later = [Life(f"LATER-{n}", [opened(f"LATER-{n}", ago(hours=0.1))], None, None) for n in range(20)]
    assert await crew.check([*every, *later]) == NOTHING
    crew.end()


async def test_a_rolling_restart_makes_no_long_pause(crew: Crew) -> None:
    every = list(lives(320))
    await crew.start(intake=2, clock=1, announcer=1, metrics=1)
    await crew.wait_for_shares(4, 4)
    sending = asyncio.create_task(publish_slowly(crew.nc, load(every)))
    for _ in range(2):
        crew.services["intake"].pop(0).process.end()
        await crew.start(intake=1)
        await crew.wait_for_shares(4, 4)
    await sending
    await settled(crew.nc, crew.store)
    arrived = {each.ticket: each.stored_at for each in reversed(await stored(crew.nc, "TICKETS", "*.tickets.opened.*"))}
    told = {each.ticket: each.stored_at for each in await stored(crew.nc, subject="sla.applied.>")}
    longest = max(told[ticket] - at for ticket, at in arrived.items())
    print(f"from an opening to what it led to, over two restarts: at most {longest.total_seconds():.1f} s")
    assert longest.total_seconds() < TAKEN_OVER_WITHIN
    assert await crew.check(every) == NOTHING
    crew.end()


async def publish_slowly(nc: Client, facts: list) -> None:
    for start in range(0, len(facts), 10):
        await send(nc, facts[start : start + 10])
        await asyncio.sleep(0.05)


async def test_a_restart_of_postgres_under_load_needs_nobody(tmp_path: Path) -> None:
    every = list(lives(240))
    facts = load(every)
    with server() as alone:
        async with start_crew(tmp_path, alone) as crew:
            await crew.start(intake=2, clock=1, announcer=1, metrics=1)
            for part in range(2):
                sending = asyncio.create_task(send(crew.nc, facts[part::2]))
                before = position(crew.store, "announcements")
                await until("it is announced", lambda before=before: position(crew.store, "announcements") > before)
                await asyncio.to_thread(alone.stop, "immediate" if part else "fast")
                (intake, *_) = crew.services["intake"]

                async def waits(service: Service = intake) -> bool:
                    status, reasons = await service.readiness()
                    return status == 503 and any("postgresql://" in reason for reason in reasons.values())

                await until("it says that PostgreSQL is away", waits)
                await asyncio.to_thread(alone.start)
                await sending
                for services in crew.services.values():
                    for service in services:
                        await service.ready()
            await settled(crew.nc, crew.store)
            assert await crew.check(every) == NOTHING
            crew.end()


async def test_a_backup_of_two_intakes_at_work_loses_and_doubles_no_announcement(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One intake is behind while the store and SLA are copied. After the restore it is not, and so what they decide again
    has other places in the log.
    """
    every, file = list(lives(1_000)), tmp_path / "sla.tar"
    facts = load(every)
    async with start_crew(tmp_path / "first", postgres) as crew:
        await crew.start(intake=2, clock=1, announcer=1, metrics=1)
        await crew.wait_for_shares(4, 4)
        sending = asyncio.create_task(publish_slowly(crew.nc, facts))
        await until("some is announced", lambda: position(crew.store, "announcements") > 60)
        urls = Settings(nats_url=crew.deployed.server.url, database_url=crew.deployed.settings["SLA_DATABASE_URL"])
        pid = crew.services["intake"][0].process.process.pid
        go_on_before_each_stream(monkeypatch, crew.store, lambda: os.kill(pid, signal.SIGCONT))
        os.kill(pid, signal.SIGSTOP)
        await asyncio.to_thread(backup, urls, tmp_path, file)
        assert not sending.done(), "the backup was not taken under load"
        sending.cancel()
    async with start_crew(tmp_path / "second", postgres, partitions=None) as crew:
        urls = Settings(nats_url=crew.deployed.server.url, database_url=crew.deployed.settings["SLA_DATABASE_URL"])
        await asyncio.to_thread(restore, urls, tmp_path, file)
        await crew.start(intake=2, clock=1, announcer=1, metrics=1)
        await send(crew.nc, facts)
        await settled(crew.nc, crew.store)
        found = await crew.check(every)
        del found["announcements out of order"]  # of the log; those of each ticket are checked by `sla verify`
        assert +found == Counter()
        said = await asyncio.to_thread(crew.call, "verify")
        assert said.returncode == 0 and "SLA is not" not in said.stderr, said


def go_on_before_each_stream(
    monkeypatch: pytest.MonkeyPatch, store: Database, after_the_first: Callable[[], None]
) -> None:
    """Let the engine do something before each stream of a backup, as it would if the parts were large."""
    at_once = module._take_snapshot

    async def later(nc: Client, stream: str, path: Path) -> Any:
        before = position(store, "announcements")
        await until("the engine goes on", lambda: position(store, "announcements") > before + 30)
        copied = await at_once(nc, stream, path)
        after_the_first()
        return copied

    monkeypatch.setattr(module, "_take_snapshot", later)


async def test_the_number_of_partitions_is_changed_between_two_runs(tmp_path: Path, postgres: Postgres) -> None:
    every = list(lives(240))
    facts = load(every)
    third = len(facts) // 3
    async with start_crew(tmp_path, postgres, partitions=1) as crew:
        await crew.start(intake=2, clock=1, announcer=1, metrics=1)
        await send(crew.nc, facts[:third])
        refused = crew.migrate(4)
        assert refused.returncode == 1 and "stop every intake first" in refused.stderr
        for intake in crew.services.pop("intake"):
            intake.process.end()
        await send(crew.nc, facts[third : third + 50])  # in one partition, and nobody has taken them
        assert crew.migrate(4).returncode == 0
        await send(crew.nc, facts[third + 50 : 2 * third])  # in four
        await crew.start(intake=2)
        await crew.wait_for_shares(2, 2)
        for intake in crew.services.pop("intake"):
            intake.process.kill()
        assert crew.migrate(3).returncode == 0
        await crew.start(intake=3)
        await send(crew.nc, facts[2 * third :])
        await crew.wait_for_shares(1, 1, 1)
        await settled(crew.nc, crew.store)
        assert sorted(number for (number,) in rows(crew.store, "SELECT number FROM partitions")) == [0, 1, 2]
        assert await crew.check(every) == NOTHING
        crew.end()
