"""The panels of both dashboards: what each asks Prometheus, and what its reader has to know. Drawn by generate.py."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How a panel is drawn, and whether it asks for now or for each step of the chosen time."""

    FIGURE = "one figure, now"
    NAMES = "the name of each series, now"
    BARS = "one bar a series, now"
    LINES = "a line a series"
    STACK = "lines that add up"
    COUNTS = "how many in each minute or longer step, as bars that add up"
    STATES = "a band a series, in the colour of its state"


Limits = Sequence[tuple[float | None, str]]  # values from which on a colour holds, rising; None is the lowest


class Panel(NamedTuple):
    """One row of a list below. Queries are PromQL by legend."""

    kind: Kind
    title: str
    unit: str  # a name of Grafana's
    width: int  # of 24 columns
    limits: Limits
    description: str
    queries: Mapping[str, str]
    empty: str = "none"  # what stands there if the query finds nothing
    colours: Mapping[str, str] = {}  # of series, where they have a meaning
    words: Mapping[str, tuple[str, str]] = {}  # for values: text and colour


# ---- limits

CALM: Limits = [(None, "blue")]
NONE_IS_GOOD: Limits = [(None, "green"), (1, "red")]
NONE_IS_BETTER: Limits = [(None, "green"), (1, "orange")]
ONE_IS_RIGHT: Limits = [(None, "red"), (1, "green"), (2, "red")]


def limit_above(good: float, fair: float) -> Limits:
    return [(None, "green"), (good, "orange"), (fair, "red")]


def limit_below(good: float, fair: float) -> Limits:
    return [(None, "red"), (fair, "orange"), (good, "green")]


# ---- what the queries are about


def select_chosen(metric: str, *more: str) -> str:
    """Select the series of the service levels and priorities that the reader has chosen."""
    labels = ('service_level=~"$service_level"', 'priority=~"$priority"', *more)
    return f"{metric}{{{', '.join(labels)}}}"


def sum_rise(counter: str) -> str:
    """Return the query of how much a counter rose in the chosen time."""
    return f"increase({counter}[$__range])"


def sum_rise_by_step(counter: str) -> str:
    """Return the query of how much a counter rose in each step."""
    return f"increase({counter}[$__rate_interval])"


def query_quantiles(histogram: str, over: str) -> dict[str, str]:
    return {
        f"{percent} %": f"histogram_quantile({percent / 100}, sum by (le) (increase({histogram}_bucket[{over}])))"
        for percent in (50, 90, 99)
    }


OPEN_TICKETS = select_chosen("sla_tickets", 'stage=~"pending|running|paused"')
RUNNING = select_chosen("sla_tickets", 'stage="running"')
TICKETS_AT_RISK = select_chosen("sla_tickets_at_risk")
BREACHES = select_chosen("sla_breaches_total", 'detection!="historic"')
DETECTED = select_chosen("sla_breaches_total")
RETRACTED = select_chosen("sla_breaches_retracted_total")
RESPONSES = select_chosen("sla_responses_total")
MET = select_chosen("sla_responses_total", 'outcome="met"')
REVISED = select_chosen("sla_responses_revised_total")
TO_MET, FROM_MET = (select_chosen("sla_responses_revised_total", f'{end}="met"') for end in ("to", "from"))
TO_ANY, FROM_ANY = (select_chosen("sla_responses_revised_total", f'{end}=~"met|late"') for end in ("to", "from"))
CANCELLED = select_chosen("sla_cancellations_total")
OTHERS = select_chosen("sla_objective_events_total")
KEPT_30D = select_chosen("sla:responses_met:ratio_increase30d")
ANSWER = "sla_first_response_support_seconds"
DELAY = "sla_breach_detection_delay_seconds"

KEPT = f"sum({sum_rise(MET)}) / (sum({sum_rise(RESPONSES)}) > 0)"
KEPT_NOW = (  # of counters that begin with the log: what was said first, and every change of it since
    f"(sum({MET}) + sum({TO_MET}) - sum({FROM_MET})) / (sum({RESPONSES}) + sum({TO_ANY}) - sum({FROM_ANY}) > 0)"
)
PAIR = "{{service_level}}, {{priority}}"
MET_OR_LATE = {"met": "green", "late": "red"}
WELL_OR_NOT = {"0": ("works", "green"), "1": ("does not work", "red")}

FIGURE, NAMES, BARS, LINES, STACK, COUNTS, STATES = Kind

# ---- the dashboards: a title opens a row of panels, from left to right
# fmt: off

OVERVIEW: Sequence[str | Panel] = (
    "Now",
    Panel(FIGURE, "Open", "short", 6, CALM,
          "Tickets that wait for a first response: running, paused, or pending because their opening is not known yet.",
          {"open": f"sum({OPEN_TICKETS})"}),
    Panel(FIGURE, "At risk", "short", 6, NONE_IS_BETTER,
          "Running tickets that have used 75 % of their target. `sla list` names them by time left.",
          {"at risk": f"sum({TICKETS_AT_RISK})"}),
    Panel(FIGURE, "At risk, share", "percentunit", 6, limit_above(0.25, 0.5),
          "Of the running tickets, those that have used 75 % of their target.",
          {"at risk": f"sum({TICKETS_AT_RISK}) / (sum({RUNNING}) > 0)"}, empty="no clock runs"),
    Panel(FIGURE, "Next deadline or warning", "dateTimeFromNow", 6, CALM,
          "When the engine looks next, of all levels and priorities: a deadline, or 50, 75 or 90 % of a target.",
          {"next": "1000 * (sla_next_deadline_timestamp_seconds > 0)"}, empty="no clock runs"),
    Panel(STACK, "Open by stage", "short", 8, CALM,
          "running: the clock runs. paused: it waits, where the policy lets it. pending: the opening is not known yet.",
          {"{{stage}}": f"sum by (stage) ({OPEN_TICKETS})"}),
    Panel(STACK, "Open by service level", "short", 8, CALM,
          "The same tickets by service level; none is that of a pending ticket.",
          {"{{service_level}}": f"sum by (service_level) ({OPEN_TICKETS})"}),
    Panel(BARS, "At risk by level and priority", "short", 8, NONE_IS_BETTER,
          "Running tickets that have used 75 % of their target.",
          {PAIR: f"sort_desc(sum by (service_level, priority) ({TICKETS_AT_RISK}))"}),

    "Promises in the chosen time",
    Panel(FIGURE, "Kept", "percentunit", 4, limit_below(0.98, 0.95),
          "Of the first responses that became known in the chosen time, those in time, as first known.",
          {"kept": KEPT}, empty="no response"),
    Panel(FIGURE, "Kept, of all ever", "percentunit", 4, limit_below(0.98, 0.95),
          "Of all first responses that the engine knows, those in time, as known now: corrected by all that came late.",
          {"kept": KEPT_NOW}, empty="no response"),
    Panel(FIGURE, "Breaches", "short", 4, NONE_IS_GOOD,
          "Promises that broke, without imports of old tickets. Some may have been retracted since: see beside.",
          {"breaches": f"sum({sum_rise(BREACHES)})"}),
    Panel(FIGURE, "Retracted", "short", 4, NONE_IS_BETTER,
          "Breaches of any age that late news withdrew. A rise means that publishers send facts late.",
          {"retracted": f"sum({sum_rise(RETRACTED)})"}),
    Panel(FIGURE, "Revised", "short", 4, NONE_IS_BETTER,
          "How often late news changed what had been said of a response. A rise means that publishers send facts late.",
          {"revised": f"sum({sum_rise(REVISED)})"}),
    Panel(FIGURE, "Cancelled", "short", 4, CALM,
          "Clocks that ended without a response that counts: closed, or excluded from support.",
          {"cancelled": f"sum({sum_rise(CANCELLED)})"}),
    Panel(BARS, "Breaches by level and priority", "short", 12, NONE_IS_GOOD,
          "Promises that broke in the chosen time, without imports. `sla watch --only breached` follows them.",
          {PAIR: f"sort_desc(sum by (service_level, priority) ({sum_rise(BREACHES)}))"}),
    Panel(COUNTS, "Breaches over time", "short", 12, CALM,
          "Promises that broke, by priority, without imports.",
          {"{{priority}}": f"sum by (priority) ({sum_rise_by_step(BREACHES)})"}),
    Panel(COUNTS, "First responses over time", "short", 12, CALM,
          "By whether they came in time, as first known.",
          {"{{outcome}}": f"sum by (outcome) ({sum_rise_by_step(RESPONSES)})"}, colours=MET_OR_LATE),
    Panel(BARS, "Kept in 30 days, by level and priority", "percentunit", 12, limit_below(0.98, 0.95),
          "Of the first responses of the last 30 days, those in time, as first known; whatever time is chosen.",
          {PAIR: f"sort({KEPT_30D} >= 0)"}, empty="no response"),
    Panel(BARS, "Support time until the first response", "s", 12, CALM,
          "Half, 90 and 99 % of the answers of the chosen time took no longer. Of all levels and priorities; estimated "
          "between the targets of the policy, which are the bounds of the histogram.",
          query_quantiles(ANSWER, "$__range"), empty="no response"),
    Panel(BARS, "How breaches came to light", "short", 12, CALM,
          "live: at the deadline. late: a fact that came late made it one. historic: of an import, pages nobody.",
          {"{{detection}}": f"sum by (detection) ({sum_rise(DETECTED)})"}),

    "What late news changed, and what ended without an answer",
    Panel(COUNTS, "Breaches retracted over time", "short", 8, CALM,
          "By how the breach had come to light.",
          {"{{detection}}": f"sum by (detection) ({sum_rise_by_step(RETRACTED)})"}),
    Panel(BARS, "Revisions, before and after", "short", 8, CALM,
          "What was said of a ticket's response, and what is said now; open: it has none any more.",
          {"{{from}} to {{to}}": f"sort_desc(sum by (from, to) ({sum_rise(REVISED)}) > 0)"}),
    Panel(COUNTS, "Cancellations by cause", "short", 8, CALM,
          "closed: without an answer. excluded: the promise does not apply to the ticket.",
          {"{{cause}}": f"sum by (cause) ({sum_rise_by_step(CANCELLED)})"}),

    "Objectives beside the first response",
    Panel(BARS, "What was announced of them", "short", 24, CALM,
          "Next response, resolution or what else the policy promises, in the chosen time; met and late are answers.",
          {"{{objective}}: {{event}}": f"sort_desc(sum by (objective, event) ({sum_rise(OTHERS)}) > 0)"},
          empty="none, or the policy promises no other"),
)

ENGINE: Sequence[str | Panel] = (
    "Does it work",
    Panel(FIGURE, "Processes that do not answer", "short", 4, NONE_IS_GOOD,
          "Of those that Prometheus scrapes.",
          {"processes": 'sum(1 - up{job="sla"})'}),
    Panel(FIGURE, "Parts that do not work", "short", 4, NONE_IS_GOOD,
          "Of all processes. GET /health/ready of the process says why; docs/operations.md has what to do.",
          {"parts": "sum(sla_not_ready)"}),
    Panel(FIGURE, "Active metrics", "short", 4, ONE_IS_RIGHT,
          "Exactly one process shows the figures, any other metrics is a standby. At 0 these dashboards stand still.",
          {"active": "sum(sla_metrics_active)"}),
    Panel(NAMES, "Version and policy", "none", 6, CALM,
          "Of the process that shows the figures; the policy is the version in force.",
          {"{{version}}, {{policy}}": "sla_build_info"}),
    Panel(NAMES, "Alerts", "none", 6, NONE_IS_GOOD,
          "What fires now of deploy/prometheus/rules.yml. docs/operations.md has a paragraph for each.",
          {"{{alertname}}": 'sum by (alertname) (ALERTS{alertname=~"Sla.+", alertstate="firing"})'}),
    Panel(STATES, "Parts by process", "none", 24, NONE_IS_GOOD,
          "By what bus and store say, every 2 seconds. A process shows its services and the parts that they need.",
          {"{{instance}} {{part}}": "max by (instance, part) (sla_not_ready)"}, words=WELL_OR_NOT),

    "Does it keep up",
    Panel(LINES, "Messages that wait for intake", "short", 8, limit_above(100, 1000),
          "Stored by the bus and not yet by the engine. A rise means that intake takes them slower than they come.",
          {"waiting": "sum(sla_intake_lag_messages)"}),
    Panel(LINES, "Views behind the log, in events", "short", 8, CALM,
          "announcements is the announcer, deadlines the clock, all others follow for the figures.",
          {"{{projection}}": "max by (projection) (sla_projection_lag_events)"}),
    Panel(LINES, "Views behind the log, in time", "s", 8, limit_above(1, 10),
          "Age of the oldest event that is not taken in. Behind announcements, breaches are told late; behind "
          "deadlines, noticed late.",
          {"{{projection}}": "max by (projection) (sla_projection_lag_seconds)"}),
    Panel(BARS, "Detection delay in the chosen time", "s", 8, limit_above(0.25, 1),
          "From a live breach, or the arrival of the fact that made it one, to its detection: half, 90 and 99 % took "
          "no longer.",
          query_quantiles(DELAY, "$__range"), empty="no live breach"),
    Panel(LINES, "Detection delay over time", "s", 8, limit_above(0.25, 1),
          "The same of each step in which there was a live breach.",
          query_quantiles(DELAY, "$__rate_interval"), empty="no live breach"),
    Panel(LINES, "Clock late", "s", 8, limit_above(1, 5),
          "How long ago the next instant should have been judged. More than a moment: intake or clock stands still.",
          {"late": "clamp_min(time() - sla_next_deadline_timestamp_seconds, 0)"}, empty="no clock runs"),

    "What arrives",
    Panel(LINES, "Messages by outcome", "cps", 12, CALM,
          "recorded: a new fact. duplicate: known already, changes nothing. dead_letter: cannot count.",
          {"{{outcome}}": "sum by (outcome) (rate(sla_facts_total[$__rate_interval]))"}),
    Panel(STACK, "Messages by type", "cps", 12, CALM,
          "Whatever became of them.",
          {"{{type}}": "sum by (type) (rate(sla_facts_total[$__rate_interval]))"}),

    "Dead letters and verification",
    Panel(FIGURE, "Dead letters that wait", "short", 8, NONE_IS_BETTER,
          "Messages that do not count until somebody mends the publisher or the policy: `sla dead list --group`.",
          {"waiting": "sum(sla_dead_letters_waiting)"}),
    Panel(FIGURE, "Differences", "short", 8, NONE_IS_GOOD,
          "What is stored and does not follow from the facts, as `sla verify` last found. Must be 0.",
          {"differences": "max(sla_verify_differences)"}, empty="never verified"),
    Panel(FIGURE, "Verified ago", "s", 8, limit_above(86400, 7 * 86400),
          "Since `sla verify` last ran. Long ago means that nobody verifies.",
          {"ago": "time() - max(sla_verify_timestamp_seconds)"}, empty="never verified"),
    Panel(BARS, "Dead letters that wait, by reason", "short", 12, NONE_IS_BETTER,
          "One mistake of a publisher is usually one reason. `sla dead replay` publishes them again.",
          {"{{reason}}": "sort_desc(sum by (reason) (sla_dead_letters_waiting) > 0)"}),
    Panel(COUNTS, "New dead letters", "short", 12, CALM,
          "By reason. Any rise means that a publisher needs to be fixed.",
          {"{{reason}}": "sum by (reason) (increase(sla_dead_letters_total[$__rate_interval]))"}),
)
# fmt: on
