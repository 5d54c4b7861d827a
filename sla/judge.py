"""The judgement: what a ticket's facts mean for its promises at one instant. Decisions are made of it in decisions.py.

A clock is a timeline of phases (docs/adr/0008-the-clock-is-a-timeline-of-phases.md). Each change of the ticket begins a
phase, which knows the support time used until then, and when the clock runs out:

    facts      opened      priority_changed   paused      resumed     responded
                  |              |              |            |            |
    phases        |-- running ---|-- running ---|.. stops ...|-- running -|
    since       09:00          10:00          11:00        13:00        13:30
    used          0 h            1 h            2 h          2 h        2.5 h
    target        8 h            4 h            4 h          4 h
    due_at      17:00          13:00          13:00        15:00        met: not after 15:00

`Facts` has the facts of a ticket in the order in which they happened, and a `Timeline` of each clock. A late-arriving
fact drops the phases after it, and they are folded again. `judge` returns a `Verdict`: a `Clock` for the first
response, and one for each cycle of the other objectives.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple, assert_never

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ValidationError

from events.tickets import (
    LABEL_CLEANED,
    LABEL_CUT,
    Closed,
    Corrected,
    CustomerReplied,
    DetailsChanged,
    Escalated,
    Excluded,
    ExclusionRevoked,
    FactWithdrawn,
    Opened,
    Paused,
    PolicyChanged,
    PriorityChanged,
    Reopened,
    Responded,
    Resumed,
    ServiceLevelChanged,
    TicketData,
)
from sla.policy import FIRST_RESPONSE, Level, Objective, Policy
from sla.targets import Target, Threshold
from sla.versions import BEFORE_ALL, Versions

ZERO = timedelta(0)
NEVER = datetime.max.replace(tzinfo=UTC)
AT_RISK = Threshold(percent=75)

CycleKey = tuple[str, int]  # an objective, and its cycle from 1
_FactKey = tuple[str, str]  # source and id of a fact


class Fact(Struct, frozen=True):
    """
    Something that happened to a ticket: `time` is when it happened, `recorded_at` when the broker stored it.
    `corrected_by` and `withdrawn_by` are the ids of the facts that corrected and withdrew it, None if nothing did.
    """

    source: str
    id: str
    time: datetime
    data: TicketData
    sequence: str | None
    recorded_at: datetime
    corrected_by: str | None = None
    withdrawn_by: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def asserted_by(self) -> str:
        """The id of the fact that gave it its present content: its own, or that of its last correction."""
        return self.corrected_by or self.id


class Cause(StrEnum):
    """Why a decision was made."""

    OPENED = "opened"
    OPENING_REPLACED = "opening_replaced"
    CUSTOMER_REPLIED = "customer_replied"
    PRIORITY_CHANGED = "priority_changed"
    PRIORITY_RAISED = "priority_raised"
    SERVICE_LEVEL_CHANGED = "service_level_changed"
    POLICY_CHANGED = "policy_changed"
    THRESHOLD_REACHED = "threshold_reached"
    DEADLINE_PASSED = "deadline_passed"
    RESPONDED = "responded"
    ESCALATED = "escalated"
    ANSWERED_IN_TIME = "answered_in_time"
    DEADLINE_MOVED = "deadline_moved"
    CLOSED = "closed"
    REOPENED = "reopened"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXCLUDED = "excluded"
    EXCLUSION_REVOKED = "exclusion_revoked"
    CORRECTED = "corrected"
    DETAILS_CHANGED = "details_changed"
    NO_PROMISE = "no_promise"
    STILL_BROKEN = "still_broken"


class Flag(StrEnum):
    """What is odd about the facts of a ticket: they are kept, and somebody should look."""

    OPENED_AGAIN = "opened_again"
    CHANNEL_NOT_ENTITLED = "channel_not_entitled"
    REOPENED_WITHOUT_CLOSE = "reopened_without_close"
    RESUMED_WITHOUT_PAUSE = "resumed_without_pause"
    REVOKED_WITHOUT_EXCLUSION = "revoked_without_exclusion"
    REASON_NOT_IN_POLICY = "reason_not_in_policy"
    CORRECTS_NOTHING = "corrects_nothing"
    WITHDRAWS_NOTHING = "withdraws_nothing"
    NOT_IN_VERSION = "not_in_version"
    MOVED_BY_CHANGE = "moved_by_change"
    NO_SUCH_OBJECTIVE = "no_such_objective"
    ANSWERED_BEFORE_OPENING = "answered_before_opening"
    ANSWERED_WHILE_CLOSED = "answered_while_closed"
    REPLIED_WHILE_CLOSED = "replied_while_closed"
    ESCALATION_NOT_OFFERED = "escalation_not_offered"
    LABEL_CUT = LABEL_CUT
    LABEL_CLEANED = LABEL_CLEANED


def get_cause(data: TicketData) -> Cause:
    """Return what a decision says as its cause if this kind of fact led to it."""
    match data:
        case Opened():
            return Cause.OPENED
        case PriorityChanged():
            return Cause.PRIORITY_CHANGED
        case ServiceLevelChanged():
            return Cause.SERVICE_LEVEL_CHANGED
        case PolicyChanged():
            return Cause.POLICY_CHANGED
        case Closed():
            return Cause.CLOSED
        case Reopened():
            return Cause.REOPENED
        case Paused():
            return Cause.PAUSED
        case Resumed():
            return Cause.RESUMED
        case Responded():
            return Cause.RESPONDED
        case CustomerReplied():
            return Cause.CUSTOMER_REPLIED
        case DetailsChanged():
            return Cause.DETAILS_CHANGED
        case Escalated():
            return Cause.ESCALATED
        case Excluded():
            return Cause.EXCLUDED
        case ExclusionRevoked():
            return Cause.EXCLUSION_REVOKED
        case Corrected() | FactWithdrawn():
            return Cause.CORRECTED
        case _:
            assert_never(data)


def get_fold_order(fact: Fact) -> tuple[datetime, int, bool, str, str, str]:
    """
    Return the key by which facts are sorted: when they happened; at one instant opened, changes, responded, escalated;
    then `sequence` as text, a fact without it first; then source and id.
    """
    return (fact.time, _get_rank(fact.data), fact.sequence is not None, fact.sequence or "", fact.source, fact.id)


def _get_rank(data: TicketData) -> int:
    """Return the place of a kind of fact among those of one instant."""
    match data:
        case Opened():
            return 0
        case Responded():
            return 2
        case Escalated():
            return 3
        case PriorityChanged() | ServiceLevelChanged() | PolicyChanged() | Closed() | Reopened() | Paused() | Resumed():
            return 1
        case Excluded() | ExclusionRevoked() | Corrected() | FactWithdrawn() | CustomerReplied() | DetailsChanged():
            return 1
        case _:
            assert_never(data)


class Labels(Struct, frozen=True):
    """
    What the facts say of a ticket, whatever its clocks are judged by. `policy` is the version that it was pinned to or
    moved to, and has its level and priority; `left` are those it was in before, the last one first. `closed_by` is the
    fact that closed it, None while it is not; `paused_by` are those that paused it, the first one for each reason.
    Nobody waits for an answer after `answers_until`, None while somebody does. `flags` are those of changes that make
    no sense.
    """

    policy: Policy
    service_level: Level
    priority: str
    left: tuple[Policy, ...] = ()
    closed_by: Fact | None = None
    paused_by: tuple[Fact, ...] = ()
    answers_until: datetime | None = None
    flags: tuple[Flag, ...] = ()

    @property
    def names(self) -> tuple[str, str]:
        """The names of level and priority."""
        return self.service_level.name, self.priority

    def rename(self, policy: Policy, level: str, priority: str) -> "Labels":
        """Return what they are with these names, in this version, which has them."""
        left = self.left
        if policy is not self.policy:
            left = (self.policy, *(each for each in left if each is not policy and each is not self.policy))
        return replace(self, policy=policy, service_level=policy.get_level(level), priority=priority, left=left)

    def add_flag(self, flag: Flag) -> "Labels":
        return self if flag in self.flags else replace(self, flags=(*self.flags, flag))


class Phase(Struct, frozen=True):
    """
    The clock from one change to the next. It is judged by `terms`, which `policy` has for `level`: of a `target` of
    support time, `used` was gone at `since`; it runs out at `due_at`, or would have when it stopped. `set_by` is the
    fact that moved the deadline last, and `cause` what that is called. `labels` follow every change, but a promise that
    broke at `broken_at` stays judged as it was, and in its version of the policy (docs/architecture.md#rule-4).
    `unpromised_by` is the fact since which nothing is promised, None while something is; `promised` that something is
    or was, and `promised_by` the change by which that began, None if it did with the clock.
    """

    since: datetime
    used: timedelta
    policy: Policy
    level: Level
    terms: Target
    target: timedelta
    due_at: datetime
    running: bool
    set_by: Fact
    cause: Cause
    broken_at: datetime | None
    labels: Labels
    promised: bool
    promised_by: Fact | None = None
    unpromised_by: Fact | None = None

    def is_past_due(self, at: datetime) -> bool:
        """Return whether the promise is broken at `at`, which is in this phase, if nobody has responded by then."""
        return self.broken_at is not None or (self.running and at > self.due_at)

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Return the support time used up to `at`, which is in this phase."""
        return self.used + self.terms.hours.measure(self.since, at) if self.running else self.used

    def find_threshold(self, threshold: Threshold) -> datetime | None:
        """Return the earliest instant, not before `since`, at which it is reached; None if it lies before the start."""
        share = threshold.find_share(self.target)
        if share is None:
            return None
        return self.since if share <= self.used else self.terms.hours.find_deadline(self.since, share - self.used)

    def resume_at(self, at: datetime, set_by: Fact, cause: Cause) -> "Phase":
        """
        Return a phase that runs from `at` on, with what is left of the target. If more than the target is used, the
        promise breaks at `at`, never before it (docs/architecture.md#rule-4).
        """
        used = self.measure_elapsed(at)
        if used > self.target:
            cause, due_at = Cause.PRIORITY_RAISED if cause is Cause.PRIORITY_CHANGED else cause, at
        else:
            due_at = self.terms.hours.find_deadline(at, self.target - used)
        return replace(self, since=at, used=used, due_at=due_at, running=True, set_by=set_by, cause=cause)


@dataclass(frozen=True, slots=True)
class Clock:
    """
    The clock of an opened ticket at one instant. `phase` is what it is judged by: the last one up to the response, if
    there is one. `labels` are what the facts say now. `broken_at` is None while the promise holds, `overdue` None
    without a response; `excluded_by` is the exclusion in effect, `revoked_by` the last revocation of one.
    """

    opening: Fact
    phase: Phase
    labels: Labels
    response: Fact | None
    broken_at: datetime | None
    overdue: timedelta | None
    excluded_by: Fact | None
    revoked_by: Fact | None
    escalations: int
    flags: tuple[Flag, ...]
    timeline: "Timeline" = field(compare=False)

    @property
    def started_at(self) -> datetime:
        return self.opening.time

    @property
    def met(self) -> bool | None:
        """
        Whether the response is not later than the deadline, None without a response or a promise. Decided on instants,
        never on spans (docs/architecture.md#rule-1).
        """
        if self.response is None or self.phase.unpromised_by is not None:
            return None
        return self.response.time <= self.phase.due_at

    @property
    def service_level(self) -> Level:
        return self.labels.service_level

    @property
    def priority(self) -> str:
        return self.labels.priority

    @property
    def judged(self) -> Labels:
        """
        What it is judged by: the labels of when it broke, or of before nothing was promised any more, else of its last
        phase (docs/architecture.md#rule-4).
        """
        if self.phase.promised and self.phase.unpromised_by is not None:
            return self.timeline.get_phase_before(self.phase.unpromised_by.time).labels
        broken_at = self.broken_at or self.phase.broken_at
        return (self.phase if broken_at is None else self.timeline.get_phase_at(broken_at)).labels

    @property
    def closed_by(self) -> Fact | None:
        return self.labels.closed_by

    @property
    def paused(self) -> bool:
        """Whether the ticket is paused and its policy lets this clock pause."""
        return bool(self.labels.paused_by) and self.phase.policy.objectives[self.timeline.objective].pauses

    @property
    def running(self) -> bool:
        """Whether time counts towards a deadline that may still be kept."""
        ended = self.response or self.broken_at or self.excluded_by
        return ended is None and self.phase.running

    def find_overdue(self, span: timedelta) -> datetime | None:
        """
        Return when a broken promise is late for so much support time, not before its last phase; None if its clock
        stands still before that.
        """
        assert self.broken_at is not None
        used = self.timeline.get_phase_at(self.broken_at).measure_elapsed(self.broken_at) + span
        if used <= self.phase.used:
            return max(self.phase.since, self.broken_at)
        if not self.phase.running:
            return None
        return self.phase.terms.hours.find_deadline(self.phase.since, used - self.phase.used)

    def find_end(self, now: datetime) -> datetime:
        """Return when it ended, with the response or the exclusion, or `now`. A clock of a closed ticket only stops."""
        return min([now, *(fact.time for fact in (self.response, self.excluded_by) if fact is not None)])

    @property
    def ran_on(self) -> bool:
        """Whether the ticket was closed with its answer, and the clock ran on to it (docs/architecture.md#rule-15)."""
        return self.response is not None and self.phase.running and self.phase.labels.closed_by is not None

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Return the support time used from the opening up to `at`; zero before it."""
        if self.ran_on and at > self.phase.since:
            return self.phase.measure_elapsed(at)
        return self.timeline.measure_elapsed(at) if at > self.started_at else ZERO


class Details(Struct, frozen=True):
    """The labels of a ticket by which nothing is decided; None where nobody has given one."""

    customer: str | None = None
    title: str | None = None
    url: str | None = None
    team: str | None = None
    assignee: str | None = None


class Verdict(Struct, frozen=True):
    """
    What is so at one instant. `clock` is that of the first response, None until the ticket is opened; `cycles` are
    those of every other objective, in turn. `next_fact_at` is when the next fact that is known will happen.
    """

    clock: Clock | None
    escalations: Sequence[Fact]
    next_fact_at: datetime | None
    cycles: Mapping[str, Sequence[Clock]] = {}
    details: Details = Details()

    @property
    def others(self) -> dict[CycleKey, Clock]:
        """The clocks of other objectives, by objective and cycle."""
        return {(name, cycle): clock for name, clocks in self.cycles.items() for cycle, clock in enumerate(clocks, 1)}


@dataclass(slots=True)
class Facts:
    """
    The facts of a ticket, corrected, sorted by `get_fold_order`: `every` has all of them, the other lists those of a
    kind that are not withdrawn. Timelines and clocks are kept from one judgement to the next, so that one more fact
    costs what changed since it happened, not what the ticket has been through (docs/performance.md#one-ticket).
    """

    every: list[Fact] = field(default_factory=list)
    openings: list[Fact] = field(default_factory=list, compare=False)
    changes: list[Fact] = field(default_factory=list, compare=False)
    answers: list[Fact] = field(default_factory=list, compare=False)
    replies: list[Fact] = field(default_factory=list, compare=False)
    closings: list[Fact] = field(default_factory=list, compare=False)
    details: dict[str, list[Fact]] = field(default_factory=dict, compare=False)  # by the label that they give
    flagged: dict[str, list[Fact]] = field(default_factory=dict, compare=False)  # by their flag
    escalations: list[Fact] = field(default_factory=list, compare=False)
    exclusions: "Exclusions" = field(default_factory=lambda: Exclusions(), compare=False)
    _recorded: dict[_FactKey, Fact] = field(default_factory=dict, compare=False)  # without corrections and withdrawals
    _known: dict[_FactKey, Fact] = field(default_factory=dict, compare=False)  # the same, as they are in the lists
    _corrections: dict[_FactKey, "Corrections"] = field(default_factory=dict, compare=False)
    _withdrawals: dict[_FactKey, Fact] = field(default_factory=dict, compare=False)  # the last one of each fact
    _stray_corrections: set[_FactKey] = field(default_factory=set, compare=False)  # of facts that are not known
    _stray_withdrawals: set[_FactKey] = field(default_factory=set, compare=False)
    kept: "Kept" = field(default_factory=lambda: Kept(), compare=False)

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.every)

    @property
    def has_stray_correction(self) -> bool:
        """Whether there is a correction of a fact that is not known."""
        return bool(self._stray_corrections)

    @property
    def has_stray_withdrawal(self) -> bool:
        """Whether there is a withdrawal of a fact that is not known."""
        return bool(self._stray_withdrawals)

    def add(self, fact: Fact) -> None:
        """Add a fact, whenever it happened. One that corrects or withdraws another comes before that or after it."""
        match fact.data:
            case Corrected(corrects=id):
                key = (fact.source, id)
                if key not in self._corrections:
                    self._corrections[key] = Corrections(self._recorded.get(key))
                self._corrections[key].add(fact)
                self._put(fact)
            case FactWithdrawn(withdraws=id):
                key = (fact.source, id)
                self._withdrawals[key] = max(self._withdrawals.get(key, fact), fact, key=get_fold_order)
                self._put(fact)
            case _:
                key = _make_fact_key(fact)
                self._recorded[key] = fact
                if key in self._corrections:
                    self._corrections[key].correct(fact)
        for strays, known in (
            (self._stray_corrections, self._corrections),
            (self._stray_withdrawals, self._withdrawals),
        ):
            (strays.add if key in known and key not in self._recorded else strays.discard)(key)
        if key in self._recorded:
            self._refresh(key)

    def _refresh(self, key: _FactKey) -> None:
        """Put a fact where it belongs, corrected or withdrawn as it is now."""
        fact, withdrawal = self._recorded[key], self._withdrawals.get(key)
        if withdrawal is not None:
            fact = replace(fact, withdrawn_by=withdrawal.id)
        elif key in self._corrections:
            fact = self._corrections[key].build()
        before = self._known.get(key)
        if before is not None:
            self._remove(before)
        self._known[key] = fact
        self._put(fact)

    def copy_with(self, fact: Fact) -> "Facts":
        """Return the same facts and one more; these stay as they are."""
        more = Facts()
        for each in self.every:
            more.add(self._recorded.get(_make_fact_key(each), each))
        more.add(fact)
        return more

    def _put(self, fact: Fact) -> None:
        for facts in (self.every, *self._list_flagged(fact), *self._find_lists(fact)):
            _insert_sorted(facts, fact)
        self._note(fact)

    def _remove(self, fact: Fact) -> None:
        for facts in (self.every, *self._list_flagged(fact), *self._find_lists(fact)):
            _remove_sorted(facts, fact)
        self._note(fact)

    def _list_flagged(self, fact: Fact) -> Sequence[list[Fact]]:
        return [] if fact.withdrawn_by is not None else [self.flagged.setdefault(flag, []) for flag in fact.flags]

    def _find_lists(self, fact: Fact) -> Sequence[list[Fact]]:
        """Return the lists of its kind, beside `every`; none if it was withdrawn."""
        if fact.withdrawn_by is not None:
            return ()
        match fact.data:
            case Opened():
                return (self.openings,)
            case PriorityChanged() | ServiceLevelChanged() | PolicyChanged() | Reopened():
                return (self.changes,)
            case Closed():
                return (self.changes, self.closings)
            case Paused() | Resumed():
                return (self.changes,)
            case Responded(by=by):
                # an automatic acknowledgement is not a first response
                return (self.changes, self.answers) if by == "agent" else ()
            case CustomerReplied():
                return (self.changes, self.replies)
            case Escalated(by=by):
                return (self.escalations,) if by is None else (self.changes, self.escalations)
            case Excluded() | ExclusionRevoked():
                return self.exclusions.find_lists(fact.data)
            case DetailsChanged() as data:
                given = [name for name in Details.__struct_fields__ if getattr(data, name) is not None]
                return [self.details.setdefault(name, []) for name in given]
            case Corrected() | FactWithdrawn():
                return ()
            case _:
                assert_never(fact.data)

    def _note(self, fact: Fact) -> None:
        """Note what of that which is kept does not hold any more; a fact that was withdrawn changes nothing."""
        if fact.withdrawn_by is not None:
            return
        match fact.data:
            case Excluded(reason=reason) | ExclusionRevoked(reason=reason):
                self.exclusions.note(reason)
                self.kept.forget_clocks(BEFORE_ALL, NEVER)
            case Escalated(by=by):
                self.kept.forget_clocks(fact.time, NEVER)
                if by is not None:
                    self.kept.forget_phases(fact.time)
            case Opened() | Corrected() | FactWithdrawn() | DetailsChanged():
                pass
            case _:
                self.kept.forget_phases(fact.time)


def _make_fact_key(fact: Fact) -> _FactKey:
    return (fact.source, fact.id)


def _insert_sorted(facts: list[Fact], fact: Fact) -> None:
    if facts and get_fold_order(fact) < get_fold_order(facts[-1]):
        insort(facts, fact, key=get_fold_order)
    else:
        facts.append(fact)


def _remove_sorted(facts: list[Fact], fact: Fact) -> None:
    del facts[bisect_left(facts, get_fold_order(fact), key=get_fold_order)]


class Corrections:
    """
    The corrections of one fact, the last of those that give a member for each member. Members that its kind does not
    have are left out, and so is what a correction says of the data if it would make them invalid.
    """

    __slots__ = ("_last", "_recorded_at", "_right", "_waiting", "original")

    def __init__(self, original: Fact | None) -> None:
        self.original = original
        self._waiting: list[Fact] = []  # until that is known
        self._right: dict[str, tuple[Fact, object]] = {}
        self._last: Fact | None = None
        self._recorded_at: datetime | None = None

    def add(self, correction: Fact) -> None:
        """Add one, in whatever order they come."""
        if self.original is None:
            self._waiting.append(correction)
            return
        data = correction.data
        assert isinstance(data, Corrected)
        if self._last is None or get_fold_order(self._last) < get_fold_order(correction):
            self._last = correction
        self._recorded_at = max(self._recorded_at or correction.recorded_at, correction.recorded_at)
        given = data.model_dump(exclude={"corrects", "time"}, exclude_none=True)
        kind = type(self.original.data)
        given = {name: value for name, value in given.items() if name in kind.model_fields}
        try:
            kind.model_validate(self.original.data.model_dump() | given)
        except ValidationError:
            given = {}
        if data.time is not None:
            given["time"] = data.time
        for name, value in given.items():
            if name not in self._right or get_fold_order(self._right[name][0]) < get_fold_order(correction):
                self._right[name] = (correction, value)

    def correct(self, original: Fact) -> None:
        """Correct this fact, which they waited for."""
        self.original = original
        for correction in self._waiting:
            self.add(correction)
        self._waiting.clear()

    def build(self) -> Fact:
        """Return the fact as corrected: it is replaced from the start."""
        assert self.original is not None and self._last is not None and self._recorded_at is not None
        right = {name: value for name, (_, value) in self._right.items()}
        time = right.pop("time", self.original.time)
        return replace(
            self.original,
            data=self.original.data.model_copy(update=right),
            time=time,
            recorded_at=max(self.original.recorded_at, self._recorded_at),
            corrected_by=self._last.id,
        )


class Exclusions:
    """The exclusions of a ticket and their revocations, and which of them are in effect."""

    __slots__ = ("_in_effect", "_last", "_revoked_first", "by_reason", "every", "revocations")

    def __init__(self) -> None:
        self.every: list[Fact] = []
        self.revocations: list[Fact] = []
        self.by_reason: dict[str, list[Fact]] = {}
        self._last: dict[str, Fact] = {}  # that is not revoked, by reason
        self._in_effect: list[Fact] = []
        self._revoked_first: set[str] = set()

    @property
    def is_revoked_first(self) -> bool:
        """Whether one was revoked that was not there."""
        return bool(self._revoked_first)

    def find_lists(self, data: Excluded | ExclusionRevoked) -> Sequence[list[Fact]]:
        """Return the lists that a fact is in."""
        of_reason = self.by_reason.setdefault(data.reason, [])
        return (self.every, of_reason) if isinstance(data, Excluded) else (self.every, of_reason, self.revocations)

    def note(self, reason: str) -> None:
        """Note that a fact of this reason came or went."""
        facts = self.by_reason.get(reason)
        before = self._last.pop(reason, None)
        if before is not None:
            _remove_sorted(self._in_effect, before)
        self._revoked_first.discard(reason)
        if not facts:
            self.by_reason.pop(reason, None)
            return
        if isinstance(facts[-1].data, Excluded):
            self._last[reason] = facts[-1]
            _insert_sorted(self._in_effect, facts[-1])
        if isinstance(facts[0].data, ExclusionRevoked):
            self._revoked_first.add(reason)

    def select_until(self, now: datetime) -> "Exclusions":
        """Return those that have happened by now."""
        if not self.every or self.every[-1].time <= now:
            return self
        happened = Exclusions()
        for fact in self.every[: _count_until(self.every, now)]:
            assert isinstance(fact.data, Excluded | ExclusionRevoked)
            for facts in happened.find_lists(fact.data):
                facts.append(fact)
        for reason in happened.by_reason:
            happened.note(reason)
        return happened

    def find_in_effect(self, policy: Policy) -> Fact | None:
        """Return the last exclusion in effect: the policy has its reason, which has not been revoked since."""
        return next((fact for fact in reversed(self._in_effect) if policy.can_exclude(_get_reason(fact) or "")), None)

    def are_in(self, policy: Policy) -> bool:
        """Return whether the policy has all the reasons."""
        return not policy.exclusions or self.by_reason.keys() <= set(policy.exclusions)


def _get_reason(fact: Fact) -> str | None:
    return fact.data.reason if isinstance(fact.data, Excluded | ExclusionRevoked | Paused) else None


class Cycle(NamedTuple):
    """A clock of an objective: from `start` to `stop`, if there is one; `until` the next one starts, if one does."""

    start: Fact
    stop: Fact | None
    until: datetime
    timeline: "Timeline"


class Kept:
    """
    What is kept of a judgement for the next one: the timeline of the first response, the cycles of every other
    objective, and up to when no answer to each clock has been found. `valid` cycles of each are as they were judged,
    and so may be those that start after `changed_until`.
    """

    __slots__ = ("_exclusions", "_silent_until", "base", "changed_until", "clocks", "cycles", "valid")

    def __init__(self) -> None:
        self.base: Timeline | None = None
        self.cycles: dict[str, list[Cycle]] = {}
        self.clocks: dict[str, list[Clock]] = {}
        self.valid: dict[str, int] = {}
        self.changed_until = BEFORE_ALL
        self._exclusions = 0
        self._silent_until: dict[str, tuple[Fact, datetime]] = {}

    def forget_phases(self, time: datetime) -> None:
        """Forget what follows from a change at this time."""
        if self.base is not None:
            self.base.truncate(time)
        for cycles in self.cycles.values():
            for place in range(bisect_left(cycles, time, key=_get_until), len(cycles)):
                if cycles[place].start.time > time:
                    break
                cycles[place].timeline.truncate(time)
        self.forget_clocks(time, time)

    def forget_clocks(self, since: datetime, until: datetime) -> None:
        """Forget what follows from anything else between two times; a cycle that starts later may be as it was."""
        self.changed_until = max(self.changed_until, until)
        for name, cycles in self.cycles.items():
            self.valid[name] = bisect_left(cycles, since, hi=self.valid[name], key=_get_until)
        for name, (start, silent_until) in self._silent_until.items():
            self._silent_until[name] = (start, min(silent_until, since))

    def begin_anew(self, base: "Timeline") -> None:
        """Keep the timeline of another opening, and of each other objective what may still be so."""
        if self.base is not None:
            base.adopt(self.base)
        self.base = base
        for name in self.cycles.keys() - base.policy.objectives.keys():
            del self.cycles[name], self.clocks[name], self.valid[name]
        self.valid = dict.fromkeys(self.cycles, 0)
        self._silent_until.clear()

    def count_exclusions(self, number: int) -> None:
        """Forget the clocks if another number of exclusions has happened than at the judgement before."""
        if number != self._exclusions:
            self.forget_clocks(BEFORE_ALL, NEVER)
        self._exclusions = number

    def get_silence(self, objective: str, start: Fact) -> datetime:
        """Return up to when it is known that there is no answer to this clock."""
        known, silent_until = self._silent_until.get(objective, (start, BEFORE_ALL))
        return silent_until if known is start else BEFORE_ALL

    def keep_silence(self, objective: str, start: Fact, silent_until: datetime) -> None:
        """Keep up to when there is no answer to this clock."""
        self._silent_until[objective] = (start, silent_until)


def _get_until(cycle: Cycle) -> datetime:
    return cycle.until


def judge(facts: Facts, versions: Versions, now: datetime) -> Verdict:
    """
    Fold the facts that have happened by `now`. Pure, but for what is kept: the same facts give the same verdict, in
    whatever order they arrived. Total: what no version of the policy has a name for changes nothing, and is flagged.
    """
    happened = _count_until(facts.every, now)
    escalations = facts.escalations[: _count_until(facts.escalations, now)]
    next_fact_at = facts.every[happened].time if happened < len(facts.every) else None
    base = _find_base(facts, versions, now)
    if base is None:
        return Verdict(None, escalations, next_fact_at)
    base.fold(facts.changes, now)
    facts.kept.count_exclusions(_count_until(facts.exclusions.every, now))
    first = _judge_clock(facts, base, _find_response(FIRST_RESPONSE, base.start, None, facts, base, now), now)
    cycles = {
        objective.name: _judge_cycles(objective, facts, first, now)
        for objective in base.policy.objectives.values()
        if objective.name != FIRST_RESPONSE
    }
    facts.kept.changed_until = BEFORE_ALL
    return Verdict(first, escalations, next_fact_at, cycles, _find_details(base.start, facts, now))


def _find_details(opening: Fact, facts: Facts, now: datetime) -> Details:
    """Return the labels by now: of each the latest by time, of the opening or of a change."""
    found = {}
    for name in Details.__struct_fields__:
        given, changes = getattr(opening.data, name), facts.details.get(name, ())
        if (count := _count_until(changes, now)) and (given is None or changes[count - 1].time >= opening.time):
            given = getattr(changes[count - 1].data, name)
        found[name] = given
    return Details(**found)


def _find_base(facts: Facts, versions: Versions, now: datetime) -> "Timeline | None":
    """Return the timeline of the first response, from the first opening that a version of the policy can judge."""
    for opening in facts.openings:
        if opening.time > now:
            return None
        kept = facts.kept.base
        if kept is not None and kept.start is opening and kept.versions is versions:
            return kept
        if (labels := _read_labels(opening, versions)) is not None:
            base = Timeline(FIRST_RESPONSE, opening, versions, labels, labels.policy)
            facts.kept.begin_anew(base)
            return base
    return None


def _judge_cycles(objective: Objective, facts: Facts, first: Clock, now: datetime) -> list[Clock]:
    """Judge each cycle of another objective as the first response is judged; those that are kept are as they were."""
    base, kept = first.timeline, facts.kept
    cycles, clocks = kept.cycles.setdefault(objective.name, []), kept.clocks.setdefault(objective.name, [])
    valid = bisect_right(cycles, now, hi=kept.valid.get(objective.name, 0), key=_get_until)
    find_cycles = _find_response_cycles if objective.stops == "responded" else _find_resolution_cycles
    found = list(find_cycles(objective, facts, first, now, cycles[:valid]))
    for n, (start, stop) in enumerate(found, valid):
        until = found[n + 1 - valid][0].time if n + 1 - valid < len(found) else NEVER
        labels, policy = (base.given, base.policy) if start is base.start else _find_labels(start, objective, base)
        before = cycles[n] if n < len(cycles) else None
        if before is not None and before.timeline.begins_with(start, base.versions, labels):
            timeline = before.timeline
            if start.time > kept.changed_until and until <= now and before == (start, stop, until, timeline):
                continue
        else:
            timeline = Timeline(objective.name, start, base.versions, labels, policy)
            if before is not None and start is base.start:
                timeline.adopt(before.timeline)
        timeline.drop_after(until)
        timeline.fold(facts.changes, min(now, until))
        cycles[n : n + 1] = [Cycle(start, stop, until, timeline)]
        clocks[n : n + 1] = [_judge_clock(facts, timeline, stop, now, until)]
    del cycles[valid + len(found) :], clocks[valid + len(found) :]
    kept.valid[objective.name] = len(cycles)
    return clocks.copy()


def _find_response_cycles(
    objective: Objective, facts: Facts, first: Clock, now: datetime, kept: Sequence[Cycle]
) -> Iterator[tuple[Fact, Fact | None]]:
    """
    Find what starts and what stops a clock that waits for a response, after those that are kept: it starts with the
    opening, with each reply of the customer after an answer, or with each answer. One that has not stopped is the last.
    """
    stop, has_cycle = kept[-1].stop if kept else first.response, bool(kept)
    if not has_cycle and "opened" in objective.starts:
        yield first.opening, stop
        has_cycle = True
    while stop is not None and (objective.repeats or not has_cycle):
        start, since = _find_start(objective, stop, facts, first.opening)
        if start is None or start.time > now:
            return
        stop, has_cycle = _find_response(objective.name, start, since, facts, first.timeline, now), True
        yield start, stop


def _find_start(objective: Objective, answer: Fact, facts: Facts, opening: Fact) -> tuple[Fact | None, datetime]:
    """
    Return what starts a clock once this answer has stopped the one before, None if nothing does, and from when on an
    answer stops it. Answers of one instant are one, and one from before the opening is given with it; where the opening
    starts a clock, replies from before it wait with that.
    """
    if "responded" in objective.starts:
        start = max(answer, opening, key=_get_time)
        return start, start.time + timedelta.resolution
    until = max(answer, opening, key=_get_time) if "opened" in objective.starts else answer
    after = bisect_right(facts.replies, until.time, key=_get_time)  # what came before waited with the one before
    if "customer_replied" not in objective.starts or after == len(facts.replies):
        return None, NEVER
    return facts.replies[after], facts.replies[after].time


def _find_resolution_cycles(
    objective: Objective, facts: Facts, first: Clock, now: datetime, kept: Sequence[Cycle]
) -> Iterator[tuple[Fact, Fact | None]]:
    """
    Find what starts and what stops a clock that runs until the ticket is closed, after those that are kept. One that
    repeats starts again with each reopening; otherwise the same clock goes on when the ticket is reopened.
    """
    base = first.timeline
    if not objective.repeats:
        yield base.start, base.get_phase_at(now).labels.closed_by
        return
    changeovers = base.get_changeovers(now)
    for n in range(len(kept), len(changeovers) // 2 + 1):
        yield changeovers[2 * n - 1] if n else base.start, changeovers[2 * n] if 2 * n < len(changeovers) else None


def _find_labels(start: Fact, objective: Objective, base: "Timeline") -> tuple[Labels, Policy]:
    """
    Return what the facts say when another clock begins, and the version that judges it: the last one that the ticket
    was in by then and that can, even if the first response stayed in its version, given or broken. Who replies to a
    closed ticket waits all the same.
    """
    labels = base.get_phase_at(start.time).labels
    if isinstance(start.data, CustomerReplied):
        labels = replace(labels, closed_by=None)
    for policy in (labels.policy, *labels.left):
        if objective.name in policy.objectives and not policy.find_missing(*labels.names):
            return labels, policy
    opened = base.given  # no version has the objective and the names, but that of the opening has those of the opening
    return labels.rename(base.policy, *opened.names), base.policy


def _get_time(fact: Fact) -> datetime:
    return fact.time


def _count_until(facts: Sequence[Fact], now: datetime) -> int:
    """Return how many have happened by `now`."""
    return bisect_right(facts, now, key=_get_time)


def _judge_clock(
    facts: Facts, timeline: "Timeline", response: Fact | None, now: datetime, until: datetime = NEVER
) -> Clock:
    """Judge one clock. Once the next cycle has begun, at `until`, its labels are what the facts said then."""
    until = min(now, until)
    exclusions = facts.exclusions.select_until(now)
    labels = timeline.get_phase_at(until).labels
    end = until if response is None else max(response.time, timeline.start.time)  # a change after that alters nothing
    phase = timeline.get_phase_at(end)
    if response is not None and not phase.running and phase.unpromised_by is None:
        phase = _run_on(timeline, phase, response, end)
    answered_in_time = response is not None and response.time <= phase.due_at
    excluded_by = exclusions.find_in_effect(phase.policy)
    broken = excluded_by is None and not answered_in_time and phase.is_past_due(now)
    is_first = timeline.objective == FIRST_RESPONSE
    return Clock(
        opening=timeline.start,
        phase=phase,
        labels=labels,
        response=response,
        broken_at=phase.due_at if broken else None,
        overdue=_measure_overdue(timeline, phase, response),
        excluded_by=excluded_by,
        revoked_by=exclusions.revocations[-1] if exclusions.revocations else None,
        escalations=_count_until(facts.escalations, until),
        flags=_collect_flags(facts, timeline, labels, phase.policy, exclusions, response, now) if is_first else (),
        timeline=timeline,
    )


def _run_on(timeline: "Timeline", phase: Phase, response: Fact, end: datetime) -> Phase:
    """
    Return the phase of an answer that came while the clock stood still. After a close the clock ran on to it, as it was
    then; of a pause whoever answers does not wait any longer.
    """
    closed_by = phase.labels.closed_by
    if closed_by is not None and closed_by.time < response.time and not isinstance(response.data, Closed):
        at_close = timeline.get_phase_at(closed_by.time)
        if not (at_close.labels.paused_by and phase.policy.objectives[timeline.objective].pauses):
            return replace(at_close, running=True)
    return phase if phase.broken_at is not None else phase.resume_at(end, phase.set_by, phase.cause)


def _find_response(
    objective: str, start: Fact, since: datetime | None, facts: Facts, base: "Timeline", now: datetime
) -> Fact | None:
    """
    Return the first answer in [since, now] that somebody waits for: not while the ticket was closed, but for the time
    that the policy gives to whoever answers and closes with one button, and for a reply of the customer since
    (docs/architecture.md#rule-15). `since` None: from the first answer on, before the opening too.
    """
    answers = facts.answers
    silent_until = facts.kept.get_silence(objective, start)
    place, last = (
        bisect_left(answers, max(since or BEFORE_ALL, silent_until), key=_get_time),
        _count_until(answers, now),
    )
    while place < last:
        answer = answers[place]
        waits_at = _find_waiting(answer.time, isinstance(start.data, CustomerReplied), facts, base)
        if waits_at == answer.time:
            facts.kept.keep_silence(objective, start, answer.time)
            return answer
        place = bisect_left(answers, waits_at, lo=place, key=_get_time)
    facts.kept.keep_silence(objective, start, max(now, silent_until))
    return None


def _find_waiting(time: datetime, awaits_replies: bool, facts: Facts, base: "Timeline") -> datetime:
    """Return this time if somebody waits for an answer then, else when somebody does again; NEVER if nobody will."""
    closed_by, reopened_at = base.find_closing(time)
    if closed_by is None:
        return time
    closed_at, following = closed_by.time, len(facts.replies)
    if awaits_replies:  # the last reply to the closed ticket opens it for this clock, and another close ends that
        following = _count_until(facts.replies, time)
        replied_at = facts.replies[following - 1].time if following else BEFORE_ALL
        if replied_at > closed_at:
            place = _count_until(facts.closings, replied_at)
            closed_at = facts.closings[place].time if place < len(facts.closings) else NEVER
    if time <= closed_at or time - closed_at <= base.get_phase_at(closed_at).labels.policy.closing_answer:
        return time
    return min(reopened_at, facts.replies[following].time) if following < len(facts.replies) else reopened_at


def _measure_overdue(timeline: "Timeline", phase: Phase, response: Fact | None) -> timedelta | None:
    """Return the support time between deadline and response; zero if it was met, None if there is no response."""
    if response is None or phase.unpromised_by is not None:
        return None
    if response.time <= phase.due_at:
        return ZERO
    judged = phase if phase.since <= phase.due_at else timeline.get_phase_at(phase.due_at)
    return phase.measure_elapsed(response.time) - judged.measure_elapsed(phase.due_at)


def _collect_flags(
    facts: Facts,
    timeline: "Timeline",
    labels: Labels,
    policy: Policy,
    exclusions: Exclusions,
    response: Fact | None,
    now: datetime,
) -> tuple[Flag, ...]:
    flags = labels.flags
    if response is not None and response.time < timeline.start.time:
        flags += (Flag.ANSWERED_BEFORE_OPENING,)
    if _count_until(facts.openings, now) > 1:
        flags += (Flag.OPENED_AGAIN,)
    if not _is_entitled(timeline):
        flags += (Flag.CHANNEL_NOT_ENTITLED,)
    if exclusions.is_revoked_first:
        flags += (Flag.REVOKED_WITHOUT_EXCLUSION,)
    if not timeline.policy.objectives.keys() <= labels.policy.objectives.keys():
        flags += (Flag.NO_SUCH_OBJECTIVE,)
    if not exclusions.are_in(policy):
        flags += (Flag.REASON_NOT_IN_POLICY,)
    flags += tuple(Flag(name) for name, facts_of in sorted(facts.flagged.items()) if _count_until(facts_of, now))
    if facts.has_stray_correction:
        flags += (Flag.CORRECTS_NOTHING,)
    if facts.has_stray_withdrawal:
        flags += (Flag.WITHDRAWS_NOTHING,)
    return flags


def _is_entitled(timeline: "Timeline") -> bool:
    """
    Return whether a ticket of this level and priority may come by its channel (docs/policy.md). A level without
    channels takes any.
    """
    opened = timeline.start.data
    assert isinstance(opened, Opened)
    channels = timeline.given.service_level.channels
    return not channels or opened.channel is None or opened.priority in channels.get(opened.channel, ())


class _Dropped(NamedTuple):
    """
    The end of a timeline that was dropped, with the phase before it. It is as it was again from the first instant after
    all that changed, `changed_until`, at which the same phase begins.
    """

    times: list[datetime]
    phases: list[Phase]
    changeovers: list[Fact]
    changed_until: datetime


class Timeline:
    """
    A clock from its start on, a phase for each change. Used time is kept, and hours and target are replaced: time
    before a change counts under the old hours, time after it under the new ones (docs/architecture.md#rule-4 and
    rule-14). Time in which the ticket is closed, or paused where the policy lets it, does not count: what is left of
    the target is left then too. Several changes at one instant count as the last of them, each for what it changes.
    `given` are the labels with which it begins, and `policy` is the version that judges it then.
    """

    __slots__ = (
        *("objective", "start", "versions", "given", "policy", "awaits_replies"),
        *("_phases", "_times", "_changeovers", "_dropped", "_measured"),
    )

    def __init__(self, objective: str, start: Fact, versions: Versions, given: Labels, policy: Policy) -> None:
        self.objective, self.start, self.versions, self.given, self.policy = objective, start, versions, given, policy
        self.awaits_replies = isinstance(start.data, CustomerReplied)
        level, found = policy.get_level(given.service_level.name), policy.find_target(*given.names, objective)
        terms = found or Target(ZERO, level.hours, level.name)
        self._measured: dict[Target, timedelta] = {}
        target = self._measure_target(terms)
        first = Phase(
            since=start.time,
            used=ZERO,
            policy=policy,
            level=level,
            terms=terms,
            target=target,
            due_at=terms.hours.find_deadline(start.time, target),
            running=found is not None and _is_running(given, policy.objectives[objective]),
            set_by=start,
            cause=get_cause(start.data),
            broken_at=None,
            labels=given,
            promised=found is not None,
            unpromised_by=None if found else start,
        )
        self._phases = [first]
        self._times: list[datetime] = []  # of the changes that are folded: a phase begins at each
        self._changeovers: list[Fact] = []  # what closed the ticket and what reopened it, in turn
        self._dropped: _Dropped | None = None  # since the last fold

    def truncate(self, time: datetime) -> None:
        """Drop the phases that begin at this time or later: a change at this time came or went."""
        if time < self.start.time:
            return
        kept, changeovers = bisect_left(self._times, time), bisect_left(self._changeovers, time, key=_get_time)
        before = self._dropped or _Dropped([], [self._phases[-1]], [], time)
        self._dropped = _Dropped(
            self._times[kept:] + before.times,
            self._phases[kept:] + before.phases[1:],
            self._changeovers[changeovers:] + before.changeovers,
            max(before.changed_until, time),
        )
        del self._times[kept:], self._phases[kept + 1 :], self._changeovers[changeovers:]

    def drop_after(self, time: datetime) -> None:
        """Drop the phases that begin after this time, for good."""
        times = self._times if self._dropped is None else self._dropped.times
        if times and times[-1] > time:
            kept, changeovers = bisect_right(self._times, time), bisect_right(self._changeovers, time, key=_get_time)
            del self._times[kept:], self._phases[kept + 1 :], self._changeovers[changeovers:]
            self._dropped = None

    def begins_with(self, start: Fact, versions: Versions, given: Labels) -> bool:
        """Return whether it begins with this."""
        return self.versions is versions and (self.start, self.given) == (start, given)

    def adopt(self, other: "Timeline") -> None:
        """Take over the phases of a timeline with another beginning, from the first one on that is the same again."""
        if self.versions is other.versions and not any(version.policy.names_days for version in self.versions):
            other.truncate(max(self.start.time, other.start.time))
            self._dropped = other._dropped

    def fold(self, changes: Sequence[Fact], now: datetime) -> None:
        """Fold the changes up to `now` that are not folded yet. Those before the start are superseded by it."""
        first, last = bisect_left(changes, self.start.time, key=_get_time), _count_until(changes, now)
        place = first + len(self._times)
        while place < last:
            time, end = changes[place].time, place + 1
            while end < last and changes[end].time == time:
                end += 1
            self._fold_instant(changes[place:end])
            self._rejoin(time)
            place = first + len(self._times)
        self._dropped = None

    def iterate_phases(self, until: datetime) -> Iterator[tuple[datetime, datetime, Phase]]:
        """Yield from when to when each phase holds, up to an instant; changes at one instant begin one phase."""
        edges = [self.start.time, *self._times]
        for since, end, phase in zip(edges, [*edges[1:], NEVER], self._phases, strict=True):
            if since <= until and since < end:
                yield since, min(end, until), phase

    def get_changeovers(self, now: datetime) -> Sequence[Fact]:
        """
        Return the facts that closed the ticket by `now`, and those that reopened it, in turn, by what is so at the end
        of each instant.
        """
        return self._changeovers[: _count_until(self._changeovers, now)]

    def find_reopened_by(self, now: datetime) -> Fact | None:
        """Return the last fact that reopened the ticket, None if it is closed by `now` or never was."""
        count = _count_until(self._changeovers, now)
        last = self._changeovers[count - 1] if count else None
        return None if last is None or isinstance(last.data, Closed) else last

    def find_closing(self, time: datetime) -> tuple[Fact | None, datetime]:
        """
        Return what closed the ticket, if it is closed before and after this time, None if not; and when it is reopened,
        NEVER if it is not.
        """
        place = bisect_left(self._changeovers, time, key=_get_time)
        reopened_at = self._changeovers[place].time if place < len(self._changeovers) else NEVER
        return (self._changeovers[place - 1] if place % 2 and reopened_at > time else None), reopened_at

    def measure_elapsed(self, at: datetime) -> timedelta:
        """Return the support time used from the start up to `at`, which is not before it."""
        return self.get_phase_at(at).measure_elapsed(at)

    def get_phase_at(self, time: datetime) -> Phase:
        """Return the phase after all that happened at this time."""
        return self._phases[bisect_right(self._times, time)]

    def get_phase_before(self, time: datetime) -> Phase:
        """Return the phase before all that happened at this time; the first one if it begins then."""
        return self._phases[bisect_left(self._times, time)]

    def _fold_instant(self, changes: Sequence[Fact]) -> None:
        """Fold the changes of one instant."""
        before = self._phases[-1]
        phases = [before]
        for change in changes:
            phase = phases[-1]
            labels = _apply_change(phase.labels, change, changes, self.versions)
            if self.awaits_replies and isinstance(change.data, CustomerReplied) and labels.closed_by is not None:
                labels = replace(labels, closed_by=None)
            phases.append(phase if labels is phase.labels else replace(phase, labels=labels))
        labels = _hear_messages(before.labels, phases[-1].labels, changes)
        if labels is not phases[-1].labels:
            phases[-1] = replace(phases[-1], labels=labels)
        phases[-1] = self._end_instant(changes, phases)
        self._times += [change.time for change in changes]
        self._phases += phases[1:]
        was_closed_by, closed_by = before.labels.closed_by, phases[-1].labels.closed_by
        if closed_by is None and was_closed_by is not None:
            self._changeovers.append(_find_mover(changes, phases, attrgetter("closed_by")))
        elif closed_by is not None and was_closed_by is None:
            self._changeovers.append(closed_by)

    def _rejoin(self, time: datetime) -> None:
        """Put back what was dropped, from the phase after this time on, if that is as it was."""
        dropped = self._dropped
        if dropped is None or time < dropped.changed_until:
            return
        place = bisect_right(dropped.times, time)
        if self._phases[-1] == dropped.phases[place]:
            self._times += dropped.times[place:]
            self._phases += dropped.phases[place + 1 :]
            self._changeovers += dropped.changeovers[bisect_right(dropped.changeovers, time, key=_get_time) :]
            self._dropped = None

    def _end_instant(self, changes: Sequence[Fact], phases: Sequence[Phase]) -> Phase:
        """
        Return the phase that the changes of one instant begin. `phases` are the one before them and one for each, which
        differ in their labels alone.
        """
        phase, now = phases[-1], changes[-1].time
        if phase.broken_at is None and phase.is_past_due(now):
            phase = replace(phase, broken_at=phase.due_at)
        policy = self._find_policy(phase)
        rule, level, terms = policy.objectives[self.objective], phase.level, phase.terms
        is_promised = was_promised = phase.unpromised_by is None
        if phase.broken_at is None and not policy.find_missing(*phase.labels.names):
            level = policy.get_level(phase.labels.service_level.name)
            found = policy.find_target(*phase.labels.names, self.objective)
            terms, is_promised = found or terms, found is not None
        if is_promised is not was_promised:
            phase = _set_promised(phase, _find_mover(changes, phases, _get_names), is_promised)
        runs = is_promised and _is_running(phase.labels, rule)
        target = self._measure_target(terms)
        if (terms.hours, target, runs) == (phase.terms.hours, phase.target, phase.running):
            return phase if terms is phase.terms else replace(phase, policy=policy, level=level, terms=terms)
        changed = replace(
            phase, since=now, used=phase.measure_elapsed(now), policy=policy, level=level, terms=terms, target=target,
            running=runs,
        )  # fmt: skip
        if phase.broken_at is not None or (not runs and not phase.running and was_promised):
            return changed
        if not runs:  # due as it would be if it went on at once
            return replace(changed.resume_at(now, phase.set_by, phase.cause), running=False)
        if not phase.running:
            set_by = _find_mover(changes, phases, partial(self._lets_run, rule=rule) if was_promised else _get_names)
        elif terms.hours is not phase.terms.hours and level is not phase.level:
            set_by = _find_mover(changes, phases, attrgetter("service_level"))
        else:
            set_by = _find_mover(changes, phases, attrgetter("priority", "service_level"))
        return changed.resume_at(now, set_by, get_cause(set_by.data))

    def _find_policy(self, phase: Phase) -> Policy:
        """
        Return the version that judges the clock from now on: that of the ticket, but for what is broken, and for an
        objective that it does not have.
        """
        moves = phase.broken_at is None and self.objective in phase.labels.policy.objectives
        return phase.labels.policy if moves else phase.policy

    def _measure_target(self, terms: Target) -> timedelta:
        """Return the support time promised as from the start, which is found out once."""
        if terms not in self._measured:
            self._measured[terms] = terms.measure(self.start.time)
        return self._measured[terms]

    def _lets_run(self, labels: Labels, rule: Objective) -> bool:
        """Return whether the clock runs with these labels, by the rule of their version, or else by this one."""
        return _is_running(labels, labels.policy.objectives.get(self.objective, rule))


def _is_running(labels: Labels, rule: Objective) -> bool:
    return labels.closed_by is None and not (rule.pauses and labels.paused_by)


def _get_names(labels: Labels) -> tuple[object, ...]:
    """Return all that says what is promised."""
    return (labels.policy, *labels.names)


def _set_promised(phase: Phase, mover: Fact, is_promised: bool) -> Phase:
    """Return the phase once this fact has promised something, or nothing any more."""
    if not is_promised:
        return replace(phase, unpromised_by=mover)
    promised_by = phase.promised_by if phase.promised else mover
    return replace(phase, unpromised_by=None, promised=True, promised_by=promised_by)


def _find_mover(changes: Sequence[Fact], phases: Sequence[Phase], get: Callable[[Labels], object]) -> Fact:
    """Return the last of the changes after which `get` of the labels was another, the last one if it never was."""
    for change, (after, before) in zip(reversed(changes), pairwise(reversed(phases)), strict=True):
        if get(before.labels) != get(after.labels):
            return change
    return changes[-1]


def _read_labels(opening: Fact, versions: Versions) -> Labels | None:
    """
    Return what an opening says, under the version that it is pinned to (docs/architecture.md#rule-13), None if no
    version has its names.
    """
    assert isinstance(opening.data, Opened)
    policy = versions.find_pinned(opening.data, opening.time, opening.recorded_at)
    if policy is None:
        return None
    return Labels(policy, policy.get_level(opening.data.service_level), opening.data.priority)


def _apply_change(labels: Labels, change: Fact, changes: Sequence[Fact], versions: Versions) -> Labels:
    """Return what the facts say after one more of the changes of an instant."""
    level, priority = labels.names
    match change.data:
        case PriorityChanged(priority=name):
            return _rename(labels, (level, name), changes, versions)
        case ServiceLevelChanged(service_level=name):
            return _rename(labels, (name, priority), changes, versions)
        case PolicyChanged(policy_version=version):
            policy = versions.find_named(version)
            if policy is None or policy.find_missing(level, priority):
                return labels.add_flag(Flag.NOT_IN_VERSION)
            return labels.rename(policy, level, priority)
        case Closed() if labels.closed_by is not None and labels.answers_until is not None:
            return labels
        case Closed():
            answers_until = change.time + labels.policy.closing_answer
            return replace(labels, closed_by=labels.closed_by or change, answers_until=answers_until)
        case Reopened() if labels.closed_by is None:
            return labels.add_flag(Flag.REOPENED_WITHOUT_CLOSE)
        case Reopened():
            return replace(labels, closed_by=None, answers_until=None)
        case Paused(reason=reason) if reason in map(_get_reason, labels.paused_by):
            return labels
        case Paused():
            return replace(labels, paused_by=(*labels.paused_by, change))
        case Resumed(reason=reason):
            left = tuple(each for each in labels.paused_by if reason is not None and _get_reason(each) != reason)
            if left == labels.paused_by:
                return labels.add_flag(Flag.RESUMED_WITHOUT_PAUSE)
            return replace(labels, paused_by=left)
        case Escalated(by=by) if not labels.service_level.offers_escalation(by):
            return labels.add_flag(Flag.ESCALATION_NOT_OFFERED)
        case Opened() | Responded() | CustomerReplied() | Escalated() | Excluded() | ExclusionRevoked() | Corrected():
            return labels
        case DetailsChanged() | FactWithdrawn():
            return labels
        case _:
            assert_never(change.data)


def _hear_messages(before: Labels, labels: Labels, changes: Sequence[Fact]) -> Labels:
    """Return the labels after what was written at an instant, if the ticket was closed before and is after it."""
    if before.closed_by is None or labels.closed_by is None:
        return labels
    for change in changes:
        if isinstance(change.data, CustomerReplied):
            labels = labels.add_flag(Flag.REPLIED_WHILE_CLOSED)
            if labels.policy.awaits_replies:
                labels = replace(labels, answers_until=None)
        elif isinstance(change.data, Responded) and labels.answers_until is None:
            labels = replace(labels, answers_until=change.time)
        elif isinstance(change.data, Responded) and change.time > (labels.answers_until or NEVER):
            labels = labels.add_flag(Flag.ANSWERED_WHILE_CLOSED)
    return labels


def _rename(labels: Labels, names: tuple[str, str], changes: Sequence[Fact], versions: Versions) -> Labels:
    """
    Return the labels with another level or priority. If the ticket's version lacks it and the one in force has it, the
    ticket is moved there; two names that only go together may come in two changes of one instant.
    """
    if not labels.policy.find_missing(*names):
        return labels.rename(labels.policy, *names)
    in_force = versions.get_in_force(changes[0].time)
    for level, priority in (names, _find_last_names(names, changes)):
        if not in_force.find_missing(level, priority):
            return labels.rename(in_force, level, priority).add_flag(Flag.MOVED_BY_CHANGE)
    return labels.add_flag(Flag.NOT_IN_VERSION)


def _find_last_names(names: tuple[str, str], changes: Sequence[Fact]) -> tuple[str, str]:
    """Return the level and the priority that the changes of an instant end with, beginning with these."""
    level, priority = names
    for change in changes:
        match change.data:
            case ServiceLevelChanged(service_level=name):
                level = name
            case PriorityChanged(priority=name):
                priority = name
    return level, priority
