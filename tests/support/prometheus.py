"""A real Prometheus, as Debian has it, with our rules: on a real engine, and asked as its users ask it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml

from tests.support.bus import PATIENCE, free_port

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
NEEDS_PROMETHEUS = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("REQUIRE_PARTS"), reason="Debian's prometheus is missing"
)


@contextmanager
def prometheus(folder: Path, target: str, alertmanager: str | None = None) -> Iterator[str]:
    """A real one that scrapes the target every second, and tells Alertmanager; its address."""
    config = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = [alertmanager.removeprefix("http://")] if alertmanager else []
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": targets}]
    config["rule_files"] = [str(folder / "rules.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    folder.mkdir()
    sooner = (RULES / "rules.yml").read_text(encoding="utf-8").replace("[5m]", "[15s]")  # a breach clears after that
    (folder / "rules.yml").write_text(sooner, encoding="utf-8")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


def soon(what: str, found: Callable[[], Any], within: float = PATIENCE) -> Any:
    """The first true value; who is asked may not be up yet."""
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            if value := found():
                return value
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within:g} s: {what}")


def asked(url: str, path: str) -> Any:
    with urlopen(f"{url}/api/v1/{path}", timeout=5) as answer:
        return json.load(answer)["data"]


def firing(url: str) -> list[dict[str, Any]]:
    return [alert for alert in asked(url, "alerts")["alerts"] if alert["state"] == "firing"]


def found(url: str, expression: str) -> Any:
    """What an expression is now: the series and their values."""
    return asked(url, f"query?query={quote(expression)}")["result"]
