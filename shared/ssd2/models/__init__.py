"""The models that a decode can be run with."""
