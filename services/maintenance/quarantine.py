"""Tickets that were set aside because judging them failed: which there are, and trying again."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from nats.aio.client import Client

from events.cloudevents import encode_token
from projections.quarantine import Quarantine, QuarantineRow
from projections.runner import catch_up
from services.bus.publisher import Outgoing, Publisher
from services.bus.streams import TICKETS
from services.errors import ReadOnlyError
from services.store.interface import Store
from sla.engine import RETRY_HEADER, TICK_PREFIX

RETRY_TIMEOUT = 10.0  # seconds for intake to judge the tickets again
LOOK_INTERVAL = 0.05


class Retried(NamedTuple):
    """What became of a ticket that was tried again: `error` is None if it is judged now."""

    ticket: str
    error: str | None


def list_quarantined(store: Store) -> list[QuarantineRow]:
    """Return the tickets that are set aside, the oldest first. Blocks."""
    view = Quarantine()
    with suppress(ReadOnlyError):  # then it is as far as the processes that catch it up are
        catch_up(store, view)
    with store.read_view() as cursor:
        return view.read_rows(cursor)


async def retry(nc: Client, store: Store, tickets: Sequence[str]) -> list[Retried]:
    """
    Have the tickets judged again: a tick says so, since intake alone writes the log. Waits for the outcome; what intake
    has not come to within RETRY_TIMEOUT is an error too.
    """
    before = {row.ticket: row.since for row in list_quarantined(store)}
    await Publisher(nc, TICKETS).publish(
        [Outgoing(f"{TICK_PREFIX}{encode_token(ticket)}", {RETRY_HEADER: "1"}, b"") for ticket in tickets]
    )
    now: dict[str, QuarantineRow] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(RETRY_TIMEOUT):
            while True:
                now = {row.ticket: row for row in await asyncio.to_thread(list_quarantined, store)}
                if all(ticket not in now or now[ticket].since != before.get(ticket) for ticket in tickets):
                    break
                await asyncio.sleep(LOOK_INTERVAL)
    return [Retried(ticket, _explain(now.get(ticket), before.get(ticket))) for ticket in tickets]


def _explain(row: QuarantineRow | None, before: int | None) -> str | None:
    if row is None:
        return None
    return row.error if row.since != before else f"intake has not tried it within {RETRY_TIMEOUT:g} s; is it running?"
