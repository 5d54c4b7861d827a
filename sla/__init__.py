"""The rules: pure functions and values; no I/O, no wall clock."""
