"""A block as a model sees it: the token ids that have crossed, and nothing that is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssd2.algorithm.projection import ProjectedTokens


@dataclass(frozen=True)
class ProjectedAt:
    """The projections of one timestep.

    Attributes:
        timestep: t of the logits that were projected.
        rows: the tokens of each of the B rows.
    """

    timestep: int
    rows: tuple[ProjectedTokens, ...]


@dataclass(frozen=True)
class BlockView:
    """One timestep of one block of B rows. Logits are a function of it and of the prompts.

    Noise and simplexes are for those models to make that look at them, from the numbers here.

    Attributes:
        block: index of the block in the answer.
        step: index of the timestep in the block, from 0.
        timestep: t.
        block_size: L.
        answer_ids: the blocks committed so far, int64, [B, block·L].
        trail: what was projected at the earlier timesteps of the block, the first one first; an engine that computes
            one answer at a time knows the last one only. Empty at a block's first timestep, where all positions are
            open.
        noise_seeds: public, one a row.
        simplex_value: K, in logit units.
        mixed_logits: the previous ensembled logits, [B, L, V]; given where a model is fed them back, in one process.
        is_done: bool, [B], rows that look for nothing more in this block: what they are given is not read. None: no
            row is.
    """

    block: int
    step: int
    timestep: int
    block_size: int
    answer_ids: Tensor
    trail: tuple[ProjectedAt, ...]
    noise_seeds: tuple[int, ...]
    simplex_value: float
    mixed_logits: Tensor | None = None
    is_done: Tensor | None = None

    @property
    def projected(self) -> tuple[ProjectedTokens, ...] | None:
        """The previous projection of each row; None at a block's first timestep."""
        return self.trail[-1].rows if self.trail else None

    @property
    def rows_at_work(self) -> int:
        """Rows that still look for their tokens."""
        return len(self.noise_seeds) if self.is_done is None else int((~self.is_done).sum())

    def before(self) -> BlockView:
        """Return the view of the timestep before, in the same block.

        Raises:
            ValueError: if what was projected until then is not known.
        """
        if not self.step or len(self.trail) < self.step:
            raise ValueError(f"what led to timestep {self.step} of block {self.block} is not known")
        last, step = self.trail[-1], self.step - 1
        return replace(self, step=step, timestep=last.timestep, trail=self.trail[:-1], mixed_logits=None)

    def at_every(self, count: int) -> BlockView:
        """Return the view of a model that is asked at every that many timesteps, and at this one."""
        if count == 1:
            return self
        asked = self.trail[::count]
        trail = (
            ProjectedAt(at.timestep, then.rows) for at, then in zip(asked, self.trail[count - 1 :: count], strict=True)
        )
        return replace(self, step=self.step // count, trail=tuple(trail))

    def repeated(self, copies: int) -> BlockView:
        """Return the same with its rows repeated."""
        if copies == 1:
            return self

        def repeat(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else torch.cat([tensor] * copies)

        return replace(
            self,
            answer_ids=torch.cat([self.answer_ids] * copies),
            trail=tuple(ProjectedAt(at.timestep, at.rows * copies) for at in self.trail),
            noise_seeds=self.noise_seeds * copies,
            mixed_logits=repeat(self.mixed_logits),
            is_done=repeat(self.is_done),
        )
