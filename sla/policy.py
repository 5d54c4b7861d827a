"""The promise as values: levels, hours, targets, objectives. How a policy file is read is in policy_file.py.

`Policy.to_resolved()` is the whole promise as JSON, with the dates of all holidays written out: that is stored, and
`Policy.from_resolved` reads it without the file. Which instants count is in calendar.py, what was kept in judge.py.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from sla.calendar import JoinedHours, SupportHours
from sla.targets import DayRule, Target, Threshold, parse_target, parse_threshold

ResolvedJson = dict[str, Any]

NO_PROMISE = "none"
"""The target of a priority to which nothing is promised."""

FIRST_RESPONSE = "first_response"
"""The objective that every policy has; others are named by the policy."""

SEVERITIES = ("warning", "error", "critical")
"""How loud a breach is, lowest first; each escalation raises it by one step."""

RESOLVED_FORMAT = 1
"""The version of the JSON that `Policy.to_resolved` returns."""


class Objective(NamedTuple):
    """
    A clock of a ticket, as data. It starts with any of `starts`: the opening, a reply of the customer to an answer, or
    an answer, the one that stopped the clock before too. It stops with the first response after that, or when the
    ticket is closed. `pauses`: time between paused and resumed is left out. `repeats`: what starts it starts it again
    once it has stopped; a reopening does, if closing stops it.
    """

    name: str
    starts: tuple[str, ...]
    stops: str
    pauses: bool
    repeats: bool


@dataclass(frozen=True, eq=False)
class Level:
    """What is promised to one service level (docs/policy.md)."""

    name: str
    hours: SupportHours
    targets: Mapping[str, Target]
    """The target of the first response, by priority; none for one to which nothing is promised."""
    objectives: Mapping[str, Mapping[str, Target]]
    """The targets of every other objective, by its name and by priority, in the same way."""
    channels: Mapping[str, tuple[str, ...]]
    """The priorities each channel may be used for."""
    tell: tuple[str, ...]
    """Whom an escalation is announced to."""

    def offers_escalation(self, by: str | None) -> bool:
        """
        Return whether who has this level may escalate so: in the ticket always, through the account manager if that is
        whom an escalation is announced to, by mail if anybody else is. Policy section 9.
        """
        if by == "account_manager":
            return by in self.tell
        return by != "mailbox" or any(name != "account_manager" for name in self.tell)


@dataclass(frozen=True, eq=False)
class Policy:
    """One version of the promise; never edited once used. Two policies with one fingerprint judge alike."""

    name: str
    version: str
    zone: str
    priorities: tuple[str, ...]
    """Most urgent first."""
    severities: Mapping[str, str]
    """How loud a breach is before any escalation, by priority."""
    descriptions: Mapping[str, str]
    """What a priority is for, for people; by priority, for those that have one."""
    levels: Mapping[str, Level]
    warn_at: tuple[Threshold, ...]
    """When to warn; percents ascend."""
    remind_after: tuple[timedelta, ...]
    """Support time after a deadline at which to remind of a promise that is still broken, ascending."""
    objectives: Mapping[str, Objective]
    """What is promised beside hours and targets: the first response, and whatever else; by name."""
    closing_answer: timedelta
    """How long after a close an answer counts: helpdesks send both as two events (docs/architecture.md#rule-15)."""
    exclusions: tuple[str, ...]
    """The reasons for which a promise does not apply; none here means any."""
    fingerprint: str
    """SHA-256 (hex) of the canonical JSON of `to_resolved()`."""
    canonical: str
    """`to_resolved()` as JSON with sorted keys and no blanks."""
    effective_from: datetime | None = None
    """When the file says that it takes effect, if it does: no part of what it promises."""
    material: bool | None = None
    """Whether the file says that it promises something else than the version before, if it does."""
    source: str | None = None
    """SHA-256 (hex) of the values in its file, whatever a package makes of them; None if it is of no file."""

    @cached_property
    def awaits_replies(self) -> bool:
        """Whether a reply of the customer starts a clock."""
        return any("customer_replied" in rule.starts for rule in self.objectives.values())

    @classmethod
    def from_resolved(cls, resolved: ResolvedJson) -> Self:
        """Build the policy that `to_resolved` wrote, with the same fingerprint. ValueError for another format."""
        if resolved.get("format") != RESOLVED_FORMAT:
            raise ValueError(
                f"a resolved policy of format {resolved.get('format')!r}; this program reads format {RESOLVED_FORMAT}"
            )
        canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"))
        calendars = build_calendars(resolved)
        levels = [_build_level(level, resolved, calendars) for level in resolved["levels"]]
        return cls(
            name=resolved["name"],
            version=resolved["version"],
            zone=resolved["zone"],
            priorities=tuple(priority["name"] for priority in resolved["priorities"]),
            severities=MappingProxyType(
                {priority["name"]: priority["severity"] for priority in resolved["priorities"]}
            ),
            descriptions=MappingProxyType(
                {each["name"]: each["description"] for each in resolved["priorities"] if "description" in each}
            ),
            levels=MappingProxyType({level.name: level for level in levels}),
            warn_at=tuple(parse_threshold(str(threshold)) for threshold in resolved["warn_at"]),
            remind_after=tuple(timedelta(seconds=seconds) for seconds in resolved.get("remind_after", ())),
            objectives=MappingProxyType(_build_objectives(resolved.get("objectives", {}))),
            closing_answer=timedelta(seconds=resolved.get("closing_answer", 60)),
            exclusions=tuple(resolved.get("exclusions", ())),
            fingerprint=hashlib.sha256(canonical.encode()).hexdigest(),
            canonical=canonical,
        )

    def to_resolved(self) -> ResolvedJson:
        """Return all it takes to judge the same for ever, as JSON: windows, dates of holidays, targets in seconds."""
        resolved: ResolvedJson = json.loads(self.canonical)
        return resolved

    @cached_property
    def names_days(self) -> bool:
        """Whether a target depends on when its clock starts."""
        targets = (each for level in self.levels.values() for each in (level.targets, *level.objectives.values()))
        return any(target.span is None for each in targets for target in each.values())

    def find_missing(self, level: str, priority: str) -> str | None:
        """Return which of the two names the policy does not have, as a sentence, None if it has both."""
        if level not in self.levels:
            return f"service level {level!r} is not in policy {self.name}; it has {', '.join(self.levels)}"
        if priority not in self.priorities:
            return f"priority {priority!r} is not in policy {self.name}; it has {', '.join(self.priorities)}"
        return None

    def get_level(self, name: str) -> Level:
        """Return the level of this name. Raises KeyError if the policy has none."""
        if name not in self.levels:
            raise KeyError(f"service level {name!r} is not in policy {self.name}; it has {', '.join(self.levels)}")
        return self.levels[name]

    def find_target(self, level: str, priority: str, objective: str = FIRST_RESPONSE) -> Target | None:
        """
        Return the target of an objective, None if nothing is promised to this priority. Raises KeyError for an unknown
        level, priority or objective.
        """
        if objective not in self.objectives:
            raise KeyError(f"objective {objective!r} is not in policy {self.name}; it has {', '.join(self.objectives)}")
        targets = (
            self.get_level(level).targets
            if objective == FIRST_RESPONSE
            else self.get_level(level).objectives[objective]
        )
        if priority not in self.priorities:
            raise KeyError(f"priority {priority!r} is not in policy {self.name}; it has {', '.join(self.priorities)}")
        return targets.get(priority)

    def get_target(self, level: str, priority: str, objective: str = FIRST_RESPONSE) -> Target:
        """Return the target of an objective. Raises KeyError as `find_target` does, and if nothing is promised."""
        if (target := self.find_target(level, priority, objective)) is None:
            raise KeyError(f"policy {self.name} promises nothing to priority {priority!r} of service level {level!r}")
        return target

    def can_exclude(self, reason: str) -> bool:
        """Return whether a ticket may be excluded for this reason."""
        return not self.exclusions or reason in self.exclusions

    def get_severity(self, priority: str, escalations: int) -> str:
        """Return the severity of a breach: that of the priority, one step up for each escalation, at most critical."""
        if priority not in self.severities:
            raise KeyError(f"priority {priority!r} is not in policy {self.name}; it has {', '.join(self.priorities)}")
        step = SEVERITIES.index(self.severities[priority]) + escalations
        return SEVERITIES[min(step, len(SEVERITIES) - 1)]


def _build_objectives(resolved: ResolvedJson) -> dict[str, Objective]:
    """Return the objectives by name. The first response is one of them, whether the file names it or not."""
    rules_of: dict[str, Any] = {
        FIRST_RESPONSE: {"starts": ["opened"], "stops": "responded", "pauses": False, "repeats": False}
    }
    for name, rules in resolved.items():
        rules_of[name] = rules_of.get(name, {}) | rules
    return {name: Objective(name, **rules | {"starts": tuple(rules["starts"])}) for name, rules in rules_of.items()}


def build_calendars(resolved: ResolvedJson) -> dict[str, SupportHours]:
    """Build the named calendars of a resolved policy. Raises ValueError if one is never open."""
    rules, built = resolved.get("calendars", {}), dict[str, SupportHours]()

    def build(name: str) -> SupportHours:
        if name not in built:
            joined = rules[name].get("any_of")
            built[name] = (
                build_support_hours(rules[name], resolved)
                if joined is None
                else JoinedHours([build(each) for each in joined])
            )
        return built[name]

    return {name: build(name) for name in rules}


def _build_level(level: ResolvedJson, resolved: ResolvedJson, calendars: Mapping[str, SupportHours]) -> Level:
    named, calendar = isinstance(level["hours"], str), level["hours"]
    hours = calendars[calendar] if named else build_support_hours(level, resolved)

    def build_targets(targets: ResolvedJson) -> Mapping[str, Target]:
        return MappingProxyType(
            {name: build_target(target) for name, target in targets.items() if target != NO_PROMISE}
        )

    def build_target(target: Any) -> Target:
        if isinstance(target, dict):
            return Target(_build_rule(target["within"]), calendars[target["hours"]], target["hours"])
        return Target(_build_rule(target), hours, calendar if named else level["name"])

    return Level(
        name=level["name"],
        hours=hours,
        targets=build_targets(level["targets"]),
        objectives=MappingProxyType(
            {name: build_targets(targets) for name, targets in level.get("objectives", {}).items()}
        ),
        channels=MappingProxyType({name: tuple(priorities) for name, priorities in level["channels"].items()}),
        tell=tuple(level["tell"]),
    )


def _build_rule(target: int | str) -> timedelta | DayRule:
    return parse_target(target) if isinstance(target, str) else timedelta(seconds=target)


def build_support_hours(rules: ResolvedJson, resolved: ResolvedJson) -> SupportHours:
    """
    Build the support hours of a resolved calendar, or of a level that has its own, in the zone and with the holidays of
    the policy unless they say otherwise. Raises ValueError if never open.
    """
    closed = rules["holidays"]
    if isinstance(closed, str):
        closed = resolved["holidays"] if closed == "closed" else {}
    return SupportHours(
        rules.get("zone") or resolved["zone"],
        rules["hours"],
        holidays={date.fromisoformat(day): name for day, name in closed.items()},
        exceptions={date.fromisoformat(day): (it["name"], it["hours"]) for day, it in rules["exceptions"].items()},
        changes={date.fromisoformat(day): week for day, week in rules["hours_from"].items()},
        yearly=rules.get("yearly", {}),
    )
