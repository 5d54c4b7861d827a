"""The earliest answer of an agent counts, in whatever order answers arrive."""

from tests.scenarios.scenario import WARNED, Scenario, asleep, changed, opened, responded

SCENARIOS = (
    Scenario(
        "a second answer changes nothing",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 11:00", "inbox": ("recorded",) * 3},
    ),
    Scenario(
        "an answer that happened earlier and arrives later replaces the first",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:30"),
            responded("2025-11-03 11:00", arrives="2025-11-03 13:00"),
        ),
        then=("applied", "fulfilled", "fulfilled"),
        also={
            "responded_at": "2025-11-03 11:00",
            "fulfilled": (
                {"revision": 1, "elapsed_seconds": 5400, "met": True},
                {"revision": 2, "elapsed_seconds": 3600, "met": True, "cause_id": "responded-2"},
            ),
        },
    ),
    Scenario(
        "an automatic acknowledgement is not a first response",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:00:01", by="automation"),
        ),
        then=("applied", *WARNED, "breached"),
        also={"responded_at": None, "inbox": ("recorded", "recorded")},
    ),
    Scenario(
        "the agent's answer counts, not the automatic one before it",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:00:01", by="automation"),
            responded("2025-11-03 11:00", by="agent"),
        ),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 11:00"},
    ),
    Scenario(
        "two answers at one instant are one",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00", id="b"),
            responded("2025-11-03 11:00", id="a"),
        ),
        then=("applied", "fulfilled"),
        also={"fulfilled": {"revision": 1}},
    ),
    Scenario(
        "an earlier answer that was late too corrects how late; the breach stands",
        rule=5,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            responded("2025-11-03 15:00", arrives="2025-11-03 17:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "fulfilled"),
        also={
            "overdue": "1:00:00",
            "breached_at": "2025-11-03 14:00",
            "fulfilled": ({"revision": 1, "overdue_seconds": 7200}, {"revision": 2, "overdue_seconds": 3600}),
        },
    ),
    Scenario(
        "an answer in time that a back-dated raise makes late waits for the tick",
        rule=5,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            asleep("2025-11-04 08:00", until="2025-11-04 10:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
        ),
        when="2025-11-04 09:30",
        then=("applied", "fulfilled"),
        also={"stage": "running", "met": None, "breached_at": None, "next_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "an answer in time that a back-dated raise makes late is revised after the breach",
        rule=5,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 16:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", "fulfilled", "breached", "fulfilled"),
        also={
            "stage": "fulfilled",
            "breached": {"breached_at": "2025-11-03 14:00", "number": 1, "detection": "live"},
            "fulfilled": ({"met": True, "revision": 1}, {"met": False, "revision": 2, "overdue_seconds": 7200}),
        },
    ),
)
