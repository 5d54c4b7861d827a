"""Phrases: what an announcement is called, and the sentences about it, on every surface. Who gets it is not in here.

One more announcement is asked for by the type checker in each match of this module, and nowhere else that has words.
"""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple, assert_never

from events.cloudevents import quote_value
from events.promises import (
    Announcement,
    AnnouncementData,
    SlaApplied,
    SlaBreached,
    SlaBreachRetracted,
    SlaCancelled,
    SlaEscalated,
    SlaFulfilled,
    SlaOverdue,
    SlaTargetChanged,
    SlaWarning,
)
from services.text.formats import format_span, format_utc, format_wall_time_briefly
from sla.log import (
    AnnouncedEvent,
    Applied,
    Breached,
    BreachRetracted,
    Cancelled,
    EscalationRaised,
    Fulfilled,
    ReminderRaised,
    StateUpdated,
    TargetChanged,
    WarningRaised,
)
from sla.targets import BEFORE

Tone = Literal["late", "risk", "ok", "plain"]
"""How bad it is: the class of the board's style sheet, which has its colour."""


class Wording(NamedTuple):
    """
    What an announcement is called: `phrase` in a list of news, `title` at the head of a notification, `label` in the
    demo, which only counts those that have none. `decision` is the phrase in the history of its ticket, if it is
    another one there, beside the cause.
    """

    phrase: str
    title: str
    tone: Tone
    label: str | None = None
    decision: str | None = None


def choose_wording(event: AnnouncementData | AnnouncedEvent) -> Wording:
    """Return what an announcement is called, be it a message of the stream SLA or the decision in the log."""
    match event:
        case SlaApplied() | Applied():
            return Wording("clock started", "sla.applied", "plain")
        case SlaTargetChanged() | TargetChanged():
            return Wording("deadline moved", "sla.target_changed", "plain")
        case SlaWarning(threshold=threshold) | WarningRaised(threshold=threshold):
            return Wording(_write_threshold(threshold), "sla.warning", "risk")
        case SlaBreached(detection="historic") | Breached(detection="historic"):
            return Wording("breached long ago", "SLA breached", "late", "breach", decision="breached")
        case SlaBreached() | Breached():
            return Wording("breached", "SLA breached", "late", "breach")
        case SlaOverdue() | ReminderRaised():
            return Wording("still broken", "SLA still broken", "late")
        case SlaBreachRetracted() | BreachRetracted():
            return Wording("breach withdrawn", "SLA breach withdrawn", "ok", "breach withdrawn")
        case SlaFulfilled(met=True, cause="closed") | Fulfilled(met=True, cause="closed"):
            return Wording("closed in time", "Closed in time", "ok")
        case SlaFulfilled(cause="closed") | Fulfilled(cause="closed"):
            return Wording("closed late", "Closed late", "late", "late closing")
        case SlaFulfilled(met=True) | Fulfilled(met=True):
            return Wording("answered in time", "Answered in time", "ok")
        case SlaFulfilled() | Fulfilled():
            return Wording("answered late", "Answered late", "late", "late answer")
        case SlaCancelled(reason=reason) | Cancelled(reason=reason):
            return Wording(f"ended: {reason}", "Nobody waits any more", "plain", decision="cancelled")
        case SlaEscalated() | EscalationRaised():
            return Wording("escalated", "Escalated", "risk")
        case _:
            assert_never(event)


def _write_threshold(threshold: str) -> str:
    return threshold if threshold.endswith(BEFORE) else threshold.replace("%", " % used")


# ---- on the board


def write_news(event: AnnouncedEvent) -> str:
    """Return an announced event in a few words, with the promise that it is about."""
    return _add_promise(event, choose_wording(event).phrase)


def write_decision(decision: StateUpdated | AnnouncedEvent) -> str:
    """Return a decision in a few words, for the history of its ticket."""
    if isinstance(decision, StateUpdated):
        return _add_promise(decision, "state updated")
    wording = choose_wording(decision)
    return _add_promise(decision, wording.decision or wording.phrase)


def _add_promise(decision: StateUpdated | AnnouncedEvent, text: str) -> str:
    """Put the promise before it; an escalation is of the ticket."""
    if isinstance(decision, EscalationRaised):
        return text
    return f"{name_promise(decision.objective, decision.cycle)}: {text}"


def name_promise(objective: str, cycle: int) -> str:
    """Return `first response`, `next response 2`: the number is that of a cycle after the first."""
    name = objective.replace("_", " ")
    return name if cycle == 1 else f"{name} {cycle}"


def name_fact(type: str) -> str:
    """Return `priority changed` for `ticket.priority_changed`."""
    return type.removeprefix("ticket.").replace("_", " ")


# ---- on a terminal


def write_note(event: AnnouncedEvent, zone: str) -> str | None:
    """Return what `sla explain` says of a decision beside its kind; times in the zone, cut to the minute."""
    match event:
        case Applied(state=state) | Breached(state=state):
            return f"due {format_wall_time_briefly(state.due_at, zone)}"
        case TargetChanged(state=state, old_due_at=old):
            return (
                f"due {format_wall_time_briefly(state.due_at, zone)} instead of {format_wall_time_briefly(old, zone)}"
            )
        case WarningRaised(threshold=threshold):
            return _write_threshold(threshold)
        case ReminderRaised(after=after):
            return f"unanswered {format_span(after)} after the deadline"
        case Fulfilled(met=met, overdue=overdue):
            return "in time" if met else f"late by {format_span(overdue)}"
        case BreachRetracted() | Cancelled() | EscalationRaised():
            return None
        case _:
            assert_never(event)


def write_details(data: AnnouncementData) -> str:
    """Return what `sla watch` says of an announcement beside kind, level, priority and ticket; times in UTC."""
    match data:
        case SlaBreached(severity=severity, detection=detection, number=number):
            return f"severity {severity}, {detection}" + (f", number {number}" if number != 1 else "")
        case SlaOverdue(severity=severity, after_seconds=after):
            return f"severity {severity}, {after} s of support time after the deadline"
        case SlaBreachRetracted(reason=reason, breached_at=at):
            return f"of {format_utc(at)}, {reason}"
        case SlaWarning(threshold=threshold, due_at=due_at):
            return f"{_write_threshold(threshold)}, due {format_utc(due_at)}"
        case SlaFulfilled(met=met, overdue_seconds=overdue):
            return "met" if met else f"late by {overdue} s of support time"
        case SlaEscalated(tell=tell, reason=reason):
            return f"tell {', '.join(tell)}" + (f": {quote_value(reason)}" if reason else "")
        case SlaApplied(due_at=due_at) | SlaTargetChanged(due_at=due_at) | SlaCancelled(due_at=due_at):
            return f"due {format_utc(due_at)}"
        case _:
            assert_never(data)


# ---- in a notification


def write_title(event: Announcement) -> str:
    """Return what happened to which ticket, in one line."""
    data = event.data
    return _remove_controls(f"{choose_wording(data).title}: {event.ticket} ({data.service_level}, {data.priority})")


def write_body(event: Announcement, now: datetime, zone: str) -> str:
    """Return what is known, and what to do, in one line; times in the zone, cut to the minute."""
    return _remove_controls(f"{_write_sentence(event.data, now, zone)} `sla show {event.ticket}` has the whole story.")


REMEDIES = {
    "first_response": "Answer the customer",
    "next_response": "Answer the customer",
    "resolution": "Solve it and close the ticket",
}
"""What ends the breach of an objective, by its usual name."""


def _write_sentence(data: AnnouncementData, now: datetime, zone: str) -> str:
    promise = data.objective.replace("_", " ").capitalize()
    due = f"{promise} due {format_wall_time_briefly(data.due_at, zone)}"
    match data:
        case SlaBreached(due_at=due_at):
            remedy = REMEDIES.get(data.objective, "Do what was promised")
            return f"{due}, {_format_length(now - due_at)} ago. {remedy}: that ends the alert."
        case SlaOverdue(after_seconds=seconds):
            late = _format_length(timedelta(seconds=seconds))
            remedy = REMEDIES.get(data.objective, "Do what was promised")
            return f"{due}, and still open {late} of support time later. {remedy}."
        case SlaBreachRetracted(breached_at=at, reason=reason):
            breach = f"The breach of {format_wall_time_briefly(at, zone)}"
            return f"{breach} turned out to be untrue: {reason.replace('_', ' ')}."
        case SlaFulfilled(fulfilled_at=at, overdue_seconds=seconds):
            late = _format_length(timedelta(seconds=seconds))
            done = "closed" if data.cause == "closed" else "answered"
            return f"{due}, {done} {format_wall_time_briefly(at, zone)}: {late} of support time too late."
        case SlaCancelled(reason=reason):
            return f"{due}; the clock ended unfulfilled: {reason}."
        case SlaEscalated(tell=tell, reason=reason):
            return f"For {', '.join(tell)}: {reason or 'no reason was given'}. {due}."
        case SlaApplied() | SlaTargetChanged() | SlaWarning():
            return f"{due}."
        case _:
            assert_never(data)


def _format_length(length: timedelta) -> str:
    hours, minutes = divmod(int(length.total_seconds() // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _remove_controls(text: str) -> str:
    """Put a blank for what is not printable: names and reasons are from publishers, and may not end a mail's header."""
    return "".join(c if c.isprintable() else " " for c in text)
