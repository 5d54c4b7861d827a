"""What every process stands on: life cycle, health, HTTP, settings, logging."""
