"""CloudEvents 1.0 in JSON: envelope, times, tokens, and why a message is refused. What data means is not in here."""

import base64
import json
import re
import reprlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, unquote

from pydantic import JsonValue

MAX_BODY = 64 * 1024  # bytes; also the stream's max_msg_size
MAX_NAME = 256  # characters of an id, a source and a sequence: they are kept for ever
CONTENT_TYPE = "application/cloudevents+json"


class Reason(StrEnum):
    """Why a message is dead-lettered, in the order in which it is checked."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_DATA = "invalid_data"
    WRONG_SUBJECT = "wrong_subject"
    UNKNOWN_SERVICE_LEVEL = "unknown_service_level"
    UNKNOWN_PRIORITY = "unknown_priority"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    TIME_IN_FUTURE = "time_in_future"
    ID_CONFLICT = "id_conflict"
    TOO_MANY_FACTS = "too_many_facts"
    INTERNAL = "internal"


class BadFactError(ValueError):
    """
    A message that no retry can repair. The text has the value, the rule and what to do; show values with `shown`.
    `type` is that of the message, once it is known to be one of ours.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.type: str | None = None


_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother = 2, 80, 80


def quote_value(value: object) -> str:
    """Quote a publisher's value for a message: one line of ASCII, at most 120 characters, safe in logs and headers."""
    text = _brief.repr(value).encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= 120 else text[:117] + "..."


# ---- the ticket as a token of a NATS subject

_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def encode_token(ticket: str) -> str:
    """Percent-encode what is outside [A-Za-z0-9_-], as upper-case hex of UTF-8: no id is a wildcard or a separator."""
    if _PLAIN.fullmatch(ticket):
        return ticket
    return quote(ticket, safe="").replace(".", "%2E").replace("~", "%7E")


def decode_token(token: str) -> str:
    """Return the ticket of a token in any valid percent-encoding. Raises ValueError if the encoding is not valid."""
    if "%" not in token:
        return token
    if _BROKEN_PERCENT.search(token):
        raise ValueError(f"{quote_value(token)} has a percent sign without two hex digits")
    return unquote(token, errors="strict")


# ---- time

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)

RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
TIME_SCHEMA: dict[str, JsonValue] = {"type": "string", "format": "date-time", "pattern": f"^{RFC3339.pattern}$"}


def parse_time(text: str) -> datetime:
    """
    Parse an RFC 3339 text into an instant in `datetime.UTC`; digits beyond microseconds are cut.

    An instant that a datetime cannot hold (year 0, or an offset at the edge of years 1 and 9999) becomes EARLIEST or
    LATEST, which `check_time` refuses later. Raises ValueError for anything else, leap seconds among them.
    """
    if not RFC3339.fullmatch(text):
        raise ValueError(f"{quote_value(text)} is not an RFC 3339 time with an offset, like 2026-11-20T16:00:00Z")
    text = text.upper()
    if text.startswith("0000"):
        datetime.fromisoformat("2000" + text[4:])  # is there such a day? both years are leap years
        return EARLIEST
    time = datetime.fromisoformat(text)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return EARLIEST if time.year == 1 else LATEST


def format_time(time: datetime) -> str:
    """Format an instant by RFC 3339, in UTC with Z; microseconds only if there are any. ValueError for a naive time."""
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone; the bus carries instants only")
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def check_time(time: datetime, stored_at: datetime, ahead: timedelta) -> None:
    """Raise BadFactError for a time outside 2000 to 2100 (UTC), or more than `ahead` after the broker stored it."""
    if not 2000 <= time.year <= 2100:
        raise BadFactError(
            Reason.TIME_OUT_OF_RANGE, f"time {format_time(time)} is outside 2000 to 2100; fix the publisher's clock"
        )
    if time - stored_at > ahead:
        raise BadFactError(
            Reason.TIME_IN_FUTURE,
            f"time {format_time(time)} is more than {ahead} after {format_time(stored_at)}, when the broker stored it; "
            "fix the publisher's clock, or publish when it has happened",
        )


# ---- JSON


class _Doubled(dict[str, object]):
    """A JSON object with the same key twice: two readers could believe two different things."""


def _collect_members(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    return found if len(found) == len(members) else _Doubled(found)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_collect_members, parse_constant=_refuse_constant).decode
_ODD_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_ODD_CHARACTER = re.compile("[\0\ud800-\udfff]")


def _parse(body: bytes) -> tuple[object, bool]:
    """Return the JSON value, and whether a string in it may hold U+0000 or half a surrogate pair. Raises ValueError."""
    text = body.decode("utf-8")
    try:
        return _decode(text), _ODD_ESCAPE.search(text) is not None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _has_odd_text(value: object) -> bool:
    """Return whether a string anywhere inside, keys included, holds U+0000 or half a surrogate pair."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                if _ODD_CHARACTER.search(text):
                    return True
            case dict() as members:
                waiting += members.keys()
                waiting += members.values()
            case list() as items:
                waiting += items
    return False


# ---- the envelope

_ABSENT = object()


class Envelope(NamedTuple):
    """A message that is a CloudEvent; whether its subject, time and data make sense is still open."""

    id: str
    source: str
    type: str
    attributes: Mapping[str, object]
    content: object  # the data as sent, not yet checked
    suspect: bool  # a string may hold U+0000 or half a surrogate pair

    def read_data(self, cleaned: Collection[str] = ()) -> dict[str, object]:
        """
        Return the members of `data`, {} if it is absent; the text of those in `cleaned` is as it was sent. Raises
        BadFactError invalid_data if it is no object.
        """
        content, suspect = self.content, self.suspect
        if (packed := self.attributes.get("data_base64")) is not None:
            content, odd = _unpack(packed, content)
            suspect = suspect or odd
        elif content is _ABSENT:
            content = {}
        attributes = {name: value for name, value in self.attributes.items() if name != "data"} if suspect else {}
        if suspect and (_has_odd_text(attributes) or _has_odd_text(_leave_out(content, cleaned))):
            raise BadFactError(Reason.INVALID_DATA, "a string holds U+0000 or half a surrogate pair; remove it")
        if isinstance(content, _Doubled):
            raise BadFactError(
                Reason.INVALID_DATA, f"data {quote_value(dict(content))} names a member twice; send it once"
            )
        if not isinstance(content, dict):
            raise BadFactError(Reason.INVALID_DATA, f"data is {quote_value(content)}; it must be a JSON object")
        return content


def _leave_out(content: object, names: Collection[str]) -> object:
    """Return the content without the texts of these names."""
    if not isinstance(content, dict):
        return content
    return {name: value for name, value in content.items() if name not in names or not isinstance(value, str)}


class Trace(NamedTuple):
    """The extension for distributed tracing: what a fact was sent with, and what it causes is announced with."""

    parent: str
    state: str | None

    def to_attributes(self) -> dict[str, str]:
        """Return the attributes of an envelope."""
        return {"traceparent": self.parent} | ({"tracestate": self.state} if self.state else {})


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def read_trace(attributes: Mapping[str, object]) -> Trace | None:
    """Return `traceparent` and `tracestate` of an envelope; None without one that W3C Trace Context knows."""
    parent, state = attributes.get("traceparent"), attributes.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return None
    return Trace(parent, state if isinstance(state, str) and len(state) <= 512 and state.isprintable() else None)


def open_envelope(body: bytes, headers: Mapping[str, str] | None) -> Envelope:
    """
    Open a message in structured mode (by its Content-Type, or `specversion` in the body) or binary mode (ce- headers).

    Raises BadFactError too_large or malformed.
    """
    if len(body) > MAX_BODY:
        raise BadFactError(Reason.TOO_LARGE, f"the body has {len(body)} bytes, {MAX_BODY} are allowed; send less")
    structured, attributes = _read_headers(headers or {})
    try:
        content, suspect = _parse(body) if body else (_ABSENT, False)
    except ValueError as error:
        raise BadFactError(Reason.MALFORMED, f"the body is not JSON in UTF-8: {error}") from None
    if isinstance(content, dict) and "specversion" in content:
        if isinstance(content, _Doubled):
            raise BadFactError(Reason.MALFORMED, f"{quote_value(dict(content))} names an attribute twice; send it once")
        attributes, content = content, content.get("data", _ABSENT)
    elif structured or not attributes:
        raise BadFactError(
            Reason.MALFORMED, "no CloudEvent, neither in the body nor in ce- headers; send one, version 1.0"
        )
    else:
        suspect = True  # percent-encoding can smuggle in what JSON escapes can
    if attributes.get("specversion") != "1.0":
        version = quote_value(attributes.get("specversion"))
        raise BadFactError(Reason.MALFORMED, f"specversion is {version}; only CloudEvents '1.0' is read")
    return Envelope(
        _read_required(attributes, "id", suspect, MAX_NAME),
        _read_required(attributes, "source", suspect, MAX_NAME),
        _read_required(attributes, "type", suspect, MAX_BODY),
        attributes,
        content,
        suspect,
    )


def _read_required(attributes: Mapping[str, object], attribute: str, suspect: bool, longest: int) -> str:
    name = attributes.get(attribute)
    if not isinstance(name, str) or not 1 <= len(name) <= longest or (suspect and _ODD_CHARACTER.search(name)):
        raise BadFactError(
            Reason.MALFORMED,
            f"{attribute} is {quote_value(name)}; it must be a non-empty string of at most {longest} characters",
        )
    return name


def _read_headers(headers: Mapping[str, str]) -> tuple[bool, dict[str, object]]:
    """Return whether the Content-Type is structured, and the ce- attributes. Raises BadFactError malformed."""
    structured = False
    attributes: dict[str, object] = {}
    for header, value in headers.items():
        header = header.lower()
        if header == "content-type":
            structured = str(value).lstrip().lower().startswith("application/cloudevents")
        elif header.startswith("ce-"):
            if header[3:] in attributes:
                raise BadFactError(Reason.MALFORMED, f"header {quote_value(header)} stands twice; send it once")
            attributes[header[3:]] = _decode_header(str(value))
    return structured, attributes


def _decode_header(value: str) -> str:
    """Unquote, then percent-decode once (HTTP binding, 3.1.3.2). Bytes that are not UTF-8 become lone surrogates."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote(value, errors="surrogateescape") if "%" in value else value


def _unpack(packed: object, content: object) -> tuple[object, bool]:
    """Parse the JSON inside `data_base64`, as `_parse` does. Raises BadFactError invalid_data."""
    if content is not _ABSENT or not isinstance(packed, str):
        raise BadFactError(
            Reason.INVALID_DATA, f"data_base64 is {quote_value(packed)}; send data, as a JSON object, instead"
        )
    try:
        return _parse(base64.b64decode(packed, validate=True))
    except ValueError as error:
        raise BadFactError(
            Reason.INVALID_DATA, f"data_base64 is not JSON in base64: {error}; send data instead"
        ) from None
