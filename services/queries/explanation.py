"""What `sla explain` says of a ticket, for programs and for people. Why it is so is in sla/explain.py."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from events.promises import seconds
from services.cli import terminal as screen
from services.cli.terminal import brief, left, plain, span, wall
from services.queries import point_in_time as past
from services.queries import ticket_status as reading
from services.store.interface import Store
from sla.explain import Account, Decided, Learned, Part, Step, explain
from sla.log import Announced
from sla.policy import FIRST

Json = dict[str, Any]

_OF_ALL = frozenset(Announced.__struct_fields__)


def story(
    store: Store,
    ticket: str,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    now: datetime | None = None,
) -> Json | None:
    """
    All there is to say of a ticket, as JSON has it: instants in UTC, spans in seconds of support time. None if nothing
    is known of it. Raises ValueError for a `known_at` that lies ahead, NothingYet for a time before its first event.
    """
    when = past.When(as_of, known_at, now or datetime.now(UTC)).check()
    known = past.history(store, ticket, when)
    if known is None:
        return None
    versions = store.versions()
    found = when.ticket(known, versions)
    standing = reading.as_it_stands(found, versions, when)
    told = explain(found.facts, [recorded.event for recorded in known], versions, when.at)
    policy = standing.policy or versions.at(when.at)
    return {
        "ticket_id": ticket,
        "at": when.at,
        "as_of": as_of,
        "known_at": known_at,
        "zone": policy.zone,
        "policy": policy.name,
        "customer": standing.state.customer,
        "word": standing.word(when.at),
        "standing": standing.report(when.at),
        "facts": [_fact(each) for each in told.facts],
        "decisions": [_decision(each) for each in told.decisions],
        "clocks": [_clock(account) for account in told.accounts],
    }


def _fact(learned: Learned) -> Json:
    fact, told, out_of_order = learned
    return {
        "type": fact.data.type,
        "source": fact.source,
        "id": fact.id,
        "time": fact.time,
        "recorded_at": told.at,
        "delay_seconds": seconds(max(told.at - told.time, timedelta(0))),
        "out_of_order": out_of_order,
        "data": fact.data.model_dump(mode="json", exclude_defaults=True),
        "corrected_by": fact.corrected_by,
        "told": None if fact.corrected_by is None else {"time": told.time, "data": told.data},
    }


def _decision(decided: Decided) -> Json:
    decision, state = decided.decision, decided.decision.state
    said: Json = {"kind": "state_updated", "time": decision.at, "cause": None, "cause_id": None, "id": None}
    details: Json = {}
    if isinstance(decision, Announced):
        said = {"kind": decision.KIND} | {name: getattr(decision, name) for name in ("time", "cause", "cause_id", "id")}
        details = {name: getattr(decision, name) for name in decision.__struct_fields__ if name not in _OF_ALL}
    return {
        "at": decision.at,
        **said,
        "objective": decision.objective,
        "cycle": decision.cycle,
        "stage": state.stage,
        "service_level": state.service_level,
        "priority": state.priority,
        "due_at": state.due_at,
        "target_seconds": None if state.target is None else seconds(state.target),
        "elapsed_seconds": seconds(decision.elapsed) if isinstance(decision, Announced) else None,
        "withdrawn_at": decided.withdrawn_at,
        "details": dict(_plain(name, value) for name, value in details.items()),
    }


def _plain(name: str, value: object) -> tuple[str, object]:
    return (f"{name}_seconds", seconds(value)) if isinstance(value, timedelta) else (name, value)


def _clock(account: Account) -> Json:
    clock, ended_by = account.clock, account.ended_by
    stretch, applies = clock.stretch, clock.excluded_by is None
    return {
        "objective": account.objective,
        "cycle": account.cycle,
        "started_at": clock.started_at,
        "ended_at": None if ended_by is None else ended_by.time,
        "ended_by": None if ended_by is None else ended_by.data.type.removeprefix("ticket."),
        "running": clock.running,
        "service_level": clock.service_level.name,
        "priority": clock.priority,
        "policy_version": stretch.policy.version,
        "target_seconds": seconds(stretch.target),
        "elapsed_seconds": seconds(account.elapsed),
        "remaining_seconds": seconds(max(stretch.target - account.elapsed, timedelta(0))),
        "due_at": stretch.due_at,
        "broken_at": clock.broken_at,
        "met": clock.met if applies else None,
        "overdue_seconds": seconds(clock.overdue) if applies and clock.overdue is not None else None,
        "segments": [_segment(part) for part in account.parts],
        "steps": [_step(step) for step in account.steps],
        "thresholds": [
            {"percent": percent, "at": stretch.reached(percent)}
            for percent in stretch.policy.warn_at
            if stretch.running
        ],
    }


def _segment(part: Part) -> Json:
    return {
        "from": part.start,
        "to": part.end,
        "counted": part.counted,
        "overdue": part.overdue,
        "reason": part.reason,
        "seconds": seconds(part.end - part.start),
        "service_level": part.stretch.level.name,
        "policy_version": part.stretch.policy.version,
    }


def _step(step: Step) -> Json:
    stretch = step.stretch
    return {
        "at": step.at,
        "cause": str(step.cause),
        "facts": [fact.told_by for fact in step.facts],
        "service_level": stretch.service_level.name,
        "priority": stretch.priority,
        "policy_version": stretch.policy.version,
        "judged_as": stretch.level.name,
        "target_seconds": seconds(stretch.target),
        "used_seconds": seconds(step.used),
        "remaining_seconds": seconds(step.remaining),
        "due_at": stretch.due_at,
        "running": stretch.running,
    }


# ---- for people

CELLS = 64  # of the bar
TERMS = 12  # of the sum, at most
MARKS = {"counted": "█", "overdue": "▓", "not counted": "·", "to come": " "}


def tell(story: Json) -> None:
    """The story as text; wall times are those of the policy's zone."""
    zone = story["zone"]
    screen.pairs(
        [
            ("ticket", story["ticket_id"]),
            ("state", story["word"]),
            ("as of", wall(story["at"], zone)),
            *([("as known at", wall(story["known_at"], zone))] if story["known_at"] else []),
        ]
    )
    _title("Facts")
    screen.table(("happened", "learned", "what", "says", "id", ""), (_fact_row(each, zone) for each in story["facts"]))
    _title("Decisions")
    decided = (_decision_row(each, zone) for each in story["decisions"] if each["kind"] != "state_updated")
    screen.table(("decided", "about", "what", "because", "of", ""), decided)
    for clock in story["clocks"]:
        _tell_clock(clock, zone)


def _title(text: str) -> None:
    screen.line(f"\n{text}")


def _fact_row(fact: Json, zone: str) -> tuple[str, ...]:
    late = timedelta(seconds=fact["delay_seconds"])
    learned = "at once" if late < timedelta(seconds=1) else f"{left(late)} later"
    happened, what = wall(fact["time"], zone), _kind(fact["type"])
    return happened, learned, what, _said(fact["data"]), plain(fact["id"]), "; ".join(_odd(fact, zone))


def _odd(fact: Json, zone: str) -> Iterator[str]:
    if fact["out_of_order"]:
        yield "out of order"
    if told := fact["told"]:
        yield f"corrected by {plain(fact['corrected_by'])}, was {_said(told['data'])} {wall(told['time'], zone)}"


def _kind(type: str) -> str:
    return type.removeprefix("ticket.").replace("_", " ")


def _said(data: Json) -> str:
    return ", ".join(plain(str(value)) for value in data.values())


def _decision_row(decision: Json, zone: str) -> tuple[str, ...]:
    details, notes = decision["details"], list[str]()
    if decision["withdrawn_at"]:
        notes.append(f"WITHDRAWN {wall(decision['withdrawn_at'], zone)}")
    if "met" in details:
        notes.append("in time" if details["met"] else f"late by {span(timedelta(seconds=details['overdue_seconds']))}")
    if "old_due_at" in details:
        notes.append(f"due {brief(decision['due_at'], zone)} instead of {brief(details['old_due_at'], zone)}")
    if "threshold_percent" in details:
        notes.append(f"{details['threshold_percent']} % used")
    if decision["kind"] in ("applied", "breached"):
        notes.append(f"due {brief(decision['due_at'], zone)}")
    if decision["objective"] != FIRST:
        notes.append(f"{decision['objective']} {decision['cycle']}")
    cause = decision["cause"].replace("_", " ")
    what = decision["kind"].replace("_", " ")
    times = wall(decision["at"], zone), wall(decision["time"], zone)
    return *times, what, cause, plain(decision["cause_id"] or "-"), "; ".join(notes)


def _tell_clock(clock: Json, zone: str) -> None:
    _title(f"{clock['objective'].replace('_', ' ')} {clock['cycle']}".capitalize())
    for line in _bar(clock, zone):
        screen.line(line)
    screen.table(
        ("from", "to", "length", "counted", "reason"), (_segment_row(each, zone) for each in clock["segments"])
    )
    screen.line(_sum(clock))
    _title("Due because")
    columns = ("at", "because", "promise", "target", "used", "left", "due")
    screen.table(columns, (_step_row(step, zone) for step in clock["steps"]))
    screen.line(_verdict(clock, zone))


def _sum(clock: Json) -> str:
    counted = [exact(timedelta(seconds=each["seconds"])) for each in clock["segments"] if each["counted"]]
    terms = " + ".join(counted) if len(counted) <= TERMS else f"the {len(counted)} that count"
    return f"{terms or 'none'} = {exact(_length(clock, 'elapsed'))} used"


def exact(length: timedelta) -> str:
    """As a span, with the fraction of the second if there is one: what is added up here must add up."""
    fraction = f".{length.microseconds:06}".rstrip("0") if length.microseconds else ""
    return span(length).removesuffix("s") + fraction + "s"


def _length(clock: Json, name: str) -> timedelta:
    return timedelta(seconds=clock[f"{name}_seconds"])


def _segment_row(segment: Json, zone: str) -> tuple[str, ...]:
    counted = "yes" if segment["counted"] else "no"
    reason = f"{segment['reason']} (overdue)" if segment["overdue"] else segment["reason"]
    length = exact(timedelta(seconds=segment["seconds"]))
    return wall(segment["from"], zone), wall(segment["to"], zone), length, counted, reason


def _step_row(step: Json, zone: str) -> tuple[str, ...]:
    promise = f"{step['service_level']} {step['priority']}, policy {step['policy_version']}"
    spans = (span(timedelta(seconds=step[f"{name}_seconds"])) for name in ("target", "used", "remaining"))
    due = wall(step["due_at"], zone) if step["running"] else "stands still"
    return wall(step["at"], zone), step["cause"].replace("_", " "), promise, *spans, due


def _verdict(clock: Json, zone: str) -> str:
    """How it ends, or stands, on one line."""
    used = f"{span(_length(clock, 'elapsed'))} of {span(_length(clock, 'target'))} used"
    ended = f"{clock['ended_by']} {wall(clock['ended_at'], zone)}"
    if clock["met"] is not None:
        return f"{ended}, {used}: " + ("in time" if clock["met"] else f"late by {span(_length(clock, 'overdue'))}")
    broken = f"broken {wall(clock['broken_at'], zone)}" if clock["broken_at"] else None
    if clock["ended_by"]:
        return ", ".join(filter(None, (broken, ended, used)))
    return f"{broken}, {used}" if broken else f"{used}, {span(_length(clock, 'remaining'))} left"


def _bar(clock: Json, zone: str) -> Iterator[str]:
    """Cells of equal length on the wall clock, each with the mark of what is in it; and where it is due."""
    start, segments = clock["started_at"], clock["segments"]
    end = max([start, clock["due_at"], *(segment["to"] for segment in segments)])
    cell = (end - start) / CELLS
    if cell:
        yield "".join(_mark(segments, start + n * cell, start + (n + 1) * cell) for n in range(CELLS)) + "│"
        due = " " * min(int((clock["due_at"] - start) / cell), CELLS)
        yield f"{due}↑ due {brief(clock['due_at'], zone)}"
        yield "  ".join(f"{mark} {what}" for what, mark in MARKS.items() if mark.strip())


def _mark(segments: list[Json], start: datetime, end: datetime) -> str:
    """Of a cell: any time that counts is shown, however short."""
    within = [segment for segment in segments if segment["from"] < end and segment["to"] > start]
    counted = [segment for segment in within if segment["counted"]]
    if counted:
        return MARKS["overdue" if all(segment["overdue"] for segment in counted) else "counted"]
    return MARKS["not counted" if within else "to come"]
