"""Prometheus counters that have every label set from the start. Which counters there are is not in here."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily


def make_counter(
    name: str,
    text: str,
    labels: tuple[str, ...],
    always: Iterable[tuple[str, ...]],
    values: Mapping[tuple[str, ...], int],
) -> CounterMetricFamily:
    """Return a counter with all label sets, 0 at first: one that appears above 0 never makes `increase() > 0`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label, value in sorted((dict.fromkeys(always, 0) | dict(values)).items()):
        family.add_metric(label, value)
    return family
