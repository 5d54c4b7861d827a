"""How a period went, of the tickets opened in it: promises kept and broken, and how fast answers were."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from events.cloudevents import quote_value
from events.promises import to_seconds
from events.times import FACT_YEARS, parse_instant, to_microseconds
from projections.runner import catch_up
from projections.tickets import ANSWERED, TICKET_OUTCOMES, FoldedTicket, TicketOutcome, Tickets
from services.errors import ReadOnlyError
from services.queries.point_in_time import PointInTime, iterate_tickets
from services.store.interface import Store
from sla.calendar import get_zone
from sla.log import BreachRetracted, Recorded
from sla.policy import FIRST_RESPONSE
from sla.ticket import TicketSla
from sla.versions import Versions

Json = dict[str, Any]
Key = tuple[str, ...]

GROUPINGS = {"level": "service_level", "priority": "priority", "customer": "customer"}
"""What a report may be grouped by, and the column that has it."""

_MONTH = re.compile(r"(\d{4})-(\d{2})")
_QUARTER = re.compile(r"(\d{4})-Q([1-4])")
_WEEK = re.compile(r"(\d{4})-W(\d{2})")
_YEAR = re.compile(r"\d{4}")
_PERIOD_HINT = "write 2026-10, 2026-W41, 2026-Q4, 2026, FROM..TO (dates, or times with offset; TO is not in it), or all"


class Period(NamedTuple):
    """Time [start, end); None is without limit."""

    start: datetime | None
    end: datetime | None

    def has(self, at: datetime) -> bool:
        """Return whether this instant is in it."""
        return (self.start is None or at >= self.start) and (self.end is None or at < self.end)

    @classmethod
    def parse(cls, text: str, zone: str) -> "Period":
        """
        Parse `2026-10`, `2026-W41` (ISO week), `2026-Q4`, `2026`, `FROM..TO` or `all`; days begin at midnight in the
        zone. Raises ValueError that says what is right.
        """
        if text == "all":
            return cls(None, None)
        try:
            if ".." in text:
                start, end = (_parse_edge(part, zone) for part in text.split("..", 1))
            else:
                start, end = (_find_midnight(day, zone) for day in _parse_days(text))
        except ValueError as error:
            raise ValueError(f"{quote_value(text)} is not a period ({error}); {_PERIOD_HINT}") from None
        if start >= end:
            raise ValueError(f"{quote_value(text)} ends before it begins; {_PERIOD_HINT}")
        return cls(start, end)


def _parse_days(text: str) -> tuple[date, date]:
    """Return the first day, and the one after the last."""
    if match := _MONTH.fullmatch(text):
        first = date(int(match[1]), int(match[2]), 1)
        return first, _add_months(first, 1)
    if match := _QUARTER.fullmatch(text):
        first = date(int(match[1]), 3 * int(match[2]) - 2, 1)
        return first, _add_months(first, 3)
    if match := _WEEK.fullmatch(text):
        first = date.fromisocalendar(int(match[1]), int(match[2]), 1)
        return first, first + timedelta(days=7)
    if _YEAR.fullmatch(text):
        return date(int(text), 1, 1), date(int(text) + 1, 1, 1)
    raise ValueError("of no known form")


def _add_months(first: date, months: int) -> date:
    years, month = divmod(first.month - 1 + months, 12)
    return date(first.year + years, month + 1, 1)


def _parse_edge(text: str, zone: str) -> datetime:
    return parse_instant(text) if "T" in text.upper() else _find_midnight(date.fromisoformat(text), zone)


def _find_midnight(day: date, zone: str) -> datetime:
    at = datetime.combine(day, time(), get_zone(zone)).astimezone(UTC)
    if not FACT_YEARS[0] <= day.year <= FACT_YEARS[-1] + 1:
        raise ValueError(f"outside the years {FACT_YEARS[0]} to {FACT_YEARS[-1]}")
    return at


class Totals:
    """The sums of some tickets: how many have which outcome, breaches in effect and retracted, times of answers."""

    def __init__(self) -> None:
        self.outcomes, self.broken, self.retracted = Counter[str](), 0, 0
        self.answers: list[int] = []

    def add(self, other: "Totals") -> None:
        """Add the sums of more tickets."""
        self.outcomes += other.outcomes
        self.broken += other.broken
        self.retracted += other.retracted
        self.answers += other.answers

    def to_json(self) -> Json:
        """
        Return the figures: `broken` are all breaches in effect, compliance is the share of met among met and broken.
        Median and 90th percentile are the nearest rank: the time of a real answer, in seconds of support time.
        """
        met = self.outcomes["met"]
        decided = met + self.broken
        self.answers.sort()
        return {
            "tickets": self.outcomes.total(),
            **{name: self.outcomes[name] for name in TICKET_OUTCOMES},
            "broken": self.broken,
            "retracted": self.retracted,
            "compliance": round(met / decided, 6) if decided else None,
            "median_seconds": self._find_percentile(50),
            "p90_seconds": self._find_percentile(90),
        }

    def _find_percentile(self, percent: int) -> int | float | None:
        """Return the least time within which so many per cent of the answers came; None if there are none."""
        if not self.answers:
            return None
        rank = -(-len(self.answers) * percent // 100)
        return to_seconds(timedelta(microseconds=self.answers[rank - 1]))


def build_report(store: Store, when: PointInTime, period: str = "all", by: Sequence[str] = ()) -> Json:
    """
    Return how the tickets opened in a period stand, by any of GROUPINGS. At another time than now the whole log is
    read. Raises ValueError for a period or a grouping that is none, NothingKnownError for a time before the first
    event.
    """
    by = list(dict.fromkeys(by))
    if unknown := [name for name in by if name not in GROUPINGS]:
        raise ValueError(f"{', '.join(map(quote_value, unknown))}: a report is by {', '.join(GROUPINGS)}")
    versions = store.read_versions()
    zone = versions.get_in_force(when.at).zone if len(versions) else "UTC"
    asked = Period.parse(period, zone)
    columns = tuple(GROUPINGS[name] for name in by)
    groups = _sum_view(store, columns, asked) if when.is_now else _sum_log(store, columns, asked, when, versions)
    total = Totals()
    for totals in groups.values():
        total.add(totals)
    keys = _sort_keys(groups, versions) if by else []
    return {
        "period": period,
        "from": asked.start,
        "to": asked.end,
        "at": when.at,
        "as_of": when.as_of,
        "known_at": when.known_at,
        "zone": zone,
        "by": by,
        "rows": [dict(zip(by, key, strict=True)) | groups[key].to_json() for key in keys],
        "total": total.to_json(),
    }


def _sort_keys(keys: Iterable[Key], versions: Versions) -> list[Key]:
    """Return them in the order in which the policies name levels and priorities, then by name."""
    policies = [version.policy for version in versions]
    names = dict.fromkeys(name for policy in policies for name in (*policy.levels, *policy.priorities))
    order = {name: n for n, name in enumerate(names)}
    return sorted(keys, key=lambda key: [(order.get(name, len(order)), name) for name in key])


def _sum_view(store: Store, columns: Key, asked: Period) -> dict[Key, Totals]:
    """Return the sums of each group as they are now, from the projection of tickets."""
    view, groups = Tickets(), defaultdict[Key, Totals](Totals)
    with suppress(ReadOnlyError):  # then it is as far as the processes that catch it up are
        catch_up(store, view)
    start, end = (None if at is None else to_microseconds(at) for at in asked)
    with store.read_view() as cursor:
        for *key, outcome, tickets, broken, retracted in view.sum_outcomes(cursor, columns, start, end):
            totals = groups[tuple(key)]
            totals.outcomes[outcome] += tickets
            totals.broken += broken
            totals.retracted += retracted
        for *key, answer in view.list_answers(cursor, columns, start, end):
            groups[tuple(key)].answers.append(answer)
    return groups


def _sum_log(store: Store, columns: Key, asked: Period, when: PointInTime, versions: Versions) -> dict[Key, Totals]:
    """Return the same as they were at another time, folded from the whole log."""
    groups = defaultdict[Key, Totals](Totals)
    for ticket, known in iterate_tickets(store, when, versions):
        opened_at = ticket.state.started_at
        if opened_at is None or not asked.has(opened_at):
            continue
        outcome = _make_outcome(ticket, known, when)
        totals = groups[tuple(getattr(outcome, column) for column in columns)]
        totals.outcomes[outcome.came_to] += 1
        totals.broken += outcome.broken
        totals.retracted += outcome.retracted
        if outcome.answer is not None and outcome.came_to in ANSWERED:
            totals.answers.append(outcome.answer)
    return groups


def _make_outcome(ticket: TicketSla, known: Iterable[Recorded], when: PointInTime) -> TicketOutcome:
    """Count the breaches that were retracted in what was known; with `as_of` the ticket is one that never had them."""
    events = [recorded.event for recorded in known if isinstance(recorded.event, BreachRetracted)]
    retracted = sum(event.objective == FIRST_RESPONSE and event.time <= when.at for event in events)
    answer = ticket.first.answer
    return FoldedTicket(len(ticket.facts), ticket.state, retracted, answer.elapsed if answer else None).make_outcome()
