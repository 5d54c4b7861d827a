"""`python -m services.part`: `engine` or `front` of `sla up`, as its child. Which services are in it is in app.py."""

import asyncio
import os
import pickle
import socket
import sys
from dataclasses import dataclass

from services.app import ENGINE, FRONT, Process
from services.bus.credentials import ANONYMOUS
from services.errors import ENVIRONMENT_ERRORS
from services.runtime.logging import configure
from services.runtime.settings import Settings
from services.runtime.status import StatusReceiver
from services.store.interface import Database
from sla.policy_file import PolicyError

GIVES_UP = 3
"""Exit code: it has logged why it cannot work, and a new start would not help."""
FRONT_NICENESS = 10
"""What people look at waits for what judges, where both want the processor."""
READY, ANNOUNCED = b"ready\n", b"announced\n"
"""What a part writes to its stdout once it works, and reads from its stdin once its addresses are written."""


@dataclass(frozen=True)
class Orders:
    """What a part is told, pickled, on its stdin: descriptors of sockets are inherited. When stdin ends, it ends."""

    part: str
    services: tuple[str, ...]
    settings: Settings
    nats_url: str
    database: Database
    listener: int | None
    reports: int

    def build_process(self) -> Process:
        """Return the process, with the sockets as its own."""
        reports = socket.socket(fileno=self.reports)
        if self.listener is None:
            return self._build(None, reports_to=reports)
        return self._build(socket.socket(fileno=self.listener), reports=StatusReceiver(ENGINE, reports))

    def _build(
        self,
        listener: socket.socket | None,
        reports: StatusReceiver | None = None,
        reports_to: socket.socket | None = None,
    ) -> Process:
        return Process(
            self.services,
            self.settings,
            self.nats_url,
            self.database,
            ANONYMOUS,
            listener=listener,
            reports=reports,
            reports_to=reports_to,
        )


async def run_part(orders: Orders) -> int:
    """Run until asked to end, or until the parent is gone. Return the exit code."""
    process, announced = orders.build_process(), asyncio.Event()
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    async def obey() -> None:
        while await stdin.readline():
            announced.set()
        process.stop()

    async def report_ready() -> None:
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()
        await announced.wait()

    obeying = asyncio.create_task(obey())
    code = await process.run(report_ready)
    obeying.cancel()
    return GIVES_UP if code else 0


def main() -> int:
    """Read the orders and run. Return the exit code."""
    orders: Orders = pickle.load(sys.stdin.buffer)
    if orders.part == FRONT:
        os.nice(FRONT_NICENESS)
    configure(orders.settings)
    try:
        return asyncio.run(run_part(orders))
    except (*ENVIRONMENT_ERRORS, PolicyError) as error:
        sys.stderr.write(f"sla: {error}\n")
        return GIVES_UP


if __name__ == "__main__":
    sys.exit(main())
