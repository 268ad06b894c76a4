"""Benchmarks of a pair of models: alone, together, and with other settings."""
