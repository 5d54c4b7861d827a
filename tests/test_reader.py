"""Reading a stream like a log, on a real nats-server: in order, and nothing is missed without a word."""

import asyncio
from pathlib import Path

import pytest

from services.bus import TICKETS, BusError, Outgoing, Publisher, StreamReader, provision
from services.bus import connect as connect_to
from services.embedded import EmbeddedNats


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_missed_message_is_noticed_and_read_again(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path / "nats", 0)
    await server.start()
    nc = await connect_to(server.url, "test")
    try:
        await provision(nc)
        publisher, reader = Publisher(nc, TICKETS), StreamReader(nc, TICKETS, 0)
        await publisher.publish([Outgoing("tickets.opened.T-1", {}, b"1")])
        assert [message.body for message in await reader.take()] == [b"1"]
        reader._next += 1  # as if the second message of the consumer had been lost on the way
        waiting = asyncio.create_task(reader.take())
        await publisher.publish([Outgoing("tickets.opened.T-1", {}, b"2"), Outgoing("tickets.opened.T-1", {}, b"3")])
        with pytest.raises(BusError, match="missed"):
            await waiting
        assert [message.sequence for message in await reader.take()] == [2, 3]
        await reader.close()
    finally:
        await nc.close()
        await server.stop()
