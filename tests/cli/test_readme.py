"""What the README shows, run as it stands against a running engine. Only the folder of its data is replaced."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commands import SLA, Engine, clean_environment

README = Path(__file__).parents[2] / "README.md"
pytestmark = pytest.mark.xdist_group("engine")


def snippet(word: str, engine: Engine) -> str:
    """The Python block of the README that has this word."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if word in block]
    assert ".sla/run.json" in found
    return str(found).replace(".sla/run.json", str(engine.data / "run.json"))


def sla(engine: Engine, *arguments: str) -> str:
    command = [SLA, *arguments, *(["--data", str(engine.data)] if arguments[0] in ("publish", "show") else [])]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_the_publisher_in_python_stores_a_ticket(engine: Engine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet("ticket.opened", engine)], capture_output=True, text=True, timeout=30, check=True
    )
    assert re.fullmatch(r"stored as [0-9]+\n", done.stdout)


def test_the_subscriber_in_python_prints_a_breach(engine: Engine) -> None:
    subscriber = subprocess.Popen(
        [sys.executable, "-u", "-c", snippet("pull_subscribe", engine)], stdout=subprocess.PIPE, text=True
    )
    try:
        at = (datetime.now(UTC) - timedelta(days=10)).isoformat()
        opened = ("--level", "enterprise", "--priority", "critical", "--at", at)
        due_at = sla(engine, "due", *opened).split()[0]
        sla(engine, "publish", "opened", "README-1", *opened)
        assert subscriber.stdout is not None
        breach = next(line for line in subscriber.stdout if "README-1" in line)
        assert breach == f"breach: README-1 {due_at} critical\n"
    finally:
        subscriber.kill()
        subscriber.wait()


def test_the_calculator_prints_what_the_readme_shows() -> None:
    (command, shown) = re.findall(r"```console\n\$ sla (due [^\n]*)\n(.*?)```", README.read_text(), re.DOTALL)[0]
    arguments = [argument.strip('"') for argument in command.split()]
    done = subprocess.run([SLA, *arguments], env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout == shown
