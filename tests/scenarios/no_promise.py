"""A priority to which nothing is promised: no clock, announced by nothing, in no figure."""

from tests.scenarios.scenario import WARNED_TWICE, Scenario, changed, closed, corrected, opened, responded

SCENARIOS = (
    Scenario(
        "nothing is promised: nothing is announced, whatever happens",
        rule=14,
        words=True,
        given=(
            opened("gold", "request", "2025-11-03 10:00"),
            responded("2025-11-05 10:00"),
            closed("2025-11-06 10:00"),
        ),
        then=(),
        also={"stage": "cancelled", "reason": "no_promise", "due_at": None, "target": None, "met": None},
    ),
    Scenario(
        "a change to a priority without a promise cancels the running promise",
        rule=14,
        words=True,
        given=(opened("gold", "serious", "2025-11-03 10:00"), changed("request", "2025-11-03 11:00", id="c")),
        then=("applied", "cancelled"),
        also={
            "stage": "cancelled",
            "reason": "no_promise",
            "used": "1:00:00",
            "cancelled": {
                "cause": "no_promise",
                "cause_id": "c",
                "reason": "no_promise",
                "time": "2025-11-03 11:00",
                "elapsed_seconds": 3600,
                "subject": "sla.cancelled.gold.serious",
            },
        },
    ),
    Scenario(
        "changed back, the promise goes on with what was used",
        rule=14,
        words=True,
        given=(
            opened("gold", "serious", "2025-11-03 10:00"),
            changed("request", "2025-11-03 11:00"),
            changed("serious", "2025-11-03 15:00"),
        ),
        when="2025-11-03 15:30",
        then=("applied", "cancelled", "target_changed"),
        also={
            "stage": "running",
            "due_at": "2025-11-04 10:00",
            "target_changed": {"cause": "priority_changed", "elapsed_seconds": 3600, "old_due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "a promise that comes with a change starts then, and nothing was used before",
        rule=14,
        words=True,
        given=(opened("gold", "request", "2025-11-03 10:00"), changed("serious", "2025-11-03 12:00", id="c")),
        then=("applied", *WARNED_TWICE, "breached", "overdue", "overdue"),
        also={
            "due_at": "2025-11-03 16:00",
            "applied": {"cause": "priority_changed", "cause_id": "c", "time": "2025-11-03 12:00", "elapsed_seconds": 0},
        },
    ),
    Scenario(
        "an answer while nothing is promised is no fulfilment, and the promise does not come back after it",
        rule=14,
        words=True,
        given=(
            opened("gold", "serious", "2025-11-03 10:00"),
            changed("request", "2025-11-03 11:00"),
            responded("2025-11-03 12:00"),
            changed("critical", "2025-11-03 13:00"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "cancelled", "reason": "no_promise", "responded_at": None},
    ),
    Scenario(
        "once broken, a priority without a promise is a label",
        rule=14,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-03 10:00"),
            changed("request", "2025-11-03 12:00"),
            responded("2025-11-03 13:00"),
        ),
        then=("applied", *WARNED_TWICE, "breached", "overdue", "fulfilled"),
        also={"priority": "request", "overdue": "2:00:00", "fulfilled": {"subject": "sla.fulfilled.gold.critical"}},
    ),
    Scenario(
        "a change to no promise that arrives after the breach withdraws it",
        rule=14,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-03 10:00"),
            changed("request", "2025-11-03 10:30", arrives="2025-11-03 12:00"),
        ),
        then=("applied", *WARNED_TWICE, "breached", "breach_retracted", "cancelled"),
        also={"breached_at": None, "breach_retracted": {"reason": "no_promise"}},
    ),
    Scenario(
        "an opening that is corrected to a priority without a promise cancels it",
        rule=14,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 10:10", priority="request"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "cancelled", "due_at": None, "cancelled": {"cause": "no_promise"}},
    ),
)
