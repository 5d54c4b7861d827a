"""Write the day that `sla up --demo` plays: `python -m services.demo.generate`. How it is played is in playback.py."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec

from events.cloudevents import format_time
from services.demo.playback import NOMINAL_START, SEED, SOURCES, DemoEvent, find_opening_with
from services.runtime.settings import SHIPPED_POLICIES
from sla.policy import Policy
from sla.policy_file import load_policy_file

DEMO_FILE = Path(__file__).with_name("demo.jsonl")
TICKETS_SO_FAR = 68  # of the day so far; the stories come on top
CUSTOMERS = {
    "NK": ("Almby Varme", "Bruket Nord", "Granit och Sand", "Kvarnholmen Bad", "Lilla Varvet"),
    "HV": ("Hotell Fyren", "Klippans Camping", "Ostra Hamnen", "Skargardsbagaren", "Tallbacken Vard"),
    "FB": ("Fjallgarden Fonder", "Isbrytaren Leasing", "Norrsken Betal", "Sparlan Kort", "Vindil Forsakring"),
}
ESCALATION_REASONS = (
    "The customer cannot work.",
    "Third reminder without an answer.",
    "The account manager was called.",
)
FIRST_NUMBERS = {"NK": 48_200, "HV": 26_000, "FB": 7_000}
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# What happens while somebody watches: helpdesk, level, priority, second at which the opening is fed, seconds of support
# time left at the start. Then what follows: second at which it is fed, type, data, and `demobefore` in seconds.
STORIES: tuple[tuple[str, str, str, float, float, tuple[tuple[float, str, dict[str, str], float | None], ...]], ...] = (
    ("FB", "enterprise", "critical", 1.0, 5, ((9.0, "responded", {"by": "agent", "channel": "phone"}, None),)),
    ("HV", "professional", "critical", 1.5, 7, ((3.0, "responded", {"by": "automation", "channel": "email"}, None),
                                                (12.0, "responded", {"by": "agent", "channel": "email"}, None))),
    # the answer was given four minutes before the deadline; the helpdesk tells us too late
    ("HV", "enterprise", "serious", 2.0, 6, ((11.5, "responded", {"by": "agent", "channel": "portal"}, 240),)),
    ("NK", "foundation", "critical", 5.0, 9.5, ((14.0, "escalated", {"reason": ESCALATION_REASONS[0]}, None),
                                                (22.0, "responded", {"by": "agent", "channel": "email"}, None))),
    # thresholds of 75, 50 and 90 % lie just ahead
    ("NK", "foundation", "minor", 2.5, 6 * 3600 + 6, ()),
    ("HV", "professional", "serious", 3.0, 2 * 3600 + 10, ()),
    ("FB", "enterprise", "minor", 3.5, 48 * 60 + 13, ()),
    # raised after more than the new target was used: broken at that moment, at any time of any day
    ("NK", "foundation", "minor", 4.0, 18 * 3600, ((11.0, "priority_changed", {"priority": "critical"}, None),
                                                   (19.0, "responded", {"by": "agent", "channel": "email"}, None))),
    ("HV", "professional", "minor", 4.5, 7 * 3600, ((18.0, "priority_changed", {"priority": "serious"}, None),)),
    # answered a moment before the deadline
    ("FB", "enterprise", "critical", 7.0, 16, ((13.5, "responded", {"by": "agent", "channel": "phone"}, None),)),
    # lowered a moment before the deadline
    ("HV", "professional", "critical", 8.0, 17, ((14.5, "priority_changed", {"priority": "minor"}, None),)),
    ("FB", "enterprise", "serious", 9.0, 14, ((16.5, "escalated", {"reason": ESCALATION_REASONS[2]}, None),)),
    ("NK", "foundation", "serious", 11.5, 17, ((27.0, "responded", {"by": "agent", "channel": "portal"}, None),)),
    # a machine's answer does not count
    ("FB", "enterprise", "critical", 10.0, 20, ((12.5, "responded", {"by": "automation", "channel": "email"}, None),
                                                (25.0, "responded", {"by": "agent", "channel": "phone"}, None))),
    ("NK", "professional", "serious", 16.0, 23, ()),
    ("HV", "foundation", "critical", 20.0, 26, ((24.0, "responded", {"by": "agent", "channel": "email"}, None),)),
    ("FB", "enterprise", "minor", 21.0, 28, ((30.0, "responded", {"by": "agent", "channel": "portal"}, None),)),
)  # fmt: skip


class DemoDay:
    """One day, made by chance: the same one for the same seed and policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._random, self._number = policy, random.Random(SEED), 0

    def build_events(self) -> list[DemoEvent]:
        """Build the day in the order of the file: what has happened by the start, then the stories as they are fed."""
        past = [event for number in range(TICKETS_SO_FAR) for event in self._build_ticket(200 + number * 60)]
        stories = [event for story in STORIES for event in self._build_story(*story)]
        events = [*past, *stories, *self._build_oddities(past)]
        return sorted(events, key=lambda event: event["demoat"])

    def _build_ticket(self, fed: int) -> Iterator[DemoEvent]:
        """Build a ticket of the day so far; its events are fed together."""
        chance = self._random
        prefix = chance.choice(list(SOURCES))
        level = "enterprise" if prefix == "FB" else chance.choice(("foundation", "professional", "professional"))
        priority = chance.choice(("critical", "serious", "serious", "minor", "minor"))
        earliest = {"enterprise": 14.3, "professional": 6.4, "foundation": 5.4}[level]
        opened = self._find_instant(chance.uniform(0.1, earliest) * 3600)
        ticket = self._make_ticket_id(prefix)
        channel = "phone" if (level, priority) == ("enterprise", "critical") else chance.choice(("email", "portal"))
        data = {"service_level": level, "priority": priority, "channel": channel}
        yield self._build_event(ticket, "opened", fed, opened, data | {"customer": chance.choice(CUSTOMERS[prefix])})
        if chance.random() < 0.25:
            yield from self._build_if_past(
                ticket, "responded", fed, opened + timedelta(seconds=4), {"by": "automation"}
            )
        target = self._policy.get_target(level, priority).measure(opened)
        if chance.random() < 0.15:
            other = chance.choice([name for name in self._policy.priorities if name != priority])
            yield from self._build_if_past(ticket, "priority_changed", fed, opened + target * 0.1, {"priority": other})
        if chance.random() < 0.10:
            reason = {"reason": chance.choice(ESCALATION_REASONS)}
            yield from self._build_if_past(ticket, "escalated", fed, opened + target * 0.6, reason)
        used = chance.uniform(1.02, 1.2) if chance.random() < 0.12 else chance.uniform(0.05, 0.55)
        answer = {"by": "agent", "channel": channel}
        yield from self._build_if_past(ticket, "responded", fed, opened + target * used, answer)

    def _build_story(
        self,
        prefix: str,
        level: str,
        priority: str,
        fed: float,
        left: float,
        following: tuple[tuple[float, str, dict[str, str], float | None], ...],
    ) -> Iterator[DemoEvent]:
        ticket = self._make_ticket_id(prefix)
        opened = find_opening_with(timedelta(seconds=left), self._policy.get_level(level), priority, NOMINAL_START)
        due_at = self._policy.get_target(level, priority).find_due(opened)
        channel = (
            "phone" if (level, priority) == ("enterprise", "critical") else self._random.choice(("email", "portal"))
        )
        data = {"service_level": level, "priority": priority, "channel": channel}
        data["customer"] = self._random.choice(CUSTOMERS[prefix])
        yield self._build_event(ticket, "opened", convert_to_milliseconds(fed), opened, data) | {
            "demoleft": convert_to_milliseconds(left)
        }
        for at, name, more, before in following:
            if before is None:
                yield self._build_event(
                    ticket, name, convert_to_milliseconds(at), NOMINAL_START + timedelta(seconds=at), more
                )
            else:
                time = due_at - timedelta(seconds=before)
                yield self._build_event(ticket, name, convert_to_milliseconds(at), time, more) | {
                    "demobefore": convert_to_milliseconds(before)
                }

    def _build_oddities(self, past: list[DemoEvent]) -> Iterator[DemoEvent]:
        """Build what a bus brings: a doubled delivery, an answer before its opening, a priority nobody promised."""
        yield next(event for event in past if event["type"] == "ticket.responded") | {"demoat": 6_000}
        ticket = self._make_ticket_id("NK")
        yield self._build_event(
            ticket, "responded", 5_500, self._find_instant(1500), {"by": "agent", "channel": "email"}
        )
        data = {"service_level": "foundation", "priority": "minor", "channel": "email", "customer": "Bruket Nord"}
        yield self._build_event(ticket, "opened", 7_500, self._find_instant(2700), data)
        data = {"service_level": "professional", "priority": "urgent", "channel": "portal", "customer": "Hotell Fyren"}
        yield self._build_event(self._make_ticket_id("HV"), "opened", 6_500, self._find_instant(60), data)

    def _build_if_past(
        self, ticket: str, name: str, fed: int, time: datetime, data: dict[str, str]
    ) -> Iterator[DemoEvent]:
        if time < NOMINAL_START:
            yield self._build_event(ticket, name, fed, time.replace(microsecond=0), data)

    def _build_event(self, ticket: str, name: str, fed: int, time: datetime, data: dict[str, str]) -> DemoEvent:
        prefix = ticket.partition("-")[0]
        return {
            "specversion": "1.0",
            "type": f"ticket.{name}",
            "source": SOURCES[prefix],
            "id": self._make_event_id(prefix),
            "subject": ticket,
            "time": format_time(time),
            "datacontenttype": "application/json",
            "data": data,
            "demoat": fed,
        }

    def _make_ticket_id(self, prefix: str) -> str:
        """Make an id; each helpdesk counts its tickets from another number on."""
        self._number += self._random.randint(1, 9)
        return f"{prefix}-{FIRST_NUMBERS[prefix] + self._number}"

    def _make_event_id(self, prefix: str) -> str:
        """Make an id; each helpdesk has its own way."""
        if prefix == "NK":
            return str(UUID(int=self._random.getrandbits(128), version=4))
        if prefix == "HV":
            return "evt_" + "".join(self._random.choices(ALPHABET, k=20))
        return f"fb:{self._random.randrange(10**9, 10**10)}"

    def _find_instant(self, seconds: float) -> datetime:
        return (NOMINAL_START - timedelta(seconds=seconds)).replace(microsecond=0)


def convert_to_milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def render_file() -> str:
    """Return the file, one event a line."""
    events = DemoDay(load_policy_file(SHIPPED_POLICIES / "cention-support.yaml")).build_events()
    return "".join(msgspec.json.encode(event).decode() + "\n" for event in events)


if __name__ == "__main__":
    DEMO_FILE.write_text(render_file(), encoding="utf-8")
