"""A fact corrected by its source: the ticket is judged as if it had always been so."""

from tests.scenarios.scenario import WARNED, Scenario, corrected, opened, responded

SCENARIOS = (
    Scenario(
        "an opening told with the wrong priority is corrected from the start",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 11:30", priority="serious"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "target_changed"),
        also={
            "priority": "serious",
            "due_at": "2025-11-03 18:00",
            "target_changed": {"cause": "corrected", "cause_id": "corrected-1", "old_due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "a correction that shows that the promise was kept withdraws the breach",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 15:00", id="r"),
            corrected("r", "2025-11-03 16:00", time="2025-11-03 12:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "fulfilled"),
        also={
            "met": True,
            "responded_at": "2025-11-03 12:00",
            "breach_retracted": {"reason": "answered_in_time"},
            "fulfilled": ({"revision": 1, "met": False}, {"revision": 2, "met": True, "cause_id": "corrected-1"}),
        },
    ),
    Scenario(
        "an answer that was an automatic acknowledgement after all is taken back",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", id="r"),
            corrected("r", "2025-11-03 12:30", by="automation"),
        ),
        then=("applied", "fulfilled", "target_changed", *WARNED, "breached"),
        also={
            "stage": "running",
            "met": None,
            "breached_at": "2025-11-03 14:00",
            "target_changed": {"cause": "corrected", "cause_id": "corrected-1"},
        },
    ),
    Scenario(
        "a correction that comes before what it corrects waits for it",
        rule=14,
        given=(
            corrected("o", "2025-11-03 09:30", service_level="enterprise"),
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "warning", "fulfilled"),
        also={"service_level": "enterprise", "due_at": "2025-11-03 12:00", "flags": ()},
    ),
    Scenario(
        "a correction of a fact that nobody has told: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("never", "2025-11-03 11:00", priority="minor"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("corrects_nothing",), "priority": "critical", "inbox": ("recorded",) * 3},
    ),
    Scenario(
        "whoever did not tell a fact does not correct it",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o", source="/helpdesk"),
            corrected("o", "2025-11-03 11:00", priority="minor", source="/crm"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("corrects_nothing",), "priority": "critical"},
    ),
    Scenario(
        "two corrections of one fact: each says what it says, and the later one wins",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 10:30", priority="minor", service_level="professional"),
            corrected("o", "2025-11-03 10:40", priority="serious"),
            responded("2025-11-03 10:50"),
        ),
        then=("applied", "target_changed", "target_changed", "fulfilled"),
        also={"service_level": "professional", "priority": "serious", "due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a corrected time of opening moves the clock",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 11:00", time="2025-11-03 09:00"),
            responded("2025-11-03 12:45"),
        ),
        then=("applied", "target_changed", *WARNED, "fulfilled"),
        also={"started_at": "2025-11-03 09:00", "due_at": "2025-11-03 13:00", "met": True},
    ),
    Scenario(
        "a corrected time that no fact can have is a dead letter",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o"),
            corrected("o", "2025-11-03 11:00", time="2025-11-03 12:00"),
            corrected("o", "2025-11-03 11:00", time="1999-12-31 12:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "time_in_future", "time_out_of_range", "recorded"), "met": True},
    ),
)
