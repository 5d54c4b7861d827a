"""Targets by days or by a time of day: turned into support time once, from the opening. Office hours, 09:00-17:00."""

from tests.scenarios.scenario import WARNED_TWICE, Scenario, changed, levelled, opened, responded

SCENARIOS = (
    Scenario(
        "by the end of the next working day: seven hours of Monday and eight of Tuesday",
        rule=1,
        words=True,
        given=(opened("silver", "serious", "2025-11-03 10:00"), responded("2025-11-04 17:00")),
        then=("applied", *WARNED_TWICE, "fulfilled"),
        also={"due_at": "2025-11-04 17:00", "target": "15:00:00", "met": True},
    ),
    Scenario(
        "opened on Friday night or at the weekend, the next working day is Monday",
        rule=1,
        words=True,
        given=(opened("silver", "serious", "2025-11-07 22:00"),),
        when="2025-11-08 00:00",
        then=("applied",),
        also={"due_at": "2025-11-10 17:00", "target": "8:00:00"},
    ),
    Scenario(
        "two working days after an opening at the weekend count from Monday at opening",
        rule=1,
        words=True,
        given=(opened("silver", "minor", "2025-11-08 12:00"),),
        when="2025-11-09 00:00",
        then=("applied",),
        also={"due_at": "2025-11-11 17:00", "target": "16:00:00"},
    ),
    Scenario(
        "another priority has its target as from the opening, and the time used stays used",
        rule=1,
        words=True,
        given=(opened("silver", "serious", "2025-11-03 10:00"), changed("minor", "2025-11-03 12:00")),
        when="2025-11-03 13:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-05 10:00", "target": "16:00:00", "used": "2:00:00"},
    ),
    Scenario(
        "raised past the end of the day of the opening: the promise breaks at the change",
        rule=1,
        words=True,
        given=(opened("silver", "request", "2025-11-03 10:00"), changed("critical", "2025-11-04 12:00")),
        then=("applied", "target_changed", "breached", "overdue", "overdue"),
        also={"target": "7:00:00", "breached": {"cause": "priority_raised", "breached_at": "2025-11-04 12:00"}},
    ),
    Scenario(
        "a level with other targets has them as from the opening too",
        rule=1,
        words=True,
        given=(opened("gold", "serious", "2025-11-03 10:00"), levelled("silver", "2025-11-03 11:30")),
        when="2025-11-03 12:30",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-04 17:00", "target": "15:00:00"},
    ),
    Scenario(
        "an earlier opening that arrives later has its own day",
        rule=1,
        words=True,
        given=(
            opened("silver", "serious", "2025-11-04 09:30"),
            opened("silver", "serious", "2025-11-03 16:30", arrives="2025-11-04 10:00"),
        ),
        when="2025-11-04 12:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-04 17:00", "target": "8:30:00", "target_changed": {"cause": "opening_replaced"}},
    ),
)
