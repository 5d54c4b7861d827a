"""An example of every message, in and out: the life of ticket T-1001. For the schemas, the documents and the tests."""

from typing import Any

from events.promises import (
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
    make_event_id,
)
from events.tickets import (
    Closed,
    Corrected,
    CustomerReplied,
    DetailsChanged,
    Escalated,
    Excluded,
    ExclusionRevoked,
    FactWithdrawn,
    Opened,
    Paused,
    PolicyChanged,
    PriorityChanged,
    Reopened,
    Responded,
    Resumed,
    ServiceLevelChanged,
    TicketData,
)

Example = dict[str, Any]


def _make_ticket_example(data_type: type[TicketData], event_id: str, time: str, /, **data: str) -> Example:
    return {
        "specversion": "1.0",
        "type": data_type.type,
        "source": "/helpdesk/acme",
        "id": event_id,
        "subject": "T-1001",
        "time": time,
        "datacontenttype": "application/json",
        "data": data,
    }


def _make_sla_example(
    data_type: type[AnnouncementData], number: int, revision: int, time: str, /, **data: Any
) -> Example:
    """Make an announcement of a clock of four hours, from Friday 17:00 to Monday 12:00 in Stockholm."""
    clock = {
        "ticket_id": "T-1001",
        "objective": "first_response",
        "cycle": 1,
        "service_level": "foundation",
        "priority": "critical",
        "policy_version": "2026-01",
        "started_at": "2026-11-20T16:00:00Z",
        "due_at": "2026-11-23T11:00:00Z",
        "target_seconds": 14400,
        "elapsed_seconds": 14400,
        "escalation_level": 0,
        "cause": "deadline_passed",
        "cause_id": "fact-2",
        "detected_at": time,
        "customer": "Acme AB",
        "title": "The chat does not load",
        "url": "https://helpdesk.example/T-1001",
        "team": "web",
        "assignee": None,
    }
    return {
        "specversion": "1.0",
        "type": data_type.type,
        "source": "/sla",
        "id": _make_id(data_type, number, revision),
        "subject": "T-1001",
        "time": time,
        "datacontenttype": "application/json",
        "data": clock | data,
    }


def _make_id(data_type: type[AnnouncementData], number: int, revision: int) -> str:
    return make_event_id("T-1001", "first_response", 1, data_type.type.removeprefix("sla."), number, revision)


_BREACH = {
    "breach_id": _make_id(SlaBreached, 1, 1),
    "number": 1,
    "breached_at": "2026-11-23T11:00:00Z",
    "severity": "critical",
}

EXAMPLES: dict[str, Example] = {
    message["type"]: message
    for message in (
        _make_ticket_example(
            Opened,
            "fact-1",
            "2026-11-20T16:00:00Z",
            service_level="foundation",
            priority="serious",
            channel="email",
            customer="Acme AB",
            title="The chat does not load",
            url="https://helpdesk.example/T-1001",
            team="web",
        ),
        _make_ticket_example(DetailsChanged, "fact-15", "2026-11-25T16:00:00Z", assignee="Kim", team="chat"),
        _make_ticket_example(PriorityChanged, "fact-2", "2026-11-20T16:10:00Z", priority="critical"),
        _make_ticket_example(Responded, "fact-3", "2026-11-23T11:30:00.125381Z", by="agent", channel="email"),
        _make_ticket_example(
            Escalated, "fact-4", "2026-11-23T11:05:00Z", by="ticket", reason="The customer called the CEO."
        ),
        _make_ticket_example(ServiceLevelChanged, "fact-5", "2026-11-24T09:00:00Z", service_level="professional"),
        _make_ticket_example(Closed, "fact-6", "2026-11-24T12:00:00Z", reason="Solved."),
        _make_ticket_example(Reopened, "fact-7", "2026-11-25T08:00:00Z", reason="It came back."),
        _make_ticket_example(Excluded, "fact-8", "2026-11-25T09:00:00Z", reason="customer_environment"),
        _make_ticket_example(ExclusionRevoked, "fact-9", "2026-11-25T10:00:00Z", reason="customer_environment"),
        _make_ticket_example(Paused, "fact-10", "2026-11-25T11:00:00Z", reason="Waiting for logs."),
        _make_ticket_example(Resumed, "fact-11", "2026-11-25T12:00:00Z", reason="Logs are here."),
        _make_ticket_example(
            Corrected,
            "fact-12",
            "2026-11-25T13:00:00Z",
            corrects="fact-3",
            time="2026-11-23T10:30:00Z",
            reason="The answer was given by telephone an hour earlier.",
        ),
        _make_ticket_example(FactWithdrawn, "fact-16", "2026-11-25T17:00:00Z", withdraws="fact-14"),
        _make_ticket_example(CustomerReplied, "fact-14", "2026-11-25T15:00:00Z", channel="email"),
        _make_ticket_example(PolicyChanged, "fact-13", "2026-11-25T14:00:00Z", policy_version="2027-01"),
        _make_sla_example(
            SlaApplied,
            1,
            1,
            "2026-11-20T16:00:00Z",
            priority="serious",
            due_at="2026-11-23T15:00:00Z",
            target_seconds=28800,
            elapsed_seconds=0,
            cause="opened",
            cause_id="fact-1",
        ),
        _make_sla_example(
            SlaTargetChanged,
            1,
            1,
            "2026-11-20T16:10:00Z",
            elapsed_seconds=600,
            cause="priority_changed",
            cause_id="fact-2",
            old_due_at="2026-11-23T15:00:00Z",
            old_target_seconds=28800,
        ),
        _make_sla_example(
            SlaWarning,
            1,
            1,
            "2026-11-23T10:00:00Z",
            elapsed_seconds=10800,
            cause="threshold_reached",
            threshold="75%",
            threshold_percent=75,
        ),
        _make_sla_example(SlaBreached, 1, 1, "2026-11-23T11:00:00Z", **_BREACH, detection="live"),
        _make_sla_example(
            SlaOverdue,
            1,
            1,
            "2026-11-23T12:00:00Z",
            elapsed_seconds=18000,
            cause="still_broken",
            breach_id=_BREACH["breach_id"],
            severity="critical",
            after_seconds=3600,
        ),
        _make_sla_example(
            SlaEscalated,
            1,
            1,
            "2026-11-23T11:05:00Z",
            elapsed_seconds=14700,
            escalation_level=1,
            cause="escalated",
            cause_id="fact-4",
            tell=["support-escalation"],
            severity="critical",
            reason="The customer called the CEO.",
            escalated_at="2026-11-23T11:05:00Z",
        ),
        _make_sla_example(
            SlaBreachRetracted,
            1,
            1,
            "2026-11-25T13:00:00Z",
            elapsed_seconds=12600,
            escalation_level=1,
            cause="answered_in_time",
            cause_id="fact-12",
            **_BREACH,
            detection="live",
            reason="answered_in_time",
        ),
        _make_sla_example(
            SlaFulfilled,
            1,
            2,
            "2026-11-23T10:30:00Z",
            elapsed_seconds=12600,
            escalation_level=1,
            cause="responded",
            cause_id="fact-12",
            detected_at="2026-11-25T13:00:00Z",
            fulfilled_at="2026-11-23T10:30:00Z",
            fulfilled_by="responded",
            responded_at="2026-11-23T10:30:00Z",
            detection="live",
            met=True,
            overdue_seconds=0,
            revision=2,
            replaces=_make_id(SlaFulfilled, 1, 1),
        ),
        _make_sla_example(
            SlaCancelled,
            1,
            1,
            "2026-11-23T09:30:00Z",
            elapsed_seconds=9000,
            cause="closed",
            cause_id="fact-6",
            reason="closed",
            detection=None,
        ),
    )
}


def find_example(name: str) -> Example:
    """Return the example of a message type. Raises LookupError that says what to do if it has none."""
    try:
        return EXAMPLES[name]
    except KeyError:
        raise LookupError(f"{name} has no example; add one to events/examples.py") from None
