"""The text of `sla explain`, for people: tables, the bar of a clock, the sum. What there is to say, queries know."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.cli import terminal
from services.cli.ticket_status import format_promise
from services.queries.explanation import TicketExplanation, list_details
from services.text.formats import (
    format_span,
    format_time_left,
    format_wall_time,
    format_wall_time_briefly,
    make_printable,
)
from services.text.phrases import name_fact, name_promise, write_note
from sla.explain import ClockExplanation, DeadlineStep, FactEntry, TimeSegment
from sla.log import AnnouncedEvent, StateUpdated

BAR_CELLS = 64
MAX_TERMS = 12  # of the sum
MARKS = {"counted": "█", "overdue": "▓", "not counted": "·", "to come": " "}


def print_explanation(explained: TicketExplanation) -> None:
    """Print the explanation; wall times are those of the policy's zone."""
    zone, when = explained.policy.zone, explained.when
    terminal.print_pairs(
        [
            ("ticket", explained.ticket),
            ("as of", format_wall_time(when.at, zone)),
            *([("as known at", format_wall_time(when.known_at, zone))] if when.known_at else []),
            *((name_promise(*each.key[1:]), format_promise(each, zone, when.at)) for each in explained.status.promises),
        ]
    )
    _print_title("Facts")
    terminal.print_table(
        ("happened", "learned", "what", "says", "id", ""), (_build_fact_row(entry, zone) for entry in explained.facts)
    )
    _print_title("Decisions")
    decisions = (
        _build_decision_row(entry.decision, entry.retracted_at, zone)
        for entry in explained.decisions
        if not isinstance(entry.decision, StateUpdated)
    )
    terminal.print_table(("decided", "about", "promise", "what", "because", "of", ""), decisions)
    for clock in explained.clocks:
        _print_clock(clock, zone)


def _print_title(text: str) -> None:
    terminal.print_line(f"\n{text}")


def _build_fact_row(entry: FactEntry, zone: str) -> tuple[str, ...]:
    fact, delay = entry.fact, entry.delay
    return (
        format_wall_time(fact.time, zone),
        "at once" if delay < timedelta(seconds=1) else f"{format_time_left(delay)} later",
        name_fact(fact.data.type),
        _join_values(list_details(fact)),
        make_printable(fact.id),
        "; ".join(_describe_odd(entry, zone)),
    )


def _describe_odd(entry: FactEntry, zone: str) -> Iterator[str]:
    if entry.out_of_order:
        yield "out of order"
    if entry.fact.withdrawn_by is not None:
        yield f"withdrawn by {make_printable(entry.fact.withdrawn_by)}"
    if entry.fact.corrected_by is not None:
        was = f"{_join_values(entry.original.data)} {format_wall_time(entry.original.time, zone)}"
        yield f"corrected by {make_printable(entry.fact.corrected_by)}, was {was}"


def _join_values(data: dict[str, Any]) -> str:
    return ", ".join(make_printable(str(value)) for value in data.values())


def _build_decision_row(event: AnnouncedEvent, retracted_at: datetime | None, zone: str) -> tuple[str, ...]:
    notes = (
        f"WITHDRAWN {format_wall_time(retracted_at, zone)}" if retracted_at else None,
        write_note(event, zone),
    )
    return (
        format_wall_time(event.at, zone),
        format_wall_time(event.time, zone),
        name_promise(event.objective, event.cycle),
        event.KIND.replace("_", " "),
        event.cause.replace("_", " "),
        make_printable(event.cause_id or "-"),
        "; ".join(filter(None, notes)),
    )


def _print_clock(it: ClockExplanation, zone: str) -> None:
    _print_title(name_promise(it.objective, it.cycle).capitalize())
    for line in _draw_bar(it, zone):
        terminal.print_line(line)
    terminal.print_table(
        ("from", "to", "length", "counted", "reason"), (_build_segment_row(segment, zone) for segment in it.segments)
    )
    terminal.print_line(_format_sum(it))
    _print_title("Due because")
    columns = ("at", "because", "judged as", "target", "used", "left", "due")
    terminal.print_table(columns, (_build_step_row(step, zone) for step in it.steps))
    terminal.print_line(_describe_verdict(it, zone))


def _format_sum(it: ClockExplanation) -> str:
    counted = [format_exactly(segment.end - segment.start) for segment in it.segments if segment.counted]
    terms = " + ".join(counted) if len(counted) <= MAX_TERMS else f"the {len(counted)} that count"
    return f"{terms or 'none'} = {format_exactly(it.elapsed)} used"


def format_exactly(length: timedelta) -> str:
    """Format a span with the fraction of the second if there is one: what is added up here must add up."""
    fraction = f".{length.microseconds:06}".rstrip("0") if length.microseconds else ""
    return format_span(length).removesuffix("s") + fraction + "s"


def _build_segment_row(segment: TimeSegment, zone: str) -> tuple[str, ...]:
    return (
        format_wall_time(segment.start, zone),
        format_wall_time(segment.end, zone),
        format_exactly(segment.end - segment.start),
        "yes" if segment.counted else "no",
        f"{segment.reason} (overdue)" if segment.overdue else segment.reason,
    )


def _build_step_row(step: DeadlineStep, zone: str) -> tuple[str, ...]:
    phase = step.phase
    return (
        format_wall_time(step.at, zone),
        step.cause.replace("_", " "),
        f"{phase.labels.service_level.name} {phase.labels.priority}, policy {phase.policy.version}",
        *(format_span(span) for span in (phase.target, step.used, step.remaining)),
        format_wall_time(phase.due_at, zone) if phase.running else "stands still",
    )


def _describe_verdict(it: ClockExplanation, zone: str) -> str:
    """Return how a clock ended, or stands, on one line."""
    clock, ended_by = it.clock, it.ended_by
    used = f"{format_span(it.elapsed)} of {format_span(clock.phase.target)} used"
    ended = (
        f"{ended_by.data.type.removeprefix('ticket.')} {format_wall_time(ended_by.time, zone)}" if ended_by else None
    )
    if it.met is not None:
        return f"{ended}, {used}: " + ("in time" if it.met else f"late by {format_span(it.overdue)}")
    broken = f"broken {format_wall_time(clock.broken_at, zone)}" if clock.broken_at else None
    if ended or broken:
        return ", ".join(filter(None, (broken, ended, used)))
    return f"{used}, {format_span(it.remaining)} left"


def _draw_bar(it: ClockExplanation, zone: str) -> Iterator[str]:
    """Yield cells of equal length on the wall clock, each with the mark of what is in it; and where it is due."""
    start, due_at = it.clock.started_at, it.clock.phase.due_at
    end = max([start, due_at, *(segment.end for segment in it.segments)])
    cell = (end - start) / BAR_CELLS
    if cell:
        cells = (_choose_mark(it.segments, start + n * cell, start + (n + 1) * cell) for n in range(BAR_CELLS))
        yield "".join(cells) + "│"
        yield f"{' ' * min(int((due_at - start) / cell), BAR_CELLS)}↑ due {format_wall_time_briefly(due_at, zone)}"
        yield "  ".join(f"{mark} {what}" for what, mark in MARKS.items() if mark.strip())


def _choose_mark(segments: Sequence[TimeSegment], start: datetime, end: datetime) -> str:
    """Return the mark of a cell: any time that counts is shown, however short."""
    within = [segment for segment in segments if segment.start < end and segment.end > start]
    counted = [segment for segment in within if segment.counted]
    if counted:
        return MARKS["overdue" if all(segment.overdue for segment in counted) else "counted"]
    return MARKS["not counted" if within else "to come"]
