"""The pages of the board, in HTML: everything that came from outside is escaped by the templates."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from projections.promises import NO_LEVEL, Cell, PromiseFilter, make_label
from services.board.charts import ChartMark, ChartSegment, draw_hours_chart, draw_timeline
from services.board.service import BoardSnapshot, Line, News, Tally, find_windows_ahead
from services.queries.explanation import TicketExplanation, list_details
from services.queries.report import GROUPINGS, Json
from services.queries.report_table import build_rows, list_columns
from services.text.formats import format_share, format_span, format_wall_time
from services.text.phrases import choose_wording, name_fact, name_promise, write_decision, write_news
from sla.calendar import LEAP_YEAR, Rules, Segment, SupportHours, Week, get_zone
from sla.explain import ClockExplanation, DecisionEntry
from sla.judge import Fact
from sla.log import AnnouncedEvent, Breached, StateUpdated
from sla.policy import FIRST_RESPONSE, Level, Policy
from sla.targets import Target
from sla.versions import Version

ASSETS = sha256(
    b"".join(files("services.board").joinpath("static", name).read_bytes() for name in ("board.css", "board.js"))
).hexdigest()[:8]

_templates = Environment(
    loader=PackageLoader("services.board"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals |= {"assets": ASSETS, "format_share": format_share}

MILLISECOND = timedelta(milliseconds=1)
AT_RISK_SHARE = 0.25  # of the target is left
NEWEST = 10  # events in a list
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def render_board(
    snapshot: BoardSnapshot,
    *,
    policy: Policy,
    wanted: PromiseFilter,
    lines: Sequence[Line],
    tallies: dict[Cell, Tally],
    breaches: Sequence[News],
    newest: Sequence[News],
    pages: Sequence[tuple[str, str | None]],
) -> str:
    """
    Return the page of the promises that wait, by deadline, and of what has happened. `pages` are the other pages of the
    list, with the cursors that ask for them.
    """
    now = snapshot.now
    objectives, levels, priorities = (
        _list_names(names, tallies, place)
        for place, names in enumerate((policy.objectives, policy.levels, policy.priorities))
    )
    cells, total = defaultdict[tuple[str, str], Tally](Tally), Tally()
    for cell, tally in tallies.items():
        if wanted.objective in (None, cell[0]):
            cells[cell[1:]] += tally
        if _is_wanted(cell, wanted):
            total += tally
    hours = _find_hours_ahead(lines, now)
    breaches = [news for news in breaches if _is_wanted(_get_cell(news.event), wanted)]
    newest = [*islice((news for news in newest if _is_wanted(_get_cell(news.event), wanted)), NEWEST)]
    return _render(
        "board",
        snapshot,
        policy.zone,
        filters=[
            (key.capitalize(), _list_choices(wanted, key, names))
            for key, names in (("objective", objectives), ("level", levels), ("priority", priorities))
            if len(names) > 1
        ],
        asked=_build_query(wanted),
        total=total,
        rows=[_build_row(line, hours, now) for line in lines],
        hours=[_list_windows(windows, each.rules.zone, now) for each, windows in hours.items()],
        levels=levels,
        matrix=[(name, [(level, cells[level, name]) for level in levels]) for name in priorities],
        breaches=breaches,
        shown_breaches=[_describe_news(news, policy.zone) for news in breaches[:4]],
        chart=draw_hours_chart([news.event.breached_at for news in breaches if isinstance(news.event, Breached)], now),
        newest=[_describe_news(news, policy.zone) for news in newest],
        pages=[(text, _build_board_url({**_build_query(wanted), "cursor": cursor})) for text, cursor in pages],
    )


def _list_names(in_force: Iterable[str], tallies: Mapping[Cell, Tally], place: int) -> list[str]:
    """Return the names of the policy in force, and those that only promises of earlier versions have."""
    counted = (cell[place] for cell, tally in tallies.items() if any(tally))
    return [name for name in dict.fromkeys([*in_force, *counted]) if name != NO_LEVEL]


def _is_wanted(cell: Cell, wanted: PromiseFilter) -> bool:
    return all(asked in (None, name) for asked, name in zip(wanted, cell, strict=False))


def _get_cell(event: AnnouncedEvent) -> Cell:
    return make_label(event.objective, event.state)[:3]


def _find_hours_ahead(lines: Sequence[Line], at: datetime) -> dict[SupportHours, list[Segment]]:
    return {each: find_windows_ahead(each, at) for each in dict.fromkeys(line.hours for line in lines) if each}


def render_ticket(
    snapshot: BoardSnapshot, explained: TicketExplanation, lines: Sequence[Line], given: Mapping[str, str]
) -> str:
    """
    Return the page of one ticket, a line for each promise, and why it is so; `given` is what was asked of the past,
    verbatim.
    """
    zone, now, at, state = explained.policy.zone, snapshot.now, explained.when.at, explained.status.first.state
    hours = _find_hours_ahead(lines, at)
    still = {"hours": None} if any(given.values()) else {}  # a countdown of the past stands still
    rows = [_build_row(line, hours, at) | _describe_progress(line, at) | still for line in lines]
    waiting = [row for row in rows if row["waits"]]
    hours_of = {line.status.key[1:]: line.hours for line in lines}
    return _render(
        "ticket",
        snapshot,
        zone,
        explained=explained,
        state=state,
        rows=rows,
        row=min(waiting, key=itemgetter("left"), default=rows[0]),
        hours=[_list_windows(windows, each.rules.zone, now) for each, windows in hours.items()],
        past=_describe_past(given, at, zone),
        given=given,
        clocks=[
            (
                it,
                name_promise(it.objective, it.cycle).capitalize(),
                _draw_clock(explained, it, hours_of.get((it.objective, it.cycle))),
            )
            for it in explained.clocks
        ],
        name_fact=name_fact,
        list_details=list_details,
        decisions=[_build_decision(entry) for entry in explained.decisions],
        time=lambda at: "-" if at is None else _format_date(at, now, zone),
        length=format_span,
        url=build_ticket_url,
    )


def render_report(
    snapshot: BoardSnapshot, report: Json, given: Mapping[str, str | None], objectives: Sequence[str]
) -> str:
    """Return the page of a report; `given` is the time that was asked about, verbatim."""
    asked = {name: report[name] for name in ("period", "by", "objective", "customer")} | dict(given)
    today = snapshot.now.astimezone(get_zone(report["zone"])).date()
    *rows, total = build_rows(report)

    def list_choices(key: str, names: Iterable[str | None]) -> list[tuple[str, str, bool]]:
        return [
            (
                "all" if name is None else name.replace("_", " "),
                _build_report_url({**asked, key: name}),
                name == asked[key],
            )
            for name in names
        ]

    return _render(
        "report",
        snapshot,
        report["zone"],
        asked=asked,
        filters=[
            ("Period", list_choices("period", _list_periods(today))),
            *([("Objective", list_choices("objective", (None, *objectives)))] if len(objectives) > 1 else []),
            ("By", [(name, _build_toggle_url(asked, name), name in report["by"]) for name in GROUPINGS]),
        ],
        csv=_build_report_url(asked, "/report.csv"),
        columns=list_columns(report),
        keys=len(report["by"]),
        rows=[*zip(rows, report["rows"], strict=True)],
        total=total,
    )


def _list_periods(today: date) -> list[str]:
    """Return the periods that people ask for most: this month and the one before, this quarter, this year, all."""
    before = today.replace(day=1) - timedelta(days=1)
    quarter = f"{today.year}-Q{(today.month + 2) // 3}"
    return [f"{today:%Y-%m}", f"{before:%Y-%m}", quarter, f"{today.year}", "all"]


def _build_toggle_url(asked: Mapping[str, Any], name: str) -> str:
    """Build the address of the same report with one grouping more, or without it."""
    return _build_report_url({**asked, "by": [each for each in GROUPINGS if (each in asked["by"]) != (each == name)]})


def _build_report_url(asked: Mapping[str, Any], page: str = "/report") -> str:
    """Build the address of a report; without groupings too, as the page has some of its own accord."""
    given = {name: value for name, value in asked.items() if value and name != "by"}
    return f"{page}?" + urlencode({**given, "by": ",".join(asked["by"])}, safe=",")


def render_policy(snapshot: BoardSnapshot, it: Policy, versions: Sequence[Version], year: int) -> str:
    """Return the page of a policy: hours, targets, and the days of a year on which other hours hold."""
    levels = [
        {
            "name": level.name,
            "hours": [_describe_hours(each.rules) for each in level.hours.members],
            "tell": ", ".join(level.tell) or "nobody",
            "channels": [(name, ", ".join(priorities)) for name, priorities in level.channels.items()],
        }
        for level in it.levels.values()
    ]
    return _render(
        "policy",
        snapshot,
        it.zone,
        policy=it,
        levels=levels,
        objectives=[(name, _list_targets(it, name)) for name in it.objectives],
        days=list(_list_days(it, year)),
        year=year,
        versions=versions,
        in_force=max(
            (each for each in versions if each.effective_from <= snapshot.now), key=lambda each: each.effective_from
        ),
        wall=format_wall_time,
    )


def render_error(status: int, title: str, detail: str) -> str:
    """Return the page that says what is wrong, and what to do."""
    return _templates.get_template("error.html").render(page="", status=status, title=title, detail=detail)


def _render(page: str, snapshot: BoardSnapshot, zone: str, **context: Any) -> str:
    local = snapshot.now.astimezone(get_zone(zone))
    return _templates.get_template(f"{page}.html").render(
        page=page,
        now=convert_to_milliseconds(snapshot.now),
        position=snapshot.position,
        offset=(local.utcoffset() or timedelta()) // timedelta(milliseconds=1),
        zone=f"{local:%Z}",
        day=f"{local:%a} {local.day} {local:%b}",
        clock=f"{local:%H:%M:%S}",
        **context,
    )


def convert_to_milliseconds(at: datetime) -> int:
    """Convert an instant as browsers count: milliseconds since 1970."""
    return int(at.timestamp() * 1000)


def build_ticket_url(ticket: str) -> str:
    """Build the address of a ticket. In a query any id is safe; in a path a browser takes `..` for the folder above."""
    return "/ticket?" + urlencode({"id": ticket})


# ---- parts of the board


def _list_choices(wanted: PromiseFilter, key: str, names: Iterable[str]) -> list[tuple[str, str, bool]]:
    """Return each name, address, and whether it is what was asked for; `all` comes first."""
    asked = _build_query(wanted)
    return [
        ("all" if name is None else name.replace("_", " "), _build_board_url({**asked, key: name}), name == asked[key])
        for name in (None, *names)
    ]


def _build_query(wanted: PromiseFilter) -> dict[str, str | None]:
    return {
        "objective": wanted.objective,
        "level": wanted.service_level,
        "priority": wanted.priority,
        "search": wanted.search,
    }


def _build_board_url(asked: Mapping[str, str | None]) -> str:
    said = {key: value for key, value in asked.items() if value}
    return "/?" + urlencode(said) if said else "/"


def _build_row(line: Line, hours: Mapping[SupportHours, Sequence[Segment]], now: datetime) -> dict[str, object]:
    """Return what a page has of a promise; `hours` are the windows ahead of all support hours on the page."""
    status, state = line.status, line.status.state
    zone = status.policy.zone if status.policy else "UTC"
    level, priority = state.judged
    return {
        "ticket": status.ticket,
        "objective": status.key.objective,
        "cycle": status.key.cycle,
        "promise": name_promise(status.key.objective, status.key.cycle),
        "url": build_ticket_url(status.ticket),
        "level": level or "-",
        "priority": priority or "-",
        "escalations": state.escalation_level,
        "due": "-" if state.due_at is None else _format_soon(state.due_at, now, zone),
        "left": None if line.left is None else line.left // MILLISECOND,
        **_build_countdown(line, hours, now, zone),
    }


def _build_countdown(
    line: Line, hours: Mapping[SupportHours, Sequence[Segment]], now: datetime, zone: str
) -> dict[str, object]:
    """Return what board.js counts down, in milliseconds; `hours` is None for a clock that stands still."""
    state, left = line.status.state, None if line.left is None else line.left // MILLISECOND
    target = (state.target or timedelta()) // MILLISECOND
    countdown = {
        "target": target,
        "warn": int(target * AT_RISK_SHARE),
        "used": max(0, min(target, target - (left or 0))),
        "clock": format_clock(left),
    }
    if line.hours is None or state.stage != "running" or state.stopped:
        return countdown | {"hours": None, "closed": False, "state": "stopped", "note": line.status.get_label(now)}
    tone, opens = _choose_tone(left, target), hours[line.hours][0].start
    closed = f"closed until {_format_soon(opens, now, zone)}" if opens > now else ""
    return countdown | {
        "hours": list(hours).index(line.hours),
        "closed": opens > now,
        "state": tone,
        "note": ", ".join(filter(None, (COUNTDOWN_NOTES[tone], closed))),
    }


COUNTDOWN_NOTES = {"late": "late", "risk": "at risk", "ok": ""}


def _choose_tone(left: int | None, target: int) -> str:
    """Choose the state of a countdown, in milliseconds; board.js has the same rule."""
    if left is None or left <= 0:
        return "late"
    return "risk" if left <= target * AT_RISK_SHARE else "ok"


def format_clock(left: int | None) -> str:
    """Format milliseconds of support time left as board.js does: `3:05:12`, and `−0:42:10` if it is over."""
    if left is None:
        return "-"
    seconds = abs(left) // 1000
    return f"{'−' if left < 0 else ''}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _list_windows(windows: Iterable[Segment], zone: str, now: datetime) -> list[list[object]]:
    """Return the support windows ahead: when they open and close, and how people say when they open."""
    return [
        [convert_to_milliseconds(each.start), convert_to_milliseconds(each.end), _format_soon(each.start, now, zone)]
        for each in windows
    ]


def _format_soon(at: datetime, now: datetime, zone: str) -> str:
    """Format an instant as people say it: `14:45` today, `Mon 09:00` within the week, else `Mon 4 Jan 09:00`."""
    local, today = at.astimezone(get_zone(zone)), now.astimezone(get_zone(zone)).date()
    if local.date() == today:
        return f"{local:%H:%M}"
    near = abs((local.date() - today).days) < 7
    return f"{local:%a %H:%M}" if near else f"{local:%a} {local.day} {local:%b %H:%M}"


def _describe_news(news: News, zone: str) -> dict[str, object]:
    event = news.event
    objective, level, priority = _get_cell(event)
    return {
        "ticket": news.ticket,
        "url": build_ticket_url(news.ticket),
        "at": f"{event.time.astimezone(get_zone(zone)):%H:%M}",
        "wall": format_wall_time(event.time, zone),
        "says": write_news(event),
        "kind": choose_wording(event).tone,
        "promise": name_promise(objective, event.cycle),
        "level": level,
        "priority": priority,
    }


# ---- parts of a ticket


STAGE_TONES = {
    "breached": "late",
    "answered late": "late",
    "closed late": "late",
    "at risk": "risk",
    "on track": "ok",
    "met": "ok",
}


def _describe_past(given: Mapping[str, str], at: datetime, zone: str) -> str:
    if given["known_at"]:
        return f"As it was believed to be at {format_wall_time(at, zone)}."
    return f"As it was at {format_wall_time(at, zone)}, by what is known now." if given["as_of"] else ""


def _format_date(at: datetime, now: datetime, zone: str) -> str:
    """Format an instant as `Thu 31 Dec 14:45:10`, with the year if it is another one."""
    local = at.astimezone(get_zone(zone))
    year = "" if local.year == now.astimezone(get_zone(zone)).year else f" {local.year}"
    return f"{local:%a} {local.day} {local:%b}{year} {local:%H:%M:%S}"


def _describe_progress(line: Line, at: datetime) -> dict[str, object]:
    """Return the stage of a promise, what is used of its target, and whether it was kept."""
    status, label = line.status, line.status.get_label(at)
    return {
        "label": label,
        "tone": STAGE_TONES.get(label, "late" if status.state.kept is False else ""),
        "waits": line.left is not None,
        "used_of_target": f"{format_span(status.measure_elapsed(at))} of {format_span(status.state.target)}",
        "due_at": status.state.due_at,
        "kept": {None: "", True: "kept", False: "broken"}[status.state.kept],
    }


def _build_decision(entry: DecisionEntry) -> dict[str, object]:
    decision = entry.decision
    time, cause = (decision.at, None) if isinstance(decision, StateUpdated) else (decision.time, decision.cause)
    return {
        "at": decision.at,
        "what": write_decision(decision),
        "retracted_at": entry.retracted_at,
        "time": time,
        "cause": cause,
        "due_at": decision.state.due_at,
    }


def _draw_clock(explained: TicketExplanation, it: ClockExplanation, hours: SupportHours | None) -> Markup:
    """Draw the segments so far, and those that are left until the deadline, by its support hours."""
    clock, zone, due_at = it.clock, explained.policy.zone, it.clock.phase.due_at
    segments = [ChartSegment(each.start, each.end, each.counted, each.reason) for each in it.segments]
    marks = [ChartMark(at, str(each), "percent") for each, at in it.thresholds if at < due_at]
    if clock.running and it.ended_by is None:
        marks.append(ChartMark(explained.when.at, "now", "now"))
    if hours is not None and it.ended_by in (None, clock.response):
        ahead = hours.cut_segments(segments[-1].end if segments else clock.started_at, due_at)
        segments += [ChartSegment(*each, ahead=True) for each in ahead]
    marks.append(ChartMark(due_at, f"due {due_at.astimezone(get_zone(zone)):%a %H:%M}", "due"))
    facts = [
        ChartMark(each.fact.time, _describe_fact(each.fact), "answer" if each.fact == clock.response else "fact")
        for each in explained.facts
    ]
    return draw_timeline(segments, facts, marks, zone) if segments else Markup("")


def _describe_fact(fact: Fact) -> str:
    name, details = name_fact(fact.data.type), list_details(fact)
    if name.endswith("changed"):
        return f"{name}: {details.get('priority') or details.get('service_level') or ''}"
    return f"{name} by automation" if details.get("by") == "automation" else name


# ---- parts of the policy


def _describe_hours(rules: Rules) -> dict[str, Any]:
    return {
        "zone": rules.zone,
        "week": _group_week(rules.week),
        "changes": [(f"from {day:%d %B %Y}", _group_week(week)) for day, week in rules.changes.items()]
        + [
            (f"every {date(LEAP_YEAR, *day):%d %B}", [("", ", ".join(map(str, windows)) or "closed")])
            for day, windows in sorted(rules.yearly.items())
        ],
    }


def _group_week(week: Week) -> list[tuple[str, str]]:
    """Group days with the same windows: `Mon-Fri`, `09:00-18:00`."""
    said = [", ".join(map(str, windows)) or "closed" for windows in week]
    groups = [[number for number, _ in group] for _, group in groupby(enumerate(said), key=lambda each: each[1])]
    return [
        (DAYS[days[0]] if len(days) == 1 else f"{DAYS[days[0]]}-{DAYS[days[-1]]}", said[days[0]]) for days in groups
    ]


def _list_targets(policy: Policy, objective: str) -> list[tuple[str, list[str]]]:
    """Return a line for each priority, with a cell for each level."""
    levels = list(policy.levels.values())
    targets = [
        level.targets if objective == FIRST_RESPONSE else level.objectives.get(objective, {}) for level in levels
    ]
    return [
        (name, [_format_target(each.get(name), level) for each, level in zip(targets, levels, strict=True)])
        for name in policy.priorities
    ]


def _format_target(target: Target | None, level: Level) -> str:
    """Format a target as a policy file does, with the calendar of one that has other hours than its level."""
    if target is None:
        return "no promise"
    return str(target) if target.hours is level.hours else f"{target}, {target.calendar}"


class CalendarDay(NamedTuple):
    """A date on which other hours hold, for which levels, and which."""

    day: date
    name: str
    levels: str
    hours: str


def _list_days(policy: Policy, year: int) -> Iterable[CalendarDay]:
    found: dict[tuple[date, str, str], dict[str, None]] = {}
    for level, rules in ((each, hours.rules) for each in policy.levels.values() for hours in each.hours.members):
        for day, name in rules.holidays.items():
            if day.year == year and day not in rules.exceptions:
                found.setdefault((day, name, "closed"), {})[level.name] = None
        for day, (name, windows) in rules.exceptions.items():
            if day.year == year:
                found.setdefault((day, name, ", ".join(map(str, windows)) or "closed"), {})[level.name] = None
    for (day, name, hours), levels in sorted(found.items()):
        yield CalendarDay(day, name, "all levels" if len(levels) == len(policy.levels) else ", ".join(levels), hours)
