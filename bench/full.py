"""A store with many tickets open, as the engine would have left it; made once, for the benches that need one."""

import asyncio
import gc
import hashlib
import os
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time

import structlog

from bench.engine import always_open, opened
from events.times import to_microseconds
from projections.registry import PROJECTIONS
from projections.runner import catch_up
from services.announcer import Announcer
from services.bus.connection import Bus, connect
from services.bus.embedded_server import EmbeddedNats
from services.bus.publisher import Publisher
from services.bus.streams import TICKETS, provision
from services.runtime.settings import load_policy
from services.store.interface import Store
from services.store.schema import ANNOUNCER_CHECKPOINT
from services.store.sqlite import SqliteFile
from sla.engine import Engine, Message

FRESH = 3 * 3600  # seconds; the tickets are warned of four hours after they were opened, all together
BATCH = 1_000  # messages that the broker stores as one, at most
ROOMS = ("events/*.py", "projections/*.py", "services/*.py", "sla/*.py", "sla/policies/*.yaml")
CODE = ("bench/engine.py", "bench/full.py", *ROOMS)


def full(tickets: int) -> Path:
    """
    A folder with `policy/`, and with `up/` as `sla up --data` wants it: so many Enterprise tickets of priority minor,
    opened when it was made, all announced. It is made anew when it is not fresh, or the code is not the same any more.
    Benches work on it as it is; theirs are other tickets than T-0, T-1 and so on.
    """
    folder = Path(f"build/full-{tickets}").resolve()
    stamp = folder / "code"
    if not (stamp.exists() and stamp.read_text() == _code() and time() - stamp.stat().st_mtime < FRESH):
        making = folder.with_suffix(".making")
        for stale in (folder, making):
            shutil.rmtree(stale, ignore_errors=True)
        making.mkdir(parents=True)
        (making / "code").write_text(_code())
        asyncio.run(_fill(making, tickets))
        making.rename(folder)
    return folder


def _code() -> str:
    files = (path for pattern in CODE for path in sorted(Path().glob(pattern)))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


async def _fill(folder: Path, tickets: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    gc.set_threshold(50_000, 20, 50)  # as services.wiring
    place = SqliteFile(folder / "up" / "sla.db")
    place.migrate(PROJECTIONS)
    server = EmbeddedNats(folder / "up" / "nats", 0, lazy_sync=True)
    await server.start()
    try:
        nc = await connect(server.url, "bench")
        await provision(nc)
        with closing(place.open()) as store:
            store.publish_policy(
                load_policy(always_open(folder / "policy")), lambda: datetime.now(UTC), lead=timedelta(0)
            )
            store.bind_stream(TICKETS, to_microseconds(await Bus(nc).read_created_at(TICKETS)))
            await _take(store, Publisher(nc, TICKETS), tickets)
            await _announce(store, Announcer(Bus(nc), store, place.create_lock("announcer")))
            for view in PROJECTIONS:
                catch_up(store, view())
        await nc.close()
    finally:
        await server.stop()
    os.sync()  # such a broker leaves it to us


async def _take(store: Store, publisher: Publisher, tickets: int) -> None:
    """As intake does."""
    engine = Engine(store)
    for first in range(0, tickets, BATCH):
        now = datetime.now(UTC)
        messages = [opened(f"T-{number}", now) for number in range(first, min(first + BATCH, tickets))]
        last = (await publisher.publish_atomic_batch(messages)).sequence
        outcome = engine.process(
            [
                Message(sequence, now, message.subject, message.headers, message.body)
                for sequence, message in enumerate(messages, last - len(messages) + 1)
            ]
        )
        store.commit(outcome, {0: last - len(messages)})


async def _announce(store: Store, announcer: Announcer) -> None:
    """Everything, and until it is stored that it was announced."""
    running = asyncio.create_task(announcer.run())
    while store.read_checkpoint(ANNOUNCER_CHECKPOINT) != store.read_head():
        done, _ = await asyncio.wait([running], timeout=0.1)
        for task in done:
            task.result()  # it does not end by itself, unless it failed
    running.cancel()
    await asyncio.wait([running])
    await announcer.stop()
