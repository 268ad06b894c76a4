"""What the process that reads files may take: time, memory and network, as far as each system can bound them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

TIME_LIMIT_S = 10.0
MEMORY_LIMIT_BYTES = 500 * 1024 * 1024
TOO_SLOW = 124
"""Exit code of a process that took too long, where there is no SIGALRM."""

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_job: Any = None
"""The Windows job that this process is in: it ends with its last handle."""


def confine() -> str:
    """Bound the memory of this process, let it write no file or start no program where possible, and take it offline.

    Returns:
        Why it is still on the network; empty if it is not.
    """
    sys.dont_write_bytecode = True
    if sys.platform == "win32":
        _enter_job()
        return "Windows has no way for a program to give up the network"
    import resource

    with suppress(ValueError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _leave_network()


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """End this process if what is done within takes longer: by SIGALRM, or with exit code `TOO_SLOW` on Windows."""
    if sys.platform == "win32":
        timer = threading.Timer(seconds, os._exit, (TOO_SLOW,))
        timer.daemon = True
        timer.start()
        yield
        timer.cancel()
    else:  # which ends a library too that never returns to Python
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)


def was_too_slow(exit_code: int) -> bool:
    """Whether a process with this exit code was ended by `limited_time`."""
    return exit_code == (TOO_SLOW if sys.platform == "win32" else -signal.SIGALRM)


def _leave_network() -> str:
    """Take this process off the network, and say why that is not possible; some containers refuse it."""
    if sys.platform != "linux":
        return "this system has no network namespaces"
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        return ""
    return f"this system refuses a network namespace: {os.strerror(ctypes.get_errno())}"


def _enter_job() -> None:
    """Put this process into a Windows job that bounds its memory and lets it start no program."""
    import win32api
    import win32job

    global _job
    _job = win32job.CreateJobObject(None, "")
    kind = win32job.JobObjectExtendedLimitInformation
    limits = win32job.QueryInformationJobObject(_job, kind)
    limits["BasicLimitInformation"]["LimitFlags"] = (
        win32job.JOB_OBJECT_LIMIT_PROCESS_MEMORY | win32job.JOB_OBJECT_LIMIT_ACTIVE_PROCESS
    )
    limits["BasicLimitInformation"]["ActiveProcessLimit"] = 1
    limits["ProcessMemoryLimit"] = MEMORY_LIMIT_BYTES
    win32job.SetInformationJobObject(_job, kind, limits)
    win32job.AssignProcessToJobObject(_job, win32api.GetCurrentProcess())
