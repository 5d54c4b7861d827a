"""Where a command finds the engine: its bus and its store. What it asks there is not in here."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from services.bus import connection as bus
from services.bus.credentials import ANONYMOUS, Credentials
from services.errors import BUS_ERRORS, BusError, FatalError
from services.runtime.settings import Settings, parse_database_url
from services.store.interface import Database, Store
from services.store.sqlite import SqliteFile

RUN_FILE = "run.json"
CONNECT_TIMEOUT = 4.0  # seconds for a connection: somebody waits at the terminal


def find_bus_url(settings: Settings, data: Path) -> str:
    """
    Return SLA_NATS_URL, or what the engine in the folder wrote, with user and password. ValueError if empty, FatalError
    if none runs.
    """
    if settings.nats_url is None:
        return read_run_file(data)
    if not settings.nats_url.strip():
        raise ValueError("SLA_NATS_URL is empty; give an address like nats://127.0.0.1:4222, or unset it")
    return settings.nats_url


def read_run_file(data: Path) -> str:
    """Return the address of the embedded bus, with user and password. FatalError if no engine runs in the folder."""
    file = data / RUN_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return bus.add_credentials(*(str(found[f"nats_{name}"]) for name in ("url", "user", "password")))
    except FileNotFoundError:
        raise FatalError(f"no engine runs in {data} (no {RUN_FILE}); start `sla up`, or set SLA_NATS_URL") from None
    except PermissionError:
        raise FatalError(f"{file} can be read by the user alone who started the engine; ask them") from None
    except (ValueError, KeyError, TypeError):
        raise FatalError(f"{file} does not name a bus; start `sla up` again, or set SLA_NATS_URL") from None


def read_credentials(settings: Settings) -> Credentials:
    """
    Return our credentials for the bus of SLA_NATS_URL; an embedded one has its own. Raises ValueError for settings that
    cannot work.
    """
    if settings.nats_url is None:
        return ANONYMOUS
    names = ("user", "password", "credentials", "ca", "cert", "key")
    found = Credentials(**{name: getattr(settings, f"nats_{name}") for name in names})
    found.check(settings.nats_url)
    return found


@asynccontextmanager
async def open_bus(url: str, name: str, access: Credentials = ANONYMOUS) -> AsyncIterator[Client]:
    """Connect to the bus. Raises BusError if it is silent, or the user may not ask (docs/upstream-behaviour.md#f17)."""
    denied: list[str] = []

    def record_denial(error: str) -> None:
        if "permissions violation" in error.lower():
            denied.append(error)

    nc = await bus.connect(url, name, access, CONNECT_TIMEOUT, record_denial)
    try:
        yield nc
    except BUS_ERRORS as error:
        if not denied:
            raise
        raise BusError(f"{denied[0]}; set SLA_NATS_USER to one that may") from error
    finally:
        await nc.close()


def find_store(settings: Settings, data: Path) -> Database:
    """Return what SLA_DATABASE_URL names, or the file in the folder. ValueError or FatalError if there is none."""
    if settings.database_url is not None:
        try:
            return parse_database_url(settings.database_url)
        except ValueError as error:
            raise ValueError(f"SLA_DATABASE_URL: {error}") from None
    path = data / "sla.db"
    if not path.exists():
        raise FatalError(f"there is no store in {data}; start `sla up`, or give --data DIR or SLA_DATABASE_URL")
    return SqliteFile(path)


def open_store(settings: Settings, data: Path) -> Store:
    """Open the store. Raises StoreError too, if there is none or it is not migrated."""
    return find_store(settings, data).open()
