"""The command line `sla`: data on stdout, messages on stderr; 0 is yes, 1 is no, 2 is wrong usage."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from services.logs import configure
from services.service import Fatal
from services.settings import Settings
from services.store import StoreError
from services.up import provision, up
from services.wiring import SERVICES, Process, migrate_store, store_path
from sla.policy import PolicyError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Data = Annotated[Path, typer.Option("--data", help="The folder of the embedded engine.")]
DEFAULT_DATA = Path(".sla")


class Usage(Exception):
    """The command was called wrongly; the text says what is right."""


@app.command("up")
def up_command(
    data: Data = DEFAULT_DATA,
    demo: Annotated[bool, typer.Option("--demo", help="Feed a bundled day of ticket events.")] = False,
) -> None:
    """Run everything in one process: embedded nats-server, SQLite, all services."""
    settings = _settings()
    configure(settings)
    raise typer.Exit(asyncio.run(up(settings, data)))


@app.command()
def migrate() -> None:
    """Create the database schema, the streams and what else the services need; safe to repeat."""
    settings = _settings()
    configure(settings)
    migrate_store(_store(settings))
    asyncio.run(provision(_bus(settings), settings.nats_credentials))


@app.command()
def run(services: Annotated[list[str], typer.Argument(help=f"Of {', '.join(SERVICES)}.")]) -> None:
    """Run one or more services against SLA_NATS_URL and SLA_DATABASE_URL."""
    unknown = [name for name in services if name not in SERVICES]
    if unknown:
        raise Usage(f"{', '.join(unknown)}: no such service; the services are {', '.join(SERVICES)}")
    settings = _settings()
    configure(settings)
    process = Process(list(dict.fromkeys(services)), settings, _bus(settings), _store(settings))
    raise typer.Exit(asyncio.run(process.run(lambda: print(f"ready: {process.http.url}", file=sys.stderr))))


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        lines = (f"SLA_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise Usage("; ".join(lines)) from None


def _bus(settings: Settings) -> str:
    if settings.nats_url is None:
        raise Usage("SLA_NATS_URL is not set; give the address of NATS, like nats://127.0.0.1:4222")
    return settings.nats_url


def _store(settings: Settings) -> Path:
    if settings.database_url is None:
        raise Usage("SLA_DATABASE_URL is not set; give the store, like sqlite:///sla.db")
    try:
        return store_path(settings.database_url)
    except ValueError as error:
        raise Usage(f"SLA_DATABASE_URL: {error}") from None


def main() -> None:
    """The console script."""
    try:
        app()
    except Usage as error:
        print(f"sla: {error}", file=sys.stderr)
        sys.exit(2)
    except (PolicyError, StoreError, Fatal) as error:
        print(f"sla: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
