"""Options that several commands have, and the errors of a command. It imports nothing of the engine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_DATA = Path(".sla")


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


Data = Annotated[Path, typer.Option("--data", help="The folder of `sla up`.")]
AsOf = Annotated[str | None, typer.Option(help="What was so at that time, by what is known: with offset.")]
KnownAt = Annotated[str | None, typer.Option(help="What was known at that time: only what was recorded by then.")]
As = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]


class UsageError(Exception):
    """The command was called wrongly; the text says what is right."""


class CommandFailedError(Exception):
    """The answer is no; the text says why."""


def create_app(**options: Any) -> typer.Typer:
    """Return an application to which commands are added, with plain help; `options` are those of typer."""
    return typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options
    )


def print_message(message: str) -> None:
    """Print a line for people on stderr: stdout is for data."""
    typer.echo(message, err=True)
