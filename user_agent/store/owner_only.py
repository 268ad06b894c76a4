"""Files that nobody but their owner can read."""

from __future__ import annotations

import os
import sys


def owner_only(descriptor: int) -> None:
    """Take the rights of everybody else from an open file, which keeps its mode when it was there before.

    Windows has no such mode; there a user's own folders are closed to others.
    """
    if sys.platform != "win32":
        os.fchmod(descriptor, 0o600)
