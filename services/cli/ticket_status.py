"""The rows of `sla show` and `sla list`, for people. What there is to say of a ticket, queries know."""

from datetime import datetime

from services.queries.ticket_status import PromiseStatus, TicketStatus
from services.text.formats import format_span, format_time_left, format_wall_time, format_wall_time_briefly
from sla.policy import FIRST_RESPONSE

LIST_COLUMNS = ("ticket", "objective", "state", "level", "priority", "due", "left")
"""Those of `sla list`."""


def list_fields(status: TicketStatus, now: datetime) -> list[tuple[str, str]]:
    """Return what `sla show` prints, name and value; wall times are those of the policy's zone."""
    first = status.first
    state, policy = first.state, first.policy
    zone = policy.zone if policy else None
    return [
        ("ticket", first.ticket),
        ("state", first.get_label(now)),
        ("service level", state.service_level or "-"),
        ("priority", state.priority or "-"),
        ("opened", format_wall_time(state.started_at, zone)),
        ("due", format_wall_time(state.due_at, zone)),
        ("time left", format_time_left(first.measure_left(now))),
        ("target", format_span(state.target)),
        ("used", format_span(first.measure_elapsed(now))),
        ("breached", format_wall_time(state.breached_at, zone)),
        ("responded", format_wall_time(state.responded_at, zone)),
        ("overdue", format_span(state.overdue)),
        ("escalations", str(state.escalation_level)),
        ("policy", f"{policy.name} {state.policy_version}" if policy else "-"),
        ("facts", str(first.facts)),
        ("look at", ", ".join(state.flags) or "-"),
        *([("quarantined", first.quarantined.error)] if first.quarantined else []),
        *((name_promise(each), format_promise(each, zone, now)) for each in status.others),
    ]


def name_promise(status: PromiseStatus) -> str:
    """Return the objective, and of one that may repeat its cycle."""
    _, objective, cycle = status.key
    return objective if objective == FIRST_RESPONSE else f"{objective} {cycle}"


def format_promise(each: PromiseStatus, zone: str | None, now: datetime) -> str:
    """Return a promise on one line: its stage, deadline, and what is used of its target."""
    state, label = each.state, each.get_label(now)
    if state.due_at is None:
        return label
    broken = ", breached" if state.kept is False and state.stage in ("cancelled", "paused") else ""
    used = f"{format_span(each.measure_elapsed(now))} of {format_span(state.target)} used"
    return f"{label}{broken}, due {format_wall_time(state.due_at, zone)}, {used}"


def build_row(status: PromiseStatus, now: datetime) -> tuple[str, ...]:
    """Return the line of `sla list`, in the order of LIST_COLUMNS."""
    state, zone = status.state, status.policy.zone if status.policy else None
    level, priority = state.judged
    return (
        status.ticket,
        name_promise(status),
        status.get_label(now),
        level or "-",
        priority or "-",
        format_wall_time_briefly(state.due_at, zone),
        format_time_left(status.measure_left(now)),
    )
