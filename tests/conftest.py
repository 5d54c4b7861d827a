"""What tests share: one engine of the real parts (`sla up`) for the whole session."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.support", "tests.scenarios.scenario")  # a failed assert there shows its values

# ruff: noqa: E402
from services.runtime.connections import read_run_file
from tests.support.commands import SLA, Engine, clean_environment
from tests.support.stores import ON_POSTGRES, address, new_store

os.umask(UMASK := os.umask(0o077))
STARTS_WITHIN = 30.0  # seconds; it takes about 2 on a quiet machine


@pytest.fixture(autouse=True)
def keep_umask() -> Iterator[None]:
    """Undo what the command does that is called within this process."""
    yield
    os.umask(UMASK)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """`sla up` on free ports in a folder of its own; it must end with 0 at SIGTERM, and leave no traceback."""
    home = tmp_path_factory.mktemp("engine")
    data = home / "data"
    log = home / "stderr.log"
    store = new_store(data / "sla.db")
    environment = clean_environment(SLA_NATS_PORT="0", SLA_HTTP_PORT="0", SLA_HISTORIC_AFTER="1000d")
    if ON_POSTGRES:
        environment["SLA_DATABASE_URL"] = address(store)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [SLA, "up", "--data", data], cwd=home, env=environment, stderr=stderr, stdout=subprocess.DEVNULL
        )
    try:
        found = _run_file(process, data / "run.json", log)
        yield Engine(data, store, **found | {"nats_url": read_run_file(data)})
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _run_file(process: subprocess.Popen[bytes], path: Path, log: Path) -> dict[str, Any]:
    give_up = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < give_up:
        assert process.poll() is None, f"sla up ended with {process.returncode}: {log.read_text()}"
        if path.exists() and (text := path.read_text()).endswith("\n"):
            found: dict[str, Any] = json.loads(text)
            return found
        time.sleep(0.05)
    raise AssertionError(f"sla up was not ready within {STARTS_WITHIN} s: {log.read_text()}")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_kernel: skips where the kernel or our rights forbid it, also in CI")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_PARTS, which CI sets, a skipped test is a failed one: no missing part hides a failure."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_PARTS") and not item.get_closest_marker("needs_kernel"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but REQUIRE_PARTS is set: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What this machine's kernel did not let us test is said each time."""
    for report in terminalreporter.getreports("skipped"):
        if "needs_kernel" in report.keywords and isinstance(report.longrepr, tuple):
            terminalreporter.write_line(f"NOT TESTED HERE: {report.nodeid}: {report.longrepr[-1]}")
