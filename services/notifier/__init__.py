"""The process that tells people and Alertmanager."""
