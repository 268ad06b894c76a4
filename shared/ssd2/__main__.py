"""Entry point of `ssd2`."""

from __future__ import annotations

import sys

from ssd2.cli import app
from ssd2.cli.remedies import with_remedy
from ssd2.errors import SlingshotError


def main() -> None:
    """Run the command line; an error made on purpose is one line and exit code 1, no traceback."""
    try:
        app()
    except SlingshotError as error:
        sys.exit(f"ssd2: error: {with_remedy(error)}")


if __name__ == "__main__":
    main()
