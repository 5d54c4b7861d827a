"""
`sla backup` and `sla restore`: one file with the store and three streams, taken while the engine runs.

UNDELIVERED, the fourth stream, is not in it: what a receiver refused is for people to look at, and no state.

The parts are not taken at one instant, and so their order matters: each later one covers what the earlier ones rest on.

1. The store, in one snapshot of it. It is the truth up to a message of TICKETS, which it names.
2. SLA and DEAD_LETTERS: all that the store knows to be announced is in them. What they have beyond it was decided after
   the snapshot, from messages that are in TICKETS by then.
3. TICKETS: every message that 1 and 2 came from.

A restore takes a backup for data, which anybody may have written: rows, into tables that our code creates, and
messages, into streams as our code creates them. No schema, no trigger and no setting of a stream in it has an effect.

After a restore, intake goes on from the checkpoint of the store and judges those last messages again, with the instants
at which the broker stored them: the same events come at the same places of the log, with the same ids. The announcer
goes on after the newest message of SLA, so that nothing is announced twice. This holds if policy and settings are the
same as they were. A dead letter of those last messages is stored twice if the backup is more than a day old: the stream
knows the ids of 24 hours. What reached TICKETS after the backup is lost; publishers may send it again, as ever.
"""

import asyncio
import errno
import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import IO, Annotated, Any
from urllib.parse import quote

import msgspec
from nats.aio.client import Client
from nats.js.api import ConsumerInfo, StreamConfig, SubjectTransform
from nats.js.errors import NotFoundError

from events.times import to_microseconds
from projections.registry import PROJECTIONS
from services.bus.connection import Bus
from services.bus.embedded_server import EmbeddedNats
from services.bus.streams import (
    DEAD_LETTERS,
    SLA,
    TICKETS,
    build_stream,
    read_last_sequence,
    read_partition_count,
    read_stream_info,
)
from services.errors import BUS_ERRORS, BusError, FatalError, StoreError
from services.runtime.connections import find_bus_url, find_store, open_bus, read_credentials
from services.runtime.settings import Settings
from services.store.interface import Database, Store
from services.store.schema import (
    ACCEPTED_LOSS,
    ANNOUNCED_SEQUENCE,
    ANNOUNCED_SINCE,
    ANNOUNCER_CHECKPOINT,
    COPIED_COLUMNS,
    build_created_at_key,
)
from services.store.snapshot import copy_tables
from services.store.sqlite import CANNOT_WRITE, FileLock, SqliteFile, SqliteStore

BACKUP_FORMAT = 1
MANIFEST_FILE = "manifest.json"
STORE_FILE = "sla.db"
STREAMS_IN_ORDER = (SLA, DEAD_LETTERS, TICKETS)
COPY_CHUNK_BYTES = 128 * 1024
GZIP_MAGIC = b"\x1f\x8b"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_PARTITIONS = 256
COPIED_CHECKPOINTS = (
    *(ANNOUNCER_CHECKPOINT, ANNOUNCED_SEQUENCE, ANNOUNCED_SINCE, ACCEPTED_LOSS),
    *(build_created_at_key(TICKETS), build_created_at_key(SLA)),
)
"""Not those of projections, which are built again from the log."""
CHUNK_TIMEOUT = 30.0  # seconds for a chunk
RESTORE_TIMEOUT = 3600.0  # seconds in which the broker reads a whole stream, after its last chunk


Count = Annotated[int, msgspec.Meta(ge=0)]


class BackupPart(msgspec.Struct, frozen=True):
    """A file in the backup."""

    bytes: Count
    sha256: str


class StreamState(msgspec.Struct, frozen=True):
    """What was in a stream when its snapshot began."""

    messages: Count
    bytes: Count
    first_seq: Count
    last_seq: Count


class BackedUpStream(msgspec.Struct, frozen=True):
    """What the broker said of a stream when its snapshot began. Its settings are for people: see _build_config."""

    config: dict[str, Any]
    state: StreamState

    @property
    def last_sequence(self) -> int:
        """The sequence of its newest message."""
        return self.state.last_seq


class Manifest(msgspec.Struct, frozen=True):
    """What a backup consists of. `position` is the message of TICKETS up to which the store has everything."""

    format: int
    engine: Annotated[str, msgspec.Meta(pattern=r"^[\w.+-]{1,50}$")]
    made_at: datetime
    position: Count
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
    with _explain_full_disk(file.parent), TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as name:
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


@contextmanager
def _explain_full_disk(folder: Path) -> Iterator[None]:
    """Raise FatalError with the folder in which a file could not be written; the errors do not name it."""
    try:
        yield
    except (OSError, StoreError, sqlite3.OperationalError) as error:
        of_sqlite = any(text in str(error) for text in CANNOT_WRITE)
        if of_sqlite or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise FatalError(f"the disk of {folder} is full; nothing was left there") from None
        raise


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
    return BackedUpStream(answer["config"], msgspec.convert(answer["state"], StreamState))


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
    with _explain_full_disk(data.parent), TemporaryDirectory(prefix=f".{data.name}.", dir=data.parent) as name:
        parts, restored = Path(name) / "parts", Path(name) / "data"
        parts.mkdir()
        restored.mkdir(mode=0o700)
        manifest = _unpack(file, parts)
        made_at = asyncio.run(_restore_streams(manifest, parts, restored / "nats"))
        for left in (path for path in (restored / "nats").iterdir() if path.is_file()):
            left.unlink()  # of the server that did it; the next one writes its own
        SqliteFile(restored / STORE_FILE).migrate(PROJECTIONS)
        with closing(SqliteStore(restored / STORE_FILE)) as store:
            _restore_rows(parts / STORE_FILE, store, made_at)
        for path in (*restored.rglob("*"), restored):
            _fsync(path)
        os.rename(restored, data)
    _fsync(data.parent)
    return manifest


def _restore_into_database(store: Database, settings: Settings, file: Path) -> Manifest:
    """Restore the streams, then the rows of the store in one transaction; then let the streams take messages again."""
    if isinstance(store, SqliteFile):
        raise ValueError("SLA_DATABASE_URL names a file, and a file is restored into a folder, with --data; unset it")
    if settings.nats_url is None:
        raise ValueError("SLA_NATS_URL is not set; the streams are restored onto the bus that it names")
    with _explain_full_disk(Path(gettempdir())), TemporaryDirectory(prefix="sla-restore-") as name:
        parts = Path(name)
        manifest = _unpack(file, parts)
        store.migrate(PROJECTIONS)
        with closing(store.open()) as target:
            if target.read_head() or target.read_committed_sequence():
                raise FatalError(f"{store.name} is not empty; a backup is restored where there is nothing yet")
            asyncio.run(_restore_onto_bus(settings, manifest, parts, target))
    return manifest


def _restore_rows(file: Path, target: Store, made_at: dict[str, datetime]) -> None:
    """Copy the rows; the checkpoints among them, which are sequences of streams, count for those of these times."""
    with _open_rows(file) as source:
        copy_tables(source, target, COPIED_CHECKPOINTS)
    for stream, created_at in made_at.items():
        target.rebind_stream(stream, to_microseconds(created_at))


@contextmanager
def _open_rows(file: Path) -> Iterator[sqlite3.Connection]:
    """
    Open the store of a backup for its rows. Its schema may have SQL of anybody: a view or a virtual table in the place
    of a table is refused, the rest is not looked at.
    """
    address = f"file:{quote(str(file))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as source:
            source.execute("PRAGMA trusted_schema = OFF")
            source.execute("PRAGMA cell_size_check = ON")
            ((found,),) = source.execute("PRAGMA quick_check(1)")
            if found != "ok":
                raise FatalError(f"the store in the backup is damaged: {found}")
            plain = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND sql LIKE 'CREATE TABLE %'"
            if missing := COPIED_COLUMNS.keys() - {name for (name,) in source.execute(plain)}:
                raise FatalError(f"the store in the backup has no table {', '.join(sorted(missing))}")
            yield source
    except sqlite3.OperationalError:
        raise  # of the store that is written, too: the disk is full
    except sqlite3.DatabaseError as error:
        raise FatalError(f"the store in the backup is damaged: {error}") from None


@contextmanager
def _open_archive(file: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar as `sla backup` writes it, compressed by gzip or not."""
    with file.open("rb") as opened:
        is_compressed = opened.read(2) == GZIP_MAGIC
    try:
        with tarfile.open(file, "r:gz" if is_compressed else "r:") as tar:
            yield tar
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, KeyError, msgspec.MsgspecError) as error:
        raise FatalError(f"{file} is not a whole backup: {error}") from None


def _unpack(file: Path, folder: Path) -> Manifest:
    """Unpack the files that a backup has, and refuse any other; each is what the manifest says, in size and content."""
    names = (STORE_FILE, *map(name_part, STREAMS_IN_ORDER))
    with _open_archive(file) as tar:
        members = _list_members(file, tar, (MANIFEST_FILE, *names))
        if members[MANIFEST_FILE].size > MAX_MANIFEST_BYTES:
            raise FatalError(f"{file} is no backup: its manifest has {members[MANIFEST_FILE].size:,} bytes")
        manifest = msgspec.json.decode(_open_member(tar, members[MANIFEST_FILE]).read(), type=Manifest)
        if manifest.format != BACKUP_FORMAT:
            raise FatalError(
                f"{file} has format {manifest.format}, this version reads {BACKUP_FORMAT}; use {manifest.engine}"
            )
        if manifest.streams.keys() != set(STREAMS_IN_ORDER) or manifest.parts.keys() != set(names):
            raise FatalError(f"{file} is damaged: its manifest does not name the parts of a backup")
        needed, free = sum(members[name].size for name in names), shutil.disk_usage(folder).free
        if needed > free:
            raise FatalError(f"{file} has {needed:,} bytes, and there is room for {free:,} where it is unpacked")
        for name in names:
            with (folder / name).open("wb") as target, _open_member(tar, members[name]) as source:
                while chunk := source.read(COPY_CHUNK_BYTES):
                    target.write(chunk)
            if _describe_part(folder / name) != manifest.parts[name]:
                raise FatalError(f"{file} is damaged: {name} is not what the manifest says")
    _check_position(folder / STORE_FILE, manifest)
    return manifest


def _check_position(store: Path, manifest: Manifest) -> None:
    """Raise FatalError unless store and manifest agree on how far the store is, and TICKETS is at least as far."""
    with _open_rows(store) as source:
        ((position,),) = source.execute("SELECT min(position) FROM partitions")
    if position != manifest.position or position > manifest.streams[TICKETS].last_sequence:
        raise FatalError(
            f"the backup contradicts itself: the store is at message {position} of {TICKETS}, the manifest says "
            f"{manifest.position} of {manifest.streams[TICKETS].last_sequence}"
        )


def _list_members(file: Path, tar: tarfile.TarFile, names: Sequence[str]) -> dict[str, tarfile.TarInfo]:
    """Return the members by name. Raises FatalError for a name that is no part of a backup, and for what is no file."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        if member.name not in names or member.name in found:
            raise FatalError(f"{file} is no backup: it has {member.name[:100]!r}, or has it twice")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise FatalError(f"{file} is no backup: {member.name} in it is no plain file")
        found[member.name] = member
    if missing := set(names) - found.keys():
        raise KeyError(f"it has no {', '.join(sorted(missing))}")
    return found


def _open_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(member)
    assert found is not None  # which it is for a folder or a device
    return found


async def _restore_streams(manifest: Manifest, parts: Path, folder: Path) -> dict[str, datetime]:
    """
    Restore with an embedded server of its own, whose files `restore` writes to the disk. Return when the streams were
    created, which is now.
    """
    async with _run_embedded(folder, lazy_sync=True) as nc:
        made_at = await _restore_closed(nc, manifest, parts)
        await _open_streams(nc, manifest)
        return made_at


async def _restore_onto_bus(settings: Settings, manifest: Manifest, parts: Path, target: Store) -> None:
    """Restore onto a bus that has none of the streams yet. If the rows are refused, it has none afterwards."""
    assert settings.nats_url is not None
    async with open_bus(settings.nats_url, "restore", read_credentials(settings)) as nc:
        for stream in STREAMS_IN_ORDER:
            with suppress(NotFoundError):
                await nc.jetstream().consumers_info(stream)  # for which a user may lack the permission
                raise FatalError(f"the bus has a stream {stream}; a backup is restored where there is nothing yet")
        try:
            made_at = await _restore_closed(nc, manifest, parts)
            await asyncio.to_thread(_restore_rows, parts / STORE_FILE, target, made_at)
        except BaseException:
            await _delete_closed(nc)
            raise
        await _open_streams(nc, manifest)


async def _restore_closed(nc: Client, manifest: Manifest, parts: Path) -> dict[str, datetime]:
    """
    Restore the streams under subjects on which nobody publishes: until all is there and was looked through, no message
    comes in, from a publisher or from a consumer in the backup. Return when they were created, which is now.
    """
    for stream in STREAMS_IN_ORDER:
        await _restore_stream(nc, stream, manifest.streams[stream], parts / name_part(stream))
    return {stream: await Bus(nc).read_created_at(stream) for stream in (TICKETS, SLA)}


async def _open_streams(nc: Client, manifest: Manifest) -> None:
    """Give the streams the subjects and the partitions that they have to have."""
    for stream in STREAMS_IN_ORDER:
        await nc.jetstream().update_stream(_build_config(stream, manifest.streams[stream]))


async def _delete_closed(nc: Client) -> None:
    """Delete the streams that were restored and not opened. One that cannot be deleted does no harm."""
    js = nc.jetstream()
    for stream in STREAMS_IN_ORDER:
        with suppress(*BUS_ERRORS):
            if (await read_stream_info(nc, stream)).config.subjects == [_name_closed(stream)]:
                await js.delete_stream(stream)


def _name_closed(stream: str) -> str:
    return f"restoring.{stream}"


def _build_config(stream: str, found: BackedUpStream) -> StreamConfig:
    """
    Return a stream as the code has it, with room for all that is in the backup. Of the settings in the backup only the
    number of partitions is data. Raises FatalError for one that cannot be.
    """
    transform = found.config.get("subject_transform")
    dest = transform.get("dest") if isinstance(transform, dict) else None
    partitions = read_partition_count(StreamConfig(subject_transform=SubjectTransform("", str(dest)[:100])))
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise FatalError(f"the backup has {partitions} partitions of {stream}; there are 1 to {MAX_PARTITIONS}")
    wanted = build_stream(stream, partitions)
    return replace(wanted, max_bytes=max(wanted.max_bytes or 0, found.state.bytes))


async def _restore_stream(nc: Client, stream: str, found: BackedUpStream, path: Path) -> None:
    closed = replace(_build_config(stream, found), subjects=[_name_closed(stream)], subject_transform=None)
    question = {"config": closed.as_dict(), "state": msgspec.to_builtins(found.state)}
    answer = await _request(nc, f"$JS.API.STREAM.RESTORE.{stream}", question)
    with path.open("rb") as file:
        while chunk := file.read(COPY_CHUNK_BYTES):
            _parse_answer((await nc.request(answer["deliver_subject"], chunk, timeout=CHUNK_TIMEOUT)).data)
    await _request(nc, answer["deliver_subject"], None, RESTORE_TIMEOUT)
    last = await read_last_sequence(nc, stream)
    if last < found.last_sequence:
        raise FatalError(
            f"{stream} was restored up to message {last} only, and had {found.last_sequence}; the backup is damaged"
        )
    await _drop_pushing_consumers(nc, stream)


async def _drop_pushing_consumers(nc: Client, stream: str) -> None:
    """Delete the consumers whose messages the broker would send by itself, to wherever the backup says."""
    js, consumers = nc.jetstream(), list[ConsumerInfo]()
    while page := await js.consumers_info(stream, len(consumers)):
        consumers += page
    for each in consumers:
        if each.config.deliver_subject:
            await js.delete_consumer(stream, each.name)
