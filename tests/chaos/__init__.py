"""Real processes, the real nats-server, and everything that can happen to them; `make chaos` runs three seeds."""
