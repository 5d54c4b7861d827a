"""`sla up`: an embedded nats-server, SQLite, and the processes `engine` and `front`, with their data in one folder."""

import asyncio
import json
import os
import pickle
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from projections.registry import PROJECTIONS
from services.bus.connection import strip_credentials
from services.bus.embedded_server import EmbeddedNats
from services.errors import FatalError
from services.maintenance.provision import provision_bus
from services.ports import build_url, listen
from services.runtime.connections import RUN_FILE
from services.runtime.logging import configure
from services.runtime.orders import ANNOUNCED, ENGINE, FRONT, GIVES_UP, READY, STOP_TIMEOUT, Orders
from services.runtime.settings import Settings, load_policy, parse_database_url
from services.runtime.status import open_channel
from services.store.interface import Database
from services.store.sqlite import FileLock, SqliteFile

log = structlog.get_logger()

PART_COMMAND = (sys.executable, "-m", "services.part")
RESTART_BACKOFF = (0.2, 2.0)  # seconds before a part that died starts again: the first time, and at most
MAX_RESTARTS = 8  # in a row, with which it does not come to work; a message that kills takes two of them


async def run_engine(settings: Settings, folder: Path, demo: bool = False) -> int:
    """
    Run until SIGINT or SIGTERM, or until a part has ended for good; return the exit code. Raises FatalError if another
    engine works in the folder. With `demo`, ticket events are fed, and only warnings are logged unless SLA_LOG_LEVEL is
    set.
    """
    if demo and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "warning"})
        configure(settings)
    _prepare_folder(folder)
    lock = FileLock(folder / "engine.lock")
    if not lock.acquire():
        raise FatalError(f"another engine works in {folder}; stop it, or give this one its own folder with --data")
    run_file = folder / RUN_FILE
    run_file.unlink(missing_ok=True)
    store = parse_database_url(settings.database_url) if settings.database_url else SqliteFile(folder / "sla.db")
    await asyncio.to_thread(store.migrate, PROJECTIONS)
    server = EmbeddedNats(folder / "nats", settings.nats_port, asked_by=settings.find_variable("nats_port"))
    try:
        await server.start()
        await provision_embedded(server, settings.notify)
        with listen(settings.http_host, settings.http_port, settings.find_variable("http_port")) as listener:
            up = Up(settings, server, store, listener, run_file)
            return await up.run(demo)
    finally:
        run_file.unlink(missing_ok=True)
        await server.stop()
        lock.release()


def _prepare_folder(folder: Path) -> None:
    """Create the folder. One that is there keeps its mode, with a warning if everybody on the machine may look in."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o007:
        log.warning("folder is open to everybody on this machine", remedy=f"chmod -R o= {shlex.quote(str(folder))}")


async def provision_embedded(server: EmbeddedNats, notify: str | None) -> None:
    """Create streams and consumers. Raises FatalError if the server ends: nobody else would start it again."""
    ending, working = asyncio.create_task(server.wait()), asyncio.create_task(provision_bus(server.url, notify=notify))
    await asyncio.wait([ending, working], return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        raise FatalError(f"nats-server ended with {ending.result()}")
    ending.cancel()
    working.result()


class Part:
    """A part of `sla up` as a child process, which is started again when it dies: `is_ready` while it works."""

    def __init__(self, orders: Orders, on_ready: Callable[[], None]) -> None:
        self._orders, self._on_ready = orders, on_ready
        self._process: asyncio.subprocess.Process | None = None
        self._announced = False
        self.is_ready = False

    async def run(self) -> None:
        """Run until it gives up, having logged why. Raises FatalError if starting it again does not help."""
        pause, restarts = RESTART_BACKOFF[0], 0
        while True:
            self._process = process = await self._start()
            if await self._wait_until_ready(process):
                pause, restarts = RESTART_BACKOFF[0], 0
            code = await process.wait()
            self.is_ready = False
            if code == GIVES_UP:
                return
            restarts += 1
            if restarts > MAX_RESTARTS:
                raise FatalError(f"{self._orders.part} ended {restarts} times in a row, the last time with {code}")
            log.error("restarting", part=self._orders.part, code=code, seconds=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, RESTART_BACKOFF[1])

    async def _start(self) -> asyncio.subprocess.Process:
        pipe, orders = subprocess.PIPE, self._orders
        process = await asyncio.create_subprocess_exec(
            *PART_COMMAND,
            stdin=pipe,
            stdout=pipe,
            pass_fds=[fd for fd in (orders.listener, orders.reports) if fd is not None],
            process_group=0,  # Ctrl-C reaches the parent alone, which ends its parts
        )
        self._write(process, pickle.dumps(orders))
        return process

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> bool:
        assert process.stdout is not None
        if await process.stdout.readline() != READY:
            return False
        self.is_ready = True
        self._on_ready()
        if self._announced:
            self._write(process, ANNOUNCED)
        return True

    def announce(self) -> None:
        """Let it say that it is ready, now and whenever it starts again: its addresses are written."""
        self._announced = True
        if self._process is not None:
            self._write(self._process, ANNOUNCED)

    def _write(self, process: asyncio.subprocess.Process, text: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(text)

    async def stop(self) -> bool:
        """Terminate it, and kill it if it does not end in time. Return whether it ended in peace."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT + 1):
                return await process.wait() == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False


class Up:
    """The running `sla up`: its two parts, and the demo if it is wanted."""

    def __init__(
        self, settings: Settings, server: EmbeddedNats, store: Database, listener: socket.socket, run_file: Path
    ) -> None:
        self._settings, self._server, self._store, self._run_file = settings, server, store, run_file
        self._url = build_url(listener)
        self._channel = sender, receiver = open_channel()
        sockets = {ENGINE: (None, sender.fileno()), FRONT: (listener.fileno(), receiver.fileno())}
        self._parts = [
            Part(Orders(name, settings, server.url, store, *given), self._announce_when_ready)
            for name, given in sockets.items()
        ]
        self._ready, self._stopping = asyncio.Event(), asyncio.Event()
        self._has_failed = False

    def stop(self) -> None:
        """Ask it to end."""
        self._stopping.set()

    def _fail(self, error: str | None = None) -> None:
        """Have it end with 1, unless it was asked to end before. An error is logged, if it is not logged yet."""
        if not self._stopping.is_set():
            self._has_failed = True
            if error is not None:
                log.error("stopped", error=error)
        self._stopping.set()

    async def run(self, demo: bool) -> int:
        """Run until it is asked to end, or nothing helps. Return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        working = [asyncio.create_task(self._run_part(part)) for part in self._parts]
        working.append(asyncio.create_task(self._watch_server()))
        playing = asyncio.create_task(self._play_demo()) if demo else None
        await self._stopping.wait()
        for task in working:
            task.cancel()
        has_played = await _end_demo(playing)
        in_peace = await asyncio.gather(*(part.stop() for part in self._parts))
        for end in self._channel:
            end.close()
        return 0 if has_played and all(in_peace) and not self._has_failed else 1

    async def _run_part(self, part: Part) -> None:
        try:
            await part.run()
        except FatalError as error:
            self._fail(str(error))
        else:
            self._fail()

    async def _watch_server(self) -> None:
        self._fail(f"nats-server ended with {await self._server.wait()}")

    def _announce_when_ready(self) -> None:
        """Write where it is found, once all parts work; only then may they say that they are ready."""
        if self._ready.is_set() or not all(part.is_ready for part in self._parts):
            return
        try:
            self._write_run_file()
        except OSError as error:
            self._fail(f"that the engine is ready could not be written: {error}")
            return
        self._ready.set()
        for part in self._parts:
            part.announce()

    def _write_run_file(self) -> None:
        """Put the file in its place as a whole: whoever finds it can read all of it."""
        http, server, run_file = self._url, self._server, self._run_file
        bus = strip_credentials(server.url)
        access = {"nats_url": bus, "nats_user": server.user, "nats_password": server.password}
        addresses = {"http_url": http, "pid": os.getpid(), **access}
        new = run_file.with_name(f"{run_file.name}.new")
        new.write_text(json.dumps(addresses) + "\n", encoding="utf-8")
        new.replace(run_file)
        sys.stderr.write(
            f"ready: board {http}/, bus {bus}, metrics {http}/metrics, addresses and password in {run_file}\n"
        )

    async def _play_demo(self) -> None:
        """Play the demo as soon as the engine is ready; if it cannot go on, or nobody can see it, end the engine."""
        from services.demo.playback import play  # only here: it takes longer to load than the rest

        policy = load_policy(self._settings.policy_dir)
        await self._ready.wait()
        welcome = (
            "SLA engine: a day of three helpdesks, dated back from now, then a steady trickle; Ctrl-C stops it",
            f"board    {self._url}/",
            f"bus      {strip_credentials(self._server.url)}, user and password in {self._run_file}",
            f"metrics  {self._url}/metrics",
            f"health   {self._url}/health/ready",
            f"policy   {policy.name} {policy.version}, times in {policy.zone}",
        )
        try:
            await play(self._server.url, self._store, policy, welcome, self.stop)
        finally:
            self.stop()


async def _end_demo(playing: asyncio.Task[None] | None) -> bool:
    """End the demo, if there is one. Return False if it had failed."""
    if playing is None:
        return True
    while not playing.done():  # nats-py may lose a cancellation that comes with an answer
        playing.cancel()
        await asyncio.wait([playing], timeout=1.0)
    if playing.cancelled() or (error := playing.exception()) is None:
        return True
    log.error("demo failed", error=repr(error), exc_info=error)
    return False
