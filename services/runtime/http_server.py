"""HTTP server of a process: /metrics, /health/live, /health/ready. What is ready, counted or shown is not in here."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import structlog
import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.asgi.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.datastructures import Headers

from services.runtime.http_limits import ACCEPTED_AT_ONCE, MAX_REQUEST_BYTES, LimitedProtocol, handle_loop_error

log = structlog.get_logger()


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can reach the host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(uvicorn.Server):
    """Leaves signals to the process that runs it, and ticks once a second: ten times is more than we need."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ends = asyncio.Event()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # each writes the date header anew, which has seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ends.wait(), 1.0)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """
    The HTTP port of a process. `problems` says what does not work now, by service; empty means ready. `pages` answers
    everywhere else.
    """

    def __init__(
        self,
        listener: socket.socket,
        problems: Callable[[], dict[str, str]],
        registry: CollectorRegistry,
        pages: ASGIApp | None = None,
    ) -> None:
        self._socket = listener
        config = uvicorn.Config(
            _build_app(problems, registry, pages),
            http=LimitedProtocol,
            ws="none",
            log_config=None,
            log_level="error",  # it would warn of each request that is none
            lifespan="off",
            access_log=False,
            proxy_headers=False,  # limits are for who is connected, not for who is named
            backlog=ACCEPTED_AT_ONCE,
            h11_max_incomplete_event_size=MAX_REQUEST_BYTES,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from now on."""
        asyncio.get_running_loop().set_exception_handler(handle_loop_error)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Finish the answers under way."""
        self._server.should_exit = True
        self._server.ends.set()
        if self._serving is not None:
            await self._serving
        self._socket.close()


def _build_app(problems: Callable[[], dict[str, str]], registry: CollectorRegistry, pages: ASGIApp | None) -> Any:
    @get
    async def answer_live(scope: Scope) -> AsgiResponse:
        return _answer_json({"status": "live"}, 200)

    @get
    async def answer_ready(scope: Scope) -> AsgiResponse:
        found = problems()
        return _answer_json({"status": "not ready" if found else "ready", "reasons": found}, 503 if found else 200)

    @get
    async def answer_metrics(scope: Scope) -> AsgiResponse:
        accepted = Headers(scope=scope).get("accept", "")
        is_open = "application/openmetrics-text" in accepted
        encode, content_type = choose_encoder(accepted if is_open else "")
        body = await asyncio.to_thread(encode, registry)
        return AsgiResponse(body, 200, {"Content-Type": content_type})

    routes = [("/metrics", answer_metrics), ("/health/live", answer_live), ("/health/ready", answer_ready)]
    own = AsgiFastStream(asgi_routes=routes, logger=None)
    if pages is None:
        return own

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        is_own = scope["type"] != "http" or any(scope["path"] == path for path, _ in routes)
        await (own if is_own else pages)(scope, receive, send)

    return answer


def _answer_json(body: dict[str, Any], status: int) -> AsgiResponse:
    return AsgiResponse(json.dumps(body).encode() + b"\n", status, {"Content-Type": "application/json"})
