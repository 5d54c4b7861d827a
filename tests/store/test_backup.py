"""A backup taken under load and restored elsewhere is an engine that goes on: nothing lost, nothing said twice."""

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from services.maintenance import backup as module
from services.maintenance.backup import STREAMS_IN_ORDER, backup, restore
from services.runtime.settings import Settings
from services.store.interface import Database
from services.store.sqlite import SqliteFile
from tests.support.bus import (
    SLA,
    Fact,
    Sla,
    Up,
    ago,
    connected,
    environment,
    fact,
    open_all_hours,
    opened,
    position,
    publish,
    settled,
    stored,
    until,
    up,
)
from tests.support.lives import check_lives, check_log_and_streams, lives, load, send

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.xdist_group("backup")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def sla(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SLA, *arguments], env=environment(**settings), capture_output=True, text=True, check=False)


def refused(*arguments: str | Path, **settings: str) -> str:
    """What a command says that answers no."""
    done = sla(*arguments, **settings)
    assert (done.returncode, done.stdout) == (1, "") and "Traceback" not in done.stderr, done.stderr
    return done.stderr


# ---- what must be so after a restore


async def trickle(nc: Client, facts: list[Fact]) -> None:
    """A few at a time, and a bad message now and then."""
    for start in range(0, len(facts), 5):
        bad = [fact("opened", f"BAD-{start}", ago(hours=1))] if start % 50 == 0 else []
        await send(nc, [*facts[start : start + 5], *bad])
        await asyncio.sleep(0.01)


def go_on_meanwhile(monkeypatch: pytest.MonkeyPatch, store: Database) -> None:
    """Before each stream of a backup the engine does something, as it would if the parts were large."""
    at_once = module._take_snapshot

    async def later(nc: Client, stream: str, path: Path) -> Any:
        before = position(store, "announcements")
        await until("the engine goes on", lambda: position(store, "announcements") > before + 15)
        return await at_once(nc, stream, path)

    monkeypatch.setattr(module, "_take_snapshot", later)


async def test_a_backup_taken_under_load_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, file = open_all_hours(tmp_path / "policy"), tmp_path / "sla.tgz"
    every = list(lives(400))
    facts = load(every)
    with up(tmp_path / "first", SLA_POLICY_DIR=policy) as engine:
        async with connected(engine.nats_url) as nc:
            sending = asyncio.create_task(trickle(nc, facts))
            await until("some is announced", lambda: position(engine.store, "announcements") > 60)
            go_on_meanwhile(monkeypatch, engine.store)
            manifest = await asyncio.to_thread(backup, Settings(), engine.data, file)
            assert not sending.done(), "the backup was not taken under load"
            engine.process.kill()
            sending.cancel()
            await asyncio.wait([sending])
    last = {name: stream.last_sequence for name, stream in manifest.streams.items()}
    assert 0 < manifest.position < last["TICKETS"] - 20 < len(facts), "the backup was not taken under load"

    done = sla("restore", file, "--data", tmp_path / "second" / "data")
    assert done.returncode == 0 and f"TICKETS up to {last['TICKETS']:,}" in done.stderr, done.stderr
    assert position(SqliteFile(tmp_path / "second" / "data" / "sla.db"), "intake") == manifest.position
    with up(tmp_path / "second", SLA_POLICY_DIR=policy) as engine:
        async with connected(engine.nats_url) as nc:
            await settled(nc, engine.store)
            await check_log_and_streams(nc, engine.store, policy)
            await send(nc, facts)  # whoever does not know what was lost sends everything again
            await settled(nc, engine.store)
            await check_log_and_streams(nc, engine.store, policy)
            check_lives(engine.store, every)
        assert sla("verify", "--data", engine.data).returncode == 0


async def test_letters_that_the_backup_has_and_letters_that_it_lacks_come_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is saved before DEAD_LETTERS, and that before TICKETS: what is refused in between is in one of them."""
    at_once = module._take_snapshot
    with up(tmp_path / "first") as engine:
        async with connected(engine.nats_url) as nc:
            await publish(nc, fact("opened", "BAD-0", ago(hours=1)))
            await settled(nc, engine.store)

            async def later(nc: Client, stream: str, path: Path) -> Any:
                await publish(nc, fact("opened", f"BAD-{stream}", ago(hours=1)))
                await settled(nc, engine.store)
                return await at_once(nc, stream, path)

            monkeypatch.setattr(module, "_take_snapshot", later)
            await asyncio.to_thread(backup, Settings(), engine.data, tmp_path / "sla.tar")
    assert sla("restore", tmp_path / "sla.tar", "--data", tmp_path / "second" / "data").returncode == 0
    with up(tmp_path / "second") as engine:
        async with connected(engine.nats_url) as nc:
            await settled(nc, engine.store)
            letters = await stored(nc, "DEAD_LETTERS", "dead_letters.>")
    assert [letter.headers["Sla-Sequence"] for letter in letters] == ["1", "2", "3", "4"]


# ---- one small backup, for all that can go wrong with it


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of an engine that has ended: two breaches of which a pager has read one, and a dead letter."""
    folder = tmp_path_factory.mktemp("backup")
    with up(folder, SLA_POLICY_DIR=open_all_hours(folder / "policy")) as engine:
        asyncio.run(_live(engine))
    return engine.data


async def _live(engine: Up) -> None:
    async with connected(engine.nats_url) as nc:
        await publish(
            nc, *(opened(f"T-{n}", ago(hours=3 - n / 2)) for n in range(2)), fact("opened", "BAD", ago(hours=1))
        )
        await settled(nc, engine.store)
        pager = await nc.jetstream().pull_subscribe("sla.breached.>", durable="pager", stream="SLA")
        (breach,) = await pager.fetch(1)
        await breach.ack_sync()


@pytest.fixture(scope="module")
def file(stopped: Path) -> Path:
    """A backup of it."""
    found = stopped.with_name("small.tar")
    done = sla("backup", found, "--data", stopped)
    assert done.returncode == 0 and "store up to message 5" in done.stderr, done.stderr
    return found


def test_a_backup_is_a_tar_that_only_its_owner_can_read(file: Path) -> None:
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["manifest.json", "sla.db", *(f"{stream}.snapshot" for stream in STREAMS_IN_ORDER)]
    assert file.stat().st_mode & 0o077 == 0


async def test_a_stopped_engine_is_backed_up_too_and_durable_consumers_go_on(file: Path, tmp_path: Path) -> None:
    assert sla("restore", file, "--data", tmp_path / "data").returncode == 0
    with up(tmp_path, SLA_POLICY_DIR=open_all_hours(tmp_path / "policy")) as engine:
        async with connected(engine.nats_url) as nc:
            pager = await nc.jetstream().pull_subscribe("sla.breached.>", durable="pager", stream="SLA")
            messages = await pager.fetch(5, timeout=1)
            assert [json.loads(message.data)["subject"] for message in messages] == ["T-1"]
            letters = await stored(nc, "DEAD_LETTERS", "dead_letters.>")
            assert [letter.headers["Sla-Reason"] for letter in letters] == ["invalid_data"]
            streams = {stream: (await nc.jetstream().stream_info(stream)).config for stream in STREAMS_IN_ORDER}
            assert streams["TICKETS"].deny_purge and streams["SLA"].allow_atomic
        assert '"event": "stream settings differ"' not in engine.process.log


def nothing_left(folder: Path, *expected: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(expected)


def test_a_backup_replaces_nothing(file: Path, stopped: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    assert "exists" in refused("backup", file, "--data", stopped)
    assert file.read_bytes() == before
    assert "is not empty" in refused("restore", file, "--data", stopped)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").touch()
    assert "is not empty" in refused("restore", file, "--data", tmp_path / "used")
    assert nothing_left(tmp_path, "used") and nothing_left(tmp_path / "used", "notes.txt")


def test_there_is_no_backup_of_nothing(stopped: Path, tmp_path: Path) -> None:
    assert "there is no store" in refused("backup", tmp_path / "b.tar", "--data", tmp_path)
    (tmp_path / "sla.db").write_bytes((stopped / "sla.db").read_bytes())
    assert "there are no streams" in refused("backup", tmp_path / "b.tar", "--data", tmp_path)
    elsewhere = {"SLA_DATABASE_URL": f"sqlite:///{tmp_path / 'sla.db'}"}
    assert "no engine runs in" in refused("backup", tmp_path / "b.tar", "--data", tmp_path / "never", **elsewhere)
    assert not (tmp_path / "b.tar").exists()


def test_a_store_and_a_bus_of_different_engines_are_no_backup(stopped: Path, tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        said = refused("backup", tmp_path / "b.tar", "--data", stopped, SLA_NATS_URL=engine.nats_url)
        assert "together they are no backup" in said
        other = {"SLA_DATABASE_URL": f"sqlite:///{tmp_path / 'data' / 'sla.db'}"}
        done = sla("restore", tmp_path / "b.tar", "--data", tmp_path / "x", **other)
        assert done.returncode == 2 and "SLA_DATABASE_URL names a file" in done.stderr
    assert not (tmp_path / "b.tar").exists() and not (tmp_path / "x").exists()


def rewritten(file: Path, target: Path, **members: bytes | None) -> Path:
    """The same tar with other contents under some names; None leaves one out."""
    with tarfile.open(file) as source, tarfile.open(target, "w") as tar:
        for member in source:
            content = members.get(member.name.replace(".", "_"), source.extractfile(member).read())  # type: ignore[union-attr]
            if content is not None:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return target


def damaged(file: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """What a backup may have become, and what is said of it."""
    whole = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    for name, content in {"empty": b"", "text": b"hello" * 1000, "cut": whole[: len(whole) // 2]}.items():
        (folder / name).write_bytes(content)
        yield "is not a whole backup", folder / name
    whole[len(whole) // 2] ^= 1
    (folder / "flipped").write_bytes(whole)
    yield "is not what the manifest says", folder / "flipped"
    yield "is not a whole backup", rewritten(file, folder / "missing", TICKETS_snapshot=None)
    yield "is not a whole backup", rewritten(file, folder / "no-manifest", manifest_json=b"{}")
    newer = json.dumps(manifest | {"format": 2}).encode()
    yield "this version reads 1", rewritten(file, folder / "newer", manifest_json=newer)
    manifest["streams"]["SLA"]["state"]["last_seq"] += 1
    yield "was restored up to", rewritten(file, folder / "short", manifest_json=json.dumps(manifest).encode())
    broken = b"no snapshot"
    manifest["parts"]["SLA.snapshot"] = {"bytes": len(broken), "sha256": hashlib.sha256(broken).hexdigest()}
    parts = {"manifest_json": json.dumps(manifest).encode(), "SLA_snapshot": broken}
    yield "the broker refuses", rewritten(file, folder / "broken", **parts)


def test_a_backup_that_is_not_whole_is_refused_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for expected, path in damaged(file, files):
        assert expected in refused("restore", path, "--data", tmp_path / "data"), path.name
        assert nothing_left(tmp_path, "files"), path.name
    assert "No such file" in refused("restore", files / "never", "--data", tmp_path / "data")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_interrupted_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as engine:
        server = int((engine.data / "nats" / "nats.pid").read_text())
        before = [path.name for path in tmp_path.iterdir()]
        os.kill(server, signal.SIGSTOP)  # so that it cannot be done before it is interrupted
        try:
            waiting = Sla(tmp_path, "backup", str(tmp_path / "b.tar"), "--data", str(engine.data))
            asyncio.run(until("it has begun", lambda: list(tmp_path.glob(".b.tar.*/sla.db"))))
            waiting.process.send_signal(number)
            assert waiting.process.wait(10) == 1, waiting.log
        finally:
            os.kill(server, signal.SIGCONT)
        assert "Traceback" not in waiting.log
        assert nothing_left(tmp_path, *before, waiting.log_file.name)


def test_a_restore_that_fails_leaves_nothing_that_could_be_started(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = (*STREAMS_IN_ORDER[:2], "TICKETS", "TICKETS")  # a stream that is there already
    monkeypatch.setattr(module, "STREAMS_IN_ORDER", twice)
    with pytest.raises(Exception, match="already"):
        restore(Settings(), tmp_path / "data", file)
    assert nothing_left(tmp_path)
