"""Reports: which period, the figures, and that they are those of the metrics."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median_low

import pytest

from projections.promises import Span
from services.queries.point_in_time import PointInTime
from services.queries.report import PROMISE_OUTCOMES, Period, Totals, build_report
from sla.log import State
from sla.policy import FIRST_RESPONSE
from tests.scenarios.scenario import stockholm
from tests.support.bus import (
    ago,
    connected,
    fact,
    open_all_hours,
    opened,
    publish,
    responded,
    samples,
    settled,
    total,
    up,
)
from tests.support.commands import call
from tests.support.store_log import HOUR, START, Log

ZONE = "Europe/Stockholm"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path / "sla.db")
    yield found
    found.store.close()


PERIODS = [
    ("2026-10", "2026-10-01 00:00", "2026-11-01 00:00"),
    ("2026-12", "2026-12-01 00:00", "2027-01-01 00:00"),
    ("2026-W41", "2026-10-05 00:00", "2026-10-12 00:00"),
    ("2026-W01", "2025-12-29 00:00", "2026-01-05 00:00"),
    ("2026-Q4", "2026-10-01 00:00", "2027-01-01 00:00"),
    ("2026-Q1", "2026-01-01 00:00", "2026-04-01 00:00"),
    ("2026", "2026-01-01 00:00", "2027-01-01 00:00"),
    ("2026-10-24..2026-10-26", "2026-10-24 00:00", "2026-10-26 00:00"),
    ("2026-10-24T12:00+02:00..2026-10-26", "2026-10-24 12:00", "2026-10-26 00:00"),
]


@pytest.mark.parametrize(("text", "start", "end"), PERIODS, ids=[text for text, *_ in PERIODS])
def test_a_period_begins_and_ends_at_midnight_in_the_zone_of_the_policy(text: str, start: str, end: str) -> None:
    assert Period.parse(text, ZONE) == (stockholm(start), stockholm(end))


def test_the_end_is_not_in_it() -> None:
    october = Period.parse("2026-10", ZONE)
    began = [State(started_at=stockholm(at)) for at in ("2026-10-01 00:00", "2026-10-31 23:59", "2026-11-01 00:00")]
    assert [Span(*october).has(FIRST_RESPONSE, state) for state in began] == [True, True, False]
    assert Span(*Period.parse("all", ZONE)).has(FIRST_RESPONSE, began[2])


@pytest.mark.parametrize(
    "text",
    ["", "october", "2026-13", "2026-W54", "2026-Q5", "26-10", "2026-10-01", "1066", "9999", "2026-10-02..2026-10-01",
     "2026-10-01..2026-10-01", "..", "2026-10-01..", "2026-10-01T00:00..2026-10-02", "2026-10-01..2026-10-02..x"],
)  # fmt: skip
def test_what_is_no_period_is_refused_and_the_text_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 2026-10, 2026-W41, 2026-Q4, 2026, FROM\.\.TO"):
        Period.parse(text, ZONE)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 100])
def test_median_and_90th_percentile_are_times_of_real_answers(count: int) -> None:
    totals = Totals()
    totals.answers = [n * 1_000_000 for n in range(count, 0, -1)]
    found = totals.to_json()
    assert found["median_seconds"] == median_low(range(1, count + 1))
    assert sum(n <= found["p90_seconds"] for n in range(1, count + 1)) * 10 >= 9 * count
    assert sum(n < found["p90_seconds"] for n in range(1, count + 1)) * 10 < 9 * count


def test_the_view_says_what_the_log_says(log: Log) -> None:
    """Whatever it is divided by: a report for now, and the same moment folded from the whole log."""
    log.live_through(range(60))
    log.take(START + 6 * 24 * HOUR, *(fact("closed", f"T-{n}", START + 6 * 24 * HOUR) for n in range(1, 60, 10)))
    log.take(
        START + 7 * 24 * HOUR,
        fact("excluded", "T-3", START + HOUR, reason="basic_training"),
        fact("escalated", "X", START),
    )
    for by in ((), ("level",), ("customer", "priority"), ("objective", "level", "priority")):
        for period in ("all", "2026-11", "2026-11-02T08:10:00Z..2026-11-02T08:20:00Z"):
            now = START + 30 * 24 * HOUR
            view, whole = (
                build_report(log.store, PointInTime(now=now), period, by),
                build_report(log.store, PointInTime(known_at=now, now=now), period, by),
            )
            assert view | {"known_at": now} == whole
            assert view["total"]["promises"] > 0
    found = build_report(log.store, PointInTime(now=now))["total"]
    assert found["promises"] == sum(found[name] for name in PROMISE_OUTCOMES)
    assert all(found[name] > 0 for name in (*PROMISE_OUTCOMES, "retracted"))
    assert found["broken"] > found["late"] + found["breached"], "one that broke and was closed is still broken"


def test_a_ticket_is_in_the_period_of_its_opening_and_under_its_customer(log: Log) -> None:
    log.take(START, opened("A", START - HOUR, customer="Acme AB"), opened("B", START - HOUR))
    log.take(START + HOUR, fact("corrected", "B", START, corrects="none", customer="Nobody"))
    log.take(START + 3 * HOUR, responded("A", START))
    found = build_report(log.store, PointInTime(), "2026-11", ["customer"])
    assert [(row["customer"], row["promises"], row["median_seconds"]) for row in found["rows"]] == [
        ("", 1, None),
        ("Acme AB", 1, 3600),
    ]
    assert build_report(log.store, PointInTime(), "2026-12")["total"]["promises"] == 0


def test_a_corrected_opening_moves_its_ticket(log: Log) -> None:
    log.take(START, opened("A", START - HOUR, id="a", customer="Acme AB"))
    log.take(
        START, fact("corrected", "A", START, corrects="a", customer="Bruket", time=(START - 48 * HOUR).isoformat())
    )
    (row,) = build_report(log.store, PointInTime(), "2026-10", ["customer"])["rows"]
    assert (row["customer"], row["promises"]) == ("Bruket", 1)


def test_an_answer_of_a_ticket_that_is_excluded_is_in_no_median(log: Log) -> None:
    log.take(START, opened("A", START - HOUR))
    log.take(START + HOUR, responded("A", START))
    log.take(START + 2 * HOUR, fact("excluded", "A", START + 2 * HOUR, reason="basic_training"))
    found = build_report(log.store, PointInTime())["total"]
    assert (found["excluded"], found["kept"], found["median_seconds"], found["share"]) == (1, 0, None, None)


def test_csv_is_for_sheets_and_a_customer_is_no_formula(log: Log) -> None:
    log.take(START, *(opened(name, START - HOUR, customer=name) for name in ('=SUM("1")', 'A, "B"')))
    asked = ("report", "--period", "2026-11", "--by", "customer,level")
    assert call(*asked, "-o", "csv", SLA_DATABASE_URL=log.address).out.splitlines() == [
        "customer,service_level,promises,kept,broken,share,late,breached,open,cancelled,excluded,retracted,"
        "median_seconds,p90_seconds",
        """"'=SUM(""1"")",enterprise,1,0,0,,0,0,1,0,0,0,,""",
        '"A, ""B""",enterprise,1,0,0,,0,0,1,0,0,0,,',
    ]
    said = call(*asked, "-o", "json", SLA_DATABASE_URL=log.address)
    assert [(row["customer"], row["promises"]) for row in json.loads(said.out)["rows"]] == [
        ('=SUM("1")', 1), ('A, "B"', 1),
    ]  # fmt: skip
    assert call(*asked, SLA_DATABASE_URL=log.address).out.count("\n") == 4, "names, two customers, all"
    said = call(*asked[:-1], "colour", SLA_DATABASE_URL=log.address)
    assert (said.code, said.err) == (2, "sla: 'colour': a report is by objective, level, priority, customer\n")


@pytest.mark.parts
@pytest.mark.anyio
@pytest.mark.xdist_group("http")
async def test_all_time_figures_are_those_of_the_metrics(tmp_path: Path) -> None:
    """Of a running engine with tickets of every outcome: the same moment, the same figures."""
    with up(tmp_path, SLA_POLICY_DIR=open_all_hours(tmp_path / "policy"), SLA_HISTORIC_AFTER="never") as running:
        async with connected(running.nats_url) as nc:
            long_ago, ids = ago(hours=5), [f"R-{n}" for n in range(40)]
            await publish(
                nc, *(opened(id, long_ago, ("critical", "serious", "minor")[n % 3]) for n, id in enumerate(ids))
            )
            await settled(nc, running.store)
            await publish(nc, *(responded(id, ago(hours=4)) for id in ids[:10]))  # in time: breaches are withdrawn
            await publish(nc, *(responded(id, ago(minutes=1)) for id in ids[10:20]))
            await publish(nc, *(responded(id, ago(hours=4.5)) for id in ids[10:13]))  # and these are revised
            await publish(nc, *(fact("closed", id, ago(minutes=1)) for id in ids[20:26]))
            await publish(nc, *(fact("excluded", id, ago(minutes=1), reason="basic_training") for id in ids[26:31]))
            await publish(nc, fact("escalated", "R-pending", ago(minutes=1)))
            await settled(nc, running.store)
            shown = await samples(running.http_url)
            with closing(running.store.open()) as store:
                found = build_report(store, PointInTime())["total"]

    def revised(**labels: str) -> float:
        return total(shown, "sla_fulfilled_revised_total", **labels)

    for outcome, name in (("met", "kept"), ("late", "late")):
        first = total(shown, "sla_fulfilled_total", outcome=outcome)
        assert found[name] == first + revised(to=outcome) - revised(**{"from": outcome})
    stages = {
        stage: total(shown, "sla_promises", stage=stage)
        for stage in ("running", "paused", "fulfilled", "cancelled", "excluded")
    }
    assert stages["fulfilled"] == found["kept"] + found["late"]
    assert stages["running"] + stages["paused"] == found["open"] + found["breached"]
    assert (stages["cancelled"], stages["excluded"]) == (found["cancelled"], found["excluded"])
    retracted = total(shown, "sla_breaches_retracted_total")
    assert found["retracted"] == retracted > 0
    assert found["broken"] == total(shown, "sla_breaches_total") - retracted > 0
    assert min(found[name] for name in PROMISE_OUTCOMES) > 0
