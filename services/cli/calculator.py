"""The calculator: `sla due` and `sla elapsed`, one question or JSON lines of them. Which time counts is in sla/."""

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from io import FileIO
from typing import Annotated, Any, BinaryIO, NoReturn

import msgspec
import typer

from events.cloudevents import format_time, quote_value
from events.promises import to_seconds
from events.times import parse_instant
from services.cli.options import As, CommandFailedError, Output, UsageError, create_app
from services.cli.settings import read_policy, refuse_wrong_usage
from services.cli.terminal import print_json
from services.text.formats import convert_to_zone, format_utc, format_wall_time
from sla.policy import Policy

Fields = dict[str, Any]

READ_BYTES = 1 << 16

app = create_app()
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


@app.command("due")
def due_command(
    level: Annotated[str | None, typer.Option(help="The service level.")] = None,
    priority: Annotated[str | None, typer.Option(help="The priority.")] = None,
    at: Annotated[str | None, typer.Option(help="When the ticket was opened, with offset.")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="JSON lines {service_level, priority, opened_at}.")] = False,
    output: As = Output.TABLE,
) -> None:
    """When a first response is due, null if nothing is promised. --batch: JSON lines come back with `due_at`."""
    if batch:
        if level or priority or at:
            raise UsageError(
                "--batch reads level, priority and time from its lines; leave out --level, --priority and --at"
            )
        answer_batch(make_due_answer(read_policy()))
    if level is None or priority is None or at is None:
        raise UsageError("sla due needs --level, --priority and --at; or --batch, and JSON lines on stdin")
    with refuse_wrong_usage():
        opened_at, policy = parse_instant(at), read_policy()
        due_at = find_due(policy, level, priority, opened_at)
    if output is Output.JSON:
        given = {"service_level": level, "priority": priority, "opened_at": opened_at}
        print_json({**given, "due_at": due_at, "due_at_local": due_at and convert_to_zone(due_at, policy.zone)})
    elif due_at is None:
        typer.echo(f"no promise: the policy promises nothing to {priority} of {level}")
    else:
        typer.echo(f"{format_utc(due_at)}  {format_wall_time(due_at, policy.zone)}")


@app.command("elapsed")
def elapsed_command(
    batch: Annotated[bool, typer.Option("--batch", help="JSON lines {service_level, from, to}.")] = False,
) -> None:
    """Support time between two instants: JSON lines on stdin come back with `support_seconds`."""
    if not batch:
        raise UsageError("sla elapsed reads JSON lines {service_level, from, to} on stdin; call it with --batch")
    answer_batch(make_elapsed_answer(read_policy()))


def answer_batch(add: Callable[[Fields], None]) -> NoReturn:
    """Answer the lines of stdin, and exit. Raises CommandFailedError if a line has an error."""
    with open(0, "rb", buffering=0, closefd=False) as lines:
        count, wrong = answer_lines(lines, sys.stdout.buffer, add)
    if wrong:
        raise CommandFailedError(f"{wrong} of {count} lines have an error")
    raise typer.Exit


def find_due(policy: Policy, level: str, priority: str, opened_at: datetime) -> datetime | None:
    """
    Return when the first response is due, None if nothing is promised. Raises ValueError for a level or priority that
    is not in the policy.
    """
    try:
        target = policy.find_target(level, priority)
        return None if target is None else target.find_due(opened_at)
    except KeyError as error:
        raise ValueError(error.args[0]) from None


def make_due_answer(policy: Policy) -> Callable[[Fields], None]:
    """Return what adds `due_at` to `{service_level, priority, opened_at}`."""

    def add(fields: Fields) -> None:
        level, priority = _read_name(fields, "service_level"), _read_name(fields, "priority")
        due_at = find_due(policy, level, priority, _read_instant(fields, "opened_at"))
        fields["due_at"] = None if due_at is None else format_time(due_at)

    return add


def make_elapsed_answer(policy: Policy) -> Callable[[Fields], None]:
    """
    Return what adds `support_seconds` to `{service_level, from, to}`: the counted time in [from, to), 0 if `to` is not
    later.
    """

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
    Write one line for each line that is read, in their order; answer what has arrived before waiting for more. A line
    that cannot be answered comes back with `error`. Return the number of lines, and of those with an error.
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
    """Yield complete lines, as many as have arrived."""
    rest = b""
    while chunk := source.read(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
    if rest:
        yield [rest]
