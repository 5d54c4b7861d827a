"""A bundled day of ticket events, and how it is played."""
