"""PostgreSQL: what only it can do wrong, who may do what in it, and backups that change the kind of store."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import psycopg.errors
import pytest
from nats.aio.client import Client

from projections.registry import PROJECTIONS
from services.bus.streams import build_stream
from services.errors import StoreError
from services.maintenance.verify import Verifier
from services.runtime.settings import parse_database_url
from services.store.interface import Store
from services.store.postgres import PostgresDatabase
from services.store.sqlite import SqliteFile
from sla.engine import BatchOutcome
from tests.support.backups import PLANTED, edit_store
from tests.support.bus import (
    ENDS_WITHIN,
    SLA,
    Deployment,
    ago,
    connected,
    environment,
    get,
    nats_server,
    open_all_hours,
    opened,
    publish,
    samples,
    settled,
    stored,
    subscribed,
    total,
    until,
    up,
)
from tests.support.lives import lives, load, send
from tests.support.postgres import Server, new_database, server
from tests.support.stores import rows

ROLES_SQL = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"
ROLES = ("owner", "intake", "clock", "announcer", "metrics", "reader")
TABLES = ("stored_events", "inbox", "partitions", "positions", "policies", "policy_versions", "verifications")
VIEW_TABLES = tuple(table for view in PROJECTIONS for table in view().tables)

pytestmark = [pytest.mark.parts, pytest.mark.xdist_group("postgres")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def place(postgres: Server) -> PostgresDatabase:
    """A database with the schema, in which nothing has happened."""
    found = PostgresDatabase(new_database(postgres.dsn))
    found.migrate(PROJECTIONS)
    return found


def run_sla(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SLA, *arguments], env=environment(**settings), capture_output=True, text=True, check=False, timeout=60
    )


# ---- what is wrong is said in one line, with what to do


def test_an_address_that_cannot_be_read_is_wrong_usage() -> None:
    said = run_sla("list", SLA_DATABASE_URL="postgresql://sla:secret@db/sla?colour=blue")
    assert (said.returncode, said.stdout) == (2, "") and said.stderr.count("\n") == 1
    assert "colour" in said.stderr and "write postgresql://USER@HOST/DATABASE" in said.stderr


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    said = run_sla("list", SLA_DATABASE_URL="postgresql://sla:secret@127.0.0.1:1/sla")
    assert (said.returncode, said.stdout) == (1, "") and said.stderr.count("\n") == 1
    assert "postgresql://127.0.0.1/sla: " in said.stderr and "refused" in said.stderr and "secret" not in said.stderr


def test_a_wrong_password_is_named_and_not_told(postgres: Server) -> None:
    postgres.ask_passwords_of("wary")
    url = new_database(postgres.dsn).replace("//postgres@", "//wary:guessed@")
    said = run_sla("list", SLA_DATABASE_URL=url)
    assert (said.returncode, said.stdout) == (1, "") and said.stderr.count("\n") == 1
    assert 'password authentication failed for user "wary"' in said.stderr and "guessed" not in said.stderr


def test_a_database_without_the_schema_says_what_to_run(postgres: Server) -> None:
    said = run_sla("list", SLA_DATABASE_URL=new_database(postgres.dsn))
    assert said.returncode == 1 and said.stderr.endswith("run `sla migrate`\n")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", "encoded in LATIN1"),
        ("CREATE DATABASE {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'", "encoded in SQL_ASCII"),
        ("CREATE DATABASE {0}; ALTER DATABASE {0} SET synchronous_commit = off", "a power cut could lose commits"),
    ],
)
def test_a_database_that_would_lose_or_garble_is_refused(postgres: Server, statement: str, says: str) -> None:
    name = f"unfit_{abs(hash(says))}"
    with closing(psycopg.connect(postgres.dsn, autocommit=True)) as connection:
        for each in statement.format(name).split(";"):
            connection.execute(each)
    url = new_database(postgres.dsn)
    unfit = PostgresDatabase(url.replace(url.partition("?")[0].rpartition("/")[2], name))
    with pytest.raises(StoreError, match=says):
        unfit.migrate(PROJECTIONS)


@pytest.mark.anyio
async def test_a_service_waits_for_its_schema_and_says_so(tmp_path: Path, postgres: Server) -> None:
    async with nats_server(tmp_path / "nats") as nats:
        url = new_database(postgres.dsn)
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": url}
        deployed = Deployment(tmp_path, nats, parse_database_url(url), settings)
        service = deployed.run("intake", "clock", "announcer", "metrics")
        try:

            async def is_waiting() -> bool:
                status, reasons = await service.readiness()
                return status == 503 and "run `sla migrate`" in reasons.get("store", "")

            await until("it says what to run", is_waiting)
            assert await asyncio.to_thread(lambda: run_sla("migrate", **settings).returncode) == 0
            await service.ready()
            service.process.end()
        finally:
            service.process.kill()


# ---- who may do what


def create_roles(postgres: Server) -> dict[str, str]:
    """Migrate a new database as its owner, run roles.sql in it; return the address for each role."""
    url = new_database(postgres.dsn)
    name = url.partition("?")[0].rpartition("/")[2]
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for statement in ROLES_SQL.read_text(encoding="utf-8").replace("DATABASE sla ", f"DATABASE {name} ").split(";"):
            with suppress(
                psycopg.errors.DuplicateObject
            ):  # roles are of the server, and this is not its first database
                connection.execute(statement.encode())
    urls = {role: url.replace("//postgres@", f"//sla_{role}@") for role in ROLES}
    PostgresDatabase(urls["owner"]).migrate(PROJECTIONS)
    return urls


def test_each_role_may_do_what_it_needs_and_nothing_else(postgres: Server) -> None:
    urls = create_roles(postgres)
    expected = {
        "intake": {
            **dict.fromkeys(("stored_events", "inbox", "policies"), "SI"),
            **dict.fromkeys(("partitions", "positions"), "SIUD"),
            "policy_versions": "SID",
        },
        "clock": {"positions": "SU", **dict.fromkeys(VIEW_TABLES, "SIUD")},
        "announcer": {"positions": "SIU"},
        "metrics": {"positions": "SU", **dict.fromkeys(VIEW_TABLES, "SIUD")},
        "reader": {},
    }
    for role, may in expected.items():
        with closing(PostgresDatabase(urls[role]).connect()) as connection:
            for table in (*TABLES, *VIEW_TABLES):
                assert (role, table, read_privileges(connection, table)) == (role, table, may.get(table, "S"))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE mine (a int)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("TRUNCATE stored_events")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DROP TABLE stored_events")


def read_privileges(connection: psycopg.Connection[Any], table: str) -> str:
    names = ("SELECT", "INSERT", "UPDATE", "DELETE")
    may = connection.execute(
        "SELECT " + ", ".join(f"has_table_privilege('{table}', '{name}')" for name in names)  # type: ignore[arg-type]
    ).fetchone()
    assert may is not None
    return "".join(name[0] for name, is_so in zip(names, may, strict=True) if is_so)


@pytest.mark.anyio
async def test_each_service_works_as_its_own_role_and_a_view_can_be_built_again(
    tmp_path: Path, postgres: Server
) -> None:
    urls = create_roles(postgres)
    async with nats_server(tmp_path / "nats") as nats, connected(nats.url) as nc:
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": urls["owner"]}
        settings["SLA_POLICY_DIR"] = open_all_hours(tmp_path / "policy")
        deployed = Deployment(tmp_path, nats, parse_database_url(urls["owner"]), settings)
        assert (await asyncio.to_thread(run_sla, "migrate", **settings)).returncode == 0
        roles = ("intake", "clock", "announcer", "metrics")
        services = [deployed.run(role, SLA_DATABASE_URL=urls[role]) for role in roles]
        services.insert(0, deployed.run("board", SLA_DATABASE_URL=urls["reader"]))
        try:
            for service in services:
                await service.ready()
            async with subscribed(nc) as heard:
                await publish(nc, opened("T-1", ago(hours=2)))
                await heard.first("T-1", "breached")
            rebuilt = await asyncio.to_thread(run_sla, "rebuild", **settings)
            assert rebuilt.returncode == 0, rebuilt.stderr
            await publish(nc, opened("T-2", ago(hours=2)))
            await settled(nc, deployed.store)
            reading = settings | {"SLA_DATABASE_URL": urls["reader"]}
            listed = await asyncio.to_thread(run_sla, "list", **reading)
            assert listed.returncode == 0 and listed.stdout.count("breached") == 2, listed.stderr
            verified = await asyncio.to_thread(run_sla, "verify", **reading)
            assert verified.returncode == 0 and "0 differences" in verified.stdout
            assert "the result was not kept in the store" in verified.stderr
            assert total(await samples(services[-1].http_url), "sla_promises", stage="running") == 2

            async def is_shown() -> bool:
                return "<dt>Late</dt><dd>2</dd>" in (await get(services[0].http_url))[1]

            await until("the board, which may only read, shows both", is_shown)
            for service in services:
                service.process.end()
        finally:
            for service in services:
                service.process.kill()


# ---- the store


def test_a_role_has_one_leader_until_its_session_ends(place: PostgresDatabase) -> None:
    first, second, other = (place.create_lock(role) for role in ("clock", "clock", "metrics"))
    assert (first.acquire(), second.acquire(), other.acquire(), first.acquire()) == (True, False, True, True)
    end_sessions(place)
    with pytest.raises(StoreError, match="terminating connection"):
        first.acquire()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()
    first.release()


def end_sessions(place: PostgresDatabase) -> None:
    """End sessions as the server does with idle ones, and when it restarts."""
    with closing(place.connect()) as connection:
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'")


def test_partitions_are_shared_fairly(place: PostgresDatabase) -> None:
    several = [place.create_leases() for _ in range(3)]

    def settle_shares(count: int) -> list[int]:
        for _ in range(3):
            shares = [each.acquire_fair_share(count) for each in several]
        assert sorted(number for share in shares for number in share) == list(range(count))
        return sorted(map(len, shares))

    assert settle_shares(8) == [2, 3, 3]
    several.pop().release()
    assert settle_shares(8) == [4, 4]
    several.append(place.create_leases())
    assert settle_shares(8) == [2, 3, 3]
    assert settle_shares(2) == [0, 1, 1]
    assert not several[0].acquire_all(2)
    for each in several[1:]:
        each.release()
    assert several[0].acquire_all(8)
    several[0].release()


def test_who_is_paused_within_a_transaction_holds_nobody_up_for_long(place: PostgresDatabase) -> None:
    with closing(place.open()) as paused, closing(place.open()) as other:
        with pytest.raises(StoreError, match="idle-in-transaction"), paused.write_log() as cursor:
            cursor.execute("SELECT 1")
            commit_until_stored(other)
            cursor.execute("SELECT 1")
        assert other.read_partitions() == {0: 1}


def commit_until_stored(store: Store) -> None:
    """Try again as a service does."""
    for _ in range(3):
        with suppress(StoreError):
            return store.commit(BatchOutcome(last_sequence=1), {0: 0})
    raise AssertionError("it was held up for more than 15 s")


@pytest.mark.anyio
@pytest.mark.parametrize("service", ["intake", "announcer", "metrics"])
async def test_a_server_that_does_not_answer_keeps_no_service_from_ending(
    tmp_path: Path, postgres: Server, service: str
) -> None:
    """The session with its lock is frozen, as if the network were gone: SIGTERM ends the service within 10 s."""
    async with nats_server(tmp_path / "nats") as nats:
        url, policy = new_database(postgres.dsn), open_all_hours(tmp_path / "policy")
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": url, "SLA_POLICY_DIR": policy}
        deployed = Deployment(tmp_path, nats, parse_database_url(url), settings)
        await deployed.migrate()
        running = deployed.run(service)
        with psycopg.connect(url, autocommit=True) as connection:
            await running.ready()
            held = (
                "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            ((session,), *_) = connection.execute(f"SELECT DISTINCT pid FROM pg_locks WHERE {held}").fetchall()
        os.kill(session, signal.SIGSTOP)
        try:
            running.process.process.terminate()
            await asyncio.to_thread(running.process.process.wait, ENDS_WITHIN)
            assert "Traceback" not in running.process.log
        finally:
            os.kill(session, signal.SIGCONT)
            running.process.kill()


# ---- backup and restore, between kinds of store


@pytest.mark.anyio
async def test_a_backup_of_one_kind_of_store_goes_on_in_the_other(tmp_path: Path, postgres: Server) -> None:
    """From a file to PostgreSQL with a bus beside it, and back into a folder: nothing is lost or said twice."""
    policy = open_all_hours(tmp_path / "policy")
    every = list(lives(120))
    facts = load(every)
    third = len(facts) // 3
    with up(tmp_path / "file", SLA_POLICY_DIR=policy) as engine:
        async with connected(engine.nats_url) as nc:
            await send(nc, facts[:third])
            await settled(nc, engine.store)
    first = tmp_path / "first.tgz"
    assert run_sla("backup", first, "--data", engine.data).returncode == 0

    url = new_database(postgres.dsn)
    async with nats_server(tmp_path / "nats") as nats, connected(nats.url) as nc:
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": url, "SLA_POLICY_DIR": policy}
        restored = await asyncio.to_thread(run_sla, "restore", first, **settings)
        assert restored.returncode == 0, restored.stderr
        again = await asyncio.to_thread(run_sla, "restore", first, **settings)
        assert again.returncode == 1 and "is not empty" in again.stderr
        deployed = Deployment(tmp_path, nats, parse_database_url(url), settings)
        await asyncio.to_thread(run_sla, "migrate", **settings)
        service = deployed.run("intake", "clock", "announcer", "metrics")
        try:
            await service.ready()
            await send(nc, facts[third : 2 * third])
            await settled(nc, deployed.store)
            await check_same(nc, deployed.store)
            service.process.end()
        finally:
            service.process.kill()
        second = tmp_path / "second.tgz"
        saved = await asyncio.to_thread(run_sla, "backup", second, **settings)
        assert saved.returncode == 0, saved.stderr

    assert run_sla("restore", second, "--data", tmp_path / "back" / "data").returncode == 0
    with up(tmp_path / "back", SLA_POLICY_DIR=policy) as engine:
        store = SqliteFile(engine.data / "sla.db")
        async with connected(engine.nats_url) as nc:
            await send(nc, facts[2 * third :])
            await settled(nc, store)
            await check_same(nc, store)
    with closing(store.open()) as opened_store:
        tickets = opened_store.load_tickets(life.ticket for life in every)
    states = {name: (ticket.state.breached_at, ticket.state.met) for name, ticket in tickets.items()}
    assert states == {life.ticket: (life.broken_at, life.met) for life in every}


async def check_same(nc: Client, store: Any) -> None:
    """Check that log and bus have the same decisions, each once, and that they follow from the facts."""
    states = rows(store, "SELECT state FROM stored_events ORDER BY rowid")
    decided = [json.loads(state)["id"] for (state,) in states if b'"cause":' in state]
    assert [heard.event["id"] for heard in await stored(nc)] == decided
    assert len(decided) == len(set(decided))
    with store.open_snapshot() as snapshot, Verifier(snapshot, PROJECTIONS) as verify:
        for _ in (*verify.check_projections(), *verify.check_tickets()):
            pass
    assert verify.shown == []


@pytest.mark.anyio
async def test_a_backup_that_is_refused_leaves_neither_streams_nor_rows(tmp_path: Path, postgres: Server) -> None:
    """Rows that SQLite takes and PostgreSQL does not, and such as are no rows of ours: then a good one is restored."""
    with up(tmp_path / "file") as engine:
        async with connected(engine.nats_url) as nc:
            await publish(nc, opened("T-1", ago(hours=3)), opened("T-2", ago(hours=3)))
            await settled(nc, engine.store)
    good = tmp_path / "good.tar"
    assert run_sla("backup", good, "--data", engine.data).returncode == 0
    planted = edit_store(good, tmp_path / "planted.tar", *PLANTED)
    refused = {
        "UPDATE inbox SET ticket = 'a' || char(0) WHERE sequence = 2": "NUL",
        "UPDATE inbox SET type = x'00' WHERE sequence = 2": "row 2 of the table inbox has the wrong types: type",
        "UPDATE partitions SET position = 1": "contradicts itself",
    }
    url = new_database(postgres.dsn)
    async with nats_server(tmp_path / "nats") as nats, connected(nats.url) as nc:
        settings = {"SLA_NATS_URL": nats.url, "SLA_DATABASE_URL": url}
        for statement, expected in refused.items():
            edited = edit_store(good, tmp_path / "edited.tar", statement)
            done = await asyncio.to_thread(run_sla, "restore", edited, **settings)
            assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and expected in done.stderr, done.stderr
            assert await nc.jetstream().streams_info() == []
            assert rows(parse_database_url(url), "SELECT count(*) FROM stored_events") == [(0,)]
        done = await asyncio.to_thread(run_sla, "restore", planted, **settings)
        assert done.returncode == 0, done.stderr
        for stream in ("TICKETS", "SLA", "DEAD_LETTERS"):
            config = (await nc.jetstream().stream_info(stream)).config
            assert config.subjects == build_stream(stream).subjects
    ((kept,),) = rows(SqliteFile(engine.data / "sla.db"), "SELECT count(*) FROM stored_events")
    assert rows(parse_database_url(url), "SELECT count(*) FROM stored_events") == [(kept,)]
