"""A breach: no answer until after the deadline, and by how much it is overdue."""

from tests.scenarios.scenario import WARNED, Scenario, asleep, opened, responded, tick

SCENARIOS = (
    Scenario(
        "no answer by the deadline is a breach",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"),),
        then=("applied", *WARNED, "breached"),
        also={
            "stage": "running",
            "breached_at": "2025-11-03 14:00",
            "met": None,
            "responded_at": None,
            "at_risk_at": None,
            "next_at": None,
            "breached": {
                "time": "2025-11-03 14:00",
                "detected_at": "2025-11-03 14:00:00.001",
                "number": 1,
                "severity": "critical",
                "detection": "live",
                "elapsed_seconds": 14400,
                "cause": "deadline_passed",
                "cause_id": "opened-1",
                "subject": "sla.breached.foundation.critical",
            },
        },
    ),
    Scenario(
        "an answer after the breach is late, and the breach stands",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), responded("2025-11-03 15:00")),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"stage": "fulfilled", "met": False, "overdue": "1:00:00", "breached_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a late answer that is known before the tick does not hide the breach",
        rule=2,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 15:00"),
            responded("2025-11-03 14:30"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={
            "met": False,
            "overdue": "0:30:00",
            "breached": {"breached_at": "2025-11-03 14:00", "detected_at": "2025-11-03 15:00", "detection": "late"},
            "fulfilled": {"detected_at": "2025-11-03 15:00"},
        },
    ),
    Scenario(
        "a late answer waits for the tick that shows its breach",
        rule=2,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 15:00"),
            responded("2025-11-03 14:30"),
        ),
        when="2025-11-03 14:45",
        then=("applied", *WARNED),
        also={
            "stage": "running",
            "met": None,
            "responded_at": None,
            "breached_at": None,
            "next_at": "2025-11-03 14:00",
        },
    ),
    Scenario(
        "at the instant of the deadline the promise is not yet broken",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), tick("2025-11-03 14:00")),
        when="2025-11-03 14:00",
        then=("applied", *WARNED),
        also={"breached_at": None, "next_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "one microsecond later it is broken",
        rule=2,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), tick("2025-11-03 14:00:00.000001")),
        when="2025-11-03 14:00:00.000001",
        then=("applied", *WARNED, "breached"),
        also={"breached_at": "2025-11-03 14:00", "breached": {"detected_at": "2025-11-03 14:00:00.000001"}},
    ),
)
