"""The same facts in another order of arrival end alike."""

from tests.scenarios.scenario import Scenario, changed, escalated, opened, responded

SCENARIOS = (
    Scenario(
        "a kept promise told backwards",
        rule=11,
        given=(
            escalated("2025-11-03 15:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 12:30", arrives="2025-11-04 09:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
            opened("foundation", "minor", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "fulfilled", "escalated"),
        also={"due_at": "2025-11-03 14:00", "met": True, "escalation_level": 1},
    ),
    Scenario(
        "a broken promise told backwards, with a tick after each fact",
        rule=11,
        given=(
            responded("2025-11-03 15:00", arrives="2025-11-04 09:00"),
            changed("serious", "2025-11-03 12:00", arrives="2025-11-04 09:01"),
            changed("critical", "2025-11-03 12:30", arrives="2025-11-04 09:02"),
            opened("foundation", "minor", "2025-11-03 10:00", arrives="2025-11-04 09:03"),
        ),
        then=("applied", "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "met": False,
            "overdue": "1:00:00",
            "breached": {"detection": "live", "detected_at": "2025-11-04 09:03:00.001"},
        },
    ),
    Scenario(
        "a kept promise told in the worst order ends as it should",
        rule=11,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 17:00", arrives="2025-11-04 09:01"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-04 09:02"),
        ),
        then=("applied", "breached", "fulfilled", "breach_retracted", "fulfilled"),
        also={"due_at": "2025-11-03 18:00", "met": True, "breached_at": None},
    ),
)
