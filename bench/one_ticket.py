"""What one more fact of a ticket costs that has had 10,000 of its kind: processor time of the engine, in memory."""

import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from statistics import median
from time import process_time
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from bench.figures import Bounds, figure
from events.tickets import build_ticket_message
from services.runtime.settings import SHIPPED_POLICIES, load_policy
from sla.engine import Engine, Message
from sla.log import DECODERS, Recorded
from sla.policy import Policy
from sla.ticket import TicketSla
from sla.versions import AFTER_ALL, BEFORE_ALL, Version, Versions

FACTS = 10_000
LATE = 20  # times fewer, where they do not arrive in their order: each changes what follows from those after it
LAST = 100  # facts, of whose times the median is what the last one took
TICKED = 50  # facts from one tick to the next
START = datetime(2026, 11, 2, 8, tzinfo=UTC)
SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
LAST_FACT, REPLAY, MEMORY = Bounds(must=1e-3), Bounds(must=2.0), Bounds(must=20)

OBJECTIVES = {
    "first_response": {"pauses": True},
    "next_response": {"starts": "customer_replied", "stops": "responded", "pauses": False, "repeats": True},
    "resolution": {"starts": "opened", "stops": "closed", "pauses": True, "repeats": False},
    "each_resolution": {"starts": "opened", "stops": "closed", "pauses": True, "repeats": True},
}


class Sent(NamedTuple):
    """A fact to come: its kind and what it says."""

    kind: str
    data: Mapping[str, Any] = MappingProxyType({})


def main(number: int = FACTS) -> int:
    """Prints a row for each kind of fact and order, and the worst of those in order; 1 if that takes too much."""
    print(
        f"one-ticket: {number:,} facts of each kind on one ticket, {number // LATE:,} if not in order, "
        f"a tick after {TICKED}"
    )
    print(f"  {'':<38} {'the last':>10} {'all':>10} {'replay':>10} {'memory':>10} {'events':>10}")
    versions, worst = _versions(), (0.0, 0.0, 0.0)
    for kind, generate in KINDS.items():
        for order, arrange in ORDERS.items():
            in_order = order == "in order"
            facts = list(_messages(generate, number if in_order else number // LATE))
            last, every, replay, memory, events = _measure([facts[0], *arrange(facts[1:])], versions)
            print(
                f"  {f'{kind}, {order}':<38} {last * 1e6:>7,.0f} us {every:>8.1f} s {replay:>8.2f} s "
                f"{memory:>7.1f} MB {events:>10,}",
                flush=True,
            )
            if in_order:
                worst = max(worst[0], last), max(worst[1], replay), max(worst[2], memory)
    passed = [
        figure("the last fact", [worst[0]], "s", LAST_FACT),
        figure("the replay of all", [worst[1]], "s", REPLAY),
        figure("the ticket in memory", [worst[2]], "MB", MEMORY),
    ]
    return 0 if all(passed) else 1


def _versions() -> Versions:
    """The shipped policy with every kind of objective, and a version of it with doubled targets to be moved to."""
    resolved = load_policy(SHIPPED_POLICIES).to_resolved() | {"version": "1", "objectives": OBJECTIVES}
    for level in resolved["levels"]:
        level["objectives"] = {name: level["targets"] for name in OBJECTIVES if name != "first_response"}
    first = Policy.from_resolved(resolved)
    for level in resolved["levels"]:
        level["targets"] = {name: 2 * seconds for name, seconds in level["targets"].items()}
    second = Policy.from_resolved(resolved | {"version": "2"})
    return Versions([*Versions.only(first), Version(second, BEFORE_ALL, AFTER_ALL, material=True)])


def _messages(generate: Callable[[], Iterator[Sent]], number: int) -> Iterator[tuple[datetime, tuple[Any, ...]]]:
    """An opening, and what else is told, a second apart, with the time of each."""
    opening = Sent("opened", {"service_level": "enterprise", "priority": "minor"})
    for n, (kind, data) in zip(
        range(number), (sent for each in ([opening], generate()) for sent in each), strict=False
    ):
        time = START + n * SECOND
        yield (
            time,
            build_ticket_message(f"ticket.{kind}", "T", source="/b", event_id=f"f{n}", time=time, data=dict(data)),
        )


class _Log:
    """What the engine asks of a store, with the events as bytes."""

    def __init__(self, versions: Versions) -> None:
        self.versions, self.keys = versions, dict[bytes, bytes]()
        self.rows: list[tuple[str, bytes]] = []

    def load_tickets(self, tickets: Iterable[str]) -> dict[str, TicketSla]:
        events = (
            Recorded("T", version, DECODERS[topic].decode(state)) for version, (topic, state) in enumerate(self.rows, 1)
        )
        ticket = TicketSla.replay(None, events)
        return {} if ticket is None else {"T": ticket}

    def read_digests(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: self.keys[key] for key in keys if key in self.keys}

    def read_versions(self) -> Versions:
        return self.versions


def _measure(
    facts: Sequence[tuple[datetime, tuple[Any, ...]]], versions: Versions
) -> tuple[float, float, float, float, int]:
    """
    Takes the facts one by one, and loads the ticket from the log. Seconds of the last fact, of all, and of the replay;
    megabytes of the ticket, and how many events it has.
    """
    log, sequence, end = _Log(versions), count(1), max(time for time, _ in facts)
    engine, taken = Engine(log), []
    in_order = all(one[0] <= other[0] for one, other in pairwise(facts))
    for n, (time, sent) in enumerate(facts, 1):
        now = time if in_order else end + n * MICROSECOND
        fact = Message(next(sequence), now, *sent)
        start = process_time()
        outcome = engine.process([fact])
        taken.append(process_time() - start)
        assert not outcome.dead, outcome.dead
        if n % TICKED == 0:
            ticked = engine.process([Message(next(sequence), now, "clock.due.T", None, b"")])
            outcome.events += ticked.events
        log.rows += [(each.event.TOPIC, msgspec.json.encode(each.event)) for each in outcome.events]
    start = process_time()
    log.load_tickets("T")
    replay = process_time() - start
    tracemalloc.start()
    kept = Engine(log)
    kept.process([Message(next(sequence), end, "clock.due.T", None, b"")])
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return median(taken[-LAST:]), sum(taken), replay, memory / 1e6, len(log.rows)


def _alternate(*sent: Sent) -> Callable[[], Iterator[Sent]]:
    """Each in turn, for ever."""

    def generate() -> Iterator[Sent]:
        while True:
            yield from sent

    return generate


def _raise(priority: str) -> Sent:
    return Sent("priority_changed", {"priority": priority})


def _correct(number: int, priority: str) -> Sent:
    return Sent("corrected", {"corrects": f"f{number}", "priority": priority})


def _corrections_of_one() -> Iterator[Sent]:
    """Of a change of the priority, the first of a few."""
    yield from (_raise("serious"), _raise("minor"), _raise("serious"))
    yield from (_correct(1, ("critical", "minor")[n % 2]) for n in count())


def _corrections_of_the_opening() -> Iterator[Sent]:
    yield from (_correct(0, ("critical", "minor")[n % 2]) for n in count())


def _corrections_of_many() -> Iterator[Sent]:
    for n in count(1, 2):
        yield _raise(("critical", "minor")[n % 2])
        yield _correct(n, "serious")


def _corrections_of_corrections() -> Iterator[Sent]:
    yield _raise("serious")
    yield from (_correct(n, "minor") for n in count(1))


def _mixed() -> Iterator[Sent]:
    """All of them, by chance."""
    chance = random.Random(2026)
    others = [generate() for kind, generate in KINDS.items() if kind != "mixed"]
    for n in count(1):
        if chance.random() < 0.1:
            yield _correct(chance.randrange(n), chance.choice(("critical", "serious", "minor")))
        else:
            yield next(chance.choice(others), Sent("escalated"))


KINDS: dict[str, Callable[[], Iterator[Sent]]] = {
    "priorities": _alternate(_raise("serious"), _raise("minor")),
    "levels": _alternate(
        Sent("service_level_changed", {"service_level": "professional"}),
        Sent("service_level_changed", {"service_level": "enterprise"}),
    ),
    "corrections of one fact": _corrections_of_one,
    "corrections of the opening": _corrections_of_the_opening,
    "corrections of many facts": _corrections_of_many,
    "corrections of corrections": _corrections_of_corrections,
    "answers": _alternate(Sent("responded")),
    "replies": _alternate(Sent("customer_replied"), Sent("responded")),
    "pauses": _alternate(Sent("paused", {"reason": "customer"}), Sent("paused", {"reason": "vendor"}), Sent("resumed")),
    "closings": _alternate(Sent("closed"), Sent("reopened")),
    "answers while closed": _alternate(Sent("closed"), Sent("responded"), Sent("reopened")),
    "exclusions": _alternate(
        Sent("excluded", {"reason": "third_party"}), Sent("exclusion_revoked", {"reason": "third_party"})
    ),
    "escalations": _alternate(Sent("escalated")),
    "openings": _alternate(Sent("opened", {"service_level": "enterprise", "priority": "serious"})),
    "moves": _alternate(
        Sent("policy_changed", {"policy_version": "2"}), Sent("policy_changed", {"policy_version": "1"})
    ),
    "mixed": _mixed,
}


def _shuffle(facts: Sequence[Any]) -> Sequence[Any]:
    return random.Random(2026).sample(facts, len(facts))


ORDERS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
    "in order": lambda facts: facts,
    "reversed": lambda facts: facts[::-1],
    "shuffled": _shuffle,
}
