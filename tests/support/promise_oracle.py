"""One promise walked minute by minute, apart from sla/: hours, targets, priorities that change. Whole minutes only."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.support.oracle import MINUTE, Oracle


class Terms(NamedTuple):
    """What is promised for a priority: by which hours, and how much support time."""

    hours: Oracle
    target: timedelta


class Walked(NamedTuple):
    """Up to an instant: the support time used, and when the target was used up, None if it is not."""

    used: timedelta
    due_at: datetime | None


def walk(terms: Mapping[str, Terms | None], priorities: Sequence[tuple[datetime, str]], until: datetime) -> Walked:
    """
    `priorities` are those of the ticket, each with since when, the opening first. The walk ends when it is due. A
    priority of which `terms` has None has no promise.
    """
    minute, used = priorities[0][0], timedelta(0)
    while minute <= until:
        promised = terms[[name for since, name in priorities if since <= minute][-1]]
        if promised is not None:
            if used >= promised.target:
                return Walked(used, minute)
            used += MINUTE * promised.hours.is_open(minute)
        minute += MINUTE
    return Walked(used, None)
