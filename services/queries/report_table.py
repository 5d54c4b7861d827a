"""A report as a table and as CSV, for people and for sheets. What is counted, report.py knows."""

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from services.queries.report import GROUPINGS
from services.text.formats import format_share, format_span

Json = dict[str, Any]

_TITLES = {"service_level": "level", "breached": "breached, open", "median_seconds": "median", "p90_seconds": "p90"}


def list_columns(report: Json) -> list[str]:
    """Return the names of what `build_rows` has."""
    return [_TITLES.get(name, name) for name in (*_list_groupings(report), *report["total"])]


def build_rows(report: Json) -> Iterator[tuple[str, ...]]:
    """Yield a row for each group, and the last one for all."""
    blank = dict.fromkeys(_list_groupings(report), "")
    for row in (*report["rows"], blank | report["total"]):
        yield tuple(_format_cell(name, value) for name, value in row.items())


def _list_groupings(report: Json) -> list[str]:
    return [GROUPINGS[name] for name in report["by"]]


def _format_cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "share":
        return format_share(value)
    return format_span(timedelta(seconds=value)) if name.endswith("_seconds") else str(value)


def format_csv(report: Json) -> str:
    """Return a line for each group, or one for all if there are no groups; no totals beside their parts."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*_list_groupings(report), *report["total"]], lineterminator="\n")
    writer.writeheader()
    for row in report["rows"] if report["by"] else [report["total"]]:
        writer.writerow({name: _escape_formula(value) for name, value in row.items()})
    return out.getvalue()


def _escape_formula(value: Any) -> Any:
    """Put an apostrophe before a customer named like a formula: it is a name, to a spreadsheet too."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
