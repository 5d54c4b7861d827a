"""Which version of the policy a ticket is judged by. What a version promises is in policy.py; the store keeps them.

A version is never edited once it is published, and never takes effect before that. So what has happened by now has one
version for ever, however late its fact arrives.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from events.tickets import Opened
from sla.policy import Policy
from sla.targets import format_duration

BEFORE_ALL = datetime(1999, 1, 1, tzinfo=UTC)
"""When the first version took effect: before every fact that can count."""

AFTER_ALL = datetime(2101, 1, 1, tzinfo=UTC)
"""When all that can count has happened."""

_HOLIDAY = re.compile(r"(calendars\.[^.]+\.)?holidays\.")

MIN_LEAD = timedelta(seconds=2)
"""The least time between publication and effect: the engine reads versions after each batch, and must know this one."""


@dataclass(frozen=True)
class Version:
    """A policy from `effective_from` on, until the next one; `material` if it promises something else than before."""

    policy: Policy
    published_at: datetime
    effective_from: datetime
    material: bool

    @property
    def name(self) -> str:
        return self.policy.version

    @property
    def is_first(self) -> bool:
        """Whether it covers all of history."""
        return self.effective_from == BEFORE_ALL


class Versions:
    """The published versions, by the instant of their effect."""

    def __init__(self, versions: Iterable[Version]) -> None:
        self._versions = sorted(versions, key=attrgetter("effective_from"))
        self._effects = [version.effective_from for version in self._versions]

    @classmethod
    def only(cls, policy: Policy) -> "Versions":
        """Build the versions of a policy that has no other, before or after."""
        return cls([Version(policy, BEFORE_ALL, BEFORE_ALL, material=True)])

    def __iter__(self) -> Iterator[Version]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)

    def get_in_force(self, time: datetime) -> Policy:
        """Return the policy in force at this time; the first one for a time before all of them."""
        return self._versions[max(bisect_right(self._effects, time) - 1, 0)].policy

    def find_for_opening(self, opened: Opened, time: datetime, known_at: datetime = AFTER_ALL) -> Policy:
        """
        Return the policy in force when a ticket was opened. If that one lacks its level or priority, so that the
        opening could not count then, it is the first one since, in effect at `known_at`, that has them.
        """
        in_force = self.get_in_force(time)
        if _has_names(in_force, opened):
            return in_force
        since = (each.policy for each in self._versions if time < each.effective_from <= known_at)
        return next((policy for policy in since if _has_names(policy, opened)), in_force)

    def find_pinned(self, opened: Opened, time: datetime, recorded_at: datetime) -> Policy | None:
        """
        Return the policy that a ticket is pinned to. An opening dated ahead stays in the version that had its names
        when it was recorded, whatever takes effect until it happens. None if no version has them.
        """
        policy = self.find_for_opening(opened, time, recorded_at)
        before = (each.policy for each in reversed(self._versions) if each.effective_from <= time)
        return next((each for each in (policy, *before) if _has_names(each, opened)), None)

    def find_named(self, name: str) -> Policy | None:
        """Return the policy of this version, None if it is not published."""
        return next((version.policy for version in self._versions if version.name == name), None)

    def find_same(self, policy: Policy) -> Version | None:
        """
        Return the version that says what this policy says, None if there is none. One that was published from the same
        text is the same, although the package `holidays` knows other days by now.
        """
        same = (
            version
            for version in self._versions
            if version.policy.fingerprint == policy.fingerprint
            or (policy.source is not None and version.policy.source == policy.source)
        )
        return next(same, None)

    def get_named(self, name: str) -> Policy:
        """Return the policy of this version. Raises KeyError if it is not published."""
        if (policy := self.find_named(name)) is not None:
            return policy
        known = ", ".join(version.name for version in self._versions)
        raise KeyError(f"policy version {name!r} is not published; the versions are {known}")


class PolicyOverride(Versions):
    """One policy in place of all published ones: always in force, whichever version a ticket was moved to."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(Versions.only(policy))
        self._policy = policy

    def find_named(self, name: str) -> Policy | None:
        return self._policy


def _has_names(policy: Policy, opened: Opened) -> bool:
    return policy.find_missing(opened.service_level, opened.priority) is None


class VersionRefusedError(ValueError):
    """A version that cannot be published; the text says why, and what to do."""


def make_next_version(
    versions: Versions, policy: Policy, now: datetime, notice: timedelta, lead: timedelta = MIN_LEAD
) -> Version:
    """
    Return the policy as the version it will be. The first one covers all history; a later one takes effect when it
    says, or as soon as it may: after `lead`, and after `notice` too if the change is material. Raises
    VersionRefusedError for an effect that is too soon or taken, and for a version that is published.
    """
    if not len(versions):
        return Version(policy, now, BEFORE_ALL, material=True)
    if policy.version in {version.name for version in versions}:
        raise VersionRefusedError(
            f"version {policy.version} is published, and a published version is never edited; "
            "give the file another version"
        )
    effective_from = policy.effective_from
    before = versions.get_in_force(effective_from or now)
    material = is_material(before, policy) if policy.material is None else policy.material
    earliest = now + max(lead, notice if material else lead)
    if effective_from is None:
        effective_from = _round_up_to_second(earliest) if lead else earliest
    if effective_from < now:
        raise VersionRefusedError(
            f"effective_from {_format_utc(effective_from)} lies before the publication, {_format_utc(now)}; "
            "no version takes effect in the past: give a later one, or leave it out"
        )
    if effective_from < earliest:
        whom = "the engine to know" if earliest == now + lead else f"a material change: SLA_POLICY_NOTICE is {notice}"
        raise VersionRefusedError(
            f"effective_from {_format_utc(effective_from)} is too soon for {whom}; "
            f"give {_format_utc(_round_up_to_second(earliest))} or later"
        )
    for version in versions:
        if version.effective_from == effective_from:
            raise VersionRefusedError(
                f"version {version.name} takes effect at {_format_utc(effective_from)} too; give each its own instant"
            )
    return Version(policy, now, effective_from, material)


class Change(NamedTuple):
    """A difference between two policies: where, and the text of each; "-" if it has none."""

    what: str
    before: str
    after: str


def find_changes(before: Policy, after: Policy) -> list[Change]:
    """List all differences, except name and version."""
    one, other = dict(flatten_policy(before)), dict(flatten_policy(after))
    differ = sorted(what for what in one.keys() | other.keys() if one.get(what) != other.get(what))
    return [Change(what, one.get(what, "-"), other.get(what, "-")) for what in differ]


def flatten_policy(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield all that a policy says as names and texts, except its own name and version."""
    yield from _flatten_resolved(policy.to_resolved())


def is_material(before: Policy, after: Policy) -> bool:
    """
    Return whether anything else is promised than before. Severity, description, warnings and whom to tell are no
    promise.
    """
    return any(not _is_label(change) for change in find_changes(before, after))


def _is_label(change: Change) -> bool:
    what, before, after = change
    renamed = _HOLIDAY.match(what) is not None and "-" not in (before, after)
    return renamed or what in ("warn_at", "remind_after") or what.endswith((".severity", ".description", ".tell"))


def _flatten_resolved(part: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield a part of a resolved policy as lines; items of a list that have a name are found by it."""
    match part:
        case dict() | [{"name": _}, *_]:
            named = part.items() if isinstance(part, dict) else [(each["name"], each) for each in part]
            for name, each in named:
                path = f"{where}.{name}" if where else name
                if path not in ("name", "version", "format") and not (where.count(".") == 1 and name == "name"):
                    yield from _flatten_resolved(each, path)
        case list() if where == "remind_after":
            yield where, ", ".join(format_duration(timedelta(seconds=seconds)) for seconds in part) or "none"
        case list():
            yield where, ", ".join(map(str, part)) or "none"
        case int() if ".targets." in where or ".objectives." in where:
            yield where, format_duration(timedelta(seconds=part))
        case _:
            yield where, str(part)


def _format_utc(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _round_up_to_second(time: datetime) -> datetime:
    return time if not time.microsecond else time.replace(microsecond=0) + timedelta(seconds=1)
