"""Reminders of what is still broken and unanswered, one and four hours of support time after the deadline."""

from tests.scenarios.scenario import WARNED_TWICE, Scenario, asleep, changed, closed, opened, reopened, responded

SCENARIOS = (
    Scenario(
        "each reminder is support time after the deadline, and the last one is the last",
        rule=12,
        words=True,
        given=(opened("gold", "serious", "2025-11-07 12:00"),),
        then=("applied", *WARNED_TWICE, "breached", "overdue", "overdue"),
        also={
            "due_at": "2025-11-07 16:00",
            "reminded": "4:00:00",
            "next_at": None,
            "overdue": (
                {"time": "2025-11-07 17:00", "after_seconds": 3600, "elapsed_seconds": 18000, "severity": "error"},
                {"time": "2025-11-10 12:00", "after_seconds": 14400, "elapsed_seconds": 28800, "cause": "still_broken"},
            ),
        },
    ),
    Scenario(
        "of several that one tick passes only the last is sent, after the breach",
        rule=12,
        words=True,
        given=(opened("gold", "critical", "2025-11-03 10:00"), asleep("2025-11-03 10:01", until="2025-11-03 16:00")),
        then=("applied", "breached", "overdue"),
        also={"overdue": {"time": "2025-11-03 15:00", "after_seconds": 14400, "detected_at": "2025-11-03 16:00"}},
    ),
    Scenario(
        "an answer ends the reminders",
        rule=12,
        words=True,
        given=(opened("gold", "critical", "2025-11-03 10:00"), responded("2025-11-03 12:30")),
        then=("applied", *WARNED_TWICE, "breached", "overdue", "fulfilled"),
        also={"next_at": None},
    ),
    Scenario(
        "nobody is reminded of a closed ticket; reopened, the time it was closed does not count",
        rule=12,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:30"),
            reopened("2025-11-03 14:00"),
        ),
        when="2025-11-03 15:00",
        then=("applied", *WARNED_TWICE, "breached", "cancelled", "target_changed", "overdue"),
        also={"overdue": {"time": "2025-11-03 14:30", "after_seconds": 3600}},
    ),
    Scenario(
        "another breach is reminded of anew",
        rule=12,
        words=True,
        given=(
            opened("gold", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 10:30", arrives="2025-11-03 12:30"),
        ),
        when="2025-11-03 15:30",
        then=(
            *("applied", *WARNED_TWICE, "breached", "overdue", "breach_retracted", "target_changed"),
            *(*WARNED_TWICE, "breached", "overdue"),
        ),
        also={"overdue": ({"time": "2025-11-03 12:00"}, {"time": "2025-11-03 15:00", "after_seconds": 3600})},
    ),
    Scenario(
        "nobody is reminded of a breach of long ago",
        rule=12,
        words=True,
        given=(opened("gold", "critical", "2025-11-03 10:00", arrives="2025-11-05 10:00"),),
        then=("applied", "breached"),
        also={"next_at": None, "breached": {"detection": "historic"}},
    ),
)
