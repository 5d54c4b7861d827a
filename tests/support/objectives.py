"""Policies with objectives beside the first response, and a second version of them."""

from typing import Any

from sla.policy import Policy
from sla.versions import AFTER_ALL, BEFORE_ALL, Version, Versions
from tests.support.memory import POLICY

RULES: dict[str, dict[str, Any]] = {
    "next_response": {"starts": ("customer_replied",), "stops": "responded", "pauses": False, "repeats": True},
    "resolution": {"starts": ("opened",), "stops": "closed", "pauses": True, "repeats": False},
    "each_resolution": {"starts": ("opened",), "stops": "closed", "pauses": False, "repeats": True},
    "twin": {"starts": ("opened",), "stops": "responded", "pauses": False, "repeats": False},
    "update": {"starts": ("responded",), "stops": "responded", "pauses": True, "repeats": True},
    "each_response": {"starts": ("opened", "customer_replied"), "stops": "responded", "pauses": False, "repeats": True},
}
TIMES = {name: 4 if "resolution" in name else 1 for name in RULES}  # the targets of the first response


def with_objectives(*names: str) -> Policy:
    resolved = POLICY.to_resolved() | {"version": "objectives", "objectives": {name: RULES[name] for name in names}}
    for level in resolved["levels"]:
        level["objectives"] = {
            name: {priority: TIMES[name] * target for priority, target in level["targets"].items()} for name in names
        }
    return Policy.from_resolved(resolved)


ALL = with_objectives(*RULES)


def doubled(*names: str) -> Versions:
    """A policy of a next response and a resolution, and a version with doubled targets and the objectives named."""
    before, after = with_objectives("next_response", "resolution"), with_objectives(*names)
    resolved = after.to_resolved() | {"version": "doubled"}
    for level in resolved["levels"]:
        for targets in (level["targets"], *level["objectives"].values()):
            targets.update({priority: 2 * target for priority, target in targets.items()})
    later = Version(Policy.from_resolved(resolved), BEFORE_ALL, AFTER_ALL, material=True)
    return Versions([*Versions.only(before), later])
