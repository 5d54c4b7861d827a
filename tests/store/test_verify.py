"""`sla verify`: a store in which nothing was touched has no difference; each single thing that was touched is found."""

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from projections.registry import PROJECTIONS
from projections.runner import catch_up, run_batch
from services.maintenance.verify import MAX_SHOWN, Verifier, store_result
from services.store.interface import Database, Verification
from services.store.sqlite import SqliteFile, SqliteStore
from sla.engine import BatchOutcome, Engine, Limits
from sla.policy import Policy
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import Scenario
from tests.support.bus import (
    PATIENCE,
    ago,
    connected,
    fact,
    get,
    now,
    opened,
    publish,
    rows,
    samples,
    settled,
    total,
    up,
)
from tests.support.commands import Said, call
from tests.support.judge_checks import ONE_POLICY
from tests.support.memory import World, get_policy
from tests.support.store_log import HOUR, START, Log, verified
from tests.support.stores import ON_POSTGRES, address, change, copied, path_of

pytestmark = [pytest.mark.stores, pytest.mark.xdist_group("verify")]

DAY = timedelta(days=1)


def found(store: Database) -> list[str]:
    """Where the differences are."""
    check = verified(store)
    assert check.differences == len(check.shown)
    return [difference.where for difference in check.shown]


@contextmanager
def living(path: Path) -> Iterator[Log]:
    """A store in which all kinds of things have happened, with its views."""
    log = Log(path)
    log.live_through(range(30))
    late = START + 6 * DAY
    log.take(late, fact("responded", "NEVER-OPENED", late), opened("AHEAD", late + timedelta(minutes=4)))
    log.take(late, fact("corrected", "T-1", late, corrects="x", time="2026-11-02T10:00:00.5+01:00", priority="minor"))
    log.take(late, fact("paused", "T-1", late, reason="waits"), opened("OLD", START, "critical"))
    log.take(late + HOUR, ticks=["AHEAD", "OLD"])
    for view in PROJECTIONS:
        catch_up(log.store, view())
    yield log
    log.store.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Database:
    with living(tmp_path_factory.mktemp("verify") / "sla.db") as log:
        return log.database


@pytest.fixture
def store(original: Database, tmp_path: Path) -> Database:
    """A copy to be tampered with."""
    return copied(original, tmp_path / "sla.db")


def test_a_store_that_nobody_touched_has_no_difference(store: Database) -> None:
    check = verified(store)
    assert (check.differences, check.shown) == (0, [])
    tickets, events = rows(store, "SELECT count(DISTINCT originator_id), count(*) FROM stored_events")[0]
    assert (check.tickets_seen, check.head) == (tickets, events) and tickets > 30


class Kept(SqliteStore):
    """A store for a World."""

    def save(self, outcome: BatchOutcome) -> None:
        self.commit(outcome, self.read_partitions())

    def publish(self, policy: Policy, now: datetime) -> None:
        super().publish_policy(policy, lambda: now, lead=timedelta(0))


def judged_twice(path: Path, scenarios: Iterable[Scenario]) -> Verifier:
    SqliteFile(path).migrate(PROJECTIONS)
    kept: Any = Kept(path)
    for number, scenario in enumerate(scenarios):
        if not number:
            kept.publish(get_policy(scenario), START)
        world = World(f"SCENARIO-{number}")
        world.memory, world.sequence, world.engine = kept, kept.read_committed_sequence(), Engine(kept)
        scenario.play(world.put, world.find_next_instant)
    kept.close()
    return verified(SqliteFile(path))


def test_no_scenario_is_judged_differently_the_second_time(tmp_path: Path) -> None:
    one_policy = [scenario for scenario in ONE_POLICY if scenario.is_shipped]
    check = judged_twice(tmp_path / "sla.db", one_policy)
    assert check.shown == [] and check.tickets_seen >= 0.9 * len(one_policy)


def test_where_versions_differ_each_ticket_is_judged_by_its_own(tmp_path: Path) -> None:
    others = [scenario for scenario in SCENARIOS if not scenario.is_shipped or scenario not in ONE_POLICY]
    for number, scenario in enumerate(others):
        check = judged_twice(tmp_path / f"{number}.db", [scenario])
        assert (check.shown, check.tickets_seen) == ([], 1)


@pytest.mark.parametrize("view", PROJECTIONS)
def test_a_view_that_is_behind_is_compared_up_to_where_it_stands(tmp_path: Path, view: Any) -> None:
    with living(tmp_path / "sla.db") as log:
        log.live_through(range(30, 60))
        assert found(log.database) == []
        assert run_batch(log.store, view(), limit=37) > 0
        assert found(log.database) == []


def test_what_happens_meanwhile_is_not_seen(tmp_path: Path) -> None:
    with (
        living(tmp_path / "sla.db") as log,
        log.database.open_snapshot() as stored,
        Verifier(stored, PROJECTIONS) as check,
    ):
        for _ in chain(check.check_projections(), check.check_tickets()):
            log.live_through(range(100, 110))
            for view in PROJECTIONS:
                catch_up(log.store, view())
        assert check.shown == [] and check.tickets_seen == 36


def test_a_sum_of_zero_is_as_good_as_none(store: Database) -> None:
    change(store, "INSERT INTO promise_counts VALUES ('resolution', 'gold', 'critical', 'running', 'undecided', 0)")
    change(store, "INSERT INTO compliance VALUES ('breached', 'first_response', 'gold', 'critical', 'live', '', 0)")
    assert found(store) == []


def edit(ticket: str, version: int, old: str, new: str) -> str:
    """The statement that replaces a text in an event."""
    return (
        f"UPDATE stored_events SET state = replace(state, '{old}', '{new}') WHERE originator_id = '{ticket}' "
        f"AND originator_version = {version} AND instr(state, '{old}')"
    )


# T-0: opened, applied, breached (3), late answer, fulfilled (5), earlier answer, retracted (7), fulfilled (8) …
TAMPERED: dict[str, tuple[list[str], list[str]]] = {
    "a decided deadline": (
        [edit("T-0", 2, '"due_at":"2026-11-02T10', '"due_at":"2026-11-02T11')],
        ["ticket T-0, event 2"],
    ),
    "an id": ([edit("T-0", 5, '"id":"', '"id":"0')], ["ticket T-0, event 5"]),
    "a breach that could be seen made historic": (
        [edit("T-1", 7, '"detection":"live"', '"detection":"historic"')],
        [
            "compliance breached first_response enterprise minor historic",
            "compliance breached first_response enterprise minor live",
            "compliance delay 0.001",
            "ticket T-1, event 7",
        ],
    ),
    "an unknown kind of event": (
        ["UPDATE stored_events SET topic = 'os:system' WHERE originator_id = 'T-0' AND originator_version = 2"],
        ["ticket T-0, event 2"],
    ),
    "no JSON": (
        ["UPDATE stored_events SET state = X'7b00ff' WHERE originator_id = 'T-0' AND originator_version = 2"],
        ["ticket T-0, event 2"],
    ),
    "no event at all": (
        ["UPDATE stored_events SET state = NULL WHERE originator_id = 'T-0' AND originator_version = 2"],
        ["ticket T-0, event 2"],
    ),
    "an instant without a zone": ([edit("T-0", 3, "T08:00:00Z", "T08:00:00")], ["ticket T-0"]),
    "a number in the history": (
        ["UPDATE stored_events SET originator_version = 99 WHERE originator_id = 'T-1' AND originator_version = 10"],
        ["ticket T-1, event 10"],
    ),
    "a place in the log": (
        ["UPDATE stored_events SET rowid = 999 WHERE originator_id = 'T-0' AND originator_version = 1"],
        ["log", "log", "promises T-0 first_response 1"],
    ),
    "a decision that is gone": (
        ["DELETE FROM stored_events WHERE originator_id = 'T-0' AND originator_version = 2"],
        ["log", "ticket T-0, event 2"],
    ),
    "a fact that is gone": (
        ["DELETE FROM stored_events WHERE originator_id = 'T-1' AND originator_version = 10"],
        ["log", "promises T-1 first_response 1", "fact of T-1"],
    ),
    "what a fact says": (
        [edit("T-1", 10, '"reason":"waits"', '"reason":"works"')],
        ["fact of T-1"],
    ),
    "when a fact happened": (
        [edit("T-0", 4, '"time":"2026-11-03T04', '"time":"2026-11-03T03')],
        ["ticket T-0, event 5", "fact of T-0"],
    ),
    "who a fact is": ([edit("T-1", 10, '"id":"', '"id":"0')], ["fact of T-1", "fact of T-1"]),
    "a policy": (
        ["UPDATE policies SET resolved = replace(resolved, '\"targets\"', '\"target\"')"],
        ["policy", *["ticket"] * 35],
    ),
    "a target in a policy": (
        ["UPDATE policies SET resolved = replace(resolved, ':7200', ':7201')"],
        ["policy", *["ticket"] * 35],
    ),
    "a message that is gone": (
        ["DELETE FROM inbox WHERE sequence = (SELECT max(sequence) FROM inbox WHERE type = 'ticket.corrected')"],
        ["arrivals fact ticket.corrected recorded", "fact of T-1"],
    ),
    "a message of another ticket": (
        ["UPDATE inbox SET ticket = 'T-2' WHERE type = 'ticket.corrected'"],
        ["fact of T-1", "fact of T-2"],
    ),
    "a message that was never recorded": (
        ["INSERT INTO inbox VALUES (9999, 'recorded', 'ticket.paused', NULL, X'00', X'00', 'T-1')"],
        ["fact of T-1"],
    ),
    "an instant of a view": (["UPDATE deadlines SET at = at + 1 WHERE ticket = 'OPEN-T-0'"], ["deadlines OPEN-T-0"]),
    "a row of a view that is gone": (["DELETE FROM deadlines WHERE ticket = 'OPEN-T-0'"], ["deadlines OPEN-T-0"]),
    "a row too many in a view": (["INSERT INTO deadlines VALUES ('X', '', 1)"], ["deadlines X"]),
    "a row of nobody in a view": (["INSERT INTO deadlines VALUES (NULL, '', 1)"], ["deadlines None"]),
    "a number of facts": (
        ["UPDATE promises SET facts = facts + 1 WHERE ticket = 'T-0'"],
        ["promises T-0 first_response 1"],
    ),
    "a state in a view": (["UPDATE promises SET state = '?' WHERE ticket = 'T-0'"], ["promises T-0 first_response 1"]),
    "a number of tickets": (
        ["UPDATE promise_counts SET n = n + 1 WHERE stage = 'pending'"],
        ["promise_counts first_response none none pending undecided"],
    ),
    "a number of breaches": (
        ["DELETE FROM compliance WHERE what = 'retracted' AND c = 'critical'"],
        ["compliance retracted first_response enterprise critical late"],
    ),
    "a number of messages": (
        ["UPDATE arrivals SET n = n - 1 WHERE b = 'duplicate'"],
        ["arrivals fact ticket.opened duplicate"],
    ),
    "where a view stands": (
        ["UPDATE positions SET position = 9999 WHERE name = 'arrivals'"],
        ["view arrivals"],
    ),
    "where another view stands": (
        ["UPDATE positions SET position = position - 1 WHERE name = 'deadlines'"],
        ["deadlines OLD"],
    ),
}


CONSTRAINED = ("no event at all", "a row of nobody in a view")  # what PostgreSQL does not let anybody do


@pytest.mark.parametrize("what", [what for what in TAMPERED if not (ON_POSTGRES and what in CONSTRAINED)])
def test_what_was_tampered_with_is_found_and_nothing_else(store: Database, what: str) -> None:
    statements, expected = TAMPERED[what]
    change(store, *statements)
    check = verified(store)
    where = [re.sub("^fact (.*) [0-9A-F]+$", r"fact of \1", difference.where) for difference in check.shown]
    if check.differences <= MAX_SHOWN:
        assert where == expected, check.shown
    else:
        assert check.differences == len(expected) and where[0].startswith(expected[0])
    assert all(difference.expected != difference.stored for difference in check.shown)


def test_one_ticket_that_cannot_be_read_hides_no_other(store: Database) -> None:
    change(store, "UPDATE stored_events SET state = X'00' WHERE originator_id IN ('T-0', 'T-20')")
    change(store, edit("T-9", 2, '"target":"PT7200S"', '"target":"PT7201S"'))
    with store.open_snapshot() as stored, Verifier(stored, ()) as check:
        for _ in check.check_tickets():
            pass
    tickets = [each.where for each in check.shown if each.where.startswith("ticket")]
    assert tickets == ["ticket T-0, event 1", "ticket T-20, event 1", "ticket T-9, event 2"]


@pytest.mark.on_file
def test_a_file_that_is_broken_is_a_difference(store: Database) -> None:
    ((page, size),) = rows(
        store,
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = 'inbox'",
    )
    with path_of(store).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))
    check = verified(store)
    assert {"inbox"} <= {each.where for each in check.shown}
    assert check.tickets_seen > 30


def test_a_setting_that_was_changed_is_no_difference(tmp_path: Path) -> None:
    """Historic or not depends on SLA_HISTORIC_AFTER as it was then; all other decisions do not."""
    with living(tmp_path / "sla.db") as log:
        for number, historic_after in enumerate((timedelta(0), HOUR, DAY, timedelta.max)):
            log._engine = Engine(log.store, Limits(historic_after=historic_after))
            log.take(START + 9 * DAY, opened(f"IMPORTED-{number}", START + 9 * DAY - 5 * HOUR))
            log.take(START + 9 * DAY, ticks=[f"IMPORTED-{number}"])
        said = (
            "SELECT state FROM stored_events WHERE topic = 'breached/1' AND originator_id LIKE 'IMPORTED%' ORDER BY 1"
        )
        detections = [json.loads(state)["detection"] for (state,) in rows(log.database, said)]
        assert sorted(set(detections)) == ["historic", "live"]
        assert found(log.database) == []


# ---- the command


def sla_verify(store: Database, *arguments: str) -> Said:
    return call("verify", *arguments, SLA_DATABASE_URL=address(store))


def kept_in(store: Database) -> Verification | None:
    with closing(store.open()) as opened:
        return opened.read_verification()


def test_the_answer_is_kept_for_the_metrics(store: Database) -> None:
    assert kept_in(store) is None
    fine = sla_verify(store)
    assert (
        fine.code == 0
        and "SLA is not compared with the log: no engine runs in" in fine.err
        and fine.out.startswith("0 differences; 36 tickets")
    )
    change(store, "UPDATE deadlines SET at = at + 1")
    wrong = sla_verify(store, "-o", "json")
    assert wrong.code == 1
    report = json.loads(wrong.out)
    assert report["differences"] == len(report["first"]) == len(rows(store, "SELECT 1 FROM deadlines"))
    assert report["first"][0]["where"] == "deadlines AHEAD"
    kept = kept_in(store)
    assert kept is not None and (kept.tickets, kept.differences) == (36, report["differences"])
    assert kept.at > ago(minutes=5)
    shown = sla_verify(store)
    assert shown.code == 1 and "deadlines AHEAD" in shown.out and "Traceback" not in shown.err


@pytest.mark.on_file
def test_a_store_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    missing = sla_verify(SqliteFile(tmp_path / "sla.db"))
    assert (missing.code, missing.out) == (1, "") and "does not exist" in missing.err
    (tmp_path / "sla.db").write_bytes(b"no database" * 1000)
    broken = sla_verify(SqliteFile(tmp_path / "sla.db"))
    assert (broken.code, broken.out) == (1, "") and "cannot be read" in broken.err


@pytest.mark.on_file
def test_a_store_that_may_only_be_read_is_verified_too(original: Database) -> None:
    """As somebody without the right to write: neither the file nor its folder."""
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sla.db"
        store.write_bytes(path_of(original).read_bytes())
        store.chmod(0o444)
        Path(folder).chmod(0o555)
        try:
            if me == 0:
                os.seteuid(65534)
            check = verified(SqliteFile(store))
            why_not = store_result(SqliteFile(store), check.build_verification())
        finally:
            os.seteuid(me)
            Path(folder).chmod(0o755)
        assert check.shown == [] and check.tickets_seen == 36
        assert why_not is not None and "readonly" in why_not.replace(" ", "")


@pytest.mark.parts
@pytest.mark.anyio
async def test_the_engine_may_run_meanwhile(tmp_path: Path) -> None:
    with up(tmp_path) as engine:
        assert "sla_verify" not in (await get(f"{engine.http_url}/metrics"))[1]  # nobody has verified yet
        async with connected(engine.nats_url) as nc:
            sending = asyncio.create_task(publish(nc, *(opened(f"T-{n}", ago(hours=n % 9)) for n in range(400))))
            answers = [await asyncio.to_thread(sla_verify, engine.store) for _ in range(3)]
            await sending
            await settled(nc, engine.store)
            answers.append(await asyncio.to_thread(sla_verify, engine.store))
        assert [answer.code for answer in answers] == [0, 0, 0, 0], answers
        assert "400 tickets" in answers[-1].out
        shown = await samples(engine.http_url)
        assert total(shown, "sla_verify_differences") == 0
        assert now().timestamp() - total(shown, "sla_verify_timestamp_seconds") < PATIENCE
