"""Questions about tickets and their history; nothing is written."""
