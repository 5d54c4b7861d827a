"""The application: joins settings, bus, store and services to one process. What a service needs, it declares itself."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog
from nats.aio.client import Client
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from services import faults
from services.announcer import Announcer
from services.board import routes
from services.board.service import Board
from services.bus import connection as bus
from services.bus.connection import Bus
from services.bus.credentials import ANONYMOUS, Credentials
from services.clock import DeadlineTimer
from services.errors import TRANSIENT_ERRORS, FatalError
from services.intake import Intake
from services.metrics import Metrics
from services.notifier.service import Notifier
from services.runtime.health import Readiness, Watchdog
from services.runtime.http_server import HttpServer, is_loopback
from services.runtime.orders import ENGINE, FRONT, STOP_TIMEOUT
from services.runtime.service import Service, read_wall_clock
from services.runtime.settings import Settings, load_policy
from services.runtime.setup import Backends, Setup
from services.runtime.status import StatusReceiver, StatusSender
from services.runtime.supervisor import Supervisor
from services.store.interface import Database, Store

log = structlog.get_logger()

SERVICES: dict[str, type[Service]] = {
    service.name: service for service in (Intake, DeadlineTimer, Announcer, Metrics, Notifier, Board)
}
"""Every process that `sla run` knows, by its name."""
PARTS_OF_UP: dict[str, tuple[str, ...]] = {
    ENGINE: (Intake.name, DeadlineTimer.name, Announcer.name),
    FRONT: (Metrics.name, Notifier.name, Board.name),
}
"""The services of each of the two processes of `sla up`."""


class Process:
    """
    Services in one operating system process, whose state is shown on an HTTP port, `listener`. In `sla up` one of the
    two processes has the port, and shows the `reports` of the other one as well; that one sends them from `reports_to`.
    `run` returns the exit code.
    """

    def __init__(
        self,
        names: Sequence[str],
        settings: Settings,
        nats_url: str,
        database: Database | None,
        access: Credentials = ANONYMOUS,
        *,
        listener: socket.socket | None,
        reports: StatusReceiver | None = None,
        reports_to: socket.socket | None = None,
    ) -> None:
        self._names, self._settings, self._url, self._database = names, settings, nats_url, database
        self._access = access
        self._problems: dict[str, str] = dict.fromkeys(names, "starting")
        self._supervisors: dict[str, Supervisor] = {}
        self._watchdog: Watchdog | None = None
        self._nc: Client | None = None
        self._bus_error = "nobody listens there"
        self._fatal: str | None = None
        self._stopping = asyncio.Event()
        self._is_announced = False
        self._reports = reports
        policy, registry = load_policy(settings.policy_dir), CollectorRegistry()
        # its start time shows a process that begins again and again
        ProcessCollector(namespace=ENGINE if reports_to else "", registry=registry)
        if reports is not None:
            registry.register(reports)
        setup = Setup(settings, policy, registry, self._open_connection, access.build_inbox_prefix(nats_url))
        self._builders = {name: SERVICES[name].prepare(setup) for name in names}
        if settings.fault is not None:
            faults.plan(settings.fault)
        self._face = self._build_face(registry, listener, reports_to)

    def find_problems(self) -> dict[str, str]:
        """Return why the process is not ready, by service or part. It is not before it has said where it is found."""
        own = self._find_faults() or ({} if self._is_announced else dict.fromkeys(self._names, "starting"))
        return own if self._reports is None else {**self._reports.problems, **own}

    def _find_faults(self) -> dict[str, str]:
        found = self._problems | {name: each.problem for name, each in self._supervisors.items() if each.problem}
        if self._watchdog is not None:
            found |= self._watchdog.problems
        if self._nc is not None and not self._nc.is_connected:
            url = bus.strip_credentials(self._url)
            found["bus"] = f"the connection to {url} is lost, and it is being made again: {self._bus_error}"
        return found

    def stop(self, error: str | None = None) -> None:
        """Ask the process to end: with 0, or because of an error with 1. The first one who asks decides that."""
        if error is not None and not self._stopping.is_set():
            log.error("stopped", error=error)
            self._fatal = error
        self._stopping.set()

    async def run(self, ready: Callable[[], Awaitable[None]]) -> int:
        """
        Run until SIGINT, SIGTERM, `stop`, or a FatalError (then return 1). `ready` is awaited once, when all work, and
        before /health/ready says so.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        if self._reports is not None:
            self._reports.listen()
        await self._face.start()
        working = [
            asyncio.create_task(self._run_services(), name="services"),
            asyncio.create_task(self._call_when_ready(ready), name="ready"),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([working[0], stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in [*working, stopping]:
            task.cancel()
        done, late = await asyncio.wait([*working, stopping], timeout=STOP_TIMEOUT)
        if late:
            self._end_at_once(f"unfinished after {STOP_TIMEOUT:g} s: {', '.join(task.get_name() for task in late)}")
        await self._face.stop()
        for task in done:
            if not task.cancelled() and (error := task.exception()):
                log.error("stopped", error=str(error), exc_info=None if isinstance(error, FatalError) else error)
                self._fatal = str(error)
        return 1 if self._fatal else 0

    async def _call_when_ready(self, ready: Callable[[], Awaitable[None]]) -> None:
        while self._find_faults():  # noqa: ASYNC110 - many may be at fault; it is asked until none is
            await asyncio.sleep(0.02)
        await ready()
        self._is_announced = True
        if isinstance(self._face, StatusSender):
            self._face.send()

    async def _run_services(self) -> None:
        self._nc = nc = await self._wait_for_bus()
        try:
            store = await self._open_store(self._database) if self._database else None
            try:
                await self._supervise(Bus(nc), store)
            finally:
                if store is not None:
                    await asyncio.to_thread(store.close)
        except BaseExceptionGroup as errors:
            fatal, _ = errors.split(FatalError)
            if fatal is None:
                raise
            raise FatalError("; ".join(str(error) for error in fatal.exceptions)) from None
        finally:
            with suppress(OSError):  # the broker has hung up a moment before
                await nc.close()

    async def _supervise(self, bus: Bus, store: Store | None) -> None:
        gc.freeze()  # the collector would stop the process for tens of milliseconds (docs/upstream-behaviour.md#f5)
        gc.set_threshold(50_000, 20, 50)
        backends = Backends(bus, self._database, store)
        self._supervisors = {name: Supervisor(name, partial(build, backends)) for name, build in self._builders.items()}
        declared = [SERVICES[name] for name in self._names]
        self._watchdog = Watchdog(self._supervisors, declared, bus, store, self._end_at_once, read_wall_clock)
        self._problems = {}
        await bus.listen_for_nudges(self._wake)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watchdog.run(), name="watchdog")
            for supervisor in self._supervisors.values():
                group.create_task(supervisor.run(), name=supervisor.name)

    async def _wait_for_bus(self) -> Client:
        connecting = asyncio.create_task(self._open_connection())
        while not connecting.done():
            await asyncio.wait([connecting], timeout=1.0)
            if not connecting.done():
                reason = f"NATS does not answer at {bus.strip_credentials(self._url)}: {self._bus_error}"
                self._problems = dict.fromkeys((*self._names, "bus"), reason)
        self._problems = dict.fromkeys(self._names, "starting")
        return connecting.result()

    async def _open_connection(self) -> Client:
        return await bus.connect(self._url, "+".join(self._names), self._access, on_error=self._record_bus_error)

    async def _open_store(self, database: Database) -> Store:
        while True:
            try:
                return await asyncio.to_thread(database.open)
            except TRANSIENT_ERRORS as error:
                if self._problems.get("store") != str(error):
                    log.warning("retrying", service="store", reason=str(error))
                self._problems["store"] = str(error)
                await asyncio.sleep(1.0)

    def _record_bus_error(self, error: str) -> None:
        """Record that the connection has failed, or that the broker has refused something."""
        if "permissions violation" not in error.lower():
            self._bus_error = error
        elif self._watchdog is not None:
            self._watchdog.record_denial(error)

    def _end_at_once(self, why: str) -> None:
        """End the process: a thread that hangs can be neither stopped nor waited for. Who runs us starts it again."""
        log.critical("stopped", error=why)
        os._exit(1)

    def _wake(self) -> None:
        for supervisor in self._supervisors.values():
            supervisor.wake()

    def _build_pages(self) -> ASGIApp:
        """Return what answers for the board. Raises FatalError if everybody on the network could ask it."""
        host, token = self._settings.http_host, self._settings.board_token
        if not token and not is_loopback(host):
            raise FatalError(
                f"the board would show tickets to everybody who can reach {host} (SLA_HTTP_HOST): set SLA_BOARD_TOKEN, "
                "or listen on 127.0.0.1"
            )
        return routes.build_app(self._find_board, token or None)

    def _build_face(
        self, registry: CollectorRegistry, listener: socket.socket | None, reports_to: socket.socket | None
    ) -> HttpServer | StatusSender:
        """Return what shows the state of this process. Raises FatalError for a board that everybody could ask."""
        if listener is None:
            assert reports_to is not None
            return StatusSender(reports_to, self.find_problems, registry)
        reported = () if self._reports is None else (*PARTS_OF_UP[ENGINE], ENGINE)
        registry.register(Readiness((*self._names, *reported), self.find_problems))
        pages = self._build_pages() if Board.name in self._names else None
        return HttpServer(listener, self.find_problems, registry, pages)

    def _find_board(self) -> Board | None:
        """Return the board that works now, None if there is none yet."""
        supervisor = self._supervisors.get(Board.name)
        board = supervisor.service if supervisor else None
        return board if isinstance(board, Board) else None
