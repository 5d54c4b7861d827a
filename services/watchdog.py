"""Watchdog: does what ought to move, move? By what the bus and the store say, not by what a service believes."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from projections.deadlines import Deadlines, Row
from services.announcer import POSITION
from services.bus import DEAD_LETTERS, SLA, TICKETS, Bus
from services.service import OUTAGES, Keeper, Now
from services.store import INTAKE, Store

log = structlog.get_logger()

EVERY = 2.0  # seconds between two looks
STUCK = 5  # looks in a row without movement, after which something is stuck
HOPELESS = 15  # looks in a row without a turn, after which a service hangs for ever
LATE = 10_000_000  # microseconds a deadline may be past without having been judged
DENIED_FOR = 5  # looks for which a refusal is remembered: whoever still needs the permission asks again meanwhile

PARTS = ("store", "bus", "permissions", "streams", "backlog", "outbox", "views", "deadlines")
"""What may not work beside the services themselves. Labels of `sla_not_ready`."""

_STREAMS = {
    "intake": (TICKETS, DEAD_LETTERS),
    "clock": (TICKETS,),
    "announcer": (SLA,),
    "metrics": (TICKETS,),
}
_VIEWS = {"clock": ("deadlines",), "metrics": ("tickets", "compliance")}


class Standing(NamedTuple):
    """What the store says: how far its readers are, and the first deadline that is past and not judged."""

    head: int
    positions: Mapping[str, int]
    overdue: Row | None


class Watchdog:
    """`problems` are the parts that do not work, with the reason; `run` looks again and again until it is cancelled."""

    def __init__(
        self, keepers: Mapping[str, Keeper], bus: Bus, store: Store, hopeless: Callable[[str], None], now: Now
    ) -> None:
        self._keepers, self._bus, self._store, self._hopeless, self._now = keepers, bus, store, hopeless, now
        self._views = [view for name in keepers for view in _VIEWS.get(name, ())]
        self._last: dict[str, Any] = {}
        self._still: defaultdict[str, int] = defaultdict(int)
        self._denied: tuple[str, int] = ("", 0)
        self.problems: dict[str, str] = {}

    def denied(self, error: str) -> None:
        """The broker has refused something: it says so to the connection, not to who asked (TRAPS F17)."""
        self._denied = (error, DENIED_FOR)
        self.problems = self.problems | {"permissions": error}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            found = dict([*self._turns(), *self._permissions()])
            found |= await self._streams()
            found |= await self._movement()
            if found != self.problems:
                log.warning("watchdog", problems=found)
            self.problems = found

    def _turns(self) -> Iterator[tuple[str, str]]:
        """A service that believes to be well comes round every few seconds."""
        for name, keeper in self._keepers.items():
            looks = self._looks(name, (id(keeper.service), keeper.turns), keeper.problem is None)
            if looks >= HOPELESS:
                self._hopeless(f"{name} hangs: no turn for {looks * EVERY:g} s")
            if looks >= STUCK:
                yield name, f"no turn for {looks * EVERY:g} s; the process ends after {HOPELESS * EVERY:g} s"

    def _permissions(self) -> Iterator[tuple[str, str]]:
        text, looks = self._denied
        self._denied = (text, looks - 1)
        if looks > 0:
            yield "permissions", text

    async def _streams(self) -> dict[str, str]:
        wanted = dict.fromkeys(stream for name in self._keepers for stream in _STREAMS[name])
        try:
            wrong = [line for stream in wanted for line in await self._bus.broken(stream)]
        except OUTAGES as error:
            return {"streams": str(error) or "the bus does not answer"}
        return {"streams": "; ".join(wrong)} if wrong else {}

    async def _movement(self) -> dict[str, str]:
        try:
            newest = await self._bus.last_sequence(TICKETS) if "intake" in self._keepers else 0
            async with asyncio.timeout(STUCK * EVERY):
                standing = await asyncio.to_thread(self._standing)
        except TimeoutError:
            return {"store": f"no answer within {STUCK * EVERY:g} s"}
        except OUTAGES as error:
            return {"store": str(error) or type(error).__name__}
        return dict(self._stuck(newest, standing))

    def _standing(self) -> Standing:
        names = (INTAKE, POSITION, *self._views)
        with self._store.reading() as cursor:
            overdue = Deadlines().until(cursor, self._now() - LATE, 1)
        positions = {name: self._store.position(name) or 0 for name in names}
        return Standing(self._store.head(), positions, overdue[0] if overdue else None)

    def _stuck(self, newest: int, standing: Standing) -> Iterator[tuple[str, str]]:
        taken, announced = standing.positions[INTAKE], standing.positions[POSITION]
        if "intake" in self._keepers and self._looks("backlog", taken, taken < newest) >= STUCK:
            yield "backlog", f"{newest - taken} messages wait, and none is taken"
        if "announcer" in self._keepers and self._looks("outbox", announced, announced < standing.head) >= STUCK:
            yield "outbox", f"{standing.head - announced} events of the log wait, and none is announced"
        for view in self._views:
            position = standing.positions[view]
            if self._looks(f"view {view}", position, position < standing.head) >= STUCK:
                yield "views", f"view {view} does not follow: it is {standing.head - position} events behind"
        overdue = standing.overdue
        if "clock" in self._keepers and self._looks("deadlines", overdue, overdue is not None) >= STUCK and overdue:
            yield "deadlines", f"an instant passed {(self._now() - overdue.at) / 1e6:.0f} s ago and is not judged yet"

    def _looks(self, what: str, value: object, waits: bool) -> int:
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
