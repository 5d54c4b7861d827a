"""Output: tables, lines and progress for people, with coloured on a terminal only, and JSON. It decides nothing."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED_WIDTH = 4_000  # columns where there is no terminal: nothing is cut or wrapped

COLOURS = {
    "breached": "bold red",
    "answered late": "red",
    "at risk": "yellow",
    "warning": "yellow",
    "on track": "green",
    "met": "green",
    "fulfilled": "green",
    "overdue": "red",
    "breach_retracted": "cyan",
    "escalated": "magenta",
}


def make_console() -> "Console":
    """Return a console on stdout. Rich alone would also colour for FORCE_COLOR; it knows NO_COLOR and TERM."""
    from rich.console import Console  # here and below: programs that read JSON need not wait for it

    terminal = sys.stdout.isatty()
    return Console(
        color_system="auto" if terminal else None,
        width=None if terminal else UNLIMITED_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_json(value: object) -> None:
    """Print one line, at once. Aware datetimes become RFC 3339 in UTC with Z, if they are in UTC."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns below their names."""
    from rich.table import Table

    _print_grid(Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"), rows)


def print_pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    from rich.table import Table

    _print_grid(Table("", "", box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False), rows)


def _print_grid(grid: "Table", rows: Iterable[Sequence[str]]) -> None:
    from rich.text import Text

    for column in grid.columns:
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    make_console().print(grid)


def print_line(*cells: str) -> None:
    """Print one line, at once; a cell that is a state has its colour."""
    from rich.text import Text

    text = Text("  ").join(Text(cell, style=COLOURS.get(cell.rstrip(), "")) for cell in cells)
    make_console().print(text, soft_wrap=True)


def show_progress(name: str, done: Iterable[int], total: int) -> Iterator[int]:
    """Pass on how much is done, and show it on stderr if that is a terminal."""
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
