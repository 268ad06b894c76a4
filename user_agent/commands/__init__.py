"""The command line of the agent, a file a command."""
