"""Reading a stream like a log, on a real nats-server: in order, and nothing is missed silently."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from services.bus.connection import connect as connect_to
from services.bus.embedded_server import EmbeddedNats
from services.bus.publisher import Outgoing, Publisher
from services.bus.reader import StreamReader
from services.bus.streams import TICKETS, provision, split_partition
from services.errors import BusError
from sla.engine import Message


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def nc(tmp_path: Path) -> AsyncIterator[Client]:
    server = EmbeddedNats(tmp_path / "nats", 0)
    await server.start()
    connection = await connect_to(server.url, "test")
    try:
        yield connection
    finally:
        await connection.close()
        await server.stop()


def build_opened(ticket: str, body: bytes = b"") -> Outgoing:
    return Outgoing(f"tickets.opened.{ticket}", {}, body)


async def read_messages(reader: StreamReader, count: int) -> list[Message]:
    """Read so many messages, in however many batches they come."""
    found: list[Message] = []
    while len(found) < count:
        found += await reader.read_batch()
    return found


@pytest.mark.anyio
async def test_a_missed_message_is_noticed_and_read_again(nc: Client) -> None:
    await provision(nc)
    publisher, reader = Publisher(nc, TICKETS), StreamReader(nc, TICKETS, 0)
    await publisher.publish([build_opened("T-1", b"1")])
    assert [message.body for message in await reader.read_batch()] == [b"1"]
    reader._next += 1  # as if the second message of the consumer had been lost on the way
    waiting = asyncio.create_task(reader.read_batch())
    await publisher.publish([build_opened("T-1", b"2"), build_opened("T-1", b"3")])
    with pytest.raises(BusError, match="missed"):
        await waiting
    assert [message.sequence for message in await read_messages(reader, 2)] == [2, 3]
    await reader.close()


@pytest.mark.anyio
async def test_partitions_hold_all_that_concerns_a_ticket_and_are_read_in_order(nc: Client) -> None:
    await provision(nc, partitions=3)
    tickets = [f"T-{n}" for n in range(30)]
    publisher = Publisher(nc, TICKETS)
    await publisher.publish([build_opened(ticket) for ticket in tickets])
    await publisher.publish([Outgoing(f"clock.due.{ticket}", {}, b"") for ticket in tickets])
    where: dict[str, set[int]] = {}
    for number in range(3):
        reader = StreamReader(nc, TICKETS, 0, [number])
        messages = await reader.read_batch()
        while await reader.find_caught_up_sequence() < 60:
            messages += await reader.read_batch()
        assert [message.sequence for message in messages] == sorted(message.sequence for message in messages)
        for message in messages:
            partition, subject = split_partition(message.subject)
            where.setdefault(subject.rpartition(".")[2], set()).add(partition)
            assert partition == number
        await reader.close()
    assert where.keys() == set(tickets) and all(len(numbers) == 1 for numbers in where.values())
    assert len(set.union(*where.values())) == 3


@pytest.mark.anyio
async def test_a_reader_of_one_partition_is_caught_up_only_when_it_has_returned_its_own_messages(nc: Client) -> None:
    """Otherwise the committed sequence would pass over a message that is still on its way."""
    await provision(nc, partitions=2)
    publisher, reader = Publisher(nc, TICKETS), StreamReader(nc, TICKETS, 0, [0])
    await publisher.publish([build_opened(f"T-{n}") for n in range(20)])
    own = (await reader.read_batch())[0]
    while await reader.find_caught_up_sequence() < 20:
        own = (await reader.read_batch())[0]
    mine = split_partition(own.subject)[1].rpartition(".")[2]
    await publisher.publish([build_opened(mine), build_opened(mine)])
    assert await reader.find_caught_up_sequence() < 21
    assert [message.sequence for message in await read_messages(reader, 2)] == [21, 22]
    assert await reader.find_caught_up_sequence() == 22
    await reader.close()
