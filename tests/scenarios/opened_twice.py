"""Several openings of one ticket: the earliest counts."""

from tests.scenarios.scenario import Scenario, changed, opened, responded

SCENARIOS = (
    Scenario(
        "a second opening with a later date is ignored",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            opened("enterprise", "minor", "2025-11-03 10:30"),
            responded("2025-11-03 11:00"),
        ),
        then=("applied", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "service_level": "foundation",
            "flags": ("opened_again",),
            "priority": "critical",
            "inbox": ("recorded",) * 3,
        },
    ),
    Scenario(
        "an earlier opening that arrives later moves the clock",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
            responded("2025-11-03 11:45"),
        ),
        then=("applied", "target_changed", "fulfilled"),
        also={
            "started_at": "2025-11-03 10:00",
            "opening_id": "opened-2",
            "target_changed": {
                "time": "2025-11-03 10:00",
                "started_at": "2025-11-03 10:00",
                "old_due_at": "2025-11-03 15:00",
                "due_at": "2025-11-03 14:00",
                "cause": "opening_replaced",
                "cause_id": "opened-2",
            },
        },
    ),
    Scenario(
        "an earlier opening brings its own level and priority",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00"),
            opened("enterprise", "minor", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "target_changed"),
        also={"service_level": "enterprise", "priority": "minor", "due_at": "2025-11-03 18:00"},
    ),
    Scenario(
        "the earlier opening may come from another system and have the same id",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00", source="/helpdesk", id="1"),
            opened("foundation", "critical", "2025-11-03 10:00", source="/crm", id="1", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 11:45",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "target_changed": {"cause": "opening_replaced"}},
    ),
    Scenario(
        "of two openings at one instant the first by source and id counts",
        rule=8,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00", id="b"),
            opened("foundation", "critical", "2025-11-03 10:00", id="a"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "opening_id": "a", "target_changed": {"cause": "opening_replaced"}},
    ),
    Scenario(
        "of two openings at one instant the one without a sequence counts",
        rule=8,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00", id="a", sequence="1"),
            opened("foundation", "critical", "2025-11-03 10:00", id="b"),
        ),
        when="2025-11-03 11:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 14:00", "opening_id": "b"},
    ),
    Scenario(
        "an earlier opening of an answered ticket revises what was fulfilled",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 11:00"),
            responded("2025-11-03 12:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 13:00"),
        ),
        then=("applied", "fulfilled", "fulfilled"),
        also={"fulfilled": ({"elapsed_seconds": 3600}, {"elapsed_seconds": 7200, "revision": 2, "met": True})},
    ),
    Scenario(
        "a change between the two openings counts once the earlier one is known",
        rule=8,
        given=(
            changed("serious", "2025-11-03 10:30"),
            opened("foundation", "critical", "2025-11-03 11:00"),
            opened("foundation", "critical", "2025-11-03 10:00", arrives="2025-11-03 11:30"),
        ),
        when="2025-11-03 12:00",
        then=("applied", "target_changed"),
        also={"due_at": "2025-11-03 18:00", "priority": "serious"},
    ),
    Scenario(
        "an earlier opening whose deadline has passed breaks at its tick",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 14:00"),
            opened("foundation", "critical", "2025-11-03 09:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", "target_changed", "breached"),
        also={"breached": {"breached_at": "2025-11-03 13:00", "detected_at": "2025-11-03 15:00:00.001"}},
    ),
    Scenario(
        "an answer between the two openings was before the first that was known",
        rule=8,
        given=(
            opened("foundation", "critical", "2025-11-03 14:00"),
            responded("2025-11-03 13:30", arrives="2025-11-03 14:10"),
            opened("foundation", "critical", "2025-11-03 09:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", "fulfilled", "breached", "fulfilled"),
        also={"met": False, "overdue": "0:30:00", "fulfilled": ({"elapsed_seconds": 0, "met": True}, {"revision": 2})},
    ),
)
