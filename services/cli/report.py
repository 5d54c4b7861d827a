"""The table and the CSV of `sla report`. What is counted, queries know."""

import csv
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from services.text.formats import format_span

Json = dict[str, Any]

_TITLES = {"breached": "breached, open", "median_seconds": "median", "p90_seconds": "p90"}


def list_columns(report: Json) -> list[str]:
    """Return the names of what `build_rows` has."""
    return [*report["by"], *(_TITLES.get(name, name) for name in report["total"])]


def build_rows(report: Json) -> Iterator[tuple[str, ...]]:
    """Yield a row for each group, and the last one for all."""
    blank = dict.fromkeys(report["by"], "")
    for row in (*report["rows"], blank | report["total"]):
        yield tuple(_format_cell(name, value) for name, value in row.items())


def _format_cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "compliance":
        return f"{value:.1%}"
    return format_span(timedelta(seconds=value)) if name.endswith("_seconds") else str(value)


def write_csv(report: Json) -> None:
    """Write a line for each group to stdout, or one for all if there are no groups; no totals beside their parts."""
    writer = csv.DictWriter(sys.stdout, [*report["by"], *report["total"]], lineterminator="\n")
    writer.writeheader()
    for row in report["rows"] if report["by"] else [report["total"]]:
        writer.writerow({name: _escape_formula(value) for name, value in row.items()})


def _escape_formula(value: Any) -> Any:
    """Put an apostrophe before a customer named like a formula: it is a name, to a spreadsheet too."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
