"""`sla up` as a process: what it creates and who may read it, when it is found, and how it ends."""

import asyncio
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from services.bus.connection import strip_credentials
from services.bus.embedded_server import EmbeddedNats
from services.errors import FatalError
from services.up import provision_embedded
from tests.support.bus import (
    ENDS_WITHIN,
    PATIENCE,
    Up,
    ago,
    announced,
    connected,
    free_port,
    nats_server,
    opened,
    process,
    publish,
    up,
)
from tests.support.commands import Said, sla

pytestmark = [pytest.mark.parts, pytest.mark.anyio]
ODD = 'åsa\'s "data" \\x41 \u00a0\u4e2d $HOME {a: 1} # \t'
"""A name of a folder with all that a configuration, a shell or a URL may take for something else."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def everybody() -> Iterator[None]:
    """Nothing but the command itself keeps others out of what it creates."""
    before = os.umask(0)
    yield
    os.umask(before)


async def run_sla(*arguments: str | Path, **settings: str) -> Said:
    """Run the command, which has to do what it is asked."""
    said = await asyncio.to_thread(sla, *arguments, **settings)
    assert said.code == 0, said.err
    return said


def list_modes(folder: Path) -> dict[str, str]:
    """Return the permissions of the folder, and of all in it that are not only its owner's."""
    found = {path: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
    return {str(path): f"{mode:o}" for path, mode in found.items() if mode != (0o700 if path.is_dir() else 0o600)}


def find_server(engine: Up) -> int:
    """Return the process id of the embedded nats-server."""
    return int((engine.data / "nats" / "nats.pid").read_text())


# ---- where


async def test_it_works_in_a_folder_whose_name_has_letters_spaces_and_signs(tmp_path: Path) -> None:
    with up(tmp_path / ODD) as engine:
        async with connected(engine.nats_url) as nc:
            await publish(nc, opened("T-1", ago(hours=1)))
            await announced(nc, engine.store)
        assert (engine.data / "nats" / "jetstream").is_dir(), "its streams are in this folder, and in no other"
        assert (await run_sla("show", "T-1", "--data", engine.data)).out


async def test_a_server_that_outlived_its_engine_is_ended_also_in_such_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    orphan, server = EmbeddedNats(tmp_path / ODD, 0), EmbeddedNats(tmp_path / ODD, 0)
    await orphan.start()
    try:
        await server.start()
        async with asyncio.timeout(ENDS_WITHIN):
            await orphan.wait()
    finally:
        await orphan.stop()
        await server.stop()


# ---- who may read it


async def test_what_is_stored_is_for_its_owner_alone(tmp_path: Path, everybody: None) -> None:
    with up(tmp_path) as engine:
        async with connected(engine.nats_url) as nc:
            await publish(nc, opened("T-1", ago(hours=1)))
            await announced(nc, engine.store)
        if engine.store.name.endswith("sla.db"):
            assert {"sla.db-wal", "sla.db-shm"} <= {path.name for path in engine.data.iterdir()}
        assert list_modes(engine.data) == {}
        await run_sla("backup", tmp_path / "backup.tar", "--data", engine.data)
    assert list_modes(engine.data) == {}
    await run_sla("restore", tmp_path / "backup.tar", "--data", tmp_path / "restored")
    assert list_modes(tmp_path / "restored") == {}


async def test_a_store_that_is_migrated_is_for_its_owner_alone(tmp_path: Path, everybody: None) -> None:
    async with nats_server(tmp_path / "nats") as server:
        settings = {"SLA_NATS_URL": server.url, "SLA_DATABASE_URL": f"sqlite:///{tmp_path}/store/sla.db"}
        await run_sla("migrate", **settings)
    assert list_modes(tmp_path / "store") == {}


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o750, False), (0o755, True)])
def test_a_folder_that_is_there_keeps_its_mode_and_an_open_one_is_named(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    with up(tmp_path) as engine:
        assert engine.data.stat().st_mode & 0o777 == mode
        remedy = json.dumps(f"chmod -R o= {engine.data}")
        assert (f'"remedy": {remedy}' in engine.process.log) == warned, engine.process.log


async def test_its_bus_lets_in_who_knows_the_password_alone(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        found = json.loads((engine.data / "run.json").read_text())
        address = found["nats_url"]
        assert address == strip_credentials(address)
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(address, allow_reconnect=False)
        stranger = await nats.connect(address, user=found["nats_user"], password=found["nats_password"])
        await publish(stranger, opened("T-1", ago(hours=1)))
        await stranger.close()
        for_another_bus = {"SLA_NATS_USER": "publisher", "SLA_NATS_PASSWORD": "of another bus"}
        said = await run_sla("publish", "responded", "T-1", "--data", engine.data, **for_another_bus)
        first = found["nats_password"]
        assert first not in engine.process.log + said.out + said.err, "a secret is in no log and on no screen"
        assert address in engine.process.log
    with up(tmp_path) as engine:
        assert json.loads((engine.data / "run.json").read_text())["nats_password"] != first


# ---- when it is found, and how it ends


def test_its_addresses_are_written_before_it_is_ready(tmp_path: Path, everybody: None) -> None:
    url, run_file = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "data" / "run.json"
    with process(tmp_path, "up", "--data", str(tmp_path / "data"), SLA_HTTP_PORT=str(port)) as engine:
        give_up = time.monotonic() + PATIENCE
        while (
            engine.must_run() and time.monotonic() < give_up and not is_ready(url)
        ):  # asks as often as it can: it is a matter of a millisecond
            pass
        found = json.loads(run_file.read_text())
        assert found["http_url"] == url and found["pid"] == engine.process.pid
        assert run_file.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in run_file.parent.glob("run.json*")] == ["run.json"]
        engine.end()
    assert not run_file.exists()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready"):
            return True
    except OSError:  # nobody listens yet, or 503
        return False


def test_it_ends_with_1_if_its_nats_server_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        os.kill(find_server(engine), signal.SIGKILL)
        assert engine.process.process.wait(ENDS_WITHIN) == 1
        assert '"error": "nats-server ended with -9"' in engine.process.log
        assert "Traceback" not in engine.process.log
        assert not (engine.data / "run.json").exists()


async def test_it_does_not_wait_for_a_nats_server_that_ends_before_the_streams_are_there(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path, 0)
    await server.start()
    os.kill(int((tmp_path / "nats.pid").read_text()), signal.SIGKILL)
    await server.wait()
    async with asyncio.timeout(ENDS_WITHIN):
        with pytest.raises(FatalError, match="nats-server ended with -9"):
            await provision_embedded(server, None)
