"""What Linux says about the processes of a server."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from .conftest import CoreProcess

LISTEN = "0A"


def engine_processes(core: CoreProcess) -> list[int]:
    """Process ids of a server's engines: of each, or of torchrun and of its ranks in their order."""
    return [pid for engine in children(core.process.pid) for pid in (engine, *sorted(children(engine), key=_rank))]


def anonymous_mb(pid: int) -> float:
    """Memory of a process that is no file's, in 10⁶ bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (kibibytes,) = (int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return kibibytes * 1024 / 1e6


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, in 10⁶ bytes."""
    (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kibibytes) * 1024 / 1e6


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    return False


def listening_addresses(pid: int) -> set[IPv4Address | IPv6Address]:
    """Where a process waits for connections over TCP."""
    opened = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTEN and f"socket:[{inode}]" in opened:
                found.add(_address(local.partition(":")[0]))
    return found


def children(pid: int) -> list[int]:
    """Processes that it has started, from whichever thread, and not yet waited for."""
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def _rank(pid: int) -> int:
    (found,) = re.findall(r"\0RANK=(\d+)\0", Path(f"/proc/{pid}/environ").read_text())
    return int(found)


def _address(words: str) -> IPv4Address | IPv6Address:
    """An address as the kernel prints it: words of 32 bits, each with its bytes in reverse."""
    data = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    if len(data) == 4:
        return IPv4Address(data)
    return IPv6Address(data).ipv4_mapped or IPv6Address(data)
