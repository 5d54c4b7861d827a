"""Metrics: keeps the projections that Prometheus needs, and shows them. All names and help texts are here."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any, ClassVar, get_args

from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from events.cloudevents import Reason
from events.promises import ANNOUNCEMENT_TYPES, Detection
from events.tickets import TICKET_EVENT_TYPES
from events.times import from_microseconds, to_microseconds
from projections.arrivals import Arrivals
from projections.compliance import DELAY_BUCKETS, Compliance, name_outcome
from projections.counters import Count
from projections.deadlines import Deadlines
from projections.promises import NO_LEVEL, PromiseLabel, Promises
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

TICKET_STAGES = ("running", "fulfilled", "paused", "cancelled", "excluded")
DETECTIONS: tuple[str, ...] = get_args(Detection)
OUTCOMES = (name_outcome(True), name_outcome(False))
CAUSES = (str(Cause.CLOSED), str(Cause.EXCLUDED))
RESPONSE_OUTCOMES = (*OUTCOMES, *CAUSES, RUNNING_AGAIN)  # of a promise to which there was an answer
OBJECTIVE_EVENTS = {name.removeprefix("sla.") for name in ANNOUNCEMENT_TYPES} - {"fulfilled", "escalated"} | {*OUTCOMES}
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
        with self._store.read_view() as cursor:
            promises, at_risk = (
                self._promises.read_counts(cursor),
                self._promises.count_at_risk(cursor, from_microseconds(self._now())),
            )
            sums = self._compliance.read_counts(cursor)
            arrivals = self._arrivals.read_counts(cursor)
            following = Deadlines().find_next_after(cursor, 0)
            quarantined = self._quarantine.count(cursor)
        yield self._make_gauge(
            "sla_tickets",
            "Tickets by stage.",
            ("service_level", "priority", "stage"),
            dict.fromkeys(self._list_ticket_labels(), 0) | dict(_sum_stages(promises)),
        )
        yield self._make_gauge(
            "sla_tickets_at_risk",
            "Running tickets that have used 75 % of their target; a rise means that breaches are near.",
            ("service_level", "priority"),
            dict.fromkeys(self._list_pairs(), 0)
            | {
                (level, priority): n
                for (objective, level, priority), n in at_risk.items()
                if objective == FIRST_RESPONSE
            },
        )
        yield from self._collect_promises(sums)
        yield from self._collect_histograms(sums)
        yield from _collect_arrivals(arrivals)
        yield self._make_gauge(
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

    def _list_pairs(self) -> list[tuple[str, str]]:
        """Return level and priority of all versions: what was counted under an earlier one stays."""
        return list(
            dict.fromkeys((level, name) for it in self._policies for level in it.levels for name in it.priorities)
        )

    def _list_ticket_labels(self) -> list[tuple[str, str, str]]:
        return [
            (NO_LEVEL, NO_LEVEL, "pending"),
            *((*pair, stage) for pair in self._list_pairs() for stage in TICKET_STAGES),
        ]

    def _make_gauge(
        self, name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=labels)
        for label, value in sorted(values.items()):
            family.add_metric(label, value)
        return family

    def _collect_promises(self, sums: dict[Count, int]) -> Iterator[Metric]:
        detected = [(*pair, detection) for pair in self._list_pairs() for detection in DETECTIONS]
        answered = [(*pair, answer) for pair in self._list_pairs() for answer in OUTCOMES]
        revised = [
            (*pair, before, after)
            for pair in self._list_pairs()
            for before in RESPONSE_OUTCOMES
            for after in RESPONSE_OUTCOMES
        ]
        pair = ("service_level", "priority")
        yield make_counter(
            "sla_breaches",
            "First responses not given in time; any rise is a broken promise.",
            (*pair, "detection"),
            detected,
            _pick(sums, "breached", 3),
        )
        yield make_counter(
            "sla_breaches_retracted",
            "Breaches that turned out to be untrue; a rise means that facts arrive late.",
            (*pair, "detection"),
            detected,
            _pick(sums, "retracted", 3),
        )
        yield make_counter(
            "sla_responses",
            "First responses, in time or late, as first known.",
            (*pair, "outcome"),
            answered,
            _pick(sums, "response", 3),
        )
        yield make_counter(
            "sla_responses_revised",
            "First responses about which late news changed what was said; a rise means that facts arrive late.",
            (*pair, "from", "to"),
            revised,
            _pick(sums, "revised", 4),
        )
        yield make_counter(
            "sla_cancellations",
            "Clocks that ended without a response that counts: the ticket was closed, or the promise does not apply.",
            (*pair, "cause"),
            [(*each, cause) for each in self._list_pairs() for cause in CAUSES],
            _pick(sums, "cancelled", 3),
        )
        others = dict.fromkeys(
            name for policy in self._policies for name in policy.objectives if name != FIRST_RESPONSE
        )
        yield make_counter(
            "sla_objective_events",
            "What was announced of objectives beside the first response: answers by outcome, all else by its kind.",
            ("objective", *pair, "event"),
            [(name, *each, event) for name in others for each in self._list_pairs() for event in OBJECTIVE_EVENTS],
            _pick(sums, "objective", 4),
        )

    def _collect_histograms(self, sums: dict[Count, int]) -> Iterator[Metric]:
        targets = {
            target.span.total_seconds()
            for policy in self._policies
            for level in policy.levels.values()
            for target in level.targets.values()
            if target.span is not None
        }
        yield _make_histogram(
            "sla_first_response_support_seconds",
            "Support time until the first response.",
            sorted(targets),
            {float(label[0]): n for label, n in _pick(sums, "answer", 1).items()},
            sums.get(("answer_sum", "", "", "", ""), 0) / 1e6,
        )
        yield _make_histogram(
            "sla_breach_detection_delay_seconds",
            "From the breach, or the arrival of the fact that made it one, to its detection; a rise: a slow engine.",
            DELAY_BUCKETS,
            {float(label[0]): n for label, n in _pick(sums, "delay", 1).items()},
            sums.get(("delay_sum", "", "", "", ""), 0) / 1e6,
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


def _sum_stages(promises: Mapping[PromiseLabel, int]) -> Counter[tuple[str, str, str]]:
    sums = Counter[tuple[str, str, str]]()
    for label, n in promises.items():
        if label.objective == FIRST_RESPONSE:
            sums[label.service_level, label.priority, label.stage] += n
    return sums


def _pick(sums: dict[Count, int], what: str, labels: int) -> dict[tuple[str, ...], int]:
    return {key[1 : 1 + labels]: n for key, n in sums.items() if key[0] == what}


def _make_histogram(
    name: str, text: str, bounds: list[float] | tuple[float, ...], values: dict[float, int], total: float
) -> HistogramMetricFamily:
    buckets = [(repr(float(bound)), sum(n for value, n in values.items() if value <= bound)) for bound in bounds]
    return HistogramMetricFamily(name, text, buckets=[*buckets, ("+Inf", sum(values.values()))], sum_value=total)


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
