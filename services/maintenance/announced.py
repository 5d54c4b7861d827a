"""`sla verify`, the part about SLA: does it hold what the log says was announced, each once, a ticket's in order?"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from events.times import to_microseconds
from services.announcer import build_announcement, build_key
from services.bus.connection import Bus
from services.bus.publisher import ID_HEADER
from services.bus.streams import SLA
from services.maintenance.verify import READ_ERRORS, Discrepancy, open_temporary_database
from services.runtime.connections import find_bus_url, open_bus, read_credentials
from services.runtime.settings import Settings
from services.store.interface import Snapshot
from services.store.schema import ANNOUNCED_SINCE, ANNOUNCER_CHECKPOINT
from services.store.snapshot import read_checkpoint, read_log_rows
from sla.log import Announced, LogEntry, decode_rows

COUNT_INTERVAL = 1_000  # events of the log from one report of progress to the next

MISSING = """SELECT label, 'a message of SLA', 'nothing' FROM decided
    WHERE position > ? AND position <= ? AND at > ? AND key NOT IN (SELECT key FROM found) ORDER BY position"""
DOUBLED = """SELECT label, 'one message of SLA', 'messages ' || group_concat(sequence, ', ')
    FROM (SELECT * FROM found ORDER BY sequence) JOIN decided USING (key)
    GROUP BY key HAVING count(*) > 1 ORDER BY min(sequence)"""
FOREIGN = """SELECT 'message ' || sequence || ' of SLA', 'an announcement of the log', subject FROM found
    WHERE sequence <= ? AND key NOT IN (SELECT key FROM decided) ORDER BY sequence"""
OUT_OF_ORDER = """SELECT label, 'before ' || above, 'message ' || sequence || ' of SLA, after it' FROM (
        SELECT label, sequence, position, lag(label) OVER ticket above, lag(position) OVER ticket above_position
        FROM (SELECT key, min(sequence) sequence FROM found GROUP BY key) JOIN decided USING (key)
        WINDOW ticket AS (PARTITION BY ticket ORDER BY sequence))
    WHERE above_position > position ORDER BY sequence"""


class AnnouncementCheck:
    """
    Compares SLA with the log, in the order of the methods; the log is that of a snapshot taken after `read_end`. What
    SLA has discarded by its limits is not missed: nothing that was decided before the oldest message it still holds.
    """

    def __init__(self, settings: Settings, data: Path) -> None:
        self._settings, self._data = settings, data
        self._end = 0  # of SLA, before the log was read: what is behind it may be newer than the snapshot
        self._since = -1  # when the oldest message of SLA was stored, in microseconds, if it has discarded some
        self._database = open_temporary_database()
        self._database.execute("CREATE TABLE found (sequence INTEGER PRIMARY KEY, key BLOB, subject TEXT)")
        self._database.execute(
            "CREATE TABLE decided (key BLOB PRIMARY KEY, ticket TEXT, position INTEGER, at INTEGER, label TEXT)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    async def read_end(self) -> None:
        """Raises BusError, FatalError or ValueError if the bus cannot be asked."""
        async with self._open_bus() as bus:
            self._end = await bus.read_last_sequence(SLA)

    def read_log(self, stored: Snapshot) -> Iterator[int]:
        """Read what was decided, as far as it can be read; yield how many events are done."""
        for row in read_log_rows(stored):
            with suppress(*READ_ERRORS):
                decided = [_build_row(entry) for entry in decode_rows([row], Announced)]
                self._database.executemany("INSERT OR IGNORE INTO decided VALUES (?, ?, ?, ?, ?)", decided)
            if row.position % COUNT_INTERVAL == 0:
                yield row.position

    async def read_stream(self) -> None:
        """Read what SLA holds. Raises the same as `read_end`."""
        async with self._open_bus() as bus:
            oldest, newest = await bus.read_ends(SLA)
            reader, sequence = bus.create_reader(SLA, 0), 0
            try:
                await reader.start()
                while reader.lag and sequence < newest:
                    messages = await reader.read_batch()
                    if sequence == 0 and oldest > 1:
                        self._since = to_microseconds(messages[0].stored_at)
                    sequence = messages[-1].sequence
                    ids = [(each.headers or {}).get(ID_HEADER, "").partition("/")[0] for each in messages]
                    self._database.executemany(
                        "INSERT INTO found VALUES (?, ?, ?)",
                        [
                            (each.sequence, build_key(id, each.subject), each.subject)
                            for id, each in zip(ids, messages, strict=True)
                        ],
                    )
            finally:
                await reader.close()

    def find_differences(self, stored: Snapshot) -> Iterator[Discrepancy]:
        """Yield what is missing, doubled, foreign, and out of order within a ticket."""
        since, until = (read_checkpoint(stored, name) or 0 for name in (ANNOUNCED_SINCE, ANNOUNCER_CHECKPOINT))
        for question, *parameters in (
            (MISSING, since, until, self._since),
            (DOUBLED,),
            (FOREIGN, self._end),
            (OUT_OF_ORDER,),
        ):
            for row in self._database.execute(question, parameters):
                yield Discrepancy(*row)

    @asynccontextmanager
    async def _open_bus(self) -> AsyncIterator[Bus]:
        url, credentials = find_bus_url(self._settings, self._data), read_credentials(self._settings)
        async with open_bus(url, "verify", credentials) as nc:
            yield Bus(nc)


def _build_row(entry: LogEntry) -> tuple[bytes, str, int, int, str]:
    event, subject = entry.event, build_announcement(entry).subject
    key, label = build_key(event.id, subject), f"{entry.ticket}, {event.KIND} {event.id}"
    return key, entry.ticket, entry.position, to_microseconds(event.at), label
