"""Getting in: passwords, credentials files, TLS, with the real nats-server. What is wrong is said, and tried again."""

import asyncio
import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nats
import nats.errors
import nkeys
import pytest
import trustme
from nats.aio.client import ServerVersion

from projections.registry import PROJECTIONS
from services.bus import embedded_server as embedded
from services.bus.connection import connect, explain_old_server, strip_credentials
from services.bus.credentials import Credentials
from services.bus.streams import provision
from services.errors import BusError
from services.store.sqlite import SqliteFile
from tests.chaos.proxy import Proxy
from tests.support.bus import PATIENCE, SLA, Broker, Service, Sla, environment, free_port, nats_server, process, until

pytestmark = [pytest.mark.parts, pytest.mark.anyio]
PUBLISH = ("publish", "opened", "T-1", "--level", "enterprise", "--priority", "minor")
MIGRATE, RUN = ("migrate",), ("run", "clock")
TLS = "tls://127.0.0.1:1"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Said(NamedTuple):
    code: int
    error: str


def run_sla(folder: Path, *arguments: str, **settings: str) -> Said:
    command = [SLA, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(**settings), capture_output=True, text=True, timeout=30)
    return Said(done.returncode, done.stderr.strip())


@contextmanager
def run_service(folder: Path, name: str, **settings: str) -> Iterator[Service]:
    """Run a service; it must end with 0 if the test goes well."""
    port, store = free_port(), folder / "sla.db"
    SqliteFile(store).migrate(PROJECTIONS)
    settings |= {"SLA_HTTP_PORT": str(port), "SLA_DATABASE_URL": f"sqlite:///{store}"}
    running = Service(Sla(folder, "run", name, **settings), f"http://127.0.0.1:{port}")
    try:
        yield running
        running.process.end()
    finally:
        running.process.kill()


async def expect(service: Service, *words: str) -> None:
    """Wait until the process is not ready, and gives this reason for the bus."""

    async def is_reported() -> bool:
        _, reasons = await service.readiness()
        return all(word in reasons.get("bus", "") for word in words)

    await until(f"it says {words}", is_reported)


async def migrate(broker: Broker) -> None:
    nc = await connect(broker.url, "migrate", Credentials(user="provisioner", password=broker.password("provisioner")))
    await provision(nc)
    await nc.close()


# ---- passwords


@pytest.mark.chaos
async def test_a_wrong_password_is_said_once_and_tried_again_until_it_is_right(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "nats")
    file = tmp_path / "password"
    file.write_text("not this one")
    wrong = broker.settings("intake") | {"SLA_NATS_PASSWORD_FILE": str(file)}
    with broker.running():
        await migrate(broker)
        with run_service(tmp_path, "intake", **wrong) as intake:
            await expect(intake, "the broker refuses user intake", "correct SLA_NATS_USER and SLA_NATS_PASSWORD")
            refused = 'authentication error - User "intake"'
            await until("it has tried again", lambda: broker.log.count(refused) > 2)
            assert intake.process.log.count("the broker refuses") == 1
            (broker.folder / "nats_intake").write_text("not this one")
            broker.make_passwords()
            broker.reload()
            await intake.ready()
        assert "not this one" not in intake.process.log


async def test_a_command_with_a_wrong_password_ends_with_1_and_says_why(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        settings = {"SLA_NATS_URL": broker.url, "SLA_NATS_USER": "publisher", "SLA_NATS_PASSWORD": "not this one"}
        code, error = await asyncio.to_thread(run_sla, tmp_path, *PUBLISH, **settings)
        assert code == 1 and "not this one" not in error
        assert error.startswith(f"sla: no bus at {broker.url} within 4 s: the broker refuses user publisher")
        assert error.endswith("correct SLA_NATS_USER and SLA_NATS_PASSWORD, or the user there")


async def test_a_command_of_a_user_that_may_not_says_what_was_refused(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        await migrate(broker)
        code, error = await asyncio.to_thread(run_sla, tmp_path, "watch", **broker.settings("publisher"))
        assert code == 1
        assert error.startswith('sla: nats: permissions violation for publish to "$js.api.stream.info.sla"'), error


async def test_a_new_password_after_a_reload_leaves_the_other_users_connected(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        await migrate(broker)
        clock = await nats.connect(broker.url, **broker.access("clock"))
        lost = asyncio.Event()
        old = broker.access("publisher")
        publisher = await nats.connect(broker.url, disconnected_cb=make_setter(lost), allow_reconnect=False, **old)
        (broker.folder / "nats_publisher").unlink()
        broker.make_passwords()
        broker.reload()
        async with asyncio.timeout(10):
            await lost.wait()
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(broker.url, allow_reconnect=False, **old)
        again = await nats.connect(broker.url, **broker.access("publisher"))
        await again.jetstream().publish("tickets.opened.T-1", b"", stream="TICKETS")
        assert clock.is_connected and clock.stats["reconnects"] == 0
        for nc in (clock, publisher, again):
            await nc.close()


def make_setter(event: asyncio.Event) -> Any:
    async def set_it() -> None:
        event.set()

    return set_it


async def test_user_and_password_in_the_address_are_as_good(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        url = broker.url.replace("//", f"//provisioner:{broker.password('provisioner')}@")
        nc = await connect(url, "migrate")
        await provision(nc)
        await nc.close()


@pytest.mark.parametrize(
    ("command", "settings", "words"),
    [
        (PUBLISH, {"NATS_PASSWORD": "x"}, "SLA_NATS_PASSWORD is set, and SLA_NATS_USER is not"),
        (MIGRATE, {"NATS_USER": "x"}, "SLA_NATS_USER is set, and SLA_NATS_PASSWORD is not"),
        (RUN, {"NATS_USER": "a b", "NATS_PASSWORD": "x"}, "SLA_NATS_USER: String should match pattern"),
        (RUN, {"NATS_URL": TLS, "NATS_CERT": "x"}, "SLA_NATS_CERT and SLA_NATS_KEY belong together"),
        (
            PUBLISH,
            {"NATS_URL": TLS, "NATS_CA": "x"},
            "SLA_NATS_CA, SLA_NATS_CERT or SLA_NATS_KEY is not what it should be",
        ),
        (RUN, {"NATS_CA": "x"}, "SLA_NATS_CA is set, and SLA_NATS_URL does not begin with tls://"),
        (MIGRATE, {"SUBSCRIBERS": "pager=tickets.>"}, "SLA_SUBSCRIBERS: String should match pattern"),
    ],
)
def test_settings_that_cannot_work_are_wrong_usage(
    tmp_path: Path, command: tuple[str, ...], settings: dict[str, str], words: str
) -> None:
    settings = {"NATS_URL": "nats://127.0.0.1:1"} | settings
    given = {f"SLA_{name}": value for name, value in settings.items()}
    code, error = run_sla(tmp_path, *command, SLA_DATABASE_URL=f"sqlite:///{tmp_path}/sla.db", **given)
    assert code == 2 and error.startswith(f"sla: {words}"), error


def test_no_secret_is_shown_when_credentials_are_printed() -> None:
    assert "hush" not in repr(Credentials(user="clock", password="hush", key="hush", credentials="hush"))


# ---- a credentials file, as `nsc` makes it


def _sign(by: nkeys.KeyPair, subject: bytes, kind: str, **more: Any) -> str:
    claims = {"jti": "1", "iat": 1, "iss": by.public_key.decode(), "sub": subject.decode(), "name": kind}
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, claims | {"nats": {"type": kind, "version": 2} | more})
    text = ".".join(_encode_base64(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_encode_base64(by.sign(text.encode()))}"


def _encode_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def run_operator_server(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a nats-server that knows users by who signed for them; yield its address, and a user's credentials file."""
    kinds = (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    operator, account, user = (nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind)) for kind in kinds)
    limits = dict.fromkeys(("subs", "data", "payload", "conn", "leaf", "imports", "exports"), -1)
    known = _sign(operator, account.public_key, "account", limits=limits)
    (folder / "nats.conf").write_text(
        f"port: -1\nhost: 127.0.0.1\nports_file_dir: {folder}\nresolver: MEMORY\n"
        f"operator: {_sign(operator, operator.public_key, 'operator')}\n"
        f"resolver_preload {{ {account.public_key.decode()}: {known} }}\n"
    )
    jwt = _sign(account, user.public_key, "user", subs=-1, data=-1, payload=-1)
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    with subprocess.Popen([embedded.find_binary(), "-c", folder / "nats.conf", "-l", folder / "log"]) as server:
        try:
            ports, give_up = folder / f"nats-server_{server.pid}.ports", time.monotonic() + PATIENCE
            while not (ports.exists() and ports.read_text()):
                assert server.poll() is None and time.monotonic() < give_up
                time.sleep(0.01)
            yield json.loads(ports.read_text())["nats"][0], credentials
        finally:
            server.terminate()


async def test_a_credentials_file_lets_its_user_in(tmp_path: Path) -> None:
    with run_operator_server(tmp_path) as (url, credentials):
        nc = await connect(url, "test", Credentials(credentials=credentials), within=5)
        await nc.flush()
        await nc.close()
        with pytest.raises(BusError, match="the broker refuses this user"):
            await connect(url, "test", within=2)


# ---- TLS


class Certificates(NamedTuple):
    """Of an authority that the test made: its own, and one that it signed for a client."""

    ca: str
    cert: str
    key: str


@contextmanager
def run_tls(folder: Path, asks: bool = False) -> Iterator[tuple[Broker, Certificates]]:
    """Run a nats-server with deploy/nats/nats-tls.conf; if it `asks`, clients need a certificate too."""
    broker, authority = Broker(folder), trustme.CA()
    broker.url = broker.url.replace("nats://", "tls://")
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("clock")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server-key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    config = folder / "nats-tls.conf"
    if asks:
        config.write_text(config.read_text().replace("# ca_file", "ca_file").replace("# verify", "verify"))
    pems = (authority.cert_pem, client.cert_chain_pems[0], client.private_key_pem)
    with broker.running("nats-tls.conf"):
        yield broker, Certificates(*(pem.bytes().decode() for pem in pems))


def build_credentials(broker: Broker, user: str, **more: str) -> Credentials:
    return Credentials(user=user, password=broker.password(user), **more)


async def test_with_tls_a_service_works_and_a_publisher_too(tmp_path: Path) -> None:
    with run_tls(tmp_path / "nats") as (broker, _):
        ca = {"SLA_NATS_CA_FILE": str(broker.folder / "ca.pem")}
        with run_service(tmp_path, "clock", **broker.settings("clock"), **ca) as clock:
            code, error = await asyncio.to_thread(
                run_sla,
                tmp_path,
                "migrate",
                SLA_DATABASE_URL=f"sqlite:///{tmp_path}/sla.db",
                **broker.settings("provisioner"),
                **ca,
            )
            assert code == 0, error
            await clock.ready()
            code, error = await asyncio.to_thread(run_sla, tmp_path, *PUBLISH, **broker.settings("publisher"), **ca)
            assert (code, error) == (0, "")


async def test_a_broker_that_another_authority_signed_is_refused_before_the_password_is_sent(tmp_path: Path) -> None:
    with run_tls(tmp_path / "nats") as (broker, _), run_tls(tmp_path / "other") as (_, other):
        for ca in (other.ca, None):
            who = Credentials(user="clock", password="not this one", ca=ca)  # the log would have it, if it was sent
            with pytest.raises(BusError, match=r"certificate is not trusted: .*; SLA_NATS_CA names who signed it"):
                await connect(broker.url, "test", who, within=2)
        assert "clock" not in broker.log


async def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    with (
        run_tls(tmp_path / "nats") as (broker, certificates),
        pytest.raises(BusError, match="Hostname mismatch"),
    ):
        await connect(
            broker.url.replace("127.0.0.1", "localhost"),
            "test",
            build_credentials(broker, "clock", ca=certificates.ca),
            within=2,
        )


async def test_with_tls_in_the_address_nothing_is_said_to_a_broker_that_has_none(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        who = Credentials(user="clock", password="not this one")
        with pytest.raises(BusError, match="there is no TLS with the broker"):
            await connect(broker.url.replace("nats://", "tls://"), "test", who, within=2)
        assert "clock" not in broker.log


async def test_a_broker_that_asks_for_a_certificate_gets_ours(tmp_path: Path) -> None:
    with run_tls(tmp_path / "nats", asks=True) as (broker, (ca, cert, key)):
        nc = await connect(broker.url, "test", build_credentials(broker, "clock", ca=ca, cert=cert, key=key), within=5)
        await nc.close()
        with pytest.raises(BusError):
            await connect(broker.url, "test", build_credentials(broker, "clock", ca=ca), within=2)


async def test_other_clients_may_begin_without_tls_and_are_asked_for_it(tmp_path: Path) -> None:
    with run_tls(tmp_path / "nats") as (broker, certificates):
        context = Credentials(ca=certificates.ca).build_options("tls://")["tls"]
        nc = await nats.connect(broker.url, tls=context, **broker.access("publisher"))
        await nc.flush()
        await nc.close()


# ---- a nats-server that is too old


class Older(Proxy):
    """The real server, which says that it is of an older version until it is `upgraded`."""

    upgraded = False

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readline()
        if first.startswith(b"INFO ") and not self.upgraded:
            first = re.sub(rb'"version":"[^"]*"', b'"version":"2.11.4"', first)
        writer.write(first)
        await super()._pass(reader, writer)


@pytest.mark.chaos
async def test_a_nats_server_that_is_too_old_is_said_and_tried_again_until_it_is_upgraded(tmp_path: Path) -> None:
    why = "nats-server is 2.11.4, and 2.12 or newer is needed; upgrade it"
    async with nats_server(tmp_path / "nats") as server:
        older = Older(server.url)
        await older.start()
        settings = {"SLA_NATS_URL": older.url, "SLA_DATABASE_URL": f"sqlite:///{tmp_path}/sla.db"}
        with process(tmp_path, "migrate", **settings) as migrating, run_service(tmp_path, "clock", **settings) as clock:
            code, error = await asyncio.to_thread(run_sla, tmp_path, *PUBLISH, **settings)
            assert (code, error) == (1, f"sla: no bus at {strip_credentials(older.url)} within 4 s: {why}")
            await expect(clock, why)
            await until("migrate says it", lambda: migrating.must_run() and why in migrating.log)
            older.upgraded = True
            await clock.ready()
            assert await asyncio.to_thread(migrating.process.wait, 10) == 0
            assert migrating.log.count(why) == clock.process.log.count(why) == 1
        await older.stop()


@pytest.mark.parametrize(
    ("version", "will_do"),
    [("1.4.1", False), ("2.11.99", False), ("2.12.0", True), ("2.15.1", True), ("3.0.0-beta.1", True)],
)
def test_2_12_is_the_oldest_that_will_do(version: str, will_do: bool) -> None:
    assert (explain_old_server(ServerVersion(version)) is None) == will_do
