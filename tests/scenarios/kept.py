"""A promise is kept, or broken, or neither yet."""

from tests.scenarios.scenario import WARNED, Scenario, closed, excluded, opened, responded

OPENED = opened("enterprise", "critical", "2025-11-03 10:00")  # due at 12:00

SCENARIOS = (
    Scenario(
        "answered in time: kept",
        rule=16,
        given=(OPENED, responded("2025-11-03 10:30")),
        then=("applied", "fulfilled"),
        also={"kept": True, "stage": "fulfilled"},
    ),
    Scenario(
        "answered late: broken",
        rule=16,
        given=(OPENED, responded("2025-11-03 12:30")),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"kept": False, "stage": "fulfilled"},
    ),
    Scenario(
        "not answered and past its deadline: broken",
        rule=16,
        given=(OPENED,),
        then=("applied", *WARNED, "breached"),
        also={"kept": False, "stage": "running"},
    ),
    Scenario(
        "still running: neither",
        rule=16,
        given=(OPENED,),
        then=("applied", "warning"),
        also={"kept": None, "stage": "running"},
        when="2025-11-03 11:01",
    ),
    Scenario(
        "closed without an answer before the deadline: neither",
        rule=16,
        given=(OPENED, closed("2025-11-03 10:30")),
        then=("applied", "cancelled"),
        also={"kept": None, "stage": "cancelled"},
    ),
    Scenario(
        "closed without an answer after the deadline: broken, though the clock was cancelled",
        rule=16,
        given=(OPENED, closed("2025-11-03 12:30")),
        then=("applied", *WARNED, "breached", "cancelled"),
        also={"kept": False, "stage": "cancelled"},
    ),
    Scenario(
        "excluded: neither, whatever happened",
        rule=16,
        given=(OPENED, responded("2025-11-03 12:30"), excluded("basic_training", "2025-11-03 13:00")),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "cancelled"),
        also={"kept": None, "stage": "excluded"},
    ),
)
