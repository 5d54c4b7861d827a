"""The process that delivers announcements to people, their systems and Alertmanager."""
