"""The engine with a store in memory, for tests of the rules. The bus and the database have tests of their own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec

from events.cloudevents import encode_token
from services.announcer import build_announcement
from sla.engine import RETRY_HEADER, TICK_PREFIX, BatchOutcome, Engine, Message
from sla.log import Announced as AnnouncedEvent
from sla.log import Decision, Event, LogEntry, Recorded, State
from sla.policy import Policy
from sla.policy_file import load_policy_file
from sla.ticket import TicketSla
from sla.versions import AFTER_ALL, Version, Versions, make_next_version
from sla.versions import BEFORE_ALL as START_OF_ALL
from tests.scenarios.scenario import Announced, Edited, Fact, Given, Scenario, Tick
from tests.support import updates, words

ZERO = timedelta(0)
SHIPPED = Path(__file__).parents[2] / "sla" / "policies" / "cention-support.yaml"
POLICY = load_policy_file(SHIPPED)


@cache
def make_edited_policy(policy: Policy = POLICY) -> Policy:
    """A later version of the policy, in which every target is doubled."""
    resolved = policy.to_resolved() | {"version": "edited"}
    for level in resolved["levels"]:
        level["targets"] = {name: 2 * seconds for name, seconds in level["targets"].items()}
    return Policy.from_resolved(resolved)


@cache
def make_pausing_policy() -> Policy:
    """The shipped policy, in which a pause stops the clock."""
    return Policy.from_resolved(POLICY.to_resolved() | {"objectives": {"first_response": {"pauses": True}}})


def make_versions(policy: Policy, edited_at: datetime | None = None) -> Versions:
    """The policy, and a version with doubled targets to which a ticket may be moved; in force from `edited_at` on."""
    later = Version(make_edited_policy(policy), START_OF_ALL, edited_at or AFTER_ALL, material=True)
    return Versions([*Versions.only(policy), later])


def get_policy(scenario: Scenario) -> Policy:
    """The policy under which a scenario begins."""
    if scenario.words:
        return words.POLICY
    if scenario.updates:
        return updates.POLICY
    return make_pausing_policy() if scenario.pauses else POLICY


@dataclass
class Memory:
    """The log, the inbox and the versions, as the event store keeps them; tickets come from the log by replay."""

    published: Versions = field(default_factory=lambda: Versions.only(POLICY))
    log: dict[str, list[Recorded]] = field(default_factory=dict)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    inbox: list[str] = field(default_factory=list)

    def load_tickets(self, tickets: Iterable[str]) -> dict[str, TicketSla]:
        replayed = {id: TicketSla.replay(None, self.log.get(id, ())) for id in tickets}
        return {id: ticket for id, ticket in replayed.items() if ticket is not None}

    def read_digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: self.keys[key] for key in keys if key in self.keys}

    def read_versions(self) -> Versions:
        return self.published

    def publish(self, policy: Policy, now: datetime) -> None:
        self.published = Versions([*self.published, make_next_version(self.published, policy, now, ZERO, ZERO)])

    def save(self, outcome: BatchOutcome) -> None:
        for recorded in outcome.events:
            self.log.setdefault(recorded.originator_id, []).append(recorded)
        for row in outcome.inbox:
            self.inbox.append(row.reason or row.outcome)
            if row.key is not None and row.digest is not None:
                self.keys[row.key] = row.digest


class World:
    """One ticket in an engine of its own; with `forgets` it is replayed from the log for every message."""

    def __init__(
        self, ticket: str = "T-1", policy: Policy = POLICY, forgets: bool = False, versions: Versions | None = None
    ) -> None:
        self.ticket, self.forgets = ticket, forgets
        self.memory, self.sequence = Memory(versions or Versions.only(policy)), 0
        self.states, self.events = dict[tuple[str, int], State](), list[Event]()
        self.engine = Engine(self.memory)

    def put(self, item: Given) -> list[Event]:
        """Hands over one fact or tick; returns what was recorded because of it."""
        match item:
            case Edited(arrives=now):
                self.memory.publish(make_edited_policy(), now)
                return []
            case Fact() | Tick():
                return self.take([self.make_message(item)])
            case _:
                raise TypeError(f"{item} is for the clock")

    def make_message(self, item: Fact | Tick) -> Message:
        self.sequence += 1
        if isinstance(item, Tick):
            return Message(self.sequence, item.arrives, f"{TICK_PREFIX}{encode_token(self.ticket)}", None, b"")
        return Message(self.sequence, item.arrives, *item.message(self.ticket))

    def take(self, messages: list[Message]) -> list[Event]:
        if self.forgets:
            self.engine.forget()
        return self._save(self.engine.process(messages))

    def _save(self, outcome: BatchOutcome) -> list[Event]:
        self.memory.save(outcome)
        new = [recorded.event for recorded in outcome.events]
        self.events += new
        self.states |= {(event.objective, event.cycle): event.state for event in new if isinstance(event, Decision)}
        return new

    def set_aside(self, fault: str, item: Fact | Tick | None = None) -> list[Event]:
        """Hands over one fact or tick that cannot be judged; by default a tick at the newest instant that is known."""
        return self._save(self.engine.quarantine(self.make_message(item or self._make_tick()), fault))

    def retry(self) -> list[Event]:
        """Has the ticket judged again."""
        return self.take([self.make_message(self._make_tick())._replace(headers={RETRY_HEADER: "1"})])

    def _make_tick(self) -> Tick:
        return Tick(max(event.at for event in self.events))

    @property
    def state(self) -> State:
        """Of the first response."""
        return self.states.get(("first_response", 1), State())

    def find_next_instant(self) -> datetime | None:
        return min((state.next_at for state in self.states.values() if state.next_at), default=None)

    @property
    def ticket_sla(self) -> TicketSla:
        """The ticket as the engine has it."""
        self.engine._load_tickets([self.ticket])
        return self.engine._tickets[self.ticket]

    def list_announced(self) -> list[Announced]:
        return list(_read_announced(self.ticket, self.events))


def _read_announced(ticket: str, events: Iterable[Event]) -> Iterator[Announced]:
    for position, event in enumerate(events, 1):
        if isinstance(event, AnnouncedEvent):
            message = build_announcement(LogEntry(position, ticket, event))
            yield Announced(message.subject, msgspec.json.decode(message.body))
