"""The command line: exit codes, stdout and stderr, and what the README shows."""
