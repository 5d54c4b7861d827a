"""Every process may be killed at any moment, and the bus too: nothing is lost, nothing is said twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from services.bus.connection import Bus
from services.errors import FencedError
from services.intake import Intake
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from services.store.interface import Database
from services.store.sqlite import FileLeases, FileLock
from sla.engine import Limits
from sla.log import Announced, Breached, BreachRetracted, Fulfilled
from tests.support.bus import (
    PATIENCE,
    Deployment,
    Service,
    ago,
    connected,
    deployment,
    fact,
    nats_server,
    open_all_hours,
    opened,
    position,
    publish,
    rows,
    samples,
    settled,
    stored,
    total,
    until,
)
from tests.support.lives import Life, lives, load, send
from tests.support.stores import path_of

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.xdist_group("crash")]

HOUR = timedelta(hours=1)
SERVICES = ("intake", "clock", "announcer", "metrics")
PROGRESS = {"intake": "intake", "clock": "deadlines", "announcer": "announcements", "metrics": "promises"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ---- the load: what happens to each kind of ticket, and what must have become of its promise


# ---- the services


class Crew:
    """The services, each in a process of its own unless they share one."""

    def __init__(self, deployed: Deployment) -> None:
        self.deployed = deployed
        self.services: dict[str, Service] = {}

    def start(self, *names: str) -> None:
        self.services[names[0]] = self.deployed.run(*names)

    def crash(self, name: str) -> None:
        """kill -9, and start it again."""
        self.services[name].process.must_run()
        self.services[name].process.kill()
        self.start(name)

    @property
    def store(self) -> Database:
        return self.deployed.store

    async def wait_until_ready(self) -> None:
        for service in self.services.values():
            await service.ready()

    def end(self) -> None:
        for service in self.services.values():
            service.process.end()


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    policy = open_all_hours(tmp_path / "policy")
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server, SLA_POLICY_DIR=policy) as deployed,
    ):
        found = Crew(deployed)
        try:
            yield found
        finally:
            for service in found.services.values():
                service.process.kill()


async def check(nc: Client, crew: Crew, every: list[Life]) -> None:
    """Facts against the inbox, the log against the bus, promises against the facts, metrics against the log."""
    facts = {f.event["id"] for life in every for f in life.facts}
    outcomes = Counter(outcome for (outcome,) in rows(crew.store, "SELECT outcome FROM inbox"))
    messages = await stored(nc, "TICKETS", "tickets.>")
    assert outcomes == Counter(recorded=len(facts), duplicate=len(messages) - len(facts))
    store = crew.store.open()
    try:
        log = [entry for entry in store.read_log_entries(0, 1_000_000) if isinstance(entry.event, Announced)]
    finally:
        store.close()
    said = await stored(nc)
    assert [heard.event["id"] for heard in said] == [entry.event.id for entry in log]  # type: ignore[attr-defined]
    assert len({heard.event["id"] for heard in said}) == len(said)
    for heard, entry in zip(said, log, strict=True):
        assert (heard.ticket, heard.kind) == (entry.ticket, entry.event.KIND)  # type: ignore[attr-defined]

    breaches: dict[str, str] = {}
    answers: dict[str, bool] = {}
    for heard in said:
        match heard.kind:
            case "breached":
                assert breaches.setdefault(heard.ticket, heard.data["breached_at"]) == heard.data["breached_at"]
            case "breach_retracted":
                del breaches[heard.ticket]
            case "fulfilled":
                answers[heard.ticket] = heard.data["met"]
    broken = {life.ticket: life.broken_at for life in every if life.broken_at}
    assert {ticket: datetime.fromisoformat(at) for ticket, at in breaches.items()} == broken
    assert answers == {life.ticket: life.met for life in every if life.met is not None}
    applied = [heard.ticket for heard in said if heard.kind == "applied"]
    assert sorted(applied) == sorted(life.ticket for life in every)

    shown = await samples(crew.services["metrics" if "metrics" in crew.services else SERVICES[0]].http_url)
    events = [entry.event for entry in log]
    assert total(shown, "sla_breaches_total") == sum(isinstance(event, Breached) for event in events)
    assert total(shown, "sla_breaches_retracted_total") == sum(isinstance(event, BreachRetracted) for event in events)
    first = [event for event in events if isinstance(event, Fulfilled) and event.revision == 1]
    assert total(shown, "sla_fulfilled_total") == len(first)
    for outcome in ("recorded", "duplicate"):
        assert total(shown, "sla_facts_total", outcome=outcome) == outcomes[outcome]
    assert total(shown, "sla_promises") == len(every)
    assert total(shown, "sla_promises", stage="fulfilled") == len(answers)


async def test_services_killed_in_turn_lose_nothing_and_say_nothing_twice(crew: Crew) -> None:
    every = list(lives(860))
    facts = load(every)
    assert len(facts) >= 2_000
    turns = SERVICES * 2
    share = -(-len(facts) // len(turns))
    for name in SERVICES:
        crew.start(name)
    async with connected(crew.deployed.server.url) as nc:
        await crew.wait_until_ready()
        for turn, name in enumerate(turns):
            before = position(crew.store, PROGRESS[name])
            sending = asyncio.create_task(send(nc, facts[turn * share : (turn + 1) * share]))
            await until(f"{name} works", lambda n=name, b=before: position(crew.store, PROGRESS[n]) > b)
            crew.crash(name)
            await sending
        await settled(nc, crew.store)
        await crew.wait_until_ready()
        await check(nc, crew, every)
        assert nc.stats["errors_received"] == 0
    crew.end()


async def test_services_recover_by_themselves_when_nats_is_killed_and_comes_back(crew: Crew) -> None:
    every = list(lives(240))
    facts = load(every)
    half = len(facts) // 2
    crew.start(*SERVICES)
    server = crew.deployed.server
    async with connected(server.url) as nc:
        await crew.wait_until_ready()
        sending = asyncio.create_task(send(nc, facts[:half]))
        await until("some is announced", lambda: position(crew.store, "announcements") > 50)
        await server.kill()
        (service,) = crew.services.values()

        async def not_ready() -> bool:
            return (await service.readiness())[0] == 503

        await until("it says that it is not ready", not_ready)
        await server.start()
        await crew.wait_until_ready()
        await sending
        await send(nc, facts[half:])
        await settled(nc, crew.store)
        await check(nc, crew, every)
    crew.end()


def read_owner(store: Path) -> int:
    """The process that holds the lock of intake."""
    return int(store.with_name(f"{store.name}.intake.lock").read_text())


@pytest.mark.on_file
async def test_a_standby_takes_over_when_the_active_one_is_killed(crew: Crew) -> None:
    every = list(lives(160))
    facts = load(every)
    both = [crew.deployed.run(*SERVICES) for _ in range(2)]
    try:
        async with connected(crew.deployed.server.url) as nc:
            for service in both:
                await service.ready()
            file = path_of(crew.store)
            await until("each lock has its owner", lambda: len(list(file.parent.glob("*.lock"))) == 3)
            active, standby = sorted(both, key=lambda s: read_owner(file) != s.process.process.pid)
            crew.services["intake"] = standby
            sending = asyncio.create_task(send(nc, facts))
            await until("some is announced", lambda: position(crew.store, "announcements") > 50)
            active.process.kill()
            await sending
            await settled(nc, crew.store)
            await check(nc, crew, every)
            standby.process.end()
    finally:
        for service in both:
            service.process.kill()


async def test_an_announcer_refuses_a_store_that_does_not_belong_to_the_stream(crew: Crew) -> None:
    async with connected(crew.deployed.server.url) as nc:
        await nc.jetstream().publish("sla.applied.enterprise.critical.T-1", b"{}")  # of another store
    crew.start("announcer")
    refused = crew.services["announcer"].process
    await until("it has ended", lambda: not refused.running())
    assert refused.process.returncode == 1
    assert "everything would be announced again" in refused.log and "Traceback" not in refused.log


async def test_an_intake_that_was_superseded_stores_nothing_more(crew: Crew, tmp_path: Path) -> None:
    """Two that both believe to be the owner, as after a pause of one: the position in the store decides."""
    store = crew.store.open()
    policy = load_policy(SHIPPED_POLICIES)
    async with connected(crew.deployed.server.url) as nc:
        await publish(nc, *(opened(f"T-{n}", ago(hours=1)) for n in range(20)))
        locks = [FileLock(tmp_path / f"{n}.lock") for n in range(2)]
        intakes = [Intake(Bus(nc), store, policy, Limits(), FileLeases(lock)) for lock in locks]
        tasks = [asyncio.create_task(intake.run()) for intake in intakes]
        try:
            async with asyncio.timeout(PATIENCE):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            (superseded,) = done
            assert isinstance(error := superseded.exception(), FencedError)
            assert "another intake works on this store" in str(error)
            await publish(nc, opened("T-20", ago(hours=1)))
            await until("the other goes on", lambda: position(crew.store, "intake") == 21)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for intake in intakes:
                await intake.stop()
            store.close()
    assert rows(crew.store, "SELECT count(*), count(DISTINCT ticket) FROM inbox WHERE outcome = 'recorded'") == [
        (21, 21)
    ]


async def test_intake_goes_on_when_somebody_deletes_its_consumer(crew: Crew) -> None:
    crew.start("intake")
    async with connected(crew.deployed.server.url) as nc:
        await crew.wait_until_ready()
        js = nc.jetstream()
        for n in range(3):
            (consumer,) = await js.consumers_info("TICKETS")
            await js.delete_consumer("TICKETS", consumer.name)
            await publish(nc, opened(f"T-{n}", ago(hours=1)))
            await until("it is stored", lambda n=n: position(crew.store, "intake") == n + 1)
    assert rows(crew.store, "SELECT count(*) FROM inbox WHERE outcome = 'recorded'") == [(3,)]
    crew.end()


async def test_a_dead_letter_is_there_once_though_the_broker_has_forgotten_its_id(crew: Crew) -> None:
    """Killed between the letter and the commit, longer ago than the broker remembers ids."""
    async with connected(crew.deployed.server.url) as nc:
        js = nc.jetstream()
        config = (await js.stream_info("DEAD_LETTERS")).config
        config.duplicate_window = 0.1
        await js.update_stream(config)
        crew.services["intake"] = crew.deployed.run("intake", SLA_FAULT="intake.after_dead_letters:1:kill")
        await publish(nc, opened("T-1", ago(hours=1)), fact("opened", "BAD", ago(hours=1)))
        await until("it was killed", lambda: not crew.services["intake"].process.running())
        (letter,) = await stored(nc, "DEAD_LETTERS", "dead_letters.*")
        await js.publish("dead_letters.malformed", b"", headers={"Sla-Sequence": "of somebody else"})
        await asyncio.sleep(0.2)  # the broker's window
        crew.start("intake")
        await publish(nc, fact("opened", "BAD-TOO", ago(hours=1)))
        await until("all is stored", lambda: position(crew.store, "intake") == 3)
        letters = await stored(nc, "DEAD_LETTERS", "dead_letters.*")
        sequences = [each.headers["Sla-Sequence"] for each in letters]
        assert sequences == [letter.headers["Sla-Sequence"], "of somebody else", "3"]
    crew.end()
