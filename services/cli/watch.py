"""What `sla watch` shows: the messages of the stream SLA as they come, and a line of each for people."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client

from events.cloudevents import quote_value
from events.promises import ANNOUNCEMENT_TYPES, read_announcement
from services.bus.reader import StreamReader
from services.bus.streams import SLA, read_last_sequence
from services.errors import BUS_ERRORS
from services.text.formats import format_wall_time
from services.text.phrases import write_details

KINDS = tuple(type.removeprefix("sla.") for type in ANNOUNCEMENT_TYPES)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


async def follow(nc: Client, everything: bool, tell: Callable[[str], None]) -> AsyncIterator[dict[str, Any]]:
    """
    The events of SLA from now on, or from the oldest that is kept. After an outage it goes on where it was; `tell`
    hears of it. Raises BusError if there is no stream at the beginning.
    """
    after = 0 if everything else await read_last_sequence(nc, SLA)
    reader = StreamReader(nc, SLA, after)
    await reader.start()
    tell(f"following {SLA} after sequence {after}; Ctrl-C ends")
    said = ""
    while True:
        try:
            messages, said = await reader.read_batch(), ""
        except (*BUS_ERRORS, OSError) as error:
            problem = f"waiting for the bus: {str(error) or type(error).__name__}"
            if problem != said:
                tell(problem)
            said = problem
            await asyncio.sleep(1)
            continue
        for message in messages:
            try:
                yield _decode(message.body)
            except msgspec.MsgspecError:
                tell(f"message {message.sequence} on {quote_value(message.subject)} is not one of ours; it is left out")


def get_kind(event: dict[str, Any]) -> str:
    """Return `breached` for `sla.breached`."""
    return str(event.get("type", "")).removeprefix("sla.")


def build_cells(event: dict[str, Any]) -> tuple[str, ...]:
    """Return the line for people: when, what, which ticket, and what else counts."""
    data = event.get("data", {})
    at = format_wall_time(datetime.fromisoformat(event["time"]), None)
    return (
        at,
        f"{get_kind(event):<16}",
        str(event.get("subject")),
        f"{data.get('service_level')} {data.get('priority')}",
        _write_details(event),
    )


def _write_details(event: dict[str, Any]) -> str:
    try:
        return write_details(read_announcement(msgspec.json.encode(event)).data)
    except ValueError:  # of an engine that is newer than this command
        due_at = event.get("data", {}).get("due_at")
        return "" if due_at is None else f"due {due_at}"
