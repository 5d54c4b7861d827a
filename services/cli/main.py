"""The command line `sla`: data on stdout, messages on stderr; 0 is yes, 1 is no, 2 is wrong usage."""

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from services.cli.options import CommandFailedError, UsageError, create_app, print_message

# A module of commands is imported when one of its commands is called: the engine takes seconds to load, and `sla due`
# does not need it. So what `sla --help` prints is in here: the first sentence of the help of each command.
COMMANDS = {
    "up": {
        "up": "Run everything with one command: embedded nats-server, SQLite, all services.",
    },
    "engine": {
        "migrate": "Create the database schema, the streams and what else the services need; safe to repeat.",
        "run": "Run one or more services against SLA_NATS_URL and SLA_DATABASE_URL.",
        "rebuild": "Build views again from the whole log, all of them if none is named; the engine may run meanwhile.",
        "accept-loss": "Let intake go on though messages that were acknowledged are gone from TICKETS: "
        "they will never count.",
        "verify": "Judge every ticket again, fold every view again, and read SLA: do they say the same?",
        "backup": "Write the store and the streams to one file; the engine may run meanwhile.",
        "restore": "Put a backup in a folder in which there is nothing yet, for `sla up`.",
    },
    "messages": {
        "publish": "Publish one ticket event, and wait until the bus has stored it.",
        "watch": "Follow what becomes of the promises, until Ctrl-C.",
    },
    "tickets": {
        "show": "How one ticket stands, replayed from its events; or how it stood.",
        "list": "The open promises by support time left; those that are too late come first.",
        "explain": "Why a ticket stands as it does: its facts, what was decided, which time counted and why, "
        "and so the deadline.",
        "report": "How the promises that began in a period stand: how many were kept and broken, and how fast they "
        "were fulfilled.",
    },
    "calculator": {
        "due": "When a first response is due, null if nothing is promised.",
        "elapsed": "Support time between two instants: JSON lines on stdin come back with `support_seconds`.",
    },
    "policies": {
        "backtest": "Judge all history under another policy, and write nothing: promises kept before and after, "
        "and those that flip.",
        "policy": "Support policies.",
    },
    "dead_letters": {
        "dead": "Messages that could not count, with the reason.",
    },
    "quarantine": {
        "quarantine": "Tickets that could not be judged, by a fault of the engine.",
    },
}


class LazyCommand(TyperCommand):
    """A command of which only the first sentence is known; when it is called, its module is imported and takes over."""

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """Import the module, and return the command as it is there."""
        commands: Any = typer.main.get_group(import_module(f"services.cli.{self._module}").app)
        return commands.commands[self.name]


class LazyGroup(TyperGroup):
    """The commands of COMMANDS, in their order."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for module, commands in COMMANDS.items():
            for name, summary in commands.items():
                self.add_command(LazyCommand(name, module, summary))


app = create_app(cls=LazyGroup)


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # only here: it takes as long as the rest of the command line

        typer.echo(f"sla {version('sla-engine')}")
        raise typer.Exit


@app.callback()
def sla(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Promises of first responses, kept as events: what was promised, what is due, and what broke."""


def list_failures() -> tuple[type[Exception], ...]:
    """Return the families of errors that mean no. Any other is a fault of ours, and keeps its traceback."""
    # imported when a command has failed: they take longer to load than most commands
    from eventsourcing.persistence import PersistenceError

    from services.errors import ENVIRONMENT_ERRORS
    from services.notifier.receivers import NotifyError
    from services.queries.point_in_time import NothingKnownError
    from sla.policy_file import PolicyError

    return (CommandFailedError, NothingKnownError, PolicyError, NotifyError, PersistenceError, *ENVIRONMENT_ERRORS)


def main() -> None:
    """Run the command of the process: exit with 0 for yes, 1 for no, 2 for wrong usage."""
    os.umask(0o077)  # what is stored is what customers wrote: nobody else on the machine may read what we create
    try:
        app()
    except UsageError as error:
        print_message(f"sla: {error}")
        sys.exit(2)
    except Exception as error:
        if not isinstance(error, list_failures()):
            raise
        print_message(f"sla: {str(error) or type(error).__name__}")
        sys.exit(1)


if __name__ == "__main__":
    main()
