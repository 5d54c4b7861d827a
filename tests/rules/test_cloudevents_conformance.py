"""The CNCF's own CloudEvents SDK reads what we write, and we read what it writes, in both modes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from events import promises, tickets
from events.cloudevents import encode_token, parse_time
from events.examples import EXAMPLES
from events.tickets import TicketEvent, build_ticket_message, read_ticket_event
from tests.support.examples import examples


def sdk_event(message: dict[str, Any]) -> CloudEvent:
    attributes = {name: value for name, value in message.items() if name != "data"}
    return CloudEvent(attributes | {"time": datetime.fromisoformat(message["time"])}, message.get("data"))


def ours(message: dict[str, Any]) -> TicketEvent:
    return read_ticket_event(json.dumps(message).encode(), None, f"tickets.any.{encode_token(message['subject'])}")


@pytest.mark.parametrize("write", [to_structured_event, to_binary_event])
@pytest.mark.parametrize("type", tickets.TICKET_EVENT_TYPES)
def test_we_read_what_the_sdk_writes(type: str, write: Any) -> None:
    sent = write(sdk_event(EXAMPLES[type]))
    assert read_ticket_event(sent.body, sent.headers, "tickets.any.T-1001") == ours(EXAMPLES[type])


@pytest.mark.parametrize("write", [to_structured_event, to_binary_event])
@examples(100)
@given(
    ticket=st.text(st.characters().filter(str.isprintable), min_size=1, max_size=128).filter(
        lambda t: t == t.strip(" ")
    ),
    id=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=50),
    time=st.datetimes(timezones=st.just(UTC)),
)
def test_we_read_whatever_text_the_sdk_writes(write: Any, ticket: str, id: str, time: datetime) -> None:
    event = CloudEvent(
        {"type": "ticket.closed", "source": "/%20 å", "id": id, "subject": ticket, "time": time, "sequence": "7"},
        {"reason": "😀"},
    )
    sent = write(event)
    got = read_ticket_event(sent.body, sent.headers, f"tickets.closed.{encode_token(ticket)}")
    assert (got.ticket, got.id, got.source, got.time, got.sequence) == (ticket, id, "/%20 å", time, "7")


@pytest.mark.parametrize("write", [to_structured_event, to_binary_event])
def test_we_read_json_that_the_sdk_was_given_as_bytes(write: Any) -> None:
    """Structured mode then carries it in data_base64."""
    event = sdk_event(EXAMPLES["ticket.responded"] | {"data": b'{"by": "automation"}'})
    sent = write(event)
    assert read_ticket_event(sent.body, sent.headers, "tickets.any.T-1001").data == tickets.Responded(by="automation")


@pytest.mark.parametrize("write", [to_structured_event, to_binary_event])
def test_we_read_an_event_without_data(write: Any) -> None:
    event = sdk_event(EXAMPLES["ticket.responded"] | {"data": None})
    sent = write(event)
    assert read_ticket_event(sent.body, sent.headers, "tickets.any.T-1001").data == tickets.Responded(by="agent")


def sdk_reads(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    event = from_http_event(HTTPMessage(headers=headers, body=body))
    return event.get_attributes() | {"data": event.get_data()}


@pytest.mark.parametrize("type", promises.ANNOUNCEMENT_TYPES)
def test_the_sdk_reads_what_we_announce(type: str) -> None:
    example = EXAMPLES[type]
    data = promises.ANNOUNCEMENT_TYPES[type].model_validate_json(json.dumps(example["data"])).model_dump()
    time = parse_time(example["time"])
    assert sdk_reads(*promises.build_announcement_message(type, example["id"], "T-1001", time, data)) == example | {
        "time": time
    }


@pytest.mark.parametrize("type", tickets.TICKET_EVENT_TYPES)
def test_the_sdk_reads_what_our_publisher_sends(type: str) -> None:
    example = EXAMPLES[type]
    time = parse_time(example["time"])
    _, headers, body = build_ticket_message(
        type, "T-1001", source=example["source"], event_id=example["id"], time=time, data=example["data"]
    )
    assert sdk_reads(headers, body) == example | {"time": time}
