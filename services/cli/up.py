"""The command up. It is alone here: its processes load what they need, and it needs little of that."""

import asyncio
from typing import Annotated

import typer

from services.cli.options import DEFAULT_DATA, Data, create_app
from services.cli.settings import read_settings, require_database
from services.runtime.logging import configure
from services.up import run_engine

app = create_app()


@app.command("up")
def up_command(
    data: Data = DEFAULT_DATA,
    demo: Annotated[bool, typer.Option("--demo", help="Feed a bundled day of ticket events.")] = False,
) -> None:
    """Run everything with one command: embedded nats-server, SQLite, all services."""
    settings = read_settings()
    if settings.database_url is not None:
        require_database(settings)
    configure(settings)
    raise typer.Exit(asyncio.run(run_engine(settings, data, demo)))
