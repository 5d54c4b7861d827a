"""The process that serves the board and the HTTP API."""
