"""The services as they are, on a simulated bus and clock, one thread, one seed: what can go wrong, in any order."""
