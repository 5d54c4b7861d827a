"""Commands of `sla` as processes: called and waited for, or running."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, NamedTuple
from unittest.mock import patch

from services.cli.main import main
from services.store.interface import Database

SLA = Path(sys.executable).with_name("sla")


class Engine(NamedTuple):
    """A running `sla up`: its folder, its store, and what its run.json says."""

    data: Path
    store: Database
    nats_url: str
    nats_user: str
    nats_password: str
    http_url: str
    pid: int


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment without settings of ours and without a terminal's wishes, and these settings."""
    foreign = ("SLA_", "FORCE_COLOR", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | settings


class Said(NamedTuple):
    code: int
    out: str
    err: str


def sla(*arguments: str | Path, input: str | None = None, **settings: str) -> Said:
    """The installed command in a process of its own."""
    done = subprocess.run(
        [SLA, *arguments],
        input=input,
        env=clean_environment(**settings),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def call(*arguments: str | Path, **settings: str) -> Said:
    """Run the same command in this process, which need not load it each time."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        patch.dict(os.environ, clean_environment(**settings), clear=True),
        patch.object(sys, "argv", ["sla", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int), code
    return Said(code, *(each.buffer.getvalue().decode() for each in (out, err)))  # type: ignore[attr-defined]


@contextmanager
def running(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes], IO[bytes]]]:
    """The command as it works, with its stdin, stdout and stderr; it is ended when the test is, or after 30 seconds."""
    pipe = subprocess.PIPE
    with subprocess.Popen([SLA, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, env=clean_environment()) as process:
        assert process.stdin and process.stdout and process.stderr
        guard = threading.Timer(30, process.kill)
        guard.start()
        try:
            yield process, process.stdin, process.stdout, process.stderr
        finally:
            guard.cancel()
            process.kill()
