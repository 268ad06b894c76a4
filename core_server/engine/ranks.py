"""The ranks of an engine: processes that do the same things at the same time, each with a share of the model.

torchrun starts them, and ends them all when one of them ends. The first talks to the front end and
passes on what it hears; from there on everything is a function of it, so nothing else is agreed on.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed as dist

from core_server.observability.logs import fields, frames
from ssd2.models.shard import Shard

LOADING_TIMEOUT_S = 1800.0
"""How much longer one rank may take to load its models than another."""

_PR_SET_PDEATHSIG = 1

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


# See docs/decisions/012-tensor-parallelism.md.
@dataclass(frozen=True)
class Ranks:
    """One of the processes of an engine, and its line to the others.

    Attributes:
        rank: which it is, from 0.
        group: all of them; None where there is only one.
    """

    rank: int = 0
    group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """True if it is the one that talks to the front end."""
        return self.rank == 0

    @property
    def shard(self) -> Shard | None:
        """Its part of every model; None for all of it."""
        return Shard(self.rank, self.group.size(), self.group) if self.group else None

    def broadcast(self, value: _T) -> _T:
        """Broadcast the first rank's value to all ranks; all have to call it, and the others' values are ignored."""
        if self.group is None:
            return value
        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        size = torch.tensor([len(data)])
        dist.broadcast(size, group=self.group, group_src=0)
        if not self.is_first:
            data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, group=self.group, group_src=0)
        told: _T = pickle.loads(data.numpy().tobytes())  # noqa: S301  # this program's other ranks
        return told

    def gather(self, value: _T) -> list[_T]:
        """Gather the values of all ranks, in order."""
        if self.group is None:
            return [value]
        given: list[_T | None] = [None] * self.group.size()
        dist.all_gather_object(given, value, group=self.group)
        return given  # type: ignore[return-value]  # none is missing now

    def bounded(self, timeout_s: float) -> Ranks:
        """The same ranks, none of which waits longer than this for another one."""
        return Ranks(self.rank, dist.new_group(timeout=timedelta(seconds=timeout_s))) if self.group else self

    def connect(self, device: str) -> None:
        """Have the devices of all ranks talk for the first time: what keeps them from it shows before anybody asks."""
        if self.shard:
            if device.startswith("cuda"):
                torch.cuda.set_device(device)
            self.shard.sum(torch.zeros(1, device=device))


ALONE = Ranks()


@contextmanager
def joined_ranks(folder: Path) -> Iterator[Ranks]:
    """Join the other ranks, if torchrun started this process.

    Whatever fails on one rank ends all: the others wait for what it had to contribute and cannot know.

    Args:
        folder: see `core_server.frontend.torchrun`.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    _end_with_parent()
    rank, size, timeout = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), timedelta(seconds=LOADING_TIMEOUT_S)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = f"file://{folder / 'ranks'}"
    try:
        dist.init_process_group(backend, init_method=store, rank=rank, world_size=size, timeout=timeout)
        yield Ranks(rank, dist.group.WORLD)
        dist.destroy_process_group()
    except Exception as error:
        extra = fields(error=type(error).__name__, frames=frames(error))
        _log.error("rank %d of %d ends with %s", rank, size, type(error).__name__, extra=extra)
        logging.shutdown()
        os._exit(1)  # at once: on the way out of Python a group waits for the ranks that wait for this one


def _end_with_parent() -> None:
    """A rank has a session of its own: nobody else ends it when torchrun is killed, or kills it when it is stuck."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
