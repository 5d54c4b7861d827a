"""The calculator of `sla due` and `sla elapsed`: one question, or JSON lines of them. Which time counts is in sla/."""

from collections.abc import Callable, Iterator
from datetime import datetime
from io import FileIO
from typing import Any, BinaryIO

import msgspec

from events.cloudevents import format_time, quote_value
from events.promises import to_seconds
from events.times import parse_instant
from sla.policy import Policy

Fields = dict[str, Any]

CHUNK = 1 << 16

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def find_due(policy: Policy, level: str, priority: str, opened_at: datetime) -> datetime:
    """When the first response is due. Raises ValueError for a level or priority that the policy does not have."""
    try:
        target = policy.get_target(level, priority)
        return policy.get_level(level).hours.find_due(opened_at, target)
    except KeyError as error:
        raise ValueError(error.args[0]) from None


def make_due_answer(policy: Policy) -> Callable[[Fields], None]:
    """Adds `due_at` to `{service_level, priority, opened_at}`."""

    def add(fields: Fields) -> None:
        level, priority = _read_name(fields, "service_level"), _read_name(fields, "priority")
        fields["due_at"] = format_time(find_due(policy, level, priority, _read_instant(fields, "opened_at")))

    return add


def make_elapsed_answer(policy: Policy) -> Callable[[Fields], None]:
    """Adds `support_seconds` to `{service_level, from, to}`: counted time in [from, to), 0 if `to` is not later."""

    def add(fields: Fields) -> None:
        level = _read_name(fields, "service_level")
        start, end = _read_instant(fields, "from"), _read_instant(fields, "to")
        try:
            fields["support_seconds"] = to_seconds(policy.get_level(level).hours.measure(start, end))
        except KeyError as error:
            raise ValueError(error.args[0]) from None

    return add


def _read_name(fields: Fields, field: str) -> str:
    name = fields.get(field)
    if not isinstance(name, str):
        raise ValueError(
            f"{field} is {quote_value(name)}; it must be a name" if field in fields else f"{field} is missing"
        )
    return name


def _read_instant(fields: Fields, field: str) -> datetime:
    if field not in fields:
        raise ValueError(f"{field} is missing")
    try:
        return parse_instant(fields[field])
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def answer_lines(source: FileIO, sink: BinaryIO, add: Callable[[Fields], None]) -> tuple[int, int]:
    """
    One line out for one line in, in their order; what has arrived is answered before more is waited for. A line that
    cannot be answered comes back with `error`. Returns the number of lines, and of those with an error.
    """
    count = wrong = 0
    for lines in _read_arriving(source):
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


def _read_arriving(source: FileIO) -> Iterator[list[bytes]]:
    """Whole lines, as many as have arrived."""
    rest = b""
    while chunk := source.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    if rest:
        yield [rest]
