"""The notifier: `sla run notifier` with a real nats-server, real Alertmanager, and a web server that can be away."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from nats.aio.client import Client
from standardwebhooks import Webhook, WebhookVerificationError

from events.examples import EXAMPLES
from events.promises import ANNOUNCEMENT_TYPES, Announcement, build_announcement_message, make_event_id, make_subject
from services.maintenance.provision import provision_bus
from services.notifier.receivers import Notify, NotifyError, Receivers, parse_notify
from services.text.phrases import write_body, write_title
from tests.support.bus import (
    SLA,
    Fact,
    Guarded,
    Service,
    Sla,
    ago,
    connected,
    environment,
    free_port,
    nats_server,
    now,
    open_all_hours,
    opened,
    process,
    publish,
    responded,
    samples,
    stored,
    total,
    until,
    up,
)
from tests.support.receivers import CONFIG, Hook, alertmanager, hook

pytestmark = [pytest.mark.parts, pytest.mark.anyio, pytest.mark.xdist_group("notifier")]
needs_alertmanager = pytest.mark.skipif(
    shutil.which("amtool") is None and not os.environ.get("REQUIRE_PARTS"),
    reason="Debian's prometheus-alertmanager is missing",
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = timedelta(days=1)


# ---- what the engine announces


def make_announcement(kind: str, ticket: str = "T-1", **changed: Any) -> Announcement:
    """The example of a kind, of a ticket of today and with members changed."""
    at = now() - timedelta(minutes=1)
    times = {"breached_at": at, "due_at": at, "detected_at": at, "started_at": at - timedelta(hours=4)}
    data = EXAMPLES[f"sla.{kind}"]["data"]
    data = data | {name: value.isoformat() for name, value in times.items() if name in data}
    changed = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in changed.items()}
    typed = ANNOUNCEMENT_TYPES[f"sla.{kind}"].model_validate_json(json.dumps({**data, "ticket_id": ticket, **changed}))
    return Announcement(make_event_id(ticket, "first_response", 1, kind, 1, 1), ticket, at, typed)


def make_message(event: Announcement, historic: bool = False) -> Fact:
    """As the announcer publishes it."""
    data = event.data
    kind = data.type.removeprefix("sla.")
    headers, body = build_announcement_message(data.type, event.id, event.ticket, event.time, data.model_dump())
    subject = make_subject(kind, data.service_level, data.priority, event.ticket, historic)
    return Fact(subject, body, headers)


async def announce(nc: Client, *events: Announcement) -> None:
    for subject, body, headers in map(make_message, events):
        await nc.jetstream().publish(subject, body, headers=headers, stream="SLA")


# ---- the notifier of a test


def build_notify(**more: Any) -> str:
    """SLA_NOTIFY of webhooks by name, and what else it says."""
    hooks = {name: {"webhook": value, "secret": SECRET} for name, value in more.items() if isinstance(value, str)}
    return yaml.safe_dump(
        {"targets": hooks, "breaches": list(hooks), **{n: v for n, v in more.items() if n not in hooks}}
    )


class Scene(NamedTuple):
    """A nats-server with the streams, and a notifier on it, which has no database."""

    folder: Path
    url: str
    nc: Client
    settings: dict[str, str]

    def run(self) -> Service:
        port = free_port()
        started = Sla(self.folder, "run", "notifier", **self.settings | {"SLA_HTTP_PORT": str(port)})
        return Service(started, f"http://127.0.0.1:{port}")

    async def migrate(self) -> None:
        await provision_bus(self.url, notify=self.settings.get("SLA_NOTIFY"))


@asynccontextmanager
async def prepare_scene(folder: Path, **settings: str) -> AsyncIterator[Scene]:
    async with nats_server(folder / "nats") as server, connected(server.url) as nc:
        found = Scene(folder, server.url, nc, {"SLA_NATS_URL": server.url, **settings})
        await found.migrate()
        yield found


@asynccontextmanager
async def run_notifier(scene: Scene) -> AsyncIterator[Service]:
    """Ready; it must end well if the test did not end it."""
    service = scene.run()
    try:
        await service.ready()
        yield service
        if service.process.running():
            service.process.end()
    finally:
        if service.process.running():
            service.process.give_up()


async def count_tries(service: Service, target: str, outcome: str) -> float:
    return total(await samples(service.http_url), "sla_notifications_total", target=target, outcome=outcome)


async def wait_for_requests(hook: Hook, number: int) -> None:
    await until(f"{number} requests", lambda: len(hook.requests) >= number)


# ---- Alertmanager


@needs_alertmanager
def test_the_configuration_is_what_alertmanager_reads() -> None:
    done = subprocess.run(["amtool", "check-config", str(CONFIG)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_alertmanager
@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "pager"), ("error", "support"), ("warning", "support")]
)
def test_alerts_are_routed_by_severity(severity: str, receiver: str) -> None:
    command = ["amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"severity={severity}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == receiver


@needs_alertmanager
async def test_a_breach_is_an_alert_until_it_is_withdrawn_answered_or_cancelled(tmp_path: Path) -> None:
    with alertmanager(tmp_path / "alertmanager") as manager:
        async with prepare_scene(tmp_path, SLA_ALERTMANAGER_URL=manager.url) as at, run_notifier(at) as service:
            tickets = ("withdrawn", "answered", "cancelled")
            await announce(at.nc, *(make_announcement("breached", ticket) for ticket in tickets))
            await until("all fire", lambda: all(manager.of(ticket) for ticket in tickets))
            (alert,) = manager.of("answered")
            assert alert["labels"] == {
                "alertname": "SlaTicketBreached",
                "ticket": "answered",
                "service_level": "foundation",
                "priority": "critical",
                "objective": "first_response",
                "cycle": "1",
                "severity": "critical",
            }
            assert alert["annotations"]["summary"] == "SLA breached: answered (foundation, critical)"
            assert re.search(r"CES?T, 1 min ago", alert["annotations"]["description"])
            assert alert["receivers"] == [{"name": "pager"}]
            await announce(
                at.nc,
                make_announcement("breach_retracted", "withdrawn"),
                make_announcement("fulfilled", "answered", met=False, overdue_seconds=60),
                make_announcement("cancelled", "cancelled"),
            )
            await until("none fires", lambda: not manager.alerts(alertname="SlaTicketBreached"))
            await announce(
                at.nc,
                make_announcement("target_changed", "cancelled"),
                make_announcement("target_changed", "withdrawn"),
            )
            await until("the one that was reopened fires again", lambda: manager.of("cancelled"))
            assert not manager.of("withdrawn") and not manager.of("answered")
            assert await count_tries(service, "alertmanager", "sent") >= 3
            assert await count_tries(service, "alertmanager", "retried") == 0


@needs_alertmanager
async def test_an_alert_is_sent_again_so_that_an_alertmanager_that_lost_it_has_it_back(tmp_path: Path) -> None:
    port = free_port()
    async with (
        prepare_scene(tmp_path, SLA_ALERTMANAGER_URL=f"http://127.0.0.1:{port}") as at,
        run_notifier(at) as service,
    ):
        with alertmanager(tmp_path / "first", port) as manager:
            await announce(at.nc, make_announcement("breached"))
            (first,) = await until("it fires", lambda: manager.of("T-1"))

            def again() -> bool:
                (alert,) = manager.of("T-1")
                return bool(alert["updatedAt"] > first["updatedAt"] and alert["endsAt"] > first["endsAt"])

            await until("it is sent again", again)
            assert manager.of("T-1")[0]["startsAt"] == first["startsAt"]
        await until("a try failed", lambda: count_tries(service, "alertmanager", "retried"))
        assert (await service.readiness())[0] == 200, "a target that is away is not our part"
        with alertmanager(tmp_path / "second", port) as manager:
            await until("it fires there too", lambda: manager.of("T-1"))


@needs_alertmanager
async def test_after_kill_9_the_alerts_are_known_again_and_what_ended_meanwhile_is_resolved(tmp_path: Path) -> None:
    with alertmanager(tmp_path / "alertmanager") as manager:
        async with prepare_scene(tmp_path, SLA_ALERTMANAGER_URL=manager.url) as at:
            async with run_notifier(at) as service:
                await announce(at.nc, make_announcement("breached", "stays"), make_announcement("breached", "ends"))
                await until("both fire", lambda: manager.of("stays") and manager.of("ends"))
                before = manager.of("stays")[0]["updatedAt"]
                service.process.kill()
            await announce(at.nc, make_announcement("fulfilled", "ends", met=False, overdue_seconds=60))
            async with run_notifier(at):
                await until("one is resolved", lambda: not manager.of("ends"))
                await until("the other one is sent again", lambda: manager.of("stays")[0]["updatedAt"] > before)


async def test_at_its_start_it_says_nothing_before_it_has_heard_everything(tmp_path: Path) -> None:
    with hook() as manager:
        async with prepare_scene(tmp_path, SLA_ALERTMANAGER_URL=manager.url) as at:
            tickets = [f"answered-{number}" for number in range(600)]
            await announce(at.nc, *(make_announcement("breached", ticket) for ticket in tickets))
            await announce(at.nc, *(make_announcement("fulfilled", ticket, met=False) for ticket in tickets))
            async with run_notifier(at):
                await announce(at.nc, make_announcement("breached", "waits"))
                await until("it is told", lambda: "waits" in list_fired(manager))
                assert list_fired(manager) == {"waits"}


def list_fired(manager: Hook) -> set[str]:
    """The tickets of all alerts that were ever sent as firing."""
    alerts = [alert for request in list(manager.requests) for alert in json.loads(request.body)]
    return {alert["labels"]["ticket"] for alert in alerts if datetime.fromisoformat(alert["endsAt"]) > now()}


@needs_alertmanager
async def test_a_breach_of_the_engine_reaches_alertmanager_and_the_answer_resolves_it(tmp_path: Path) -> None:
    hours = open_all_hours(tmp_path / "policy")
    with (
        alertmanager(tmp_path / "alertmanager") as manager,
        hook() as pager,
        up(
            tmp_path, SLA_POLICY_DIR=hours, SLA_ALERTMANAGER_URL=manager.url, SLA_NOTIFY=build_notify(pager=pager.url)
        ) as engine,
    ):
        async with connected(engine.nats_url) as nc:
            await publish(nc, opened("T-1", ago(hours=2, minutes=1)))
            await until("it fires", lambda: manager.of("T-1"))
            await wait_for_requests(pager, 1)
            await publish(nc, responded("T-1", ago(seconds=1)))
            await until("it is resolved", lambda: not manager.of("T-1"))
            await wait_for_requests(pager, 2)
        assert [json.loads(request.body)["type"] for request in pager.requests] == ["sla.breached", "sla.fulfilled"]


# ---- webhooks


async def test_a_webhook_gets_the_event_byte_for_byte_and_signed(tmp_path: Path) -> None:
    with hook() as pager:
        async with (
            prepare_scene(tmp_path, SLA_NOTIFY=build_notify(pager=f"{pager.url}/sla?team=1")) as at,
            run_notifier(at) as service,
        ):
            breach = make_announcement("breached", "två")
            await announce(at.nc, breach)
            await wait_for_requests(pager, 1)
            (request,) = pager.requests
            assert request.path == "/sla?team=1"
            assert request.headers["webhook-id"] == breach.id
            assert request.body == make_message(breach).body
            assert Webhook(SECRET).verify(request.body, request.headers)["subject"] == "två"
            with pytest.raises(WebhookVerificationError):
                Webhook(SECRET).verify(request.body.replace(b"critical", b"harmless"), request.headers)
            await until("it is counted", lambda: count_tries(service, "webhook", "sent"))


async def test_a_target_that_fails_is_tried_again_later_each_time_with_the_same_id(tmp_path: Path) -> None:
    with hook() as pager:
        pager.answers = [503, 429, 408]
        async with prepare_scene(tmp_path, SLA_NOTIFY=build_notify(pager=pager.url)) as at, run_notifier(at) as service:
            await announce(at.nc, make_announcement("breached"))
            await wait_for_requests(pager, 4)
            pauses = [later.at - earlier.at for earlier, later in zip(pager.requests, pager.requests[1:], strict=False)]
            for pause, least in zip(pauses, (1, 2, 4), strict=True):
                assert pause >= least
            assert len({request.headers["webhook-id"] for request in pager.requests}) == 1
            await until("it is counted", lambda: count_tries(service, "webhook", "sent"))
            assert await count_tries(service, "webhook", "retried") == 3
            assert await count_tries(service, "webhook", "given_up") == 0


async def test_what_a_target_refuses_is_given_up_at_once_and_kept(tmp_path: Path) -> None:
    with hook() as pager:
        pager.answers = [400]
        async with prepare_scene(tmp_path, SLA_NOTIFY=build_notify(pager=pager.url)) as at, run_notifier(at) as service:
            breaches = {ticket: make_announcement("breached", ticket) for ticket in ("T-1", "T-2")}
            await announce(at.nc, *breaches.values())
            (kept,) = await until("it is kept", lambda: stored(at.nc, "UNDELIVERED", "undelivered.*"))
            refused = pager.tickets()[0]
            assert kept.subject == "undelivered.pager" and kept.ticket == refused
            assert kept.body == make_message(breaches[refused]).body
            assert kept.headers["Sla-Target"] == "pager" and "it answers 400" in kept.headers["Sla-Error"]
            assert kept.headers["Sla-Subject"] == f"sla.breached.foundation.critical.{refused}"
            await until("the other one is told", lambda: count_tries(service, "webhook", "sent"))
            assert await count_tries(service, "webhook", "given_up") == 1
            assert await count_tries(service, "webhook", "retried") == 0


async def test_a_target_that_is_away_for_too_long_is_given_up_and_what_it_missed_is_kept(tmp_path: Path) -> None:
    settings = {"SLA_NOTIFY": build_notify(pager=f"http://127.0.0.1:{free_port()}"), "SLA_NOTIFY_FOR": "2s"}
    async with prepare_scene(tmp_path, **settings) as at, run_notifier(at) as service:
        await announce(at.nc, make_announcement("breached"))
        (kept,) = await until("it is kept", lambda: stored(at.nc, "UNDELIVERED", "undelivered.*"))
        assert kept.ticket == "T-1" and kept.headers["Sla-Error"]
        assert await count_tries(service, "webhook", "retried") >= 1
        await until("it is counted", lambda: count_tries(service, "webhook", "given_up"))


async def test_a_target_that_hangs_delays_no_other_one_and_the_process_still_ends_in_time(tmp_path: Path) -> None:
    with hook() as slow, hook() as pager:
        slow.hangs = True
        async with (
            prepare_scene(tmp_path, SLA_NOTIFY=build_notify(slow=slow.url, pager=pager.url)) as at,
            run_notifier(at) as service,
        ):
            await announce(at.nc, *(make_announcement("breached", f"T-{n}") for n in range(50)))
            await until("all are told", lambda: len(set(pager.tickets())) == 50, within=5)
            assert len(slow.requests) <= 8
            service.process.end()


async def test_two_notifiers_share_what_is_to_be_told_and_an_alert_of_both_is_one(tmp_path: Path) -> None:
    with hook() as pager, hook() as manager:
        settings = {"SLA_NOTIFY": build_notify(pager=pager.url), "SLA_ALERTMANAGER_URL": manager.url}
        async with prepare_scene(tmp_path, **settings) as at, run_notifier(at) as one, run_notifier(at) as other:
            tickets = {f"T-{number}" for number in range(30)}
            await announce(at.nc, *(make_announcement("breached", ticket) for ticket in tickets))

            async def told() -> bool:
                return await count_tries(one, "webhook", "sent") + await count_tries(other, "webhook", "sent") >= len(
                    tickets
                )

            await until("all are told", told)
            assert sorted(pager.tickets()) == sorted(tickets)
            await until("both tell all alerts", lambda: list_fired(manager) == tickets)
            labels = {
                tuple(sorted(each["labels"].items())) for got in manager.requests for each in json.loads(got.body)
            }
            assert len(labels) == len(tickets)


async def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    with hook() as pager:
        pager.hangs = True
        async with prepare_scene(tmp_path, SLA_NOTIFY=build_notify(pager=pager.url)) as at:
            async with run_notifier(at) as service:
                await announce(at.nc, make_announcement("breached", "under way"))
                await wait_for_requests(pager, 1)
                service.process.kill()
            pager.hangs = False
            pager.released.set()
            await announce(at.nc, make_announcement("breached", "meanwhile"))
            async with run_notifier(at):
                await until("both are told", lambda: len(pager.tickets()) == 3)
            ids = [request.headers["webhook-id"] for request in pager.requests]
            assert sorted(pager.tickets()) == ["meanwhile", "under way", "under way"]
            assert len(set(ids)) == 2, "whoever is told twice can see it"


# ---- who receives what


NOTIFY = parse_notify(
    """
    targets:
      pager: {apprise: "json://127.0.0.1:1"}
      mailbox: {apprise: "json://127.0.0.1:2"}
      manager: {apprise: "json://127.0.0.1:3"}
    breaches: [pager]
    recipients:
      support-escalation: [mailbox]
      account_manager: [manager, mailbox]
    """
)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (make_announcement("breached"), {"pager"}),
        (make_announcement("breached", detected_at=now() + 2 * DAY), {"pager"}),
        (make_announcement("breach_retracted", detected_at=now() + 2 * DAY), {"pager"}),
        (make_announcement("fulfilled", met=True), set()),
        (make_announcement("fulfilled", met=False), {"pager"}),
        (make_announcement("fulfilled", met=False, detected_at=now() + 2 * DAY), set()),
        (make_announcement("cancelled", detection=None, elapsed_seconds=14401), set()),
        (make_announcement("cancelled", detection="late", elapsed_seconds=60), {"pager"}),
        (make_announcement("breached", detection="historic"), set()),
        (make_announcement("breach_retracted", detection="historic"), set()),
        (make_announcement("fulfilled", met=False, detection="historic"), set()),
        (make_announcement("cancelled", detection="historic"), set()),
        (make_announcement("target_changed"), set()),
        (make_announcement("overdue"), {"pager"}),
        (make_announcement("overdue", detected_at=now() + 2 * DAY), set()),
        (make_announcement("escalated", tell=["support-escalation"]), {"mailbox"}),
        (make_announcement("escalated", tell=["account_manager", "support-escalation"]), {"manager", "mailbox"}),
        (make_announcement("escalated", tell=["somebody else"]), {"pager"}),
        (make_announcement("escalated", detected_at=now() + 2 * DAY), set()),
    ],
)
def test_each_announcement_has_its_receivers(event: Announcement, told: set[str]) -> None:
    assert Receivers(NOTIFY, DAY, "UTC").find_receivers(event) == told


@pytest.mark.parametrize(
    ("zone", "text"), [("Europe/Stockholm", "2026-07-01 14:30 CEST"), ("Asia/Kolkata", "2026-07-01 18:00 IST")]
)
def test_times_in_a_notice_are_those_of_the_zone(zone: str, text: str) -> None:
    due = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
    late, gone = make_announcement("breached", due_at=due), make_announcement("breach_retracted", breached_at=due)
    assert write_body(late, due + DAY, zone).startswith(f"First response due {text}, 24 h 0 min ago.")
    assert write_body(gone, due + DAY, zone).startswith(f"The breach of {text} turned out")


def test_a_notice_of_a_resolution_asks_for_no_answer() -> None:
    late = make_announcement("breached", objective="resolution")
    assert "Solve it and close the ticket: that ends the alert." in write_body(late, now(), "UTC")
    for cause, word in (("responded", "answered"), ("closed", "closed")):
        done = make_announcement("fulfilled", met=False, cause=cause)
        assert f", {word} 20" in write_body(done, now(), "UTC")
        assert write_title(done).startswith(f"{word.capitalize()} late: ")


async def test_an_escalation_goes_to_its_recipients_by_apprise_and_a_historic_breach_to_nobody(tmp_path: Path) -> None:
    with hook() as pager, hook() as mailbox:
        settings = build_notify(pager=pager.url, recipients={"support-escalation": ["mailbox"]})
        targets = yaml.safe_load(settings)
        targets["targets"]["mailbox"] = {"apprise": mailbox.url.replace("http", "json")}
        async with prepare_scene(tmp_path, SLA_NOTIFY=yaml.safe_dump(targets)) as at, run_notifier(at) as service:
            subject, body, headers = make_message(make_announcement("breached", "imported"), historic=True)
            await at.nc.jetstream().publish(subject, body, headers=headers, stream="SLA")
            await announce(at.nc, make_announcement("escalated", "T-1\n", reason="The director\ncalled"))
            await announce(at.nc, make_announcement("breached", "T-2"))
            await wait_for_requests(mailbox, 1)
            await wait_for_requests(pager, 1)
            told = json.loads(mailbox.requests[0].body)
            assert told["title"] == "Escalated: T-1  (foundation, critical)"
            assert "For support-escalation: The director called." in told["message"] and "\n" not in told["message"]
            assert re.search(r"due [-0-9]{10} [0-9:]{5} CES?T\.", told["message"]), "in the zone of the policy"
            await until("it is counted", lambda: count_tries(service, "apprise", "sent"))
            assert pager.tickets() == ["T-2"] and len(mailbox.requests) == 1


# ---- set-up


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets: [", "is not YAML, in line 1"),
        ("- pager", "valid dictionary"),
        ("target: {}", "target: Extra inputs are not permitted"),
        ("targets: {Pager: {apprise: 'json://x'}}", "targets: Pager"),
        (
            "targets: {pager: {webhook: 'https://x/y'}}",
            "targets: pager: Value error, a target has a webhook and its secret",
        ),
        ("targets: {pager: {webhook: 'ftp://x', secret: whsec_}}", "begins with https:// or http://"),
        ("targets: {pager: {webhook: 'https://x', secret: 'hunter2'}}", "a secret is whsec_ and at least 24 bytes"),
        ("breaches: [pager]", "breaches: pager is not in targets"),
        ("recipients: {manager: [mail]}", "manager: mail is not in targets"),
    ],
)
def test_a_wrong_setting_says_where_and_what_is_right_in_one_line_without_the_secret(text: str, said: str) -> None:
    with pytest.raises(NotifyError) as error:
        parse_notify(text)
    assert said in str(error.value) and str(error.value).startswith("SLA_NOTIFY")
    assert "\n" not in str(error.value) and "hunter2" not in str(error.value)


def test_an_address_that_apprise_does_not_know_is_named_without_its_password() -> None:
    with pytest.raises(
        NotifyError, match="SLA_NOTIFY: targets: mailbox: nonsense:… is no address that Apprise"
    ) as error:
        Receivers(Notify.model_validate({"targets": {"mailbox": {"apprise": "nonsense://user:hunter2@x"}}}), DAY, "UTC")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({}, 2, "notifier has nobody to tell; set SLA_ALERTMANAGER_URL, or SLA_NOTIFY_FILE"),
        ({"SLA_NOTIFY": "targets: ["}, 1, "SLA_NOTIFY is not YAML"),
        ({"SLA_ALERTMANAGER_URL": "alertmanager:9093"}, 2, "an Alertmanager has an address like http://127.0.0.1:9093"),
        ({"SLA_NOTIFY_FILE": "/nowhere"}, 2, "SLA_NOTIFY_FILE: /nowhere: No such file"),
    ],
)
def test_the_process_does_not_start_with_a_wrong_setting(settings: dict[str, str], code: int, said: str) -> None:
    found = environment(SLA_NATS_URL="nats://127.0.0.1:1", **settings)
    done = subprocess.run([SLA, "run", "notifier"], env=found, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1) and said in done.stderr


async def test_without_its_consumer_it_says_what_to_run_and_goes_on_once_that_is_done(tmp_path: Path) -> None:
    with hook() as pager:
        async with prepare_scene(tmp_path, SLA_NOTIFY=build_notify(pager=pager.url)) as at, run_notifier(at) as service:
            shown = [each for each in await samples(service.http_url) if each.name == "sla_notifications_total"]
            assert len(shown) == 9 and {each.value for each in shown} == {0}
            await at.nc.jetstream().delete_consumer("SLA", "notifier_pager")

            async def says() -> bool:
                return "run `sla migrate`" in (await service.readiness())[1].get("notifier", "")

            await until("it says so", says)
            await at.migrate()
            await service.ready()
            await announce(at.nc, make_announcement("breached"))
            await wait_for_requests(pager, 1)


async def test_a_connection_that_is_ended_for_good_does_not_freeze_the_process(tmp_path: Path) -> None:
    guard = Guarded(tmp_path, subscriptions=2)
    guard.allow()
    settings = {
        "SLA_NATS_URL": guard.url,
        "SLA_NOTIFY": build_notify(one="http://127.0.0.1:1", two="http://127.0.0.1:2"),
    }
    with guard.started():
        await provision_bus(guard.url, notify=settings["SLA_NOTIFY"])
        port = free_port()
        with process(tmp_path, "run", "notifier", **settings, SLA_HTTP_PORT=str(port)) as started:
            service = Service(started, f"http://127.0.0.1:{port}")

            async def says() -> bool:
                return "ended the connection for good" in (await service.readiness())[1].get("notifier", "")

            await until("it says so", says)
            started.end()


async def test_a_new_target_hears_nothing_of_the_past(tmp_path: Path) -> None:
    with hook() as pager:
        async with prepare_scene(tmp_path) as before:
            await announce(before.nc, make_announcement("breached", "past"))
            at = before._replace(settings=before.settings | {"SLA_NOTIFY": build_notify(pager=pager.url)})
            await at.migrate()
            async with run_notifier(at):
                await announce(at.nc, make_announcement("breached", "T-1"))
                await wait_for_requests(pager, 1)
                assert pager.tickets() == ["T-1"]


async def test_it_waits_for_nats_and_survives_its_restart(tmp_path: Path) -> None:
    with hook() as pager:
        async with nats_server(tmp_path / "nats") as server:
            settings = {"SLA_NATS_URL": server.url, "SLA_NOTIFY": build_notify(pager=pager.url)}
            await provision_bus(server.url, notify=settings["SLA_NOTIFY"])
            await server.stop()
            port = free_port()
            with process(tmp_path, "run", "notifier", **settings, SLA_HTTP_PORT=str(port)) as started:
                service = Service(started, f"http://127.0.0.1:{port}")
                await until("it waits", lambda: is_waiting(service))
                for ticket in ("first", "second"):
                    await server.start()
                    await service.ready()
                    async with connected(server.url) as nc:
                        await announce(nc, make_announcement("breached", ticket))
                        await until(f"{ticket} is told", lambda ticket=ticket: ticket in pager.tickets())
                    await server.kill()
                    await until("it waits", lambda: is_waiting(service))
                started.end()


async def is_waiting(service: Service) -> bool:
    return "bus" in (await service.readiness())[1]
