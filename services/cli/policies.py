"""What `sla policy` says of the published versions. Which one counts is in sla/versions.py."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from services.queries.backtest import Flip, Move
from services.text.formats import format_wall_time, format_wall_time_briefly
from sla.policy import FIRST_RESPONSE, Policy
from sla.policy_file import load_policy_file
from sla.versions import Version, Versions, flatten_policy

COLUMNS = ("version", "in force from", "published", "material", "fingerprint")
ALWAYS = "the beginning"


def describe_version(version: Version, versions: Versions, now: datetime) -> dict[str, Any]:
    """For programs; the first version has no `effective_from`."""
    return {
        "name": version.policy.name,
        "version": version.name,
        "published_at": version.published_at,
        "effective_from": None if version.is_first else version.effective_from,
        "material": version.material,
        "in_force": versions.get_in_force(now) is version.policy,
        "fingerprint": version.policy.fingerprint,
    }


def build_version_row(version: Version, versions: Versions, now: datetime) -> tuple[str, ...]:
    """In the order of COLUMNS; the one in force has a star."""
    zone = version.policy.zone
    star = " *" if versions.get_in_force(now) is version.policy else ""
    since = ALWAYS if version.is_first else format_wall_time(version.effective_from, zone)
    material = "yes" if version.material else "no"
    return (
        version.name + star,
        since,
        format_wall_time(version.published_at, zone),
        material,
        version.policy.fingerprint[:12],
    )


def find_policy(name: str, versions: Versions) -> Policy:
    """A published version, or a policy file. ValueError if there is no such version; PolicyError of the file."""
    if name in {version.name for version in versions}:
        return versions.get_named(name)
    if Path(name).is_file():
        return load_policy_file(name)
    known = ", ".join(version.name for version in versions) or "none"
    raise ValueError(f"{name!r} is neither a published version nor a file; the versions are {known}")


def list_settings(policy: Policy, now: datetime) -> list[tuple[str, str]]:
    """What a policy says, one setting a line, in the order of the file; holidays only of this year and the next."""
    years = (f"holidays.{now.year}", f"holidays.{now.year + 1}")
    told = [
        (what, value)
        for what, value in flatten_policy(policy)
        if not what.startswith("holidays.") or what.startswith(years)
    ]
    return [("name", policy.name), ("version", policy.version), *told]


def find_in_effect(name: str, versions: Versions, now: datetime) -> Policy:
    """The published version of this name. ValueError if there is none, or it is not in effect yet."""
    for version in versions:
        if version.name == name and version.effective_from <= now:
            return version.policy
        if version.name == name:
            raise ValueError(
                f"version {name} takes effect at {format_wall_time(version.effective_from, None)}; not before that"
            )
    raise ValueError(f"version {name!r} is not published; the versions are {', '.join(each.name for each in versions)}")


# ---- what would be


MOVES = ("ticket", "objective", "level", "priority", "version", "due", "due then", "")
COMPLIANCE = ("level", "priority", "", "met", "broken", "open", "cancelled", "excluded", "unknown", "compliance")
FLIPS = ("ticket", "level", "priority", "before", "after", "due before", "due after")


def build_move_row(move: Move, zone: str) -> tuple[str, ...]:
    """In the order of MOVES."""
    said = move.why_not or ("breaks at once" if move.breaks else "")
    objective = move.objective if move.objective == FIRST_RESPONSE else f"{move.objective} {move.cycle}"
    due, then = format_wall_time_briefly(move.due_at, zone), format_wall_time_briefly(move.new_due_at, zone)
    return move.ticket, objective, move.service_level, move.priority, move.policy_version, due, then, said


def summarise_moves(moves: Sequence[Move], dry_run: bool) -> str:
    """How many tickets, on one line."""
    going = {move.ticket for move in moves if move.why_not is None}
    staying = {move.ticket for move in moves if move.why_not is not None}
    breaking = {move.ticket for move in moves if move.breaks}
    verb = "would move" if dry_run else "move"
    return f"{len(going):,} tickets {verb}, of which {len(breaking):,} break at once; {len(staying):,} cannot"


def build_compliance_rows(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """In the order of COMPLIANCE: a line before and a line after."""
    for row in rows:
        for when in ("before", "after"):
            labels = (row["service_level"], row["priority"]) if when == "before" else ("", "")
            *counts, share = row[when].values()
            yield *labels, when, *(str(count) for count in counts), "-" if share is None else f"{share:.1%}"


def build_flip_row(flip: Flip, zone: str) -> tuple[str, ...]:
    """In the order of FLIPS."""
    *texts, due_before, due_after = flip
    return *texts, format_wall_time_briefly(due_before, zone), format_wall_time_briefly(due_after, zone)
