"""Health: whether what should progress does, by what the bus and the store say, and which part of a process fails."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from projections.deadlines import DeadlineRow, Deadlines
from services.bus.connection import Bus
from services.bus.streams import TICKETS
from services.errors import TRANSIENT_ERRORS, BusError, FatalError
from services.runtime.service import Now, Replication, Service
from services.runtime.supervisor import Supervisor
from services.store.interface import Store
from services.store.schema import ANNOUNCER_CHECKPOINT

log = structlog.get_logger()

T = TypeVar("T")

CHECK_INTERVAL = 2.0  # seconds between two checks, and the longest that one may take
STALLED_AFTER = 5  # checks in a row without progress
HUNG_AFTER = 15  # checks in a row without a heartbeat, after which a service never comes back
REMEMBER_DENIAL = 5  # checks for which a refusal is remembered: who still needs the permission asks again meanwhile

PARTS = ("store", "bus", "permissions", "streams", "backlog", "outbox", "views", "deadlines")
"""What may fail beside the services themselves. Labels of `sla_not_ready`."""


class StoreProgress(NamedTuple):
    """
    How far the store has come: the sequence of TICKETS up to which all is committed, the checkpoint of each reader of
    the log or the inbox, the readers that are not at its end, and the first instant that is overdue and not judged.
    """

    committed_sequence: int
    checkpoints: Mapping[str, int]
    behind: frozenset[str]
    overdue: DeadlineRow | None


class Watchdog:
    """
    Checks again and again what the services declare; `problems` are the parts that do not work, with the reason and
    what to do. It counts checks instead of seconds, so that a suspended process is not reported as stalled. `on_hang`
    is called when a service never comes back.
    """

    def __init__(
        self,
        supervisors: Mapping[str, Supervisor],
        declared: Collection[type[Service]],
        bus: Bus,
        store: Store | None,
        on_hang: Callable[[str], None],
        now: Now,
        interval: float = CHECK_INTERVAL,
    ) -> None:
        self._supervisors, self._bus, self._store, self._on_hang, self._now = supervisors, bus, store, on_hang, now
        self._interval = interval
        self._streams = list(dict.fromkeys(stream for service in declared for stream in service.streams))
        projections = {each.name: each for service in declared for each in service.projections}
        checkpoints = [service.checkpoint for service in declared if service.checkpoint is not None]
        self._readers = list(dict.fromkeys([*projections, *checkpoints]))
        self._inbox_readers = {each.name for each in projections.values() if each.source == "inbox"}
        self._sends_ticks = Deadlines in projections.values()
        self._reads_tickets = any(service.replication is Replication.PARTITION_LEASES for service in declared)
        self._last: dict[str, Any] = {}
        self._stalls: defaultdict[str, int] = defaultdict(int)
        self._unanswered: dict[str, asyncio.Future[Any]] = {}
        self._denied: tuple[str, int] = ("", 0)
        self.problems: dict[str, str] = {"streams": "not looked at yet"}

    def record_denial(self, error: str) -> None:
        """Record a refusal: the broker tells the connection, not who asked (docs/upstream-behaviour.md#f17)."""
        text = f"{error}; give the user of this process the permission"
        self._denied = (text, REMEMBER_DENIAL)
        self.problems = self.problems | {"permissions": text}

    async def run(self) -> None:
        """Check until cancelled. Raises FatalError if waiting does not help."""
        time = asyncio.get_running_loop().time
        try:
            while True:
                began = time()
                found = await self._check()
                if found.keys() != self.problems.keys():
                    (log.warning if found else log.info)("readiness changed", problems=found)
                self.problems = found
                await asyncio.sleep(max(0.0, began + self._interval - time()))
        finally:
            if self._unanswered:
                await asyncio.wait(self._unanswered.values())

    async def _check(self) -> dict[str, str]:
        if why := self._bus.close_reason:
            raise FatalError(f"the broker has ended the connection for good: {why}; put that right, and start again")
        found: dict[str, str] = {}
        newest, progress = await asyncio.gather(
            self._ask("streams", self._check_streams, found), self._ask("store", self._read_progress, found)
        )
        if progress is not None:
            found |= self._find_stalled(progress)
            if newest is not None:
                found |= self._check_backlog(newest, progress.committed_sequence)
        return found | dict([*self._check_permissions(), *self._check_heartbeats()])

    async def _ask(self, part: str, ask: Callable[[], Awaitable[T]], found: dict[str, str]) -> T | None:
        """Return the answer, or None and a problem in `found`. What hangs is not asked again: threads would pile up."""
        if part not in self._unanswered:
            self._unanswered[part] = asyncio.ensure_future(ask())
        asked = self._unanswered[part]
        done, _ = await asyncio.wait([asked], timeout=self._interval)
        if not done:
            found[part] = f"no answer within {self._interval:g} s; see whether it is there, and how busy it is"
            return None
        del self._unanswered[part]
        try:
            answer: T = asked.result()
        except TRANSIENT_ERRORS as error:
            found[part] = str(error) or type(error).__name__
            return None
        return answer

    async def _check_streams(self) -> int:
        """Return the newest sequence of TICKETS. Raises BusError if a stream is missing, or its settings break us."""
        broken = await asyncio.gather(*(self._find_broken(stream) for stream in self._streams))
        if wrong := [line for lines in broken for line in lines]:
            raise BusError("; ".join(wrong))
        return await self._bus.read_last_sequence(TICKETS) if TICKETS in self._streams else 0

    async def _find_broken(self, stream: str) -> list[str]:
        try:
            return await self._bus.find_breaking_settings(stream)
        except BusError as error:
            return [str(error)]

    async def _read_progress(self) -> StoreProgress | None:
        return None if self._store is None else await asyncio.to_thread(self._load_progress, self._store)

    def _load_progress(self, store: Store) -> StoreProgress:
        """Read the progress. Blocks. Raises FatalError if the store is not the one that was opened."""
        if store.is_replaced():
            raise FatalError(
                "the store was deleted or replaced while the engine worked on it, and what is stored now is lost; put "
                "it in its place, and start again"
            )
        checkpoints = {name: store.read_checkpoint(name) or 0 for name in self._readers}
        head = store.read_head()
        behind = {
            name
            for name, checkpoint in checkpoints.items()
            if (store.read_inbox(checkpoint, 1) if name in self._inbox_readers else checkpoint < head)
        }
        overdue = self._find_overdue(store) if self._sends_ticks else None
        return StoreProgress(store.read_committed_sequence(), checkpoints, frozenset(behind), overdue)

    def _find_overdue(self, store: Store) -> DeadlineRow | None:
        late = round(STALLED_AFTER * self._interval * 1e6)
        with store.read_view() as cursor:
            rows = Deadlines().read_until(cursor, self._now() - late, 1)
        return rows[0] if rows else None

    def _find_stalled(self, progress: StoreProgress) -> dict[str, str]:
        found: dict[str, str] = {}
        checkpoints = progress.checkpoints
        stalled = [name for name in self._readers if self._is_stalled(name, checkpoints[name], name in progress.behind)]
        if ANNOUNCER_CHECKPOINT in stalled:
            stalled.remove(ANNOUNCER_CHECKPOINT)
            found["outbox"] = (
                f"nothing after {checkpoints[ANNOUNCER_CHECKPOINT]} of the log is announced; see what announcer logs"
            )
        if stalled:
            behind = ", ".join(f"{name} after {checkpoints[name]}" for name in stalled)
            found["views"] = f"these views do not follow: {behind}; see what the services that follow them log"
        overdue = progress.overdue
        if self._is_stalled("overdue", overdue, overdue is not None) and overdue:
            ago = (self._now() - overdue.at) / 1e6
            found["deadlines"] = (
                f"an instant {ago:.0f} s ago is not judged; see whether intake and clock run, and whether this machine "
                "and the broker agree on the time"
            )
        return found

    def _check_backlog(self, newest: int, committed: int) -> dict[str, str]:
        if not self._reads_tickets or not self._is_stalled("backlog", committed, committed < newest):
            return {}
        return {"backlog": f"{newest - committed} messages wait, and none is taken; see what the active intake logs"}

    def _check_permissions(self) -> Iterator[tuple[str, str]]:
        """Yield a refusal as long as a service does not work, for which it may be the reason."""
        text, looks = self._denied
        if looks > 0 or (text and any(supervisor.problem for supervisor in self._supervisors.values())):
            self._denied = (text, looks - 1)
            yield "permissions", text
        else:
            self._denied = ("", 0)

    def _check_heartbeats(self) -> Iterator[tuple[str, str]]:
        """Yield the services without heartbeats, and call `on_hang` for one that never comes back."""
        for name, supervisor in self._supervisors.items():
            checks = self._count_stalls(f"heartbeats of {name}", (supervisor.built, supervisor.heartbeats), True)
            seconds = checks * self._interval
            if checks >= HUNG_AFTER:
                self._on_hang(f"{name} hangs: no turn for {seconds:g} s")
            if checks >= STALLED_AFTER:
                yield name, f"no turn for {seconds:g} s; the process ends after {HUNG_AFTER * self._interval:g} s"

    def _is_stalled(self, what: str, value: object, should_move: bool) -> bool:
        return self._count_stalls(what, value, should_move) >= STALLED_AFTER

    def _count_stalls(self, what: str, value: object, should_move: bool) -> int:
        """Return for how many checks in a row a value has stood still though it should move."""
        self._stalls[what] = self._stalls[what] + 1 if should_move and self._last.get(what) == value else 0
        self._last[what] = value
        return self._stalls[what]


class Readiness(Collector):
    """The metric `sla_not_ready`: the reasons of /health/ready as series, so that an alert can name the part."""

    def __init__(self, names: tuple[str, ...], problems: Callable[[], dict[str, str]]) -> None:
        self._names, self._problems = names, problems

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "sla_not_ready",
            "1 for each part of this process that does not work now; /health/ready says why.",
            labels=["part"],
        )
        found = self._problems()
        for part in (*self._names, *PARTS):
            family.add_metric([part], float(part in found))
        yield family
