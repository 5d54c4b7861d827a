"""Where a command finds the engine: its bus and its store. What it asks there is not in here."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from services import bus
from services.service import Fatal
from services.settings import Settings, database
from services.sqlite import SqliteFile
from services.store import Database, Store

RUN_FILE = "run.json"
PATIENCE = 4.0  # seconds for a connection: somebody waits at the terminal


def bus_url(settings: Settings, data: Path) -> str:
    """SLA_NATS_URL, or what the engine in the folder has written. Raises ValueError if empty, Fatal if none runs."""
    if settings.nats_url is None:
        return _running(data)
    if not settings.nats_url.strip():
        raise ValueError("SLA_NATS_URL is empty; give an address like nats://127.0.0.1:4222, or unset it")
    return settings.nats_url


def _running(data: Path) -> str:
    file = data / RUN_FILE
    try:
        url = json.loads(file.read_text(encoding="utf-8"))["nats_url"]
    except FileNotFoundError:
        raise Fatal(f"no engine runs in {data} (no {RUN_FILE}); start `sla up`, or set SLA_NATS_URL") from None
    except (ValueError, KeyError, TypeError):
        raise Fatal(f"{file} does not name a bus; start `sla up` again, or set SLA_NATS_URL") from None
    return str(url)


@asynccontextmanager
async def connected(url: str, name: str, settings: Settings) -> AsyncIterator[Client]:
    """The bus. Raises BusError if it does not answer."""
    nc = await bus.connect(url, name, settings.nats_credentials, PATIENCE)
    try:
        yield nc
    finally:
        await nc.close()


def store(settings: Settings, data: Path) -> Database:
    """What SLA_DATABASE_URL names, or the file in the folder. ValueError for another kind of store, Fatal if none."""
    if settings.database_url is not None:
        try:
            return database(settings.database_url)
        except ValueError as error:
            raise ValueError(f"SLA_DATABASE_URL: {error}") from None
    path = data / "sla.db"
    if not path.exists():
        raise Fatal(f"there is no store in {data}; start `sla up`, or give --data DIR or SLA_DATABASE_URL")
    return SqliteFile(path)


def open_store(settings: Settings, data: Path) -> Store:
    """The store, opened. Raises StoreError too, if there is none or it is not migrated."""
    return store(settings, data).open()
