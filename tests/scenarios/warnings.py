"""Warnings at 50, 75 and 90 % of the target, none of them after the answer."""

from tests.scenarios.scenario import WARNED, Scenario, asleep, changed, opened, responded

SCENARIOS = (
    Scenario(
        "warnings come at 50, 75 and 90 per cent of the target",
        rule=12,
        given=(opened("foundation", "critical", "2025-11-03 10:00"),),
        when="2025-11-03 13:59",
        then=("applied", *WARNED),
        also={
            "at_risk_at": "2025-11-03 13:00",
            "next_at": "2025-11-03 14:00",
            "warning": (
                {"threshold_percent": 50, "time": "2025-11-03 12:00", "elapsed_seconds": 7200},
                {"threshold_percent": 75, "time": "2025-11-03 13:00", "cause": "threshold_reached"},
                {"threshold_percent": 90, "time": "2025-11-03 13:36", "detected_at": "2025-11-03 13:36:00.001"},
            ),
        },
    ),
    Scenario(
        "warnings are computed in support time",
        rule=12,
        given=(opened("foundation", "critical", "2025-11-07 16:00"), responded("2025-11-10 10:59")),
        then=("applied", *WARNED, "fulfilled"),
        also={
            "warning": (
                {"time": "2025-11-07 18:00"},
                {"time": "2025-11-10 10:00"},
                {"time": "2025-11-10 10:36"},
            ),
        },
    ),
    Scenario(
        "if one tick passes several, only the highest is sent",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:00", until="2025-11-03 13:10"),
            responded("2025-11-03 13:40"),
        ),
        then=("applied", "warning", "warning", "fulfilled"),
        also={"warning": ({"threshold_percent": 75}, {"threshold_percent": 90})},
    ),
    Scenario(
        "no warning once answered",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:00", until="2025-11-03 13:30"),
            responded("2025-11-03 12:30"),
        ),
        then=("applied", "fulfilled"),
    ),
    Scenario(
        "no warning once broken",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:00", until="2025-11-03 14:00:01"),
        ),
        then=("applied", "breached"),
    ),
    Scenario(
        "a longer target arms again the warnings that lie ahead",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 12:30"),
            responded("2025-11-03 15:00"),
        ),
        then=("applied", "warning", "target_changed", "warning", "fulfilled"),
        also={
            "warning": (
                {"threshold_percent": 50, "time": "2025-11-03 12:00", "due_at": "2025-11-03 14:00"},
                {"threshold_percent": 50, "time": "2025-11-03 14:00", "due_at": "2025-11-03 18:00"},
            ),
        },
    ),
    Scenario(
        "a warning that the longer target has passed as well is not sent again",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 14:00:30"),
            changed("serious", "2025-11-03 13:55", arrives="2025-11-03 14:00:10"),
            responded("2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "target_changed", "fulfilled"),
        also={"warned": ("50%",)},
    ),
    Scenario(
        "a deadline that comes back has its warnings behind it",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 12:10"),
            changed("critical", "2025-11-03 12:20"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "warning", "target_changed", "target_changed", "warning", "fulfilled"),
        also={"due_at": "2025-11-03 14:00", "warning": ({"threshold_percent": 50}, {"threshold_percent": 75})},
    ),
    Scenario(
        "a raise that passes a threshold warns at the change",
        rule=12,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 13:10"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "target_changed", "warning", "fulfilled"),
        also={"warning": {"threshold_percent": 75, "time": "2025-11-03 13:10"}},
    ),
    Scenario(
        "a warning is not withdrawn by a late-arriving fact",
        rule=12,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", arrives="2025-11-03 13:05"),
        ),
        then=("applied", "warning", "warning", "fulfilled"),
        also={"met": True},
    ),
    Scenario(
        "a span before the deadline is support time, and each threshold is named as the policy writes it",
        rule=12,
        words=True,
        given=(opened("gold", "serious", "2025-11-07 13:15"), responded("2025-11-10 09:14")),
        then=("applied", "warning", "warning", "fulfilled"),
        also={
            "warning": (
                {"threshold": "75%", "threshold_percent": 75, "time": "2025-11-07 16:15"},
                {"threshold": "30m before", "threshold_percent": None, "time": "2025-11-07 16:45"},
            ),
        },
    ),
    Scenario(
        "of a percent and a span the one that comes first depends on the target",
        rule=12,
        words=True,
        given=(opened("gold", "critical", "2025-11-03 10:00"), responded("2025-11-03 10:50")),
        then=("applied", "warning", "warning", "fulfilled"),
        also={"warning": ({"threshold": "30m before"}, {"threshold": "75%"}), "warned": ("30m before", "75%")},
    ),
    Scenario(
        "another target arms the span before its own deadline",
        rule=12,
        words=True,
        given=(opened("gold", "critical", "2025-11-03 10:00"), changed("serious", "2025-11-03 10:40")),
        when="2025-11-03 13:40",
        then=("applied", "warning", "target_changed", "warning", "warning"),
        also={
            "warning": (
                {"threshold": "30m before", "time": "2025-11-03 10:30"},
                {"threshold": "75%", "time": "2025-11-03 13:00"},
                {"threshold": "30m before", "time": "2025-11-03 13:30"},
            ),
        },
    ),
    Scenario(
        "a threshold that was passed more than a day before anybody told us of the ticket is not warned of",
        rule=12,
        given=(opened("foundation", "minor", "2025-11-06 10:00", arrives="2025-11-08 15:00"),),
        when="2025-11-08 15:01",
        then=("applied",),
        also={"stage": "running", "warned": ("50%",)},
    ),
)
