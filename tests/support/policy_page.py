"""docs/policy.md, made of the scenarios: `python -m tests.support.policy_page` writes it, `--check` compares it."""

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.scenarios import RULES, SCENARIOS
from tests.scenarios.scenario import STOCKHOLM, Asleep, Edited, Fact, Given, Scenario, Tick

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"
TEXT = Path(__file__).with_name("support_policy.txt")


class Sentence(NamedTuple):
    """A sentence of the support policy as it is written, how it is read, and the scenarios that show it, if any can."""

    says: str
    rule: str
    shown_by: tuple[str, ...] = ()


def read_policy_sentences() -> Iterator[tuple[int, str]]:
    """
    Yields section and sentence of the text, in its order; a row of a table and an item of a list are one each. Left out
    are headings, also those of tables, and what stands before the first section.
    """
    section, is_heading = 0, True
    for line in TEXT.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"([0-9]+)\. ", line):
            section = int(heading[1])
        elif line.startswith("|"):
            is_heading = "---" not in line and is_heading
            if not is_heading and "---" not in line:
                yield section, line.strip("| ")
        else:
            is_heading = True
            if section and line.startswith("- "):
                yield section, line.removeprefix("- ")
            elif section and line.endswith((".", ":")):
                yield from ((section, sentence) for sentence in re.split(r"(?<=\.) ", line))


NO_PROMISE = "Out of scope: no promise that a clock can keep or break."
HELPDESK = "Out of scope: what the helpdesk does; the engine hears of its tickets."
CUSTOMER = "Out of scope: what a customer does; nothing that is promised depends on it."
IMPACT = "It is the description of the priority; which impact a ticket has, the helpdesk decides."
CHANNEL = "A ticket by a channel that the level does not have is accepted, and its promise holds; it is flagged."
EXCLUDED = "The reason `{}`: a person decides that it applies, and may revoke it."
ESCALATED = "`ticket.escalated`: said once to whom the level names; no deadline moves, the severity of a breach rises."

SENTENCES = (
    # 1
    Sentence("This Support Policy accompanies the Cention Subscription Terms of Service and describes the support "
             "services provided to customers.", NO_PROMISE),
    Sentence("Support is available for issues related to the Cention platform and services.", NO_PROMISE),
    # 2
    Sentence("Submit support requests via email to support@cention.io.", CHANNEL,
             ("a channel that the level does not have: accepted and flagged, and the promise holds",)),
    Sentence("All requests receive a ticket number for tracking.",
             "Out of scope: the helpdesk numbers its tickets; the number is the `subject` of their events."),
    Sentence("Access our self-service portal at support.cention.io to:", HELPDESK),
    Sentence("Submit and track support tickets", "The channel `portal`, of every level.",
             ("a channel that the level does not have: accepted and flagged, and the promise holds",)),
    Sentence("Search our knowledge base", HELPDESK),
    Sentence("View system status", HELPDESK),
    Sentence("Access documentation", HELPDESK),
    Sentence("Enterprise customers have access to dedicated phone support for critical issues.",
             "The channel `phone`, of Enterprise for `critical`.",
             ("by phone for an Enterprise critical ticket, as the policy says",
              "a channel that the level does not have: accepted and flagged, and the promise holds")),
    Sentence("Contact details are provided to Enterprise accounts.", HELPDESK),
    # 3
    Sentence("Foundation | Monday-Friday, 09:00-18:00 CET",
             "Wall time in Stockholm, summer time in summer. A target used up exactly at closing is due at closing.",
             ("a ticket opened on Saturday starts to count on Monday at opening",
              "a ticket opened exactly at closing starts to count at the next opening",
              "a target used up exactly at closing time is due at closing time")),
    Sentence("Professional | Monday-Friday, 08:00-22:00 CET", "As Foundation, with longer days.",
             ("a ticket opened on Ascension Day starts to count on the Friday", "Midsummer Eve is an ordinary day")),
    Sentence("Enterprise | 24 hours a day, 7 days a week",
             "Nights in which the clocks change have 23 or 25 hours, and each of them counts.",
             ("Enterprise counts on a Sunday night",
              "eight hours over the night in which clocks go forward end at ten",
              "eight hours over the night in which clocks go back end at half past nine")),
    Sentence("Note: Support hours exclude public holidays in Sweden.",
             "The 13 named days of the law (1989:253) close the local calendar day, for all three levels. Plain "
             "Sundays and the eves are no public holidays.",
             ("Easter closes Friday and Monday", "Enterprise does not count on public holidays")),
    # 4
    Sentence("Critical | Service completely unavailable or security incident | Platform outage, data breach",
             f"{IMPACT} Raised: time used is kept, the target is replaced.",
             ("raised before the deadline: what is used stays used",
              "raised past its budget: the promise breaks at the change, never before")),
    Sentence("Serious | Major functionality impaired, workaround may exist | Channel not working, significant "
             "performance issues", IMPACT, ("lowered before the deadline: it moves",)),
    Sentence("Minor | Limited impact, minor feature issues | UI bugs, non-critical feature requests",
             f"{IMPACT} Lowered once it is broken, a promise stays judged as it was.",
             ("lowered after the breach: the breach stands",)),
    # 5
    Sentence("Initial response times based on priority and service level:",
             "The earliest answer of an agent counts, whenever it is published; an automatic acknowledgement does not. "
             "That the problem is solved is not promised.",
             ("an automatic acknowledgement is not a first response",
              "an answer that happened earlier and arrives later replaces the first")),
    Sentence("Critical | 4 hours | 1 hour | 2 hours", "As written: Professional is faster than Enterprise.",
             ("no answer by the deadline is a breach", "Professional, critical, is one hour",
              "Enterprise, critical, is two hours: longer than Professional, as it is written")),
    Sentence("Serious | 8 hours | 4 hours | 4 hours", "The targets of `serious`.",
             ("Foundation, serious, is 8 hours",
              "Professional, serious, is 4 hours", "Enterprise, serious, is 4 hours")),
    Sentence("Minor | 24 hours | 12 hours | 8 hours", "Of Foundation two working days and six hours.",
             ("twenty-four hours in Foundation are support hours", "Professional, minor, is 12 hours",
              "Enterprise, minor, is 8 hours")),
    Sentence("Response times measured during applicable support hours.",
             "The hours of the level that the ticket has at the time: a change of level changes them from then on.",
             ("an answer in closed time before the deadline has used what was open until then",
              "time before a change of level counts under the old hours, time after it under the new ones")),
    # 6
    *(Sentence(included, NO_PROMISE) for included in (
        "Assistance with platform functionality and usage", "Troubleshooting errors and unexpected behavior",
        "Configuration guidance", "Integration support for documented APIs", "Guidance on best practices",
        "Bug reporting and tracking")),
    # 7
    Sentence("Cention is not obligated to provide support for issues arising from:",
             "An excluded ticket is in no report, and a breach is retracted. Revoked: as if never excluded.",
             ("excluded: the promise does not apply, and no breach comes",
              "excluded after the breach: the breach is withdrawn",
              "a ticket that was excluded after the breach, and is not",
              "a reason that the policy does not have is a dead letter")),
    *(Sentence(says, EXCLUDED.format(reason), (f"excluded as {reason}: nothing is promised",)) for says, reason in (
        ("Use of the platform in violation of the Terms of Service", "terms_violation"),
        ("Unauthorized modifications to the platform", "unauthorized_modification"),
        ("Third-party applications, plugins, or integrations not provided by Cention", "third_party"),
        ("Customer's network, hardware, or software issues", "customer_environment"),
        ("General internet connectivity problems", "internet_connectivity"),
        ("Training on basic computer operations", "basic_training"),
        ("Custom development or consulting (available separately)", "custom_development"),
        ("Features in beta or preview status", "preview_feature"))),
    # 8
    Sentence("To receive effective support, customers should:", CUSTOMER),
    *(Sentence(duty, CUSTOMER) for duty in (
        "Provide accurate and complete information about the issue", "Include steps to reproduce the problem",
        "Attach screenshots, error messages, or logs when applicable",
        "Designate support contacts who are authorized to submit requests")),
    Sentence("Respond to requests for additional information promptly",
             "The text does not say that waiting stops the clock: it goes on, unless the file has `pauses: true`.",
             ("paused and resumed: the shipped policy lets the time count",
              "where the policy lets it pause, what is left of the target is left when it goes on")),
    Sentence("Implement recommended solutions and updates", CUSTOMER),
    # 9
    Sentence("If you are not satisfied with the handling of a support request:", ESCALATED,
             ("an escalation does not answer, and each raises the severity of the breach by one step",)),
    Sentence("Request escalation through your existing support ticket", ESCALATED,
             ("an escalation is told to whom the level says, and moves nothing",)),
    Sentence("Contact your account manager (Professional/Enterprise)",
             "The account manager is named too, in Professional and Enterprise. Telling them is for the subscriber.",
             ("in Enterprise the account manager is told too",
              "the account manager is asked where the level has none: accepted and flagged")),
    Sentence("Email support-escalation@cention.io with your ticket number",
             "`support-escalation` is named in every level; what arrives there, the helpdesk publishes.",
             ("an escalation is told to whom the level says, and moves nothing",)),
    # 10
    *(Sentence(service, NO_PROMISE) for service in (
        "For needs beyond standard support, we offer professional services including:",
        "Implementation and onboarding assistance", "Custom training sessions", "Integration development",
        "Workflow optimization consulting", "Contact sales@cention.io for professional services inquiries.")),
    # 11
    Sentence("This Support Policy may be updated from time to time.",
             "Each version is immutable and holds from its effect on; a ticket is judged by the version in force at "
             "its opening.",
             ("a ticket is judged by the policy in force when it was opened",
              "a ticket of yesterday that arrives today is judged by the version of yesterday")),
    Sentence("Material changes will be communicated to customers in advance.",
             "A material version takes effect once `SLA_POLICY_NOTICE` is over; open tickets stay with theirs, unless "
             "each is moved by an event.",
             ("an open ticket that is moved keeps the time it has used, and gets the target of the new version",)),
)  # fmt: skip

ODD = (
    ("a close of a ticket that nobody has opened", "a close of a ticket that nobody has opened waits for the opening"),
    ("a reopening of what is not closed", "reopened without a close: kept and flagged"),
    ("resumed without a pause", "resumed without a pause: kept and flagged"),
    ("a revocation without an exclusion", "a revocation that comes before the exclusion it is about is flagged, and "
     "the exclusion holds"),
    ("a correction of an unknown fact", "a correction of a fact that nobody has told: kept and flagged"),
    ("a correction by another source", "whoever did not tell a fact does not correct it"),
    ("a withdrawal of an unknown fact", "a withdrawal of a fact that nobody has told: kept and flagged"),
    ("a withdrawal by another source", "whoever did not tell a fact does not withdraw it"),
    ("a withdrawal of a correction or withdrawal", "neither a correction nor a withdrawal is withdrawn: kept and "
     "flagged"),
    ("a correction to a time that cannot be", "a corrected time that no fact can have is a dead letter"),
    ("a reason outside the list", "a reason that the policy does not have is a dead letter"),
    ("a correction to a reason outside the list", "an exclusion that is corrected to a reason that the policy does not "
     "have is none: kept and flagged"),
    ("a channel that the level does not have", "a channel that the level does not have: accepted and flagged, and the "
     "promise holds"),
    ("an escalation that the level does not have", "the account manager is asked where the level has none: accepted "
     "and flagged"),
    ("an unknown level, or in a correction", "a level the policy does not have is a dead letter, in a correction too"),
    ("a move to an unknown version", "a move to a version that nobody has published is a dead letter"),
    ("a second opening", "a second opening with a later date is ignored"),
    ("the same id with other content", "the same id with other data or another type is a conflict"),
    ("a fact from the future", "a fact dated more than five minutes ahead is refused"),
)  # fmt: skip

INTRODUCTION = """\
# The support policy, sentence by sentence

Made of `tests/support/support_policy.txt`, the text of the policy, and of `tests/scenarios/` by `make schemas`; do not edit. Each
scenario is played in memory and compared with an oracle that works the rules out for itself; those that do not depend on when a
message arrives are played over a real bus and store too. Times are Stockholm's.

## What the policy says

Every sentence of its eleven sections, each item of a list and each row of a table, as it is written; the number is that of the section.
The links are the scenarios that show the rule. Credits and penalties are not in the text: the engine says which promise broke, when and
by how much; what follows from that is in the contract.

| | the policy says | what follows | shown by |
|---|---|---|---|
"""  # noqa: E501

INPUT = """
## What becomes of odd input

Nothing is lost: it is kept and flagged (`sla show` has a line *look at*), or it is a dead letter with its reason. What the command
line and policy files refuse is in [writing-a-policy.md](writing-a-policy.md).

| input | becomes | shown by |
|---|---|---|
"""  # noqa: E501


def page() -> str:
    """The whole page."""
    named = {scenario.name: scenario for scenario in SCENARIOS}
    sections = [section for section, _ in read_policy_sentences()]
    promised = "".join(_sentence(*each) for each in zip(sections, SENTENCES, strict=True))
    odd = "".join(f"| {what} | {_answer(named[name])} | {_link(name)} |\n" for what, name in ODD)
    return INTRODUCTION + promised + INPUT + odd + "".join(_rules())


def _sentence(section: int, sentence: Sentence) -> str:
    links = "; ".join(map(_link, sentence.shown_by))
    says = sentence.says.replace(" | ", ": ", 1).replace(" | ", ", ")
    return f"| {section} | {says} | {sentence.rule} | {links} |\n"


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
            policy = " *(a policy with updates)*" if scenario.updates else policy
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
