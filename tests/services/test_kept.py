"""Rule 16 on every surface: after a random history each counts the same promises as kept and as broken."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.board.service import Board
from services.text.formats import format_share
from sla.log import State
from tests.support.bus import (
    Fact,
    Heard,
    Up,
    ago,
    announced,
    connected,
    fact,
    get,
    now,
    open_all_hours,
    opened,
    publish,
    responded,
    samples,
    settled,
    stored,
    total,
    up,
)
from tests.support.commands import call
from tests.support.stores import address

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("kept")]

LEVELS, PRIORITIES = ("foundation", "professional", "enterprise"), ("critical", "serious", "minor")
TICKETS = 60
PROMISED = ("first_response", "next_response", "resolution")

Key = tuple[str, str, int]  # ticket, objective, cycle
Cell = tuple[str, str, str]  # objective, level, priority


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def write_policy(folder: Path) -> str:
    """The shipped policy, open on holidays, with a next response and a resolution that pauses."""
    (path,) = Path(open_all_hours(folder)).glob("*.yaml")
    text = re.sub(
        r"(?m)^(  first_response: .*)$",
        r"\1\n  next_response: {starts: customer_replied, stops: responded, repeats: true}"
        r"\n  resolution: {starts: opened, stops: closed, pauses: true}",
        path.read_text("utf-8"),
    )
    targets = (
        "    objectives:\n      next_response: {critical: 1h, serious: 3h, minor: 7h}\n"
        "      resolution: {critical: 8h, serious: 16h, minor: 40h}\n"
    )
    path.write_text(re.sub(r"(?m)^    channels:\n", targets + r"\g<0>", text), "utf-8")
    return str(folder)


def make_history(random: Random, ticket: str) -> list[Fact]:
    """What happened to a ticket, half an hour off every whole hour from now: no deadline is near when it is asked."""
    start = random.randint(2, 90)

    def at(latest: int = 0) -> datetime:
        return ago(hours=random.randint(latest, start), minutes=30, seconds=random.uniform(0, 60))

    def choose() -> Fact:
        match random.randrange(13):
            case 0 | 1 | 2:
                return responded(ticket, at(), by=random.choice(("agent", "agent", "automation")))
            case 3 | 4:
                return fact("closed", ticket, at())
            case 5:
                return fact("reopened", ticket, at())
            case 6:
                return fact("priority_changed", ticket, at(), priority=random.choice(PRIORITIES))
            case 7:
                return fact("service_level_changed", ticket, at(), service_level=random.choice(LEVELS))
            case 8:
                return fact("excluded", ticket, at(), reason="third_party")
            case 9:
                return fact("exclusion_revoked", ticket, at(), reason="third_party")
            case 10:
                return fact(random.choice(("paused", "resumed")), ticket, at())
            case 11:
                return fact("escalated", ticket, at())
            case _:
                return fact("customer_replied", ticket, at())

    first = opened(ticket, at(start), random.choice(PRIORITIES), random.choice(LEVELS), id=f"{ticket}-opened")
    corrected = fact("corrected", ticket, at(), corrects=f"{ticket}-opened", priority=random.choice(PRIORITIES))
    others = [choose() for _ in range(random.randint(1, 9))] + ([corrected] if random.random() < 0.2 else [])
    return [*([] if random.random() < 0.05 else [first]), *others]


async def live_through(engine: Up, random: Random) -> list[Heard]:
    """Half of the facts arrive once the others were judged, ticks and all. Returns what was announced."""
    facts = [each for n in range(TICKETS) for each in make_history(random, f"T-{n}")]
    random.shuffle(facts)
    async with connected(engine.nats_url) as nc:
        for half in (facts[::2], facts[1::2]):
            await publish(nc, *half)
            await settled(nc, engine.store)
        await announced(nc, engine.store)
        return await stored(nc)


def read_decided(engine: Up) -> dict[Key, State]:
    """Each promise as the log has it."""
    with closing(engine.store.open()) as store:
        tickets = store.load_tickets(f"T-{n}" for n in range(TICKETS))
    return {
        (id, each.objective, each.cycle): each.state
        for id, ticket in tickets.items()
        for each in (ticket.first, *ticket.others.values())
    }


def count_kept(found: Iterable[tuple[Cell, bool | None]]) -> dict[Cell, tuple[int, int]]:
    """How many are kept and broken, for each cell that has any."""
    counts = Counter(found)
    cells = {cell for cell, kept in counts if kept is not None}
    return {cell: (counts[cell, True], counts[cell, False]) for cell in cells}


def count_rows(rows: Iterable[dict[str, Any]]) -> dict[Cell, tuple[int, int]]:
    """The same of rows that have `kept`."""
    return count_kept(((row["objective"], row["service_level"], row["priority"]), row["kept"]) for row in rows)


def count_sums(rows: Iterable[dict[str, Any]], part: str = "") -> dict[Cell, tuple[int, int]]:
    """The same of rows that have sums; their share is exact."""
    found = {}
    for row in rows:
        sums = row[part] if part else row
        kept, broken = sums["kept"], sums["broken"]
        assert sums["share"] == (kept / (kept + broken) if kept + broken else None)
        if kept + broken:
            found[row["objective"], row["service_level"], row["priority"]] = (kept, broken)
    return found


async def ask(engine: Up, path: str) -> Any:
    status, body = await get(f"{engine.http_url}{path}")
    assert status == 200, body
    return json.loads(body)


async def list_promises(engine: Up, query: str = "") -> list[dict[str, Any]]:
    rows, cursor = list[dict[str, Any]](), ""
    while True:
        page = await ask(engine, f"/api/promises?limit=50{query}{cursor}")
        rows += page["promises"]
        if page["next"] is None:
            return rows
        cursor = f"&cursor={page['next']}"


def command(engine: Up, *arguments: str) -> Any:
    said = call(*arguments, "-o", "json", SLA_DATABASE_URL=address(engine.store))
    assert said.code == 0, said.err
    return json.loads(said.out)


def find_breaches_in_effect(heard: Iterable[Heard]) -> set[Key]:
    """What a subscriber takes for broken: breaches that were announced and not retracted."""
    breaches: dict[str, Key] = {}
    for each in heard:
        if each.kind == "breached":
            breaches[each.data["breach_id"]] = (each.ticket, each.data["objective"], each.data["cycle"])
        elif each.kind == "breach_retracted":
            del breaches[each.data["breach_id"]]
    return set(breaches.values())


@pytest.mark.parts
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_surface_counts_the_same_promises_as_kept_and_as_broken(tmp_path: Path, seed: int) -> None:
    folder = write_policy(tmp_path / "policy")
    with up(tmp_path, SLA_POLICY_DIR=folder, SLA_HISTORIC_AFTER="48h") as engine:
        heard = await live_through(engine, Random(seed))
        decided = read_decided(engine)
        cells = {key: (key[1], *(name or "none" for name in state.judged)) for key, state in decided.items()}
        expected = count_kept((cells[key], state.kept) for key, state in decided.items())
        grouped = "objective,level,priority"
        report = command(engine, "report", "--period", "all", "--by", grouped)
        shown_tickets = [command(engine, "show", f"T-{n}") for n in range(TICKETS)]
        found = {
            "the announcements": count_kept((cells[key], False) for key in find_breaches_in_effect(heard)),
            "/api/promises": count_rows(await list_promises(engine)),
            "sla show": count_rows(row for ticket in shown_tickets for row in ticket["promises"]),
            "sla report": count_sums(report["rows"]),
            "/api/report": count_sums((await ask(engine, f"/api/report?by={grouped}"))["rows"]),
        }
        backtest = command(engine, "backtest", "--policy", f"{folder}/policy.yaml")["rows"]
        found |= {f"sla backtest, {part}": count_sums(backtest, part) for part in ("before", "after")}
        shown = await samples(engine.http_url)
        found["metrics"] = {cell: count_decided(shown, cell) for cell in expected}
        with closing(engine.store.open()) as store:
            tallies = Board(store).count_tallies(now())
        found["the board"] = {
            cell: (tally.kept, tally.broken) for cell, tally in tallies.items() if tally.kept + tally.broken
        }
        listed = command(engine, "list")

    broken = {cell: (0, broken) for cell, (_, broken) in expected.items() if broken}
    assert found.pop("the announcements") == broken
    for surface, counts in found.items():
        kept, late = (sum(each[n] for each in counts.values()) for n in (0, 1))
        print(f"{surface:22} {kept:4} kept {late:4} broken")
    assert found == dict.fromkeys(found, expected)
    assert {objective for objective, _, _ in expected} == set(PROMISED)
    assert all(sum(each[n] for each in expected.values()) > 10 for n in (0, 1)), "there is enough to count"

    waits = {key: state for key, state in decided.items() if state.stage in ("pending", "running", "paused")}
    rows = {(row["ticket_id"], row["objective"], row["cycle"]): row for row in listed}
    assert rows.keys() == waits.keys()
    assert {key: row["kept"] for key, row in rows.items()} == {key: state.kept for key, state in waits.items()}
    assert total(shown, "sla_promises_at_risk") == sum(is_at_risk(state) for state in waits.values())


def count_decided(shown: Any, cell: Cell) -> tuple[int, int]:
    labels = dict(zip(("objective", "service_level", "priority"), cell, strict=True))
    kept, broken = (int(total(shown, "sla_promises_decided", outcome=each, **labels)) for each in ("kept", "broken"))
    return kept, broken


def is_at_risk(state: State) -> bool:
    return state.stage == "running" and state.at_risk_at is not None and state.at_risk_at <= now()


def test_a_share_is_never_shown_as_all_while_one_is_broken() -> None:
    assert [format_share(share) for share in (1, 0.5, 0.9994, 0.9997, 0.99996, 1 - 1 / 3_000_000, 0)] == [
        "100 %", "50.0 %", "99.9 %", "99.97 %", "99.996 %", "99.99997 %", "0.0 %",
    ]  # fmt: skip
