"""
`sla backup` and `sla restore`: one file with the store and three streams, taken while the engine runs.

UNDELIVERED, the fourth stream, is not in it: what a receiver refused is for people to look at, and no state.

The parts are not taken at one instant, and so their order matters: each later one covers what the earlier ones rest on.

1. The store, in one snapshot of it. It is the truth up to a message of TICKETS, which it names.
2. SLA and DEAD_LETTERS: all that the store knows to be announced is in them. What they have beyond it was decided after
   the snapshot, from messages that are in TICKETS by then.
3. TICKETS: every message that 1 and 2 came from.

After a restore, intake goes on from the checkpoint of the store and judges those last messages again, with the instants
at which the broker stored them: the same events come at the same places of the log, with the same ids. The announcer
goes on after the newest message of SLA, so that nothing is announced twice. This holds if policy and settings are the
same as they were. A dead letter of those last messages is stored twice if the backup is more than a day old: the stream
knows the ids of 24 hours. What reached TICKETS after the backup is lost; publishers may send it again, as ever.
"""

import asyncio
import gzip
import hashlib
import json
import os
import sqlite3
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import msgspec
from nats.aio.client import Client

from events.times import to_microseconds
from projections.registry import PROJECTIONS
from services.bus.connection import Bus
from services.bus.embedded_server import EmbeddedNats
from services.bus.streams import DEAD_LETTERS, SLA, TICKETS, read_last_sequence
from services.errors import BusError, FatalError, StoreError
from services.runtime.connections import find_bus_url, find_store, open_bus, read_credentials
from services.runtime.settings import Settings
from services.store.interface import Database
from services.store.schema import ANNOUNCER_CHECKPOINT, build_created_at_key
from services.store.snapshot import copy_tables
from services.store.sqlite import FileLock, SqliteFile, SqliteStore

BACKUP_FORMAT = 1
MANIFEST_FILE = "manifest.json"
STORE_FILE = "sla.db"
STREAMS_IN_ORDER = (SLA, DEAD_LETTERS, TICKETS)
COPY_CHUNK_BYTES = 128 * 1024
COPIED_CHECKPOINTS = (ANNOUNCER_CHECKPOINT, build_created_at_key(TICKETS))  # projections are built again from the log
CHUNK_TIMEOUT = 30.0  # seconds for a chunk
RESTORE_TIMEOUT = 3600.0  # seconds in which the broker reads a whole stream, after its last chunk


class BackupPart(msgspec.Struct, frozen=True):
    """A file in the backup."""

    bytes: int
    sha256: str


class BackedUpStream(msgspec.Struct, frozen=True):
    """What the broker said of a stream when its snapshot began; it wants that back to restore it."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def last_sequence(self) -> int:
        """The sequence of its newest message."""
        return int(self.state["last_seq"])


class Manifest(msgspec.Struct, frozen=True):
    """What a backup consists of. `position` is the message of TICKETS up to which the store has everything."""

    format: int
    engine: str
    made_at: datetime
    position: int
    streams: dict[str, BackedUpStream]
    parts: dict[str, BackupPart]

    def format_summary(self) -> str:
        """Return it for people, on one line."""
        ends = ", ".join(f"{name} up to {stream.last_sequence:,}" for name, stream in self.streams.items())
        return f"store up to message {self.position:,}; {ends}"


def name_part(stream: str) -> str:
    """Return the file with the snapshot of a stream: a tar of the broker's own, compressed."""
    return f"{stream}.snapshot"


# ---- backup


def backup(settings: Settings, data: Path, file: Path) -> Manifest:
    """
    Write the file, which must not exist; a backup that is interrupted or fails leaves none. If the name ends with .gz
    or .tgz it is compressed. If no engine runs in the folder, its broker is started for as long as it takes.
    """
    store = find_store(settings, data)
    if file.exists():
        raise FatalError(f"{file} exists; a backup replaces none: give it another name")
    with TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as name:
        folder = Path(name)
        _copy_store(store, folder / STORE_FILE)
        streams, made_at = asyncio.run(_copy_streams(settings, data, folder))
        position = _find_position(folder / STORE_FILE, streams[TICKETS], made_at)
        names = [STORE_FILE, *map(name_part, STREAMS_IN_ORDER)]
        parts = {name: _describe_part(folder / name) for name in names}
        manifest = Manifest(BACKUP_FORMAT, version("sla-engine"), datetime.now(UTC), position, streams, parts)
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _pack(folder, [MANIFEST_FILE, *names], folder / file.name, compress=file.suffix in (".gz", ".tgz"))
        os.rename(folder / file.name, file)
    _fsync(file.parent)
    return manifest


def _copy_store(store: Database, copy: Path) -> None:
    """
    Copy to a file of SQLite, whatever the store is. SQLite is copied by its online backup, in steps, so that Ctrl-C can
    end it.
    """
    if not isinstance(store, SqliteFile):
        SqliteFile(copy).migrate(PROJECTIONS)
        with store.open_snapshot() as source, closing(SqliteStore(copy)) as target:
            copy_tables(source, target, COPIED_CHECKPOINTS)
        return
    with store.open_snapshot() as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target, pages=1_000, progress=lambda *_: None)
        ((found,),) = target.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise StoreError(f"{store.name} is damaged, a backup of it would be too: {found}")


async def _copy_streams(settings: Settings, data: Path, folder: Path) -> tuple[dict[str, BackedUpStream], datetime]:
    """Copy the streams. Return what the broker said of each, and when TICKETS was created."""
    async with _connect_to_bus(settings, data) as nc:
        streams = {stream: await _take_snapshot(nc, stream, folder / name_part(stream)) for stream in STREAMS_IN_ORDER}
        return streams, await Bus(nc).read_created_at(TICKETS)


def _find_position(copy: Path, tickets: BackedUpStream, made_at: datetime) -> int:
    """
    Return the message of TICKETS up to which the store has everything. Raises FatalError if the store is of another
    stream.
    """
    with closing(SqliteStore(copy)) as store:
        position = store.read_committed_sequence()
        if position > tickets.last_sequence or not store.bind_stream(TICKETS, to_microseconds(made_at)):
            raise FatalError(f"the store has not the messages of this {TICKETS}: together they are no backup")
    return position


@asynccontextmanager
async def _connect_to_bus(settings: Settings, data: Path) -> AsyncIterator[Client]:
    """Connect to the bus of the engine; if none runs in the folder, to an embedded server on the same data."""
    lock = FileLock(data / "engine.lock")
    if settings.nats_url is not None or not data.is_dir() or not lock.acquire():  # noqa: ASYNC240 - nothing else runs
        async with open_bus(find_bus_url(settings, data), "backup", read_credentials(settings)) as nc:
            yield nc
        return
    try:
        if not (data / "nats").exists():
            raise FatalError(f"there are no streams in {data}; set SLA_NATS_URL if the bus is elsewhere")
        async with _run_embedded(data / "nats") as nc:
            yield nc
    finally:
        lock.release()


@asynccontextmanager
async def _run_embedded(folder: Path, lazy_sync: bool = False) -> AsyncIterator[Client]:
    server = EmbeddedNats(folder, 0, lazy_sync=lazy_sync)
    try:
        await server.start()
        async with open_bus(server.url, "backup") as nc:
            yield nc
    finally:
        await server.stop()


async def _request(nc: Client, subject: str, question: object, within: float = CHUNK_TIMEOUT) -> dict[str, Any]:
    body = b"" if question is None else msgspec.json.encode(question)
    return _parse_answer((await nc.request(subject, body, timeout=within)).data)


def _parse_answer(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body or b"{}")
    if "error" in found:
        raise BusError(f"the broker refuses: {found['error'].get('description', found['error'])}")
    return found


async def _take_snapshot(nc: Client, stream: str, path: Path) -> BackedUpStream:
    """
    Write the snapshot of a stream to a file. The broker sends chunks to an inbox, each to be acknowledged, and then an
    empty message with a status.
    """
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    try:
        question = {"deliver_subject": inbox, "chunk_size": COPY_CHUNK_BYTES}
        answer = await _request(nc, f"$JS.API.STREAM.SNAPSHOT.{stream}", question)
        with path.open("wb") as file:
            while (message := await subscription.next_msg(CHUNK_TIMEOUT)).data:
                if message.reply:
                    await nc.publish(message.reply)
                file.write(message.data)
        status = (message.headers or {}).get("Status", "204")
        if status != "204":
            raise BusError(f"the snapshot of {stream} failed: {status} {(message.headers or {}).get('Description')}")
    finally:
        await subscription.unsubscribe()
    return BackedUpStream(answer["config"], answer["state"])


def _describe_part(path: Path) -> BackupPart:
    with path.open("rb") as file:
        return BackupPart(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _pack(folder: Path, names: list[str], target: Path, compress: bool) -> None:
    target.touch(mode=0o600)  # it has what customers say
    with (
        gzip.open(target, "wb", 6) if compress else target.open("wb") as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for name in names:
            tar.add(folder / name, name, recursive=False)
    _fsync(target)


def _fsync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


# ---- restore


def restore(settings: Settings, data: Path, file: Path) -> Manifest:
    """
    Restore a backup where there is nothing yet. It is prepared beside the folder, and gets its name when it is
    complete: what was interrupted is not taken for an engine's data. With SLA_DATABASE_URL it goes into that database
    of PostgreSQL, and onto the bus of SLA_NATS_URL.
    """
    if settings.database_url is not None:
        return _restore_into_database(find_store(settings, data), settings, file)
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise FatalError(f"{data} is not empty; a backup is restored where there is nothing yet")
    data = data.resolve()
    data.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{data.name}.", dir=data.parent) as name:
        parts, restored = Path(name) / "parts", Path(name) / "data"
        parts.mkdir()
        manifest = _unpack(file, parts)
        made_at = asyncio.run(_restore_streams(manifest, parts, restored / "nats"))
        for left in (path for path in (restored / "nats").iterdir() if path.is_file()):
            left.unlink()  # of the server that did it; the next one writes its own
        os.rename(parts / STORE_FILE, restored / STORE_FILE)
        with closing(SqliteStore(restored / STORE_FILE)) as store:
            store.rebind_stream(TICKETS, to_microseconds(made_at))
        for path in (*restored.rglob("*"), restored):
            _fsync(path)
        os.rename(restored, data)
    _fsync(data.parent)
    return manifest


def _restore_into_database(store: Database, settings: Settings, file: Path) -> Manifest:
    """Restore the streams, and then the rows of the store in one transaction."""
    if isinstance(store, SqliteFile):
        raise ValueError("SLA_DATABASE_URL names a file, and a file is restored into a folder, with --data; unset it")
    if settings.nats_url is None:
        raise ValueError("SLA_NATS_URL is not set; the streams are restored onto the bus that it names")
    with TemporaryDirectory(prefix="sla-restore-") as name:
        parts = Path(name)
        manifest = _unpack(file, parts)
        store.migrate(PROJECTIONS)
        with closing(store.open()) as target:
            if target.read_head() or target.read_committed_sequence():
                raise FatalError(f"{store.name} is not empty; a backup is restored where there is nothing yet")
            made_at = asyncio.run(_restore_onto_bus(settings.nats_url, settings, manifest, parts))
            with SqliteFile(parts / STORE_FILE).open_snapshot() as source:
                copy_tables(source, target, COPIED_CHECKPOINTS)
            target.rebind_stream(TICKETS, to_microseconds(made_at))
    return manifest


@contextmanager
def _open_archive(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file) as tar:
            yield tar
    except (tarfile.TarError, zlib.error, EOFError, KeyError, msgspec.MsgspecError) as error:
        raise FatalError(f"{file} is not a whole backup: {error}") from None


def _unpack(file: Path, folder: Path) -> Manifest:
    """Unpack only the files that the manifest, of the format we know, must have; each is checked by its checksum."""
    with _open_archive(file) as tar:
        manifest = msgspec.json.decode(_open_member(tar, MANIFEST_FILE).read(), type=Manifest)
        if manifest.format != BACKUP_FORMAT:
            raise FatalError(
                f"{file} has format {manifest.format}, this version reads {BACKUP_FORMAT}; use {manifest.engine}"
            )
        for name in (STORE_FILE, *map(name_part, STREAMS_IN_ORDER)):
            with (folder / name).open("wb") as target, _open_member(tar, name) as source:
                while chunk := source.read(COPY_CHUNK_BYTES):
                    target.write(chunk)
            if _describe_part(folder / name) != manifest.parts[name]:
                raise FatalError(f"{file} is damaged: {name} is not what the manifest says")
    return manifest


def _open_member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    if found is None:
        raise KeyError(f"{name} is no file")
    return found


async def _restore_streams(manifest: Manifest, parts: Path, folder: Path) -> datetime:
    """
    Restore with an embedded server of its own, whose files `restore` writes to the disk. Return when TICKETS was
    created, which is now.
    """
    async with _run_embedded(folder, lazy_sync=True) as nc:
        return await _restore_all(nc, manifest, parts)


async def _restore_onto_bus(url: str, settings: Settings, manifest: Manifest, parts: Path) -> datetime:
    """Restore onto a bus that has none of the streams yet. Return when TICKETS was created, which is now."""
    async with open_bus(url, "restore", read_credentials(settings)) as nc:
        for stream in STREAMS_IN_ORDER:
            with suppress(BusError):
                await read_last_sequence(nc, stream)
                raise FatalError(f"the bus has a stream {stream}; a backup is restored where there is nothing yet")
        return await _restore_all(nc, manifest, parts)


async def _restore_all(nc: Client, manifest: Manifest, parts: Path) -> datetime:
    for stream in STREAMS_IN_ORDER:
        await _restore_stream(nc, stream, manifest.streams[stream], parts / name_part(stream))
    return await Bus(nc).read_created_at(TICKETS)


async def _restore_stream(nc: Client, stream: str, found: BackedUpStream, path: Path) -> None:
    answer = await _request(nc, f"$JS.API.STREAM.RESTORE.{stream}", {"config": found.config, "state": found.state})
    with path.open("rb") as file:
        while chunk := file.read(COPY_CHUNK_BYTES):
            _parse_answer((await nc.request(answer["deliver_subject"], chunk, timeout=CHUNK_TIMEOUT)).data)
    await _request(nc, answer["deliver_subject"], None, RESTORE_TIMEOUT)
    last = await read_last_sequence(nc, stream)
    if last < found.last_sequence:
        raise FatalError(
            f"{stream} was restored up to message {last} only, and had {found.last_sequence}; the backup is damaged"
        )
