"""`sla up` as a process: what it creates and who may read it, when it is found, and how it ends."""

import asyncio
import json
import os
import signal
import subprocess
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
from services.up import MAX_RESTARTS, PART_COMMAND, provision_embedded
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
    readiness,
    samples,
    subscribed,
    total,
    until,
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


# ---- its two processes


def find_part(engine: Up, name: str) -> int:
    """Return the process id of `engine` or `front`: the one that holds the sockets of the HTTP port is `front`."""
    parent = engine.process.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    parts = [int(pid) for pid in children if "services.part" in Path(f"/proc/{pid}/cmdline").read_text()]
    port = int(engine.http_url.rpartition(":")[2])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {fields[9] for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"}
    fronts = {pid for pid in parts if any(os.readlink(fd)[8:-1] in inodes for fd in Path(f"/proc/{pid}/fd").iterdir())}
    (found,) = fronts if name == "front" else set(parts) - fronts
    return found


async def wait_until_restarted(engine: Up, name: str, killed: int) -> None:
    def is_another() -> bool:
        try:
            return find_part(engine, name) != killed
        except (ValueError, OSError):  # none, or one that does not hold its sockets yet
            return False

    await until(f"another {name}", is_another)

    async def is_ready_again() -> bool:
        return (await readiness(engine.http_url))[0] == 200

    await until("all is ready again", is_ready_again)


async def test_an_engine_that_dies_is_started_again_and_its_address_says_so_meanwhile(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        killed = find_part(engine, "engine")
        os.kill(killed, signal.SIGSTOP)  # it reports nothing any more

        async def is_silent() -> bool:
            status, reasons = await readiness(engine.http_url)
            return status == 503 and "it has reported nothing for" in reasons.get("engine", "")

        await until("front says that engine is silent", is_silent)
        os.kill(killed, signal.SIGKILL)
        await wait_until_restarted(engine, "engine", killed)
        async with connected(engine.nats_url) as nc, subscribed(nc) as sla:
            await publish(nc, opened("T-1", ago(hours=1)))
            await sla.first("T-1", "applied")
        assert '"code": -9' in engine.process.log and '"part": "engine"' in engine.process.log
        shown = await samples(engine.http_url)
        assert total(shown, "sla_not_ready") == 0
        assert total(shown, "engine_process_start_time_seconds") > total(shown, "process_start_time_seconds")


async def test_a_front_that_dies_is_started_again_on_its_port_and_nothing_waits_for_it(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        killed = find_part(engine, "front")
        async with connected(engine.nats_url) as nc, subscribed(nc) as sla:
            os.kill(killed, signal.SIGSTOP)
            await publish(nc, opened("T-1", ago(hours=3)))
            await sla.first("T-1", "breached")
            os.kill(killed, signal.SIGKILL)
            await wait_until_restarted(engine, "front", killed)

            async def is_counted() -> bool:
                return total(await samples(engine.http_url), "sla_breaches_total") == 1

            await until("front has counted the breach", is_counted)


async def test_a_part_that_gives_up_ends_it_with_1(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        for file in engine.data.glob("sla.db*"):
            file.unlink()
        assert await asyncio.to_thread(engine.process.process.wait, PATIENCE) == 1
        assert "the store was deleted or replaced" in engine.process.log
        assert "Traceback" not in engine.process.log


async def test_a_part_that_dies_again_and_again_ends_it_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with up(tmp_path, SLA_FAULT="announcer.before_publish:1:kill") as engine:
        async with connected(engine.nats_url) as nc:
            await publish(nc, opened("T-1", ago(hours=1)))
        assert await asyncio.to_thread(engine.process.process.wait, 4 * PATIENCE) == 1
        assert engine.process.log.count('"event": "restarting"') == MAX_RESTARTS
        assert f"engine ended {MAX_RESTARTS + 1} times in a row, the last time with -9" in engine.process.log
    with up(tmp_path) as engine:
        async with connected(engine.nats_url) as nc, subscribed(nc) as sla:
            await sla.first("T-1", "applied")


def test_a_part_whose_parent_ends_before_it_gives_orders_ends_in_peace() -> None:
    done = subprocess.run(PART_COMMAND, input=b"", capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_its_parts_end_with_it_even_if_it_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        parts = [find_part(engine, name) for name in ("engine", "front")]
        engine.process.kill()
        await until("both are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in parts))
        assert "Traceback" not in engine.process.log
