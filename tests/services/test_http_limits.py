"""What strangers can take of the HTTP port, on real connections: the rest is answered as ever."""

import asyncio
import errno
import json
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from datetime import timedelta
from functools import partial
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import structlog
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.ports import build_url, listen
from services.runtime import http_limits
from services.runtime.http_limits import (
    GUESS_DELAY,
    MAX_GUESSES,
    MAX_REMEMBERED_PEERS,
    MAX_REQUEST_BYTES,
    GuessLimit,
    PeerLimit,
    RareWarning,
    handle_loop_error,
    identify_peer,
)
from services.runtime.http_server import HttpServer
from tests.support.bus import SLA, Up, connected, now, open_all_hours, opened, publish, subscribed, until, up

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("http_limits")]


@pytest.fixture(autouse=True)
def log_everything() -> None:
    """A command that ran in this process may have logged errors alone."""
    structlog.reset_defaults()


ASK = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
FILES = 256  # that the engine of these tests may open


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    seconds: float


def ask(url: str, path: str = "/health/live", peer: str = "127.0.0.1", **headers: str) -> Answer:
    """Ask from an address of this machine, on a connection of its own."""
    began, source = time.monotonic(), (peer, 0)
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=10, source_address=source)) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return Answer(answer.status, dict(answer.getheaders()), time.monotonic() - began)


def connect(url: str, sent: bytes = b"", peer: str = "127.0.0.1") -> socket.socket:
    """A connection on which something was sent."""
    host, port = urlsplit(url).netloc.split(":")
    found = socket.create_connection((host, int(port)), timeout=10, source_address=(peer, 0))
    found.sendall(sent)
    return found


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed it; nothing may be there to be read."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


# ---- one server, with small limits


@asynccontextmanager
async def serve(pages: ASGIApp | None = None) -> AsyncIterator[HttpServer]:
    server = HttpServer(listen("127.0.0.1", 0), dict, CollectorRegistry(), pages)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health/live HTTP/1.1\r\nHost: ",
        b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n",
        ASK + b"GET /health/live HTTP/1.1\r\nHost: ",
    ],
    ids=["nothing", "half a head", "half a body", "half a head after an answer"],
)
async def test_who_does_not_finish_a_request_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_limits, "REQUEST_SECONDS", 0.5)
    async with serve() as server:
        reader, writer = await asyncio.open_connection(*urlsplit(build_url(server._socket)).netloc.split(":"))
        writer.write(sent)

        async def go_on() -> None:
            while sent:  # a byte now and then, for ever
                await asyncio.sleep(0.05)
                writer.write(b"x")

        slowly, began = asyncio.create_task(go_on()), time.monotonic()
        async with asyncio.timeout(5):
            with ExitStack() as closed:
                closed.callback(slowly.cancel)
                closed.callback(writer.close)
                while await reader.read(1000):
                    pass
        assert 0.4 < time.monotonic() - began < 2


async def test_who_reads_no_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "READER_SECONDS", 0.3)

    async def answer_much(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})

    async with serve(answer_much) as server:
        with connect(build_url(server._socket), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            there = server._server.server_state.connections
            await until("it is there", lambda: there)
            await until("it is gone", lambda: not there, within=5)


@pytest.mark.parametrize(
    "head",
    [b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"],
    ids=["head", "body"],
)
async def test_a_request_has_a_size(head: bytes) -> None:
    async with serve() as server:
        reader, writer = await asyncio.open_connection(*urlsplit(build_url(server._socket)).netloc.split(":"))
        writer.write(head + b"x" * (MAX_REQUEST_BYTES + 1))
        received = b""
        async with asyncio.timeout(5):
            try:
                while chunk := await reader.read(1000):
                    received += chunk
            except ConnectionResetError:
                pass
        writer.close()
        assert b" 200 " not in received
        assert (await asyncio.to_thread(ask, build_url(server._socket))).status == 200


async def test_new_connections_take_the_place_of_those_that_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "MAX_CONNECTIONS", 20)
    async with serve() as server:
        there = server._server.server_state.connections
        with ExitStack() as opened, capture_logs() as logs:
            other = opened.enter_context(connect(build_url(server._socket), peer="127.0.0.2"))
            flood = [
                opened.enter_context(await asyncio.to_thread(connect, build_url(server._socket), b"G"))
                for _ in range(60)
            ]
            assert [(await asyncio.to_thread(ask, build_url(server._socket))).status for _ in range(5)] == [200] * 5
            assert len(there) <= 11  # a half of them from this peer, and the one of the other
            await until("the first are closed", lambda: not any(map(is_open, flood[:50])))
            assert is_open(other) and is_open(flood[-1])
            for n in range(3, 30):  # more peers than there is room for
                opened.enter_context(await asyncio.to_thread(connect, build_url(server._socket), b"", f"127.0.0.{n}"))
            assert (
                len(there) <= 20
                and (await asyncio.to_thread(ask, build_url(server._socket), peer="127.0.1.1")).status == 200
            )
        assert [line["event"] for line in logs] in ([], ["too many connections"])  # once a minute


async def test_who_is_being_answered_is_not_closed_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "MAX_CONNECTIONS", 16)
    go_on = asyncio.Event()

    async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serve(answer_late) as server:
        there = server._server.server_state.connections
        with ExitStack() as opened:
            waiting = [
                opened.enter_context(connect(build_url(server._socket), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
                for _ in range(8)
            ]
            await until("all are there", lambda: len([each for each in there if each.cycle]) == 8)
            one_more = opened.enter_context(connect(build_url(server._socket)))
            await until("it is refused", lambda: not is_open(one_more))
            go_on.set()
            for connection in waiting:
                connection.settimeout(10)
                assert b" 200 " in await asyncio.to_thread(connection.recv, 100)


async def test_that_no_file_is_left_for_connections_is_logged_once() -> None:
    loop = asyncio.get_running_loop()
    context = {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "Too many open")}
    with capture_logs() as logs:
        for _ in range(100):
            handle_loop_error(loop, context | {"socket": None})
    assert [line["event"] for line in logs] == ["no connection can be accepted"]


def test_what_is_logged_rarely_says_how_often_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = RareWarning("seen")
    with capture_logs() as logs:
        for _ in range(5):
            warning.record(peer="a")
        monkeypatch.setattr(http_limits, "monotonic", lambda: time.monotonic() + 100)
        warning.record(peer="b")
    assert [(line["times"], line["peer"]) for line in logs] == [(1, "a"), (5, "b")]


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_a_peer_is_an_address_or_the_network_of_one_customer(address: str, peer: str) -> None:
    assert identify_peer((address, 1)) == peer


def test_one_peer_gets_a_half_and_what_it_gives_back_is_free() -> None:
    limit = PeerLimit(4)
    assert [limit.acquire("a") for _ in range(3)] == [True, True, False]
    assert [limit.acquire("b") for _ in range(3)] == [True, True, False]
    assert not limit.acquire("c")
    limit.release("a")
    assert limit.acquire("c") and not limit.acquire("d")


def test_a_lockout_ends_and_few_peers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, clock = GuessLimit(), [1000.0]
    monkeypatch.setattr(http_limits, "monotonic", lambda: clock[0])
    for _ in range(MAX_GUESSES):
        assert limit.find_lockout("a") == 0
        limit.record("a")
    assert limit.find_lockout("a") == 61 and limit.find_lockout("b") == 0
    clock[0] += 61
    assert limit.find_lockout("a") == 0
    limit.record("a")
    assert limit.find_lockout("a") == 0
    for n in range(3 * MAX_REMEMBERED_PEERS):
        limit.record(f"peer {n}")
    assert len(limit._guesses) == MAX_REMEMBERED_PEERS


# ---- an engine with few files, and a token


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("limits")
    few_files = ("bash", "-c", f'ulimit -n {FILES}; exec "$0" "$@"', SLA)
    with up(folder, few_files, SLA_POLICY_DIR=open_all_hours(folder / "policy"), SLA_BOARD_TOKEN="sesam") as running:
        yield running


@pytest.fixture
def many_files() -> Iterator[None]:
    """For the test itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parts
@pytest.mark.usefixtures("many_files")
async def test_1200_half_open_connections_stop_neither_health_nor_judging(engine: Up) -> None:
    before = engine.process.log_file.stat().st_size
    async with connected(engine.nats_url) as nc, subscribed(nc) as sla:
        due = now() + timedelta(seconds=4)
        await publish(nc, opened("FLOOD", due - timedelta(hours=2)))
        with ExitStack() as flood:
            connect_one = partial(connect, engine.http_url, b"GET / HTTP/1.1\r\nX: ")
            for _ in range(1200):
                flood.enter_context(await asyncio.to_thread(connect_one))
            answers = [await asyncio.to_thread(ask, engine.http_url, "/health/ready") for _ in range(20)]
            assert {answer.status for answer in answers} == {200}
            assert max(answer.seconds for answer in answers) < 2
            assert len(os.listdir(f"/proc/{engine.process.process.pid}/fd")) < FILES
            breach = await sla.first("FLOOD", "breached")
            assert (breach.stored_at - due).total_seconds() < 2
    assert engine.process.log_file.stat().st_size - before < 20_000


@pytest.mark.parts
async def test_pages_that_follow_the_news_are_limited_for_a_peer_and_leave_room(engine: Up) -> None:
    limit = (FILES - http_limits.RESERVED_FILES) // 4
    follow = b"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesam\r\n\r\n"

    def follow_from(peer: str) -> tuple[socket.socket, int]:
        connection = connect(engine.http_url, follow, peer)
        return connection, int(connection.recv(12).rpartition(b" ")[2])

    def follow_all() -> None:
        with ExitStack() as pages:
            for peer in ("127.0.2.1", "127.0.2.2"):
                for n in range(limit):
                    connection, status = follow_from(peer)
                    pages.enter_context(connection)
                    assert status == (200 if n < limit // 2 else 503)
            assert ask(engine.http_url, peer="127.0.2.1").status == 200
            page = ask(engine.http_url, "/api/promises", peer="127.0.2.3", Authorization="Bearer sesam")
            assert page.status == 200

    await asyncio.to_thread(follow_all)

    def is_free() -> bool:
        connection, status = follow_from("127.0.2.1")
        connection.close()
        return status == 200

    await until("those that were closed are free", lambda: asyncio.to_thread(is_free))


@pytest.mark.parts
def test_a_peer_that_guesses_tokens_waits_and_then_is_refused_and_others_are_not(engine: Up) -> None:
    guess = partial(ask, engine.http_url, "/api/promises", "127.0.3.1")
    answers = [guess(Authorization=f"Bearer guess {n}", X_Forwarded_For=f"192.0.2.{n}") for n in range(14)]
    assert [answer.status for answer in answers] == [401] * MAX_GUESSES + [429] * (14 - MAX_GUESSES)
    assert min(answer.seconds for answer in answers[:MAX_GUESSES]) >= GUESS_DELAY > 0.2
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61
    assert guess(Authorization="Bearer sesam").status == 429
    right = ask(engine.http_url, "/api/promises", "127.0.3.2", Authorization="Bearer sesam")
    assert right.status == 200 and right.seconds < 0.2
    assert ask(engine.http_url, "/health/ready", "127.0.3.1").status == 200
    lines = [json.loads(line) for line in engine.process.log.splitlines() if '"wrong tokens"' in line]
    assert [(line["peer"], line["times"]) for line in lines] == [("127.0.3.1", 1)]


@pytest.mark.parts
def test_who_gives_no_token_is_not_counted_as_guessing(engine: Up) -> None:
    answers = [ask(engine.http_url, "/", "127.0.4.1") for _ in range(20)]
    assert {answer.status for answer in answers} == {401}
    assert ask(engine.http_url, "/", "127.0.4.1", Authorization="Bearer sesam").status == 200
