"""`sla up`: an embedded nats-server, SQLite and all services in one process, with their data in one folder."""

import asyncio
import json
import os
import sys
from pathlib import Path

import structlog

from services import bus
from services.embedded import EmbeddedNats
from services.service import Fatal
from services.settings import Settings
from services.store import Lock
from services.wiring import SERVICES, Process, migrate_store, store_path

log = structlog.get_logger()

RUN_FILE = "run.json"


async def up(settings: Settings, folder: Path) -> int:
    """Runs until it is asked to end; the exit code. A second engine on the same folder is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / "engine.lock")
    if not lock.take():
        raise Fatal(f"another engine works in {folder}; stop it, or give this one its own folder with --data")
    run_file = folder / RUN_FILE
    run_file.unlink(missing_ok=True)
    path = store_path(settings.database_url) if settings.database_url else folder / "sla.db"
    await asyncio.to_thread(migrate_store, path)
    server = EmbeddedNats(folder / "nats", settings.nats_port)
    try:
        await server.start()
        await provision(server.url)
        process = Process(SERVICES, settings, server.url, path)
        watching = asyncio.create_task(_watch(server, process))
        try:
            return await process.run(lambda: _ready(process, server.url, run_file))
        finally:
            watching.cancel()
    finally:
        run_file.unlink(missing_ok=True)
        await server.stop()
        lock.free()


async def provision(url: str, credentials: str | None = None) -> None:
    """Creates the streams; logs what an operator has set otherwise."""
    nc = await bus.connect(url, "migrate", credentials)
    try:
        for line in await bus.provision(nc):
            log.warning("drift", stream=line)
    finally:
        await nc.close()


async def _watch(server: EmbeddedNats, process: Process) -> None:
    code = await server.ended()
    log.error("bus", error=f"nats-server ended with {code}")
    process.stop()


def _ready(process: Process, nats_url: str, run_file: Path) -> None:
    addresses = {"nats_url": nats_url, "http_url": process.http.url, "pid": os.getpid()}
    run_file.write_text(json.dumps(addresses) + "\n", encoding="utf-8")
    print(f"ready: bus {nats_url}, metrics {process.http.url}/metrics, addresses in {run_file}", file=sys.stderr)
