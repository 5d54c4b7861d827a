"""`sla up`: an embedded nats-server, SQLite and all services in one process, with their data in one folder."""

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path

import structlog

from projections.registry import PROJECTIONS
from services.app import SERVICES, Process
from services.bus.connection import strip_credentials
from services.bus.embedded_server import EmbeddedNats
from services.demo.playback import play
from services.errors import FatalError
from services.maintenance.provision import provision_bus
from services.runtime.connections import RUN_FILE
from services.runtime.logging import configure
from services.runtime.settings import Settings, load_policy, parse_database_url
from services.store.interface import Database
from services.store.sqlite import FileLock, SqliteFile

log = structlog.get_logger()


async def run_engine(settings: Settings, folder: Path, demo: bool = False) -> int:
    """
    Run until asked to end; return the exit code. Raises FatalError if another engine works in the folder. With `demo`,
    ticket events are fed, and only warnings are logged unless SLA_LOG_LEVEL is set.
    """
    if demo and "log_level" not in settings.model_fields_set:
        configure(settings.model_copy(update={"log_level": "warning"}))
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
        names = [name for name, service in SERVICES.items() if service.is_wanted(settings)]
        process = Process(names, settings, server.url, store)
        watching = asyncio.create_task(_watch_server(server, process))
        ready = asyncio.Event()
        playing = (
            asyncio.create_task(_play_demo(process, server.url, store, settings, ready, run_file)) if demo else None
        )

        def announce_ready() -> None:
            _write_run_file(process, server, run_file)
            ready.set()

        try:
            code = await process.run(announce_ready)
        finally:
            watching.cancel()
            played = await _end_demo(playing)
        return code if played else 1
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


async def _play_demo(
    process: Process, nats_url: str, store: Database, settings: Settings, ready: asyncio.Event, run_file: Path
) -> None:
    """Play the demo as soon as the engine is ready; if it cannot go on, or nobody can see it, end the engine."""
    policy = load_policy(settings.policy_dir)
    await ready.wait()
    welcome = (
        "SLA engine: a day of three helpdesks, dated back from now, then a steady trickle; Ctrl-C stops it",
        f"board    {process.http.url}/",
        f"bus      {strip_credentials(nats_url)}, user and password in {run_file}",
        f"metrics  {process.http.url}/metrics",
        f"health   {process.http.url}/health/ready",
        f"policy   {policy.name} {policy.version}, times in {policy.zone}",
    )
    try:
        await play(nats_url, store, policy, welcome, process.stop)
    finally:
        process.stop()


async def _end_demo(playing: asyncio.Task[None] | None) -> bool:
    """End the demo, if there is one. Return False if it had failed."""
    if playing is None:
        return True
    playing.cancel()
    await asyncio.wait([playing])
    if playing.cancelled() or (error := playing.exception()) is None:
        return True
    log.error("demo failed", error=repr(error), exc_info=error)
    return False


async def _watch_server(server: EmbeddedNats, process: Process) -> None:
    process.stop(f"nats-server ended with {await server.wait()}")


def _write_run_file(process: Process, server: EmbeddedNats, run_file: Path) -> None:
    """Put the file in its place as a whole: whoever finds it can read all of it."""
    http, bus = process.http.url, strip_credentials(server.url)
    access = {"nats_url": bus, "nats_user": server.user, "nats_password": server.password}
    addresses = {"http_url": http, "pid": os.getpid(), **access}
    new = run_file.with_name(f"{run_file.name}.new")
    new.write_text(json.dumps(addresses) + "\n", encoding="utf-8")
    new.replace(run_file)
    sys.stderr.write(f"ready: board {http}/, bus {bus}, metrics {http}/metrics, addresses and password in {run_file}\n")
