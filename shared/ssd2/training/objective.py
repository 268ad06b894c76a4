"""Algorithm 1: the loss of one batch, every block of every sequence in one pass; and the causal loss before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ssd2.models.ssd2 import SSD2
from ssd2.noise_schedule import TRAINED_TIMESTEPS, alpha_bar
from ssd2.simplex import ids_to_simplex
from ssd2.training.mask import delta


@dataclass(frozen=True)
class Batch:
    """Prompts padded on the left, answers filled with EOS to the block border (footnote 11).

    Attributes:
        prompt_ids: int64, [B, c_0].
        prompt_mask: bool, [B, c_0], False at padding.
        answer_ids: int64, [B, nL].
        answer_mask: bool, [B, nL], False behind the last block of a row ("the standard padding
            token after the last diffusion block boundary"): not in the loss.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    answer_ids: Tensor
    answer_mask: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def diffusion_loss(
    model: SSD2, batch: Batch, t: Tensor, noise: Tensor, *, self_condition: bool, block_size: int | None = None
) -> Tensor:
    """The loss of Algorithm 1, lines 1, 4 and 7 or 9–10, averaged over the tokens in it.

    Args:
        model: the network, in training mode.
        batch: B sequences of n blocks.
        t: timesteps, [B], line 2.
        noise: standard normal, [B, nL, V], line 3; scaled by K here.
        self_condition: r of line 5.
        block_size: L; the model's own if None.

    Returns:
        Mean cross entropy, a scalar.
    """
    config = model.config
    block_size = block_size or config.block_size
    x_0 = ids_to_simplex(batch.answer_ids, config.vocab_size, config.simplex_value)  # line 1
    alpha_bar_t = alpha_bar(t)[:, None, None]
    x_t = alpha_bar_t.sqrt() * x_0 + (1 - alpha_bar_t).sqrt() * config.simplex_value * noise  # line 4
    self_cond = None
    if self_condition:  # line 9
        with torch.no_grad():
            self_cond = masked_logits(model, batch, x_t, None, t, block_size)
    logits = masked_logits(model, batch, x_t, self_cond, t, block_size)  # lines 7 and 10
    losses = F.cross_entropy(logits.flatten(0, 1).float(), batch.answer_ids.flatten(), reduction="none")
    counted = batch.answer_mask.flatten()
    return (losses * counted).sum() / counted.sum()


def masked_logits(
    model: SSD2, batch: Batch, x_t: Tensor, self_cond: Tensor | None, t: Tensor, block_size: int
) -> Tensor:
    """Logits of all blocks at once, with the mask of App. A.

    Args:
        model: the network.
        batch: B sequences of n blocks.
        x_t: noised simplex of all blocks, [B, nL, V].
        self_cond: previous prediction as logits, [B, nL, V], or None.
        t: timesteps, [B].
        block_size: L.

    Returns:
        [B, nL, V].
    """
    prompt_length, answer_length = batch.prompt_ids.shape[1], batch.answer_ids.shape[1]
    clean = answer_length - block_size  # the last block is nobody's context
    prompt_positions = model.prompt_positions(batch.prompt_mask)
    answer_positions = prompt_positions[:, -1:] + 1 + torch.arange(answer_length, device=x_t.device)
    context = model.embed_context(
        torch.cat([batch.prompt_ids, batch.answer_ids[:, :clean]], -1),
        torch.cat([prompt_positions, answer_positions[:, :clean]], -1),
        t,
    )
    block = model.embed_block(x_t, self_cond, answer_positions, t)
    mask = delta(prompt_length, answer_length // block_size, block_size, x_t.device)
    is_token = F.pad(batch.prompt_mask, (0, len(mask) - prompt_length), value=True)
    visible = (mask & is_token[:, None, :]) | torch.eye(len(mask), dtype=torch.bool, device=x_t.device)
    hidden, _ = model.transformer(torch.cat([context, block], 1), visible[:, None])
    return model.logits(hidden[:, prompt_length + clean :])


def causal_loss(model: SSD2, batch: Batch) -> Tensor:
    """The loss of a causal language model, averaged over all tokens but the first of each row.

    What OPT was trained with before the paper makes it an SSD-2 (§4).

    Returns:
        Mean cross entropy, a scalar.
    """
    token_ids = torch.cat([batch.prompt_ids, batch.answer_ids], -1)
    mask = torch.cat([batch.prompt_mask, batch.answer_mask], -1)
    logits = model.next_token_logits(token_ids, mask)[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1).float(), token_ids[:, 1:].flatten(), reduction="none")
    counted = (mask[:, 1:] & mask[:, :-1]).flatten()
    return (losses * counted).sum() / counted.sum()


def sample_timesteps(rows: int, generator: torch.Generator) -> Tensor:
    """Line 2: t ~ Uniform({1, …, T}), one a sequence.

    The draws of a batch are stratified: each is uniform on its own, and together they cover
    the range evenly, which lowers the variance of the loss.

    Returns:
        int64, [rows], in random order.
    """
    strata = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    t = (strata * TRAINED_TIMESTEPS).long() + 1
    return t[torch.randperm(rows, generator=generator)].clamp(max=TRAINED_TIMESTEPS)
