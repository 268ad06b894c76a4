"""One rank's part of a model that several ranks hold together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a model, with the line to the ranks that hold the others.

    Attributes:
        rank: which part, from 0.
        ranks: how many there are.
        group: the processes of the ranks.
    """

    rank: int
    ranks: int
    group: dist.ProcessGroup

    def part(self, size: int) -> slice:
        """The rank's part of a dimension; the last rank's is smaller where it does not divide."""
        share = math.ceil(size / self.ranks)
        return slice(min(self.rank * share, size), min((self.rank + 1) * share, size))

    def sum(self, mine: Tensor) -> Tensor:
        """Add up what all ranks have; in place."""
        dist.all_reduce(mine, group=self.group)
        return mine

    def gather(self, mine: Tensor) -> Tensor:
        """Gather what all ranks have, side by side: [..., N] -> [..., ranks·N]."""
        mine = mine.contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(parts, mine, group=self.group)
        return torch.cat(parts, dim=-1)
