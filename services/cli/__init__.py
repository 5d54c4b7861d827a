"""The command line `sla`."""
