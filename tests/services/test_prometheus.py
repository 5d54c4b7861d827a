"""Prometheus as operators run it: the rules by promtool, and a real Prometheus on a real engine, with a real alert."""

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.store.interface import Database
from tests.support.bus import ago, connected, fact, open_all_hours, opened, publish, samples, settled, up
from tests.support.prometheus import NEEDS_PROMETHEUS, ROOT, RULES, firing, found, prometheus, soon
from tests.support.receivers import alertmanager

pytestmark = [pytest.mark.parts, pytest.mark.xdist_group("prometheus"), NEEDS_PROMETHEUS]


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


def test_the_page_names_the_rules_that_are_recorded() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rules = [
        rule for group in yaml.safe_load((RULES / "rules.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
    ]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    named = set(re.findall(r"`(sla:[a-z0-9_:]+)`", page))
    assert named <= recorded and {name for name in recorded if "ratio" in name} <= named


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in alerts():
        assert rule["labels"]["severity"] and {"summary", "description", "runbook_url"} == set(rule["annotations"])
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert f"\n### {rule['alert']}\n" in page


def test_a_breach_reaches_a_real_prometheus_which_tells_alertmanager_and_one_that_clears_is_resolved(
    tmp_path: Path,
) -> None:
    zero = 'sla_breaches_total{service_level="enterprise",priority="critical",detection="live"}'
    with (
        alertmanager(tmp_path / "alertmanager") as manager,
        up(tmp_path, SLA_POLICY_DIR=open_all_hours(tmp_path / "policy"), SLA_ALERTMANAGER_URL=manager.url) as engine,
        prometheus(tmp_path / "prometheus", engine.http_url.removeprefix("http://"), manager.url) as url,
    ):
        soon("it is scraped", lambda: found(url, zero))
        assert firing(url) == []
        asyncio.run(breach(engine.nats_url, engine.store))
        (alert,) = soon("it fires", lambda: firing(url))
        expected = {"alertname": "SlaBreached", "severity": "critical", "service_level": "enterprise"}
        assert expected.items() <= alert["labels"].items()
        (told,) = soon("Alertmanager knows", lambda: manager.alerts(alertname="SlaBreached"))
        assert expected.items() <= told["labels"].items()
        soon("the notifier names the ticket instead", lambda: manager.of("T-1"))
        soon("one is enough", lambda: manager.alerts(alertname="SlaBreached")[0]["status"]["inhibitedBy"])
        shown = {sample.name for sample in asyncio.run(samples(engine.http_url))}
        used = set(re.findall(r"\bsla_[a-z_]+", (RULES / "rules.yml").read_text(encoding="utf-8")))
        assert used - shown == {"sla_verify_differences"}, "which is there once `sla verify` has run"

        soon("it clears, and Alertmanager hears of it", lambda: not manager.alerts(alertname="SlaBreached"))
        assert manager.of("T-1"), "nobody has answered yet"


async def breach(nats_url: str, store: Database) -> None:
    async with connected(nats_url) as nc:
        await publish(nc, opened("T-1", ago(hours=1, minutes=59, seconds=58)), fact("escalated", "T-1", ago(hours=1)))
        await asyncio.sleep(2)
        await settled(nc, store)
