"""Next tokens: blocks of L = 1, each decided at once. There is no noise, and nothing to take back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.sampler import Guess, Outcome, Projection, SeenBlock, project, prune


class NextTokenSampler:
    """Draws an answer token by token; see `ssd2.algorithm.sampler.Sampler`.

    The models are asked once a token, however many timesteps the parameters have.
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
        # What a multi-hot projection commits is its likeliest token.
        self._projecting = replace(params, projection="greedy") if params.projection == "multi-hot" else params
        self._stop_ids, self._timestep = tuple(stop_ids), params.timesteps[-1]
        self._stops = torch.tensor(self._stop_ids, dtype=torch.int64, device=device)
        self._answer_ids = torch.empty(len(seeds), 0, dtype=torch.int64, device=device)
        self.due: BlockView | None = self._after(0, torch.zeros(len(seeds), dtype=torch.bool, device=device))

    @property
    def answers(self) -> list[list[int]]:
        """See `Sampler.answers`."""
        return [prune(row, self._stop_ids)[: self.params.max_tokens] for row in self._answer_ids.tolist()]

    def project(self, logits: Tensor, view: BlockView) -> Projection:
        """See `Sampler.project`."""
        return project(logits, self._projecting, [seeds.sampling for seeds in self.seeds], view.block, view.timestep)

    def step(self, logits: Tensor) -> Outcome:
        """See `Sampler.step`."""
        view = self.due
        if view is None or view.is_done is None:
            raise ValueError("all answers are there; no logits are due")
        projection = self.project(logits, view)
        filler = next(iter(self._stop_ids), 0)  # without stop ids no row is done before the last
        token_ids = projection.token_ids.masked_fill(view.is_done[:, None], filler)
        self._answer_ids = torch.cat([self._answer_ids, token_ids], -1)
        is_over = view.block == self.params.max_blocks - 1
        is_answered = view.is_done | torch.isin(token_ids, self._stops).any(-1)
        self.due = None if is_over or bool(is_answered.all()) else self._after(view.block + 1, is_answered)
        return Outcome(projection, is_commit=True)

    def _after(self, tokens: int, is_answered: Tensor) -> BlockView:
        """Return the view that is due behind so many tokens."""
        return BlockView(
            block=tokens,
            step=0,
            timestep=self._timestep,
            block_size=1,
            answer_ids=self._answer_ids,
            trail=(),
            noise_seeds=tuple(seeds.noise for seeds in self.seeds),
            simplex_value=self.params.simplex_value,
            is_done=is_answered,
        )

    @staticmethod
    def guess(seen: SeenBlock) -> Guess:
        """Guess the token that is likeliest by the core's own logits."""
        return Guess(seen.own, is_commit=True)
