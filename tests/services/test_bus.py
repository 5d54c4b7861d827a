"""What other systems may rely on, seen by a subscriber that has only nats-py and JSON."""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from projections.registry import PROJECTIONS
from projections.runner import rebuild
from services.runtime.connections import read_run_file
from services.runtime.service import Service as EngineService
from tests.support.bus import (
    SLA,
    STRUCTURED,
    Deployment,
    Fact,
    Heard,
    Server,
    Service,
    Sla,
    Subscriber,
    Up,
    ago,
    announced,
    binary,
    connected,
    environment,
    fact,
    free_port,
    get,
    now,
    open_all_hours,
    opened,
    process,
    publish,
    responded,
    rows,
    stored,
    subscribed,
    token,
    until,
    up,
)
from tests.support.stores import address, new_store

pytestmark = [pytest.mark.stores, pytest.mark.anyio, pytest.mark.xdist_group("bus")]

EVERY_ONE = {
    "ticket_id", "objective", "cycle", "service_level", "priority", "policy_version", "started_at", "due_at",
    "target_seconds", "elapsed_seconds", "escalation_level", "cause", "cause_id", "detected_at",
}  # fmt: skip
MEMBERS = {
    "applied": set(),
    "target_changed": {"old_due_at", "old_target_seconds"},
    "warning": {"threshold", "threshold_percent"},
    "breached": {"breach_id", "number", "breached_at", "severity", "detection"},
    "overdue": {"breach_id", "severity", "after_seconds"},
    "breach_retracted": {"breach_id", "number", "breached_at", "severity", "reason"},
    "fulfilled": {"responded_at", "met", "overdue_seconds", "revision", "replaces"},
    "escalated": {"tell", "severity", "reason", "escalated_at"},
}
HOUR = timedelta(hours=1)


def parse_utc(text: str) -> datetime:
    assert text.endswith("Z"), f"{text} is not UTC with Z"
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An engine whose Enterprise customers have no holidays, so that the day on which the tests run does not matter."""
    folder = tmp_path_factory.mktemp("live")
    with up(folder, SLA_POLICY_DIR=open_all_hours(folder / "policy")) as running:
        yield running


@pytest.fixture
async def nc(live: Up) -> AsyncIterator[Client]:
    async with connected(live.nats_url) as connection:
        yield connection


@pytest.fixture
async def sla(nc: Client) -> AsyncIterator[Subscriber]:
    async with subscribed(nc) as subscriber:
        yield subscriber


# ---- streams


async def test_the_streams_have_the_promised_names_and_subjects(nc: Client) -> None:
    streams: dict[str | None, StreamConfig] = {
        info.config.name: info.config for info in await nc.jetstream().streams_info()
    }
    assert {name: sorted(config.subjects or []) for name, config in streams.items()} == {
        "TICKETS": ["clock.due.*", "tickets.*.*"],
        "SLA": ["sla.>"],
        "DEAD_LETTERS": ["dead_letters.*"],
        "UNDELIVERED": ["undelivered.*"],
    }
    assert streams["TICKETS"].max_msg_size == 64 * 1024
    assert streams["TICKETS"].deny_purge and streams["TICKETS"].deny_delete


@pytest.mark.parametrize(
    "subject",
    ["tickets.opened", "tickets.opened.T.1", "ticket.opened.T-1", "clock.due", "clock.tick.T-1", "orders.T-1"],
)
async def test_publishing_on_another_subject_is_an_error(nc: Client, subject: str) -> None:
    with pytest.raises(nats.js.errors.Error):
        await nc.jetstream().publish(subject, b"{}")


async def test_tickets_refuses_a_subject_of_another_stream(nc: Client) -> None:
    with pytest.raises(nats.js.errors.APIError):
        await nc.jetstream().publish("sla.breached.a.b.c", b"{}", stream="TICKETS")


async def test_tickets_refuses_a_message_of_more_than_64_kib(nc: Client) -> None:
    with pytest.raises(nats.js.errors.APIError):
        await nc.jetstream().publish("tickets.opened.T-1", b" " * (64 * 1024 + 1))


# ---- what is said


async def test_a_life_is_told_in_order_with_all_its_members(nc: Client, sla: Subscriber) -> None:
    ticket, start = "LIFE-1", ago(hours=3)
    due, raised_due = start + 2 * HOUR, start + 4 * HOUR
    escalated = fact("escalated", ticket, start + HOUR / 2, reason="The CEO called.")
    late = responded(ticket, start + 2.5 * HOUR)
    first = opened(ticket, start, channel="email", customer="Acme AB")
    await publish(nc, escalated, late, first)
    await sla.first(ticket, "fulfilled")
    lowered = fact("priority_changed", ticket, start + HOUR, priority="serious")
    await publish(nc, lowered)
    await sla.first(ticket, "fulfilled", 2)
    heard = sla.of(ticket)

    assert [each.kind for each in heard] == [
        "applied", "escalated", "breached", "fulfilled",  # judged at the opening, then by the tick
        "breach_retracted", "fulfilled",  # the deadline was another one
    ]  # fmt: skip
    applied, escalation, breach, answer, retraction, revised = heard
    assert [unquote(each.subject) for each in heard] == [
        "sla.applied.enterprise.critical.LIFE-1",
        "sla.escalated.enterprise.critical.LIFE-1",
        "sla.breached.enterprise.critical.LIFE-1",
        "sla.fulfilled.enterprise.critical.LIFE-1",
        "sla.breach_retracted.enterprise.critical.LIFE-1",
        "sla.fulfilled.enterprise.serious.LIFE-1",
    ]
    for each in heard:
        assert EVERY_ONE | MEMBERS[each.kind] <= each.data.keys()
    assert parse_utc(applied.data["due_at"]) == due
    assert (applied.data["target_seconds"], applied.data["elapsed_seconds"]) == (7200, 0)
    assert (applied.data["cause"], applied.data["cause_id"]) == ("opened", first.event["id"])
    assert parse_utc(applied.event["time"]) == start
    assert escalation.data["tell"] == ["account_manager", "support-escalation"]
    assert (escalation.data["cause_id"], escalation.data["reason"]) == (escalated.event["id"], "The CEO called.")
    assert escalation.data["escalation_level"] == 1
    assert (breach.data["number"], breach.data["breach_id"]) == (1, breach.event["id"])
    assert parse_utc(breach.data["breached_at"]) == parse_utc(breach.event["time"]) == due
    assert (answer.data["met"], answer.data["overdue_seconds"]) == (False, 1800)
    assert parse_utc(answer.data["responded_at"]) == parse_utc(answer.event["time"]) == start + 2.5 * HOUR
    assert (answer.data["revision"], answer.data["replaces"]) == (1, None)
    assert retraction.data["breach_id"] == breach.event["id"]
    assert retraction.data["cause_id"] == lowered.event["id"]
    assert (retraction.data["service_level"], retraction.data["priority"]) == ("enterprise", "critical")
    assert (revised.data["met"], revised.data["overdue_seconds"], revised.data["revision"]) == (True, 0, 2)
    assert revised.data["replaces"] == answer.event["id"]
    assert parse_utc(revised.data["due_at"]) == raised_due


async def test_every_message_is_a_cloudevent_in_structured_mode(nc: Client, sla: Subscriber) -> None:
    await publish(nc, opened("ENVELOPE", ago(hours=3)))
    await sla.first("ENVELOPE", "breached")
    for heard in sla.heard:
        event = heard.event
        assert heard.headers["Content-Type"] == STRUCTURED["Content-Type"]
        assert {name: event[name] for name in ("specversion", "source")} == {"specversion": "1.0", "source": "/sla"}
        assert event["type"].split(".")[0] == "sla" and event["subject"] == event["data"]["ticket_id"]
        assert parse_utc(event["time"]) <= parse_utc(event["data"]["detected_at"])
        assert UUID(event["id"]).version == 5
        assert heard.headers["Nats-Msg-Id"] == event["id"]
        assert (event["data"]["objective"], event["data"]["cycle"]) == ("first_response", 1)
    ids = [heard.event["id"] for heard in sla.heard]
    assert len(set(ids)) == len(ids)


async def test_one_judgement_tells_retracted_then_target_changed_then_the_next_breach(
    nc: Client, sla: Subscriber
) -> None:
    ticket, start = "AGAIN", ago(hours=12)
    await publish(nc, opened(ticket, start, "minor"))
    first = await sla.first(ticket, "breached")
    raised = fact("priority_changed", ticket, start + HOUR, priority="critical")
    await publish(nc, raised)
    second = await sla.first(ticket, "breached", 2)
    assert sla.kinds(ticket)[-4:] == ["breached", "breach_retracted", "target_changed", "breached"]
    retraction, change = sla.of(ticket)[-3:-1]
    assert retraction.data["breach_id"] == first.event["id"] and retraction.data["reason"] == "deadline_moved"
    assert parse_utc(first.data["breached_at"]) == start + 8 * HOUR
    assert (parse_utc(second.data["breached_at"]), second.data["number"]) == (start + 2 * HOUR, 2)
    assert parse_utc(change.data["old_due_at"]) == start + 8 * HOUR
    assert (change.data["old_target_seconds"], change.data["target_seconds"]) == (8 * 3600, 2 * 3600)
    assert second.subject == f"sla.breached.enterprise.critical.{ticket}"
    assert retraction.subject == f"sla.breach_retracted.enterprise.minor.{ticket}"


async def test_a_priority_raised_beyond_what_is_left_breaks_at_the_change(nc: Client, sla: Subscriber) -> None:
    ticket, start = "RAISED", ago(hours=4)
    change = start + 3.5 * HOUR
    await publish(nc, opened(ticket, start, "minor"), fact("priority_changed", ticket, change, priority="critical"))
    breach = await sla.first(ticket, "breached")
    assert parse_utc(breach.data["breached_at"]) == change
    assert (breach.data["cause"], breach.data["elapsed_seconds"]) == ("priority_raised", 3.5 * 3600)


async def test_a_warning_names_its_threshold(nc: Client, sla: Subscriber) -> None:
    start = ago(hours=1.6)
    await publish(nc, opened("WARN", start))
    warning = await sla.first("WARN", "warning")
    assert warning.data["threshold_percent"] == 75  # 80 % are used; of several only the highest is sent
    assert parse_utc(warning.event["time"]) == start + 1.5 * HOUR
    assert warning.subject == "sla.warning.enterprise.critical.WARN"
    assert MEMBERS["warning"] <= warning.data.keys()


async def test_a_breach_comes_within_a_second_of_its_deadline_and_never_before(nc: Client, sla: Subscriber) -> None:
    soon = now() + timedelta(seconds=1)
    deadlines = {f"LIVE-{n}": soon + timedelta(milliseconds=37 * n) for n in range(20)}
    await publish(nc, *(opened(ticket, due - 2 * HOUR) for ticket, due in deadlines.items()))
    late = []
    for ticket, due in deadlines.items():
        breach = await sla.first(ticket, "breached")
        assert parse_utc(breach.data["breached_at"]) == due
        assert due < parse_utc(breach.data["detected_at"]) <= breach.stored_at, f"{ticket} was announced too early"
        assert breach.data["detection"] in ("live", "late")
        late.append(breach.stored_at - due)
    assert sorted(late)[len(late) // 2] < timedelta(seconds=1), late


async def test_a_historic_breach_has_its_own_subject_and_pages_nobody(nc: Client, sla: Subscriber) -> None:
    ticket, start = "HISTORIC", ago(days=3)
    async with subscribed(nc, "sla.breached.>") as pager, subscribed(nc, "sla.breach_retracted.>") as comforter:
        await publish(nc, opened(ticket, start))
        breach = await sla.first(ticket, "breached")
        late = ago(hours=3)
        await publish(nc, responded(ticket, start + HOUR), opened("PAGED", late))
        await pager.first("PAGED", "breached")
        retraction = await sla.first(ticket, "breach_retracted")
        await publish(nc, responded("PAGED", late + HOUR))
        await comforter.first("PAGED", "breach_retracted")
    assert breach.subject == f"sla.breached_historic.enterprise.critical.{ticket}"
    assert (breach.event["type"], breach.data["detection"]) == ("sla.breached", "historic")
    assert pager.of(ticket) == comforter.of(ticket) == []
    assert retraction.subject == f"sla.breach_retracted_historic.enterprise.critical.{ticket}"
    assert retraction.data["breach_id"] == breach.event["id"]


async def test_binary_mode_says_the_same_as_structured_mode(nc: Client, sla: Subscriber) -> None:
    start = ago(hours=3)
    await publish(nc, opened("STRUCTURED", start, id="mode-1"), binary(opened("BINARY", start, id="mode-2")))
    await publish(nc, binary(responded("BINARY", start + HOUR)), responded("STRUCTURED", start + HOUR))
    await publish(nc, Fact(*opened("BARE", start, id="mode-3")[:2], headers={}))  # structured, and nothing says so
    said = []
    for ticket in ("STRUCTURED", "BINARY"):
        answer = await sla.first(ticket, "fulfilled")
        said.append({k: v for k, v in answer.data.items() if k not in ("ticket_id", "cause_id", "detected_at")})
        assert answer.data["met"]
    assert said[0] == said[1]
    await sla.first("BARE", "applied")


ODD_IDS = ("Ärende 42", "a.b.c", "*", ">", "x > y.*", "100%", "~tilde~", "東京-1", "e\u0301", "T/1?q=a&b#c", "x" * 127)


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_any_printable_ticket_id_works(nc: Client, sla: Subscriber, mode: str) -> None:
    for number, odd in enumerate(ODD_IDS):
        ticket = odd + mode[0]
        first = opened(ticket, ago(hours=number / 6))
        await publish(nc, binary(first) if mode == "binary" else first)
        applied = await sla.first(ticket, "applied")
        assert applied.subject == f"sla.applied.enterprise.critical.{token(ticket)}"
        assert applied.data["ticket_id"] == applied.event["subject"] == ticket


# ---- doubles


async def test_a_duplicate_has_no_effect(nc: Client, sla: Subscriber, live: Up) -> None:
    ticket, start = "TWICE", ago(hours=1)
    first, escalation = opened(ticket, start), fact("escalated", ticket, start + HOUR / 2)
    async with connected(live.nats_url) as other:
        for publisher in (nc, other, nc):
            await publish(publisher, first, escalation, binary(first))
    await publish(nc, responded(ticket, now()))
    await sla.first(ticket, "fulfilled")
    assert Counter(sla.kinds(ticket)) - Counter(["warning"]) == Counter(["applied", "escalated", "fulfilled"])
    outcomes = rows(live.store, "SELECT outcome, count(*) FROM inbox WHERE ticket = ? GROUP BY outcome", ticket)
    assert dict(outcomes) == {"recorded": 3, "duplicate": 7}


async def test_two_publishers_may_speak_of_one_ticket(nc: Client, sla: Subscriber, live: Up) -> None:
    ticket, start = "SHARED", ago(hours=1)
    async with connected(live.nats_url) as crm:
        await asyncio.gather(
            publish(nc, opened(ticket, start, id="1", source="/helpdesk")),
            publish(crm, fact("escalated", ticket, start + HOUR / 2, id="1", source="/crm")),
        )
        await sla.first(ticket, "applied")
        await sla.first(ticket, "escalated")


async def test_a_forged_tick_does_nothing(nc: Client, sla: Subscriber, live: Up) -> None:
    await publish(nc, opened("FORGED", ago(hours=0.5)))
    await sla.first("FORGED", "applied")
    for subject in ("clock.due.FORGED", "clock.due.NOBODY"):
        for _ in range(3):
            await nc.jetstream().publish(subject, b"now!")
    await announced(nc, live.store)
    await publish(nc, opened("AFTER-FORGED", ago(hours=0.5)))
    await sla.first("AFTER-FORGED", "applied")
    assert sla.kinds("FORGED") == ["applied"] and sla.of("NOBODY") == []


@pytest.mark.parts
async def test_a_second_copy_of_every_service_doubles_nothing(live: Up, nc: Client, sla: Subscriber) -> None:
    settings = {
        "SLA_NATS_URL": live.nats_url,
        "SLA_DATABASE_URL": address(live.store),
        "SLA_POLICY_DIR": str(live.data.parent / "policy"),
        "SLA_HTTP_PORT": str(free_port()),
    }
    with process(live.data.parent, "run", "clock", "announcer", "intake", "metrics", **settings) as copy:
        standby = Service(copy, f"http://127.0.0.1:{settings['SLA_HTTP_PORT']}")
        await standby.ready()
        due = now() + timedelta(seconds=0.7)
        tickets = [f"COPY-{n}" for n in range(100)]
        await publish(nc, *(opened(ticket, due - 2 * HOUR) for ticket in tickets))
        await publish(nc, *(responded(ticket, ago(hours=1)) for ticket in tickets[50:]))
        for ticket in tickets[:50]:
            await sla.first(ticket, "breached")
        for ticket in tickets[50:]:
            await sla.first(ticket, "fulfilled")
        await announced(nc, live.store)
        assert "sla_metrics_active 0.0" in (await get(f"{standby.http_url}/metrics"))[1]
        copy.end()
    ids = [heard.event["id"] for heard in await stored(nc)]
    assert len(ids) == len(set(ids))
    for ticket in tickets:
        assert max(Counter(sla.kinds(ticket)).values()) == 1, sla.kinds(ticket)


# ---- starting, ending, starting again


@pytest.mark.parts
async def test_after_a_restart_and_a_rebuild_nothing_is_announced_again(tmp_path: Path) -> None:
    policy = open_all_hours(tmp_path / "policy")
    start = ago(hours=3)
    facts = [opened(f"KEPT-{n}", start) for n in range(20)]
    with up(tmp_path, SLA_POLICY_DIR=policy) as first:
        async with connected(first.nats_url) as nc, subscribed(nc) as heard:
            await publish(nc, *facts)
            await publish(nc, *(responded(f"KEPT-{n}", start + n * HOUR / 7) for n in range(20)))
            for n in range(20):
                await heard.first(f"KEPT-{n}", "fulfilled")
            await announced(nc, first.store)
            before = await stored(nc)
    with up(tmp_path, SLA_POLICY_DIR=policy) as second:
        store = second.store.open()
        for view in PROJECTIONS:
            assert sum(rebuild(store, view)) > 0
        store.close()
        async with connected(second.nats_url) as nc, subscribed(nc) as heard:
            await publish(nc, *facts, opened("NEW", ago(hours=0.1)))
            await heard.first("NEW", "applied")
            await announced(nc, second.store)
            after = await stored(nc)
    assert [each[:4] for each in after[: len(before)]] == [each[:4] for each in before]
    assert [each.ticket for each in after[len(before) :]] == ["NEW"]


@pytest.mark.parts
async def test_the_same_stream_judged_again_from_nothing_says_the_same(tmp_path: Path) -> None:
    policy = open_all_hours(tmp_path / "policy")
    start = ago(hours=5)
    tickets = [f"SAME-{n}" for n in range(10)]
    with up(tmp_path / "a", SLA_POLICY_DIR=policy) as first:
        async with connected(first.nats_url) as nc, subscribed(nc) as heard:
            await publish(nc, *(opened(ticket, start) for ticket in tickets))
            for ticket in tickets:
                await heard.first(ticket, "breached")
            await publish(nc, *(responded(t, start + n * HOUR / 3) for n, t in enumerate(tickets)))
            await publish(nc, *(fact("escalated", t, start + HOUR, reason="Ö") for t in tickets))
            for ticket in tickets:
                await heard.first(ticket, "escalated")
            await announced(nc, first.store)
            before = await stored(nc)
    shutil.copytree(tmp_path / "a" / "data" / "nats", tmp_path / "b" / "data" / "nats")
    shutil.rmtree(next((tmp_path / "b").rglob("SLA")))
    with up(tmp_path / "b", SLA_POLICY_DIR=policy) as second:
        async with connected(second.nats_url) as nc:
            await announced(nc, second.store)
            after = await stored(nc)
    kinds = Counter(each.kind for each in before)
    assert kinds == Counter(applied=10, breached=10, breach_retracted=7, fulfilled=10, escalated=10)

    def list_contents(messages: list[Heard]) -> list[tuple[str, bytes]]:
        return [(each.subject, each.body) for each in messages]

    assert list_contents(after) == list_contents(before)


async def test_a_second_engine_on_the_same_folder_is_refused(live: Up) -> None:
    again = await asyncio.to_thread(
        subprocess.run,
        [SLA, "up", "--data", live.data],
        env=environment(SLA_POLICY_DIR=str(live.data.parent / "policy")),
        cwd=live.data.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 1
    assert str(live.data) in again.stderr and "another engine" in again.stderr
    assert "Traceback" not in again.stderr and again.stdout == ""
    assert read_run_file(live.data) == live.nats_url


@pytest.mark.parts
async def test_services_wait_for_nats_and_the_store_then_work_and_end_cleanly(tmp_path: Path) -> None:
    """Started before nats-server and the database exist."""
    server = Server(tmp_path / "nats")
    await server.start()  # to learn a free port
    await server.stop()
    store = new_store(tmp_path / "sla.db")
    addresses = {"SLA_NATS_URL": server.url, "SLA_DATABASE_URL": address(store)}
    deployed = Deployment(tmp_path, server, store, addresses | {"SLA_POLICY_DIR": open_all_hours(tmp_path / "policy")})
    services = [deployed.run("clock"), deployed.run("intake", "announcer", "metrics")]
    try:
        for service in services:

            async def is_waiting(service: Service = service) -> bool:
                status, reasons = await service.readiness()
                return status == 503 and bool(reasons)

            await until("it answers that it is not ready, and why", is_waiting)
        await server.start()
        migrated = Sla(tmp_path, "migrate", **deployed.settings)
        assert await asyncio.to_thread(migrated.process.wait, 60) == 0, migrated.log
        for service in services:
            await service.ready()
        async with connected(server.url) as nc, subscribed(nc) as heard:
            await publish(nc, opened("EARLY", ago(hours=2) + timedelta(seconds=0.5)))
            await heard.first("EARLY", "breached")
        for service in services:
            service.process.end()
    finally:
        for service in services:
            service.process.kill()
        await server.stop()


async def test_the_wish_to_end_is_not_lost_when_it_comes_with_an_answer_of_the_broker() -> None:
    """asyncio.wait_for of Python 3.11, with which nats-py waits for answers, would swallow it."""

    class Asking(EngineService):
        name = "asking"

        async def run(self) -> None:
            await self.run_to_completion(asyncio.wait_for(answer, 10))
            raise AssertionError("it goes on")

    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    service = Asking()
    task = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # now it waits
    answer.set_result(None)
    task.cancel()
    await asyncio.wait([task])
    await service.stop()
    assert task.cancelled()


@pytest.mark.parts
async def test_services_end_at_sigterm_while_they_wait_for_nats(tmp_path: Path) -> None:
    settings = {"SLA_NATS_URL": f"nats://127.0.0.1:{free_port()}", "SLA_DATABASE_URL": f"sqlite:///{tmp_path}/sla.db"}
    port = free_port()
    with process(tmp_path, "run", "clock", "intake", **settings, SLA_HTTP_PORT=str(port)) as waiting:
        service = Service(waiting, f"http://127.0.0.1:{port}")

        async def is_answering() -> bool:
            return (await service.readiness())[0] == 503

        await until("it answers", is_answering)
        waiting.end()
