"""Listening sockets: which port is taken instead of one that is not free, and how a kept-alive connection is set."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.errors import FatalError
from services.ports import build_url, listen
from services.runtime.http_server import HttpServer
from services.runtime.settings import Settings
from tests.support.bus import SLA, environment

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with listen("127.0.0.1", 0) as other:
        yield other.getsockname()[1]


def test_a_default_port_that_is_taken_is_replaced_and_named(taken: int) -> None:
    structlog.reset_defaults()  # a command that ran in this process may have logged errors alone
    with capture_logs() as logs, listen("127.0.0.1", taken) as found:
        instead = found.getsockname()[1]
    assert instead not in (0, taken)
    assert logs == [{"event": "port taken", "wanted": taken, "instead": instead, "log_level": "warning"}]


def test_a_port_that_was_asked_for_is_not_replaced(taken: int) -> None:
    with pytest.raises(FatalError, match=rf"port {taken} of 127\.0\.0\.1 is taken.*set SLA_HTTP_PORT to another port"):
        listen("127.0.0.1", taken, "SLA_HTTP_PORT")


def test_port_0_is_any_free_one_also_if_it_was_asked_for() -> None:
    with listen("127.0.0.1", 0, "SLA_HTTP_PORT") as found:
        assert found.getsockname()[1] > 0


def test_where_nothing_can_listen_the_address_is_named() -> None:
    with pytest.raises(FatalError, match=r"nothing can listen on port 8080 of 192\.0\.2\.1: Cannot assign"):
        listen("192.0.2.1", 8080)


def test_a_setting_was_asked_for_if_it_was_given_even_with_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLA_HTTP_PORT", raising=False)
    assert Settings().find_variable("http_port") is None
    monkeypatch.setenv("SLA_HTTP_PORT", "8080")
    assert Settings().find_variable("http_port") == "SLA_HTTP_PORT"


@pytest.mark.parametrize(
    ("command", "variable"),
    [(("run", "clock"), "SLA_HTTP_PORT"), (("up",), "SLA_HTTP_PORT"), (("up",), "SLA_NATS_PORT")],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_process_whose_port_is_taken_ends_with_one_line(
    tmp_path: Path, taken: int, command: tuple[str, ...], variable: str
) -> None:
    settings = {"SLA_NATS_URL": "nats://127.0.0.1:1", "SLA_DATABASE_URL": f"sqlite:///{tmp_path}/sla.db"}
    data = ("--data", str(tmp_path / "data")) if command == ("up",) else ()
    done = subprocess.run(
        [SLA, *command, *data],
        env=environment(**settings, **{variable: str(taken)}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"sla: port {taken} of 127.0.0.1 is taken, and one that was asked for is not replaced by another; end what "
        f"listens there, or set {variable} to another port, or to 0 for any free one"
    )
    assert "port taken" not in done.stderr and "Traceback" not in done.stderr


async def test_a_kept_alive_connection_sends_its_answers_at_once() -> None:
    server = HttpServer(listen("127.0.0.1", 0), dict, CollectorRegistry())
    await server.start()
    connection = HTTPConnection(urlsplit(build_url(server._socket)).netloc)

    def ask() -> int:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    try:
        assert [await asyncio.to_thread(ask) for _ in range(2)] == [200, 200]
        (kept,) = server._server.server_state.connections
        accepted = kept.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    finally:
        connection.close()
        await server.stop()
