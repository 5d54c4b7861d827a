"""A breach is recorded by a tick of the deadline timer or by a fact that arrives after it, in time or late."""

from tests.scenarios.scenario import WARNED, Scenario, asleep, changed, closed, escalated, opened, responded, tick

SCENARIOS = (
    Scenario(
        "a backlog with the answer in it causes no false alarm",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 13:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "fulfilled"),
        also={"met": True},
    ),
    Scenario(
        "a backlog with a late answer in it breaches at its tick",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),
            responded("2025-11-03 15:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "breached", "fulfilled"),
        also={"met": False, "breached": {"detection": "live", "detected_at": "2025-11-04 09:00:00.001"}},
    ),
    Scenario(
        "a clock that is already due when it is recorded waits for its tick",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 09:00"),),
        when="2025-11-04 09:00",
        then=("applied",),
        also={"stage": "running", "breached_at": None, "next_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "facts recorded after the deadline do not break the promise either",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 16:00"),
            escalated("2025-11-03 14:30"),
            changed("serious", "2025-11-03 15:00"),
        ),
        when="2025-11-03 15:30",
        then=("applied", *WARNED, "escalated"),
        also={"breached_at": None, "due_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "a forged tick before its time does nothing",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), tick("2025-11-03 11:00")),
        when="2025-11-03 11:30",
        then=("applied",),
        also={"next_at": "2025-11-03 12:00"},
    ),
    Scenario(
        "doubled ticks breach once",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            tick("2025-11-03 14:00:00.000500"),
            tick("2025-11-03 14:00:00.000500"),
            tick("2025-11-03 14:00:01"),
        ),
        then=("applied", *WARNED, "breached"),
    ),
    Scenario(
        "a tick for a ticket that nobody has heard of does nothing",
        rule=3,
        given=(tick("2025-11-03 11:00"),),
        then=(),
        also={"stage": "pending", "inbox": ()},
    ),
    Scenario(
        "an answer dated four minutes ahead is not announced before its instant",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:34", arrives="2025-11-03 10:30"),
        ),
        when="2025-11-03 10:34",
        then=("applied",),
        also={"stage": "running", "responded_at": None, "next_at": "2025-11-03 10:34"},
    ),
    Scenario(
        "an answer dated four minutes ahead is announced at its instant",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:34", arrives="2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={
            "met": True,
            "next_at": None,
            "fulfilled": {"time": "2025-11-03 10:34", "detected_at": "2025-11-03 10:34:00.001"},
        },
    ),
    Scenario(
        "an opening dated ahead starts its clock at its instant",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:04", arrives="2025-11-03 10:00"),),
        when="2025-11-03 10:05",
        then=("applied",),
        also={
            "due_at": "2025-11-03 14:04",
            "applied": {"time": "2025-11-03 10:04", "detected_at": "2025-11-03 10:04:00.001"},
        },
    ),
    Scenario(
        "before that instant the ticket is pending",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:04", arrives="2025-11-03 10:00"),),
        when="2025-11-03 10:03",
        then=(),
        also={"stage": "pending", "next_at": "2025-11-03 10:04", "service_level": None},
    ),
    Scenario(
        "facts dated exactly five minutes ahead count in their turn",
        rule=3,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            escalated("2025-11-03 10:35", arrives="2025-11-03 10:30"),
            changed("critical", "2025-11-03 10:33", arrives="2025-11-03 10:30"),
        ),
        when="2025-11-03 10:40",
        then=("applied", "target_changed", "escalated"),
        also={
            "target_changed": {"detected_at": "2025-11-03 10:33:00.001"},
            "escalated": {"detected_at": "2025-11-03 10:35:00.001"},
            "next_at": "2025-11-03 12:00",
        },
    ),
    Scenario(
        "a raise dated ahead is announced at its instant, before the warning it brings",
        rule=3,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 12:04", arrives="2025-11-03 12:00"),
        ),
        when="2025-11-03 12:30",
        then=("applied", "target_changed", "warning"),
        also={"warning": {"time": "2025-11-03 12:04", "detected_at": "2025-11-03 12:04:00.001"}},
    ),
    Scenario(
        "a fact that arrives after that instant takes the one dated ahead along, without its tick",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 10:20", until="2025-11-03 10:50"),
            responded("2025-11-03 10:34", arrives="2025-11-03 10:30"),
            escalated("2025-11-03 10:35"),
        ),
        when="2025-11-03 10:40",
        then=("applied", "fulfilled", "escalated"),
        also={"next_at": None, "fulfilled": {"detected_at": "2025-11-03 10:35"}},
    ),
    Scenario(
        "a fact dated more than five minutes ahead is refused",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:35:00.000001", arrives="2025-11-03 10:30"),
        ),
        when="2025-11-03 11:00",
        then=("applied",),
        also={"responded_at": None, "inbox": ("recorded", "time_in_future")},
    ),
    Scenario(
        "a breach is live up to two seconds after the deadline",
        rule=3,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:55", until="2025-11-03 12:00:02"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"breached": {"detection": "live"}},
    ),
    Scenario(
        "a breach is late if the engine was behind",
        rule=3,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 11:55", until="2025-11-03 12:00:10"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"breached": {"detection": "late", "breached_at": "2025-11-03 12:00"}},
    ),
    Scenario(
        "a breach is live if the fact it rests on has only just arrived",
        rule=3,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-03 16:00"),
        ),
        then=("applied", "warning", "target_changed", "breached"),
        also={
            "breached": {
                "detection": "live",
                "breached_at": "2025-11-03 14:00",
                "detected_at": "2025-11-03 16:00:00.001",
                "cause_id": "priority_changed-1",
            },
            "warning": {"threshold_percent": 50, "time": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "a promise that broke more than a day before anybody told us of the ticket is historic",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-05 10:00"),),
        then=("applied", "breached"),
        also={"breached": {"detection": "historic", "subject": "sla.breached_historic.foundation.critical"}},
    ),
    Scenario(
        "exactly a day before is not yet historic",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 14:00"),),
        then=("applied", "breached"),
        also={"breached": {"detection": "live", "subject": "sla.breached.foundation.critical"}},
    ),
    Scenario(
        "one microsecond more is historic",
        rule=3,
        given=(opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-04 14:00:00.000001"),),
        then=("applied", "breached"),
        also={"breached": {"detection": "historic"}},
    ),
    Scenario(
        "a ticket that was known in time breaches late, not historic, however long the outage",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 10:00", until="2025-11-06 10:00"),
        ),
        then=("applied", "breached"),
        also={"breached": {"detection": "late", "detected_at": "2025-11-06 10:00"}},
    ),
    Scenario(
        "what ends a historic breach is historic too",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-10 10:00"),
            responded("2025-11-03 12:00", arrives="2025-11-10 11:00"),
        ),
        then=("applied", "breached", "breach_retracted", "fulfilled"),
        also={
            "breach_retracted": {
                "detection": "historic",
                "subject": "sla.breach_retracted_historic.foundation.critical",
            },
            "fulfilled": {"detection": "historic", "fulfilled_by": "responded", "fulfilled_at": "2025-11-03 12:00"},
        },
    ),
    Scenario(
        "a historic breach that is closed unanswered: the end names its detection",
        rule=3,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-10 10:00"),
            closed("2025-11-10 11:00"),
        ),
        then=("applied", "breached", "cancelled"),
        also={"cancelled": {"detection": "historic"}},
    ),
)
