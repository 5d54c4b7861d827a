"""A backup taken under load and restored elsewhere is an engine that goes on: nothing lost, nothing said twice."""

import asyncio
import gzip
import hashlib
import io
import json
import lzma
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, RePublish

from services.bus.streams import build_stream
from services.maintenance import backup as module
from services.maintenance.backup import STREAMS_IN_ORDER, backup, restore
from services.runtime.settings import Settings
from services.store.interface import Database
from services.store.sqlite import SqliteFile
from tests.support.backups import PLANTED, edit_store, rewritten
from tests.support.bus import (
    SLA,
    Fact,
    Sla,
    Up,
    ago,
    connected,
    environment,
    fact,
    nats_server,
    open_all_hours,
    opened,
    position,
    publish,
    rows,
    settled,
    stored,
    subscribed,
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
    assert (done.returncode, done.stdout) == (1, "") and len(done.stderr.splitlines()) == 1, done.stderr
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


def damaged(file: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """What a backup may have become, and what is said of it."""
    whole = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    for name, content in {
        "empty": b"",
        "text": b"hello" * 1000,
        "cut": whole[: len(whole) // 2],
        "another compression": lzma.compress(whole),
        "cut.tgz": gzip.compress(whole)[:-2000],
    }.items():
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


# ---- a backup is data: whoever writes one gets rows and messages in, and nothing else


async def test_sql_in_a_backup_has_no_effect(file: Path, tmp_path: Path) -> None:
    planted = edit_store(file, tmp_path / "planted.tar", *PLANTED)
    done = await asyncio.to_thread(sla, "restore", planted, "--data", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    made = {name for (name,) in rows(SqliteFile(tmp_path / "data" / "sla.db"), "SELECT name FROM sqlite_master")}
    assert not made & {"quiet", "deaf", "planted", "seen", "once"}
    with up(tmp_path, SLA_POLICY_DIR=open_all_hours(tmp_path / "policy")) as engine:
        async with connected(engine.nats_url) as nc, subscribed(nc) as heard:
            await publish(nc, opened("T-8", ago(hours=3)), opened("T-9", ago(hours=3)))
            await heard.first("T-8", "breached")
            await heard.first("T-9", "breached")
            await settled(nc, engine.store)
        assert (await asyncio.to_thread(sla, "verify", "--data", engine.data)).returncode == 0


AS_A_VIEW = ("ALTER TABLE stored_events RENAME TO kept", "CREATE VIEW stored_events AS SELECT rowid, * FROM kept")
AGAIN = "CREATE TABLE {0}_ AS SELECT * FROM {0}; DROP TABLE {0}; ALTER TABLE {0}_ RENAME TO {0}"
REFUSED = {
    "a view as a table": (AS_A_VIEW, "no table stored_events"),
    "a virtual table": (
        ("DROP TABLE verifications", "CREATE VIRTUAL TABLE verifications USING fts5(at, tickets, differences)"),
        "no table verifications",
    ),
    "no table": (("DROP TABLE policies",), "no table policies"),
    "no column": (("ALTER TABLE inbox DROP COLUMN digest",), "no such column: digest"),
    "text in an integer": (
        ("UPDATE verifications SET tickets = 0", "INSERT INTO verifications VALUES (7, 'seven', 0)"),
        "row 1 of the table verifications has the wrong types: tickets is TEXT",
    ),
    "a number in a text": (
        (*AGAIN.format("inbox").split("; "), "UPDATE inbox SET ticket = x'00', type = NULL WHERE sequence = 2"),
        "row 2 of the table inbox has the wrong types: type is NULL, ticket is BLOB",
    ),
    "a row twice": (
        (*AGAIN.format("inbox").split("; "), "INSERT INTO inbox SELECT * FROM inbox WHERE sequence = 1"),
        "UNIQUE constraint failed",
    ),
    "text that is none": (("UPDATE inbox SET ticket = CAST(x'ff' AS TEXT) WHERE sequence = 2",), "decode to UTF-8"),
    "another checkpoint": (("UPDATE partitions SET position = 4",), "contradicts itself: the store is at message 4"),
    "no checkpoint": (("DELETE FROM partitions",), "contradicts itself"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_store_that_is_not_one_of_ours_is_refused_and_leaves_nothing(file: Path, tmp_path: Path, what: str) -> None:
    statements, expected = REFUSED[what]
    edited = edit_store(file, tmp_path / "edited.tar", *statements)
    message = refused("restore", edited, "--data", tmp_path / "data")
    assert expected in message, message
    assert nothing_left(tmp_path, "edited.tar")


async def test_settings_of_streams_come_from_the_code_and_not_from_a_backup(tmp_path: Path) -> None:
    """Somebody has set the streams so that the broker copies and pushes messages by itself; then came the backup."""
    with up(tmp_path / "first", SLA_POLICY_DIR=open_all_hours(tmp_path / "policy")) as engine:
        async with connected(engine.nats_url) as nc:
            js = nc.jetstream()
            for stream in STREAMS_IN_ORDER:
                config = (await js.stream_info(stream)).config
                config = replace(
                    config, republish=RePublish(src=">", dest="stolen.>"), max_age=86_400 * 365, max_consumers=9
                )
                await js.update_stream(replace(config, metadata={"planted": "yes"}))
            await js.add_consumer("SLA", ConsumerConfig(durable_name="push", deliver_subject="tickets.opened.planted"))
            await js.add_consumer("SLA", ConsumerConfig(durable_name="pull", ack_policy=AckPolicy.EXPLICIT))
            await publish(nc, opened("T-1", ago(hours=3)))
            await settled(nc, engine.store)
        saved = await asyncio.to_thread(sla, "backup", tmp_path / "b.tar", "--data", engine.data)
        assert saved.returncode == 0, saved.stderr
    with tarfile.open(tmp_path / "b.tar") as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    for found in manifest["streams"].values():
        found["config"] |= {"sources": [{"name": "OTHER"}], "subjects": [">"], "max_msgs": 1, "discard": "old"}
        found["config"] |= {"subject_transform": {"src": ">", "dest": "sla.breached.x.y.z"}, "deny_purge": False}
    rewritten(tmp_path / "b.tar", tmp_path / "c.tar", manifest_json=json.dumps(manifest).encode())
    for file in ("b.tar", "c.tar"):
        data = tmp_path / file.removesuffix(".tar") / "data"
        done = await asyncio.to_thread(sla, "restore", tmp_path / file, "--data", data)
        assert done.returncode == 0, done.stderr
        with up(data.parent, SLA_POLICY_DIR=str(tmp_path / "policy")) as engine:
            async with connected(engine.nats_url) as nc:
                js = nc.jetstream()
                for stream in STREAMS_IN_ORDER:
                    config = (await js.stream_info(stream)).config
                    wanted = build_stream(stream)
                    set_by_us = {name for name, value in vars(wanted).items() if value is not None}
                    assert {name: getattr(config, name) for name in set_by_us} == {
                        name: getattr(wanted, name) for name in set_by_us
                    }
                    assert (config.republish, config.sources, config.mirror, config.subject_transform) == (None,) * 4
                    assert (config.max_age, config.max_msgs, config.max_consumers) == (0, -1, -1)
                assert {"pull"} <= {each.name for each in await js.consumers_info("SLA")}
                assert not any(each.config.deliver_subject for each in await js.consumers_info("SLA"))
                await publish(nc, opened("T-2", ago(hours=3)))
                await settled(nc, engine.store)
                assert {message.subject for message in await stored(nc, "TICKETS", ">")} <= {
                    "tickets.opened.T-1", "tickets.opened.T-2", "clock.due.T-1", "clock.due.T-2",
                }  # fmt: skip


async def test_the_number_of_partitions_is_kept_and_there_is_room_for_all(tmp_path: Path) -> None:
    settings = {"SLA_DATABASE_URL": f"sqlite:///{tmp_path}/sla.db"}
    async with nats_server(tmp_path / "nats") as server:
        settings["SLA_NATS_URL"] = server.url
        migrated = await asyncio.to_thread(sla, "migrate", SLA_PARTITIONS="3", **settings)
        assert migrated.returncode == 0, migrated.stderr
        saved = await asyncio.to_thread(sla, "backup", tmp_path / "b.tar", **settings)
        assert saved.returncode == 0, saved.stderr
    larger = lie(  # as if it had been given more room than the code gives it, and had used that
        tmp_path / "b.tar", tmp_path / "c.tar", lambda found: found["streams"]["TICKETS"]["state"].update(bytes=3 << 30)
    )
    assert (await asyncio.to_thread(sla, "restore", larger, "--data", tmp_path / "data")).returncode == 0
    with up(tmp_path) as engine:
        async with connected(engine.nats_url) as nc:
            config = (await nc.jetstream().stream_info("TICKETS")).config
            assert config.subject_transform == build_stream("TICKETS", 3).subject_transform
            assert config.subjects == build_stream("TICKETS").subjects and config.max_bytes == 3 << 30


def lie(file: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    with tarfile.open(file) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    change(manifest)
    return rewritten(file, target, manifest_json=json.dumps(manifest).encode())


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "partitions": (
        lambda found: found["streams"]["TICKETS"]["config"].update(
            subject_transform={"dest": "{{partition(257,3)}}.x"}
        ),
        "257 partitions of TICKETS; there are 1 to 256",
    ),
    "a position": (lambda found: found.update(position=99), "contradicts itself"),
    "an escape sequence": (lambda found: found.update(engine="\x1b[2J", format=7), "is not a whole backup"),
    "a stream more": (lambda found: found["streams"].update(X=found["streams"]["SLA"]), "does not name the parts"),
    "a stream less": (lambda found: found["streams"].pop("SLA"), "does not name the parts"),
    "a part more": (lambda found: found["parts"].update(x=found["parts"]["sla.db"]), "does not name the parts"),
    "a negative size": (lambda found: found["parts"]["sla.db"].update(bytes=-1), "is not a whole backup"),
    "a text for a number": (lambda found: found["streams"]["SLA"]["state"].update(last_seq="9"), "not a whole backup"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_manifest_that_lies_is_refused(file: Path, tmp_path: Path, what: str) -> None:
    change, expected = LIES[what]
    message = refused("restore", lie(file, tmp_path / "lie.tar", change), "--data", tmp_path / "data")
    assert expected in message and "\x1b" not in message, message
    assert nothing_left(tmp_path, "lie.tar")


def add_member(file: Path, target: Path, name: str, **attributes: Any) -> Path:
    target.write_bytes(file.read_bytes())
    with tarfile.open(target, "a") as tar:
        member = tarfile.TarInfo(name)
        for attribute, value in attributes.items():
            setattr(member, attribute, value)
        tar.addfile(member, io.BytesIO(b"x" * member.size))
    return target


def test_a_member_that_no_backup_has_is_refused(file: Path, tmp_path: Path) -> None:
    link = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    for number, (name, attributes) in enumerate(
        [("../../evil", {"size": 3}), ("/etc/evil", {"size": 3}), ("sla.db", {"size": 3}), ("sla.db-wal", {"size": 3}),
         ("more", link), ("\x1b[2J", {"size": 3})]
    ):  # fmt: skip
        path = add_member(file, tmp_path / f"{number}.tar", name, **attributes)
        message = refused("restore", path, "--data", tmp_path / "data")
        assert f"is no backup: it has {name!r}" in message, message
        path.unlink()
    with tarfile.open(file) as source, tarfile.open(tmp_path / "link.tar", "w") as tar:
        for member in source:
            content = source.extractfile(member)
            if member.name == "sla.db":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, content if member.size else None)
    assert "sla.db in it is no plain file" in refused("restore", tmp_path / "link.tar", "--data", tmp_path / "data")
    assert nothing_left(tmp_path, "link.tar")


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
