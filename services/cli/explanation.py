"""The text of `sla explain`, for people: tables, the bar of a clock, the sum. What there is to say, queries know."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from services.cli import terminal as screen
from services.text.formats import (
    format_span,
    format_time_left,
    format_wall_time,
    format_wall_time_briefly,
    make_printable,
)
from sla.policy import FIRST_RESPONSE

Json = dict[str, Any]

CELLS = 64  # of the bar
TERMS = 12  # of the sum, at most
MARKS = {"counted": "█", "overdue": "▓", "not counted": "·", "to come": " "}


def print_explanation(story: Json) -> None:
    """Print the explanation; wall times are those of the policy's zone."""
    zone = story["zone"]
    screen.print_pairs(
        [
            ("ticket", story["ticket_id"]),
            ("state", story["word"]),
            ("as of", format_wall_time(story["at"], zone)),
            *([("as known at", format_wall_time(story["known_at"], zone))] if story["known_at"] else []),
        ]
    )
    _print_title("Facts")
    screen.print_table(
        ("happened", "learned", "what", "says", "id", ""), (_build_fact_row(each, zone) for each in story["facts"])
    )
    _print_title("Decisions")
    decided = (_build_decision_row(each, zone) for each in story["decisions"] if each["kind"] != "state_updated")
    screen.print_table(("decided", "about", "what", "because", "of", ""), decided)
    for clock in story["clocks"]:
        _print_clock(clock, zone)


def _print_title(text: str) -> None:
    screen.print_line(f"\n{text}")


def _build_fact_row(fact: Json, zone: str) -> tuple[str, ...]:
    late = timedelta(seconds=fact["delay_seconds"])
    learned = "at once" if late < timedelta(seconds=1) else f"{format_time_left(late)} later"
    happened, what = format_wall_time(fact["time"], zone), _name_kind(fact["type"])
    return (
        happened,
        learned,
        what,
        _format_data(fact["data"]),
        make_printable(fact["id"]),
        "; ".join(_describe_odd(fact, zone)),
    )


def _describe_odd(fact: Json, zone: str) -> Iterator[str]:
    if fact["out_of_order"]:
        yield "out of order"
    if original := fact["told"]:
        was = f"{_format_data(original['data'])} {format_wall_time(original['time'], zone)}"
        yield f"corrected by {make_printable(fact['corrected_by'])}, was {was}"


def _name_kind(type: str) -> str:
    return type.removeprefix("ticket.").replace("_", " ")


def _format_data(data: Json) -> str:
    return ", ".join(make_printable(str(value)) for value in data.values())


def _build_decision_row(decision: Json, zone: str) -> tuple[str, ...]:
    details, notes = decision["details"], list[str]()
    if decision["withdrawn_at"]:
        notes.append(f"WITHDRAWN {format_wall_time(decision['withdrawn_at'], zone)}")
    if "met" in details:
        notes.append(
            "in time" if details["met"] else f"late by {format_span(timedelta(seconds=details['overdue_seconds']))}"
        )
    if "old_due_at" in details:
        due, old_due = (format_wall_time_briefly(at, zone) for at in (decision["due_at"], details["old_due_at"]))
        notes.append(f"due {due} instead of {old_due}")
    if "threshold_percent" in details:
        notes.append(f"{details['threshold_percent']} % used")
    if decision["kind"] in ("applied", "breached"):
        notes.append(f"due {format_wall_time_briefly(decision['due_at'], zone)}")
    if decision["objective"] != FIRST_RESPONSE:
        notes.append(f"{decision['objective']} {decision['cycle']}")
    cause = decision["cause"].replace("_", " ")
    what = decision["kind"].replace("_", " ")
    times = format_wall_time(decision["at"], zone), format_wall_time(decision["time"], zone)
    return *times, what, cause, make_printable(decision["cause_id"] or "-"), "; ".join(notes)


def _print_clock(clock: Json, zone: str) -> None:
    _print_title(f"{clock['objective'].replace('_', ' ')} {clock['cycle']}".capitalize())
    for line in _draw_bar(clock, zone):
        screen.print_line(line)
    screen.print_table(
        ("from", "to", "length", "counted", "reason"), (_build_segment_row(each, zone) for each in clock["segments"])
    )
    screen.print_line(_format_sum(clock))
    _print_title("Due because")
    columns = ("at", "because", "promise", "target", "used", "left", "due")
    screen.print_table(columns, (_build_step_row(step, zone) for step in clock["steps"]))
    screen.print_line(_describe_verdict(clock, zone))


def _format_sum(clock: Json) -> str:
    counted = [format_exactly(timedelta(seconds=each["seconds"])) for each in clock["segments"] if each["counted"]]
    terms = " + ".join(counted) if len(counted) <= TERMS else f"the {len(counted)} that count"
    return f"{terms or 'none'} = {format_exactly(_read_length(clock, 'elapsed'))} used"


def format_exactly(length: timedelta) -> str:
    """As a span, with the fraction of the second if there is one: what is added up here must add up."""
    fraction = f".{length.microseconds:06}".rstrip("0") if length.microseconds else ""
    return format_span(length).removesuffix("s") + fraction + "s"


def _read_length(clock: Json, name: str) -> timedelta:
    return timedelta(seconds=clock[f"{name}_seconds"])


def _build_segment_row(segment: Json, zone: str) -> tuple[str, ...]:
    counted = "yes" if segment["counted"] else "no"
    reason = f"{segment['reason']} (overdue)" if segment["overdue"] else segment["reason"]
    length = format_exactly(timedelta(seconds=segment["seconds"]))
    return format_wall_time(segment["from"], zone), format_wall_time(segment["to"], zone), length, counted, reason


def _build_step_row(step: Json, zone: str) -> tuple[str, ...]:
    promise = f"{step['service_level']} {step['priority']}, policy {step['policy_version']}"
    spans = (format_span(timedelta(seconds=step[f"{name}_seconds"])) for name in ("target", "used", "remaining"))
    due = format_wall_time(step["due_at"], zone) if step["running"] else "stands still"
    return format_wall_time(step["at"], zone), step["cause"].replace("_", " "), promise, *spans, due


def _describe_verdict(clock: Json, zone: str) -> str:
    """How it ends, or stands, on one line."""
    used = f"{format_span(_read_length(clock, 'elapsed'))} of {format_span(_read_length(clock, 'target'))} used"
    ended = f"{clock['ended_by']} {format_wall_time(clock['ended_at'], zone)}"
    if clock["met"] is not None:
        return f"{ended}, {used}: " + (
            "in time" if clock["met"] else f"late by {format_span(_read_length(clock, 'overdue'))}"
        )
    broken = f"broken {format_wall_time(clock['broken_at'], zone)}" if clock["broken_at"] else None
    if clock["ended_by"]:
        return ", ".join(filter(None, (broken, ended, used)))
    return f"{broken}, {used}" if broken else f"{used}, {format_span(_read_length(clock, 'remaining'))} left"


def _draw_bar(clock: Json, zone: str) -> Iterator[str]:
    """Cells of equal length on the wall clock, each with the mark of what is in it; and where it is due."""
    start, segments = clock["started_at"], clock["segments"]
    end = max([start, clock["due_at"], *(segment["to"] for segment in segments)])
    cell = (end - start) / CELLS
    if cell:
        yield "".join(_choose_mark(segments, start + n * cell, start + (n + 1) * cell) for n in range(CELLS)) + "│"
        due = " " * min(int((clock["due_at"] - start) / cell), CELLS)
        yield f"{due}↑ due {format_wall_time_briefly(clock['due_at'], zone)}"
        yield "  ".join(f"{mark} {what}" for what, mark in MARKS.items() if mark.strip())


def _choose_mark(segments: list[Json], start: datetime, end: datetime) -> str:
    """Of a cell: any time that counts is shown, however short."""
    within = [segment for segment in segments if segment["from"] < end and segment["to"] > start]
    counted = [segment for segment in within if segment["counted"]]
    if counted:
        return MARKS["overdue" if all(segment["overdue"] for segment in counted) else "counted"]
    return MARKS["not counted" if within else "to come"]
