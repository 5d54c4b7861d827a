"""What the notifier counts, for Prometheus, since its process was started."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from services.runtime.series import make_counter

RECEIVER_KINDS = ("alertmanager", "webhook", "apprise")
DELIVERY_OUTCOMES = ("sent", "retried", "given_up")


class Notifications(Collector):
    """Counts what became of each try to notify a receiver. The label `target` is the kind of the receiver."""

    def __init__(self) -> None:
        self._tried: Counter[tuple[str, ...]] = Counter()

    def add(self, kind: str, outcome: str) -> None:
        """Count one try, of RECEIVER_KINDS and DELIVERY_OUTCOMES."""
        self._tried[kind, outcome] += 1

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield make_counter(
            "sla_notifications",
            "Tries to tell a target; retried: it is away; given_up: it refuses, or was away too long.",
            ("target", "outcome"),
            [(kind, outcome) for kind in RECEIVER_KINDS for outcome in DELIVERY_OUTCOMES],
            self._tried,
        )
