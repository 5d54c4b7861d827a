"""Tables of sums that only rise, for projections that count. What is counted is in compliance.py and arrivals.py."""

from collections import Counter
from typing import ClassVar

from projections.runner import Cursor

Count = tuple[str, str, str, str, str, str]  # what, and up to five labels


class Counters:
    """
    A table of sums, keyed by what is counted and its labels. Whole numbers, spans in microseconds: a sum of floats
    would depend on how the log was cut into batches, and could be lower after a rebuild.
    """

    name: ClassVar[str]

    def __init__(self, suffix: str = "") -> None:
        self._table = f"{self.name}{suffix}"

    @property
    def tables(self) -> tuple[str, ...]:
        return (self._table,)

    def create_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (what TEXT, a TEXT, b TEXT, c TEXT, d TEXT, e TEXT, "
            "n BIGINT NOT NULL, PRIMARY KEY (what, a, b, c, d, e))"
        )

    def _add(self, cursor: Cursor, sums: Counter[Count]) -> None:
        cursor.executemany(
            f"INSERT INTO {self._table} VALUES (?, ?, ?, ?, ?, ?, ?) "
            f"ON CONFLICT (what, a, b, c, d, e) DO UPDATE SET n = {self._table}.n + excluded.n",
            [(*key, n) for key, n in sums.items()],
        )

    def read_counts(self, cursor: Cursor) -> dict[Count, int]:
        """Return every sum by its key."""
        cursor.execute(f"SELECT what, a, b, c, d, e, n FROM {self._table}")
        return {(what, a, b, c, d, e): n for what, a, b, c, d, e, n in cursor.fetchall()}
