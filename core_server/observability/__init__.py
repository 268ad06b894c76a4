"""Logs, metrics, spans, and the port that shows them."""
