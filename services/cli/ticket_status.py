"""The rows of `sla show` and `sla list`, for people. What there is to say of a ticket, queries know."""

from datetime import datetime

from services.queries.ticket_status import TicketStatus
from services.text.formats import format_span, format_time_left, format_wall_time, format_wall_time_briefly
from sla.log import State

LIST_COLUMNS = ("ticket", "state", "level", "priority", "due", "left")
"""Those of `sla list`."""


def list_fields(status: TicketStatus, now: datetime) -> list[tuple[str, str]]:
    """Return what `sla show` prints, name and value; wall times are those of the policy's zone."""
    state, policy = status.state, status.policy
    zone = policy.zone if policy else None
    return [
        ("ticket", status.ticket),
        ("state", status.get_label(now)),
        ("service level", state.service_level or "-"),
        ("priority", state.priority or "-"),
        ("opened", format_wall_time(state.started_at, zone)),
        ("due", format_wall_time(state.due_at, zone)),
        ("time left", format_time_left(status.measure_left(now))),
        ("target", format_span(state.target)),
        ("used", format_span(status.measure_elapsed(now))),
        ("breached", format_wall_time(state.breached_at, zone)),
        ("responded", format_wall_time(state.responded_at, zone)),
        ("overdue", format_span(state.overdue)),
        ("escalations", str(state.escalation_level)),
        ("policy", f"{policy.name} {state.policy_version}" if policy else "-"),
        ("facts", str(status.facts)),
        ("look at", ", ".join(state.flags) or "-"),
        *([("quarantined", status.quarantined.error)] if status.quarantined else []),
        *((f"{each.objective} {each.cycle}", _format_objective(each.state, zone)) for each in status.others),
    ]


def _format_objective(state: State, zone: str | None) -> str:
    outcome = state.stage if state.met is None else "met" if state.met else "late"
    broken = ", breached" if state.breached_at is not None and state.met is None else ""
    return f"{outcome}{broken}, due {format_wall_time(state.due_at, zone)}"


def build_row(status: TicketStatus, now: datetime) -> tuple[str, ...]:
    """Return the line of `sla list`, in the order of LIST_COLUMNS."""
    state, zone = status.state, status.policy.zone if status.policy else None
    return (
        status.ticket,
        status.get_label(now),
        state.service_level or "-",
        state.priority or "-",
        format_wall_time_briefly(state.due_at, zone),
        format_time_left(status.measure_left(now)),
    )
