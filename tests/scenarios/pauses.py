"""Pauses: the shipped policy counts on, a policy that lets the clock pause does not."""

from tests.scenarios.scenario import WARNED, Scenario, changed, opened, paused, responded, resumed

SCENARIOS = (
    Scenario(
        "paused and resumed: the shipped policy lets the time count",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 11:00", reason="waits for the customer"),
            resumed("2025-11-03 13:00"),
            responded("2025-11-03 14:30"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"due_at": "2025-11-03 14:00", "met": False},
    ),
    Scenario(
        "where the policy lets it pause, what is left of the target is left when it goes on",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 11:00"),
            resumed("2025-11-04 13:00"),
            responded("2025-11-04 14:30"),
        ),
        then=("applied", "target_changed", "warning", "fulfilled"),
        also={
            "due_at": "2025-11-04 16:00",
            "met": True,
            "target_changed": {"cause": "resumed", "old_due_at": "2025-11-03 14:00", "target_seconds": 14400},
            "fulfilled": {"elapsed_seconds": 9000},
        },
    ),
    Scenario(
        "while it is paused nothing is due",
        rule=14,
        pauses=True,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), paused("2025-11-03 11:00")),
        then=("applied",),
        also={"stage": "paused", "next_at": None, "breached_at": None},
    ),
    Scenario(
        "a priority that changes during a pause keeps the time used, and the pause",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            paused("2025-11-03 12:00"),
            changed("critical", "2025-11-03 15:00"),
            resumed("2025-11-04 10:00"),
        ),
        when="2025-11-04 10:30",
        then=("applied", "target_changed", "warning"),
        also={"due_at": "2025-11-04 12:00", "target": "4:00:00", "stage": "running"},
    ),
    Scenario(
        "whoever answers during a pause has used what was used before it",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 11:00"),
            responded("2025-11-05 11:00"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True, "fulfilled": {"elapsed_seconds": 3600}},
    ),
    Scenario(
        "a pause that began before the breach and is told after it withdraws the breach",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 13:00", arrives="2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted"),
        also={"stage": "paused", "breached_at": None, "breach_retracted": {"reason": "paused"}},
    ),
    Scenario(
        "a pause after the breach mends nothing",
        rule=14,
        pauses=True,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            paused("2025-11-03 15:00"),
            resumed("2025-11-03 16:00"),
            responded("2025-11-03 17:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"met": False, "due_at": "2025-11-03 14:00", "overdue": "2:00:00"},
    ),
    Scenario(
        "resumed without a pause: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            resumed("2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("resumed_without_pause",), "inbox": ("recorded",) * 3},
    ),
)
