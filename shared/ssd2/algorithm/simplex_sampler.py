"""Algorithm 2 of the paper, whose line numbers stand at the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ssd2.algorithm.block_end import BlockEnd
from ssd2.algorithm.block_view import BlockView, ProjectedAt
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.sampler import Guess, Outcome, Projection, SeenBlock, project, prune


class SimplexSampler:
    """Decodes block by block, each at several timesteps; see `ssd2.algorithm.sampler.Sampler`.

    The noised simplex itself (lines 1, 10 and 11) is made by the models that look at it, from what is due.
    A block goes on until the last of its rows is done.
    """

    def __init__(
        self,
        params: DecodingParams,
        seeds: Sequence[Seeds],
        *,
        stop_ids: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        """See `ssd2.algorithm.sampler.SamplerKind`."""
        self.params, self.seeds = params, seeds
        self._stop_ids = tuple(stop_ids)
        self._stops = torch.tensor(self._stop_ids, dtype=torch.int64, device=device)
        self._answer_ids = torch.empty(len(seeds), 0, dtype=torch.int64, device=device)
        self.due: BlockView | None = None
        self._begin_block(0, torch.zeros(len(seeds), dtype=torch.bool, device=device))

    @property
    def answers(self) -> list[list[int]]:
        """See `Sampler.answers`."""
        return [prune(row, self._stop_ids)[: self.params.max_tokens] for row in self._answer_ids.tolist()]

    def project(self, logits: Tensor, view: BlockView) -> Projection:
        """See `Sampler.project`; line 9."""
        return project(logits, self.params, [seeds.sampling for seeds in self.seeds], view.block, view.timestep)

    def step(self, logits: Tensor) -> Outcome:
        """See `Sampler.step`."""
        view = self.due
        if view is None:
            raise ValueError("all answers are there; no logits are due")
        projection = self.project(logits, view)  # line 9
        self._end.see(view.timestep, logits, projection.rows, projection.token_ids)
        is_commit = self._end.is_over or view.step == len(self.params.timesteps) - 1
        if is_commit:
            self._commit(view)
        else:
            self._go_on(view, logits, projection)
        return Outcome(projection, is_commit)

    def _begin_block(self, block: int, is_answered: Tensor) -> None:
        self._end = BlockEnd(self.params, is_answered)
        self.due = BlockView(
            block=block,
            step=0,
            timestep=self.params.timesteps[0],  # line 2
            block_size=self.params.block_size,
            answer_ids=self._answer_ids,
            trail=(),
            noise_seeds=tuple(seeds.noise for seeds in self.seeds),
            simplex_value=self.params.simplex_value,
            is_done=self._end.is_done,
        )

    def _go_on(self, view: BlockView, logits: Tensor, projection: Projection) -> None:
        """Go to the next timestep of the block: line 2."""
        self.due = replace(
            view,
            step=view.step + 1,
            timestep=self.params.timesteps[view.step + 1],
            trail=(*view.trail, ProjectedAt(view.timestep, projection.rows)),
            mixed_logits=logits if self.params.self_conditioning == "mixed" else None,  # line 7
            is_done=self._end.is_done,
        )

    def _commit(self, view: BlockView) -> None:
        self._answer_ids = torch.cat([self._answer_ids, self._end.token_ids], -1)  # line 13
        is_answered = torch.isin(self._answer_ids, self._stops).any(-1)
        self.due = None
        if not bool(is_answered.all()) and view.block < self.params.max_blocks - 1:
            self._begin_block(view.block + 1, is_answered)

    @staticmethod
    def guess(seen: SeenBlock) -> Guess:
        """Guess the previous projection again, the last that was seen of the mix; at first the core's own choice.

        It is a commit at a block's last timestep, or where the agent's patience ends. A projection with several tokens
        a position would have to be named token by token: the core's own choice stands in.
        """
        projected = seen.before if seen.before and not seen.before.counts else seen.own
        return Guess(projected, seen.is_last or (seen.ends_if_same and projected == seen.before))
