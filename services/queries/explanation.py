"""What `sla explain` says of a ticket, for programs and for people. Why it is so is in sla/explain.py."""

from datetime import UTC, datetime, timedelta
from typing import Any

from events.promises import to_seconds
from services.queries import point_in_time as past
from services.queries import ticket_status as reading
from services.store.interface import Store
from sla.explain import ClockExplanation, DeadlineStep, DecisionEntry, FactEntry, TimeSegment, explain
from sla.log import Announced

Json = dict[str, Any]

_OF_ALL = frozenset(Announced.__struct_fields__)


def build_explanation(
    store: Store,
    ticket: str,
    as_of: datetime | None = None,
    known_at: datetime | None = None,
    now: datetime | None = None,
) -> Json | None:
    """
    All there is to say of a ticket, as JSON has it: instants in UTC, spans in seconds of support time. None if nothing
    is known of it. Raises ValueError for a `known_at` that lies ahead, NothingKnownError for a time before its first
    event.
    """
    when = past.PointInTime(as_of, known_at, now or datetime.now(UTC)).check()
    known = past.read_known_history(store, ticket, when)
    if known is None:
        return None
    versions = store.read_versions()
    found = when.replay_ticket(known, versions)
    standing = reading.build_ticket_status(found, versions, when)
    told = explain(found.facts, [recorded.event for recorded in known], versions, when.at)
    policy = standing.policy or versions.get_in_force(when.at)
    return {
        "ticket_id": ticket,
        "at": when.at,
        "as_of": as_of,
        "known_at": known_at,
        "zone": policy.zone,
        "policy": policy.name,
        "customer": standing.state.customer,
        "word": standing.get_label(when.at),
        "standing": standing.to_json(when.at),
        "facts": [_describe_fact(each) for each in told.facts],
        "decisions": [_describe_decision(each) for each in told.decisions],
        "clocks": [_describe_clock(account) for account in told.clocks],
    }


def _describe_fact(learned: FactEntry) -> Json:
    fact, told, out_of_order = learned
    return {
        "type": fact.data.type,
        "source": fact.source,
        "id": fact.id,
        "time": fact.time,
        "recorded_at": told.at,
        "delay_seconds": to_seconds(max(told.at - told.time, timedelta(0))),
        "out_of_order": out_of_order,
        "data": fact.data.model_dump(mode="json", exclude_defaults=True),
        "corrected_by": fact.corrected_by,
        "told": None if fact.corrected_by is None else {"time": told.time, "data": told.data},
    }


def _describe_decision(decided: DecisionEntry) -> Json:
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
        "target_seconds": None if state.target is None else to_seconds(state.target),
        "elapsed_seconds": to_seconds(decision.elapsed) if isinstance(decision, Announced) else None,
        "withdrawn_at": decided.retracted_at,
        "details": dict(_convert_value(name, value) for name, value in details.items()),
    }


def _convert_value(name: str, value: object) -> tuple[str, object]:
    return (f"{name}_seconds", to_seconds(value)) if isinstance(value, timedelta) else (name, value)


def _describe_clock(account: ClockExplanation) -> Json:
    clock, ended_by = account.clock, account.ended_by
    stretch, applies = clock.phase, clock.excluded_by is None
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
        "target_seconds": to_seconds(stretch.target),
        "elapsed_seconds": to_seconds(account.elapsed),
        "remaining_seconds": to_seconds(max(stretch.target - account.elapsed, timedelta(0))),
        "due_at": stretch.due_at,
        "broken_at": clock.broken_at,
        "met": clock.met if applies else None,
        "overdue_seconds": to_seconds(clock.overdue) if applies and clock.overdue is not None else None,
        "segments": [_describe_segment(part) for part in account.segments],
        "steps": [_describe_step(step) for step in account.steps],
        "thresholds": [
            {"percent": percent, "at": stretch.find_threshold(percent)}
            for percent in stretch.policy.warn_at
            if stretch.running
        ],
    }


def _describe_segment(part: TimeSegment) -> Json:
    return {
        "from": part.start,
        "to": part.end,
        "counted": part.counted,
        "overdue": part.overdue,
        "reason": part.reason,
        "seconds": to_seconds(part.end - part.start),
        "service_level": part.phase.level.name,
        "policy_version": part.phase.policy.version,
    }


def _describe_step(step: DeadlineStep) -> Json:
    stretch = step.phase
    return {
        "at": step.at,
        "cause": str(step.cause),
        "facts": [fact.asserted_by for fact in step.facts],
        "service_level": stretch.labels.service_level.name,
        "priority": stretch.labels.priority,
        "policy_version": stretch.policy.version,
        "judged_as": stretch.level.name,
        "target_seconds": to_seconds(stretch.target),
        "used_seconds": to_seconds(step.used),
        "remaining_seconds": to_seconds(step.remaining),
        "due_at": stretch.due_at,
        "running": stretch.running,
    }
