"""Measuring what the collaboration is worth."""
