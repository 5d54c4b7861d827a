"""What tests of the bus share: facts, a subscriber, nats-server, our processes, and waiting for them."""

import asyncio
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from projections.registry import PROJECTIONS
from services.bus import embedded_server as embedded
from services.bus.embedded_server import EmbeddedNats
from services.maintenance.provision import provision_bus
from services.runtime.connections import read_run_file
from services.store.interface import Database
from tests.support.stores import ON_POSTGRES, address, new_store, position, rows

SLA = Path(sys.executable).with_name("sla")
DEPLOY = Path(__file__).parents[2] / "deploy" / "nats"
POLICIES = Path(__file__).parents[2] / "sla" / "policies"
PATIENCE = 30.0  # seconds until a test gives up on what should take a fraction of one
ENDS_WITHIN = 10.0  # seconds, as the README promises
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


def now() -> datetime:
    return datetime.now(UTC)


def ago(**span: float) -> datetime:
    """An instant in the past, like `ago(hours=3)`."""
    return now() - timedelta(**span)


async def until(what: str, condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """The first true value of `condition`, which may be async; a failed test if there is none in time."""
    give_up = time.monotonic() + within
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < give_up, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.02)


# ---- facts, as any helpdesk would send them: JSON, and nothing of ours


class Fact(NamedTuple):
    """A message for the bus."""

    subject: str
    body: bytes
    headers: dict[str, str] = STRUCTURED

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def token(ticket: str) -> str:
    """Return the ticket as a token of a subject."""
    return quote(ticket, safe="").replace(".", "%2E").replace("~", "%7E")


def fact(kind: str, ticket: str, at: datetime, /, id: str | None = None, source: str = "/test", **data: Any) -> Fact:
    """`ticket.<kind>` of a ticket, in structured mode."""
    event = {
        "specversion": "1.0",
        "type": f"ticket.{kind}",
        "source": source,
        "id": id or uuid4().hex,
        "subject": ticket,
        "time": at.isoformat(),
        "data": data,
    }
    return Fact(f"tickets.{kind}.{token(ticket)}", json.dumps(event).encode())


def opened(ticket: str, at: datetime, priority: str = "critical", level: str = "enterprise", **more: Any) -> Fact:
    return fact("opened", ticket, at, service_level=level, priority=priority, **more)


def responded(ticket: str, at: datetime, **more: Any) -> Fact:
    return fact("responded", ticket, at, **more)


def binary(fact: Fact) -> Fact:
    """The same fact in binary mode: attributes in headers, the data as body."""
    event = fact.event
    data = event.pop("data")
    headers = {f"ce-{name}": quote(value, safe=" /:+-") for name, value in event.items()}
    return Fact(fact.subject, json.dumps(data).encode(), {"Content-Type": "application/json", **headers})


async def publish(nc: Client, *facts: Fact) -> None:
    """One after the other, each acknowledged by the stream."""
    js = nc.jetstream()
    for each in facts:
        await js.publish(each.subject, each.body, headers=dict(each.headers), stream="TICKETS", timeout=PATIENCE)


async def publish_bytes(url: str, messages: Iterable[tuple[bytes, bytes, bytes]]) -> None:
    """Publish subjects, lines of headers and bodies that no client library would let through, without any answer."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    login = {"headers": True, "verbose": False, "user": address.username, "pass": address.password}
    writer.write(f"CONNECT {json.dumps(login)}\r\n".encode())
    for subject, lines, body in messages:
        head = b"NATS/1.0\r\n" + lines + b"\r\n"
        sizes = f"{len(head)} {len(head) + len(body)}".encode()
        writer.write(b"HPUB " + subject + b" " + sizes + b"\r\n" + head + body + b"\r\n")
    writer.write(b"PING\r\n")
    while b"PONG" not in await reader.readline():
        pass
    writer.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A connection of nats-py alone, which comes back after an outage."""

    async def quiet(_: Exception) -> None:
        pass

    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet)
    try:
        yield nc
    finally:
        await nc.close()


# ---- a subscriber: nats-py and JSON


class Heard(NamedTuple):
    """A message of a stream: what it says, and when the broker stored it."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    stored_at: datetime

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self.event["data"]
        return found

    @property
    def kind(self) -> str:
        """`breached` of `sla.breached`."""
        return str(self.event["type"]).removeprefix("sla.")

    @property
    def ticket(self) -> str:
        return str(self.event["subject"])


class Subscriber:
    """Hears a subject from the first message of its stream on, in order."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._more = asyncio.Event()

    async def _hear(self, message: Msg) -> None:
        metadata = message.metadata
        self.heard.append(
            Heard(
                message.subject,
                message.headers or {},
                message.data,
                metadata.sequence.stream,
                metadata.timestamp.astimezone(UTC),
            )
        )
        self._more.set()

    @property
    def newest(self) -> int:
        """The sequence of the last message that was heard."""
        return self.heard[-1].sequence if self.heard else 0

    def of(self, ticket: str) -> list[Heard]:
        """What was heard of a ticket so far."""
        return [heard for heard in self.heard if heard.ticket == ticket]

    def kinds(self, ticket: str) -> list[str]:
        return [heard.kind for heard in self.of(ticket)]

    async def until(self, what: str, enough: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Looks again after each message; a failed test if it is not `enough` in time."""
        try:
            async with asyncio.timeout(within):
                while not (found := enough()):
                    self._more.clear()
                    await self._more.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"not heard within {within:g} s: {what}") from None

    async def first(self, ticket: str, kind: str, number: int = 1, within: float = PATIENCE) -> Heard:
        """The n-th message of a kind about a ticket."""

        def found() -> Heard | None:
            each = [heard for heard in self.of(ticket) if heard.kind == kind]
            return each[number - 1] if len(each) >= number else None

        message: Heard = await self.until(f"{kind} {number} of {ticket}", found, within)
        return message


@asynccontextmanager
async def subscribed(nc: Client, subject: str = "sla.>", stream: str = "SLA") -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    subscription = await nc.jetstream().subscribe(subject, stream=stream, cb=subscriber._hear, ordered_consumer=True)
    try:
        yield subscriber
    finally:
        await subscription.unsubscribe()


async def stored(nc: Client, stream: str = "SLA", subject: str = "sla.>") -> list[Heard]:
    """All that a stream holds of a subject now."""
    newest = (await nc.jetstream().stream_info(stream)).state.last_seq
    if not newest:
        return []
    last = (await nc.jetstream().get_last_msg(stream, subject)).seq
    async with subscribed(nc, subject, stream) as subscriber:
        await subscriber.until(
            f"{subject} up to {last}", lambda: subscriber.heard[-1:] and subscriber.heard[-1].sequence >= last
        )
        return list(subscriber.heard)


# ---- nats-server and our processes


class Server:
    """A real nats-server with its data in a folder. Started again, it keeps port and data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedNats(folder, free_port())
        self.url = ""

    async def start(self) -> None:
        await self._server.start()
        self.url = self._server.url

    async def stop(self) -> None:
        await self._server.stop()

    async def kill(self) -> None:
        """kill -9: nothing is finished."""
        self.send(signal.SIGKILL)
        await self._server.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal to nats-server."""
        (ports,) = self._folder.glob("nats-server_*.ports")
        os.kill(int(ports.stem.rpartition("_")[2]), number)


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[Server]:
    server = Server(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Broker:
    """nats-server as deploy/nats configures it, with a password for each user, on a free port; its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(DEPLOY, folder)
        for file in folder.glob("*.conf"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("/data", f"{folder}/data").replace("/etc/nats", str(folder)), encoding="utf-8")
        self.make_passwords()
        self.url = f"nats://127.0.0.1:{free_port()}"
        self._server: subprocess.Popen[bytes] | None = None

    def make_passwords(self) -> None:
        subprocess.run([self.folder / "passwords", self.folder], check=True)

    def password(self, user: str) -> str:
        return (self.folder / f"nats_{user}").read_text(encoding="utf-8")

    def settings(self, user: str) -> dict[str, str]:
        """For our processes."""
        file = str(self.folder / f"nats_{user}")
        return {"SLA_NATS_URL": self.url, "SLA_NATS_USER": user, "SLA_NATS_PASSWORD_FILE": file}

    def access(self, user: str) -> dict[str, Any]:
        """For `nats.connect` and nothing of ours, as the README says it."""
        return {"user": user, "password": self.password(user), "inbox_prefix": f"_INBOX.{user}"}

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def reload(self) -> None:
        """As `nats-server --signal reload` does it."""
        assert self._server is not None
        self._server.send_signal(signal.SIGHUP)

    @contextmanager
    def running(self, config: str = "nats.conf") -> Iterator["Broker"]:
        address = ("-a", "127.0.0.1", "-p", self.url.rpartition(":")[2], "--ports_file_dir", self.folder)
        command = [embedded.find_binary(), "-c", self.folder / config, "-l", self.folder / "log", *address]
        with subprocess.Popen(command) as self._server:
            try:
                ports, give_up = self.folder / f"nats-server_{self._server.pid}.ports", time.monotonic() + PATIENCE
                while not (ports.exists() and ports.read_text()):
                    assert self._server.poll() is None and time.monotonic() < give_up, self.log
                    time.sleep(0.01)
                yield self
            finally:
                self._server.terminate()


class Guarded(Server):
    """A nats-server with users, and with a limit to the subscriptions of a connection; 0 is none."""

    def __init__(self, folder: Path, subscriptions: int = 0) -> None:
        self._file, self.port, self._subscriptions = folder / "nats.conf", free_port(), subscriptions
        self._server: subprocess.Popen[bytes] | None = None
        self.url = self.of("root")

    def of(self, user: str) -> str:
        return f"nats://{user}:secret@127.0.0.1:{self.port}"

    def allow(self, **denied: str) -> None:
        """From now on: the users beside root, each with a subject that it may not publish."""
        users = "".join(
            f"{{ user: {user}, password: secret, permissions: {{ publish: {{ deny: {subject!r} }} }} }}\n"
            for user, subject in denied.items()
        )
        self._file.write_text(
            f"host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: {str(self._file.parent)!r} }}\n"
            f"max_subscriptions: {self._subscriptions}\n"
            f"authorization {{ users: [\n{{ user: root, password: secret }}\n{users}] }}\n"
        )
        if self._server is not None:
            self._server.send_signal(signal.SIGHUP)

    @contextmanager
    def started(self) -> Iterator[None]:
        log_file = self._file.with_suffix(".log")
        with subprocess.Popen([embedded.find_binary(), "-c", str(self._file), "-l", str(log_file)]) as self._server:
            try:
                yield
            finally:
                self._server.terminate()


def free_port() -> int:
    """Return a port on which nobody listens, below those that the kernel gives to whoever asks for any."""
    while True:
        port = SystemRandom().randrange(10_000, 32_000)
        with closing(socket.socket()) as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def environment(**settings: str) -> dict[str, str]:
    """The environment without settings of ours, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLA_")}
    return kept | {"SLA_NATS_PORT": "0", "SLA_HTTP_PORT": "0"} | settings


class Sla:
    """A process `sla …`, with what it writes to stderr in a file."""

    def __init__(self, folder: Path, *arguments: str, command: Sequence[str | Path] = (SLA,), **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / f"{'-'.join(arguments[:2]).replace('/', '_')}-{uuid4().hex[:6]}.log"
        with self.log_file.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=folder,
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def kill(self) -> None:
        """kill -9: nothing is finished."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """SIGTERM: it must end in time, with 0 and without a traceback."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(ENDS_WITHIN) == 0, self.log
        assert "Traceback" not in self.log and "unfinished" not in self.log, self.log

    def give_up(self) -> None:
        """After a test that failed: in peace if it can, so that it takes its own nats-server along."""
        self.process.terminate()
        try:
            self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()

    def running(self) -> bool:
        return self.process.poll() is None

    def must_run(self) -> bool:
        assert self.running(), f"it ended with {self.process.returncode}: {self.log}"
        return True


@contextmanager
def process(folder: Path, *arguments: str, command: Sequence[str | Path] = (SLA,), **settings: str) -> Iterator[Sla]:
    """A process that is gone after the test, whatever happens."""
    started = Sla(folder, *arguments, command=command, **settings)
    try:
        yield started
    finally:
        if started.running():
            started.give_up()


class Deployment(NamedTuple):
    """One nats-server, one store, and services as processes of their own."""

    folder: Path
    server: Server
    store: Database
    settings: dict[str, str]

    async def migrate(self) -> None:
        """As `sla migrate` does it; but for a process of its own, which takes a second."""
        await asyncio.to_thread(self.store.migrate, PROJECTIONS)
        await provision_bus(self.server.url)

    def run(self, *services: str, **settings: str) -> "Service":
        port = free_port()
        started = Sla(self.folder, "run", *services, **self.settings | {"SLA_HTTP_PORT": str(port)} | settings)
        return Service(started, f"http://127.0.0.1:{port}")


class Service(NamedTuple):
    """`sla run …`, and its HTTP port."""

    process: Sla
    http_url: str

    async def readiness(self) -> tuple[int, dict[str, str]]:
        """Status and reasons of GET /health/ready; 0 while nobody answers."""
        self.process.must_run()
        return await readiness(self.http_url)

    async def ready(self) -> None:
        async def is_ready() -> bool:
            return (await self.readiness())[0] == 200

        await until(f"{self.process.log_file.stem} is ready", is_ready)


@asynccontextmanager
async def deployment(folder: Path, server: Server, **settings: str) -> AsyncIterator[Deployment]:
    """Migrated, with no service yet. Processes that a test starts with `run` it has to end."""
    store = new_store(folder / "sla.db")
    addresses = {"SLA_NATS_URL": server.url, "SLA_DATABASE_URL": address(store)}
    found = Deployment(folder, server, store, addresses | settings)
    await found.migrate()
    yield found


class Up(NamedTuple):
    """A running `sla up`."""

    process: Sla
    data: Path
    nats_url: str
    http_url: str
    store: Database


@contextmanager
def up(folder: Path, command: Sequence[str | Path] = (SLA,), **settings: str) -> Iterator[Up]:
    """`sla up` on free ports; its data in `folder`/data. It must end with 0 at SIGTERM, if the test did not end it."""
    data = folder / "data"
    store = new_store(data / "sla.db")
    if ON_POSTGRES:
        settings["SLA_DATABASE_URL"] = address(store)
    with process(folder, "up", "--data", str(data), command=command, **settings) as started:
        run_file, give_up = data / "run.json", time.monotonic() + PATIENCE
        while not (run_file.exists() and run_file.read_text().endswith("\n")):
            assert started.must_run() and time.monotonic() < give_up, f"not ready: {started.log}"
            time.sleep(0.02)
        addresses = json.loads(run_file.read_text())
        yield Up(started, data, read_run_file(data), addresses["http_url"], store)
        if started.running():
            started.end()


def open_all_hours(folder: Path) -> str:
    """A folder with the shipped policy in which Enterprise is open every second, whatever day the tests run on."""
    folder.mkdir(parents=True, exist_ok=True)
    text = next(POLICIES.glob("*.yaml")).read_text(encoding="utf-8")
    (folder / "policy.yaml").write_text(text.replace("holidays: closed", "holidays: open"), encoding="utf-8")
    return str(folder)


# ---- HTTP and the store


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def get(url: str) -> tuple[int, str]:
    """Status and body; 0 if nobody answers."""
    return await asyncio.to_thread(_get, url)


async def readiness(http_url: str) -> tuple[int, dict[str, str]]:
    status, body = await get(f"{http_url}/health/ready")
    return status, json.loads(body)["reasons"] if body else {}


async def taken(nc: Client, store: Database) -> None:
    """Waits until intake has stored every message that TICKETS has now."""
    newest = (await nc.jetstream().stream_info("TICKETS")).state.last_seq
    await until(f"intake has stored message {newest}", lambda: position(store, "intake") >= newest)


async def announced(nc: Client, store: Database) -> None:
    """Waits until what TICKETS has now is stored, and all that followed from it is announced."""
    await taken(nc, store)
    head = int(rows(store, "SELECT max(rowid) FROM stored_events")[0][0] or 0)
    await until(f"announced up to {head}", lambda: position(store, "announcements") >= head)


async def settled(nc: Client, store: Database) -> None:
    """Waits until every message is stored, every reader of the log is at its end, and no instant waits for its tick."""

    async def is_settled() -> bool:
        if (await nc.jetstream().stream_info("TICKETS")).state.last_seq != position(store, "intake"):
            return False
        ((head,),) = rows(store, "SELECT max(rowid) FROM stored_events")
        ((last,),) = rows(store, "SELECT max(sequence) FROM inbox")
        due = rows(store, "SELECT 1 FROM deadlines WHERE at < ? LIMIT 1", now().timestamp() * 1e6)
        followers = ("announcements", "deadlines", "promises", "compliance")
        at_end = all(position(store, name) == (head or 0) for name in followers) and position(store, "arrivals") == last
        return at_end and not due

    await until("all is stored, judged and announced", is_settled, within=2 * PATIENCE)


async def samples(http_url: str) -> list[Sample]:
    """What GET /metrics says."""
    status, body = await get(f"{http_url}/metrics")
    assert status == 200, body
    return [sample for family in text_string_to_metric_families(body) for sample in family.samples]


def total(shown: Iterable[Sample], name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels; a failed test if there is none."""
    found = [each.value for each in shown if each.name == name and labels.items() <= each.labels.items()]
    assert found, f"there is no {name} {labels}"
    return sum(found)
