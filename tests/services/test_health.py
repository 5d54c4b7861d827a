"""No process lives, says that it is ready, and does nothing: what may break, what /health/ready says, what happens."""

import asyncio
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy
from prometheus_client.samples import Sample

from projections.deadlines import Deadlines
from projections.registry import PROJECTIONS
from projections.runner import run_batch
from services.announcer import Announcer
from services.app import SERVICES as APP_SERVICES
from services.bus.connection import Bus, strip_credentials
from services.bus.publisher import Outgoing
from services.clock import DeadlineTimer
from services.errors import BusError
from services.intake import Intake
from services.metrics import Metrics
from services.runtime import supervisor as supervising
from services.runtime.health import Watchdog
from services.runtime.service import Service as EngineService
from services.runtime.service import read_wall_clock
from services.runtime.settings import load_policy
from services.runtime.supervisor import Supervisor
from services.store.interface import Store
from services.store.sqlite import FileLeases, FileLock, SqliteFile
from sla.engine import Limits
from tests.support.bus import (
    ENDS_WITHIN,
    PATIENCE,
    Deployment,
    Fact,
    Guarded,
    Service,
    ago,
    connected,
    deployment,
    get,
    nats_server,
    open_all_hours,
    opened,
    position,
    publish,
    rows,
    samples,
    total,
    until,
)
from tests.support.stores import path_of

SERVICES = ("intake", "clock", "announcer", "metrics")
PARTS = ("store", "bus", "permissions", "streams", "backlog", "outbox", "views", "deadlines")

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]
waiting, together, guarded = (
    pytest.mark.xdist_group(f"watchdog {group}") for group in ("waiting", "together", "guarded")
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


# ---- what a process says


def read_parts(shown: list[Sample]) -> dict[str, float]:
    """`sla_not_ready`, by part."""
    return {sample.labels["part"]: sample.value for sample in shown if sample.name == "sla_not_ready"}


async def read_reasons(service: Service) -> dict[str, str]:
    """Why it is not ready, empty if it is; and it is alive."""
    status, found = await service.readiness()
    assert (await get(f"{service.http_url}/health/live"))[0] == 200
    assert (status == 200) == (not found)
    return found


async def wait_for_problem(service: Service, part: str, *words: str, within: float = PATIENCE) -> str:
    """Waits until it says that a part does not work, in these words, and shows it; what it says."""

    async def says() -> str | None:
        text = (await read_reasons(service)).get(part, "")
        shown = read_parts(await samples(service.http_url))
        return text if text and all(word in text for word in words) and shown[part] == 1 else None

    text: str = await until(f"{service.process.log_file.stem} is not ready: {part}, {words}", says, within)
    return text


async def wait_until_ready(*services: Service) -> None:
    """Waits until each is ready, and shows nothing else."""

    async def is_ready(service: Service) -> bool:
        return not await read_reasons(service) and not any(read_parts(await samples(service.http_url)).values())

    for service in services:
        await until(f"{service.process.log_file.stem} is ready", lambda service=service: is_ready(service))


async def wait_for_end(service: Service, *words: str, within: float = PATIENCE) -> None:
    """Waits until it has ended with 1, and said why in the log."""
    await until("it has ended", lambda: not service.process.running(), within)
    assert service.process.process.returncode == 1
    assert all(word in service.process.log for word in words), service.process.log
    assert "Traceback" not in service.process.log


@asynccontextmanager
async def run_services(deployed: Deployment, *each: tuple[str, ...], **settings: str) -> AsyncIterator[list[Service]]:
    """Processes with these services, ready; they end with 0, but for those that the test has ended."""
    started = [deployed.run(*names, **settings) for names in each]
    try:
        for service in started:
            await service.ready()
        await wait_until_ready(*started)
        yield started
        for service in started:
            if service.process.running():
                service.process.end()
    finally:
        for service in started:
            service.process.kill()


# ---- a thread that hangs


@waiting
@pytest.mark.chaos
async def test_a_process_that_hangs_ends_when_it_is_asked_to_or_by_itself_but_a_paused_one_goes_on(
    tmp_path: Path,
) -> None:
    hang = {"SLA_FAULT": "intake.before_commit:1:hang"}
    SqliteFile(tmp_path / "other.db").migrate(PROJECTIONS)
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server) as deployed,
        connected(server.url) as nc,
        run_services(deployed, ("intake",), SLA_DATABASE_URL=f"sqlite:///{tmp_path / 'other.db'}", **hang) as (asked,),
        run_services(deployed, ("intake",), **hang) as (hangs,),
        run_services(deployed, ("intake",), ("metrics",)) as (standby, paused),
    ):
        paused.process.process.send_signal(signal.SIGSTOP)
        await publish(nc, *(opened(f"T-{n}", ago(hours=1)) for n in range(3)))

        async def delivered() -> bool:
            consumers = await nc.jetstream().consumers_info("TICKETS")
            return [c.delivered.stream_seq for c in consumers if c.delivered] == [3, 3]

        await until("both have taken a message", delivered)
        asked.process.process.send_signal(signal.SIGTERM)
        await wait_for_end(asked, "unfinished after 8 s: services", within=ENDS_WITHIN)
        await wait_for_problem(hangs, "intake", "no turn for", "the process ends after 30 s", within=15)
        await wait_for_problem(standby, "backlog", "3 messages wait, and none is taken")
        await wait_for_end(hangs, "intake hangs: no turn for 30 s", within=25)
        await until("the standby stores", lambda: position(deployed.store, "intake") == 3)
        assert rows(deployed.store, "SELECT count(*), count(DISTINCT ticket) FROM inbox") == [(3, 3)]
        paused.process.process.send_signal(signal.SIGCONT)
        await until("it follows", lambda: position(deployed.store, "arrivals") == 3)
        await wait_until_ready(standby, paused)


# ---- four processes, one service each; the last test takes TICKETS away for good


class Crew(NamedTuple):
    """A process for each service, what each showed first, and a connection beside them."""

    deployed: Deployment
    nc: Client
    services: Mapping[str, Service]
    first: Mapping[str, list[Sample]]


@pytest.fixture(scope="module")
async def crew(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    policy = open_all_hours(folder / "policy")
    async with (
        nats_server(folder / "nats") as server,
        deployment(folder, server, SLA_POLICY_DIR=policy) as deployed,
        connected(server.url) as nc,
    ):
        services = {name: deployed.run(name) for name in SERVICES}
        try:
            first = {}
            for name, service in services.items():
                await until("it answers", partial(is_answering, service))
                first[name] = await samples(service.http_url)
            await wait_until_ready(*services.values())
            yield Crew(deployed, nc, services, first)
        finally:
            for service in services.values():
                service.process.give_up()


async def is_answering(service: Service) -> bool:
    service.process.must_run()
    return (await get(f"{service.http_url}/metrics"))[0] == 200


@together
@pytest.mark.parametrize("name", SERVICES)
async def test_a_process_shows_each_of_its_parts_from_the_start_and_at_zero_when_it_is_ready(
    crew: Crew, name: str
) -> None:
    assert read_parts(crew.first[name]).keys() == {name, *PARTS}
    assert read_parts(await samples(crew.services[name].http_url)) == dict.fromkeys((name, *PARTS), 0)


@together
async def test_a_consumer_that_is_deleted_again_and_again_shows_and_nothing_is_lost(crew: Crew) -> None:
    js, intake = crew.nc.jetstream(), crew.services["intake"]

    async def deleted_and_not_ready() -> bool:
        for consumer in await js.consumers_info("TICKETS"):
            await js.delete_consumer("TICKETS", consumer.name)
        return "consumer is gone" in (await read_reasons(intake)).get("intake", "")

    await publish(crew.nc, *(opened(f"BEFORE-{n}", ago(hours=1)) for n in range(3)))
    await until("it is not ready", deleted_and_not_ready)
    await publish(crew.nc, *(opened(f"AFTER-{n}", ago(hours=1)) for n in range(3)))
    await wait_until_ready(intake)
    await until(
        "all is stored", lambda: rows(crew.deployed.store, "SELECT count(DISTINCT ticket) FROM inbox") == [(6,)]
    )


@together
async def test_a_stream_that_is_gone_or_would_refuse_or_drop_shows_at_once_until_that_is_put_right(crew: Crew) -> None:
    intake, clock, announcer, _ = crew.services.values()
    js = crew.nc.jetstream()
    right = (await js.stream_info("TICKETS")).config
    await js.update_stream(right.evolve(subjects=["tickets.*.*"], discard=DiscardPolicy.OLD))
    for stream in ("SLA", "DEAD_LETTERS"):
        await js.delete_stream(stream)

    wrong = [f"stream TICKETS: {setting} is" for setting in ("subjects", "discard")]
    await wait_for_problem(
        intake, "streams", *wrong, "stream DEAD_LETTERS does not exist; run `sla migrate`", within=10
    )
    assert "DEAD" not in await wait_for_problem(clock, "streams", *wrong, "; see `nats stream edit TICKETS`", within=10)
    assert "TICKETS" not in await wait_for_problem(announcer, "streams", "stream SLA does not exist", within=10)

    await js.update_stream(right)
    await crew.deployed.migrate()
    await wait_until_ready(*crew.services.values())


@together
async def test_a_bus_that_is_away_shows_until_it_is_back(crew: Crew) -> None:
    await crew.deployed.server.stop()
    for service in crew.services.values():
        await wait_for_problem(service, "bus", strip_credentials(crew.deployed.server.url), "is being made again: ")
    await crew.deployed.server.start()
    await wait_until_ready(*crew.services.values())


@together
async def test_another_stream_in_the_place_of_tickets_ends_intake_and_nobody_else(crew: Crew) -> None:
    intake, clock, announcer, metrics = crew.services.values()
    await crew.nc.jetstream().delete_stream("TICKETS")
    for service in (intake, clock, metrics):
        await wait_for_problem(service, "streams", "stream TICKETS does not exist", within=10)
    await crew.deployed.migrate()
    await wait_for_end(intake, "stream TICKETS was made anew at", "restore both from one backup")
    await wait_until_ready(clock, announcer, metrics)


# ---- one process with all services: the store


@together
async def test_a_store_that_cannot_be_read_or_written_or_is_another_one_shows_or_ends_the_process(
    tmp_path: Path,
) -> None:
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server, SLA_POLICY_DIR=open_all_hours(tmp_path / "policy")) as deployed,
        connected(server.url) as nc,
        run_services(deployed, SERVICES) as (engine,),
    ):
        with closing(sqlite3.connect(path_of(deployed.store), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await publish(nc, opened("LOCKED", ago(hours=1)))
            await wait_for_problem(engine, "intake", "database is locked")
            other.execute("ROLLBACK")
            await wait_until_ready(engine)
            await until("it is stored", lambda: position(deployed.store, "intake") >= 1)

            other.execute("ALTER TABLE compliance RENAME TO hidden")
            await publish(nc, opened("NO-VIEW", ago(hours=1)))
            await wait_for_problem(engine, "metrics", "no such table: compliance")
            assert total(await samples(engine.http_url), "sla_metrics_active") == 0
            other.execute("ALTER TABLE hidden RENAME TO compliance")
            await wait_until_ready(engine)
            assert total(await samples(engine.http_url), "sla_promises") == 2

        shutil.copy(path_of(deployed.store), tmp_path / "copy")
        os.replace(tmp_path / "copy", path_of(deployed.store))
        await wait_for_end(engine, "was deleted or replaced while the engine worked on it", within=10)


# ---- users and permissions


@guarded
@pytest.mark.chaos
async def test_a_missing_permission_or_user_shows_until_it_is_given(tmp_path: Path) -> None:
    guard = Guarded(tmp_path)
    polls = "$JS.API.CONSUMER.MSG.NEXT.>"
    guard.allow(clock="clock.due.>", intake="none")
    policy = open_all_hours(tmp_path / "policy")
    with guard.started():
        async with (
            deployment(tmp_path, guard, SLA_POLICY_DIR=policy) as deployed,
            connected(guard.url) as nc,
            run_services(deployed, ("intake",), SLA_NATS_URL=guard.of("intake")) as (intake,),
            run_services(deployed, ("clock",), SLA_NATS_URL=guard.of("clock")) as (clock,),
        ):
            await publish(nc, opened("t-1", ago(hours=3)))
            await wait_for_problem(
                clock, "permissions", "clock.due.t-1", "give the user of this process the permission"
            )
            guard.allow(clock="clock.due.>", intake=polls)
            for consumer in await nc.jetstream().consumers_info("TICKETS"):
                await nc.jetstream().delete_consumer("TICKETS", consumer.name)  # or it would ask only every 30 s
            await wait_for_problem(intake, "permissions", polls.removesuffix(">").lower())
            await wait_for_problem(intake, "intake", "consumer is gone")
            tries = intake.process.log.count('"retrying"')

            async def tried_again() -> bool:
                assert "intake" in await read_reasons(intake)  # though each time it can begin
                return intake.process.log.count('"retrying"') > tries

            await until("it has tried again", tried_again)
            guard.allow(clock="none", intake="none")
            await wait_until_ready(intake, clock)
            breaches = "SELECT 1 FROM stored_events WHERE topic LIKE 'breached%'"
            await until("it is judged", lambda: rows(deployed.store, breaches))

            guard.allow(clock="none")
            await wait_for_problem(intake, "bus", f"nats://127.0.0.1:{guard.port} is lost", "Authorization Violation")
            guard.allow(clock="none", intake="none")
            await wait_until_ready(intake)

            assert "secret" not in clock.process.log + intake.process.log


@guarded
async def test_an_error_after_which_nats_py_never_connects_again_ends_the_process(tmp_path: Path) -> None:
    guard = Guarded(tmp_path, subscriptions=3)
    guard.allow()
    with guard.started():
        async with (
            deployment(tmp_path, guard) as deployed,
            connected(guard.url) as nc,
            run_services(deployed, ("intake",)) as (intake,),
        ):
            bus = Bus(nc)
            for n in range(5):  # a service that is built again leaves no subscription behind
                await bus.get_publisher("TICKETS").publish([Outgoing(f"clock.due.{n}", {}, b"")])
            await publish(nc, Fact("tickets.opened.X", b"?"))  # a dead letter is one subscription too many
            await wait_for_end(intake, "the broker has ended the connection for good", "maximum subscriptions exceeded")


# ---- the watchdog itself, with small intervals


class Idle(EngineService):
    """Comes round, believes to be well, and does nothing."""

    name = "idle"

    async def run(self) -> None:
        while True:
            self.record_heartbeat()
            await asyncio.sleep(0.01)


class Hanging(EngineService):
    """Does not come round, not even once."""

    name = "hanging"

    async def run(self) -> None:
        await asyncio.Event().wait()


class Failing(EngineService):
    """Can begin each time, and fails then, until it is `repaired`."""

    name, repaired = "failing", False

    async def run(self) -> None:
        while True:
            self.record_heartbeat()
            await asyncio.sleep(0.01)
            if not Failing.repaired:
                raise BusError("it is broken")


class Bench(NamedTuple):
    """A store and a bus, and what a watchdog needs."""

    folder: Path
    store: Store
    nc: Client
    hung: list[str]

    @property
    def bus(self) -> Bus:
        return Bus(self.nc)

    def make_lock(self, name: str) -> FileLock:
        return FileLock(self.folder / f"{name}.lock")

    @asynccontextmanager
    async def watch(
        self, **services: Callable[[], EngineService]
    ) -> AsyncIterator[tuple[Watchdog, dict[str, Supervisor]]]:
        """A watchdog that looks twenty times a second."""
        supervisors = {name: Supervisor(name, build) for name, build in services.items()}
        declared = [APP_SERVICES[name] for name in services]
        dog = Watchdog(supervisors, declared, self.bus, self.store, self.hung.append, read_wall_clock, interval=0.05)
        async with run_beside(dog.run, *(supervisor.run for supervisor in supervisors.values())):
            yield dog, supervisors


@asynccontextmanager
async def run_beside(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs beside the test until it is over."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def run_service(service: EngineService) -> AsyncIterator[None]:
    async with run_beside(service.run):
        yield
    await service.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server) as deployed,
        connected(server.url) as nc,
    ):
        with closing(deployed.store.open()) as store:
            yield Bench(tmp_path, store, nc, [])


@waiting
async def test_what_ought_to_move_and_does_not_is_named_until_it_moves(bench: Bench) -> None:
    bus, store, policy = bench.bus, bench.store, load_policy(Path(open_all_hours(bench.folder / "policy")))
    async with bench.watch(**dict.fromkeys(SERVICES, Idle)) as (dog, _):

        def problems() -> set[str]:
            return set(dog.problems)

        await until("all is well", lambda: problems() == set())
        await publish(bench.nc, opened("T-1", ago(hours=3)))
        await until("nobody takes it", lambda: problems() == {"backlog"})
        assert dog.problems["backlog"].startswith("1 messages wait, and none is taken")

        async with run_service(Intake(bus, store, policy, Limits(), FileLeases(bench.make_lock("intake")))):
            await until("nobody reads the log", lambda: problems() == {"outbox", "views"})
            assert dog.problems["outbox"].startswith("nothing after 0 of the log is announced")
            behind = "deadlines after 0, promises after 0, compliance after 0, arrivals after 0, quarantine after 0;"
            await until("all views are named", lambda: behind in dog.problems["views"])
            async with run_service(Announcer(bus, store, bench.make_lock("announcer"))):
                await until("it is announced", lambda: problems() == {"views"})
            async with run_service(Metrics(bus, store, policy, bench.make_lock("metrics"))):
                await until(
                    "one view does not follow", lambda: "follow: deadlines after 0;" in dog.problems.get("views", "")
                )
            run_batch(store, Deadlines())
            await until("nobody sends a tick", lambda: problems() == {"deadlines"})
            assert "is not judged; see whether intake and clock run" in dog.problems["deadlines"]
            async with (
                run_service(DeadlineTimer(bus, store)),
                run_service(Announcer(bus, store, bench.make_lock("announcer"))),
                run_service(Metrics(bus, store, policy, bench.make_lock("metrics"))),
            ):
                await until("all is well again", lambda: problems() == set())
    assert bench.hung == []


@waiting
async def test_nothing_is_well_before_the_first_look(bench: Bench) -> None:
    await bench.nc.jetstream().delete_stream("SLA")
    async with bench.watch(announcer=Idle) as (dog, _):

        def is_named() -> bool:
            assert dog.problems.keys() == {"streams"}
            return "stream SLA does not exist" in dog.problems["streams"]

        await until("the stream is named", is_named)


@waiting
async def test_a_service_that_never_begins_is_reported_as_hung(bench: Bench) -> None:
    async with bench.watch(clock=Hanging, announcer=Idle) as (dog, _):
        await until("it is named", lambda: dog.problems.get("clock", "").startswith("no turn for 0."))
        assert bench.hung == []
        await until("it is reported as hung", lambda: bench.hung)
        assert bench.hung[0] == "clock hangs: no turn for 0.75 s"
        assert set(dog.problems) == {"clock"}


@waiting
async def test_a_service_that_fails_after_each_beginning_is_never_ready_and_never_hung(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "RETRY_BACKOFF", (0.01, 0.05))
    async with bench.watch(clock=Failing) as (_, supervisors):
        supervisor = supervisors["clock"]
        await until("it has failed", lambda: supervisor.built > 1)

        def failed_often() -> bool:
            assert supervisor.problem == "it is broken"
            return supervisor.built > 30

        await until("it has failed often", failed_often)
        assert bench.hung == []
        monkeypatch.setattr(Failing, "repaired", True)
        await until("it works", lambda: supervisor.problem is None)


@waiting
async def test_a_store_that_does_not_answer_is_asked_once(bench: Bench) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("asyncio") for thread in threading.enumerate())

    async with bench.watch(clock=Hanging) as (dog, _):
        await until("all is well", lambda: "store" not in dog.problems)
        before = threads()
        with ExitStack() as held:
            for _ in range(15):
                held.enter_context(bench.store.read_view())  # all the connections there are
            await until("it does not answer", lambda: "no answer within 0.05 s" in dog.problems.get("store", ""))
            await until("many looks later", lambda: len(bench.hung) > 10)
            assert threads() <= max(before, 1)
        await until("it answers", lambda: "store" not in dog.problems)


@waiting
async def test_a_tick_that_another_clock_sent_too_early_is_sent_again_at_its_time(bench: Bench) -> None:
    """The broker takes the same tick for a duplicate for two minutes."""
    bus, store, policy = bench.bus, bench.store, load_policy(Path(open_all_hours(bench.folder / "policy")))

    async def ticks() -> bool:
        return (await bus.count_messages("TICKETS", "clock.due.T-1")).get("clock.due.T-1", 0) == 1

    async with run_service(Intake(bus, store, policy, Limits(), FileLeases(bench.make_lock("intake")))):
        await publish(bench.nc, opened("T-1", ago(minutes=59, seconds=56)))
        async with run_service(DeadlineTimer(bus, store, lambda: read_wall_clock() + 3_600_000_000)):
            await until("it is sent", ticks)
        async with run_service(DeadlineTimer(bus, store)):
            await until("half of the target is used", lambda: store.load_ticket("T-1").first.warned)
