"""Updates: each answer starts the time to the next one. And a response to every message, the opening among them."""

from tests.scenarios.scenario import Scenario, build_fact, closed, opened, reopened, responded

SCENARIOS = (
    Scenario(
        "an update every four hours: each answer starts a cycle, and the next answer stops it",
        rule=14,
        updates=True,
        given=(
            opened("gold", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            responded("2025-11-03 13:00"),
            responded("2025-11-03 18:00"),
            closed("2025-11-03 19:00"),
        ),
        then=(
            "applied",
            "fulfilled",
            "applied",
            "fulfilled",
            "applied",
            "warning",
            "breached",
            "fulfilled",
            "applied",
            "cancelled",
        ),
        also={
            "applied": (
                {"objective": "first_response", "cycle": 1},
                {"objective": "update", "cycle": 1, "cause": "responded", "due_at": "2025-11-03 14:00"},
                {"objective": "update", "cycle": 2, "started_at": "2025-11-03 13:00"},
                {"objective": "update", "cycle": 3, "due_at": "2025-11-03 22:00"},
            ),
            "fulfilled": (
                {"objective": "first_response"},
                {"objective": "update", "cycle": 1, "met": True, "elapsed_seconds": 10800},
                {"objective": "update", "cycle": 2, "met": False, "overdue_seconds": 3600},
            ),
            "breached": {"cycle": 2, "breached_at": "2025-11-03 17:00"},
            "cancelled": {"cycle": 3, "cause": "closed"},
        },
    ),
    Scenario(
        "before the first answer nobody waits for an update",
        rule=14,
        updates=True,
        given=(
            opened("gold", "critical", "2025-11-03 09:00"),
            build_fact("customer_replied", {}, "2025-11-03 10:00"),
        ),
        then=("applied", "warning", "breached"),
        also={"breached": {"objective": "first_response"}},
    ),
    Scenario(
        "an answer before the opening: the wait for an update begins with the opening",
        rule=14,
        updates=True,
        given=(
            responded("2025-11-03 08:00", id="a"),
            responded("2025-11-03 08:30", id="b"),
            opened("gold", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00", id="c"),
        ),
        when="2025-11-03 10:30",
        then=("applied", "fulfilled", "applied", "fulfilled", "applied"),
        also={
            "applied": ({}, {"started_at": "2025-11-03 09:00", "cycle": 1}, {"started_at": "2025-11-03 10:00"}),
            "fulfilled": ({"responded_at": "2025-11-03 08:00"}, {"elapsed_seconds": 3600, "cycle": 1}),
        },
    ),
    Scenario(
        "an automatic answer is no update",
        rule=14,
        updates=True,
        given=(
            opened("gold", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            responded("2025-11-03 12:00", by="automation"),
        ),
        then=("applied", "fulfilled", "applied", "warning", "breached"),
        also={"breached": {"objective": "update", "breached_at": "2025-11-03 14:00"}},
    ),
    Scenario(
        "closing ends the wait for an update, and a reopening goes on with what is left",
        rule=14,
        updates=True,
        given=(
            opened("gold", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            reopened("2025-11-04 11:00"),
            responded("2025-11-04 13:59"),
        ),
        when="2025-11-04 14:00",
        then=("applied", "fulfilled", "applied", "cancelled", "target_changed", "warning", "fulfilled", "applied"),
        also={
            "target_changed": {"cause": "reopened", "due_at": "2025-11-04 14:00", "cycle": 1},
            "fulfilled": {"met": True, "elapsed_seconds": 14340, "cycle": 1},
        },
    ),
    Scenario(
        "an answer just after the close starts an update that waits for a reopening",
        rule=14,
        updates=True,
        given=(
            opened("gold", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            closed("2025-11-03 11:00"),
            responded("2025-11-03 11:00:01"),
            reopened("2025-11-03 12:00"),
        ),
        when="2025-11-03 12:30",
        then=("applied", "fulfilled", "applied", "cancelled", "fulfilled", "applied", "cancelled", "target_changed"),
        also={
            "fulfilled": {"objective": "update", "cycle": 1, "elapsed_seconds": 3601},
            "target_changed": {"cause": "reopened", "cycle": 2, "due_at": "2025-11-03 16:00"},
        },
    ),
    Scenario(
        "an answer that is told late withdraws the breach, and starts the next update",
        rule=14,
        updates=True,
        given=(
            opened("gold", "critical", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            responded("2025-11-03 13:00", arrives="2025-11-03 15:00"),
        ),
        when="2025-11-03 15:30",
        then=("applied", "fulfilled", "applied", "warning", "breached", "breach_retracted", "fulfilled", "applied"),
        also={"applied": ({}, {"cycle": 1}, {"cycle": 2, "due_at": "2025-11-03 17:00"})},
    ),
    Scenario(
        "a response to every message: one clock from the opening, one from each reply after an answer",
        rule=14,
        updates=True,
        given=(
            opened("gold", "serious", "2025-11-03 09:00"),
            responded("2025-11-03 10:00"),
            build_fact("customer_replied", {}, "2025-11-03 11:00", id="first"),
            build_fact("customer_replied", {}, "2025-11-03 12:00", id="second"),
            responded("2025-11-03 16:00"),
        ),
        then=("applied", "applied", "fulfilled", "fulfilled", "applied", "warning", "breached", "fulfilled"),
        also={
            "applied": (
                {"objective": "first_response"},
                {"objective": "each_response", "cycle": 1, "cause": "opened"},
                {"objective": "each_response", "cycle": 2, "cause_id": "first", "due_at": "2025-11-03 15:00"},
            ),
            "fulfilled": ({}, {"cycle": 1, "met": True}, {"cycle": 2, "met": False, "overdue_seconds": 3600}),
        },
    ),
)
