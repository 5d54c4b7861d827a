"""Metrics: keeps the projections that Prometheus needs, and shows them. All names and help texts are here."""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from importlib.metadata import version
from itertools import product
from typing import Any, ClassVar, NamedTuple, get_args

from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from events.cloudevents import Reason
from events.promises import Detection
from events.tickets import TICKET_EVENT_TYPES
from events.times import from_microseconds, to_microseconds
from projections.arrivals import Arrivals
from projections.compliance import DELAY_BUCKETS, Compliance, name_outcome, round_up
from projections.counters import Count
from projections.deadlines import Deadlines
from projections.promises import BROKEN, KEPT, NO_LEVEL, Cell, PromiseLabel, Promises
from projections.quarantine import Quarantine
from projections.runner import Projection
from services.bus.connection import Bus
from services.bus.streams import DEAD_LETTERS, TICKETS
from services.errors import TRANSIENT_ERRORS
from services.runtime.series import make_counter
from services.runtime.service import POLL_INTERVAL, Now, Replication, Service, read_wall_clock
from services.runtime.setup import Backends, Setup
from services.store.interface import Lock, Store
from services.store.schema import ANNOUNCER_CHECKPOINT
from sla.decisions import RUNNING_AGAIN
from sla.engine import UNKNOWN_TYPE
from sla.judge import Cause
from sla.policy import FIRST_RESPONSE, Policy
from sla.targets import Target

PROMISE_STAGES = ("running", "fulfilled", "paused", "cancelled", "excluded")
DETECTIONS: tuple[str, ...] = get_args(Detection)
OUTCOMES = (name_outcome(True), name_outcome(False))
CAUSES = tuple(map(str, (Cause.CLOSED, Cause.EXCLUDED, Cause.CORRECTED, Cause.NO_PROMISE)))
REVISED_OUTCOMES = (*OUTCOMES, str(Cause.CLOSED), str(Cause.EXCLUDED), RUNNING_AGAIN)
CELL_LABELS = ("objective", "service_level", "priority")
MAX_CELLS = 100  # objectives, levels and priorities of which every label set is shown before there is a ticket
BUCKET_PARTS = (0.25, 0.5, 0.75, 1.0)  # of each target, where a histogram has a bucket
MAX_BUCKETS = 100
MIN_REFRESH_INTERVAL = 0.25  # seconds between two times that the projections catch up
SHOWN_CHECKPOINTS = (
    Deadlines.name,
    ANNOUNCER_CHECKPOINT,
    Promises.name,
    Compliance.name,
    Quarantine.name,
)  # those in the log


class Metrics(Service, Collector):
    """One process shows the figures; a second one is a standby, so that no sum doubles."""

    name: ClassVar[str] = "metrics"
    summary: ClassVar[str] = "keeps the figures for Prometheus, and shows them"
    streams: ClassVar[tuple[str, ...]] = (TICKETS,)
    projections: ClassVar[tuple[type[Projection], ...]] = (Promises, Compliance, Arrivals, Quarantine)
    replication: ClassVar[Replication] = Replication.LEADER

    def __init__(self, bus: Bus, store: Store, policy: Policy, lock: Lock, now: Now = read_wall_clock) -> None:
        super().__init__()
        self._bus, self._store, self._policy, self._lock, self._now = bus, store, policy, lock, now
        self._promises, self._compliance, self._arrivals = Promises(), Compliance(), Arrivals()
        self._quarantine = Quarantine()
        self._policies = [policy]
        self._active = False
        self._stored = 0  # messages in TICKETS, as last seen
        self._dead_letters: dict[str, int] = {}  # messages in DEAD_LETTERS by subject, as last seen

    @classmethod
    def prepare(cls, setup: Setup) -> "Callable[[Backends], Metrics]":
        """Return what builds the service; in the registry, a new one takes the place of the one before."""
        current: Metrics | None = None

        def build(at: Backends) -> Metrics:
            nonlocal current
            if current is not None:
                setup.registry.unregister(current)
            current = Metrics(at.bus, at.store, setup.policy, at.find_lock(cls.name))
            setup.registry.register(current)
            return current

        return build

    async def run(self) -> None:
        await self.acquire_leadership(self._lock)
        self._active = True
        while True:
            for projection in (self._promises, self._compliance, self._arrivals, self._quarantine):
                await self.catch_up(self._store, projection, self._lock)
            self._stored, self._dead_letters = await self.run_to_completion(
                asyncio.gather(
                    self._bus.read_last_sequence(TICKETS), self._bus.count_messages(DEAD_LETTERS, "dead_letters.*")
                )
            )
            self.record_heartbeat()
            await asyncio.sleep(MIN_REFRESH_INTERVAL)  # not at every nudge: the same rows in fewer transactions
            await self.sleep(POLL_INTERVAL)

    async def stop(self) -> None:
        await super().stop()
        self._active = False
        await asyncio.to_thread(self._lock.release)  # a store that does not answer must not stop the loop

    # ---- what a scrape shows

    def describe(self) -> list[Metric]:
        """Return nothing, so that nothing is collected at registration: the store may not be there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        figures: list[Metric] = []
        if self._active:
            with suppress(*TRANSIENT_ERRORS):  # /health/ready and sla_not_ready show them, and must not fail too
                figures = list(self._collect_all())
        yield GaugeMetricFamily(
            "sla_metrics_active",
            "1 where this process shows the figures, 0 where it is a standby or cannot read the store.",
            bool(figures),
        )
        yield from figures

    def _collect_all(self) -> Iterator[Metric]:
        versions = self._store.read_versions()
        self._policies = [each.policy for each in versions] or [self._policy]
        in_force = versions.get_in_force(from_microseconds(self._now())) if len(versions) else self._policy
        now = from_microseconds(self._now())
        with self._store.read_view() as cursor:
            promises, at_risk = self._promises.read_counts(cursor), self._promises.count_at_risk(cursor, now)
            sums = self._compliance.read_counts(cursor)
            arrivals = self._arrivals.read_counts(cursor)
            following = Deadlines().find_next_after(cursor, 0)
            quarantined = self._quarantine.count(cursor)
        expected = self._list_expected({label.service_level for label in promises})
        yield from _collect_states(promises, at_risk, expected)
        yield from _collect_announced(sums, expected)
        yield from self._collect_histograms(sums)
        yield from _collect_arrivals(arrivals)
        yield _make_gauge(
            "sla_dead_letters_waiting",
            "Messages that cannot count and wait for somebody: see sla dead list --group.",
            ("reason",),
            {(str(reason),): self._dead_letters.get(f"dead_letters.{reason}", 0) for reason in Reason},
        )
        yield GaugeMetricFamily(
            "sla_quarantined_tickets",
            "Tickets that could not be judged and wait for somebody: see sla quarantine list.",
            quarantined,
        )
        yield from self._collect_verification()
        yield from self._collect_lags(following)
        info = {"version": version("sla-engine"), "policy": f"{in_force.name} {in_force.version}"}
        yield InfoMetricFamily("sla_build", "The version of the engine and of its policy.", value=info)

    def _list_expected(self, used: Set[str]) -> list[Cell]:
        """
        Return objective, level and priority of all that a version of the policy promises: what was counted under an
        earlier one stays. Of more than MAX_CELLS only those of levels that somebody has had a ticket of.
        """
        cells = [(objective, level, priority) for objective, level, priority, _ in _iterate_targets(self._policies)]
        found = list(dict.fromkeys(cells))
        return found if len(found) <= MAX_CELLS else [cell for cell in found if cell[1] in used]

    def _collect_histograms(self, sums: dict[Count, int]) -> Iterator[Metric]:
        bounds = defaultdict[str, set[float]](lambda: {0.0})
        for objective, _, _, target in _iterate_targets(self._policies):
            if target.span is not None:
                bounds[objective] |= {float(round_up(target.span.total_seconds() * part)) for part in BUCKET_PARTS}
        family = HistogramMetricFamily(
            "sla_fulfilment_support_seconds",
            "Support time until a promise was fulfilled; a rise means that customers wait longer.",
            labels=["objective"],
        )
        counted = defaultdict[str, dict[float, int]](dict)
        for (objective, seconds), n in _pick(sums, "answer", 2).items():
            counted[objective][float(seconds)] = n
        for objective in sorted(bounds.keys() | counted.keys()):
            total = sums.get(("answer_sum", objective, "", "", "", ""), 0) / 1e6
            buckets = _fill_buckets(_thin_out(sorted(bounds[objective])), counted[objective])
            family.add_metric([objective], buckets, total)
        yield family
        delays = {float(label[0]): n for label, n in _pick(sums, "delay", 1).items()}
        yield HistogramMetricFamily(
            "sla_breach_detection_delay_seconds",
            "From the breach, or the arrival of the fact that made it one, to its detection; a rise: a slow engine.",
            buckets=_fill_buckets(DELAY_BUCKETS, delays),
            sum_value=sums.get(("delay_sum", "", "", "", "", ""), 0) / 1e6,
        )

    def _collect_lags(self, following: int | None) -> Iterator[Metric]:
        lag = max(0, self._stored - self._store.read_committed_sequence())
        yield GaugeMetricFamily(
            "sla_intake_lag_messages",
            "Messages stored by the bus and not yet by the engine; a rise means it is behind.",
            lag,
        )
        events = GaugeMetricFamily(
            "sla_projection_lag_events", "Events of the log that a read model has not taken in.", labels=["projection"]
        )
        seconds = GaugeMetricFamily(
            "sla_projection_lag_seconds",
            "Age of the oldest event that a read model has not taken in.",
            labels=["projection"],
        )
        head = self._store.read_head()
        for name in SHOWN_CHECKPOINTS:
            checkpoint = self._store.read_checkpoint(name) or 0
            behind = self._store.read_log_entries(checkpoint, 1) if checkpoint < head else []
            events.add_metric([name], max(0, head - checkpoint))
            age = self._now() - to_microseconds(behind[0].event.at) if behind else 0
            seconds.add_metric([name], max(0.0, age / 1e6))
        yield events
        yield seconds
        yield GaugeMetricFamily(
            "sla_next_deadline_timestamp_seconds",
            "When the clock looks next, as Unix time; NaN if no ticket runs. Long past means that the clock is stuck.",
            math.nan if following is None else following / 1e6,
        )

    def _collect_verification(self) -> Iterator[Metric]:
        """Yield nothing until `sla verify` ran: no figure is better than a good one that nobody has measured."""
        if (found := self._store.read_verification()) is not None:
            yield GaugeMetricFamily(
                "sla_verify_differences",
                "What is stored and does not follow from the facts, as sla verify last found; must be 0.",
                found.differences,
            )
            yield GaugeMetricFamily(
                "sla_verify_timestamp_seconds",
                "When sla verify last ran, as Unix time; long ago means that nobody verifies.",
                found.at.timestamp(),
            )


def _iterate_targets(policies: Iterable[Policy]) -> Iterator[tuple[str, str, str, Target]]:
    """Yield objective, level, priority and target of all that these policies promise."""
    for policy in policies:
        for level in policy.levels.values():
            for objective, targets in {FIRST_RESPONSE: level.targets, **level.objectives}.items():
                for priority, target in targets.items():
                    yield objective, level.name, priority, target


def _collect_states(
    promises: Mapping[PromiseLabel, int], at_risk: Mapping[Cell, int], expected: Sequence[Cell]
) -> Iterator[Metric]:
    """Yield how promises stand, by the labels that they are judged by."""
    stages = Counter({(FIRST_RESPONSE, NO_LEVEL, NO_LEVEL, "pending"): 0})
    decided = Counter({(*cell, kept): 0 for cell in expected for kept in (KEPT, BROKEN)})
    stages.update({(*cell, stage): 0 for cell in expected for stage in PROMISE_STAGES})
    for label, n in promises.items():
        stages[*label[:3], label.stage] += n
        if label.kept in (KEPT, BROKEN):
            decided[*label[:3], label.kept] += n
    yield _make_gauge("sla_promises", "Promises by stage.", (*CELL_LABELS, "stage"), stages)
    yield _make_gauge(
        "sla_promises_decided",
        "Promises that are kept, and those of which a breach is in effect, answered since or not; their share is kept.",
        (*CELL_LABELS, "outcome"),
        decided,
    )
    yield _make_gauge(
        "sla_promises_at_risk",
        "Running promises that have used 75 % of their target; a rise means that breaches are near.",
        CELL_LABELS,
        dict.fromkeys(expected, 0) | dict(at_risk),
    )


def _collect_announced(sums: dict[Count, int], expected: Sequence[Cell]) -> Iterator[Metric]:
    """Yield what was announced; a counter has all sets of its own labels, at 0."""
    for name, what, text, labels, values in PROMISE_COUNTERS:
        always = [(*cell, *more) for cell in expected for more in product(*values)]
        found = _pick(sums, what, len(CELL_LABELS) + len(labels))
        yield make_counter(name, text, (*CELL_LABELS, *labels), always, found)


class PromiseCounter(NamedTuple):
    """A counter of announcements: its name, what the projection calls it, its help, its own labels and their values."""

    name: str
    what: str
    text: str
    labels: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]


PROMISE_COUNTERS = (
    PromiseCounter(
        "sla_breaches",
        "breached",
        "Promises not kept in time; any rise is a broken promise.",
        ("detection",),
        (DETECTIONS,),
    ),
    PromiseCounter(
        "sla_breaches_retracted",
        "retracted",
        "Breaches that turned out to be untrue; a rise means that facts arrive late.",
        ("detection",),
        (DETECTIONS,),
    ),
    PromiseCounter(
        "sla_fulfilled",
        "fulfilled",
        "Promises that were fulfilled, in time or late, as first known.",
        ("outcome", "detection"),
        (OUTCOMES, DETECTIONS),
    ),
    PromiseCounter(
        "sla_fulfilled_revised",
        "revised",
        "Promises of which something else is known than was announced; a rise means that facts arrive late.",
        ("from", "to"),
        (REVISED_OUTCOMES, REVISED_OUTCOMES),
    ),
    PromiseCounter(
        "sla_cancelled",
        "cancelled",
        "Clocks that ended without what was promised: the ticket was closed, or the promise does not apply.",
        ("cause",),
        (CAUSES,),
    ),
)


def _make_gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in sorted(values.items()):
        family.add_metric(label, value)
    return family


def _pick(sums: dict[Count, int], what: str, labels: int) -> dict[tuple[str, ...], int]:
    return {key[1 : 1 + labels]: n for key, n in sums.items() if key[0] == what}


def _thin_out(bounds: Sequence[float]) -> Sequence[float]:
    """Return at most MAX_BUCKETS of these bounds, evenly, with the last one among them."""
    step = -(-len(bounds) // MAX_BUCKETS)
    return bounds[::-step][::-1]


def _fill_buckets(bounds: Sequence[float], values: Mapping[float, int]) -> list[tuple[str, float]]:
    """Return how many values are within each bound."""
    buckets = [(repr(float(bound)), sum(n for value, n in values.items() if value <= bound)) for bound in bounds]
    return [*buckets, ("+Inf", sum(values.values()))]


def _collect_arrivals(arrivals: dict[Count, int]) -> Iterator[Metric]:
    types = [*TICKET_EVENT_TYPES, UNKNOWN_TYPE]
    yield make_counter(
        "sla_facts",
        "Messages by what became of them.",
        ("type", "outcome"),
        [(each, became) for each in types for became in ("recorded", "duplicate", "dead_letter")],
        _pick(arrivals, "fact", 2),
    )
    yield make_counter(
        "sla_dead_letters",
        "Messages that cannot count; any rise means that a publisher needs to be fixed.",
        ("reason",),
        [(str(reason),) for reason in Reason],
        _pick(arrivals, "dead_letter", 1),
    )
