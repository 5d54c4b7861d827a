"""Dead letters that people work with: grouped, sent again once the mistake is mended, discarded; nothing twice."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nats.aio.client import Client

from tests.support.bus import POLICIES as SHIPPED
from tests.support.bus import (
    SLA,
    Deployment,
    Fact,
    Service,
    ago,
    connected,
    deployment,
    environment,
    fact,
    nats_server,
    opened,
    publish,
    rows,
    samples,
    settled,
    stored,
    total,
    until,
)

pytestmark = [pytest.mark.stores, pytest.mark.parts, pytest.mark.anyio, pytest.mark.xdist_group("dead letters")]

HOUR = timedelta(hours=1)
SERVICES = ("intake", "clock", "announcer", "metrics")
HOSTILE = ("/crm\x1b[31m", "/två\nrader", "/\u202egnorw", "/" + "x" * 200, "/<script>", "/a|b\x9b")


class Engine(NamedTuple):
    """Services in one process, and a publisher's connection."""

    deployed: Deployment
    service: Service
    nc: Client

    async def dead(self, *arguments: str) -> "Said":
        found = await asyncio.to_thread(
            subprocess.run,
            [SLA, "dead", *arguments],
            env=environment(**self.deployed.settings),
            capture_output=True,
            text=True,
            check=False,
        )
        return Said(found.returncode, found.stdout, found.stderr)

    async def listed(self, *arguments: str) -> list[dict[str, Any]]:
        said = await self.dead("list", "-o", "json", *arguments)
        assert said.code == 0, said.err
        return json.loads(said.out)  # type: ignore[no-any-return]

    async def send(self, *facts: Fact) -> None:
        """Facts, stored or refused, and whatever follows."""
        await publish(self.nc, *facts)
        await settled(self.nc, self.deployed.store)

    async def waiting(self, number: int, **labels: str) -> None:
        """Waits until the metrics show so many letters."""

        async def shown() -> bool:
            return total(await samples(self.service.http_url), "sla_dead_letters_waiting", **labels) == number

        await until(f"{number} dead letters wait", shown)


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def deployed(tmp_path: Path) -> AsyncIterator[Deployment]:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "policy.yaml").write_text(next(SHIPPED.glob("*.yaml")).read_text(encoding="utf-8"), encoding="utf-8")
    async with (
        nats_server(tmp_path / "nats") as server,
        deployment(tmp_path, server, SLA_POLICY_DIR=str(policy)) as found,
    ):
        yield found


@pytest.fixture
async def engine(deployed: Deployment) -> AsyncIterator[Engine]:
    service = deployed.run(*SERVICES)
    try:
        async with connected(deployed.server.url) as nc:
            await service.ready()
            yield Engine(deployed, service, nc)
            service.process.end()
    finally:
        service.process.kill()


def sequences(letters: Sequence[dict[str, Any]]) -> list[int]:
    return [letter["sequence"] for letter in letters]


async def test_a_message_counts_once_the_policy_has_what_it_names(deployed: Deployment) -> None:
    policy = Path(deployed.settings["SLA_POLICY_DIR"]) / "policy.yaml"
    start = ago(hours=1)
    wrong = opened("T-1", start, "urgent", id="first", source="/crm")
    async with connected(deployed.server.url) as nc:
        before = deployed.run(*SERVICES)
        try:
            await before.ready()
            engine = Engine(deployed, before, nc)
            await engine.send(wrong, wrong, opened("T-2", start))
            (both,) = json.loads((await engine.dead("list", "--group", "-o", "json")).out)
            assert (both["letters"], both["reason"], both["source"]) == (2, "unknown_priority", "/crm")
            await engine.waiting(2, reason="unknown_priority")
            before.process.end()
        finally:
            before.process.kill()
        text = (
            policy.read_text(encoding="utf-8")
            .replace("critical", "urgent")
            .replace("severity: urgent", "severity: critical")
            .replace('version: "2026-01"', 'version: "2026-02"')
        )
        policy.write_text(text, encoding="utf-8")
        after = deployed.run(*SERVICES)
        try:
            await after.ready()
            engine = Engine(deployed, after, nc)
            said = await engine.dead("replay", "--reason", "unknown_priority")
            assert said.code == 0 and said.out.count("stored again") == 1, said
            await settled(nc, deployed.store)
            assert await engine.listed() == []
            await engine.waiting(0)
            after.process.end()
        finally:
            after.process.kill()
        applied = [heard for heard in await stored(nc) if heard.kind == "applied"]
        assert [(each.ticket, each.data["priority"]) for each in applied] == [("T-2", "critical"), ("T-1", "urgent")]
        assert applied[1].data["cause_id"] == "first" and applied[1].event["time"][:19] == start.isoformat()[:19]


async def test_what_is_still_wrong_comes_back_once_and_what_was_said_otherwise_meanwhile_stays(engine: Engine) -> None:
    start = ago(hours=1)
    wrong = opened("T-1", start, "urgent", id="first", source="/crm")
    await engine.send(wrong, wrong, wrong)
    for _ in range(2):
        said = await engine.dead("replay", "--all")
        assert said.code == 0, said.err
        await settled(engine.nc, engine.deployed.store)
        (letter,) = await engine.listed()
        assert (letter["reason"], letter["id"]) == ("unknown_priority", "first")
    await engine.waiting(1)

    right = opened("T-1", start, "serious", id="first", source="/crm")  # the publisher is fixed, and sends it itself
    await engine.send(right)
    text = opened("T-1", start, "critical", id="first", source="/crm")
    await engine.send(text)
    assert [each["reason"] for each in await engine.listed()] == ["unknown_priority", "id_conflict"]
    assert (await engine.dead("replay", "--reason", "id_conflict")).code == 0
    await settled(engine.nc, engine.deployed.store)
    assert [each["reason"] for each in await engine.listed()] == ["unknown_priority", "id_conflict"]
    assert rows(engine.deployed.store, "SELECT count(*) FROM inbox WHERE outcome = 'recorded'") == [(1,)]
    (applied,) = [heard for heard in await stored(engine.nc) if heard.kind == "applied"]
    assert applied.data["priority"] == "serious"


async def test_a_letter_that_is_not_needed_is_discarded_and_no_other(engine: Engine) -> None:
    start = ago(hours=1)
    wrong = [opened(f"T-{n}", start, "urgent", source=f"/{n % 2}") for n in range(6)]
    other = fact("opened", "T-9", start, service_level="gold", priority="critical")
    await engine.send(*wrong, other)
    every = sequences(await engine.listed())
    assert every == [1, 2, 3, 4, 5, 6, 7]
    assert sequences(await engine.listed("--source", "/1")) == [2, 4, 6]
    assert sequences(await engine.listed("--reason", "unknown_priority", "--source", "/0")) == [1, 3, 5]

    said = await engine.dead("discard", "2", "999")
    assert said.code == 1 and "999: no such dead letter" in said.err
    said = await engine.dead("discard", "--source", "/1")
    assert said.code == 2 and "would remove 3 dead letters" in said.err and "--yes" in said.err
    assert sequences(await engine.listed()) == every  # nothing was done so far
    assert (await engine.dead("discard", "--source", "/1", "--yes")).out == "3 dead letters removed\n"
    assert (await engine.dead("discard", "3")).out == "1 dead letters removed\n"
    assert sequences(await engine.listed()) == [1, 5, 7]
    await engine.waiting(2, reason="unknown_priority")
    assert (await engine.dead("discard", "--all", "--yes")).out == "3 dead letters removed\n"
    assert await engine.listed() == [] and (await engine.dead("list")).code == 0
    await engine.send(opened("T-10", start, "urgent"))  # as after the first
    assert sequences(await engine.listed()) == [8]


async def test_who_sent_them_cannot_command_the_terminal(engine: Engine) -> None:
    start = ago(hours=1)
    await engine.send(*(opened("T-1", start, "urgent", source=source) for source in HOSTILE))
    letters = await engine.listed()
    assert len(letters) == len(HOSTILE)
    grouped = json.loads((await engine.dead("list", "--group", "-o", "json")).out)
    assert sum(group["letters"] for group in grouped) == len(HOSTILE)
    for arguments in (("list",), ("list", "--group")):
        said = await engine.dead(*arguments)
        assert said.code == 0 and all(c.isprintable() or c == "\n" for c in said.out), said.out
