"""The contract: what is read from the bus, what is refused and why, and what is sent."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from events import asyncapi, generate, promises, tickets
from events.cloudevents import (
    EARLIEST,
    LATEST,
    BadFactError,
    Reason,
    check_time,
    decode_token,
    encode_token,
    format_time,
    parse_time,
    quote_value,
)
from events.examples import EXAMPLES
from events.tickets import (
    Corrected,
    Escalated,
    Opened,
    Responded,
    TicketEvent,
    build_ticket_message,
    make_content_digest,
    make_fact_key,
    read_ticket_event,
)
from sla.log import Announced, AnnouncedEvent
from tests.support.examples import examples

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
OPENED: dict[str, Any] = {"service_level": "foundation", "priority": "critical", "channel": "email"}
ABSENT = object()


def envelope(**changes: Any) -> dict[str, Any]:
    """A good ticket.opened as a structured envelope, with some attributes changed or left out (ABSENT)."""
    good = {
        "specversion": "1.0",
        "type": "ticket.opened",
        "source": "/helpdesk/acme",
        "id": "fact-1",
        "subject": "T-1001",
        "time": "2026-11-20T16:00:00Z",
        "data": OPENED,
    }
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def structured(**changes: Any) -> bytes:
    return json.dumps(envelope(**changes)).encode()


def binary(**changes: Any) -> dict[str, str]:
    """The headers of the same event in binary mode."""
    return {f"ce-{name}": value for name, value in envelope(**changes).items() if name != "data"}


def read_one(type: str = "ticket.opened", **data: Any) -> TicketEvent:
    return read_ticket_event(structured(type=type, data=data), None, "tickets.any.T-1001")


# ---- what is refused, and why


class Bad(NamedTuple):
    reason: str
    why: str
    body: bytes
    headers: dict[str, str] | None = STRUCTURED
    subject: str = "tickets.opened.T-1001"


RAW = structured().decode()
DATA = json.dumps(OPENED).encode()
PACKED = base64.b64encode(DATA).decode()

BAD = [
    Bad("too_large", "a body of 64 KiB and one byte", structured(id="x" * (65_537 - len(structured(id=""))))),
    Bad("too_large", "65,537 bytes that are nothing at all", b"{" * 65_537),
    Bad("malformed", "an empty body", b""),
    Bad("malformed", "no JSON", b"hello"),
    Bad("malformed", "no JSON, and no header", b"hello", None),
    Bad("malformed", "JSON cut short", structured()[:-1]),
    Bad("malformed", "something after the JSON", structured() + b"x"),
    Bad("malformed", "Latin-1", RAW.replace("T-1001", "T-\xe4").encode("latin-1")),
    Bad("malformed", "UTF-16", RAW.encode("utf-16")),
    Bad("malformed", "UTF-16 without a byte order mark", RAW.encode("utf-16-le")),
    Bad("malformed", "a byte order mark", b"\xef\xbb\xbf" + structured()),
    Bad("malformed", "a list of events", b"[" + structured() + b"]"),
    Bad("malformed", "a string", b'"ticket.opened"'),
    Bad("malformed", "null", b"null"),
    Bad("malformed", "NaN in the data", RAW.replace('"email"', "NaN").encode()),
    Bad("malformed", "Infinity in the envelope", RAW.replace('"fact-1"', "-Infinity").encode()),
    Bad("malformed", "nesting without end in the data", RAW.replace('"email"', "[" * 30_000 + "]" * 30_000).encode()),
    Bad("malformed", "nesting without end", b"[" * 60_000),
    Bad("malformed", "an integer of 5,000 digits", RAW.replace('"email"', "1" * 5_000).encode()),
    Bad("malformed", "a line break inside a string", RAW.replace("fact-1", "fact\n1").encode()),
    Bad("malformed", "data only, no envelope", DATA, None),
    Bad("malformed", "data only, announced as an envelope", DATA),
    Bad("malformed", "data announced as an envelope, whatever ce- headers say", DATA, binary() | STRUCTURED),
    Bad("malformed", "the same in capitals", DATA, binary() | {"CONTENT-TYPE": " Application/CloudEvents+JSON"}),
    Bad("malformed", "no specversion", structured(specversion=ABSENT)),
    Bad("malformed", "specversion 0.3", structured(specversion="0.3")),
    Bad("malformed", "specversion as a number", structured(specversion=1.0)),
    Bad("malformed", "specversion null, without the header", structured(specversion=None), None),
    Bad("malformed", "no id", structured(id=ABSENT)),
    Bad("malformed", "an empty id", structured(id="")),
    Bad("malformed", "an id that is a number", structured(id=7)),
    Bad("malformed", "an id with U+0000", structured(id="fact\0001")),
    Bad("malformed", "an id of 257 characters", structured(id="x" * 257)),
    Bad("malformed", "a source of 257 characters", structured(source="ö" * 257)),
    Bad("malformed", "binary mode, ce-id of 257 characters", DATA, binary(id="%C3%B6" * 257)),
    Bad("malformed", "an id with half a surrogate pair", structured(id="fact\ud83d")),
    Bad("malformed", "no source", structured(source=ABSENT)),
    Bad("malformed", "source null", structured(source=None)),
    Bad("malformed", "a source with U+0000", structured(source="/help\0desk")),
    Bad("malformed", "no type", structured(type=ABSENT)),
    Bad("malformed", "an empty type", structured(type="")),
    Bad("malformed", "a type that is a list", structured(type=["ticket.opened"])),
    Bad("malformed", "the id twice", RAW.replace('"id":', '"id": "fact-0", "id":').encode()),
    Bad("malformed", "an extension twice", RAW.replace('"id":', '"x": 1, "x": 1, "id":').encode()),
    Bad("malformed", "Avro", b"\x06", {"content-type": "application/cloudevents+avro"}),
    Bad("malformed", "binary mode without ce-id", DATA, binary(id=ABSENT)),
    Bad("malformed", "binary mode without ce-specversion", DATA, binary(specversion=ABSENT)),
    Bad("malformed", "binary mode with version 0.3", DATA, binary(specversion="0.3")),
    Bad("malformed", "binary mode with an empty ce-type", DATA, binary(type="")),
    Bad("malformed", "binary mode, and the body is no JSON", b"<opened/>", binary()),
    Bad("malformed", "binary mode, ce-id twice", DATA, binary() | {"CE-Id": "fact-2"}),
    Bad("malformed", "binary mode, ce-source is not UTF-8", DATA, binary(source="%C0%A0")),
    Bad("malformed", "binary mode, ce-id with U+0000", DATA, binary(id="a%00b")),
    Bad("unknown_type", "a type nobody knows", structured(type="ticket.exploded")),
    Bad("unknown_type", "upper case", structured(type="ticket.Opened")),
    Bad("unknown_type", "one of ours", structured(type="sla.breached")),
    Bad("unknown_type", "before the data is looked at", structured(type="ticket.exploded", data=None, subject="")),
    Bad("unknown_type", "binary mode, before its data is looked at", b"[]", binary(type="ticket.exploded")),
    Bad("invalid_data", "no subject", structured(subject=ABSENT)),
    Bad("invalid_data", "subject null", structured(subject=None)),
    Bad("invalid_data", "an empty subject", structured(subject="")),
    Bad("invalid_data", "a subject that is a number", structured(subject=1001)),
    Bad("invalid_data", "a subject of 129 characters", structured(subject="T" * 129)),
    Bad("invalid_data", "a sequence of 257 characters", structured(sequence="1" * 257)),
    Bad("invalid_data", "a sequence of 257 digits", structured(sequence=10**256)),
    Bad("invalid_data", "a sequence with U+0000", structured(sequence="1\0")),
    Bad(
        "invalid_data",
        "a corrected id of 257 characters",
        structured(type="ticket.corrected", data={"corrects": "x" * 257}),
    ),
    Bad(
        "invalid_data",
        "a withdrawn id of 257 characters",
        structured(type="ticket.fact_withdrawn", data={"withdraws": "x" * 257}),
    ),
    Bad("invalid_data", "a subject with a space in front", structured(subject=" T-1001")),
    Bad("invalid_data", "a subject with a space behind", structured(subject="T-1001 ")),
    Bad("invalid_data", "a subject with a line break", structured(subject="T-1001\n")),
    Bad("invalid_data", "a subject with a right-to-left mark", structured(subject="T-\u200f1001")),
    Bad("invalid_data", "a subject with a no-break space", structured(subject="T\u00a01001")),
    Bad("invalid_data", "a subject with U+0000", structured(subject="T\0001")),
    Bad("invalid_data", "a subject with half a surrogate pair", structured(subject="T\udc00")),
    Bad("invalid_data", "no time", structured(time=ABSENT)),
    Bad("invalid_data", "time null", structured(time=None)),
    Bad("invalid_data", "time as a number", structured(time=1795190400)),
    Bad("invalid_data", "time as a numeric string", structured(time="1795190400")),
    Bad("invalid_data", "time without a zone", structured(time="2026-11-20T16:00:00")),
    Bad("invalid_data", "a date only", structured(time="2026-11-20")),
    Bad("invalid_data", "time without seconds", structured(time="2026-11-20T16:00Z")),
    Bad("invalid_data", "a space between date and time", structured(time="2026-11-20 16:00:00Z")),
    Bad("invalid_data", "ISO 8601 basic format", structured(time="20261120T160000Z")),
    Bad("invalid_data", "an ISO week", structured(time="2026-W47-5T16:00:00Z")),
    Bad("invalid_data", "a comma before the fraction", structured(time="2026-11-20T16:00:00,5Z")),
    Bad("invalid_data", "an empty fraction", structured(time="2026-11-20T16:00:00.Z")),
    Bad("invalid_data", "an offset without a colon", structured(time="2026-11-20T16:00:00+0100")),
    Bad("invalid_data", "an offset of 24 hours", structured(time="2026-11-20T16:00:00+24:00")),
    Bad("invalid_data", "24 o'clock", structured(time="2026-11-20T24:00:00Z")),
    Bad("invalid_data", "a leap second", structured(time="2016-12-31T23:59:60Z")),
    Bad("invalid_data", "30 February", structured(time="2026-02-30T16:00:00Z")),
    Bad("invalid_data", "30 February of year 0", structured(time="0000-02-30T16:00:00Z")),
    Bad("invalid_data", "Arabic digits", structured(time="٢٠٢٦-11-20T16:00:00Z")),
    Bad("invalid_data", "a line break after the time", structured(time="2026-11-20T16:00:00Z\n")),
    Bad("invalid_data", "no data where some is required", structured(data=ABSENT)),
    Bad("invalid_data", "data null", structured(data=None)),
    Bad("invalid_data", "data null where none is required", structured(type="ticket.closed", data=None)),
    Bad("invalid_data", "data as a list", structured(data=[OPENED])),
    Bad("invalid_data", "data as a string of JSON", structured(data=json.dumps(OPENED))),
    Bad("invalid_data", "data deep, but not too deep", RAW.replace(json.dumps(OPENED), "[" * 500 + "]" * 500).encode()),
    Bad("invalid_data", "no service level", structured(data={"priority": "critical"})),
    Bad("invalid_data", "no priority", structured(data={"service_level": "foundation"})),
    Bad("invalid_data", "service level null", structured(data=OPENED | {"service_level": None})),
    Bad("invalid_data", "priority as a number", structured(data=OPENED | {"priority": 1})),
    Bad("invalid_data", "an empty channel", structured(data=OPENED | {"channel": ""})),
    Bad("invalid_data", "a channel of 33 characters", structured(data=OPENED | {"channel": "c" * 33})),
    Bad("invalid_data", "a channel that is not printable", structured(data=OPENED | {"channel": "e\tmail"})),
    Bad("invalid_data", "an unknown responder", structured(type="ticket.responded", data={"by": "robot"})),
    Bad("invalid_data", "a responder in upper case", structured(type="ticket.responded", data={"by": "Agent"})),
    Bad("invalid_data", "an unknown way to escalate", structured(type="ticket.escalated", data={"by": "agent"})),
    Bad("invalid_data", "excluded without a reason", structured(type="ticket.excluded", data={})),
    Bad(
        "invalid_data",
        "an exclusion revoked for nothing",
        structured(type="ticket.exclusion_revoked", data={"reason": ""}),
    ),
    Bad("invalid_data", "a correction of nothing", structured(type="ticket.corrected", data={"priority": "minor"})),
    Bad("invalid_data", "a correction of an empty id", structured(type="ticket.corrected", data={"corrects": ""})),
    Bad(
        "invalid_data",
        "a corrected time without a zone",
        structured(type="ticket.corrected", data={"corrects": "f", "time": "2026-11-20T16:00:00"}),
    ),
    Bad(
        "invalid_data",
        "a corrected time as a number",
        structured(type="ticket.corrected", data={"corrects": "f", "time": 1795190400}),
    ),
    Bad("invalid_data", "a member of data twice", RAW.replace('"channel":', '"channel": "phone", "channel":').encode()),
    Bad("invalid_data", "U+0000 in a known member", structured(data=OPENED | {"priority": "a\0b"})),
    Bad("invalid_data", "U+0000 in an unknown member", structured(data=OPENED | {"note": ["a\0b"]})),
    Bad("invalid_data", "U+0000 in the name of a member", structured(data=OPENED | {"no": {"a\0b": 1}})),
    Bad("invalid_data", "half a surrogate pair in an extension", structured(traceparent="\udfff")),
    Bad("invalid_data", "data and data_base64", structured(data_base64=PACKED)),
    Bad("invalid_data", "data_base64 that is no base64", structured(data=ABSENT, data_base64="%%%")),
    Bad("invalid_data", "data_base64 with a stray sign", structured(data=ABSENT, data_base64="*" + PACKED)),
    Bad("invalid_data", "U+0000 beside data_base64", structured(data=ABSENT, data_base64=PACKED, x="\0")),
    Bad("invalid_data", "data_base64 that is no string", structured(data=ABSENT, data_base64=[1])),
    Bad(
        "invalid_data",
        "data_base64 of no JSON",
        structured(data=ABSENT, data_base64=base64.b64encode(b"hello").decode()),
    ),
    Bad(
        "invalid_data",
        "U+0000 inside data_base64",
        structured(data=ABSENT, data_base64=base64.b64encode(json.dumps(OPENED | {"x": "\0"}).encode()).decode()),
    ),
    Bad("invalid_data", "binary mode with a list as data", b"[]", binary()),
    Bad("invalid_data", "binary mode with null as data", b"null", binary()),
    Bad("invalid_data", "binary mode without the required data", b"", binary()),
    Bad("invalid_data", "binary mode, a member of data twice", DATA[:-1] + b', "priority": "minor"}', binary()),
    Bad("invalid_data", "binary mode without ce-time", DATA, binary(time=ABSENT)),
    Bad("invalid_data", "binary mode, ce-subject is not UTF-8", DATA, binary(subject="T-%FF")),
    Bad("invalid_data", "binary mode, ce-subject with U+0000", DATA, binary(subject="T-%00")),
    Bad(
        "invalid_data", "a bad time, before the subject is compared", structured(time="now"), subject="tickets.opened.T"
    ),
    Bad("invalid_data", "bad data, before the subject is compared", structured(data={}), subject="tickets.opened.T"),
    Bad("wrong_subject", "another ticket", structured(), subject="tickets.opened.T-1002"),
    Bad("wrong_subject", "another case", structured(), subject="tickets.opened.t-1001"),
    Bad("wrong_subject", "another Unicode form", structured(subject="T-\u00e4"), subject="tickets.opened.T-a%CC%88"),
    Bad("wrong_subject", "a token cut off inside a percent code", structured(), subject="tickets.opened.T-1001%4"),
    Bad("wrong_subject", "a token that is not UTF-8", structured(), subject="tickets.opened.T-%E4"),
    Bad("wrong_subject", "encoded twice", structured(subject="T.1"), subject="tickets.opened.T%252E1"),
    Bad(
        "wrong_subject", "a dot in the id that was not encoded", structured(subject="T.1"), subject="tickets.opened.T.1"
    ),
    Bad("wrong_subject", "too few tokens", structured(), subject="tickets.T-1001"),
    Bad(
        "wrong_subject", "before the time's range", structured(time="1970-01-01T00:00:00Z"), subject="tickets.opened.T"
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.reason}: {bad.why}")
def test_a_bad_message_is_refused_with_its_reason(bad: Bad) -> None:
    with pytest.raises(BadFactError) as refusal:
        read_ticket_event(bad.body, bad.headers, bad.subject)
    assert refusal.value.reason == bad.reason
    assert refusal.value.message.isascii()
    assert refusal.value.message.isprintable()
    assert len(refusal.value.message) < 1_000
    assert str(refusal.value) == refusal.value.message


def test_the_reasons_stand_in_the_order_in_which_they_are_checked() -> None:
    assert list(Reason) == [
        "too_large",
        "malformed",
        "unknown_type",
        "invalid_data",
        "wrong_subject",
        "unknown_service_level",
        "unknown_priority",
        "time_out_of_range",
        "time_in_future",
        "id_conflict",
        "too_many_facts",
        "internal",
    ]


def test_a_refusal_names_the_member_its_value_and_where_to_look() -> None:
    with pytest.raises(BadFactError, match=r"data\.by is 'robot'.*'agent' or 'automation'.*ticket\.responded\.json"):
        read_one("ticket.responded", by="robot")


def test_a_refusal_shows_no_more_of_a_value_than_fits_in_a_line() -> None:
    assert quote_value("x\ny\u2028å") == r"'x\ny\u2028\xe5'"
    assert len(quote_value("\U0001f600" * 10_000)) == 120
    assert len(quote_value({"deep": [[[["x" * 1_000] * 1_000] * 10]]})) <= 120


# ---- what is read


def test_a_structured_message_is_read() -> None:
    assert read_ticket_event(structured(), STRUCTURED, "tickets.opened.T-1001") == TicketEvent(
        source="/helpdesk/acme",
        id="fact-1",
        type="ticket.opened",
        ticket="T-1001",
        time=datetime(2026, 11, 20, 16, tzinfo=UTC),
        data=Opened(service_level="foundation", priority="critical", channel="email"),
    )


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"Content-Type": "application/json"},
        {"Nats-Msg-Id": "1"},
        {"content-type": "application/cloudevents+json"},
        {"CONTENT-TYPE": "Application/CloudEvents+JSON; charset=utf-8"},
        {"ce-id": "what the body says counts"},
    ],
)
def test_a_body_with_specversion_is_structured_whatever_the_headers_say(headers: dict[str, str] | None) -> None:
    assert read_ticket_event(structured(), headers, "tickets.opened.T-1001").id == "fact-1"


def test_binary_mode_gives_the_same_fact_as_structured_mode() -> None:
    assert read_ticket_event(DATA, binary(), "tickets.opened.T-1001") == read_ticket_event(
        structured(), None, "tickets.opened.T-1001"
    )


def test_header_names_may_have_any_case() -> None:
    headers = {name.upper(): value for name, value in binary().items()}
    assert read_ticket_event(DATA, headers, "tickets.opened.T-1001").id == "fact-1"


def test_header_values_are_percent_decoded_once_and_unquoted() -> None:
    headers = binary(subject="%E2%82%AC%20100%2525", source='"/a \\"b\\""', time="2026-11-20T16%3A00%3A00Z")
    event = read_ticket_event(DATA, headers, "tickets.opened." + encode_token("€ 100%25"))
    assert (event.ticket, event.source, event.time) == ("€ 100%25", '/a "b"', datetime(2026, 11, 20, 16, tzinfo=UTC))


def test_header_values_that_are_no_strings_are_taken_as_text() -> None:
    headers: dict[str, Any] = binary() | {"ce-id": 7}
    assert read_ticket_event(DATA, headers, "tickets.opened.T-1001").id == "7"


def test_an_empty_body_in_binary_mode_is_a_message_without_data() -> None:
    assert read_ticket_event(b"", binary(type="ticket.responded"), "tickets.responded.T-1001").data == Responded(
        by="agent"
    )


def test_missing_data_counts_as_no_members() -> None:
    body = structured(type="ticket.responded", data=ABSENT)
    assert read_ticket_event(body, None, "tickets.responded.T-1001").data == Responded(by="agent")


def test_json_in_data_base64_is_data() -> None:
    body = structured(data=ABSENT, data_base64=PACKED)
    assert read_ticket_event(body, None, "tickets.opened.T-1001").data == Opened(**OPENED)


def test_a_body_of_exactly_64_kib_is_read() -> None:
    body = structured(padding="x" * (65_536 - len(structured(padding=""))))
    assert len(body) == 65_536
    assert read_ticket_event(body, None, "tickets.opened.T-1001").id == "fact-1"


def test_the_event_token_is_not_compared_the_body_decides() -> None:
    assert read_ticket_event(structured(), None, "tickets.closed.T-1001").type == "ticket.opened"


def test_unknown_members_and_extensions_are_ignored() -> None:
    body = structured(data=OPENED | {"mood": {"a": [1, None]}}, traceparent="00-ab", dataschema="urn:x", partitionkey=7)
    assert read_ticket_event(body, None, "tickets.opened.T-1001") == read_ticket_event(
        structured(), None, "tickets.opened.T-1001"
    )


def test_an_explicit_null_is_an_absent_member() -> None:
    assert read_one(**OPENED | {"channel": None, "customer": None}).data == Opened(
        service_level="foundation", priority="critical"
    )
    assert read_one("ticket.responded", by=None, channel=None).data == Responded(by="agent")


def test_escaped_characters_that_are_whole_are_read() -> None:
    """json.dumps escapes everything outside ASCII, an emoji as a surrogate pair."""
    event = read_one("ticket.escalated", reason="Å 😀 \\u0000 ")
    assert event.data == Escalated(reason="Å 😀 \\u0000 ")


@pytest.mark.parametrize("type", tickets.TICKET_EVENT_TYPES)
def test_every_example_of_a_message_in_is_read(type: str) -> None:
    event = read_ticket_event(json.dumps(EXAMPLES[type]).encode(), None, f"tickets.any.{EXAMPLES[type]['subject']}")
    assert isinstance(event.data, tickets.TICKET_EVENT_TYPES[type])
    assert event.data.model_dump(exclude_unset=True, mode="json") == EXAMPLES[type]["data"]


@pytest.mark.parametrize(
    ("name", "given", "kept", "flags"),
    [
        ("title", "t" * 201, "t" * 200, ("label_cut",)),
        ("url", "https://a.example/" + "x" * 2000, ("https://a.example/" + "x" * 2000)[:2000], ("label_cut",)),
        ("url", "javascript:alert(1)", None, ("label_cleaned",)),
        ("customer", "Acme\u0000\n AB\ud800", "Acme AB", ("label_cleaned",)),
        ("team", 7, "7", ("label_cleaned",)),
        ("assignee", {"name": "Kim"}, None, ("label_cleaned",)),
        ("assignee", "\x07" + "k" * 201, "k" * 200, ("label_cleaned", "label_cut")),
        ("customer", "Ärla \u2028 & söner", "Ärla \u2028 & söner", ()),
    ],
)
def test_a_label_is_cut_and_cleaned_and_never_refused(
    name: str, given: object, kept: str | None, flags: tuple[str, ...]
) -> None:
    event = read_one(**OPENED | {name: given})
    assert (getattr(event.data, name), event.flags) == (kept, flags)


def test_a_reason_that_decides_is_not_cut_and_another_one_is() -> None:
    assert read_one("ticket.closed", reason="r" * 501).flags == ("label_cut",)
    with pytest.raises(BadFactError):
        read_one("ticket.excluded", reason="r" * 501)


def test_service_level_and_priority_are_for_the_policy_to_judge() -> None:
    data = read_one(service_level="", priority="NO SUCH").data
    assert data == Opened(service_level="", priority="NO SUCH")


def test_values_at_their_longest_are_read() -> None:
    assert read_one(**OPENED | {"channel": "ö" * 32, "customer": "ö" * 200}).data.model_dump()["customer"] == "ö" * 200
    assert read_one("ticket.closed", reason="😀" * 500).data.model_dump() == {"reason": "😀" * 500}
    assert read_one("ticket.corrected", corrects="ö" * 256).data == Corrected(corrects="ö" * 256)
    names = {"id": "ö" * 256, "source": "😀" * 256, "sequence": "1" * 256}
    event = read_ticket_event(structured(**names), None, "tickets.any.T-1001")
    assert {"id": event.id, "source": event.source, "sequence": event.sequence} == names


def test_a_corrected_time_is_an_instant() -> None:
    event = read_one("ticket.corrected", corrects="fact-3", time="2026-11-20T17:00:00+01:00")
    assert event.data == Corrected(corrects="fact-3", time=datetime(2026, 11, 20, 16, tzinfo=UTC))


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [("0007", "0007"), (7, "7"), (-7, "-7"), (ABSENT, None), (None, None), ("", None), (True, None), ([1], None)],
)
def test_sequence_is_text_an_integer_is_taken_and_anything_else_ignored(sent: object, read_as: str | None) -> None:
    assert read_ticket_event(structured(sequence=sent), None, "tickets.opened.T-1001").sequence == read_as


def test_sequence_is_read_from_a_header_too() -> None:
    assert read_ticket_event(DATA, binary(sequence="7"), "tickets.opened.T-1001").sequence == "7"


def test_what_a_publisher_sends_is_what_we_read() -> None:
    at = datetime(2026, 11, 20, 17, tzinfo=timezone(timedelta(hours=1)))
    subject, headers, body = build_ticket_message(
        "ticket.opened", "T.1 å", source="/crm", event_id="1", time=at, data=OPENED, sequence="7"
    )
    assert subject == "tickets.opened.T%2E1%20%C3%A5"
    assert read_ticket_event(body, headers, subject) == TicketEvent(
        "/crm", "1", "ticket.opened", "T.1 å", at.astimezone(UTC), Opened(**OPENED), "7"
    )
    assert "sequence" not in json.loads(
        build_ticket_message("ticket.closed", "T", source="/", event_id="1", time=at, data={})[2]
    )


# ---- the ticket as a token


@pytest.mark.parametrize(
    ("ticket", "token"),
    [
        ("T-1001_b", "T-1001_b"),
        ("a.b", "a%2Eb"),
        ("~", "%7E"),
        ("*", "%2A"),
        (">", "%3E"),
        ("T 1", "T%201"),
        ("100%", "100%25"),
        ("å", "%C3%A5"),
        ("😀", "%F0%9F%98%80"),
        ("a/b", "a%2Fb"),
    ],
)
def test_everything_but_letters_digits_dash_and_underscore_is_percent_encoded(ticket: str, token: str) -> None:
    assert encode_token(ticket) == token
    assert decode_token(token) == ticket


PRINTABLE = st.characters().filter(str.isprintable)
IDS = st.text(PRINTABLE, min_size=1, max_size=128).filter(lambda id: id == id.strip(" "))


@examples(100)
@given(IDS)
def test_any_ticket_id_survives_the_bus(ticket: str) -> None:
    token = encode_token(ticket)
    assert not set(token) & set(".*> ~")
    assert token.isascii()
    assert decode_token(token) == ticket
    assert read_ticket_event(structured(subject=ticket), None, f"tickets.opened.{token}").ticket == ticket


@examples(100)
@given(IDS, IDS)
def test_different_tickets_have_different_tokens(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) == (one == other)


@examples(100)
@given(st.text())
def test_a_token_decodes_or_raises_value_error(token: str) -> None:
    try:
        decode_token(token)
    except ValueError:
        assert "%" in token


@pytest.mark.parametrize("token", ["T%2d1", "T%2D1", "%54-1", "T-1"])
def test_any_valid_percent_encoding_is_decoded(token: str) -> None:
    assert decode_token(token) == "T-1"


@pytest.mark.parametrize("ticket", ["T" * 128, "å" * 128, "a.b*c>d e", "*", "\U0001f600", "a  b", "%41"])
def test_odd_ticket_ids_are_read(ticket: str) -> None:
    assert (
        read_ticket_event(structured(subject=ticket), None, f"tickets.opened.{encode_token(ticket)}").ticket == ticket
    )


@pytest.mark.parametrize("token", ["%", "%4", "T%4", "%zz", "%4z", "%E4", "%C0%A0", "%ED%A0%80"])
def test_a_broken_percent_encoding_is_no_ticket(token: str) -> None:
    with pytest.raises(ValueError, match=r"percent|utf-8"):
        decode_token(token)


# ---- time


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-20T16:00:00Z", "2026-11-20T16:00:00Z"),
        ("2026-11-20t16:00:00z", "2026-11-20T16:00:00Z"),
        ("2026-11-20T17:00:00+01:00", "2026-11-20T16:00:00Z"),
        ("2026-11-20T16:00:00-00:00", "2026-11-20T16:00:00Z"),
        ("2026-11-20T00:30:00+05:45", "2026-11-19T18:45:00Z"),
        ("2026-11-20T16:00:00.5Z", "2026-11-20T16:00:00.500000Z"),
        ("2026-11-20T16:00:00.125381Z", "2026-11-20T16:00:00.125381Z"),
        ("2026-11-20T16:00:00.1253819999999999999Z", "2026-11-20T16:00:00.125381Z"),
        ("2026-11-20T16:00:00.0000009Z", "2026-11-20T16:00:00Z"),
        ("2024-02-29T23:59:59.999999-23:59", "2024-03-01T23:58:59.999999Z"),
    ],
)
def test_a_time_is_one_instant_in_utc(text: str, instant: str) -> None:
    time = parse_time(text)
    assert format_time(time) == instant
    assert time.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0000-01-01T00:00:00Z", EARLIEST),
        ("0001-01-01T00:00:00+00:01", EARLIEST),
        ("9999-12-31T23:59:59-00:01", LATEST),
    ],
)
def test_a_time_python_cannot_hold_waits_for_the_range_check(text: str, time: datetime) -> None:
    event = read_ticket_event(structured(time=text), None, "tickets.opened.T-1001")
    assert event.time == time
    with pytest.raises(BadFactError) as refusal:
        check_time(event.time, datetime(2026, 11, 20, tzinfo=UTC), timedelta(minutes=5))
    assert refusal.value.reason == "time_out_of_range"


STORED = parse_time("2026-11-20T16:00:00Z")


@pytest.mark.parametrize(
    ("time", "stored_at", "reason"),
    [
        ("2000-01-01T00:00:00Z", STORED, None),
        ("1999-12-31T23:59:59.999999Z", STORED, "time_out_of_range"),
        ("2000-01-01T00:59:59+01:00", STORED, "time_out_of_range"),
        ("2100-12-31T23:59:59.999999Z", LATEST - timedelta(days=1), None),
        ("2101-01-01T00:00:00Z", LATEST - timedelta(days=1), "time_out_of_range"),
        ("2101-01-01T00:00:00Z", STORED, "time_out_of_range"),
        ("2026-11-20T16:05:00Z", STORED, None),
        ("2026-11-20T16:05:00.000001Z", STORED, "time_in_future"),
        ("2026-11-20T17:05:00+01:00", STORED, None),
    ],
)
def test_a_time_lies_between_2000_and_2100_and_hardly_ahead(time: str, stored_at: datetime, reason: str | None) -> None:
    if reason is None:
        check_time(parse_time(time), stored_at, timedelta(minutes=5))
    else:
        with pytest.raises(BadFactError) as refusal:
            check_time(parse_time(time), stored_at, timedelta(minutes=5))
        assert refusal.value.reason == reason


def test_a_naive_time_is_never_sent() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        format_time(datetime(2026, 11, 20))  # noqa: DTZ001


# ---- the same fact, and the same content


def test_the_key_of_a_fact_is_its_source_and_its_id() -> None:
    assert len(make_fact_key("/crm", "1")) == 16
    assert make_fact_key("/crm", "1") == make_fact_key("/crm", "1")
    assert (
        len(
            {
                make_fact_key("/crm", "1"),
                make_fact_key("/crm", "2"),
                make_fact_key("/cr", "m1"),
                make_fact_key("/crm1", ""),
            }
        )
        == 4
    )


def digest(**changes: Any) -> bytes:
    return make_content_digest(
        read_ticket_event(structured(**changes), None, f"tickets.x.{encode_token(changes.get('subject', 'T-1001'))}")
    )


def test_content_is_the_same_whoever_writes_it_down() -> None:
    """Another offset, another order of members, defaults said or unsaid, other extensions, another sender."""
    assert len(digest()) == 16
    assert digest() == digest(time="2026-11-20T17:00:00.0000001+01:00")
    assert digest() == digest(data={"channel": "email", "priority": "critical", "service_level": "foundation"})
    assert digest() == digest(data=OPENED | {"customer": None, "unknown": 1}, traceparent="x", sequence="7")
    assert digest() == digest(id="fact-2", source="/crm")
    assert digest(type="ticket.responded", data={}) == digest(type="ticket.responded", data={"by": "agent"})


def test_other_content_has_another_digest() -> None:
    digests = [
        digest(),
        digest(subject="T-1002"),
        digest(time="2026-11-20T16:00:00.000001Z"),
        digest(data=OPENED | {"priority": "minor"}),
        digest(data=OPENED | {"customer": "email"}),
        digest(data={"service_level": "foundation", "priority": "critical", "customer": "email"}),
        digest(type="ticket.closed"),
        digest(type="ticket.reopened"),
        digest(type="ticket.responded", data={"by": "automation"}),
        digest(type="ticket.corrected", data={"corrects": "f", "time": "2026-11-20T16:00:00Z"}),
        digest(type="ticket.corrected", data={"corrects": "f", "time": "2026-11-20T16:00:01Z"}),
    ]
    assert len(set(digests)) == len(digests)


def test_keys_and_digests_never_change_for_they_are_stored() -> None:
    assert make_fact_key("/helpdesk/acme", "fact-1").hex() == "3798070138c4e992a7cb31ccdc19a205"
    assert digest().hex() == "e1fc3ec8917c8f0a3b8d38470e609cdf"


# ---- what is sent

TIMES = {"started_at": STORED, "due_at": STORED, "detected_at": STORED}


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(hours=4), "14400"),
        (timedelta(0), "0"),
        (timedelta(seconds=14400, microseconds=1), "14400.000001"),
        (timedelta(seconds=1, microseconds=500_000), "1.5"),
        (timedelta(days=36_500, microseconds=-1), "3153599999.999999"),
    ],
)
def test_seconds_are_whole_or_exact_to_the_microsecond(span: timedelta, text: str) -> None:
    assert json.dumps(promises.to_seconds(span)) == text
    data = EXAMPLES["sla.applied"]["data"] | {"target_seconds": promises.to_seconds(span)}
    assert (
        f'"target_seconds":{text},'
        in promises.build_announcement_message("sla.applied", "1", "T", STORED, data)[1].decode()
    )


@examples(100)
@given(st.integers(min_value=0, max_value=100 * 366 * 86_400 * 1_000_000))
def test_no_microsecond_of_a_hundred_years_is_lost(microseconds: int) -> None:
    text = json.dumps(promises.to_seconds(timedelta(microseconds=microseconds)))
    assert Decimal(text) * 1_000_000 == microseconds


@pytest.mark.parametrize("type", promises.ANNOUNCEMENT_TYPES)
def test_every_example_of_a_message_out_is_what_we_send(type: str) -> None:
    example = EXAMPLES[type]
    data = promises.ANNOUNCEMENT_TYPES[type].model_validate_json(json.dumps(example["data"])).model_dump()
    headers, body = promises.build_announcement_message(
        type, example["id"], "T-1001", parse_time(example["time"]), data
    )
    assert headers == STRUCTURED
    assert json.loads(body) == example
    assert list(json.loads(body)["data"])[:19] == list(EXAMPLES["sla.applied"]["data"])


def test_instants_go_out_in_utc_with_z() -> None:
    at = datetime(2026, 11, 20, 17, 0, 0, 125381, tzinfo=timezone(timedelta(hours=1)))
    data = promises.SlaApplied.model_validate(EXAMPLES["sla.applied"]["data"] | TIMES | {"due_at": at}).model_dump()
    body = json.loads(promises.build_announcement_message("sla.applied", "1", "T", at, data)[1])
    assert body["time"] == body["data"]["due_at"] == "2026-11-20T16:00:00.125381Z"


def test_a_naive_instant_is_never_sent() -> None:
    with pytest.raises(ValidationError):
        promises.SlaApplied.model_validate(
            EXAMPLES["sla.applied"]["data"] | TIMES | {"due_at": datetime(2026, 11, 20)}  # noqa: DTZ001
        )


def test_a_later_receiver_may_get_members_it_does_not_know() -> None:
    data = EXAMPLES["sla.applied"]["data"] | {"new": 1}
    assert promises.SlaApplied.model_validate_json(json.dumps(data)).target_seconds == 28800


def test_ids_of_what_we_send_never_change() -> None:
    assert (
        promises.make_event_id("T-1", "first_response", 1, "breached", 1, 0) == "fdea1f44-0264-5cb9-a980-ac8bcb786406"
    )


def test_every_part_of_an_id_counts() -> None:
    ids = {
        promises.make_event_id(*parts)
        for parts in (
            ("T-1", "first_response", 1, "breached", 1, 0),
            ("T-2", "first_response", 1, "breached", 1, 0),
            ("T-1", "resolution", 1, "breached", 1, 0),
            ("T-1", "first_response", 2, "breached", 1, 0),
            ("T-1", "first_response", 1, "warning", 1, 0),
            ("T-1", "first_response", 1, "breached", 2, 0),
            ("T-1", "first_response", 1, "breached", 1, 1),
            ("1/T-1", "first_response", 1, "breached", 1, 0),
            ("T-1", "first_response", 1, "breached", 10, 0),
        )
    }
    assert len(ids) == 9


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (promises.make_subject("breached", "enterprise", "critical", "T-1"), "sla.breached.enterprise.critical.T-1"),
        (promises.make_subject("breached", "a", "b", "T", True), "sla.breached_historic.a.b.T"),
        (promises.make_subject("fulfilled", "a", "b", "T", True), "sla.fulfilled.a.b.T"),
        (promises.make_subject("target_changed", "a", "b", "T.1 *"), "sla.target_changed.a.b.T%2E1%20%2A"),
        (promises.make_subject("warning", "gold.plus", ">", "T"), "sla.warning.gold%2Eplus.%3E.T"),
    ],
)
def test_the_subject_of_what_we_send_has_five_tokens(subject: str, expected: str) -> None:
    assert subject == expected
    assert len(subject.split(".")) == 5


# ---- schemas and documents

SCHEMAS = generate.build_schemas()


def stored_schema(type: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((generate.SCHEMAS / f"{type}.json").read_text("utf-8")))


def test_the_schemas_and_the_asyncapi_document_are_current() -> None:
    assert generate.main(["--check"]) == 0
    assert asyncapi.main(["--check"]) == 0


def test_a_stale_missing_or_surplus_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, stale, missing, surplus = (tmp_path / name for name in ("good", "stale", "missing", "surplus"))
    for path in (good, stale, surplus):
        path.write_text("as it was")
    files = {good: "as it was", stale: "new", missing: "new"}
    assert generate.write_files(files, "make schemas", True, {good, stale, surplus}) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == [str(stale), str(missing), str(surplus)]
    assert all("make schemas" in line for line in lines)
    assert generate.write_files(files, "make schemas", False, {good, stale, surplus}) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "missing", "stale"]
    assert generate.write_files(files, "make schemas", True, {good, stale, missing}) == 0


def test_every_message_has_a_schema_and_an_example() -> None:
    assert set(SCHEMAS) == set(EXAMPLES) == set(tickets.TICKET_EVENT_TYPES) | set(promises.ANNOUNCEMENT_TYPES)


def test_every_decision_that_the_log_announces_has_a_message_out() -> None:
    announced = get_args(AnnouncedEvent)
    assert set(announced) == set(Announced.__subclasses__())
    assert {f"sla.{event.KIND}" for event in announced} == set(promises.ANNOUNCEMENT_TYPES)


@pytest.mark.parametrize("type", SCHEMAS)
def test_a_schema_is_valid_and_accepts_its_example(type: str) -> None:
    schema = stored_schema(type)
    Draft202012Validator.check_schema(schema.schema)
    schema.validate(EXAMPLES[type])


@pytest.mark.parametrize("type", SCHEMAS)
@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"},
        {"type": "ticket.exploded"},
        {"id": ""},
        {"source": 7},
        {"subject": " T"},
        {"subject": "T\n1"},
        {"subject": "T" * 129},
        {"time": "2026-11-20"},
        {"time": 1795190400},
        {"data": []},
        {"data": None},
    ],
    ids=str,
)
def test_a_schema_refuses_a_broken_envelope(type: str, change: dict[str, Any]) -> None:
    assert not stored_schema(type).is_valid(EXAMPLES[type] | change)


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("ticket.opened", {"priority": "critical"}),
        ("ticket.opened", OPENED | {"priority": None}),
        ("ticket.opened", OPENED | {"channel": "c" * 33}),
        ("ticket.responded", {"by": "robot"}),
        ("ticket.excluded", {"reason": "r" * 501}),
        ("ticket.excluded", {}),
        ("ticket.corrected", {"corrects": "f", "time": "yesterday"}),
        ("sla.applied", {}),
        ("sla.warning", EXAMPLES["sla.warning"]["data"] | {"threshold_percent": "75"}),
        ("sla.breached", EXAMPLES["sla.breached"]["data"] | {"detection": "perhaps"}),
        ("sla.fulfilled", EXAMPLES["sla.fulfilled"]["data"] | {"met": None}),
        ("sla.fulfilled", EXAMPLES["sla.fulfilled"]["data"] | {"overdue_seconds": -1}),
    ],
)
def test_a_schema_refuses_data_that_does_not_fit(type: str, data: dict[str, Any]) -> None:
    assert not stored_schema(type).is_valid(EXAMPLES[type] | {"data": data})


@pytest.mark.parametrize(
    ("type", "change"),
    [
        ("ticket.responded", {"data": {"by": None, "channel": None, "unknown": 1}}),
        ("ticket.closed", {"extension": "x"}),
        ("ticket.opened", {"time": "2026-11-20t17:00:00.123456789+01:00", "subject": "T.1 å"}),
    ],
)
def test_a_schema_accepts_what_the_reader_accepts(type: str, change: dict[str, Any]) -> None:
    message = EXAMPLES[type] | change
    stored_schema(type).validate(message)
    read_ticket_event(json.dumps(message).encode(), None, f"tickets.x.{encode_token(message['subject'])}")


def test_data_may_be_left_out_exactly_where_nothing_in_it_is_required() -> None:
    for type in tickets.TICKET_EVENT_TYPES:
        message = {name: value for name, value in EXAMPLES[type].items() if name != "data"}
        try:
            read_ticket_event(json.dumps(message).encode(), None, "tickets.x.T-1001")
        except BadFactError:
            assert not stored_schema(type).is_valid(message)
        else:
            stored_schema(type).validate(message)


def test_the_asyncapi_document_names_every_channel_with_its_stream_and_messages() -> None:
    document = yaml.safe_load(asyncapi.DOCUMENT.read_text("utf-8"))
    channels = {channel["address"]: channel for channel in document["channels"].values()}
    assert {address: channel["x-stream"] for address, channel in channels.items()} == {
        "tickets.{event}.{ticket}": "TICKETS",
        "clock.due.{ticket}": "TICKETS",
        "sla.{event}.{service_level}.{priority}.{ticket}": "SLA",
        "dead_letters.{reason}": "DEAD_LETTERS",
        "undelivered.{target}": "UNDELIVERED",
    }
    assert set(channels["tickets.{event}.{ticket}"]["messages"]) == set(tickets.TICKET_EVENT_TYPES)
    assert set(channels["sla.{event}.{service_level}.{priority}.{ticket}"]["messages"]) == set(
        promises.ANNOUNCEMENT_TYPES
    )
    assert channels["dead_letters.{reason}"]["parameters"]["reason"]["enum"] == list(Reason)


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = yaml.safe_load(asyncapi.DOCUMENT.read_text("utf-8"))
    waiting, references = [document], []
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            references += [node["$ref"]] if "$ref" in node else []
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    assert len(references) >= 20 + 22 + 5
    for reference in references:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
