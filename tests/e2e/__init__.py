"""The board in a real browser, Debian's chromium; `make e2e`."""
