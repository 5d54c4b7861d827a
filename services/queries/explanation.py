"""The explanation of a ticket as it was at a point in time, typed and as JSON. Why it is so is in sla/explain.py."""

from datetime import timedelta
from typing import Any, NamedTuple

from events.promises import to_seconds
from services.queries.point_in_time import PointInTime, read_known_history
from services.queries.ticket_status import TicketStatus, build_ticket_status, convert_to_seconds
from services.store.interface import Store
from sla.explain import ClockExplanation, DeadlineStep, DecisionEntry, FactEntry, TimeSegment, explain
from sla.judge import Fact
from sla.log import Announced, AnnouncedEvent, StateUpdated
from sla.policy import Policy

Json = dict[str, Any]

_COMMON_FIELDS = frozenset(Announced.__struct_fields__)


class TicketExplanation(NamedTuple):
    """
    A ticket at a point in time: its status, its policy (while it is pending, the one in force then), and why it is so.
    The first of the clocks is that of the first response; a pending ticket has none.
    """

    when: PointInTime
    status: TicketStatus
    policy: Policy
    facts: tuple[FactEntry, ...]
    decisions: tuple[DecisionEntry, ...]
    clocks: tuple[ClockExplanation, ...]

    @property
    def ticket(self) -> str:
        return self.status.first.ticket

    @property
    def label(self) -> str:
        """The stage as people say it."""
        return self.status.first.get_label(self.when.at)

    def to_json(self) -> Json:
        """Return all of it (services/board/openapi.yaml): instants in UTC, spans in seconds of support time."""
        return {
            "ticket_id": self.ticket,
            "at": self.when.at,
            "as_of": self.when.as_of,
            "known_at": self.when.known_at,
            "zone": self.policy.zone,
            "policy": self.policy.name,
            "customer": self.status.first.state.customer,
            "word": self.label,
            "standing": self.status.to_json(self.when.at),
            "facts": [_encode_fact(entry) for entry in self.facts],
            "decisions": [_encode_decision(entry) for entry in self.decisions],
            "clocks": [_encode_clock(clock) for clock in self.clocks],
        }


def explain_ticket(store: Store, ticket: str, when: PointInTime) -> TicketExplanation | None:
    """
    Explain a ticket, replayed once from its events; None if nothing is known of it. Raises NothingKnownError for a
    time before its first event.
    """
    known = read_known_history(store, ticket, when)
    if known is None:
        return None
    versions = store.read_versions()
    found = when.replay_ticket(known, versions)
    status = build_ticket_status(found, versions, when)
    policy = status.first.policy or versions.get_in_force(when.at)
    reasons = explain(found.facts, [recorded.event for recorded in known], versions, when.at)
    return TicketExplanation(when, status, policy, reasons.facts, reasons.decisions, reasons.clocks)


def list_details(fact: Fact) -> Json:
    """Return what a fact says, by name, without what it leaves out."""
    return fact.data.model_dump(mode="json", exclude_defaults=True)


# ---- as JSON


def _encode_fact(entry: FactEntry) -> Json:
    fact, original = entry.fact, entry.original
    return {
        "type": fact.data.type,
        "source": fact.source,
        "id": fact.id,
        "time": fact.time,
        "recorded_at": original.at,
        "delay_seconds": to_seconds(entry.delay),
        "out_of_order": entry.out_of_order,
        "data": list_details(fact),
        "corrected_by": fact.corrected_by,
        "withdrawn_by": fact.withdrawn_by,
        "told": None if fact.corrected_by is None else {"time": original.time, "data": original.data},
    }


def _encode_decision(entry: DecisionEntry) -> Json:
    decision, state = entry.decision, entry.decision.state
    return {
        "at": decision.at,
        **_encode_announcement(decision),
        "objective": decision.objective,
        "cycle": decision.cycle,
        "stage": state.stage,
        "service_level": state.service_level,
        "priority": state.priority,
        "due_at": state.due_at,
        "target_seconds": convert_to_seconds(state.target),
        "elapsed_seconds": None if isinstance(decision, StateUpdated) else to_seconds(decision.elapsed),
        "withdrawn_at": entry.retracted_at,
        "details": {} if isinstance(decision, StateUpdated) else _encode_details(decision),
    }


def _encode_announcement(decision: StateUpdated | AnnouncedEvent) -> Json:
    if isinstance(decision, StateUpdated):
        return {"kind": "state_updated", "time": decision.at, "cause": None, "cause_id": None, "id": None}
    return {"kind": decision.KIND} | {name: getattr(decision, name) for name in ("time", "cause", "cause_id", "id")}


def _encode_details(event: AnnouncedEvent) -> Json:
    """Return the fields that only this kind of announcement has."""
    details: Json = {}
    for name in event.__struct_fields__:
        if name not in _COMMON_FIELDS:
            value = getattr(event, name)
            details |= {f"{name}_seconds": to_seconds(value)} if isinstance(value, timedelta) else {name: value}
    return details


def _encode_clock(it: ClockExplanation) -> Json:
    clock, phase, ended_by = it.clock, it.clock.phase, it.ended_by
    return {
        "objective": it.objective,
        "cycle": it.cycle,
        "started_at": clock.started_at,
        "ended_at": None if ended_by is None else ended_by.time,
        "ended_by": None if ended_by is None else ended_by.data.type.removeprefix("ticket."),
        "running": clock.running,
        "service_level": clock.service_level.name,
        "priority": clock.priority,
        "policy_version": phase.policy.version,
        "target_seconds": to_seconds(phase.target),
        "elapsed_seconds": to_seconds(it.elapsed),
        "remaining_seconds": to_seconds(it.remaining),
        "due_at": phase.due_at,
        "broken_at": clock.broken_at,
        "met": it.met,
        "overdue_seconds": convert_to_seconds(it.overdue),
        "segments": [_encode_segment(segment) for segment in it.segments],
        "steps": [_encode_step(step) for step in it.steps],
        "thresholds": [{"threshold": str(each), "percent": each.percent, "at": at} for each, at in it.thresholds],
    }


def _encode_segment(segment: TimeSegment) -> Json:
    return {
        "from": segment.start,
        "to": segment.end,
        "counted": segment.counted,
        "overdue": segment.overdue,
        "reason": segment.reason,
        "seconds": to_seconds(segment.end - segment.start),
        "service_level": segment.phase.level.name,
        "policy_version": segment.phase.policy.version,
    }


def _encode_step(step: DeadlineStep) -> Json:
    phase = step.phase
    return {
        "at": step.at,
        "cause": str(step.cause),
        "facts": [fact.asserted_by for fact in step.facts],
        "service_level": phase.labels.service_level.name,
        "priority": phase.labels.priority,
        "policy_version": phase.policy.version,
        "judged_as": phase.level.name,
        "target_seconds": to_seconds(phase.target),
        "used_seconds": to_seconds(step.used),
        "remaining_seconds": to_seconds(step.remaining),
        "due_at": phase.due_at,
        "running": phase.running,
    }
