"""The board: its pages and its API, of a running engine. In a real browser: tests/e2e."""
