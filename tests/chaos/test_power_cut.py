"""
The power is cut: what was acknowledged and what was announced is still there, once.

The data is on a file system of its own, in a loop device. The cut is the kernel's own (FS_IOC_SHUTDOWN without a flush
of the journal, as xfstests does it): from one moment on nothing reaches the disk any more, also no write that is under
way. What the page cache had is lost; the disk is mounted again elsewhere, and the engine is started on it.
"""

import asyncio
import fcntl
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import nats.js.errors
import pytest
from nats.aio.client import Client

from projections.registry import PROJECTIONS
from services.bus.embedded_server import EmbeddedNats, find_binary
from services.errors import StoreError
from services.store import sqlite
from services.store.sqlite import SqliteFile, SqliteStore
from tests.support.bus import (
    PATIENCE,
    SLA,
    Fact,
    Heard,
    Up,
    connected,
    free_port,
    get,
    nats_server,
    open_all_hours,
    settled,
    stored,
    subscribed,
    until,
    up,
)
from tests.support.lives import check_lives, check_log_and_streams, lives, load, send
from tests.support.stores import position

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.xdist_group("power")]

FS_IOC_SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2  # linux/fs.h


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ---- a disk that can be cut off


class Disk:
    """An ext4 file system in a file, mounted through a loop device."""

    def __init__(self, folder: Path) -> None:
        self._image, self._folder, self._mounts = folder / "disk.img", folder, 0
        self.path = folder
        with self._image.open("wb") as image:
            image.truncate(512 << 20)
        run("mkfs.ext4", "-q", "-F", self._image)
        self.mount()

    def mount(self) -> None:
        """Where it was not mounted before."""
        self._mounts += 1
        self.path = self._folder / f"disk-{self._mounts}"
        self.path.mkdir()
        run("mount", "-o", "loop", self._image, self.path)

    def cut(self) -> None:
        """From now on nothing reaches the disk."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(folder)

    def unmounted(self) -> bool:
        """Unmounts it, if nothing holds it any more."""
        return subprocess.run(("umount", self.path), capture_output=True, check=False).returncode == 0


def run(*command: str | Path) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where these commands are, whoever we are
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


@contextmanager
def disk_in(folder: Path) -> Iterator[Disk]:
    """Skips the test where the kernel, or our rights, do not let us have one."""
    try:
        found = Disk(folder)
    except OSError as error:
        pytest.skip(f"no disk of our own on this machine: {error}")
    try:
        yield found
    finally:
        subprocess.run(("umount", "--lazy", found.path), capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disk_in(tmp_path) as found:
        yield found


# ---- before the cut, the cut, and after it


class Known(NamedTuple):
    """What was known outside when the power was cut."""

    acknowledged: set[str]  # ids of facts
    announced: list[str]  # ids of announcements that a subscriber has heard
    taken: int  # the message up to which the store was seen to have everything


class Lost(NamedTuple):
    """How much of it is not on the disk; None if the store cannot be read at all."""

    acknowledged: int
    announced: int
    taken: int | None
    doubled: int

    def row(self, name: str, known: Known) -> str:
        return (
            f"{name:<24} acknowledged {len(known.acknowledged):>5}, lost {self.acknowledged:>5}; "
            f"announced {len(known.announced):>5}, lost {self.announced:>5}; "
            f"stored {known.taken:>5}, lost {'all' if self.taken is None else self.taken:>5}; doubled {self.doubled}"
        )


async def work_until_the_cut(engine: Up, disk: Disk, facts: list[Fact], moment: float) -> Known:
    """Publishes one fact after the other and listens, until the power is cut at a moment in seconds."""
    known = None
    with suppress(OSError):  # what a broker without a disk does with its connections is nobody's business
        async with connected(engine.nats_url) as nc, subscribed(nc) as subscriber:
            waiting, acknowledged = deque(facts), set[str]()
            sending = [asyncio.create_task(publish(nc, waiting, acknowledged)) for _ in range(4)]
            await subscriber.until("something is announced", lambda: len(subscriber.heard) > 20)
            await asyncio.sleep(moment)
            taken = position(engine.store, "intake")
            disk.cut()  # nothing that comes after this line was known before it
            known = Known(set(acknowledged), [heard.event["id"] for heard in subscriber.heard], taken)
            assert waiting, "the load ended before the cut"
            waiting.clear()  # nats-py may lose a cancellation that comes with an answer
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
    assert known is not None, "the load failed before the cut"
    return known


async def publish(nc: Client, waiting: deque[Fact], acknowledged: set[str]) -> None:
    js = nc.jetstream()
    while waiting:
        fact = waiting.popleft()
        await js.publish(fact.subject, fact.body, PATIENCE, "TICKETS", headers=dict(fact.headers))
        acknowledged.add(fact.event["id"])
        await asyncio.sleep(0.004)


async def what_is_lost(data: Path, known: Known) -> Lost:
    """By the broker alone and the file of the store, before an engine can repair anything."""
    async with nats_server(data / "nats") as server, connected(server.url) as nc:
        facts = [heard.event["id"] for heard in await all_of(nc, "TICKETS", "tickets.>")]
        said = [heard.event["id"] for heard in await all_of(nc, "SLA", "sla.>")]
    try:
        with SqliteFile(data / "sla.db").open_snapshot() as picture:
            ((taken,),) = picture.execute("SELECT min(position) FROM partitions")
    except (StoreError, sqlite3.Error):
        taken = None
    return Lost(
        len(known.acknowledged.difference(facts)),
        len(set(known.announced).difference(said)),
        None if taken is None else max(0, known.taken - taken),
        len(said) - len(set(said)),
    )


async def all_of(nc: Client, stream: str, subject: str) -> list[Heard]:
    try:
        return await stored(nc, stream, subject)
    except nats.js.errors.NotFoundError:
        return []  # the stream itself is gone


async def cut(
    tmp_path: Path, disk: Disk, facts: list[Fact], policy: str, moment: float, command: Path = SLA
) -> tuple[Known, Lost]:
    """An engine on a new disk works until the power is cut; what is lost when the disk is mounted again."""
    data = tmp_path / "data"  # where `up` has it
    disk.path.joinpath("data").mkdir()
    data.symlink_to(disk.path / "data")
    with up(tmp_path, (command,), SLA_POLICY_DIR=policy) as engine:
        broker = int((data / "nats" / "nats.pid").read_text())
        known = await work_until_the_cut(engine, disk, facts, moment)
        engine.process.kill()  # the machine is off: nobody may hold the disk
        with suppress(ProcessLookupError):
            os.kill(broker, signal.SIGKILL)
    await until("nothing holds the disk", disk.unmounted)
    disk.mount()
    data.unlink()
    data.symlink_to(disk.path / "data")
    (data / "run.json").unlink(missing_ok=True)
    return known, await what_is_lost(data, known)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("seed", range(3))
async def test_a_power_cut_loses_nothing_and_doubles_nothing(tmp_path: Path, disk: Disk, seed: int) -> None:
    policy, every = open_all_hours(tmp_path / "policy"), list(lives(1_200))
    facts = load(every, seed)
    known, lost = await cut(tmp_path, disk, facts, policy, random.Random(seed).uniform(0.1, 1.5))
    print(lost.row(f"as it is, cut {seed + 1}", known))
    assert lost == Lost(0, 0, 0, 0)
    with up(tmp_path, SLA_POLICY_DIR=policy) as engine:
        async with connected(engine.nats_url) as nc:
            await settled(nc, engine.store)
            await check_log_and_streams(nc, engine.store, policy)
            await send(nc, facts)  # whoever has no acknowledgement sends again
            await settled(nc, engine.store)
            await check_log_and_streams(nc, engine.store, policy)
            check_lives(engine.store, every)


# ---- the same with settings that lose: this is how we know that the cut cuts

HASTY = {
    "sync_interval removed": """
        config = embedded_server.EmbeddedNats._build_config
        embedded_server.EmbeddedNats._build_config = lambda self: config(self).replace("sync_interval: always, ", "")
    """,
    "SQLite synchronous OFF": """
        sqlite._Pool.synchronous = "OFF"
        sqlite.SqliteStore._check = lambda self: None
    """,
}


def hasty(folder: Path, edit: str) -> Path:
    """The command `sla` of an engine that was edited, in all of its processes."""
    command = folder / "hasty-sla"
    imports = (
        "import sys",
        "from services import part, up",
        "from services.bus import embedded_server",
        "from services.cli.main import main",
        "from services.store import sqlite",
    )
    ends = (
        "if sys.argv[1:] == ['part']: sys.exit(part.main())",
        "up.PART_COMMAND = (sys.executable, __file__, 'part')",
        "main()",
    )
    lines = [f"#!{sys.executable}", *imports, dedent(edit), *ends, ""]
    command.write_text("\n".join(lines))
    command.chmod(0o755)
    return command


@pytest.mark.needs_kernel
@pytest.mark.parametrize("setting", HASTY)
async def test_the_cut_cuts(tmp_path: Path, setting: str) -> None:
    command = hasty(tmp_path, HASTY[setting])
    policy = open_all_hours(tmp_path / "policy")
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with disk_in(folder) as disk:
            known, lost = await cut(folder, disk, load(list(lives(1_200))), policy, 1.0, command)
        print(lost.row(setting, known))
        if lost.acknowledged or lost.taken != 0:
            return
    pytest.fail("the cut cut nothing")


# ---- what keeps it so


async def test_the_embedded_broker_synchronises_always(tmp_path: Path) -> None:
    """As a nats-server says it that is started with the same file, and with a port to ask."""
    server = EmbeddedNats(tmp_path, 0)
    await server.start()
    await server.stop()
    port = free_port()
    asked = await asyncio.create_subprocess_exec(
        find_binary(), "-c", tmp_path / "nats.conf", "-m", str(port), stderr=-3
    )
    try:
        _, body = await until("it answers", lambda: answered(f"http://127.0.0.1:{port}/jsz?config=1"))
        assert json.loads(body)["config"]["sync_always"] is True
    finally:
        asked.terminate()
        await asked.wait()


async def answered(url: str) -> tuple[int, str] | None:
    found = await get(url)
    return found if found[0] == 200 else None


def test_a_store_that_does_not_synchronise_fully_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteFile(tmp_path / "sla.db").migrate(PROJECTIONS)
    monkeypatch.setattr(sqlite._Pool, "synchronous", "NORMAL")
    with pytest.raises(StoreError, match="does not synchronise fully"):
        SqliteStore(tmp_path / "sla.db")
