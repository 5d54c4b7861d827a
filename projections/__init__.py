"""Projections: one question a file, answered by tables that are folded from the log and can be built again."""
