"""What `engine` reports to `front` in `sla up`, so that one address shows both. Which part is ready is not in here."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from time import monotonic

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

SEND_INTERVAL = 1.0  # seconds between two reports
SILENT_AFTER = 5.0  # seconds without a report, after which the sender does not work
MAX_REPORT_BYTES = 128 * 1024


def open_channel() -> tuple[socket.socket, socket.socket]:
    """
    Return the ends to send from and to receive at. It is a pair of datagram sockets: no stranger can connect to them,
    and a reader that is away holds nobody up.
    """
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REPORT_BYTES)
    for end in (sender, receiver):
        end.setblocking(False)
    return sender, receiver


class StatusSender:
    """Sends `problems`, by part, and the metrics of a registry. Takes the place of the HTTP port of a process."""

    def __init__(
        self, end: socket.socket, problems: Callable[[], Mapping[str, str]], registry: CollectorRegistry
    ) -> None:
        self._end, self._problems, self._registry = end, problems, registry
        self._sending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Send from now on."""
        self._sending = asyncio.create_task(self._send_repeatedly(), name="status")

    async def stop(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    def send(self) -> None:
        """Send a report now. It is lost if nobody takes reports."""
        report = {"problems": dict(self._problems()), "metrics": generate_latest(self._registry).decode()}
        with suppress(OSError):
            self._end.send(json.dumps(report).encode())

    async def _send_repeatedly(self) -> None:
        while True:
            self.send()
            await asyncio.sleep(SEND_INTERVAL)


class StatusReceiver(Collector):
    """The last report of another process of `sla up`, `name`; its metrics as a collector."""

    def __init__(self, name: str, end: socket.socket) -> None:
        self._name, self._end = name, end
        self._problems: dict[str, str] = {name: "starting"}
        self._metrics = ""
        self._heard_at = monotonic()

    def listen(self) -> None:
        """Take reports in from now on, in the loop that runs."""
        asyncio.get_running_loop().add_reader(self._end, self.receive)

    def receive(self) -> None:
        """Take in the reports that have come."""
        newest = b""
        with suppress(BlockingIOError):
            while report := self._end.recv(MAX_REPORT_BYTES):
                newest = report
        if newest:
            report = json.loads(newest)
            self._problems, self._metrics, self._heard_at = report["problems"], report["metrics"], monotonic()

    @property
    def problems(self) -> Mapping[str, str]:
        """What does not work there, by part."""
        silent = monotonic() - self._heard_at
        if silent > SILENT_AFTER:
            return {self._name: f"it has reported nothing for {silent:.0f} s; see what it logs, it is started again"}
        return self._problems

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from text_string_to_metric_families(self._metrics)
