"""End a block at its last timestep, or as soon as its tokens no longer change.

The core sees when a block ends: it gets a commit instead of a projection. So the rule looks at the
projections of successive timesteps alone. They cross anyway, and whoever has them can say when the
block had to end. A rule on the mix (its argmax, its entropy) would tell up to a bit a timestep about
logits that never cross; the entropy bound is such a rule, and is not asked for by default.

Near T two equal projections mean that nothing has arrived yet, not that the tokens are settled: within a block x_t is
the only way from one model to the other, and cannot be read there. So where a decode goes on to timesteps at which it
can be read, patience counts at these only. A decode that stops above them has no better sign than equal projections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd2.algorithm.noise_schedule import readable_from
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS


def patience_from(above: float, vocab_size: int) -> int:
    """Return the timestep from which on patience counts: a function of V and the schedule alone.

    Args:
        above: all timesteps of the decode are above this one.
        vocab_size: V.
    """
    gate = readable_from(vocab_size)
    return gate if above < gate else TRAINED_TIMESTEPS


def patience_of_the_core(params: DecodingParams, vocab_size: int) -> int:
    """Return `patience` where the core can tell from what it sees when a block ends early; else 0."""
    is_all_seen = params.core_every == 1 and params.entropy_bound is None
    ever_counts = params.timesteps[-1] <= patience_from(params.stop * TRAINED_TIMESTEPS, vocab_size)
    return params.patience or 0 if is_all_seen and ever_counts else 0


# See docs/decisions/005-stop-and-patience.md.
class BlockEnd:
    """Follows one block of every row until all have their tokens.

    Each row ends on its own, with the tokens that it would have alone.

    Attributes:
        is_done: bool, [B], whether a row looks for nothing more in this block.
        token_ids: int64, [B, L], what the rows have come to; once a row is done, for good.
    """

    def __init__(self, params: DecodingParams, is_answered: Tensor) -> None:
        """Begin a block.

        Args:
            params: patience and entropy bound.
            is_answered: bool, [B], rows whose answer ended in an earlier block; they get no tokens.
        """
        self.is_done = is_answered
        self.token_ids = torch.zeros(len(is_answered), params.block_size, dtype=torch.int64, device=is_answered.device)
        self._params = params
        self._before: tuple[ProjectedTokens, ...] = ()
        self._unchanged = torch.zeros_like(is_answered, dtype=torch.int64)  # timesteps, [B]

    @property
    def is_over(self) -> bool:
        """True if no row needs another timestep, before the last one."""
        return self._params.patience is not None and bool(self.is_done.all())

    def see(self, timestep: int, logits: Tensor, rows: tuple[ProjectedTokens, ...], token_ids: Tensor) -> None:
        """Take in a timestep.

        Args:
            timestep: t.
            logits: ensembled, [B, L, V].
            rows: their projections; two are the same if all their tokens are.
            token_ids: what would be committed now, int64, [B, L].
        """
        self.token_ids = torch.where(self.is_done.unsqueeze(-1), self.token_ids, token_ids)
        if self._params.patience is None:
            return
        if self._before:
            pairs = zip(rows, self._before, strict=True)
            is_same = torch.tensor([now == before for now, before in pairs], device=logits.device)
            counts = timestep <= patience_from(self._params.stop * TRAINED_TIMESTEPS, logits.shape[-1])
            self._unchanged = torch.where(is_same & counts, self._unchanged + 1, 0)
            self.is_done = self.is_done | ((self._unchanged >= self._params.patience) & self._is_sure(logits))
        self._before = rows

    def _is_sure(self, logits: Tensor) -> Tensor:
        """True if the mean entropy of a row's positions is below the bound, bool, [B]."""
        if self._params.entropy_bound is None:
            return torch.ones_like(self.is_done)
        entropy = torch.special.entr(torch.softmax(logits.float(), dim=-1)).sum(-1)  # nats, [B, L]
        is_sure: Tensor = entropy.mean(-1) < self._params.entropy_bound
        return is_sure
