"""The rules of the policy as scenarios: given, when, then; one module a rule, in the order of docs/policy.md."""

from typing import NamedTuple

from tests.scenarios import (
    before_opening,
    breaches,
    channels,
    closing_answers,
    closings,
    corrections,
    days,
    due,
    duplicates,
    escalations,
    exclusions,
    first_response,
    kept,
    late_arriving,
    no_promise,
    opened_twice,
    order,
    pauses,
    priority,
    reminders,
    service_level,
    target_hours,
    ticks,
    updates,
    versions,
    warnings,
    withdrawals,
)
from tests.scenarios.scenario import Scenario

# November 2025 in Stockholm: Monday is the 3rd, no holidays. Critical, serious, minor are 4, 8, 24 h in Foundation,
# Mon-Fri 09:00-18:00; 1, 4, 12 h in Professional, Mon-Fri 08:00-22:00; 2, 4, 8 h in Enterprise, every day, all day.


class Rule(NamedTuple):
    """A section of docs/policy.md: the number of the rule, its title, and the scenarios that show it."""

    number: int
    title: str
    scenarios: tuple[Scenario, ...]


RULES = (
    Rule(1, "Due and met", due.SCENARIOS),
    Rule(1, "Targets by days", days.SCENARIOS),
    Rule(2, "Broken", breaches.SCENARIOS),
    Rule(3, "Only a tick breaks a promise", ticks.SCENARIOS),
    Rule(4, "Priority changed", priority.SCENARIOS),
    Rule(5, "First response wins", first_response.SCENARIOS),
    Rule(6, "Late-arriving facts", late_arriving.SCENARIOS),
    Rule(7, "Before opened", before_opening.SCENARIOS),
    Rule(8, "Opened twice", opened_twice.SCENARIOS),
    Rule(9, "Duplicates", duplicates.SCENARIOS),
    Rule(10, "Escalated", escalations.SCENARIOS),
    Rule(11, "Order does not matter", order.SCENARIOS),
    Rule(12, "Warnings", warnings.SCENARIOS),
    Rule(12, "Reminders", reminders.SCENARIOS),
    Rule(13, "Versions of the policy", versions.SCENARIOS),
    Rule(14, "Service level changed", service_level.SCENARIOS),
    Rule(14, "Hours of one target", target_hours.SCENARIOS),
    Rule(14, "No promise", no_promise.SCENARIOS),
    Rule(14, "Closed and reopened", closings.SCENARIOS),
    Rule(14, "Excluded", exclusions.SCENARIOS),
    Rule(14, "Paused and resumed", pauses.SCENARIOS),
    Rule(14, "Updates", updates.SCENARIOS),
    Rule(14, "Corrected", corrections.SCENARIOS),
    Rule(14, "Withdrawn", withdrawals.SCENARIOS),
    Rule(14, "Channels", channels.SCENARIOS),
    Rule(15, "Answer and close with one button", closing_answers.SCENARIOS),
    Rule(16, "Kept", kept.SCENARIOS),
)

SCENARIOS = tuple(scenario for rule in RULES for scenario in rule.scenarios)
