"""Benchmarks: each prints one JSON object a line on stdout, everything else goes to stderr."""
