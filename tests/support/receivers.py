"""Who is told, for tests: a web server that notes what it gets, and a real Alertmanager."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from tests.support.bus import free_port
from tests.support.prometheus import soon

CONFIG = Path(__file__).parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"


class Request(NamedTuple):
    """A POST as it came, and when (monotonic seconds)."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Hook:
    """Answers 204, or what `answers` says, one after the other; `hangs` until `released` is set."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self.hangs = False
        self.released = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.requests.append(Request(self.path, headers, body, time.monotonic()))
                if hook.hangs:
                    hook.released.wait()
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def tickets(self) -> list[str]:
        """Of the events that came, in their order."""
        return [json.loads(request.body)["subject"] for request in list(self.requests)]


@contextmanager
def hook(port: int = 0) -> Iterator[Hook]:
    found = Hook(port)
    thread = threading.Thread(target=found._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.released.set()
        found._server.shutdown()
        found._server.server_close()
        thread.join()


class Alertmanager(NamedTuple):
    url: str

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Those that fire and have these labels."""
        with urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return [alert for alert in found if labels.items() <= alert["labels"].items()]

    def of(self, ticket: str) -> list[dict[str, Any]]:
        return self.alerts(alertname="SlaTicketBreached", ticket=ticket)


@contextmanager
def alertmanager(folder: Path, port: int = 0) -> Iterator[Alertmanager]:
    """A real one with the configuration that we ship, and no memory of an earlier one."""
    address = f"127.0.0.1:{port or free_port()}"
    folder.mkdir(parents=True)
    command = ["prometheus-alertmanager", f"--config.file={CONFIG}", f"--storage.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}", "--cluster.listen-address="], stdout=log, stderr=log
        )
    try:
        soon("Alertmanager answers", lambda: Alertmanager(f"http://{address}").alerts() == [])
        yield Alertmanager(f"http://{address}")
    finally:
        process.terminate()
        process.wait(10)
