"""Read models: one question a file, answered from the log."""
