"""Watchdog: does what ought to move, move? By what the bus and the store say, not by what a service believes."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from projections.deadlines import DeadlineRow, Deadlines
from services.bus.connection import Bus
from services.bus.streams import DEAD_LETTERS, SLA, TICKETS, UNDELIVERED
from services.errors import TRANSIENT_ERRORS, BusError, FatalError
from services.runtime.service import Now, Supervisor
from services.store.interface import ANNOUNCER_CHECKPOINT, Store

log = structlog.get_logger()

T = TypeVar("T")

CHECK_INTERVAL = 2.0  # seconds between two looks, and the longest that one may take
STALLED_AFTER = 5  # looks in a row without movement, after which something is stuck
HUNG_AFTER = 15  # looks in a row without a turn, after which a service hangs for ever
REMEMBER_DENIAL = 5  # looks for which a refusal is remembered: whoever still needs the permission asks again meanwhile

PARTS = ("store", "bus", "permissions", "streams", "backlog", "outbox", "views", "deadlines")
"""What may not work beside the services themselves. Labels of `sla_not_ready`."""

_STREAMS = {
    "intake": (TICKETS, DEAD_LETTERS),
    "clock": (TICKETS,),
    "announcer": (SLA,),
    "metrics": (TICKETS,),
    "board": (),
    "notifier": (SLA, UNDELIVERED),
}
_ARRIVALS = "arrivals"  # the view that follows the inbox, not the log
_READERS = {
    "clock": ("deadlines",),
    "announcer": (ANNOUNCER_CHECKPOINT,),
    "metrics": ("tickets", "compliance", _ARRIVALS),
    "board": ("tickets", "compliance"),
}


class StoreProgress(NamedTuple):
    """What the store says: how far all are, intake too, who has more to read, and the first instant not judged."""

    committed_sequence: int
    checkpoints: Mapping[str, int]
    waiting: frozenset[str]
    overdue: DeadlineRow | None


class Watchdog:
    """
    `problems` are the parts that do not work, with the reason and what to do; `run` looks again and again until it is
    cancelled. Looks are counted and not seconds: a process that was paused was not stuck.
    """

    def __init__(
        self,
        supervisors: Mapping[str, Supervisor],
        bus: Bus,
        store: Store | None,
        hopeless: Callable[[str], None],
        now: Now,
        every: float = CHECK_INTERVAL,
    ) -> None:
        self._supervisors, self._bus, self._store, self._on_hang, self._now = supervisors, bus, store, hopeless, now
        self._interval = every
        self._readers = list(dict.fromkeys(reader for name in supervisors for reader in _READERS.get(name, ())))
        self._last: dict[str, Any] = {}
        self._still: defaultdict[str, int] = defaultdict(int)
        self._unanswered: dict[str, asyncio.Future[Any]] = {}
        self._denied: tuple[str, int] = ("", 0)
        self.problems: dict[str, str] = {"streams": "not looked at yet"}

    def record_denial(self, error: str) -> None:
        """The broker has refused something: it says so to the connection, not to who asked (TRAPS F17)."""
        text = f"{error}; give the user of this process the permission"
        self._denied = (text, REMEMBER_DENIAL)
        self.problems = self.problems | {"permissions": text}

    async def run(self) -> None:
        """Raises FatalError if waiting does not help."""
        time = asyncio.get_running_loop().time
        try:
            while True:
                began = time()
                found = await self._check()
                if found.keys() != self.problems.keys():
                    (log.warning if found else log.info)("watchdog", problems=found)
                self.problems = found
                await asyncio.sleep(max(0.0, began + self._interval - time()))
        finally:
            if self._unanswered:
                await asyncio.wait(self._unanswered.values())

    async def _check(self) -> dict[str, str]:
        if why := self._bus.close_reason:
            raise FatalError(f"the broker has ended the connection for good: {why}; put that right, and start again")
        found: dict[str, str] = {}
        newest, standing = await asyncio.gather(
            self._ask("streams", self._check_streams, found), self._ask("store", self._read_progress, found)
        )
        if standing is not None:
            found |= self._find_stalled(standing)
            if newest is not None:
                found |= self._check_backlog(newest, standing.committed_sequence)
        return found | dict([*self._check_permissions(), *self._check_heartbeats()])

    async def _ask(self, part: str, ask: Callable[[], Awaitable[T]], found: dict[str, str]) -> T | None:
        """None and a problem if there is no good answer. What hangs is not asked again: threads would pile up."""
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
        """The newest message for intake. Raises BusError if a stream is missing, or is set so that it breaks us."""
        streams = dict.fromkeys(stream for name in self._supervisors for stream in _STREAMS[name])
        broken = await asyncio.gather(*(self._find_broken(stream) for stream in streams))
        if wrong := [line for lines in broken for line in lines]:
            raise BusError("; ".join(wrong))
        return await self._bus.read_last_sequence(TICKETS) if TICKETS in streams else 0

    async def _find_broken(self, stream: str) -> list[str]:
        try:
            return await self._bus.find_breaking_settings(stream)
        except BusError as error:
            return [str(error)]

    async def _read_progress(self) -> StoreProgress | None:
        return None if self._store is None else await asyncio.to_thread(self._load_progress, self._store)

    def _load_progress(self, store: Store) -> StoreProgress:
        """Blocking."""
        if store.is_replaced():
            raise FatalError(
                "the store was deleted or replaced while the engine worked on it, and what is stored now is lost; put "
                "it in its place, and start again"
            )
        positions = {name: store.read_checkpoint(name) or 0 for name in self._readers}
        head = store.read_head()
        waiting = {name for name in self._readers if name != _ARRIVALS and positions[name] < head}
        if _ARRIVALS in positions and store.read_inbox(positions[_ARRIVALS], 1):
            waiting.add(_ARRIVALS)
        overdue = self._find_overdue(store) if "clock" in self._supervisors else None
        return StoreProgress(store.read_committed_sequence(), positions, frozenset(waiting), overdue)

    def _find_overdue(self, store: Store) -> DeadlineRow | None:
        late = round(STALLED_AFTER * self._interval * 1e6)
        with store.read_view() as cursor:
            rows = Deadlines().read_until(cursor, self._now() - late, 1)
        return rows[0] if rows else None

    def _find_stalled(self, standing: StoreProgress) -> dict[str, str]:
        found: dict[str, str] = {}
        positions = standing.checkpoints
        stuck = [
            name
            for name in self._readers
            if self._count_stalls(name, positions[name], name in standing.waiting) >= STALLED_AFTER
        ]
        if ANNOUNCER_CHECKPOINT in stuck:
            stuck.remove(ANNOUNCER_CHECKPOINT)
            found["outbox"] = (
                f"nothing after {positions[ANNOUNCER_CHECKPOINT]} of the log is announced; see what announcer logs"
            )
        if stuck:
            behind = ", ".join(f"{name} after {positions[name]}" for name in stuck)
            found["views"] = f"these views do not follow: {behind}; see what the services that follow them log"
        if (
            self._count_stalls("overdue", standing.overdue, standing.overdue is not None) >= STALLED_AFTER
            and standing.overdue
        ):
            ago = (self._now() - standing.overdue.at) / 1e6
            found["deadlines"] = (
                f"an instant {ago:.0f} s ago is not judged; see whether intake and clock run, and whether this machine "
                "and the broker agree on the time"
            )
        return found

    def _check_backlog(self, newest: int, taken: int) -> dict[str, str]:
        if "intake" not in self._supervisors or self._count_stalls("backlog", taken, taken < newest) < STALLED_AFTER:
            return {}
        return {"backlog": f"{newest - taken} messages wait, and none is taken; see what the active intake logs"}

    def _check_permissions(self) -> Iterator[tuple[str, str]]:
        """Remembered as long as a service does not work, which may be why."""
        text, looks = self._denied
        if looks > 0 or (text and any(supervisor.problem for supervisor in self._supervisors.values())):
            self._denied = (text, looks - 1)
            yield "permissions", text
        else:
            self._denied = ("", 0)

    def _check_heartbeats(self) -> Iterator[tuple[str, str]]:
        """A service comes round every few seconds, or is built again."""
        for name, supervisor in self._supervisors.items():
            looks = self._count_stalls(f"turns of {name}", (supervisor.built, supervisor.heartbeats), True)
            seconds = looks * self._interval
            if looks >= HUNG_AFTER:
                self._on_hang(f"{name} hangs: no turn for {seconds:g} s")
            if looks >= STALLED_AFTER:
                yield name, f"no turn for {seconds:g} s; the process ends after {HUNG_AFTER * self._interval:g} s"

    def _count_stalls(self, what: str, value: object, waits: bool) -> int:
        """For how many looks in a row a value has stood still though it should move."""
        self._still[what] = self._still[what] + 1 if waits and self._last.get(what) == value else 0
        self._last[what] = value
        return self._still[what]


class Readiness(Collector):
    """`sla_not_ready`: the reasons of /health/ready as series, so that an alert can name the part."""

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
