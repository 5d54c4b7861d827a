"""Grafana's dashboards: each panel is asked of a real Prometheus, as Grafana asks, and has something to show."""

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from promql_parser import Expr, VectorSelector

from deploy.grafana.generate import PROMETHEUS
from tests.support.bus import (
    SLA,
    Up,
    ago,
    connected,
    environment,
    fact,
    now,
    open_all_hours,
    opened,
    publish,
    responded,
    samples,
    settled,
    subscribed,
    up,
)
from tests.support.prometheus import NEEDS_PROMETHEUS, ROOT, RULES, asked, found, prometheus, soon

GRAFANA = ROOT / "deploy" / "grafana"
SCRAPED_EVERY = 15  # seconds, as Grafana is told
CHOSEN = 300  # seconds that the reader looks back

DASHBOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GRAFANA.glob("dashboards/*.json"))}
PANELS = [(name, each) for name, board in DASHBOARDS.items() for each in board["panels"] if each["type"] != "row"]
QUERIES = [(name, panel, target) for name, panel in PANELS for target in panel["targets"]]
IDS = [f"{name}: {panel['title']}" for name, panel in PANELS]
pytestmark = [pytest.mark.parts, pytest.mark.xdist_group("prometheus")]
each_panel = pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=IDS)


# ---- what can be said of them without Prometheus


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_what_the_types_of_grafana_say(name: str) -> None:
    register_default_plugins()  # or it reads queries and options as they are
    read = Dashboard.from_json(DASHBOARDS[name])
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == DASHBOARDS[name]
    assert read.uid == name and not read.editable


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_covers_another_or_leaves_a_hole(name: str) -> None:
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in DASHBOARDS[name]["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    lines = max(y for _, y in cells) + 1
    assert sorted(cells) == [(x, y) for x in range(24) for y in range(lines)]


@each_panel
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    shown = panel["fieldConfig"]["defaults"]
    assert panel["title"] and panel["description"].endswith((".", "`."))
    assert shown["unit"] in [unit for name, unit in vars(units).items() if not name.startswith("_")]
    assert shown["thresholds"]["steps"][0]["value"] is None and shown["noValue"]
    assert panel["targets"] and all(target["legendFormat"] for target in panel["targets"])
    assert panel["datasource"] == {"type": "prometheus", "uid": PROMETHEUS.uid}


def test_titles_are_not_used_twice() -> None:
    assert len(set(IDS)) == len(IDS)


def test_grafana_is_told_of_our_prometheus_and_where_the_dashboards_are() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    scraping = yaml.safe_load((RULES / "prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"]
    assert (source["uid"], source["type"]) == (PROMETHEUS.uid, PROMETHEUS.type_val)
    assert source["jsonData"]["timeInterval"] == scraping == f"{SCRAPED_EVERY}s"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/sla.yml").read_text("utf-8"))["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/etc/grafana/dashboards")


# ---- as Grafana asks


def step(panel: Mapping[str, Any]) -> int:
    """Seconds between two points: never shorter than a scrape, or what the panel says."""
    return 60 if panel.get("interval") == "1m" else SCRAPED_EVERY


def put_in(
    expression: str, panel: Mapping[str, Any], level: str = ".*", priority: str = ".*", objective: str = ".*"
) -> str:
    """The query with the variables of the dashboard and those of Grafana replaced, as Grafana does it."""
    values = {
        "$objective": objective,
        "$service_level": level,
        "$priority": priority,
        "$__rate_interval": f"{max(step(panel) + SCRAPED_EVERY, 4 * SCRAPED_EVERY)}s",
        "$__range": f"{CHOSEN}s",
    }
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def ask(url: str, panel: Mapping[str, Any], target: Mapping[str, Any], **choice: str) -> list[dict[str, Any]]:
    """The series; for panels over time up to the end of the step under way."""
    query = put_in(target["expr"], panel, **choice)
    if target["instant"]:
        return list(found(url, query))
    end = math.ceil(time.time() / step(panel)) * step(panel)
    asking = {"query": query, "start": end - CHOSEN, "end": end, "step": step(panel)}
    return list(asked(url, f"query_range?{urlencode(asking)}")["result"])


def figures(series: list[dict[str, Any]]) -> list[float]:
    """Every number in them that is one."""
    points = [point for each in series for point in each.get("values", [each.get("value")])]
    return [float(value) for _, value in points if not math.isnan(float(value))]


def shows(url: str, panel: Mapping[str, Any], target: Mapping[str, Any], **choice: str) -> list[dict[str, Any]]:
    """The series that have a number: of counters, one above 0. Empty if there is none."""
    least = 0 if re.search(r"(increase|rate)\(", target["expr"]) else -math.inf
    return [each for each in ask(url, panel, target, **choice) if any(value > least for value in figures([each]))]


def selectors(expression: str) -> list[VectorSelector]:
    """What a query reads."""
    read: list[VectorSelector] = []

    def look(node: Expr) -> None:
        if isinstance(node, VectorSelector):
            read.append(node)

    promql_parser.walk(promql_parser.parse(expression), look)
    return read


# ---- a load in which everything happens


class Loaded(NamedTuple):
    """An engine to which everything has happened, and the Prometheus that saw it."""

    engine: Up
    prometheus: str


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp("grafana")
    policy = with_resolution(Path(open_all_hours(folder / "policy")))
    with (
        up(folder, SLA_POLICY_DIR=policy) as engine,
        prometheus(folder / "prometheus", engine.http_url.removeprefix("http://")) as url,
    ):
        soon("every counter is scraped at 0", lambda: found(url, "sla_facts_total and on () sla_breaches_total"))
        asyncio.run(everything(engine))
        subprocess.run([SLA, "verify", "--data", engine.data], env=environment(), check=True, capture_output=True)
        soon("it is scraped", lambda: found(url, "sla_verify_differences == 0"))
        yield Loaded(engine, url)


def with_resolution(folder: Path) -> str:
    """The policy of a folder with one more objective."""
    (path,) = folder.glob("*.yaml")
    text = path.read_text("utf-8")
    text = re.sub(r"(?m)^(  first_response: .*)$", r"\1\n  resolution: {starts: opened, stops: closed}", text)
    targets = "    objectives:\n      resolution: {critical: 8h, serious: 16h, minor: 40h}\n"
    path.write_text(re.sub(r"(?m)^    channels:\n", targets + r"\g<0>", text), "utf-8")
    return str(folder)


async def everything(engine: Up) -> None:
    """Four answers, of which first two and then three were in time, and one of all else that has a series."""
    start, hour = ago(hours=3), timedelta(hours=1)
    first = opened("REVISED", start)
    script = (
        first, first, responded("REVISED", start + 2.5 * hour),
        opened("MET", start), responded("MET", start + 1.25 * hour),
        opened("LATE", start), responded("LATE", start + 2.5 * hour),
        opened("CLOSED", ago(hours=1)), fact("closed", "CLOSED", ago(minutes=30)),
        opened("EXCLUDED", ago(hours=1)), fact("excluded", "EXCLUDED", ago(minutes=30), reason="basic_training"),
        opened("AT RISK", ago(hours=1.7)), opened("OLD", ago(days=3)), opened("URGENT", start, "urgent"),
        fact("escalated", "PENDING", start),
    )  # fmt: skip
    due = now() + timedelta(seconds=3)
    async with connected(engine.nats_url) as nc, subscribed(nc) as heard:
        await publish(nc, opened("BROKEN", due - 2 * hour), *script)
        breach = await heard.first("BROKEN", "breached")
        assert breach.data["detection"] == "live"
        await heard.first("REVISED", "fulfilled")
        await publish(nc, responded("BROKEN", due - hour), responded("REVISED", start + hour))
        await heard.first("REVISED", "fulfilled", 2)
        await settled(nc, engine.store)


# ---- what they show


@NEEDS_PROMETHEUS
def test_each_query_of_each_panel_finds_something(loaded: Loaded) -> None:
    nothing = []
    for name, panel, target in QUERIES:
        label = f"{name}: {panel['title']} [{target['legendFormat']}]"
        try:
            series = soon(label, lambda panel=panel, target=target: shows(loaded.prometheus, panel, target))
        except AssertionError:
            nothing.append(label)
            continue
        print(f"{len(series):4} series  {label}")
        labels = re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert all(each["metric"].get(name) for each in series for name in labels), label
    assert nothing == []


@NEEDS_PROMETHEUS
def test_the_panels_of_the_overview_heed_what_is_chosen(loaded: Loaded) -> None:
    by_level = found(loaded.prometheus, 'group by (__name__) ({__name__=~"sla.+", service_level!=""})')
    split = {each["metric"]["__name__"] for each in by_level}
    for name, panel, target in QUERIES:
        if name == "sla-overview" and any(each.name in split for each in selectors(put_in(target["expr"], panel))):
            one, nobody = {"level": "(enterprise|foundation)", "priority": "(critical)"}, {"objective": "(joy)"}
            assert shows(loaded.prometheus, panel, target, **one), panel["title"]
            assert figures(ask(loaded.prometheus, panel, target, **nobody)) == [], panel["title"]


@NEEDS_PROMETHEUS
def test_each_metric_that_is_asked_for_exists(loaded: Loaded) -> None:
    shown = {sample.name for sample in asyncio.run(samples(loaded.engine.http_url))}
    groups = yaml.safe_load((RULES / "rules.yml").read_text("utf-8"))["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked_for = {each.name for _, panel, target in QUERIES for each in selectors(put_in(target["expr"], panel))}
    assert asked_for - shown - recorded == {"up", "ALERTS"}, "which Prometheus itself has"


@NEEDS_PROMETHEUS
def test_the_choices_are_the_objectives_levels_and_priorities_of_the_policy(loaded: Loaded) -> None:
    offered = {}
    for variable in DASHBOARDS["sla-overview"]["templating"]["list"]:
        metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
        offered[variable["name"]] = asked(loaded.prometheus, f"label/{label}/values?match[]={metric}")
    assert offered == {
        "objective": ["first_response", "resolution"],
        "service_level": ["enterprise", "foundation", "professional"],
        "priority": ["critical", "minor", "serious"],
    }


@NEEDS_PROMETHEUS
@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Kept", 0.5714),
        ("Kept, of all ever", 0.5714),
        ("At risk", 1),
        ("Differences", 0),
        ("Active metrics", 1),
        ("Processes that do not answer", 0),
        ("Dead letters that wait", 1),
    ],
)
def test_a_figure_is_right(loaded: Loaded, title: str, shown: float) -> None:
    (panel,) = [panel for _, panel in PANELS if panel["title"] == title]

    def is_right() -> bool:
        return figures(ask(loaded.prometheus, panel, panel["targets"][0])) == [pytest.approx(shown, rel=0.05)]

    soon(f"{title} is {shown}", is_right)
