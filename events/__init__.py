"""The contract: every message that crosses the bus, and nothing else."""
