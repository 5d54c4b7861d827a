"""`python -m services.part`: `engine` or `front` of `sla up`, as its child. Which services are in it is in app.py."""

import asyncio
import os
import pickle
import socket
import sys

from services.app import PARTS_OF_UP, SERVICES, Process
from services.errors import ENVIRONMENT_ERRORS
from services.notifier.receivers import NotifyError
from services.runtime.logging import configure
from services.runtime.orders import ANNOUNCED, ENGINE, FRONT, GIVES_UP, READY, Orders
from services.runtime.status import StatusReceiver
from sla.policy_file import PolicyError

FRONT_NICENESS = 10
"""What people look at waits for what judges, where both want the processor."""


def build_process(orders: Orders) -> Process:
    """Return the process that is ordered. Raises what is wrong with the settings."""
    wanted = [name for name in PARTS_OF_UP[orders.part] if SERVICES[name].is_wanted(orders.settings)]
    told = (wanted, orders.settings, orders.nats_url, orders.database)
    reports = socket.socket(fileno=orders.reports)
    if orders.listener is None:
        return Process(*told, listener=None, reports_to=reports)
    return Process(*told, listener=socket.socket(fileno=orders.listener), reports=StatusReceiver(ENGINE, reports))


async def run_part(orders: Orders) -> int:
    """Run until asked to end, or until the parent is gone. Return the exit code."""
    process, announced = build_process(orders), asyncio.Event()
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    async def obey() -> None:
        while await stdin.readline() == ANNOUNCED:
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
    try:
        orders: Orders = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent was ended before it could give any
        return 0
    if orders.part == FRONT:
        os.nice(FRONT_NICENESS)
    configure(orders.settings)
    try:
        return asyncio.run(run_part(orders))
    except (*ENVIRONMENT_ERRORS, PolicyError, NotifyError) as error:
        sys.stderr.write(f"sla: {error}\n")
        return GIVES_UP


if __name__ == "__main__":
    sys.exit(main())
