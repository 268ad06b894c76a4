"""Entry point of `user-agent`."""

from __future__ import annotations

import sys

from ssd2.errors import SlingshotError
from user_agent.commands.ask import app
from user_agent.commands.remedies import with_remedy


def main() -> None:
    """Run the command line; an error made on purpose is one line and exit code 1, no traceback."""
    try:
        app()
    except SlingshotError as error:
        sys.exit(f"user-agent: error: {with_remedy(error)}")


if __name__ == "__main__":
    main()
