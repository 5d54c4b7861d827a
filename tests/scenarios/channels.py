"""The channel by which a ticket came: one that the level does not have is flagged."""

from tests.scenarios.scenario import WARNED, Scenario, corrected, opened, responded

SCENARIOS = (
    Scenario(
        "by phone for an Enterprise critical ticket, as the policy says",
        rule=14,
        given=(
            opened("enterprise", "critical", "2025-11-03 10:00", channel="phone"),
            responded("2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ()},
    ),
    Scenario(
        "a channel that the level does not have: accepted and flagged, and the promise holds",
        rule=14,
        given=(
            opened("enterprise", "serious", "2025-11-03 10:00", channel="phone"),
            responded("2025-11-03 14:30"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled"),
        also={"flags": ("channel_not_entitled",), "met": False},
    ),
    Scenario(
        "a correction of the channel takes the flag back",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00", id="o", channel="phone"),
            corrected("o", "2025-11-03 10:10", channel="email"),
            responded("2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ()},
    ),
)
