"""What every history of a ticket must keep to, whatever it holds."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from sla.judge import NEVER, Clock, judge
from sla.log import Announced as AnnouncedEvent
from sla.log import (
    Applied,
    Breached,
    BreachRetracted,
    Cancelled,
    Event,
    FactRecorded,
    Fulfilled,
    State,
    TargetChanged,
    WarningRaised,
)
from sla.ticket import TicketSla
from sla.versions import Versions
from tests.scenarios import SCENARIOS
from tests.scenarios.scenario import Edited
from tests.support.judge_oracle import Truth

ONE_POLICY = [scenario for scenario in SCENARIOS if not any(isinstance(item, Edited) for item in scenario.given)]


def check_step(is_fact: bool, new: list[Event]) -> None:
    """What one message may lead to."""
    kinds = Counter(type(event) for event in new)
    assert is_fact or not kinds[FactRecorded]
    if is_fact:
        assert not kinds[WarningRaised], "recording warns"
        assert kinds[Breached] <= kinds[BreachRetracted], "recording breaks"
    for event in new:
        if isinstance(event, AnnouncedEvent):
            assert event.time <= event.at, "announced before its instant"


def follow(standing: set[str], new: list[Event]) -> set[str]:
    """The breaches that stand after these events."""
    standing = set(standing)
    for event in new:
        match event:
            case Breached():
                assert not standing, "a second breach beside one that stands"
                standing.add(event.id)
            case BreachRetracted():
                standing.remove(event.breach_id)
            case Fulfilled(met=met):
                assert met != bool(standing), "fulfilled late means that a breach stands; in time, that none does"
    return standing


Ending = Applied | TargetChanged | Fulfilled | Cancelled


def check_heard(ticket: TicketSla, versions: Versions, events: Iterable[Event], now: datetime) -> None:
    """After a tick at `now`, whoever only listens believes of each promise what its state says."""
    heard: dict[tuple[str, int], Ending] = {}
    for event in events:
        if isinstance(event, Ending):
            heard[event.objective, event.cycle] = event
    verdict = judge(ticket.facts, versions, now)
    promised = {key: clock for key, clock in verdict.others.items() if clock.phase.promised}
    clocks = {("first_response", 1): verdict.clock, **promised} if verdict.clock else {}
    for key, clock in clocks.items():
        _check_promise(heard[key], (ticket.first if key[0] == "first_response" else ticket.others[key]).state, clock)


def _check_promise(last: Ending, state: State, clock: Clock) -> None:
    match state.stage:
        case "fulfilled":
            assert isinstance(last, Fulfilled)
            assert (last.responded_at, last.met, last.overdue) == (state.responded_at, state.met, state.overdue)
            assert last.elapsed == clock.measure_elapsed(last.responded_at), "what show says"
            assert last.cause == ("responded" if clock.timeline.objective in ANSWERED else "closed")
        case "cancelled" | "excluded":
            assert isinstance(last, Cancelled) and last.state.stage == state.stage
            if state.stage == "excluded":
                assert last.elapsed == last.state.used and state.used == clock.measure_elapsed(clock.find_end(NEVER))
        case "running":
            assert isinstance(last, Applied | TargetChanged), "it was heard that it ended"
            assert (last.state.due_at, last.state.target) == (state.due_at, state.target)


ANSWERED = ("first_response", "next_response", "twin", "update", "each_response")


def check_causes(event: Event, ticket: TicketSla) -> None:
    """A breach is said to be of a change only if one happened at that instant."""
    if isinstance(event, Breached) and event.cause != "deadline_passed":
        assert event.breached_at in {fact.time for fact in ticket.facts}, event.cause


def check_ids(events: list[Event]) -> None:
    ids = [event.id for event in events if isinstance(event, AnnouncedEvent)]
    assert len(ids) == len(set(ids))
    fulfilled = [event for event in events if isinstance(event, Fulfilled)]
    assert [event.revision for event in fulfilled] == list(range(1, len(fulfilled) + 1))
    warned = [(event.threshold, event.state.due_at) for event in events if isinstance(event, WarningRaised)]
    assert len(warned) == len(set(warned)), "one warning for each threshold and deadline"
    assert [event.replaces for event in fulfilled] == [None, *(event.id for event in fulfilled)][: len(fulfilled)]


def get_outcome(state: State) -> State:
    """
    The state apart from what depends on when the engine was told: which warnings were sent, and whether a clock that
    never started was ever announced.
    """
    if (state.stage, state.reason) == ("cancelled", "corrected"):
        return State()
    return replace_fields(state, warned=(), next_at=None)


def replace_fields(state: State, **changes: object) -> State:
    return State(**{name: getattr(state, name) for name in State.__struct_fields__} | changes)


def read_truth(state: State) -> Truth:
    state = get_outcome(state)
    said = {name: getattr(state, name) for name in Truth.__dataclass_fields__}
    if state.opening_id is not None:
        said["opening_id"] = state.opening_id.rpartition("/")[2]
    return Truth(**said)
