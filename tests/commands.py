"""Commands in the process of the tests: one of its own spends most of its time importing torch."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from user_agent.__main__ import main as user_agent


def run_here(
    *arguments: str, environment: Mapping[str, str], typed: str = "", main: Callable[[], None] = user_agent
) -> subprocess.CompletedProcess[str]:
    """Run one to its end; what it leaves is what a process would.

    Args:
        *arguments: of the command line.
        environment: all variables that it finds.
        typed: its standard input.
        main: of the command.
    """
    program = main.__module__.partition(".")[0].replace("_", "-")
    out, err = _stream(), _stream()
    with (
        mock.patch.object(sys, "argv", [program, *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()))),
        mock.patch.object(sys, "excepthook", sys.excepthook),
        mock.patch.dict(os.environ, environment, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = _exit_code(main)
    return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def _exit_code(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):  # which Python prints on its way out
            sys.stderr.write(f"{ended.code}\n")
            return 1
        return ended.code or 0
    return 0


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]  # a BytesIO
