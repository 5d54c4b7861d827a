"""The tests: a room for each subject, and in `support` what they share. docs/testing.md says which runs when."""
