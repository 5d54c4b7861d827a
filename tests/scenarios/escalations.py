"""An escalation moves no deadline, and raises the severity of a breach."""

from tests.scenarios.scenario import WARNED, Scenario, escalated, levelled, opened, responded

SCENARIOS = (
    Scenario(
        "an escalation is told to whom the level says, and moves nothing",
        rule=10,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00", reason="the director called"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "escalated"),
        also={
            "escalation_level": 1,
            "priority": "minor",
            "due_at": "2025-11-05 16:00",
            "stage": "running",
            "escalated": {
                "tell": ["support-escalation"],
                "severity": "error",
                "reason": "the director called",
                "escalated_at": "2025-11-03 11:00",
                "elapsed_seconds": 3600,
                "escalation_level": 1,
                "cause": "escalated",
                "cause_id": "escalated-1",
            },
        },
    ),
    Scenario(
        "in Enterprise the account manager is told too",
        rule=10,
        given=(opened("enterprise", "minor", "2025-11-03 10:00"), escalated("2025-11-03 11:00")),
        when="2025-11-03 12:00",
        then=("applied", "escalated"),
        also={"escalated": {"tell": ["account_manager", "support-escalation"], "reason": None}},
    ),
    Scenario(
        "the account manager is asked where the level has none: accepted and flagged",
        rule=10,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00", by="account_manager"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "escalated"),
        also={"flags": ("escalation_not_offered",), "escalated": {"tell": ["support-escalation"]}},
    ),
    Scenario(
        "what counts is the level at the time of the escalation",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00", by="account_manager"),
            escalated("2025-11-03 11:10", by="mailbox"),
            levelled("foundation", "2025-11-03 11:30"),
            escalated("2025-11-03 11:40", by="ticket"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "escalated", "escalated", "target_changed", "escalated"),
        also={"flags": ()},
    ),
    Scenario(
        "an escalation does not answer, and each raises the severity of the breach by one step",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00"),
        ),
        then=("applied", "escalated", *WARNED, "breached"),
        also={"responded_at": None, "breached": {"severity": "error", "escalation_level": 1, "priority": "minor"}},
    ),
    Scenario(
        "the severity ends at critical",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 11:00"),
            escalated("2025-11-03 11:30"),
            escalated("2025-11-03 12:00"),
        ),
        then=("applied", "escalated", "escalated", "escalated", *WARNED, "breached"),
        also={
            "escalation_level": 3,
            "breached": {"severity": "critical"},
            "escalated": ({"severity": "error"}, {"severity": "critical"}, {"severity": "critical"}),
        },
    ),
    Scenario(
        "an escalation after the breach and the answer is still told",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 19:00"),
            escalated("2025-11-03 20:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "escalated"),
        also={"escalation_level": 1, "breached": {"severity": "warning", "escalation_level": 0}},
    ),
    Scenario(
        "an escalation that arrives late is told once, whatever its place",
        rule=10,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            escalated("2025-11-03 12:00", id="second"),
            escalated("2025-11-03 11:00", id="first", arrives="2025-11-03 13:00"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "escalated", "escalated", "fulfilled"),
        also={"escalated": ({"cause_id": "second"}, {"cause_id": "first"}), "escalation_level": 2},
    ),
)
