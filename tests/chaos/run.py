"""One run: a load, everything that can break, a time of quiet, and at the end the streams are taken away."""

import asyncio
import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random

import nats.errors
from nats.aio.client import Client

from services.maintenance.provision import provision_bus
from tests.chaos.audit import STRANGER, Problem, audit
from tests.chaos.crew import FAKETIME, FAULTS, Copy, Crew
from tests.chaos.load import Publisher, bad, burst, falling, past
from tests.chaos.proxy import Proxy
from tests.support.bus import (
    Fact,
    Server,
    connected,
    deployment,
    nats_server,
    now,
    open_all_hours,
    opened,
    publish,
    settled,
    until,
)
from tests.support.stores import path_of, position

STORM = 26.0  # seconds of disorder
FAULTS_WITHIN, TURNS = 120.0, 20  # seconds more for the faults that did not happen by then; and turns taken meanwhile
QUIET = 8.0  # seconds in which nothing breaks, and nothing may be late
DISK = 64  # MiB


class Chaos:
    """What one seed leads to: `seen` are the states that were reached, `problems` what was promised and not kept."""

    def __init__(self, seed: int, folder: Path, planted: str | None = None) -> None:
        self.rng, self._folder, self._planted = Random(seed), folder, planted
        self.seen: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self._names = (f"T.{n}" for n in count())
        self._number = count()

    async def run(self) -> None:
        policy = open_all_hours(self._folder / "policy")
        with disk(self._folder / "disk") as store:
            async with nats_server(self._folder / "nats") as server, deployment(store, server) as deployed:
                self.store = deployed.store
                async with connected(server.url) as nc, proxied(server.url) as proxy:
                    crew = self._crew(deployed.settings | {"SLA_POLICY_DIR": policy}, proxy)
                    try:
                        await self._play(crew, server, nc, proxy)
                    finally:
                        crew.kill_all()

    def _crew(self, settings: dict[str, str], proxy: Proxy) -> Crew:
        self._wrong_by = self._folder / "wrong-by"
        self._wrong_by.write_text("+0\n")
        fake = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._wrong_by),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        copies = []
        for role in FAULTS:
            first, second = (settings | fake, settings | {"SLA_NATS_URL": proxy.url})
            copies.append(Copy(self._folder / "logs", role, self._planted, first if role == "clock" else settings))
            copies.append(Copy(self._folder / "logs", role, self._planted, second if role == "clock" else settings))
        return Crew(copies, self.store, self.rng, self.seen)

    async def _play(self, crew: Crew, server: Server, nc: Client, proxy: Proxy) -> None:
        publisher = Publisher(nc, self.rng)
        watching = asyncio.create_task(crew.watch())
        await asyncio.gather(*(copy.service.ready() for copy in crew.copies if not copy.fault))
        try:
            await self._storm(crew, server, nc, proxy, publisher)
            await publisher.all_sent()
            try:
                await self._calm(crew, nc)
                quiet = await self._quiet(nc, publisher)
            except AssertionError as stuck:
                self.problems.append(("stuck", str(stuck)))
                return
            self.problems += [("stuck", text) for text in crew.ended]
            self.problems += [problem async for problem in audit(nc, self.store, publisher, quiet)]
            if not self.problems:
                watching.cancel()
                await self._take_away(crew, server, nc)
        finally:
            watching.cancel()

    # ---- while everything breaks

    async def _storm(self, crew: Crew, server: Server, nc: Client, proxy: Proxy, publisher: Publisher) -> None:
        acts = [
            self._nats_killed(server),
            self._nats_paused(server),
            self._consumer_deleted(nc),
            self._cut(proxy),
            self._disk_full(),
            self._clock_wrong(),
            self._paused(crew),
            self._strangers(nc, publisher),
            self._store_restored(crew),
        ]
        self.rng.shuffle(acts)
        loading = asyncio.create_task(self._load(publisher))
        for act in acts:
            await asyncio.gather(act, asyncio.sleep(STORM / len(acts)))
        for _ in range(TURNS):
            with suppress(AssertionError):
                await until("every fault has happened", lambda: not crew.armed, FAULTS_WITHIN / TURNS)
            crew.hand_over()
        loading.cancel()
        for fault in crew.armed:
            self.seen[f"{fault}: NOT REACHED"] += 1

    async def _load(self, publisher: Publisher) -> None:
        """About twenty tickets a second; now and then many at once, and always some that cannot count."""
        while True:
            for _ in range(3):
                publisher.live(falling(next(self._names), self.rng.uniform(3, 8), self.rng.randrange(9)))
            publisher.live(past(next(self._names), self.rng.randrange(3)))
            if self.rng.random() < 0.3:
                publisher.refuse(bad(next(self._names), next(self._number)))
            if self.rng.random() < 0.15:
                for life in burst(self._names, self.rng, 60):
                    publisher.live(life)
            await asyncio.sleep(0.25)

    async def _nats_killed(self, server: Server) -> None:
        await server.kill()
        await asyncio.sleep(self.rng.uniform(0.1, 1.5))
        await server.start()
        self.seen["nats-server killed"] += 1

    async def _nats_paused(self, server: Server) -> None:
        server.send(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(1, 3))
        server.send(signal.SIGCONT)
        self.seen["nats-server paused"] += 1

    async def _consumer_deleted(self, nc: Client) -> None:
        js = nc.jetstream()

        async def deleted() -> bool:
            with suppress(nats.errors.Error):
                for consumer in await js.consumers_info("TICKETS"):
                    self.seen["consumer deleted"] += await js.delete_consumer("TICKETS", consumer.name)
            return self.seen["consumer deleted"] >= 2

        await until("intake has had consumers", deleted)

    async def _cut(self, proxy: Proxy) -> None:
        proxy.cut()
        await asyncio.sleep(self.rng.uniform(2, 4))
        if self.rng.random() < 0.5:
            proxy.reset()
        proxy.heal()
        self.seen["a clock cut off"] += 1

    async def _disk_full(self) -> None:
        ballast = path_of(self.store).with_name("ballast")
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
        self.seen["disk full"] += os.statvfs(path_of(self.store)).f_bavail == 0
        await asyncio.sleep(self.rng.uniform(1.5, 3))
        ballast.unlink()

    async def _clock_wrong(self) -> None:
        for seconds in (self.rng.choice((30, 3600)), -self.rng.choice((30, 3600))):
            self._wrong_by.write_text(f"{seconds:+d}\n")
            await asyncio.sleep(1.8)
            self.seen["a clock jumped"] += 1
        self._wrong_by.write_text("+0\n")

    async def _paused(self, crew: Crew) -> None:
        role = self.rng.choice(("intake", "clock", "announcer", "metrics"))
        await asyncio.gather(*(crew.pause(copy, 2.0) for copy in crew.copies if copy.role == role))

    async def _strangers(self, nc: Client, publisher: Publisher) -> None:
        """Somebody publishes on SLA and on TICKETS what means nothing, and copies of announcements."""
        js = nc.jetstream()

        async def is_announced() -> bool:
            with suppress(nats.errors.Error):
                return (await js.stream_info("SLA")).state.messages > 0
            return False

        await until("something is announced", is_announced)
        for number in range(20):
            with suppress(nats.errors.Error):
                copied = await js.get_last_msg("SLA", "sla.>")
                same = {name: text for name, text in (copied.headers or {}).items() if "Expected" not in name}
                for subject, headers, body in (
                    ("sla.hello", {}, b"hello"),
                    (f"sla.hello.{number}", {"Nats-Msg-Id": f"hello {number}"}, b"\xff"),
                    (str(copied.subject), same | {"Nats-Msg-Id": f"copy {number}"}, copied.data or b""),
                ):
                    await js.publish(subject, body, headers=headers | STRANGER)
                    self.seen["foreign message on SLA"] += 1
            publisher.refuse(Fact(f"tickets.hello.{number}", f"hello {number}".encode()))
            await asyncio.sleep(0.1)

    async def _store_restored(self, crew: Crew) -> None:
        """Everything ends, and starts on the store as it was some seconds ago; the streams are as they are."""
        path = path_of(self.store)
        await until("something is announced", lambda: position(self.store, "announcements") > 0)  # or it is refused
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(":memory:")) as older:
            source.backup(older)
            await asyncio.sleep(self.rng.uniform(0.5, 2.5))
            crew.stop_all()  # nothing is started again before the next await
            for left in (path, *(path.with_name(f"{path.name}-{part}") for part in ("wal", "shm"))):
                left.unlink(missing_ok=True)
            path.write_bytes(older.serialize())
        self.seen["store restored beside a newer SLA"] += 1

    # ---- when it is over

    async def _calm(self, crew: Crew, nc: Client) -> None:
        """All is ready again and settled, and nobody did anything."""
        await settled(nc, self.store)
        for copy in crew.copies:
            await copy.service.ready()
        self.seen["healed by itself"] += 1

    async def _quiet(self, nc: Client, publisher: Publisher) -> set[str]:
        """Deadlines fall one after the other; the tickets."""
        tickets = set()
        for n in range(24):
            life = falling(next(self._names), self.rng.uniform(3, QUIET), n, late_by=1.0)
            publisher.live(life)
            tickets.add(life.ticket)
        await publisher.all_sent()
        await settled(nc, self.store)
        return tickets

    async def _take_away(self, crew: Crew, server: Server, nc: Client) -> None:
        """A stream that is gone is noticed; SLA may be made anew, TICKETS is another one then."""
        js = nc.jetstream()
        announcer = [copy.service for copy in crew.copies if copy.role == "announcer"]
        await js.delete_stream("SLA")
        await until("no announcer is ready without SLA", lambda: none_ready(announcer))
        await provision_bus(server.url)
        for service in announcer:
            await service.ready()
        await publish(nc, opened("after", now()))
        await settled(nc, self.store)
        self.seen["stream SLA deleted, and noticed"] += (await js.stream_info("SLA")).state.messages == 1
        intake = [copy.service for copy in crew.copies if copy.role == "intake"]
        await js.delete_stream("TICKETS")
        await until("no intake is ready without TICKETS", lambda: none_ready(intake))
        await provision_bus(server.url)
        await until("intake ends", lambda: any(not service.process.running() for service in intake))
        code = [service.process.process.returncode for service in intake if not service.process.running()]
        self.seen["stream TICKETS deleted, and refused"] += set(code) == {1}


async def none_ready(services: list) -> bool:
    return all([(await service.readiness())[0] == 503 for service in services])


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A small disk of its own, so that it can be full."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "sla-chaos", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
