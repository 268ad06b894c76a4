"""A process that finds what Windows has: no POSIX modules and names, and `sys.platform` win32.

What the system itself does stays Linux's: this shows that the agent asks for nothing that is missing there, not that
Windows does what it is asked. SIGKILL stays, by which the library ends a process.

Run as `python simulated_windows.py MODULE ARGUMENTS…`, like `python -m`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import runpy
import signal
import sys

ABSENT_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
ABSENT_NAMES = {
    os: (
        *("fchmod", "fork", "getuid", "geteuid", "getpgid", "killpg", "O_NOFOLLOW", "O_NONBLOCK", "pread", "pwrite"),
        *("sched_getaffinity", "setsid", "uname"),
    ),
    signal: ("SIGALRM", "SIGHUP", "ITIMER_REAL", "alarm", "setitimer"),
}
OURS = ("user_agent", "ssd2")


def import_all(package: str) -> None:
    """Import every module of a package."""
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def become_windows() -> None:
    """Take from this process what Windows has not; of the agent nothing is imported afterwards."""
    import_all("user_agent")  # and with it the libraries, which know other systems by themselves
    for name in ABSENT_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ABSENT_NAMES.items():
        for name in names:
            delattr(module, name)
    os.O_BINARY = 0  # type: ignore[attr-defined]
    sys.platform = "win32"
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]


if __name__ == "__main__":
    become_windows()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__")
