"""Instants, spans and texts of others as people read them. Where they are shown is not in here."""

from datetime import datetime, timedelta

from events.cloudevents import format_time, quote_value
from sla.calendar import get_zone


def make_printable(text: str) -> str:
    """Return what a publisher wrote on one line, without power over the terminal: escaped unless all is printable."""
    return text if text.isprintable() else quote_value(text)


def format_utc(at: datetime) -> str:
    """Format an instant in UTC, with Z."""
    return format_time(at)


def convert_to_zone(at: datetime, zone: str | None) -> datetime:
    """Return the same instant with the offset of a zone; None is this machine's."""
    return at.astimezone(get_zone(zone) if zone else None)


def format_wall_time(at: datetime | None, zone: str | None) -> str:
    """Format an instant in a zone (None: this machine's), cut to the second: `Thu 2026-12-31 14:45:10 CET`."""
    return "-" if at is None else f"{convert_to_zone(at, zone):%a %Y-%m-%d %H:%M:%S %Z}"


def format_wall_time_briefly(at: datetime | None, zone: str | None) -> str:
    """Format an instant for narrow columns, cut to the minute: `2026-12-31 14:45 CET`."""
    return "-" if at is None else f"{convert_to_zone(at, zone):%Y-%m-%d %H:%M %Z}"


def format_span(length: timedelta | None) -> str:
    """Format hours, minutes and seconds, cut to the second: `31h 05m 00s`; negative if time is over."""
    if length is None:
        return "-"
    whole = abs(length) // timedelta(seconds=1)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}h {minutes:02d}m {rest:02d}s" if hours else f"{minutes}m {rest:02d}s"
    return f"-{text}" if length < timedelta(0) and whole else text


def format_share(share: float) -> str:
    """Format a share from 0 to 1: `72.7 %`; with as many decimals as it takes not to be 100 % while it is less."""
    decimals = 1
    while share < 1 and f"{share:.{decimals}%}".startswith("100"):
        decimals += 1
    return "100 %" if share == 1 else f"{share:.{decimals}%}".replace("%", " %")


def format_time_left(length: timedelta | None) -> str:
    """Format time on the wall clock: as a span, from two days on as days and hours."""
    if length is None or abs(length) < timedelta(days=2):
        return format_span(length)
    days, hours = divmod(abs(length) // timedelta(hours=1), 24)
    return f"{'-' if length < timedelta(0) else ''}{days}d {hours:02d}h"
