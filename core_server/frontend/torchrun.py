"""The command and the environment that start the ranks of one engine; no torch is imported to make them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def torchrun(command: Sequence[str], ranks: int, folder: Path) -> list[str]:
    """Return the command that runs another one, a Python module with its arguments, on several ranks.

    They find each other through files in a folder: torchrun's own meeting point (--standalone) listens
    on all of the machine's addresses and unpickles what it is sent there.

    Args:
        command: module and arguments.
        ranks: how many.
        folder: empty, and its user's alone.
    """
    options = {
        "nproc-per-node": ranks,
        "rdzv-backend": "c10d",
        "rdzv-endpoint": folder / "torchrun",
        "rdzv-conf": "store_type=file",
        "rdzv-id": "engine",
        "log-dir": folder,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "torch.distributed.run", *flags, "-m", *command]


def ranks_environment(threads: int) -> dict[str, str]:
    """Return the environment for `torchrun` that keeps all it and the ranks say on this machine.

    Args:
        threads: processors that a rank uses.
    """
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    ours = {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "OMP_NUM_THREADS": str(threads),
    }
    return {**os.environ, **ours}
