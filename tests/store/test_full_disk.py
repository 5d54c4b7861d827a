"""A disk that is full or read-only, at each command that writes: one line that names it, and nothing half done."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.store.sqlite import SqliteFile
from tests.support.bus import (
    SLA,
    ago,
    connected,
    environment,
    nats_server,
    open_all_hours,
    opened,
    publish,
    settled,
    up,
)
from tests.support.stores import rows

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.chaos,
    pytest.mark.on_file,
    pytest.mark.needs_kernel,
    pytest.mark.xdist_group("full_disk"),
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Disk:
    """A small disk. `leave` fills it up to so many bytes, `make_read_only` lets nobody write."""

    def __init__(self, path: Path) -> None:
        self.path, self._filler = path, path / "filler"

    def leave(self, free: int) -> None:
        found = os.statvfs(self.path)
        self._filler.write_bytes(bytes(max(0, found.f_bavail * found.f_bsize - free)))

    def free(self) -> None:
        self._filler.unlink()

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True)

    def list_all(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if path != self._filler)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk of our own on this machine: {done.stderr.decode().strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=False)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of an engine that has ended, with its policy and a backup beside it."""
    folder = tmp_path_factory.mktemp("full")
    policy = Path(open_all_hours(folder / "policy")) / "policy.yaml"
    with up(folder, SLA_POLICY_DIR=str(policy.parent)) as engine:
        asyncio.run(_live(engine.nats_url, engine.store))
    text = re.sub(r"(?m)^version: .*$", "version: 2099.1", policy.read_text(encoding="utf-8"))
    (folder / "next.yaml").write_text(text, encoding="utf-8")
    assert sla("backup", folder / "sla.tar", "--data", engine.data).returncode == 0
    return engine.data


async def _live(nats_url: str, store: object) -> None:
    async with connected(nats_url) as nc:
        await publish(nc, *(opened(f"T-{n}", ago(hours=3)) for n in range(20)))
        await settled(nc, store)  # type: ignore[arg-type]


def sla(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [SLA, *arguments]
    return subprocess.run(command, env=environment(**settings), capture_output=True, text=True, check=False, timeout=60)


def refused(*arguments: str | Path, **settings: str) -> str:
    """The one line of a command that answers no."""
    done = sla(*arguments, **settings)
    assert (done.returncode, done.stdout) == (1, ""), done
    (line,) = done.stderr.splitlines()
    return line


KIB = 1024


@pytest.mark.parametrize("free", [0, 8 * KIB, 48 * KIB, 128 * KIB])
async def test_migrate_on_a_full_disk_can_be_repeated(tmp_path: Path, disk: Disk, free: int) -> None:
    disk.leave(free)
    async with nats_server(tmp_path / "nats") as server:
        settings = {"SLA_NATS_URL": server.url, "SLA_DATABASE_URL": f"sqlite:///{disk.path}/sla.db"}
        line = await asyncio.to_thread(lambda: refused("migrate", **settings))
        assert re.fullmatch(rf"sla: {disk.path}/sla.db: (database or disk is full|disk I/O error); see to its .*", line)
        disk.free()
        assert (await asyncio.to_thread(lambda: sla("migrate", **settings))).returncode == 0


@pytest.mark.parametrize("free", [0, 8 * KIB, 64 * KIB])
def test_no_policy_is_published_on_a_full_disk(stopped: Path, disk: Disk, free: int) -> None:
    shutil.copytree(stopped, disk.path / "data")
    disk.leave(free)
    publishing = ("policy", "publish", stopped.parent / "next.yaml", "--data", disk.path / "data")
    assert refused(*publishing).startswith(f"sla: {disk.path}/data/sla.db: database or disk is full")
    disk.free()
    store = SqliteFile(disk.path / "data" / "sla.db")
    assert [version for (version,) in rows(store, "SELECT version FROM policy_versions")] != ["2099.1"]
    assert rows(store, "SELECT count(*) FROM policies") == rows(store, "SELECT count(*) FROM policy_versions") == [(1,)]
    assert sla(*publishing).returncode == 0


@pytest.mark.parametrize("free", [0, 64 * KIB, 256 * KIB, 400 * KIB])
def test_a_backup_on_a_full_disk_leaves_nothing(stopped: Path, disk: Disk, free: int) -> None:
    disk.leave(free)
    saving = ("backup", disk.path / "sla.tar", "--data", stopped)
    assert refused(*saving) == f"sla: the disk of {disk.path} is full; nothing was left there"
    assert disk.list_all() == []
    disk.free()
    assert sla(*saving).returncode == 0


@pytest.mark.parametrize("free", [0, 64 * KIB, 272 * KIB, 400 * KIB, 500 * KIB])
def test_a_restore_on_a_full_disk_leaves_nothing(stopped: Path, disk: Disk, free: int) -> None:
    disk.leave(free)
    restoring = ("restore", stopped.with_name("sla.tar"), "--data", disk.path / "data")
    line = refused(*restoring)
    assert re.search("room for|is full; nothing was left|is that disk full|no space left on device", line), line
    assert disk.list_all() == []
    disk.free()
    assert sla(*restoring).returncode == 0


async def test_a_disk_that_is_read_only_is_named_and_can_be_read(tmp_path: Path, stopped: Path, disk: Disk) -> None:
    backup, data = stopped.with_name("sla.tar"), disk.path / "data"
    assert sla("restore", backup, "--data", data).returncode == 0
    before = disk.list_all()
    disk.make_read_only()
    async with nats_server(tmp_path / "nats") as server:
        for store in (data / "sla.db", disk.path / "new.db"):
            settings = {"SLA_NATS_URL": server.url, "SLA_DATABASE_URL": f"sqlite:///{store}"}
            line = await asyncio.to_thread(refused, "migrate", **settings)
            assert str(store) in line, line
    publishing = ("policy", "publish", stopped.parent / "next.yaml", "--data", data)
    for arguments in (
        publishing,
        ("backup", disk.path / "sla.tar", "--data", stopped),
        ("restore", backup, "--data", disk.path / "more"),
    ):
        line = await asyncio.to_thread(refused, *arguments)
        assert str(disk.path) in line and re.search("[Rr]ead-?only", line), line
    for arguments in (("list",), ("show", "T-1"), ("report", "--period", "all"), ("policy", "list")):
        done = await asyncio.to_thread(sla, *arguments, "--data", data)  # type: ignore[arg-type]
        assert done.returncode == 0, (arguments, done.stderr)
    assert disk.list_all() == before
