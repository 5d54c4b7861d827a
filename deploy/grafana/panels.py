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
    """Select the series of the objectives, service levels and priorities that the reader has chosen."""
    labels = ('objective=~"$objective"', 'service_level=~"$service_level"', 'priority=~"$priority"', *more)
    return f"{metric}{{{', '.join(labels)}}}"


def sum_rise(counter: str) -> str:
    """Return the query of how much a counter rose in the chosen time."""
    return f"increase({counter}[$__range])"


def sum_rise_by_step(counter: str) -> str:
    """Return the query of how much a counter rose in each step."""
    return f"increase({counter}[$__rate_interval])"


def query_share(kept: str, broken: str) -> str:
    """Return the query of the share kept, cut to 0.01 %: while one is broken it is never 100 %."""
    return f"floor(10000 * sum({kept}) / (sum({kept}) + sum({broken}) > 0)) / 10000"


def query_quantiles(histogram: str, over: str, chosen: str = "") -> dict[str, str]:
    buckets = f"{histogram}_bucket{{{chosen}}}" if chosen else f"{histogram}_bucket"
    return {
        f"{percent} %": f"histogram_quantile({percent / 100}, sum by (le) (increase({buckets}[{over}])))"
        for percent in (50, 90, 99)
    }


OPEN = select_chosen("sla_promises", 'stage=~"pending|running|paused"')
RUNNING = select_chosen("sla_promises", 'stage="running"')
AT_RISK = select_chosen("sla_promises_at_risk")
KEPT, BROKEN = (select_chosen("sla_promises_decided", f'outcome="{each}"') for each in ("kept", "broken"))
BREACHES = select_chosen("sla_breaches_total", 'detection!="historic"')
DETECTED = select_chosen("sla_breaches_total")
RETRACTED = select_chosen("sla_breaches_retracted_total")
FULFILLED = select_chosen("sla_fulfilled_total")
REVISED = select_chosen("sla_fulfilled_revised_total")
CANCELLED = select_chosen("sla_cancelled_total")
KEPT_30D = select_chosen("sla:kept:ratio_delta30d")
ANSWER = "sla_fulfilment_support_seconds"
DELAY = "sla_breach_detection_delay_seconds"

KEPT_IN_TIME = query_share(f"clamp_min(delta({KEPT}[$__range]), 0)", f"clamp_min(delta({BROKEN}[$__range]), 0)")
KEPT_NOW = query_share(KEPT, BROKEN)
CELL = "{{objective}}: {{service_level}}, {{priority}}"
BY_CELL = "sum by (objective, service_level, priority)"
MET_OR_LATE = {"met": "green", "late": "red"}
WELL_OR_NOT = {"0": ("works", "green"), "1": ("does not work", "red")}

FIGURE, NAMES, BARS, LINES, STACK, COUNTS, STATES = Kind

# ---- the dashboards: a title opens a row of panels, from left to right
# fmt: off

OVERVIEW: Sequence[str | Panel] = (
    "Now",
    Panel(FIGURE, "Open", "short", 6, CALM,
          "Promises that wait to be kept: running, paused, or pending because the opening is not known yet.",
          {"open": f"sum({OPEN})"}),
    Panel(FIGURE, "At risk", "short", 6, NONE_IS_BETTER,
          "Running promises that have used 75 % of their target. `sla list --state at_risk` has them.",
          {"at risk": f"sum({AT_RISK})"}),
    Panel(FIGURE, "At risk, share", "percentunit", 6, limit_above(0.25, 0.5),
          "Of the running promises, those that have used 75 % of their target.",
          {"at risk": f"sum({AT_RISK}) / (sum({RUNNING}) > 0)"}, empty="no clock runs"),
    Panel(FIGURE, "Next deadline or warning", "dateTimeFromNow", 6, CALM,
          "When the engine looks next, of all promises: a deadline, or 50, 75 or 90 % of a target.",
          {"next": "1000 * (sla_next_deadline_timestamp_seconds > 0)"}, empty="no clock runs"),
    Panel(STACK, "Open by stage", "short", 6, CALM,
          "running: the clock runs. paused: it waits, where the policy lets it. pending: the opening is not known yet.",
          {"{{stage}}": f"sum by (stage) ({OPEN})"}),
    Panel(STACK, "Open by objective", "short", 6, CALM,
          "What is promised: a first response, a next one, a resolution, or what else the policy names.",
          {"{{objective}}": f"sum by (objective) ({OPEN})"}),
    Panel(STACK, "Open by service level", "short", 6, CALM,
          "The same promises by service level; none is that of a pending ticket.",
          {"{{service_level}}": f"sum by (service_level) ({OPEN})"}),
    Panel(BARS, "At risk, by what is promised", "short", 6, NONE_IS_BETTER,
          "Running promises that have used 75 % of their target.",
          {CELL: f"sort_desc({BY_CELL} ({AT_RISK}))"}),

    "Promises in the chosen time",
    Panel(FIGURE, "Kept", "percentunit", 4, limit_below(0.98, 0.95),
          "Of the promises of which it became known in the chosen time, those kept. What nobody keeps counts as soon "
          "as it is broken; imports count too.",
          {"kept": KEPT_IN_TIME}, empty="none is decided"),
    Panel(FIGURE, "Kept, of all ever", "percentunit", 4, limit_below(0.98, 0.95),
          "Of all promises that are kept or broken, those kept, as known now: what `sla report --period all` says.",
          {"kept": KEPT_NOW}, empty="none is decided"),
    Panel(FIGURE, "Breaches", "short", 4, NONE_IS_GOOD,
          "Promises that broke, without imports of old tickets. Some may have been retracted since: see beside.",
          {"breaches": f"sum({sum_rise(BREACHES)})"}),
    Panel(FIGURE, "Retracted", "short", 4, NONE_IS_BETTER,
          "Breaches of any age that late news withdrew. A rise means that publishers send facts late.",
          {"retracted": f"sum({sum_rise(RETRACTED)})"}),
    Panel(FIGURE, "Revised", "short", 4, NONE_IS_BETTER,
          "How often late news changed what had been said of a promise. A rise means that publishers send facts late.",
          {"revised": f"sum({sum_rise(REVISED)})"}),
    Panel(FIGURE, "Cancelled", "short", 4, CALM,
          "Clocks that ended without what was promised: closed, or excluded from support.",
          {"cancelled": f"sum({sum_rise(CANCELLED)})"}),
    Panel(BARS, "Breaches by what was promised", "short", 12, NONE_IS_GOOD,
          "Promises that broke in the chosen time, without imports. `sla watch --only breached` follows them.",
          {CELL: f"sort_desc({BY_CELL} ({sum_rise(BREACHES)}))"}),
    Panel(COUNTS, "Breaches over time", "short", 12, CALM,
          "Promises that broke, by objective and priority, without imports.",
          {"{{objective}}: {{priority}}": f"sum by (objective, priority) ({sum_rise_by_step(BREACHES)})"}),
    Panel(COUNTS, "Fulfilled over time", "short", 12, CALM,
          "Answers and resolutions by whether they came in time, as first known.",
          {"{{outcome}}": f"sum by (outcome) ({sum_rise_by_step(FULFILLED)})"}, colours=MET_OR_LATE),
    Panel(BARS, "Kept in 30 days, by what was promised", "percentunit", 12, limit_below(0.98, 0.95),
          "Of the promises of which it became known in the last 30 days, those kept; whatever time is chosen.",
          {CELL: f"sort(floor(10000 * {KEPT_30D} >= 0) / 10000)"}, empty="none is decided"),
    Panel(BARS, "Support time until it was fulfilled", "s", 12, CALM,
          "Half, 90 and 99 % of what was fulfilled in the chosen time took no longer. Of the chosen objectives, of all "
          "levels and priorities; estimated between the bounds of the histogram, which are targets and parts of them.",
          query_quantiles(ANSWER, "$__range", 'objective=~"$objective"'), empty="nothing is fulfilled"),
    Panel(BARS, "How breaches came to light", "short", 12, CALM,
          "live: at the deadline. late: a fact that came late made it one. historic: of an import, pages nobody.",
          {"{{detection}}": f"sum by (detection) ({sum_rise(DETECTED)})"}),

    "What late news changed, and what ended without an answer",
    Panel(COUNTS, "Breaches retracted over time", "short", 8, CALM,
          "By how the breach had come to light.",
          {"{{detection}}": f"sum by (detection) ({sum_rise_by_step(RETRACTED)})"}),
    Panel(BARS, "Revisions, before and after", "short", 8, CALM,
          "What was said of a promise, and what is said now; open: it runs again.",
          {"{{from}} to {{to}}": f"sort_desc(sum by (from, to) ({sum_rise(REVISED)}) > 0)"}),
    Panel(COUNTS, "Cancellations by cause", "short", 8, CALM,
          "closed: without an answer. excluded, no_promise: it does not apply. corrected: there never was one.",
          {"{{cause}}": f"sum by (cause) ({sum_rise_by_step(CANCELLED)})"}),
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
