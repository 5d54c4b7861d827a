"""What every history of a ticket must keep to, whatever it holds."""

from collections import Counter

from sla.log import Announced as AnnouncedEvent
from sla.log import Breached, BreachRetracted, Event, FactRecorded, Fulfilled, State, WarningRaised
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


def check_ids(events: list[Event]) -> None:
    ids = [event.id for event in events if isinstance(event, AnnouncedEvent)]
    assert len(ids) == len(set(ids))
    fulfilled = [event for event in events if isinstance(event, Fulfilled)]
    assert [event.revision for event in fulfilled] == list(range(1, len(fulfilled) + 1))
    warned = [(event.threshold_percent, event.state.due_at) for event in events if isinstance(event, WarningRaised)]
    assert len(warned) == len(set(warned)), "one warning for each threshold and deadline"
    assert [event.replaces for event in fulfilled] == [None, *(event.id for event in fulfilled)][: len(fulfilled)]


def get_outcome(state: State) -> State:
    """The state apart from what depends on when the engine was told: which warnings were sent."""
    return replace_fields(state, warned_percent=0, next_at=None)


def replace_fields(state: State, **changes: object) -> State:
    return State(**{name: getattr(state, name) for name in State.__struct_fields__} | changes)


def read_truth(state: State) -> Truth:
    said = {name: getattr(state, name) for name in Truth.__dataclass_fields__}
    if state.opening_id is not None:
        said["opening_id"] = state.opening_id.rpartition("/")[2]
    return Truth(**said)
