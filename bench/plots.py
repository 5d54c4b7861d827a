"""Growth, drawn: a small plot for each question. What is measured is in bench/growth.py."""

import json
from collections import defaultdict
from math import ceil, floor, log10
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

STYLE: dict[Any, Any] = {
    "figure.figsize": (4.8, 3.0),
    "font.size": 8.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "growth",  # the same points make the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Plot(NamedTuple):
    """One question: what is asked, along which axis, and the unit of the answer."""

    title: str
    x: str
    unit: str


PLOTS = {
    "start": Plot("From start to ready", "open tickets", "s"),
    "lateness": Plot("Deadline to breach heard, p99", "open tickets", "ms"),
    "rest": Plot("Processor time at rest", "open tickets", "% of a core"),
    "memory": Plot("In memory at rest", "open tickets", "MB"),
    "judge": Plot("To judge one more fact", "facts the ticket has", "us"),
    "stored": Plot("A ticket in the store", "facts the ticket has", "kB"),
    "rebuild": Plot("To build a view again", "events in the log", "s"),
    "replicas": Plot("Facts drained a second, PostgreSQL", "partitions", "facts/s"),
}


def draw(lines: Path, folder: Path) -> None:
    """An SVG for each plot that has points: the median of each, on logarithmic axes."""
    found: defaultdict[str, defaultdict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for point in map(json.loads, lines.read_text(encoding="utf-8").splitlines()):
        found[point["plot"]][point["line"]].append((point["x"], median(point["values"])))
    folder.mkdir(parents=True, exist_ok=True)
    for name, series in found.items():
        _draw(PLOTS[name], series, folder / f"{name}.svg")


def _draw(plot: Plot, series: dict[str, list[tuple[float, float]]], path: Path) -> None:
    every = [point for points in series.values() for point in points]
    decades = [log10(y) for _, y in every if y > 0]
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(layout="constrained")
        for line, points in series.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, linewidth=1, label=line)
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.unit, xscale="log", yscale="log")
        axes.set_ylim(
            10 ** floor(min(decades)), 10 ** ceil(max(decades))
        )  # whole ones, so that what is flat looks flat
        axes.set_xticks(sorted({x for x, _ in every}))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.9g}")
            axis.set_minor_formatter(ticker.NullFormatter())
        if len(series) > 1:
            axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
