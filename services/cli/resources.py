"""What a command works on: a connection to the bus, the store, the versions of the policy. It closes what it opens."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import typer
from nats.aio.client import Client

from events.times import parse_instant
from services.cli.options import CommandFailedError
from services.cli.settings import read_policy, read_settings, refuse_wrong_usage
from services.errors import FatalError, StoreError
from services.queries.point_in_time import PointInTime
from services.runtime.connections import find_bus_url, open_bus, open_store, read_credentials
from services.runtime.logging import configure
from services.runtime.settings import Settings
from services.store.interface import Store
from sla.policy import Policy
from sla.versions import Versions

T = TypeVar("T")


def read_settings_quietly() -> Settings:
    """Return the settings, and log errors only: what goes wrong with the connection ends as one message."""
    settings = read_settings()
    configure(settings.model_copy(update={"log_level": "error"}))
    return settings


def run_on_bus(name: str, data: Path, work: Callable[[Client], Awaitable[T]], stopped: int = 1) -> T:
    """Run work with a connection to the bus, and close it afterwards; SIGINT and SIGTERM end it with exit `stopped`."""
    settings = read_settings_quietly()
    with refuse_wrong_usage():
        url, credentials = find_bus_url(settings, data), read_credentials(settings)

    async def connect_and_work() -> T:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        async with open_bus(url, name, credentials) as nc:
            return await work(nc)

    try:
        return asyncio.run(connect_and_work())
    except asyncio.CancelledError:
        raise typer.Exit(stopped) from None


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the work, which takes back what it has begun; the answer is no."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(1) from None


@contextmanager
def open_for_question(data: Path, as_of: str | None, known_at: str | None) -> Iterator[tuple[Store, PointInTime]]:
    """Open the store, and yield it with the point in time that a question is about."""
    with refuse_wrong_usage():
        at, known = (None if text is None else parse_instant(text) for text in (as_of, known_at))
        point = PointInTime(at, known, datetime.now(UTC))
        store = open_store(read_settings(), data)
    try:
        yield store, point
    finally:
        store.close()


def read_versions(data: Path) -> Versions:
    """Return the published versions of the policy, of which there is at least one. Raises CommandFailedError."""
    with refuse_wrong_usage():
        store = open_store(read_settings(), data)
    versions = store.read_versions()
    store.close()
    if not len(versions):
        raise CommandFailedError("no version is published yet; start the engine, or `sla policy publish FILE`")
    return versions


def read_policy_in_force(data: Path) -> Policy:
    """Return the policy of the store that is in force now; that of SLA_POLICY_DIR if no store has a version."""
    try:
        store = open_store(read_settings(), data)
    except (FatalError, StoreError):
        return read_policy()
    versions = store.read_versions()
    store.close()
    return versions.get_in_force(datetime.now(UTC)) if len(versions) else read_policy()
