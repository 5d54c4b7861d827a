"""Instants as texts and as numbers: parse, and convert to microseconds. How they look to people is not in here."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from events.cloudevents import quote_value

MICROSECOND = timedelta(microseconds=1)
FACT_YEARS = range(2000, 2101)  # as on the bus: a policy knows the holidays of these years

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(at: datetime) -> int:
    """Convert an instant to microseconds since 1970, UTC: what tables keep."""
    return (at - _EPOCH) // MICROSECOND


def from_microseconds(at: int) -> datetime:
    """Convert microseconds since 1970, UTC, to the instant, aware and in UTC."""
    return _EPOCH + timedelta(microseconds=at)


def parse_instant(text: object) -> datetime:
    """Parse an ISO 8601 text with an offset into an instant in UTC. Raises ValueError that says what is right."""
    try:
        time = datetime.fromisoformat(text.upper()) if isinstance(text, str) else None
    except ValueError:
        time = None
    if time is None:
        raise ValueError(f"{quote_value(text)} is not a time; write one like 2026-11-20T16:00:00Z")
    if time.tzinfo is None:
        raise ValueError(
            f"{quote_value(text)} has no offset; write a time like 2026-11-20T17:00:00+01:00, or Z for UTC"
        )
    with suppress(OverflowError):  # at the edge of years 1 and 9999
        time = time.astimezone(UTC)
    if time.year not in FACT_YEARS:
        raise ValueError(f"{quote_value(text)} is outside the years {FACT_YEARS[0]} to {FACT_YEARS[-1]}")
    return time
