"""The store, of either kind: who may move a committed sequence, and where to."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from projections.registry import PROJECTIONS
from services.errors import FencedError
from services.store.interface import Store
from sla.engine import BatchOutcome, InboxRow
from tests.support.stores import new_store

pytestmark = [pytest.mark.stores, pytest.mark.xdist_group("store")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    place = new_store(tmp_path / "sla.db")
    place.migrate(PROJECTIONS)
    with closing(place.open()) as found:
        yield found


def build_row(sequence: int) -> InboxRow:
    return InboxRow(sequence, "recorded", "ticket.paused", None, bytes([sequence]), b"", "T-1")


def test_a_fenced_process_stores_nothing(store: Store) -> None:
    store.commit(BatchOutcome(last_sequence=5, inbox=[build_row(5)]), {0: 0})
    with pytest.raises(FencedError, match="another intake works on this store"):
        store.commit(BatchOutcome(last_sequence=6, inbox=[build_row(6)]), {0: 4})
    assert store.read_partitions() == {0: 5} and store.read_inbox(0, 10) == [build_row(5)]


def test_partitions_that_one_intake_reads_move_together_and_never_back(store: Store) -> None:
    store.repartition(3, {0: 0})
    store.commit(BatchOutcome(last_sequence=7), {1: 0})
    store.commit(BatchOutcome(last_sequence=4), {0: 0, 1: 7})
    assert store.read_partitions() == {0: 4, 1: 7, 2: 0} and store.read_committed_sequence() == 0
    with pytest.raises(FencedError):
        store.commit(BatchOutcome(last_sequence=9), {0: 4, 1: 4})
    assert store.read_partitions() == {0: 4, 1: 7, 2: 0}


def test_partitions_are_replaced_only_at_their_committed_sequence(store: Store) -> None:
    store.commit(BatchOutcome(last_sequence=8), {0: 0})
    with pytest.raises(FencedError):
        store.repartition(2, {0: 7})
    store.repartition(2, {0: 8})
    assert store.read_partitions() == {0: 8, 1: 8}


def test_the_inbox_is_read_as_far_as_every_partition_is_stored(store: Store) -> None:
    """Another intake may still store a message that came before."""
    store.repartition(2, {0: 0})
    store.commit(BatchOutcome(last_sequence=3, inbox=[build_row(3)]), {0: 0})
    assert store.read_inbox(0, 10) == []
    store.commit(BatchOutcome(last_sequence=2, inbox=[build_row(2)]), {1: 0})
    assert store.read_inbox(0, 10) == [build_row(2)]
    store.commit(BatchOutcome(last_sequence=5), {1: 2})
    assert store.read_inbox(2, 10) == [build_row(3)]
