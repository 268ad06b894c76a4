"""Start of the agent when its user logs in."""
