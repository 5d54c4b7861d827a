"""Families of Prometheus series with every label set there from the start. Which there are is not in here."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily


def make_counter(
    name: str,
    help: str,
    labels: tuple[str, ...],
    always: Iterable[tuple[str, ...]],
    values: Mapping[tuple[str, ...], int],
) -> CounterMetricFamily:
    """Every label set exists from the start: a counter that first appears above 0 never makes `increase() > 0`."""
    family = CounterMetricFamily(name, help, labels=labels)
    for label, value in sorted((dict.fromkeys(always, 0) | dict(values)).items()):
        family.add_metric(label, value)
    return family
