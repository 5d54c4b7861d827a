"""Facts that arrive before the opening of their ticket wait for it."""

from tests.scenarios.scenario import Scenario, changed, escalated, opened, responded, tick

SCENARIOS = (
    Scenario(
        "an answer that arrives before the opening waits for it",
        rule=7,
        given=(responded("2025-11-03 11:00"),),
        then=(),
        also={"stage": "pending", "due_at": None, "next_at": None, "inbox": ("recorded",)},
    ),
    Scenario(
        "once the opening arrives, the answer counts",
        rule=7,
        given=(
            responded("2025-11-03 11:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True, "responded_at": "2025-11-03 11:00"},
    ),
    Scenario(
        "an answer dated before the opening counts, with nothing used",
        rule=7,
        given=(
            responded("2025-11-03 09:30"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        then=("applied", "fulfilled"),
        also={
            "met": True,
            "responded_at": "2025-11-03 09:30",
            "due_at": "2025-11-03 14:00",
            "fulfilled": {"elapsed_seconds": 0, "overdue_seconds": 0, "time": "2025-11-03 09:30"},
        },
    ),
    Scenario(
        "an escalation dated before the opening counts",
        rule=7,
        given=(
            escalated("2025-11-03 09:45", reason="urgent"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        when="2025-11-03 10:30",
        then=("applied", "escalated"),
        also={
            "escalation_level": 1,
            "escalated": {"escalated_at": "2025-11-03 09:45", "elapsed_seconds": 0, "reason": "urgent"},
        },
    ),
    Scenario(
        "a change dated before the opening is superseded by it",
        rule=7,
        given=(
            changed("critical", "2025-11-03 09:30"),
            opened("foundation", "serious", "2025-11-03 10:00"),
        ),
        when="2025-11-03 10:30",
        then=("applied",),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "a change that arrives before the opening but happened after it counts",
        rule=7,
        given=(
            changed("critical", "2025-11-03 11:00"),
            opened("foundation", "serious", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 11:45",
        then=("applied",),
        also={"due_at": "2025-11-03 14:00", "priority": "critical", "applied": {"due_at": "2025-11-03 14:00"}},
    ),
    Scenario(
        "answered before the opening: a raise after it is only a label",
        rule=7,
        given=(
            responded("2025-11-03 09:30"),
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 10:00:01"),
        ),
        then=("applied", "fulfilled"),
        also={"target": "1 day, 0:00:00", "priority": "critical", "met": True},
    ),
    Scenario(
        "a pending ticket takes no notice of ticks",
        rule=7,
        given=(escalated("2025-11-03 09:45"), tick("2025-11-03 12:00"), tick("2025-11-04 12:00")),
        then=(),
        also={"stage": "pending", "escalation_level": 0},
    ),
)
