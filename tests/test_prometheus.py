"""Prometheus as operators run it: the rules by promtool, and a real Prometheus on a real engine, with a real alert."""

import asyncio
import json
import os
import re
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

from tests.bus import PATIENCE, ago, connected, fact, free_port, open_all_hours, opened, publish, samples, settled, up

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy" / "prometheus"
pytestmark = [
    pytest.mark.xdist_group("prometheus"),
    pytest.mark.skipif(
        shutil.which("promtool") is None and not os.environ.get("REQUIRE_PARTS"),
        reason="Debian's prometheus is missing",
    ),
]


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_the_configuration_and_the_rules_are_what_prometheus_reads() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", "rules.yml")


def test_each_alert_fires_when_it_must() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")
    tests = yaml.safe_load((RULES / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
    quiet = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if not case["exp_alerts"]}
    assert fired == quiet == {rule["alert"] for rule in alerts()}


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in alerts():
        assert rule["labels"]["severity"] and {"summary", "description", "runbook"} == set(rule["annotations"])
        assert f"| `{rule['alert']}` |" in page


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A real one that scrapes the target every second; its address."""
    config = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / "rules.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    folder.mkdir()
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


def soon(what: str, found: Callable[[], Any]) -> Any:
    """The first true value; Prometheus may not be up yet."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            if value := found():
                return value
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE:g} s: {what}")


def asked(url: str, path: str) -> Any:
    with urlopen(f"{url}/api/v1/{path}", timeout=5) as answer:
        return json.load(answer)["data"]


def firing(url: str) -> list[dict[str, Any]]:
    return [alert for alert in asked(url, "alerts")["alerts"] if alert["state"] == "firing"]


def test_a_breach_reaches_a_real_prometheus_and_fires(tmp_path: Path) -> None:
    zero = 'sla_breaches_total{service_level="enterprise",priority="critical",detection="live"}'
    with (
        up(tmp_path, SLA_POLICY_DIR=open_all_hours(tmp_path / "policy")) as engine,
        prometheus(tmp_path / "prometheus", engine.http_url.removeprefix("http://")) as url,
    ):
        soon("it is scraped", lambda: asked(url, f"query?query={quote(zero)}")["result"])
        assert firing(url) == []
        asyncio.run(breach(engine.nats_url, engine.store))
        (alert,) = soon("it fires", lambda: firing(url))
        expected = {"alertname": "SlaBreached", "severity": "critical", "service_level": "enterprise"}
        assert expected.items() <= alert["labels"].items()
        shown = {sample.name for sample in asyncio.run(samples(engine.http_url))}
        used = set(re.findall(r"\bsla_[a-z_]+", (RULES / "rules.yml").read_text(encoding="utf-8")))
        assert used - shown == {"sla_verify_differences"}, "which is there once `sla verify` has run"


async def breach(nats_url: str, store: Path) -> None:
    async with connected(nats_url) as nc:
        await publish(nc, opened("T-1", ago(hours=1, minutes=59, seconds=58)), fact("escalated", "T-1", ago(hours=1)))
        await asyncio.sleep(2)
        await settled(nc, store)
