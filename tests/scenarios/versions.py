"""A ticket is judged by the version in force at its opening, until it is moved to another."""

from tests.scenarios.scenario import WARNED, Scenario, changed, edited, escalated, moved, opened, responded

SCENARIOS = (
    Scenario(
        "a ticket is judged by the policy in force when it was opened",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-03 11:00"),
            changed("serious", "2025-11-03 11:30"),
            responded("2025-11-03 19:00"),
        ),
        then=("applied", "target_changed", *WARNED, "breached", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "target": "8:00:00", "policy_version": "2026-01"},
    ),
    Scenario(
        "a ticket opened after the edit is judged by the new policy",
        rule=13,
        given=(
            edited("2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 17:30"),
        ),
        then=("applied", *WARNED, "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "target": "8:00:00", "policy_version": "edited"},
    ),
    Scenario(
        "a late-arriving fact is judged by the policy of the opening",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-04 09:00"),
            opened("foundation", "critical", "2025-11-03 09:00", arrives="2025-11-04 10:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "breached"),
        also={"due_at": "2025-11-03 13:00", "policy_version": "2026-01", "breached": {"policy_version": "2026-01"}},
    ),
    Scenario(
        "a pending ticket is not pinned yet",
        rule=13,
        given=(
            escalated("2025-11-03 09:00"),
            edited("2025-11-03 09:30"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "escalated"),
        also={"policy_version": "edited", "due_at": "2025-11-03 18:00"},
    ),
    Scenario(
        "an earlier opening that arrives late brings the version that was in force then",
        rule=13,
        given=(
            edited("2025-11-04 09:00"),
            opened("foundation", "critical", "2025-11-04 10:00"),
            opened("foundation", "critical", "2025-11-04 08:59", arrives="2025-11-04 11:00"),
            responded("2025-11-04 12:30"),
        ),
        then=("applied", "target_changed", "warning", "warning", "fulfilled"),
        also={
            "due_at": "2025-11-04 13:00",
            "policy_version": "2026-01",
            "target_changed": {"cause": "opening_replaced", "old_due_at": "2025-11-04 18:00"},
        },
    ),
    Scenario(
        "a ticket of yesterday that arrives today is judged by the version of yesterday",
        rule=13,
        given=(
            edited("2025-11-04 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 10:00"),
        ),
        then=("applied", "breached"),
        also={"due_at": "2025-11-03 14:00", "policy_version": "2026-01"},
    ),
    Scenario(
        "an open ticket that is moved keeps the time it has used, and gets the target of the new version",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-03 11:00"),
            moved("edited", "2025-11-03 11:30"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "target_changed", "fulfilled"),
        also={
            "due_at": "2025-11-03 18:00",
            "target": "8:00:00",
            "policy_version": "edited",
            "target_changed": {
                "cause": "policy_changed",
                "policy_version": "edited",
                "old_due_at": "2025-11-03 14:00",
                "elapsed_seconds": 5400,
            },
        },
    ),
    Scenario(
        "moved to a version that gives less than is used: it breaks at the move, not before it",
        rule=13,
        given=(
            edited("2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
            moved("2026-01", "2025-11-03 15:00"),
        ),
        then=("applied", "warning", "target_changed", "breached"),
        also={"breached_at": "2025-11-03 15:00", "breached": {"cause": "policy_changed", "policy_version": "2026-01"}},
    ),
    Scenario(
        "what is broken stays under the version it was broken under",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            edited("2025-11-03 14:30"),
            moved("edited", "2025-11-03 15:00"),
            responded("2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"policy_version": "2026-01", "met": False, "overdue": "2:00:00"},
    ),
    Scenario(
        "a move to a version that nobody has published is a dead letter",
        rule=13,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            moved("2031-01", "2025-11-03 10:10"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "invalid_data", "recorded"), "policy_version": "2026-01"},
    ),
)
