"""Words: what a person is told of an announcement, as a line and as a few sentences. Whom to tell is not in here."""

from datetime import UTC, datetime, timedelta

from events.promises import Announcement, SlaBreached, SlaBreachRetracted, SlaCancelled, SlaEscalated, SlaFulfilled


def make_title(event: Announcement) -> str:
    """What happened to which ticket, in one line."""
    match event.data:
        case SlaBreached():
            what = "SLA breached"
        case SlaBreachRetracted():
            what = "SLA breach withdrawn"
        case SlaFulfilled(met=met):
            what = "Answered in time" if met else "Answered late"
        case SlaCancelled():
            what = "Nobody waits any more"
        case SlaEscalated():
            what = "Escalated"
        case other:
            what = other.type
    return _line(f"{what}: {event.ticket} ({event.data.service_level}, {event.data.priority})")


def make_body(event: Announcement, now: datetime) -> str:
    """What is known, and what to do."""
    return _line(f"{_describe(event, now)} `sla show {event.ticket}` has the whole story.")


def _describe(event: Announcement, now: datetime) -> str:
    promise = event.data.objective.replace("_", " ").capitalize()
    due = f"{promise} due {_format_time(event.data.due_at)}"
    match event.data:
        case SlaBreached(due_at=due_at):
            return f"{due}, {_format_length(now - due_at)} ago. Answer the customer: that ends the alert."
        case SlaBreachRetracted(breached_at=at, reason=reason):
            return f"The breach of {_format_time(at)} turned out to be untrue: {reason.replace('_', ' ')}."
        case SlaFulfilled(responded_at=at, overdue_seconds=seconds):
            late = _format_length(timedelta(seconds=seconds))
            return f"{due}, given {_format_time(at)}: {late} of support time too late."
        case SlaCancelled(reason=reason):
            return f"{due}; the clock ended without an answer: {reason}."
        case SlaEscalated(tell=tell, reason=reason):
            return f"For {', '.join(tell)}: {reason or 'no reason was given'}. {due}."
        case _:
            return f"{due}."


def _format_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _format_length(span: timedelta) -> str:
    hours, minutes = divmod(int(span.total_seconds() // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _line(text: str) -> str:
    """Names and reasons come from publishers: nothing in them ends a line, of a mail's header for one."""
    return "".join(c if c.isprintable() else " " for c in text)
