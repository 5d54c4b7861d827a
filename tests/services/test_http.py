"""GET /health/live, /health/ready and /metrics (sections 5 and 6)."""

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample

from projections.registry import PROJECTIONS
from projections.runner import rebuild
from services.bus.connection import strip_credentials
from tests.support.bus import (
    Fact,
    Up,
    ago,
    announced,
    connected,
    deployment,
    fact,
    get,
    nats_server,
    now,
    open_all_hours,
    opened,
    position,
    publish,
    readiness,
    responded,
    rows,
    samples,
    subscribed,
    total,
    until,
    up,
)

pytestmark = [pytest.mark.stores, pytest.mark.anyio, pytest.mark.xdist_group("http")]

LEVELS, PRIORITIES = ("foundation", "professional", "enterprise"), ("critical", "serious", "minor")
DETECTIONS, OUTCOMES = ("live", "late", "historic"), ("met", "late")
SAID = (*OUTCOMES, "closed", "excluded", "open")
STAGES = ("running", "fulfilled", "cancelled", "excluded", "paused")
TYPES = [
    f"ticket.{kind}"
    for kind in (
        "opened", "priority_changed", "responded", "escalated", "service_level_changed", "closed", "reopened",
        "excluded", "exclusion_revoked", "paused", "resumed", "corrected", "policy_changed", "customer_replied",
    )
]  # fmt: skip
REASONS = (
    "too_large", "malformed", "unknown_type", "invalid_data", "wrong_subject", "unknown_service_level",
    "unknown_priority", "time_out_of_range", "time_in_future", "id_conflict", "too_many_facts", "internal",
)  # fmt: skip
PARTS = ("store", "bus", "permissions", "streams", "backlog", "outbox", "views", "deadlines")
FIRST = {"objective": ["first_response"]}
PAIR = FIRST | {"service_level": LEVELS, "priority": PRIORITIES}
HOURS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 9, 12, 18, 24)
HOUR = timedelta(hours=1)

AT_ZERO = [  # each name with all its labels
    ("sla_promises", PAIR | {"stage": STAGES}),
    ("sla_promises", FIRST | {"service_level": ["none"], "priority": ["none"], "stage": ["pending"]}),
    ("sla_promises_at_risk", PAIR),
    ("sla_promises_decided", PAIR | {"outcome": ("kept", "broken")}),
    ("sla_breaches_total", PAIR | {"detection": DETECTIONS}),
    ("sla_breaches_retracted_total", PAIR | {"detection": DETECTIONS}),
    ("sla_fulfilled_total", PAIR | {"outcome": OUTCOMES, "detection": DETECTIONS}),
    ("sla_fulfilled_revised_total", PAIR | {"from": SAID, "to": SAID}),
    ("sla_cancelled_total", PAIR | {"cause": ("closed", "excluded", "corrected", "no_promise")}),
    ("sla_fulfilment_support_seconds_bucket", FIRST | {"le": [*(f"{h * 3600.0}" for h in HOURS), "+Inf"]}),
    ("sla_fulfilment_support_seconds_count", FIRST),
    ("sla_fulfilment_support_seconds_sum", FIRST),
    ("sla_facts_total", {"type": TYPES, "outcome": ("recorded", "duplicate", "dead_letter")}),
    ("sla_dead_letters_total", {"reason": REASONS}),
    ("sla_dead_letters_waiting", {"reason": REASONS}),
    ("sla_breach_detection_delay_seconds_bucket", {"le": ["+Inf"]}),
    ("sla_breach_detection_delay_seconds_count", {}),
    ("sla_intake_lag_messages", {}),
    ("sla_not_ready", {"part": ("intake", "clock", "announcer", "metrics")}),
    ("sla_not_ready", {"part": PARTS}),
    ("sla_projection_lag_events", {"projection": ("deadlines", "announcements", "compliance", "promises")}),
    ("sla_projection_lag_seconds", {"projection": ("deadlines", "announcements", "compliance", "promises")}),
]


class Live(NamedTuple):
    """An engine, and what it showed before anything happened."""

    up: Up
    fresh: list[Sample]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("http")
    with up(folder, SLA_POLICY_DIR=open_all_hours(folder / "policy")) as running:
        yield Live(running, asyncio.run(samples(running.http_url)))


async def read_samples(http_url: str, store: Path) -> list[Sample]:
    """The figures, once metrics has seen all that is stored now."""
    ((head,),) = rows(store, "SELECT max(rowid) FROM stored_events")
    ((last,),) = rows(store, "SELECT max(sequence) FROM inbox")
    wanted = {"promises": head, "compliance": head, "arrivals": last}
    await until("metrics has seen all", lambda: all(position(store, name) >= n for name, n in wanted.items()))
    return await samples(http_url)


def list_counters(found: list[Sample]) -> dict[tuple[object, ...], float]:
    """What must never fall, of ours: a process begins its own figures at 0."""
    endings = ("_total", "_count", "_sum", "_bucket")
    ours = [s for s in found if s.name.startswith("sla_") and s.name.endswith(endings)]
    return {(s.name, *sorted(s.labels.items())): s.value for s in ours}


async def test_a_ready_engine_says_so(live: Live) -> None:
    assert (await get(f"{live.up.http_url}/health/live"))[0] == 200
    assert await readiness(live.up.http_url) == (200, {})
    assert (await get(f"{live.up.http_url}/nothing"))[0] == 404


@pytest.mark.parametrize(("name", "labels"), AT_ZERO, ids=[f"{name}{'-'.join(labels)}" for name, labels in AT_ZERO])
def test_every_series_exists_at_zero_from_the_start(
    live: Live, name: str, labels: dict[str, list[str] | tuple[str, ...]]
) -> None:
    there = {tuple(sorted(s.labels.items())): s.value for s in live.fresh if s.name == name}
    for values in product(*labels.values()):
        assert there[tuple(sorted(zip(labels, values, strict=True)))] == 0


def test_the_page_names_each_figure_of_promises(live: Live) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    shown = {sample.name.removesuffix("_bucket") for sample in live.fresh if "objective" in sample.labels}
    names = {name for name in shown if not name.endswith(("_sum", "_count"))}
    assert len(names) == 9 and all(f"`{name}`" in page for name in names)


def test_the_build_and_the_next_deadline_are_shown_too(live: Live) -> None:
    assert total(live.fresh, "sla_build_info") == 1
    assert any(sample.name == "sla_next_deadline_timestamp_seconds" for sample in live.fresh)
    assert total(live.fresh, "sla_metrics_active") == 1


def test_no_series_is_shown_twice_and_every_name_is_ours(live: Live) -> None:
    names = Counter((s.name, *sorted(s.labels.items())) for s in live.fresh)
    assert max(names.values()) == 1
    assert {name for name, *_ in names if not str(name).startswith(("sla_", "process_", "engine_process_"))} == set()


async def test_metrics_come_in_the_format_of_prometheus_with_a_help_text_for_each(live: Live) -> None:
    with await asyncio.to_thread(urllib.request.urlopen, f"{live.up.http_url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        lines = answer.read().decode().splitlines()
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    helped = {line.split()[2] for line in lines if line.startswith("# HELP") and len(line.split()) > 4}
    assert typed == helped


async def test_metrics_come_as_openmetrics_to_whoever_accepts_that(live: Live) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    asked = urllib.request.Request(f"{live.up.http_url}/metrics", headers={"Accept": accept})
    with await asyncio.to_thread(urllib.request.urlopen, asked) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=")
        families = list(openmetrics.text_string_to_metric_families(answer.read().decode()))
    assert {"sla_promises", "sla_breaches", "sla_fulfilment_support_seconds"} <= {each.name for each in families}


async def test_a_policy_of_400_levels_has_series_for_the_levels_in_use(tmp_path: Path) -> None:
    folder = Path(open_all_hours(tmp_path / "policy"))
    text = (folder / "policy.yaml").read_text(encoding="utf-8")
    before, enterprise = text.split("  enterprise:\n")
    levels = "".join(f"  customer-{n}:\n{enterprise}" for n in range(400))
    (folder / "policy.yaml").write_text(before + levels, encoding="utf-8")
    with up(tmp_path, SLA_POLICY_DIR=str(folder)) as running:
        async with connected(running.nats_url) as nc:
            await publish(nc, opened("T-1", ago(minutes=1), "minor", "customer-7"))
            await announced(nc, running.store)
        found = await read_samples(running.http_url, running.store)
    assert len(found) < 10_000
    assert total(found, "sla_promises") == total(found, "sla_promises", service_level="customer-7") == 1
    assert any(each.name == "sla_breaches_total" and each.labels["service_level"] == "customer-7" for each in found)


async def test_a_scripted_load_gives_the_right_counters(live: Live) -> None:
    start = ago(hours=3)
    first = opened("LATE", start)
    script = [
        first, responded("LATE", start + 2.5 * HOUR), first, first,
        opened("MET", start), responded("MET", start + 1.25 * HOUR),
        opened("REVISED", start, "serious"), responded("REVISED", start + 2 * HOUR),
        opened("OPEN", ago(hours=0.1), "minor"),
        opened("RISK", ago(hours=1.7)),
        opened("OLD", ago(days=3), "serious"),
        fact("escalated", "PENDING", start),
        fact("paused", "PENDING", start),
        opened("X", start, "urgent"), opened("X", start, "critical", "gold"), Fact("tickets.opened.X", b"?"),
    ]  # fmt: skip
    due = now() + timedelta(seconds=1)
    async with connected(live.up.nats_url) as nc, subscribed(nc) as sla:
        await publish(nc, opened("BREACH", due - 2 * HOUR), *script)
        await sla.first("LATE", "fulfilled")
        await sla.first("MET", "fulfilled")
        await sla.first("REVISED", "fulfilled")
        await sla.first("OLD", "breached")
        await sla.first("RISK", "warning")
        breach = await sla.first("BREACH", "breached")
        await publish(nc, responded("BREACH", due - HOUR))
        await sla.first("BREACH", "fulfilled")
        await publish(nc, responded("LATE", start + 1 * HOUR))
        await sla.first("LATE", "fulfilled", 2)
        retracted = sla.kinds("MET").count("breach_retracted")  # if the tick came before its answer
        await announced(nc, live.up.store)
    found = await read_samples(live.up.http_url, live.up.store)

    critical = {"service_level": "enterprise", "priority": "critical"}
    assert total(found, "sla_breaches_total", **critical) == 2 + retracted
    assert total(found, "sla_breaches_total", detection="historic") == 1
    assert total(found, "sla_breaches_total", service_level="foundation") == 0
    assert total(found, "sla_breaches_retracted_total", **critical) == 2 + retracted
    assert total(found, "sla_fulfilled_total", outcome="met") == 3
    assert total(found, "sla_fulfilled_total", outcome="late", **critical) == 1
    assert total(found, "sla_fulfilled_revised_total", **{"from": "late", "to": "met"}) == 1
    assert total(found, "sla_fulfilled_revised_total") == 1
    assert total(found, "sla_fulfilment_support_seconds_count") == 4
    assert total(found, "sla_fulfilment_support_seconds_sum") == pytest.approx((2.5 + 1.25 + 2 + 1) * 3600)
    within = {le: total(found, "sla_fulfilment_support_seconds_bucket", le=le) for le in ("3600.0", "7200.0")}
    assert within == {"3600.0": 1, "7200.0": 3}
    assert total(found, "sla_facts_total", type="ticket.opened", outcome="recorded") == 7
    assert total(found, "sla_facts_total", type="ticket.opened", outcome="duplicate") == 2
    assert total(found, "sla_facts_total", type="ticket.opened", outcome="dead_letter") == 2
    assert total(found, "sla_facts_total", type="ticket.paused", outcome="recorded") == 1
    assert total(found, "sla_facts_total", outcome="dead_letter") == 3
    for reason in ("malformed", "unknown_service_level", "unknown_priority"):
        assert total(found, "sla_dead_letters_total", reason=reason) == 1
    assert total(found, "sla_dead_letters_total") == 3
    assert total(found, "sla_promises", stage="pending") == 1
    assert total(found, "sla_promises", stage="fulfilled") == 4
    assert total(found, "sla_promises", stage="running") == 3
    assert total(found, "sla_promises_at_risk") == total(found, "sla_promises_at_risk", **critical) == 1
    assert total(found, "sla_promises_decided", outcome="kept") == 4
    assert total(found, "sla_promises_decided", outcome="broken") == 1, "OLD, which nobody answered"
    live_breaches = sum(breach.data["detection"] == "live" for breach in [breach])
    assert total(found, "sla_breach_detection_delay_seconds_count") >= live_breaches
    assert now().timestamp() < total(found, "sla_next_deadline_timestamp_seconds") < now().timestamp() + 1800


async def test_no_label_holds_a_ticket_or_free_text(live: Live) -> None:
    async with connected(live.up.nats_url) as nc:
        await publish(nc, opened("SECRET-1", ago(hours=3), customer="SECRET", channel="SECRET", source="/SECRET"))
        await publish(nc, fact("escalated", "SECRET-1", ago(hours=1), reason="SECRET"))
        bad = opened("SECRET-2", ago(hours=3), "SECRET", "SECRET").event | {"type": "SECRET"}
        await publish(nc, Fact("tickets.SECRET.SECRET-2", str(bad).replace("'", '"').encode()))
        await announced(nc, live.up.store)
    await read_samples(live.up.http_url, live.up.store)
    assert "SECRET" not in (await get(f"{live.up.http_url}/metrics"))[1]


@pytest.mark.parts
async def test_counters_survive_a_restart_and_a_rebuild_lowers_none(tmp_path: Path) -> None:
    policy = open_all_hours(tmp_path / "policy")
    start = ago(hours=3)
    with up(tmp_path, SLA_POLICY_DIR=policy) as first:
        async with connected(first.nats_url) as nc, subscribed(nc) as sla:
            for n in range(20):
                await publish(nc, *[opened(f"T-{n}", start)] * 2, responded(f"T-{n}", start + n * HOUR / 7))
            await publish(nc, Fact("tickets.opened.X", b"?"))
            for n in range(20):
                await sla.first(f"T-{n}", "fulfilled")
            await announced(nc, first.store)
        before = list_counters(await read_samples(first.http_url, first.store))
    assert before[
        "sla_fulfilled_total", ("detection", "live"), ("objective", "first_response"), ("outcome", "met"),
        ("priority", "critical"), ("service_level", "enterprise"),
    ]  # fmt: skip
    with up(tmp_path, SLA_POLICY_DIR=policy) as second:
        assert list_counters(await read_samples(second.http_url, second.store)) == before
        store = second.store.open()
        try:
            for view in PROJECTIONS:
                for _ in rebuild(store, view):
                    during = list_counters(await samples(second.http_url))
                    assert all(during[name] >= value for name, value in before.items())
        finally:
            store.close()
        assert list_counters(await read_samples(second.http_url, second.store)) == before


@pytest.mark.parts
async def test_a_process_is_not_ready_while_nats_is_away_and_a_standby_shows_nothing(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as server, deployment(tmp_path, server) as deployed:
        services = [deployed.run("intake", "clock", "announcer", "metrics")]
        try:
            await services[0].ready()
            services.append(deployed.run("metrics"))
            await services[1].ready()
            names = {sample.name for sample in await samples(services[1].http_url)}
            assert {name for name in names if name.startswith("sla_")} == {"sla_metrics_active", "sla_not_ready"}
            assert total(await samples(services[1].http_url), "sla_metrics_active") == 0

            await server.stop()
            for service in services:

                async def is_not(service=service) -> bool:  # type: ignore[no-untyped-def]
                    status, reasons = await service.readiness()
                    return status == 503 and "bus" in reasons and strip_credentials(server.url) in reasons["bus"]

                await until("it is not ready, and says that it is the bus", is_not)
                assert (await get(f"{service.http_url}/health/live"))[0] == 200
                assert (await get(f"{service.http_url}/metrics"))[0] == 200
            await server.start()
            for service in services:
                await service.ready()
            async with connected(server.url) as nc, subscribed(nc) as sla:
                await publish(nc, opened("BACK", ago(hours=1)))
                await sla.first("BACK", "applied")

            services.pop(0).process.end()
            standby = services[0].http_url

            async def takes_over() -> bool:
                return total(await samples(standby), "sla_metrics_active") == 1

            await until("the standby takes over", takes_over)
            assert total(await samples(standby), "sla_promises") == 1
            services.pop().process.end()
        finally:
            for service in services:
                service.process.kill()
