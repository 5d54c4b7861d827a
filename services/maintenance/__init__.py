"""What an operator does: backup, verification, dead letters."""
