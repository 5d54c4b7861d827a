"""Who may do what on the bus: every user of deploy/nats on every subject and by every answer; the services as users."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.bus.streams import STREAMS
from tests.support.bus import (
    PATIENCE,
    SLA,
    Broker,
    Fact,
    ago,
    environment,
    free_port,
    open_all_hours,
    opened,
    process,
    publish,
    readiness,
    until,
)

pytestmark = [pytest.mark.parts, pytest.mark.anyio]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


USERS = (
    *("publisher", "intake", "clock", "announcer", "metrics", "board"),
    *("notifier", "subscriber", "operator", "provisioner"),
)
CONFIGS = {config.name: config.as_dict() for config in STREAMS}
DURABLE = {"durable_name": "subscriber", "name": "subscriber"}


def define(stream: str, subject: str = "", **config: Any) -> dict[str, Any]:
    config = {"ack_policy": "none", "mem_storage": True, "filter_subject": subject} | config
    return {"stream_name": stream, "config": config}


class Attempt(NamedTuple):
    """
    Something to try, and the users that may: to publish on a subject, to `hear` it, or to `ask` JetStream, which is to
    publish on $JS.API.….
    """

    what: str
    allowed: str
    body: Any = None

    def is_allowed(self, user: str) -> bool:
        return user in self.allowed.split()

    def is_understood(self, answer: dict[str, Any] | None) -> bool:
        """Whether the answer, if there is one, is no more than that the thing is not there, or is there already."""
        found = (answer or {}).get("error", {}).get("code")
        return found in (None, 404) or (found == 400 and "RESTORE" in self.what)


LAST = {"last_by_subj": ">"}
ONE = {"batch": 1, "no_wait": True}
SNAPSHOT = {"deliver_subject": "_INBOX.provisioner.snapshot"}
ALL = tuple(CONFIGS.items())
NOBODYS = ("DELETE", "PURGE", "LEADER.STEPDOWN", "PEER.REMOVE")
MANAGEMENT = ("INFO", "STREAM.NAMES", "STREAM.LIST", "CONSUMER.NAMES.SLA", "META.LEADER.STEPDOWN", "ACCOUNT.PURGE.X")

# fmt: off
ATTEMPTS = (
    # facts, ticks, announcements, dead letters
    Attempt("tickets.opened.T-1",                        "publisher operator"),
    Attempt("clock.due.T-1",                             "clock operator"),
    Attempt("sla.breached.enterprise.critical.T-1",      "announcer"),
    Attempt("dead_letters.malformed",                    "intake"),
    Attempt("undelivered.webhook",                       "notifier"),
    Attempt("engine.log",                                "intake"),
    # hearing them
    Attempt("hear tickets.>",                            ""),
    Attempt("hear clock.due.*",                          ""),
    Attempt("hear sla.>",                                "subscriber"),
    Attempt("hear dead_letters.*",                       ""),
    Attempt("hear undelivered.*",                        ""),
    Attempt("hear engine.log",                           "intake clock announcer metrics board notifier"),
    Attempt("hear >",                                    ""),
    Attempt("hear $JS.>",                                ""),
    Attempt("hear $SYS.>",                               ""),
    Attempt("hear _R_.>",                                ""),
    Attempt("hear _INBOX.>",                             ""),
    *(Attempt(f"hear _INBOX.{user}.>",                   user) for user in USERS),
    # streams
    Attempt("ask STREAM.INFO.TICKETS",                   "intake clock metrics operator provisioner"),
    Attempt("ask STREAM.INFO.SLA",                       "announcer notifier subscriber operator provisioner"),
    Attempt("ask STREAM.INFO.DEAD_LETTERS",              "intake metrics operator provisioner"),
    Attempt("ask STREAM.INFO.UNDELIVERED",               "notifier provisioner"),
    Attempt("ask STREAM.MSG.GET.TICKETS",                "intake clock", LAST),
    Attempt("ask STREAM.MSG.GET.SLA",                    "announcer", LAST),
    Attempt("ask STREAM.MSG.GET.DEAD_LETTERS",           "intake", LAST),
    *(Attempt(f"ask DIRECT.GET.{name}",                  "", LAST) for name in CONFIGS),
    *(Attempt(f"ask STREAM.CREATE.{name}",               "provisioner", config) for name, config in ALL),
    *(Attempt(f"ask STREAM.UPDATE.{name}",               "provisioner", config) for name, config in ALL),
    *(Attempt(f"ask STREAM.SNAPSHOT.{name}",             "provisioner", SNAPSHOT) for name in CONFIGS),
    *(Attempt(f"$JS.SNAPSHOT.ACK.{name}.x.1.1",          "provisioner") for name in CONFIGS),
    *(Attempt(f"ask STREAM.RESTORE.{name}",              "provisioner", {"config": config}) for name, config in ALL),
    *(Attempt(f"$JS.SNAPSHOT.RESTORE.{name}.x",          "provisioner") for name in CONFIGS),
    *(Attempt(f"ask STREAM.{verb}.{name}",               "") for verb in NOBODYS for name in CONFIGS),
    Attempt("ask STREAM.CREATE.OTHER",                   "", {"name": "OTHER", "subjects": ["other"]}),
    Attempt("ask STREAM.MSG.DELETE.TICKETS",             "", {"seq": 1}),
    Attempt("ask STREAM.MSG.DELETE.SLA",                 "", {"seq": 1}),
    *(Attempt(f"ask {what}",                             "") for what in MANAGEMENT),
    # consumers of TICKETS
    Attempt("ask CONSUMER.CREATE.TICKETS",               "intake", define("TICKETS")),
    Attempt("ask CONSUMER.CREATE.TICKETS.one",           "intake", define("TICKETS", name="one")),
    Attempt("ask CONSUMER.CREATE.TICKETS.2.clock.due.*", "intake", define("TICKETS", name="2", subject="clock.due.*")),
    Attempt("ask CONSUMER.DURABLE.CREATE.TICKETS.x",     "", define("TICKETS", durable_name="x")),
    Attempt("ask CONSUMER.INFO.TICKETS.one",             "intake"),
    Attempt("ask CONSUMER.MSG.NEXT.TICKETS.one",         "intake", ONE),
    Attempt("ask CONSUMER.DELETE.TICKETS.one",           "intake provisioner"),
    *(Attempt(f"ask CONSUMER.LIST.{name}",               "provisioner") for name in ("TICKETS", "SLA", "DEAD_LETTERS")),
    Attempt("$JS.ACK.TICKETS.one.1.1.1.1.0",             ""),
    # consumers of SLA: an alerting system has the one of its name, and makes none
    Attempt("ask CONSUMER.CREATE.SLA",                   "", define("SLA", name="subscriber")),
    Attempt("ask CONSUMER.CREATE.SLA.one",               "announcer notifier operator", define("SLA", name="one")),
    Attempt("ask CONSUMER.CREATE.SLA.2.sla.*.>",         "", define("SLA", name="2", subject="sla.*.>")),
    Attempt("ask CONSUMER.DURABLE.CREATE.SLA.notifier_x", "provisioner", define("SLA", durable_name="notifier_x")),
    Attempt("ask CONSUMER.INFO.SLA.notifier_x",          "notifier provisioner"),
    Attempt("ask CONSUMER.MSG.NEXT.SLA.notifier_x",      "announcer notifier operator", ONE),
    Attempt("$JS.ACK.SLA.notifier_x.1.1.1.1.0",          "notifier"),
    Attempt("ask CONSUMER.DELETE.SLA.notifier_x",        "provisioner"),
    *(Attempt(f"ask CONSUMER.{verb}.SLA.notifier_x",     "") for verb in ("PAUSE", "RESET", "UNPIN")),
    Attempt("ask CONSUMER.DURABLE.CREATE.SLA.subscriber", "provisioner", define("SLA", **DURABLE)),
    Attempt("ask CONSUMER.CREATE.SLA.subscriber",        "announcer notifier operator", define("SLA", **DURABLE)),
    Attempt("ask CONSUMER.CREATE.SLA.subscriber.sla.*.>", "", define("SLA", **DURABLE, subject="sla.*.>")),
    Attempt("ask CONSUMER.INFO.SLA.subscriber",          "subscriber notifier provisioner"),
    Attempt("ask CONSUMER.MSG.NEXT.SLA.subscriber",      "announcer subscriber notifier operator", ONE),
    Attempt("$JS.ACK.SLA.subscriber.1.1.1.1.0",          "subscriber notifier"),
    Attempt("ask CONSUMER.DELETE.SLA.subscriber",        "provisioner"),
    *(Attempt(f"ask CONSUMER.{verb}.SLA.subscriber",     "") for verb in ("PAUSE", "RESET", "UNPIN")),
    # dead letters
    Attempt("ask CONSUMER.CREATE.DEAD_LETTERS",          "", define("DEAD_LETTERS")),
    Attempt("ask CONSUMER.CREATE.DEAD_LETTERS.one",      "intake operator", define("DEAD_LETTERS", name="one")),
    Attempt("ask CONSUMER.MSG.NEXT.DEAD_LETTERS.one",    "intake operator", ONE),
    Attempt("ask STREAM.MSG.DELETE.DEAD_LETTERS",        "operator", {"seq": 1}),
    Attempt("ask CONSUMER.DURABLE.CREATE.DEAD_LETTERS.subscriber", "provisioner", define("DEAD_LETTERS", **DURABLE)),
    Attempt("ask CONSUMER.INFO.DEAD_LETTERS.subscriber", "subscriber provisioner"),
    Attempt("ask CONSUMER.MSG.NEXT.DEAD_LETTERS.subscriber", "subscriber intake operator", ONE),
    Attempt("$JS.ACK.DEAD_LETTERS.subscriber.1.1.1.1.0", "subscriber"),
)
# fmt: on


class User:
    """A user of the bus, who tries what it wants."""

    def __init__(self, name: str, nc: Client) -> None:
        self.name, self.nc = name, nc
        self._came: asyncio.Queue[Msg | Exception] = asyncio.Queue()

    @classmethod
    async def connect(cls, broker: Broker, name: str) -> "User":
        async def refused(error: Exception) -> None:
            await user._came.put(error)

        user = cls(name, await nats.connect(broker.url, error_cb=refused, **broker.access(name)))
        await user.nc.subscribe(f"_INBOX.{name}.tried", cb=user._came.put)
        return user

    async def try_out(self, attempt: Attempt) -> dict[str, Any] | None:
        """Return the answer, {} if there is none; None if the broker refuses (docs/upstream-behaviour.md#f17)."""
        if attempt.what.startswith("hear "):
            subscription = await self.nc.subscribe(attempt.what.removeprefix("hear "))
            refused = await self._is_refused()
            if not refused:
                await subscription.unsubscribe()
            return None if refused else {}
        if attempt.what.startswith(("$JS.ACK.", "$JS.SNAPSHOT.", "engine.")):
            await self.ask(attempt, "")
            return None if await self._is_refused() else {}
        await self.ask(attempt, f"_INBOX.{self.name}.tried")
        async with asyncio.timeout(PATIENCE):
            came = await self._came.get()
        return None if isinstance(came, Exception) else json.loads(came.data or b"{}")

    async def ask(self, attempt: Attempt, reply: str) -> None:
        """Publish what is to be tried; the answer goes to `reply`."""
        body = b"" if attempt.body is None else json.dumps(attempt.body).encode()
        await self.nc.publish(attempt.what.replace("ask ", "$JS.API."), body, reply)

    async def _is_refused(self) -> bool:
        await self.nc.flush()  # nats-py sends this ping before what was published, and the next one behind it
        await self.nc.flush()
        if self._came.empty():
            return False
        assert "permissions violation" in str(self._came.get_nowait())
        return True


@asynccontextmanager
async def log_in(broker: Broker, names: Sequence[str] = USERS) -> AsyncIterator[list[User]]:
    found = [await User.connect(broker, name) for name in names]
    yield found
    for user in found:
        await user.nc.close()


async def test_each_user_may_do_what_its_role_needs_and_nothing_else(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        async with log_in(broker) as everybody:
            for config in STREAMS:
                await everybody[-1].nc.jetstream().add_stream(config)
            wrong = []
            print(f"\n{'':<45}", *(f"{user.name:<11}" for user in everybody))
            for attempt in ATTEMPTS:
                answers = {user.name: await user.try_out(attempt) for user in everybody}
                print(f"{attempt.what:<45}", *(f"{'-' if each is None else 'yes':<11}" for each in answers.values()))
                for user, answer in answers.items():
                    if (answer is not None) != attempt.is_allowed(user) or not attempt.is_understood(answer):
                        wrong.append((user, attempt.what, answer))
            assert not wrong


# ---- answers: the broker does not ask whether whoever wants one may write where it is sent

TRUSTED = ("intake", "clock", "announcer", "metrics", "notifier", "operator", "provisioner")
"""Users in the account of the streams that may ask for anything: an answer can be sent into the streams."""
TARGETS = (
    *("tickets.opened", "clock.due", "sla.breached.enterprise.critical"),
    *("dead_letters", "undelivered"),
)
"""What the streams take, but for the last token."""


async def test_an_answer_reaches_the_streams_only_from_within_the_engine(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        async with log_in(broker) as everybody:
            provisioner = everybody[-1].nc.jetstream()
            for config in STREAMS:
                await provisioner.add_stream(config)
            for stream in ("SLA", "DEAD_LETTERS"):
                await provisioner.add_consumer(stream, durable_name="subscriber")
            strangers_first = sorted(everybody, key=lambda user: user.name in TRUSTED)
            for user in strangers_first:
                for attempt in ATTEMPTS:
                    if attempt.is_allowed(user.name) and not attempt.what.startswith("hear "):
                        for target in TARGETS:
                            await user.ask(attempt, f"{target}.{user.name}")
                await user.nc.flush()

            async def find_written() -> dict[str, set[str]]:
                found: dict[str, set[str]] = {user.name: set() for user in everybody}
                for name in CONFIGS:
                    for subject in (await provisioner.stream_info(name, ">")).state.subjects or ():
                        target, _, last = subject.rpartition(".")
                        found.get(last, set()).add(target)
                return found

            async def is_all_written() -> bool:
                found = await find_written()
                return all(found[user] == set(TARGETS) for user in TRUSTED)

            await until("the answers to the last ones are written", is_all_written)
            written = await find_written()
            print(f"\n{'an answer sent to':<45}", *(f"{user.name:<11}" for user in everybody))
            for target in TARGETS:
                reached = ("yes" if target in written[user.name] else "-" for user in everybody)
                print(f"{target + '.…':<45}", *(f"{each:<11}" for each in reached))
            assert {user for user, targets in written.items() if targets} == set(TRUSTED)


async def test_a_subscriber_cannot_take_what_is_for_the_notifier(tmp_path: Path) -> None:
    """By having what it takes sent where the notifier asks for more: each message would be one more question."""
    with Broker(tmp_path / "nats").running() as broker:
        names = ("provisioner", "announcer", "notifier", "subscriber")
        async with log_in(broker, names) as (provisioner, announcer, notifier, subscriber):
            for config in STREAMS:
                await provisioner.nc.jetstream().add_stream(config)
            for name in ("notifier_x", "subscriber"):
                await provisioner.nc.jetstream().add_consumer("SLA", durable_name=name, ack_policy="explicit")
            for number in range(3):
                await announcer.nc.jetstream().publish(f"sla.breached.enterprise.critical.T-{number}", b"{}")
            take = Attempt("ask CONSUMER.MSG.NEXT.SLA.subscriber", "subscriber", {"batch": 3, "no_wait": True})
            await subscriber.ask(take, "$JS.API.CONSUMER.MSG.NEXT.SLA.notifier_x")
            assert await subscriber.try_out(take) == {}, "there is nothing left: the answer to the one before is sent"
            messages = await notifier.nc.jetstream().pull_subscribe_bind("notifier_x", "SLA")
            taken = await messages.fetch(3, PATIENCE)
            assert [message.metadata.num_delivered for message in taken] == [1, 1, 1]


async def test_a_subscriber_gets_one_answer_also_after_a_reload(tmp_path: Path) -> None:
    """An account without streams answers too, unless it imports $JS.API.INFO (docs/upstream-behaviour.md#n10)."""
    with Broker(tmp_path / "nats").running() as broker:
        async with log_in(broker, ("provisioner", "subscriber")) as (provisioner, subscriber):
            for config in STREAMS:
                await provisioner.nc.jetstream().add_stream(config)
            await provisioner.nc.jetstream().add_consumer("SLA", durable_name="subscriber")
            for _ in range(2):
                info = await subscriber.nc.jetstream().consumer_info("SLA", "subscriber")
                assert info.name == "subscriber"
                broker.reload()
                await until("it is reloaded", lambda: "Reloaded server configuration" in broker.log)


async def test_what_a_subject_refuses_cannot_be_asked_for_in_the_body(tmp_path: Path) -> None:
    with Broker(tmp_path / "nats").running() as broker:
        async with log_in(broker, ("provisioner", "operator")) as (provisioner, operator):
            for config in STREAMS:
                await provisioner.nc.jetstream().add_stream(config)
            create = "ask CONSUMER.CREATE.DEAD_LETTERS.one"
            other_stream = await operator.try_out(Attempt(create, "operator", define("TICKETS", name="one"))) or {}
            assert other_stream["error"]["description"] == "stream name in subject does not match request"
            other_name = await operator.try_out(Attempt(create, "operator", define("DEAD_LETTERS", name="two"))) or {}
            assert other_name["name"] == "one"


# ---- the services, each as its user


async def test_the_services_work_as_their_users_and_nothing_is_refused(tmp_path: Path) -> None:
    services = ("intake", "clock", "announcer", "metrics", "board")
    shared = {
        "SLA_DATABASE_URL": f"sqlite:///{tmp_path / 'sla.db'}",
        "SLA_POLICY_DIR": open_all_hours(tmp_path / "policy"),
        "SLA_SUBSCRIBERS": "subscriber=sla.breached.> subscriber=dead_letters.*",
    }
    with Broker(tmp_path / "nats").running() as broker, ExitStack() as ends:

        def run_command(user: str, *arguments: str) -> str:
            done = subprocess.run(
                [SLA, *arguments],
                cwd=tmp_path,
                env=environment(**shared, **broker.settings(user)),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout + done.stderr

        run_command("provisioner", "migrate")
        urls = {name: f"http://127.0.0.1:{free_port()}" for name in services}
        for name, url in urls.items():
            port = {"SLA_HTTP_PORT": url.rpartition(":")[2]}
            ends.enter_context(process(tmp_path, "run", name, **shared, **broker.settings(name), **port))
        for name, url in urls.items():
            await until(f"{name} is ready", lambda url=url: is_ready(url))

        async with log_in(broker, ("subscriber", "publisher")) as (subscriber, publisher):
            plain = await subscriber.nc.subscribe("sla.breached.>")
            durable = await subscriber.nc.jetstream().pull_subscribe(
                "sla.breached.>", durable="subscriber", stream="SLA"
            )
            refused = await subscriber.nc.jetstream().pull_subscribe(
                "dead_letters.*", durable="subscriber", stream="DEAD_LETTERS"
            )
            await publish(
                publisher.nc, opened("T-1", ago(hours=1, minutes=59, seconds=59)), Fact("tickets.opened.X", b"?")
            )
            assert json.loads((await plain.next_msg(PATIENCE)).data)["subject"] == "T-1"
            (message,) = await durable.fetch(1, PATIENCE)
            assert json.loads(message.data)["type"] == "sla.breached"
            await message.ack_sync()
            (message,) = await refused.fetch(1, PATIENCE)
            assert (message.subject, message.data) == ("dead_letters.malformed", b"?")
            await message.ack_sync()

        at = ago(hours=3).isoformat()
        run_command("publisher", "publish", "opened", "T-2", "--level", "enterprise", "--priority", "minor", "--at", at)
        assert "malformed" in run_command("operator", "dead", "list")
        assert "stored again as" in run_command("operator", "dead", "replay", "--all")
        assert "T-2" in run_command("operator", "publish", "responded", "T-2")
        assert "DEAD_LETTERS up to 2" in run_command("provisioner", "backup", "backup.tgz"), "it is as wrong as before"
        run_command("provisioner", "migrate")
        assert await asyncio.to_thread(watch_first_breach, environment(**broker.settings("operator"))) == "T-1"
        for name, url in urls.items():
            await until(f"{name} is ready", lambda url=url: is_ready(url))
        assert "Violation" not in broker.log


def watch_first_breach(environment: dict[str, str]) -> str:
    """Return the ticket of the first breach that `sla watch` shows."""
    command = [SLA, "watch", "--all", "--only", "breached", "-o", "json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as watching:
        assert watching.stdout is not None
        ticket: str = json.loads(watching.stdout.readline())["subject"]
        watching.terminate()
    return ticket


async def is_ready(url: str) -> bool:
    return (await readiness(url))[0] == 200
