"""Hours of one target: critical around the clock, the rest in office hours, Mon-Fri 09:00-17:00."""

from tests.scenarios.scenario import WARNED_TWICE, Scenario, changed, opened, responded

SCENARIOS = (
    Scenario(
        "critical counts around the clock, at the weekend too",
        rule=14,
        words=True,
        given=(opened("gold", "critical", "2025-11-08 22:30"),),
        then=("applied", *WARNED_TWICE, "breached", "overdue", "overdue"),
        also={"due_at": "2025-11-08 23:30", "target": "1:00:00"},
    ),
    Scenario(
        "the rest counts in office hours",
        rule=14,
        words=True,
        given=(opened("gold", "serious", "2025-11-08 22:30"), responded("2025-11-10 13:00")),
        then=("applied", *WARNED_TWICE, "fulfilled"),
        also={"due_at": "2025-11-10 13:00", "met": True, "overdue": "0:00:00"},
    ),
    Scenario(
        "time before a priority that has other hours counts under the old ones",
        rule=14,
        words=True,
        given=(opened("gold", "minor", "2025-11-07 16:30"), changed("critical", "2025-11-08 10:00")),
        when="2025-11-08 10:10",
        then=("applied", "target_changed", "warning"),
        also={
            "due_at": "2025-11-08 10:30",
            "used": "0:30:00",
            "target_changed": {
                "cause": "priority_changed",
                "old_due_at": "2025-11-10 16:30",
                "elapsed_seconds": 1800,
                "target_seconds": 3600,
            },
        },
    ),
    Scenario(
        "what was used around the clock stays used in office hours",
        rule=14,
        words=True,
        given=(opened("gold", "critical", "2025-11-08 22:00"), changed("serious", "2025-11-08 22:20")),
        when="2025-11-10 09:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-10 12:40", "target": "4:00:00"},
    ),
    Scenario(
        "raised past its budget by other hours: the promise breaks at the change",
        rule=14,
        words=True,
        given=(opened("gold", "serious", "2025-11-07 15:00"), changed("critical", "2025-11-08 10:00")),
        then=("applied", "target_changed", "breached", "overdue", "overdue"),
        also={"breached": {"cause": "priority_raised", "breached_at": "2025-11-08 10:00", "elapsed_seconds": 7200}},
    ),
    Scenario(
        "once broken, a priority with other hours is a label, and what is late counts as it was judged",
        rule=14,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-08 10:00"),
            changed("minor", "2025-11-08 12:00"),
            responded("2025-11-08 13:00"),
        ),
        then=("applied", *WARNED_TWICE, "breached", "overdue", "fulfilled"),
        also={
            "priority": "minor",
            "judged_priority": "critical",
            "overdue": "2:00:00",
            "fulfilled": {"subject": "sla.fulfilled.gold.critical", "elapsed_seconds": 10800},
        },
    ),
    Scenario(
        "a priority with other hours that arrives after the breach withdraws it",
        rule=14,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-08 10:00"),
            changed("serious", "2025-11-08 10:30", arrives="2025-11-08 12:00"),
            responded("2025-11-10 10:00"),
        ),
        then=("applied", *WARNED_TWICE, "breached", "breach_retracted", "target_changed", "fulfilled"),
        also={"due_at": "2025-11-10 12:30", "met": True, "breach_retracted": {"reason": "deadline_moved"}},
    ),
)
