"""Code run where the network and the disks are its own: it may take them away, and nobody else notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT

TIMEOUT_S = 240


def _needs(kind: str, program: str) -> pytest.MarkDecorator:
    unshare = shutil.which("unshare")
    is_made = unshare and subprocess.run([unshare, kind, "true"], capture_output=True, check=False).returncode == 0
    reason = f"this machine lets nobody make such a namespace, or has no `unshare` or no `{program}`"
    return pytest.mark.skipif(not is_made or not shutil.which(program), reason=reason)


NEEDS_OWN_NETWORK, NEEDS_OWN_DISK = _needs("-rn", "ip"), _needs("-rm", "mount")
NEEDS_OWN_PROCESSES = _needs("-rpf", "unshare")
OWN_NETWORK = ("-rn", "ip link set lo up")


def own_disk(folder: Path, size: str) -> tuple[str, str]:
    """A disk of some size, such as 4m, in place of a folder."""
    return "-rm", f"mount -t tmpfs -o size={size} tmpfs '{folder}'"


def run_apart(where: tuple[str, str], action: Callable[..., None], *arguments: object) -> None:
    """Call a function of a test module in a process of its own; what it asserts is asserted.

    Args:
        where: `OWN_NETWORK`, or `own_disk`.
        action: takes strings.
        *arguments: that it is called with.
    """
    kind, prepare = where
    code = f"import sys; from {action.__module__} import {action.__name__} as action; action(*sys.argv[1:])"
    shell = ["unshare", kind, "sh", "-c", f'{prepare} && exec "$@"', "sh"]
    command = [*shell, sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    assert os.statvfs(disk).f_bavail == 0


def clear(disk: Path) -> None:
    """Take away what `fill` wrote."""
    (disk / "filler").unlink()
