"""A policy of an update every four hours, or a response to every message; and a naive oracle of their cycles."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.scenarios.scenario import Fact
from tests.support.words import read_policy

UPDATES = """\
name: updates
version: "2026-01"
zone: Europe/Stockholm
holidays: none
warn_at: [75%]
objectives:
  update: {starts: responded, stops: responded, repeats: true}
  each_response: {starts: [opened, customer_replied], stops: responded, repeats: true}
priorities:
  critical: {severity: critical}
  serious: {severity: error}
levels:
  gold:
    hours: {daily: ["00:00-24:00"]}
    targets: {critical: 4h, serious: 4h}
    objectives:
      update: {critical: 4h, serious: none}
      each_response: {critical: none, serious: 4h}
"""

POLICY = read_policy(UPDATES)
CLOSING_ANSWER = timedelta(minutes=1)


@dataclass
class Walked:
    """A cycle: when it starts and stops, and for how long somebody waited in it."""

    started_at: datetime
    stopped_at: datetime | None = None
    used: timedelta = timedelta(0)


def walk(told: Sequence[Fact], objective: str, until: datetime) -> list[Walked]:
    """
    Walk from one fact to the next, at most one an instant, the opening first: no hours, no changes of priority. A reply
    to a closed ticket goes on waiting in a cycle that a reply started.
    """
    facts = sorted(told, key=lambda fact: fact.time)
    cycles: list[Walked] = [] if objective == "update" else [Walked(facts[0].time)]
    running, closed_at, ticket_closed_at = cycles[0] if cycles else None, None, None
    for fact, end in zip(facts, [*(fact.time for fact in facts[1:]), until], strict=True):
        now = fact.time
        if fact.kind == "closed":
            closed_at, ticket_closed_at = closed_at or now, ticket_closed_at or now
        elif fact.kind == "reopened":
            closed_at = ticket_closed_at = None
        elif fact.kind == "customer_replied" and objective == "each_response" and cycles[-1].stopped_at:
            closed_at, running = None, Walked(now)
            cycles.append(running)
        elif fact.kind == "customer_replied" and objective == "each_response" and len(cycles) > 1:
            closed_at = None
        elif fact.kind == "responded" and (closed_at is None or now - closed_at <= CLOSING_ANSWER):
            if running is not None:
                running.stopped_at = now
                running.used += timedelta(0) if closed_at is None else now - max(closed_at, running.started_at)
                running, closed_at = None, ticket_closed_at
            if objective == "update":
                running = Walked(now)
                cycles.append(running)
        if running is not None and closed_at is None:
            running.used += end - now
    return cycles
