"""docker-compose.yml in containers: a breach from the publisher to Alertmanager, outages, and who may do what."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.compose import stand_ins
from tests.compose.podman import Podman, run
from tests.compose.stack import ROOT, Stack, container, fresh_clone, refusal
from tests.support.bus import ago

BUILD = ROOT / "build" / "compose"
COUNTED = (
    'sla_breaches_total{objective="first_response",service_level="enterprise",priority="critical",detection="live"}'
)

pytestmark = [pytest.mark.compose, pytest.mark.needs_kernel]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Up as the documentation says, but for images that are made here; down afterwards, whatever happened."""
    if reason := stand_ins.lacking():
        assert not os.environ.get("REQUIRE_PARTS"), reason
        pytest.skip(reason)
    if os.geteuid() != 0:
        pytest.skip("podman is run as root here")
    podman = Podman(BUILD / "podman")
    if reason := refusal(podman, stand_ins.base(podman, BUILD / "stand-ins")):
        pytest.skip(f"no container can be run here: {reason}")
    stand_ins.build(podman, BUILD / "stand-ins")
    stack = Stack(podman, fresh_clone(BUILD / "clone"))
    run(stack.folder / "deploy" / "make-secrets")
    stack.compose("down", "--volumes")
    stack.compose("build", "nats", "migrate")  # all others of ours have the image of migrate
    try:
        stack.compose("up", "--detach", "--no-build", *stack.services)
        stack.soon("every service is well", lambda: not stack.unwell())
        yield stack
    finally:
        stack.compose("down", "--volumes")


def opened(stack: Stack, ticket: str) -> None:
    """A ticket whose promise breaks in five seconds."""
    at = ago(hours=1, minutes=59, seconds=55).isoformat()
    stack.publish("opened", ticket, "--level", "enterprise", "--priority", "critical", "--at", at)


def counted(stack: Stack) -> float | None:
    """The breaches that Prometheus has seen; None if it knows of no such series."""
    answer = stack.asked("prometheus", f"/api/v1/query?query={quote(COUNTED)}")
    return float(answer["data"]["result"][0]["value"][1]) if answer and answer["data"]["result"] else None


def alerts(stack: Stack) -> dict[str, Any]:
    """What is active in Alertmanager, by name."""
    return {each["labels"]["alertname"]: each for each in stack.asked("alertmanager", "/api/v2/alerts") or ()}


def test_a_breach_is_seen_on_nats_in_prometheus_and_in_alertmanager(stack: Stack) -> None:
    stack.soon("Prometheus knows the counter, at 0", lambda: counted(stack) == 0)
    with stack.breaches() as heard:
        opened(stack, "T-1")
        breach = stack.soon("the breach on NATS", lambda: heard().get("T-1"))
    print("NATS:", breach["type"], breach["subject"], breach["data"]["due_at"], breach["data"]["severity"])
    print("Prometheus:", COUNTED, stack.soon("the breach in Prometheus", lambda: counted(stack)))
    alert = stack.soon("the alert of Prometheus in Alertmanager", lambda: alerts(stack).get("SlaBreached"))
    print("Alertmanager:", alert["labels"], alert["annotations"]["summary"])
    assert breach["data"]["detection"] == "live" and counted(stack) == 1
    assert alert["labels"]["service_level"] == "enterprise" and alert["labels"]["severity"] == "critical"
    told = stack.soon("the alert of the notifier in Alertmanager", lambda: alerts(stack).get("SlaTicketBreached"))
    print("Alertmanager, by the notifier:", told["labels"], told["annotations"]["summary"])


def test_the_board_shows_it_to_who_has_its_token(stack: Stack) -> None:
    token = (stack.folder / "secrets" / "board_token").read_text(encoding="utf-8").strip()
    shown = stack.soon("the ticket on the board", lambda: stack.asked("board", "/api/tickets/T-1", token))
    assert shown["breached"] is True
    assert stack.asked("board", "/api/tickets/T-1") is None
    assert stack.asked("board", "/api/tickets/T-1", "guessed") is None


@pytest.mark.parametrize("service", ["postgres", "nats", "intake-1", "announcer"])
def test_a_container_that_dies_comes_back_and_no_breach_is_missed(stack: Stack, service: str) -> None:
    before = stack.pid(service)
    os.kill(before, signal.SIGKILL)
    stack.soon(f"{service} is there again", lambda: stack.pid(service) not in (0, before))
    stack.soon("every service is well", lambda: not stack.unwell())
    with stack.breaches() as heard:
        opened(stack, f"T-{service}")
        stack.soon("the breach on NATS", lambda: heard().get(f"T-{service}"))


def test_passwords_are_changed_while_the_rest_goes_on(stack: Stack) -> None:
    secrets = stack.folder / "secrets"
    old = {name: (secrets / name).read_text(encoding="utf-8") for name in ("nats_clock", "database_clock")}
    for name in old:
        (secrets / name).write_text("", encoding="utf-8")
    run(stack.folder / "deploy" / "make-secrets")
    stack.compose("kill", "-s", "HUP", "nats")
    stack.soon("the old one is refused", lambda: "clock" in stack.unwell())
    set_them = (secrets / "passwords.sql").read_text(encoding="utf-8")
    stack.compose("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "sla", stdin=set_them)
    stack.compose("restart", "clock")
    stack.soon("every service is well", lambda: not stack.unwell())
    assert old.items().isdisjoint({name: (secrets / name).read_text(encoding="utf-8") for name in old}.items())
    with stack.breaches() as heard:
        opened(stack, "T-passwords")
        stack.soon("the breach on NATS", lambda: heard().get("T-passwords"))


def test_no_container_has_rights_that_it_does_not_need(stack: Stack) -> None:
    for service in stack.services.keys() - {"migrate"}:
        status = Path(f"/proc/{stack.pid(service)}/status").read_text(encoding="utf-8")
        says = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in says["Uid"].split(), f"{service} runs as root"
        assert int(says["CapEff"], 16) == int(says["CapBnd"], 16) == 0 and says["NoNewPrivs"] == "1", service
        host = stack.inspect(service)["HostConfig"]
        assert host["ReadonlyRootfs"] and host["Memory"] and host["NanoCpus"] and host["PidsLimit"], service
        with pytest.raises(AssertionError, match="Read-only file system"):
            stack.podman("exec", container(service), "touch", "/usr/here")
        for bindings in host["PortBindings"].values():
            assert {each["HostIp"] for each in bindings or ()} <= {"127.0.0.1"}, service


def test_only_who_needs_the_store_can_reach_it(stack: Stack) -> None:
    def connect(service: str, address: str) -> None:
        code = f"import socket; socket.create_connection(({address!r}, 5432), timeout=2)"
        stack.podman("exec", container(service), "python", "-c", code)

    for network in stack.inspect("postgres")["NetworkSettings"]["Networks"].values():
        connect("clock", network["IPAddress"])
        for service in ("nats", "notifier", "prometheus", "alertmanager"):
            with pytest.raises(AssertionError, match=r"timed out|unreachable|refused"):
                connect(service, network["IPAddress"])


def test_no_password_is_in_a_log_or_in_what_podman_knows_of_a_container(stack: Stack) -> None:
    secrets = [each.read_text(encoding="utf-8").strip() for each in (stack.folder / "secrets").iterdir()]
    words = [word.rpartition(":")[2].partition("@")[0] for word in secrets if word and "\n" not in word]
    assert len(words) > 10
    for service in stack.services:
        told = stack.log(service) + str(stack.inspect(service))
        assert [word for word in words if word in told] == [], service


def test_the_image_has_the_engine_and_no_tools_to_build_with(stack: Stack) -> None:
    found = stack.podman("exec", container("clock"), "ls", "/opt/sla/bin").split()
    assert "sla" in found and not [name for name in found if name.startswith(("pip", "easy_install"))]
    with pytest.raises(AssertionError, match="No module named pip"):
        stack.podman("exec", container("clock"), "python", "-m", "pip")


def test_all_of_ours_end_in_peace_when_they_are_asked_to(stack: Stack) -> None:
    ours = [name for name, each in stack.services.items() if each["image"].startswith("sla-engine")]
    stack.compose("stop", *ours)  # first: without bus and store they may have to give up, which is no peace
    stack.compose("stop")
    ends = {name: stack.inspect(name)["State"]["ExitCode"] for name in stack.services}
    assert {name: (code, stack.log(name)[-1500:]) for name, code in ends.items() if code != 0} == {}
