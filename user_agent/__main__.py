"""Entry point of `user-agent`."""

from __future__ import annotations

import sys

from ssd2.errors import SlingshotError
from user_agent.commands.app import app
from user_agent.commands.remedies import with_remedy
from user_agent.config import unknown_variables


def main() -> None:
    """Run the command line; an error made on purpose is one line and exit code 1, no traceback."""
    for sentence in unknown_variables():
        print(f"user-agent: warning: {sentence}", file=sys.stderr)  # noqa: T201 - before any command
    try:
        app()
    except SlingshotError as error:
        sys.exit(f"user-agent: error: {with_remedy(error)}")


if __name__ == "__main__":
    main()
