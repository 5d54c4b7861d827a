"""Provisioning: what of the bus has to be there before a process can work. The store is migrated elsewhere."""

import asyncio
from collections.abc import Iterator

import structlog
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from services.bus import connection as bus
from services.bus import streams
from services.bus.credentials import ANONYMOUS, Credentials
from services.errors import FatalError
from services.store.interface import PartitionLeases

log = structlog.get_logger()


async def provision_bus(
    url: str,
    access: Credentials = ANONYMOUS,
    partitions: int | None = None,
    leases: PartitionLeases | None = None,
    notify: str | None = None,
    subscribers: str = "",
) -> None:
    """
    Create the streams, and a consumer for each receiver of SLA_NOTIFY and each of SLA_SUBSCRIBERS; log what an operator
    has set otherwise. Give TICKETS another number of partitions, if it has not this one. Raises FatalError if an intake
    works meanwhile.
    """
    consumers = [*build_receiver_consumers(notify or ""), *build_subscriber_consumers(subscribers)]
    nc = await bus.connect(url, "migrate", access)
    try:
        for line in await streams.provision(nc, partitions, consumers):
            log.warning("stream settings differ", stream=line)
        before = await bus.Bus(nc).count_partitions(streams.TICKETS)
        if partitions is not None and leases is not None and partitions != before:
            if not await asyncio.to_thread(leases.acquire_all, before):
                raise FatalError(
                    f"{streams.TICKETS} has {before} partitions; to have {partitions}, stop every intake first"
                )
            await streams.repartition(nc, partitions)
            log.info("repartitioned", partitions=partitions, before=before)
    finally:
        if leases is not None:
            leases.release()
        await nc.close()


def build_receiver_consumers(notify: str) -> Iterator[tuple[str, ConsumerConfig]]:
    """Yield the stream and the consumer of each receiver of SLA_NOTIFY. Raises NotifyError for what it cannot read."""
    if not notify:
        return
    from services.notifier.receivers import (
        parse_notify,
    )  # only here: most engines notify nobody, and it is much to load
    from services.notifier.service import build_consumer

    for receiver in parse_notify(notify).targets:
        yield streams.SLA, build_consumer(receiver)


def build_subscriber_consumers(subscribers: str) -> Iterator[tuple[str, ConsumerConfig]]:
    """
    Yield the stream and the durable consumer of each USER=SUBJECT. It pushes nowhere: whoever may say where could name
    any subscription of ours (docs/upstream-behaviour.md#x3).
    """
    for user, subject in (each.split("=") for each in subscribers.split()):
        stream = streams.DEAD_LETTERS if subject.startswith("dead_letters.") else streams.SLA
        yield (
            stream,
            ConsumerConfig(
                durable_name=user,
                filter_subject=subject,
                deliver_policy=DeliverPolicy.NEW,
                ack_policy=AckPolicy.EXPLICIT,
                max_deliver=-1,
            ),
        )
