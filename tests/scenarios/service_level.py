"""A change of the service level: other hours, other targets, the same support time used."""

from tests.scenarios.scenario import WARNED, Scenario, changed, corrected, levelled, opened, responded

SCENARIOS = (
    Scenario(
        "time before a change of level counts under the old hours, time after it under the new ones",
        rule=14,
        given=(
            opened("foundation", "serious", "2025-11-07 16:00"),
            levelled("enterprise", "2025-11-08 10:00"),
        ),
        when="2025-11-08 11:00",
        then=("applied", "target_changed", "warning"),
        also={
            "service_level": "enterprise",
            "due_at": "2025-11-08 12:00",
            "target": "4:00:00",
            "target_changed": {
                "cause": "service_level_changed",
                "time": "2025-11-08 10:00",
                "old_due_at": "2025-11-10 15:00",
                "elapsed_seconds": 7200,
                "subject": "sla.target_changed.enterprise.serious",
            },
        },
    ),
    Scenario(
        "a level whose target is used up already breaks the promise at the change, not before it",
        rule=14,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            levelled("professional", "2025-11-05 12:00"),
        ),
        then=("applied", "warning", "warning", "target_changed", "breached"),
        also={
            "due_at": "2025-11-05 12:00",
            "breached": {"cause": "service_level_changed", "breached_at": "2025-11-05 12:00", "elapsed_seconds": 72000},
        },
    ),
    Scenario(
        "level and priority change at one instant, and only the end of it counts",
        rule=14,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            levelled("enterprise", "2025-11-03 11:00"),
            changed("critical", "2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "target_changed", "target_changed", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 12:00", "service_level": "enterprise", "priority": "critical"},
    ),
    Scenario(
        "once broken, another level is a label",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            levelled("enterprise", "2025-11-03 15:00"),
            responded("2025-11-03 19:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "overdue": "4:00:00",
            "service_level": "enterprise",
            "judged_level": "foundation",
            "fulfilled": {"subject": "sla.fulfilled.foundation.critical", "elapsed_seconds": 28800},
        },
    ),
    Scenario(
        "a level that changed before the breach and arrives after it withdraws the breach",
        rule=14,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00"),
            levelled("foundation", "2025-11-03 11:00", arrives="2025-11-03 13:00"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "met": True,
            "breach_retracted": {"reason": "deadline_moved", "subject": "sla.breach_retracted.enterprise.critical"},
        },
    ),
    Scenario(
        "a level the policy does not have is a dead letter, in a correction too",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            levelled("gold", "2025-11-03 10:10"),
            corrected("o", "2025-11-03 11:00", priority="urgent"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "unknown_service_level", "unknown_priority", "recorded")},
    ),
)
