"""The rules: calendar, policy, judge, events and explanations, without bus or store unless a command is asked."""
