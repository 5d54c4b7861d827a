"""A fact withdrawn by its source: the ticket is judged as if it had never been told."""

from tests.scenarios.scenario import (
    WARNED,
    Scenario,
    changed,
    corrected,
    escalated,
    excluded,
    opened,
    responded,
    withdrawn,
)

SCENARIOS = (
    Scenario(
        "an answer that was none is withdrawn, and the clock goes on",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", id="r"),
            withdrawn("r", "2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled", "target_changed", *WARNED, "breached"),
        also={
            "met": None,
            "breached_at": "2025-11-03 14:00",
            "target_changed": {"cause": "corrected", "cause_id": "fact_withdrawn-1", "due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "withdrawn before it is told: it never counts",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            withdrawn("r", "2025-11-03 11:00"),
            responded("2025-11-03 10:30", id="r", arrives="2025-11-03 11:30"),
            responded("2025-11-03 12:00"),
        ),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 12:00", "flags": (), "inbox": ("recorded",) * 4},
    ),
    Scenario(
        "a click on the wrong priority is withdrawn after the breach, and the breach with it",
        rule=14,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 10:30", id="click"),
            withdrawn("click", "2025-11-03 15:00"),
        ),
        when="2025-11-03 16:00",
        then=("applied", "target_changed", *WARNED, "breached", "breach_retracted", "target_changed"),
        also={
            "priority": "minor",
            "due_at": "2025-11-05 16:00",
            "breached_at": None,
            "target_changed": ({}, {"cause": "corrected", "cause_id": "fact_withdrawn-1"}),
        },
    ),
    Scenario(
        "a withdrawn opening: as if not opened",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            withdrawn("o", "2025-11-03 15:00"),
            responded("2025-11-03 15:30"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "cancelled"),
        also={
            "stage": "cancelled",
            "breached_at": None,
            "cancelled": {"reason": "corrected", "cause_id": "fact_withdrawn-1"},
        },
    ),
    Scenario(
        "a withdrawn opening gives way to the next one",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            withdrawn("o", "2025-11-03 10:30"),
            opened("enterprise", "critical", "2025-11-03 11:00"),
            responded("2025-11-03 12:00"),
        ),
        then=("applied", "cancelled", "target_changed", "fulfilled"),
        also={"started_at": "2025-11-03 11:00", "due_at": "2025-11-03 13:00", "met": True, "flags": ()},
    ),
    Scenario(
        "a withdrawn exclusion never was",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("third_party", "2025-11-03 11:00", id="x"),
            withdrawn("x", "2025-11-03 12:00"),
            responded("2025-11-03 12:30"),
        ),
        then=("applied", "cancelled", "target_changed", "warning", "fulfilled"),
        also={"stage": "fulfilled", "met": True, "flags": ()},
    ),
    Scenario(
        "a withdrawn escalation does not count any more, and the next one is announced",
        rule=14,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00", id="e"),
            withdrawn("e", "2025-11-03 11:10"),
            escalated("2025-11-03 11:20"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "escalated", "escalated"),
        also={"escalation_level": 1},
    ),
    Scenario(
        "a correction of a withdrawn fact changes nothing",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", id="r"),
            withdrawn("r", "2025-11-03 11:10"),
            corrected("r", "2025-11-03 11:20", time="2025-11-03 10:30"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled", "target_changed", "fulfilled"),
        also={"responded_at": "2025-11-03 11:30", "flags": ()},
    ),
    Scenario(
        "a withdrawal of a fact that nobody has told: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            withdrawn("never", "2025-11-03 10:30"),
            responded("2025-11-03 10:50"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("withdraws_nothing",), "inbox": ("recorded",) * 3},
    ),
    Scenario(
        "whoever did not tell a fact does not withdraw it",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o", source="/helpdesk"),
            withdrawn("o", "2025-11-03 10:30", source="/crm"),
            responded("2025-11-03 10:50"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("withdraws_nothing",), "met": True},
    ),
    Scenario(
        "neither a correction nor a withdrawal is withdrawn: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 10:10", priority="minor"),
            withdrawn("corrected-1", "2025-11-03 10:20"),
            withdrawn("fact_withdrawn-1", "2025-11-03 10:30"),
            withdrawn("itself", "2025-11-03 10:40", id="itself"),
            responded("2025-11-03 10:50"),
        ),
        then=("applied", "target_changed", "fulfilled"),
        also={"priority": "minor", "flags": ("withdraws_nothing",)},
    ),
)
