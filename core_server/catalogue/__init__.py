"""Served models with their cards, and the messages and errors that the front end and the engine share."""
