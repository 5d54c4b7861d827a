"""How a period went, of the promises that began in it: how many were kept and broken, and how fast answers were."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from events.cloudevents import quote_value
from events.promises import to_seconds
from events.times import FACT_YEARS, MICROSECOND, parse_instant
from projections.promises import BROKEN, KEPT, Promises, Span, make_label
from projections.runner import catch_up
from services.errors import ReadOnlyError
from services.queries.point_in_time import PointInTime, iterate_tickets
from services.store.interface import Store
from sla.calendar import get_zone
from sla.log import BreachRetracted
from sla.policy import FIRST_RESPONSE
from sla.versions import Versions

Json = dict[str, Any]
Key = tuple[str, ...]

GROUPINGS = {"objective": "objective", "level": "service_level", "priority": "priority", "customer": "customer"}
"""What a report may be grouped by, and the column that has it; a promise is under what it is judged by."""

PROMISE_OUTCOMES = ("kept", "late", "breached", "open", "cancelled", "excluded")
"""What became of promises: fulfilled in time or late, late and still open, open, or ended without being fulfilled."""

_MONTH = re.compile(r"(\d{4})-(\d{2})")
_QUARTER = re.compile(r"(\d{4})-Q([1-4])")
_WEEK = re.compile(r"(\d{4})-W(\d{2})")
_YEAR = re.compile(r"\d{4}")
_PERIOD_HINT = "write 2026-10, 2026-W41, 2026-Q4, 2026, FROM..TO (dates, or times with offset; TO is not in it), or all"


class Period(NamedTuple):
    """Time [start, end); None is without limit."""

    start: datetime | None
    end: datetime | None

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
    """
    The sums of some promises: how many have which outcome, are kept and broken, breaches retracted, and the support
    time of each that is fulfilled, in microseconds.
    """

    def __init__(self) -> None:
        self.outcomes, self.kept, self.retracted = Counter[str](), Counter[str](), 0
        self.answers: list[int] = []

    def count(self, stage: str, kept: str, number: int = 1) -> None:
        """Count promises of a stage, kept or broken or undecided."""
        self.outcomes[_name_outcome(stage, kept)] += number
        self.kept[kept] += number

    def add(self, other: "Totals") -> None:
        """Add the sums of more promises."""
        self.outcomes += other.outcomes
        self.kept += other.kept
        self.retracted += other.retracted
        self.answers += other.answers

    def to_json(self) -> Json:
        """
        Return the figures; the outcomes add up to the promises, `share` is kept / (kept + broken). Median and 90th
        percentile are the nearest rank: the time of a real answer, in seconds of support time.
        """
        kept, broken = self.kept[KEPT], self.kept[BROKEN]
        self.answers.sort()
        return {
            "promises": self.outcomes.total(),
            "kept": kept,
            "broken": broken,
            "share": calculate_share(kept, broken),
            **{name: self.outcomes[name] for name in PROMISE_OUTCOMES if name != "kept"},
            "retracted": self.retracted,
            "median_seconds": self._find_percentile(50),
            "p90_seconds": self._find_percentile(90),
        }

    def _find_percentile(self, percent: int) -> int | float | None:
        """Return the least time within which so many per cent of the answers came; None if there are none."""
        if not self.answers:
            return None
        rank = -(-len(self.answers) * percent // 100)
        return to_seconds(timedelta(microseconds=self.answers[rank - 1]))


def calculate_share(kept: int, broken: int) -> float | None:
    """Return the share kept of all promises that were kept or broken, not rounded; None if there are none."""
    return kept / (kept + broken) if kept + broken else None


def _name_outcome(stage: str, kept: str) -> str:
    match stage:
        case "fulfilled":
            return "kept" if kept == KEPT else "late"
        case "cancelled" | "excluded":
            return stage
        case _:
            return "breached" if kept == BROKEN else "open"


def build_report(
    store: Store,
    when: PointInTime,
    period: str = "all",
    by: Sequence[str] = (),
    objective: str | None = None,
    customer: str | None = None,
) -> Json:
    """
    Return how the promises that began in a period stand, by any of GROUPINGS, of one objective or customer or of all.
    At another time than now the whole log is read. Raises ValueError for a period, a grouping or an objective that is
    none, NothingKnownError for a time before the first event.
    """
    by = list(dict.fromkeys(by))
    if unknown := [name for name in by if name not in GROUPINGS]:
        raise ValueError(f"{', '.join(map(quote_value, unknown))}: a report is by {', '.join(GROUPINGS)}")
    versions = store.read_versions()
    zone = versions.get_in_force(when.at).zone if len(versions) else "UTC"
    asked = Period.parse(period, zone)
    known = {FIRST_RESPONSE: 0} | {name: 0 for version in versions for name in version.policy.objectives}
    if objective is not None and objective not in known:
        raise ValueError(f"objective {quote_value(objective)} is not known; it is one of {', '.join(known)}")
    span = Span(*asked, objective, customer)
    columns = tuple(GROUPINGS[name] for name in by)
    groups = _sum_view(store, columns, span) if when.is_now else _sum_log(store, columns, span, when, versions)
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
        "objective": objective,
        "customer": customer,
        "rows": [dict(zip(columns, key, strict=True)) | groups[key].to_json() for key in keys],
        "total": total.to_json(),
    }


def _sort_keys(keys: Iterable[Key], versions: Versions) -> list[Key]:
    """Return them in the order in which the policies name levels and priorities, then by name."""
    policies = [version.policy for version in versions]
    names = dict.fromkeys(name for policy in policies for name in (*policy.levels, *policy.priorities))
    order = {name: n for n, name in enumerate(names)}
    return sorted(keys, key=lambda key: [(order.get(name, len(order)), name) for name in key])


def _sum_view(store: Store, columns: Key, span: Span) -> dict[Key, Totals]:
    """Return the sums of each group as they are now, from the projection."""
    view, groups = Promises(), defaultdict[Key, Totals](Totals)
    with suppress(ReadOnlyError):  # then it is as far as the processes that catch it up are
        catch_up(store, view)
    with store.read_view() as cursor:
        for *key, stage, kept, number, retracted in view.sum_outcomes(cursor, columns, span):
            totals = groups[tuple(key)]
            totals.count(stage, kept, number)
            totals.retracted += retracted
        for *key, answer in view.list_answers(cursor, columns, span):
            groups[tuple(key)].answers.append(answer)
    return groups


def _sum_log(store: Store, columns: Key, span: Span, when: PointInTime, versions: Versions) -> dict[Key, Totals]:
    """
    Return the same as they were at another time, folded from the whole log. Breaches that were retracted are those of
    what was known: a ticket as of a time never had them.
    """
    groups = defaultdict[Key, Totals](Totals)
    for ticket, known in iterate_tickets(store, when, versions):
        events = (recorded.event for recorded in known)
        retracted = Counter(
            (event.objective, event.cycle)
            for event in events
            if isinstance(event, BreachRetracted) and event.time <= when.at
        )
        for promise in (ticket.first, *ticket.others.values()):
            if not span.has(promise.objective, promise.state):
                continue
            label = make_label(promise.objective, promise.state)
            values = label._asdict() | {"customer": promise.state.customer or ""}
            totals = groups[tuple(values[column] for column in columns)]
            totals.count(label.stage, label.kept)
            totals.retracted += retracted[promise.objective, promise.cycle]
            if label.stage == "fulfilled" and promise.answer is not None:
                totals.answers.append(promise.answer.elapsed // MICROSECOND)
    return groups
