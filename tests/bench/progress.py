"""What a benchmark says while it runs: on stderr, as stdout is for its figures."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)
