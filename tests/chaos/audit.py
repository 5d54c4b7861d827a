"""What must be so when all is quiet: what was sent against what is stored, decided and announced."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import datetime, timedelta

from nats.aio.client import Client

from projections.registry import PROJECTIONS
from services.maintenance.verify import Verifier
from services.store.interface import Database, Store
from sla.log import Announced
from tests.chaos.load import Publisher
from tests.support.bus import Heard, stored
from tests.support.stores import rows

Problem = tuple[str, str]  # lost, doubled, false, early, stuck, late, differs; and the story
STRANGER = {"Stranger": "yes"}  # a header of what does not come from the engine
ON_TIME = timedelta(seconds=2)  # a breach that is stored later than this after its deadline is late


async def audit(nc: Client, place: Database, publisher: Publisher, quiet: set[str]) -> AsyncIterator[Problem]:
    """All that is wrong; `quiet` are the tickets whose breaches must be on time."""
    said = [heard for heard in await stored(nc) if not heard.headers.items() >= STRANGER.items()]
    letters = await stored(nc, "DEAD_LETTERS", "dead_letters.*")
    arrived = await stored(nc, "TICKETS", "tickets.>")
    with closing(place.open()) as store:
        for found in (
            _facts(place, store, publisher, arrived),
            _dead_letters(publisher, arrived, letters),
            _announced_once(store, said),
            _promises(publisher, said),
            _in_time(said, quiet),
        ):
            for problem in found:
                yield problem
    with place.open_snapshot() as kept, Verifier(kept, PROJECTIONS) as check:
        for _ in (*check.check_projections(), *check.check_tickets()):
            pass
        for difference in check.shown:
            yield "differs", str(difference)


def _compare(expected: Counter, found: Counter, what: str) -> Iterator[Problem]:
    for each, times in (expected - found).items():
        yield "lost", f"{what} {each}, {times} times"
    for each, times in (found - expected).items():
        yield ("doubled" if each in expected else "false"), f"{what} {each}, {times} times more"


def _facts(place: Database, store: Store, publisher: Publisher, arrived: list[Heard]) -> Iterator[Problem]:
    sent = {(life.ticket, fact.event["id"]) for life in publisher.lives for _, fact in life.facts}
    yield from _compare(Counter(sent), Counter({key for each in arrived if (key := _key(each)) in sent}), "message")
    tickets = store.load_tickets({ticket for ticket, _ in sent})
    found = Counter((ticket, fact.id) for ticket, kept in tickets.items() for fact in kept.facts)
    yield from _compare(Counter(sent), found, "fact")
    outcomes = Counter(outcome for (outcome,) in rows(place, "SELECT outcome FROM inbox"))
    yield from _compare(Counter(recorded=len(sent)), Counter(recorded=outcomes["recorded"]), "row of the inbox")


def _key(heard: Heard) -> tuple[str, str] | None:
    try:
        return heard.ticket, heard.event["id"]
    except ValueError:
        return None


def _dead_letters(publisher: Publisher, arrived: list[Heard], letters: list[Heard]) -> Iterator[Problem]:
    bad = {fact.body for fact in publisher.bad}
    expected = Counter(each.sequence for each in arrived if each.body in bad)
    yield from _compare(expected, Counter(int(letter.headers["Sla-Sequence"]) for letter in letters), "dead letter of")


def _announced_once(store: Store, said: list[Heard]) -> Iterator[Problem]:
    log = [entry.event.id for entry in store.read_log_entries(0, 1_000_000) if isinstance(entry.event, Announced)]
    heard = [each.headers["Nats-Msg-Id"] for each in said]
    yield from _compare(Counter(log), Counter(heard), "announcement")
    if log != heard and sorted(log) == sorted(heard):
        yield "differs", "announcements are not in the order of the log"


def _promises(publisher: Publisher, said: list[Heard]) -> Iterator[Problem]:
    """Breaches less withdrawals, and answers, are what was worked out by hand."""
    standing = defaultdict[str, list[datetime]](list)
    answers: dict[str, bool] = {}
    for heard in said:
        match heard.kind:
            case "breached":
                standing[heard.ticket].append(datetime.fromisoformat(heard.data["breached_at"]))
            case "breach_retracted" if standing[heard.ticket]:
                standing[heard.ticket].pop()
            case "breach_retracted":
                yield "false", f"a withdrawal of nothing: {heard.data}"
            case "fulfilled":
                answers[heard.ticket] = heard.data["met"]
    broken = Counter((life.ticket, life.broken_at) for life in publisher.lives if life.broken_at)
    yield from _compare(broken, Counter((ticket, at) for ticket, each in standing.items() for at in each), "breach")
    expected = Counter((life.ticket, life.met) for life in publisher.lives if life.met is not None)
    yield from _compare(expected, Counter(answers.items()), "answer")


def _was_due(heard: Heard) -> bool:
    """Time alone broke it, not news about a raise or of an exclusion that was revoked."""
    return heard.data["cause"] == "deadline_passed" and heard.data["number"] == 1


def _in_time(said: list[Heard], quiet: set[str]) -> Iterator[Problem]:
    for heard in said:
        if heard.kind == "breached":
            after = heard.stored_at - datetime.fromisoformat(heard.data["breached_at"])
            if after <= timedelta(0):
                yield "early", f"{heard.ticket} by {-after}"
            elif heard.ticket in quiet and after > ON_TIME and _was_due(heard):
                yield "late", f"{heard.ticket} by {after}"
