"""The text of `sla explain`, for people: tables, the bar of a clock, the sum. What there is to say, queries know."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from services.cli import terminal as screen
from services.text.formats import brief, left, plain, span, wall
from sla.policy import FIRST_RESPONSE

Json = dict[str, Any]

CELLS = 64  # of the bar
TERMS = 12  # of the sum, at most
MARKS = {"counted": "█", "overdue": "▓", "not counted": "·", "to come": " "}


def print_explanation(story: Json) -> None:
    """Print the explanation; wall times are those of the policy's zone."""
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
    if decision["objective"] != FIRST_RESPONSE:
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
