"""What people see: tables, wall times and spans, colours on a terminal only. What is said is for others to decide."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from events.cloudevents import format_time, shown
from sla.calendar import zone_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 4_000  # columns where there is no terminal: nothing is cut or wrapped

COLOURS = {
    "breached": "bold red",
    "answered late": "red",
    "at risk": "yellow",
    "warning": "yellow",
    "on track": "green",
    "met": "green",
    "fulfilled": "green",
    "breach_retracted": "cyan",
    "escalated": "magenta",
}


def console() -> "Console":
    """stdout. Rich alone would also colour for FORCE_COLOR; NO_COLOR and TERM it knows."""
    from rich.console import Console  # here and below: programs that read JSON need not wait for it

    terminal = sys.stdout.isatty()
    return Console(
        color_system="auto" if terminal else None,
        width=None if terminal else WIDE,
        highlight=False,
        markup=False,
        emoji=False,
    )


def write_json(value: object) -> None:
    """One line on stdout, at once. Aware datetimes become RFC 3339 in UTC with Z, if they are in UTC."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns below their names."""
    from rich.table import Table

    _print(Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"), rows)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    from rich.table import Table

    _print(Table("", "", box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False), rows)


def _print(grid: "Table", rows: Iterable[Sequence[str]]) -> None:
    from rich.text import Text

    for column in grid.columns:
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console().print(grid)


def line(*cells: str) -> None:
    """One line, at once; a cell that is a state has its colour."""
    from rich.text import Text

    text = Text("  ").join(Text(cell, style=COLOURS.get(cell.rstrip(), "")) for cell in cells)
    console().print(text, soft_wrap=True)


def plain(text: str) -> str:
    """What a publisher wrote, on one line and without power over the terminal: escaped unless all is printable."""
    return text if text.isprintable() else shown(text)


def utc(at: datetime) -> str:
    """An instant in UTC, with Z."""
    return format_time(at)


def local(at: datetime, zone: str | None) -> datetime:
    """The same instant with the offset of a zone; None is this machine's."""
    return at.astimezone(zone_of(zone) if zone else None)


def wall(at: datetime | None, zone: str | None) -> str:
    """What clocks on the wall show, in a zone or on this machine, cut to the second: `Thu 2026-12-31 14:45:10 CET`."""
    return "-" if at is None else f"{local(at, zone):%a %Y-%m-%d %H:%M:%S %Z}"


def brief(at: datetime | None, zone: str | None) -> str:
    """As `wall`, for narrow columns: `2026-12-31 14:45 CET`."""
    return "-" if at is None else f"{local(at, zone):%Y-%m-%d %H:%M %Z}"


def span(length: timedelta | None) -> str:
    """Hours, minutes and seconds, cut to the second: `31h 05m 00s`; negative if time is over."""
    if length is None:
        return "-"
    whole = abs(length) // timedelta(seconds=1)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}h {minutes:02d}m {rest:02d}s" if hours else f"{minutes}m {rest:02d}s"
    return f"-{text}" if length < timedelta(0) and whole else text


def left(length: timedelta | None) -> str:
    """Time on the wall clock: as a span, from two days on as days and hours."""
    if length is None or abs(length) < timedelta(days=2):
        return span(length)
    days, hours = divmod(abs(length) // timedelta(hours=1), 24)
    return f"{'-' if length < timedelta(0) else ''}{days}d {hours:02d}h"


def progress(name: str, done: Iterable[int], total: int) -> Iterator[int]:
    """Passes on how much is done; shows it on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from done
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total)
        for each in done:
            bar.update(task, completed=each, total=max(each, total))
            yield each
