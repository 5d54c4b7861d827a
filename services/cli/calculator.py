"""The calculator of `sla due` and `sla elapsed`: one question, or JSON lines of them. Which time counts is in sla/."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from typing import Any, BinaryIO

import msgspec

from events.cloudevents import format_time, shown
from events.promises import seconds
from sla.policy import Policy

Fields = dict[str, Any]

YEARS = range(2000, 2101)  # as on the bus: a policy knows the holidays of these years
CHUNK = 1 << 16

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def instant(text: object) -> datetime:
    """The instant that an ISO 8601 text with an offset names, in UTC. Raises ValueError that says what is right."""
    try:
        time = datetime.fromisoformat(text.upper()) if isinstance(text, str) else None
    except ValueError:
        time = None
    if time is None:
        raise ValueError(f"{shown(text)} is not a time; write one like 2026-11-20T16:00:00Z")
    if time.tzinfo is None:
        raise ValueError(f"{shown(text)} has no offset; write a time like 2026-11-20T17:00:00+01:00, or Z for UTC")
    with suppress(OverflowError):  # at the edge of years 1 and 9999
        time = time.astimezone(UTC)
    if time.year not in YEARS:
        raise ValueError(f"{shown(text)} is outside the years {YEARS[0]} to {YEARS[-1]}")
    return time


def due(policy: Policy, level: str, priority: str, opened_at: datetime) -> datetime:
    """When the first response is due. Raises ValueError for a level or priority that the policy does not have."""
    try:
        target = policy.target(level, priority)
        return policy.level(level).hours.due(opened_at, target)
    except KeyError as error:
        raise ValueError(error.args[0]) from None


def due_line(policy: Policy) -> Callable[[Fields], None]:
    """Adds `due_at` to `{service_level, priority, opened_at}`."""

    def add(fields: Fields) -> None:
        level, priority = _name(fields, "service_level"), _name(fields, "priority")
        fields["due_at"] = format_time(due(policy, level, priority, _instant(fields, "opened_at")))

    return add


def elapsed_line(policy: Policy) -> Callable[[Fields], None]:
    """Adds `support_seconds` to `{service_level, from, to}`: counted time in [from, to), 0 if `to` is not later."""

    def add(fields: Fields) -> None:
        level = _name(fields, "service_level")
        start, end = _instant(fields, "from"), _instant(fields, "to")
        try:
            fields["support_seconds"] = seconds(policy.level(level).hours.elapsed(start, end))
        except KeyError as error:
            raise ValueError(error.args[0]) from None

    return add


def _name(fields: Fields, field: str) -> str:
    name = fields.get(field)
    if not isinstance(name, str):
        raise ValueError(f"{field} is {shown(name)}; it must be a name" if field in fields else f"{field} is missing")
    return name


def _instant(fields: Fields, field: str) -> datetime:
    if field not in fields:
        raise ValueError(f"{field} is missing")
    try:
        return instant(fields[field])
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def answer(source: FileIO, sink: BinaryIO, add: Callable[[Fields], None]) -> tuple[int, int]:
    """
    One line out for one line in, in their order; what has arrived is answered before more is waited for. A line that
    cannot be answered comes back with `error`. Returns the number of lines, and of those with an error.
    """
    count = wrong = 0
    for lines in _arriving(source):
        answers = []
        for line in lines:
            fields: Fields = {}
            try:
                fields = _decode(line)
                add(fields)
            except (ValueError, msgspec.MsgspecError) as error:
                fields["error"] = str(error)
                wrong += 1
            answers.append(_encode(fields))
        count += len(lines)
        if answers:
            sink.write(b"\n".join(answers) + b"\n")
            sink.flush()
    return count, wrong


def _arriving(source: FileIO) -> Iterator[list[bytes]]:
    """Whole lines, as many as have arrived."""
    rest = b""
    while chunk := source.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    if rest:
        yield [rest]
