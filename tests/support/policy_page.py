"""docs/policy.md, made of the scenarios: `python -m tests.support.policy_page` writes it, `--check` compares it."""

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.scenarios import RULES, SCENARIOS
from tests.scenarios.scenario import STOCKHOLM, Asleep, Edited, Fact, Given, Scenario, Tick

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"


class Sentence(NamedTuple):
    """What the support policy says in a section, how it is read, and the scenarios that show it (or a test)."""

    section: int
    says: str
    rule: str
    shown_by: tuple[str, ...]


PROMISED = (
    Sentence(
        2,
        "Support is reached by email and the portal; Enterprise customers may phone about critical issues.",
        "A ticket by another channel is accepted, and its promise holds; it is flagged `channel_not_entitled`.",
        (
            "by phone for an Enterprise critical ticket, as the policy says",
            "a channel that the level does not have: accepted and flagged, and the promise holds",
        ),
    ),
    Sentence(
        3,
        "Foundation: Monday to Friday, 09:00 to 18:00 CET.",
        "Wall time in Stockholm, summer time in summer. A target used up exactly at closing is due at closing.",
        (
            "a ticket opened on Saturday starts to count on Monday at opening",
            "a ticket opened exactly at closing starts to count at the next opening",
            "a target used up exactly at closing time is due at closing time",
        ),
    ),
    Sentence(
        3,
        "Professional: Monday to Friday, 08:00 to 22:00 CET.",
        "As Foundation, with longer days.",
        ("a ticket opened on Ascension Day starts to count on the Friday", "Midsummer Eve is an ordinary day"),
    ),
    Sentence(
        3,
        "Enterprise: 24 hours a day, 7 days a week.",
        "Nights in which the clocks change have 23 or 25 hours, and each of them counts.",
        (
            "Enterprise counts on a Sunday night",
            "eight hours over the night in which clocks go forward end at ten",
            "eight hours over the night in which clocks go back end at half past nine",
        ),
    ),
    Sentence(
        3,
        "Support hours exclude public holidays in Sweden.",
        "The 13 named days of the law (1989:253) close the local calendar day, for all three levels. "
        "Plain Sundays and the eves are no public holidays.",
        ("Easter closes Friday and Monday", "Enterprise does not count on public holidays"),
    ),
    Sentence(
        4,
        "The priority of a ticket follows its impact; it may change.",
        "Time used is kept, the target is replaced. Once broken, a promise stays judged as it was.",
        (
            "raised before the deadline: what is used stays used",
            "raised past its budget: the promise breaks at the change, never before",
            "lowered after the breach: the breach stands",
        ),
    ),
    Sentence(
        5,
        "First response, Foundation: critical 4 hours, serious 8 hours, minor 24 hours.",
        "Support hours: 24 of them are two working days and six hours.",
        ("no answer by the deadline is a breach", "twenty-four hours in Foundation are support hours"),
    ),
    Sentence(
        5,
        "First response, Professional: critical 1 hour, serious 4 hours, minor 12 hours.",
        "As written: shorter than Enterprise for critical.",
        ("Professional, critical, is one hour",),
    ),
    Sentence(
        5,
        "First response, Enterprise: critical 2 hours, serious 4 hours, minor 8 hours.",
        "As written: longer than Professional for critical.",
        ("Enterprise, critical, is two hours: longer than Professional, as it is written",),
    ),
    Sentence(
        5,
        "A first response is an answer of the support team.",
        "The earliest answer by an agent counts, whenever we are told of it; an automatic acknowledgement does not.",
        (
            "an automatic acknowledgement is not a first response",
            "an answer that happened earlier and arrives later replaces the first",
        ),
    ),
    Sentence(
        7,
        "What support does not include.",
        "A ticket about it is excluded for one of eight reasons: it is in no report, and a breach is withdrawn. "
        "Revoked: as if it had never been excluded.",
        (
            "excluded: the promise does not apply, and no breach comes",
            "excluded after the breach: the breach is withdrawn",
            "a ticket that was excluded after the breach, and is not",
        ),
    ),
    Sentence(
        9,
        "A customer may ask for escalation: to the support-escalation mailbox, for Professional and Enterprise also to "
        "the account manager.",
        "Each request is told once to whom the level says; it moves no deadline and raises the severity of a breach.",
        (
            "an escalation is told to whom the level says, and moves nothing",
            "in Enterprise the account manager is told too",
            "an escalation does not answer, and each raises the severity of the breach by one step",
        ),
    ),
    Sentence(
        11,
        "Material changes of the policy are announced in advance.",
        "Versions are immutable and take effect after they are published, a material one after `SLA_POLICY_NOTICE`. "
        "A ticket is judged by the version in force at its opening.",
        (
            "a ticket is judged by the policy in force when it was opened",
            "a ticket of yesterday that arrives today is judged by the version of yesterday",
            "an open ticket that is moved keeps the time it has used, and gets the target of the new version",
        ),
    ),
)

ODD = (
    ("a close of a ticket that nobody has opened", "a close of a ticket that nobody has opened waits for the opening"),
    ("a reopening of what is not closed", "reopened without a close: kept and flagged"),
    ("resumed without a pause", "resumed without a pause: kept and flagged"),
    ("a revocation without an exclusion", "a revocation that comes before the exclusion it is about is flagged, and "
     "the exclusion holds"),
    ("a correction of an unknown fact", "a correction of a fact that nobody has told: kept and flagged"),
    ("a correction by another source", "whoever did not tell a fact does not correct it"),
    ("a correction to a time that cannot be", "a corrected time that no fact can have is a dead letter"),
    ("a reason outside the list", "a reason that the policy does not have is a dead letter"),
    ("a correction to a reason outside the list", "an exclusion that is corrected to a reason that the policy does not "
     "have is none: kept and flagged"),
    ("a channel that the level does not have", "a channel that the level does not have: accepted and flagged, and the "
     "promise holds"),
    ("an unknown level, or in a correction", "a level the policy does not have is a dead letter, in a correction too"),
    ("a move to an unknown version", "a move to a version that nobody has published is a dead letter"),
    ("a second opening", "a second opening with a later date is ignored"),
    ("the same id with other content", "the same id with other data or another type is a conflict"),
    ("a fact from the future", "a fact dated more than five minutes ahead is refused"),
)  # fmt: skip

INTRODUCTION = """\
# The support policy, sentence by sentence

Made of `tests/scenarios/` by `make schemas`; do not edit. Each scenario is played in memory and compared with an oracle that
works the rules out for itself; those that do not depend on when a message arrives are played over a real bus and store too.
Times are Stockholm's.

## What the policy promises

The number is that of the section in the text of the policy; the links are the scenarios that show the rule.

| | the policy says | the rule | shown by |
|---|---|---|---|
"""  # noqa: E501

SCOPE = """
## What is out of scope, and why

| | | why |
|---|---|---|
| 1, 6 | what support is, and what it includes | no promise that a clock can keep or break |
| 4 | which impact makes which priority | the helpdesk decides it; the engine takes the priority it is told |
| 5 | when a problem is solved | the policy promises a first response; a response is not a solution |
| 7 | whether a ticket is about what is excluded | a person decides it; the engine takes the decision, and its revocation |
| 9 | what becomes of an escalation | the engine says who is to be told (`tell`); telling them is for the subscriber |
| – | credits and penalties | the engine says which promise broke, when and by how much; what follows is in the contract |

## What becomes of odd input

Nothing is lost: it is kept and flagged (`sla show` has a line *look at*), or it is a dead letter with its reason. What the command
line and policy files refuse is in [writing-a-policy.md](writing-a-policy.md).

| input | becomes | shown by |
|---|---|---|
"""  # noqa: E501


def page() -> str:
    """The whole page."""
    named = {scenario.name: scenario for scenario in SCENARIOS}
    promised = "".join(_sentence(sentence) for sentence in PROMISED)
    odd = "".join(f"| {what} | {_answer(named[name])} | {_link(name)} |\n" for what, name in ODD)
    return INTRODUCTION + promised + SCOPE + odd + "".join(_rules())


def _sentence(sentence: Sentence) -> str:
    links = "; ".join(map(_link, sentence.shown_by))
    return f"| {sentence.section} | {sentence.says} | {sentence.rule} | {links} |\n"


def _link(name: str) -> str:
    number = next(n for n, scenario in enumerate(SCENARIOS, 1) if scenario.name == name)
    return f"[{name}](#s{number})"


def _answer(scenario: Scenario) -> str:
    """What the scenario says of its odd input."""
    refused = [outcome for outcome in scenario.also.get("inbox", ()) if outcome not in ("recorded", "duplicate")]
    if refused:
        return "dead letter " + ", ".join(f"`{reason}`" for reason in dict.fromkeys(refused))
    if flags := scenario.also.get("flags"):
        return "kept, flagged " + ", ".join(f"`{flag}`" for flag in flags)
    return "kept"


def _rules() -> Iterator[str]:
    yield f"\n## The {len(SCENARIOS)} scenarios\n"
    for number, title, group in RULES:
        yield f"\n### Rule {number}: {title} ({len(group)})\n\n| scenario | given | then |\n|---|---|---|\n"
        for scenario in group:
            given = "; ".join(map(_given, scenario.given))
            then = ", ".join(scenario.then) or "nothing"
            anchor = f'<a id="s{SCENARIOS.index(scenario) + 1}"></a>'
            policy = " *(a policy that pauses)*" if scenario.pauses else ""
            policy = " *(a policy with more words)*" if scenario.words else policy
            yield f"| {anchor}{scenario.name}{policy} | {given} | {then} |\n"


def _given(item: Given) -> str:
    match item:
        case Fact():
            said = " ".join(str(value) for value in item.data.values() if value)
            late = f", told {_time(item.arrives)}" if item.arrives != item.time else ""
            return f"{item.kind} {_time(item.time)} {said}".strip() + late
        case Tick(arrives=at):
            return f"a tick {_time(at)}"
        case Asleep(arrives=at, until=until):
            return f"no clock {_time(at)} to {_time(until)}"
        case Edited(arrives=at):
            return f"a version with doubled targets {_time(at)}"


def _time(at: datetime) -> str:
    """As short as it can be said."""
    local = at.astimezone(STOCKHOLM)
    seconds = f"{local:%S.%f}".rstrip("0").rstrip(".") if local.microsecond else f"{local:%S}"
    return f"{local:%m-%d %H:%M}" + (f":{seconds}" if seconds != "00" else "")


def main() -> int:
    made = page()
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") == made:
            return 0
        sys.stderr.write(f"{PAGE} is not what the scenarios say; run `make schemas`\n")
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
