"""Closed, with or without an answer, and reopened: a new cycle or the same."""

from tests.scenarios.scenario import WARNED, Scenario, asleep, changed, closed, opened, reopened, responded

SCENARIOS = (
    Scenario(
        "closed without a response: cancelled, and no breach comes",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:30", reason="sent to the wrong address"),
        ),
        then=("applied", "cancelled"),
        also={
            "stage": "cancelled",
            "reason": "sent to the wrong address",
            "next_at": None,
            "met": None,
            "cancelled": {
                "time": "2025-11-03 11:30",
                "cause": "closed",
                "cause_id": "closed-1",
                "reason": "sent to the wrong address",
                "elapsed_seconds": 5400,
                "due_at": "2025-11-03 14:00",
                "subject": "sla.cancelled.foundation.critical",
            },
        },
    ),
    Scenario(
        "closed for no given reason",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), closed("2025-11-03 11:30")),
        then=("applied", "cancelled"),
        also={"reason": "closed", "cancelled": {"reason": "closed"}},
    ),
    Scenario(
        "reopened: the same clock goes on, and the closed time does not count",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            reopened("2025-11-04 10:00"),
            responded("2025-11-04 12:30"),
        ),
        then=("applied", "cancelled", "target_changed", *WARNED[:2], "fulfilled"),
        also={
            "started_at": "2025-11-03 10:00",
            "due_at": "2025-11-04 13:00",
            "met": True,
            "target_changed": {
                "cause": "reopened",
                "old_due_at": "2025-11-03 14:00",
                "target_seconds": 14400,
                "elapsed_seconds": 3600,
            },
            "fulfilled": {"elapsed_seconds": 12600},
        },
    ),
    Scenario(
        "reopened and never answered breaks after what was left of the target",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 13:00"),
            reopened("2025-11-06 10:00"),
        ),
        then=("applied", "warning", "cancelled", "target_changed", "warning", "warning", "breached"),
        also={"breached_at": "2025-11-06 11:00", "due_at": "2025-11-06 11:00"},
    ),
    Scenario(
        "an answered clock never restarts",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
            closed("2025-11-03 12:00"),
            reopened("2025-11-04 10:00"),
        ),
        then=("applied", "fulfilled"),
        also={"stage": "fulfilled", "met": True, "responded_at": "2025-11-03 11:00"},
    ),
    Scenario(
        "the answer with which a ticket is closed counts, at the same instant",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            responded("2025-11-03 11:00"),
        ),
        then=("applied", "cancelled", "fulfilled"),
        also={"stage": "fulfilled", "met": True, "reason": None},
    ),
    Scenario(
        "an answer while the ticket is closed is not the first response",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            responded("2025-11-03 12:00"),
            reopened("2025-11-03 15:00"),
            responded("2025-11-03 16:00", id="counts"),
        ),
        then=("applied", "cancelled", "target_changed", "fulfilled"),
        also={"responded_at": "2025-11-03 16:00", "due_at": "2025-11-03 18:00", "fulfilled": {"cause_id": "counts"}},
    ),
    Scenario(
        "closed after the breach: the breach stands",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), closed("2025-11-03 15:00")),
        then=("applied", *WARNED, "breached", "cancelled"),
        also={"stage": "cancelled", "breached_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a close that arrives after the breach and happened before it withdraws the breach",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 13:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "cancelled"),
        also={"stage": "cancelled", "breached_at": None, "breach_retracted": {"reason": "closed"}},
    ),
    Scenario(
        "priorities that change while the ticket is closed count when it goes on",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            changed("serious", "2025-11-03 12:00"),
            reopened("2025-11-04 09:00"),
        ),
        when="2025-11-04 09:30",
        then=("applied", "cancelled", "target_changed"),
        also={"due_at": "2025-11-04 16:00", "target": "8:00:00"},
    ),
    Scenario(
        "a close of a ticket that nobody has opened waits for the opening",
        rule=14,
        given=(closed("2025-11-03 11:00"),),
        then=(),
        also={"stage": "pending", "inbox": ("recorded",)},
    ),
    Scenario(
        "a close dated before the opening is superseded by it",
        rule=14,
        given=(
            closed("2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True},
    ),
    Scenario(
        "reopened without a close: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            reopened("2025-11-03 11:00"),
            responded("2025-11-03 12:30"),
        ),
        then=("applied", "warning", "fulfilled"),
        also={"flags": ("reopened_without_close",), "due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a broken promise that was closed goes on with the reopening, which is the cause",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 15:00"),
            reopened("2025-11-04 10:00", id="again"),
        ),
        when="2025-11-04 12:00",
        then=("applied", *WARNED, "breached", "cancelled", "target_changed"),
        also={
            "target_changed": {"cause": "reopened", "cause_id": "again", "time": "2025-11-04 10:00"},
            "breached_at": "2025-11-03 14:00",
        },
    ),
    Scenario(
        "a deadline that had passed when the ticket was closed is the cause of the breach, whenever it is noticed",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 10:00", until="2025-11-03 17:00"),
            closed("2025-11-03 15:00"),
            reopened("2025-11-03 16:00"),
        ),
        when="2025-11-03 18:00",
        then=("applied", "breached"),
        also={"breached": {"cause": "deadline_passed"}, "breached_at": "2025-11-03 14:00"},
    ),
)
