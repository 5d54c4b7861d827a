"""Projections: tables and checkpoint move together, a batch counts once, and a rebuild gives the same."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from msgspec.structs import replace

from projections.arrivals import Arrivals
from projections.compliance import Compliance
from projections.deadlines import Deadlines
from projections.promises import OPEN_STAGES, STATES, PromiseFilter, PromiseRow, Promises, Span, make_page_mark
from projections.registry import PROJECTIONS
from projections.runner import NotMigratedError, Projection, catch_up, create_projection, rebuild, run_batch
from services.errors import StoreError
from services.store.event_mapper import encode_event
from sla.log import Fulfilled, LogRow, StateUpdated, decode_rows
from tests.support.bus import fact, opened, responded
from tests.support.objectives import ALL as ALL_OBJECTIVES
from tests.support.store_log import HOUR, START, Log
from tests.support.stores import new_store, rows, tables
from tests.support.words import POLICY as WORDS

pytestmark = [pytest.mark.stores, pytest.mark.xdist_group("projections")]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path / "sla.db")
    yield found
    found.store.close()


def test_a_projection_of_an_earlier_layout_begins_anew(log: Log) -> None:
    log.live_through(range(10))
    catch_up(log.store, Deadlines())
    expected = table(log, Deadlines())
    with log.store.write_view() as cursor:
        cursor.execute("DROP TABLE deadlines")
        cursor.execute("CREATE TABLE deadlines (ticket TEXT PRIMARY KEY, at BIGINT NOT NULL)")
        cursor.execute("DELETE FROM positions WHERE name = 'deadlines layout'")
    create_projection(log.store, Deadlines())
    catch_up(log.store, Deadlines())
    assert table(log, Deadlines()) == expected and len(expected[1]) > 0
    create_projection(log.store, Deadlines())
    assert table(log, Deadlines()) == expected, "and only once"


def table(log: Log, projection: Projection) -> list[list[tuple[Any, ...]]]:
    """All rows of a projection, and its checkpoint; without sums that are 0, which depend on the batches."""
    position = rows(log.database, "SELECT position FROM positions WHERE name = ?", projection.name)
    tables = (sorted(rows(log.database, f"SELECT * FROM {name}")) for name in projection.tables)
    return [position, *([row for row in found if row[-1] != 0] for found in tables)]


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_rebuilt_projection_is_the_same(log: Log, projection: type[Projection]) -> None:
    log.live_through(range(60))
    log.set_aside(START + timedelta(days=6), "OPEN-T-10")
    catch_up(log.store, projection())
    before = table(log, projection())
    assert all(len(each) >= 1 for each in before) and before[0][0][0] > 0
    assert sum(rebuild(log.store, projection)) > 0
    assert table(log, projection()) == before
    names = tables(log.database)
    assert not [name for name in names if "rebuild" in name]
    assert rows(log.database, "SELECT 1 FROM positions WHERE name LIKE '%rebuild'") == []


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_projection_may_be_rebuilt_while_events_arrive_and_the_live_one_goes_on(
    log: Log, projection: type[Projection]
) -> None:
    log.live_through(range(60))
    run_batch(log.store, projection(), limit=50)  # the live one is behind
    building = rebuild(log.store, projection)
    next(building)
    log.live_through(range(60, 90))
    catch_up(log.store, projection())
    reference = table(log, projection())
    for _ in building:
        assert table(log, projection()) == reference  # nothing is to be seen of it before it is complete
    log.live_through(range(90, 100))
    catch_up(log.store, projection())
    after = table(log, projection())
    for _ in rebuild(log.store, projection):
        pass
    assert table(log, projection()) == after
    assert after != reference


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_batches_of_any_size_give_the_same_projection(log: Log, projection: type[Projection]) -> None:
    log.live_through(range(40))
    catch_up(log.store, projection())
    whole = table(log, projection())
    with log.store.write_view() as cursor:
        cursor.execute("UPDATE positions SET position = 0 WHERE name = ?", (projection.name,))
        for name in projection().tables:
            cursor.execute(f"DELETE FROM {name}")
    for size in (1, 2, 3, 7, 50):
        run_batch(log.store, projection(), limit=size)
    while run_batch(log.store, projection(), limit=5):
        pass
    assert table(log, projection()) == whole


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_two_processes_that_run_one_projection_double_nothing(log: Log, projection: type[Projection]) -> None:
    log.live_through(range(60))
    failed: list[Exception] = []

    def work() -> None:
        store = log.database.open()
        try:
            while run_batch(store, projection(), limit=3):
                pass
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
            failed.append(error)
        finally:
            store.close()

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    both = table(log, projection())
    for _ in rebuild(log.store, projection):
        pass
    assert table(log, projection()) == both


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_an_exception_in_apply_moves_neither_projection_nor_checkpoint(
    log: Log, projection: type[Projection], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.live_through(range(20))
    run_batch(log.store, projection(), limit=10)
    before = table(log, projection())
    good = projection.apply

    def halfway(self: Projection, cursor: Any, batch: Sequence[Any]) -> None:
        good(self, cursor, batch)
        raise KeyError("a fault after the rows were written")

    monkeypatch.setattr(projection, "apply", halfway)
    with pytest.raises(KeyError):
        run_batch(log.store, projection())
    assert table(log, projection()) == before
    monkeypatch.undo()
    assert run_batch(log.store, projection()) > 0
    assert table(log, projection()) != before


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_rebuild_given_up_halfway_changes_nothing_and_can_be_started_again(
    log: Log, projection: type[Projection]
) -> None:
    log.live_through(range(20))
    catch_up(log.store, projection())
    before = table(log, projection())
    building = rebuild(log.store, projection)
    next(building)
    building.close()  # type: ignore[attr-defined]
    assert table(log, projection()) == before
    for _ in rebuild(log.store, projection):
        pass
    assert table(log, projection()) == before


def test_a_projection_without_tables_says_what_to_do(tmp_path: Path) -> None:
    place = new_store(tmp_path / "sla.db")
    place.migrate(())
    store = place.open()
    with pytest.raises(NotMigratedError, match="sla migrate"):
        run_batch(store, Deadlines())
    store.close()


def test_deadlines_holds_the_next_instant_of_each_ticket_that_time_can_change(log: Log) -> None:
    log.take(START, opened("A", START), opened("B", START), responded("B", START), fact("escalated", "C", START))
    catch_up(log.store, Deadlines())
    halfway = START + HOUR  # 50 % of two hours, which warns
    assert rows(log.database, "SELECT ticket, at FROM deadlines") == [("A", int(halfway.timestamp() * 1e6))]
    log.take(START + 3 * HOUR, ticks=["A"])
    catch_up(log.store, Deadlines())
    assert rows(log.database, "SELECT ticket, at FROM deadlines") == []


def test_the_counts_of_promises_are_those_of_its_rows(log: Log) -> None:
    log.live_through(range(60))
    catch_up(log.store, Promises())
    with log.store.read_view() as cursor:
        counts = Promises().read_counts(cursor)
    assert sum(counts.values()) == rows(log.database, "SELECT count(*) FROM promises")[0][0] == 66
    assert min(counts.values()) >= 0
    states = [json.loads(state) for (state,) in rows(log.database, "SELECT state FROM promises")]
    by_stage = Counter(state.get("stage", "pending") for state in states)
    assert by_stage == sum((Counter({label.stage: count}) for label, count in counts.items()), Counter())


def test_promises_are_listed_the_open_ones_by_deadline_then_all_others_page_by_page(log: Log) -> None:
    log.live_through(range(60))
    log.take(START + 2 * HOUR, opened("PRO", START, "minor", "professional"), fact("paused", "NEW", START))
    projection = Promises()
    catch_up(log.store, projection)

    def listed(wanted: PromiseFilter) -> list[PromiseRow]:
        found: list[PromiseRow] = []
        with log.store.read_view() as cursor:
            while page := projection.list_page(cursor, wanted, START, 7, make_page_mark(found[-1]) if found else None):
                found += page
        return found

    found = listed(PromiseFilter())
    assert len({row.key for row in found}) == len(found) == rows(log.database, "SELECT count(*) FROM promises")[0][0]
    is_open = [row.state.stage in ("pending", "running", "paused") for row in found]
    assert is_open == sorted(is_open, reverse=True) and 0 < sum(is_open) < len(found)
    waiting = [row.state.due_at for row in found if row.state.stage == "running"]
    assert waiting == sorted(waiting, key=lambda at: at or START)
    assert listed(PromiseFilter(state="open")) == found[: sum(is_open)]
    assert [row.key.ticket for row in listed(PromiseFilter(service_level="professional", priority="minor"))] == ["PRO"]
    for stage in ("pending", "running", "fulfilled"):
        assert listed(PromiseFilter(state=stage)) == [row for row in found if row.state.stage == stage] != []


FILTERS = [
    *(PromiseFilter(state=state) for state in STATES),
    *(PromiseFilter(objective=name) for name in ALL_OBJECTIVES.objectives),
    PromiseFilter(service_level="enterprise", priority="minor"),
    PromiseFilter(service_level="none"),
    PromiseFilter(customer="Acme_AB"),
    PromiseFilter(team="night"),
    PromiseFilter(search="ACME_"),
    PromiseFilter(search="printer"),
    PromiseFilter(search="pen-T"),
    PromiseFilter(search="%"),
    PromiseFilter(objective="resolution", state="broken", search="t-1"),
]


def test_a_filter_finds_the_promises_that_match_it_page_by_page_and_in_the_list_of_the_open_ones(
    tmp_path: Path,
) -> None:
    log, now = Log(tmp_path / "sla.db", ALL_OBJECTIVES), START + 6 * 24 * HOUR
    log.live_through(range(30))
    log.take(
        now,
        opened("C-1", now - HOUR, customer="Acme_AB", team="night", title="The Printer"),
        opened("C-2", now - HOUR, customer="AcmeXAB"),
    )
    log.take(
        now,
        fact("paused", "C-1", now),
        fact("closed", "C-2", now),
        fact("customer_replied", "T-0", now),
        fact("excluded", "T-1", now, reason="basic_training"),
    )
    log.take(now, fact("escalated", "NEW", now), *(fact("closed", f"T-{n}", now) for n in range(3, 30, 3)))
    projection = Promises()
    catch_up(log.store, projection)
    with log.store.read_view() as cursor:
        every = projection.list_page(cursor, PromiseFilter(), now, 1_000)
        counted = "SELECT originator_id, count(*) FROM stored_events WHERE topic = 'fact_recorded/1' GROUP BY 1"
        facts = dict(rows(log.database, counted))
        assert len({row.key for row in every}) == len(every) > 100
        assert all(row.facts == facts[row.key.ticket] for row in every)
        for wanted in FILTERS:
            expected, found = [row for row in every if wanted.matches(row, now)], list[PromiseRow]()
            while page := projection.list_page(cursor, wanted, now, 5, make_page_mark(found[-1]) if found else None):
                found += page
            assert found == expected, wanted
            assert (len(found) > 0) == (wanted.search != "%"), wanted
            waits = [row for row in expected if row.state.stage in OPEN_STAGES]
            assert projection.list_open(cursor, wanted, now) == waits
            first = projection.list_open(cursor, wanted, now, 1)
            assert first[:1] == waits[:1] and {row.key for row in first} <= {row.key for row in waits}
    log.store.close()


def test_what_nobody_promised_is_in_no_list_and_no_figure_until_it_is_promised(tmp_path: Path) -> None:
    log = Log(tmp_path / "sla.db", WORDS)
    log.take(START, opened("A", START, "request", "gold"))
    log.take(START + HOUR, responded("A", START + HOUR))
    projection = Promises()

    def read_figures() -> tuple[list[PromiseRow], int, int]:
        catch_up(log.store, projection)
        with log.store.read_view() as cursor:
            counts, sums = projection.read_counts(cursor), [*projection.sum_outcomes(cursor, [], Span())]
            assert projection.list_tickets(cursor) == ["A"]
            return projection.list_page(cursor, PromiseFilter(), START, 9), sum(counts.values()), len(sums)

    assert read_figures() == ([], 0, 0)
    log.take(START + 2 * HOUR, fact("priority_changed", "A", START + HOUR / 2, priority="minor"))
    listed, counted, summed = read_figures()
    assert ([row.state.stage for row in listed], counted, summed) == (["fulfilled"], 1, 1)
    log.store.close()


def test_promises_that_are_late_are_those_whose_deadline_has_passed(log: Log) -> None:
    log.take(START, opened("A", START), opened("B", START, "serious"), opened("C", START), responded("C", START))
    catch_up(log.store, Promises())
    with log.store.read_view() as cursor:
        assert Promises().count_late(cursor, START + 2 * HOUR - HOUR / 3600) == {}
        assert Promises().count_late(cursor, START + 2 * HOUR) == {("first_response", "enterprise", "critical"): 1}
        assert Promises().count_late(cursor, START + 4 * HOUR).total() == 2


def test_compliance_and_arrivals_count_what_the_log_and_the_inbox_say(log: Log) -> None:
    log.live_through(range(60))
    for projection in (Compliance(), Arrivals()):
        catch_up(log.store, projection)
    topics = dict(rows(log.database, "SELECT topic, count(*) FROM stored_events GROUP BY topic"))
    outcomes = dict(rows(log.database, "SELECT outcome, count(*) FROM inbox GROUP BY outcome"))
    with log.store.read_view() as cursor:
        promises, arrivals = Compliance().read_counts(cursor), Arrivals().read_counts(cursor)

    def summed(counts: dict[Any, float], *key: str) -> float:
        return sum(n for each, n in counts.items() if set(key) <= set(each))

    assert summed(promises, "breached") == topics["breached/1"] > 0
    assert summed(promises, "retracted") == topics["breach_retracted/1"] > 0
    assert summed(promises, "fulfilled") + summed(promises, "revised") == topics["fulfilled/1"] > 0
    for outcome in ("recorded", "duplicate", "dead_letter"):
        assert summed(arrivals, "fact", outcome) == outcomes[outcome] > 0
    assert summed(arrivals, "dead_letter", "malformed") == 1


def test_an_answer_that_counts_again_is_in_the_reports_though_batches_end_in_between(log: Log) -> None:
    log.take(START, opened("T", START))
    log.take(START + HOUR, responded("T", START + HOUR / 2))
    rows = log.store.read_log_rows(0, 10)
    (fulfilled,) = (entry.event.state for entry in decode_rows(rows, Fulfilled))

    def updated(stage: str) -> LogRow:
        event = StateUpdated(at=START, state=replace(fulfilled, stage=stage))
        return LogRow(99, "T", event.TOPIC, encode_event(event))

    with log.store.write_view() as cursor:
        for batch in (rows, [updated("running")], [updated("fulfilled")]):
            Promises().apply(cursor, batch)
        answers = [tuple(row) for row in Promises().list_answers(cursor, [], Span())]
    assert answers == [(HOUR / 2 // timedelta(microseconds=1),)]


def test_a_projection_decodes_only_what_it_needs_and_stops_at_what_nobody_knows(log: Log) -> None:
    log.take(START, opened("T", START))
    with log.store.write_log() as cursor:
        cursor.execute("UPDATE stored_events SET state = ? WHERE topic = 'fact_recorded/1'", (b"?",))
    catch_up(log.store, Deadlines())
    with log.store.read_view() as cursor:
        assert [row.ticket for row in Deadlines().read_until(cursor, 2**62, 2)] == ["T"]
    with log.store.write_log() as cursor:
        cursor.execute("UPDATE stored_events SET topic = 'of_tomorrow/1' WHERE topic = 'fact_recorded/1'")
    with pytest.raises(StoreError, match="upgrade the engine"):
        catch_up(log.store, Promises())
