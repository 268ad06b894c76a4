"""Losses of a batch: Algorithm 1 with every block of every sequence in one pass, the partner's, and the causal one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ssd2.algorithm.noise_schedule import alpha_bar
from ssd2.algorithm.simplex import ids_to_simplex
from ssd2.models.configs import SSD2Config
from ssd2.models.ssd2 import SSD2
from ssd2.training.draws import Partner
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


class Objective(nn.Module):
    """The loss of a recipe as one module, so that whatever wraps it for many ranks sees every pass."""

    def __init__(self, model: SSD2, name: str) -> None:
        """Make it.

        Args:
            model: the network.
            name: "diffusion" or "causal".
        """
        super().__init__()
        self.model, self.name = model, name

    def forward(
        self,
        batch: Batch,
        t: Tensor | None,
        noise: Tensor | None,
        self_condition: bool,
        partner: Partner | None = None,
    ) -> Tensor:
        """The loss summed over the tokens that are in it, a scalar; t and noise are None for "causal"."""
        if t is None or noise is None:
            return causal_losses(self.model, batch).sum()
        losses = diffusion_losses(self.model, batch, t, noise, self_condition=self_condition, partner=partner)
        return losses.sum()


def counted_tokens(name: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> int:
    """Count the tokens of one sequence that are in the loss of an objective."""
    return len(answer_ids) if name == "diffusion" else len(prompt_ids) + len(answer_ids) - 1


def diffusion_loss(
    model: SSD2, batch: Batch, t: Tensor, noise: Tensor, *, self_condition: bool, block_size: int | None = None
) -> Tensor:
    """`diffusion_losses`, averaged over the tokens in the loss: a scalar."""
    losses = diffusion_losses(model, batch, t, noise, self_condition=self_condition, block_size=block_size)
    return losses.sum() / batch.answer_mask.sum()


def diffusion_losses(
    model: SSD2,
    batch: Batch,
    t: Tensor,
    noise: Tensor,
    *,
    self_condition: bool,
    partner: Partner | None = None,
    block_size: int | None = None,
) -> Tensor:
    """The loss of Algorithm 1, lines 1, 4 and 7 or 9–10; or of the partner objective, in place of line 9.

    Args:
        model: the network, in training mode.
        batch: B sequences of n blocks.
        t: timesteps, line 2: [B], or [B, n] with one for each block, where the context has none of its own.
        noise: standard normal, [B, nL, V], line 3; scaled by K here.
        self_condition: r of line 5.
        partner: what a partner changes in what the model reads; see `_with_partner`. None: Algorithm 1.
        block_size: L; the model's own if None.

    Returns:
        Cross entropy of every token, 0 behind a row's last block, [B * nL].
    """
    block_size = block_size or model.config.block_size
    x_t, self_cond = _noised(batch.answer_ids, t, noise, model.config, block_size), None  # lines 1 and 4
    if partner is not None:
        x_t, self_cond = _with_partner(model, batch, x_t, t, noise, partner, block_size)
    elif self_condition:
        with torch.no_grad():
            self_cond = masked_logits(model, batch, x_t, None, t, block_size)  # line 9
    logits = masked_logits(model, batch, x_t, self_cond, t, block_size)  # lines 7 and 10
    losses = F.cross_entropy(logits.flatten(0, 1).float(), batch.answer_ids.flatten(), reduction="none")
    return losses * batch.answer_mask.flatten()


def _noised(token_ids: Tensor, t: Tensor, noise: Tensor, config: SSD2Config, block_size: int) -> Tensor:
    """Lines 1 and 4: the almost-one-hot simplex of the tokens, with the noise of each block's t, [B, nL, V]."""
    x_0 = ids_to_simplex(token_ids, config.vocab_size, config.simplex_value)
    t_of_tokens = t[:, None] if t.ndim == 1 else t.repeat_interleave(block_size, -1)  # [B, 1 or nL]
    alpha_bar_t = alpha_bar(t_of_tokens)[..., None]
    return alpha_bar_t.sqrt() * x_0 + (1 - alpha_bar_t).sqrt() * config.simplex_value * noise


# See docs/decisions/059-training-for-two-domains.md.
@torch.no_grad()
def _with_partner(
    model: SSD2, batch: Batch, x_t: Tensor, t: Tensor, noise: Tensor, partner: Partner, block_size: int
) -> tuple[Tensor, Tensor]:
    """Make what a model reads in a collaboration. Ours, not the paper's.

    Algorithm 1 feeds back the model's own prediction from the same x_t, so a model learns that what is fed back holds
    nothing new; between two domains it holds the partner's tokens. And Algorithm 1 noises the true tokens, so a model
    learns that what shows through little noise is true; a decode noises what was projected, which may be a fact that
    was drawn before its place was known. In the partner's noised rows it is the projected tokens here as well.

    Returns:
        The noised simplex and what is fed back, each [B, nL, V].
    """
    config, earlier = model.config, partner.earlier
    x_earlier = _noised(batch.answer_ids, earlier, noise, config, block_size)
    own = masked_logits(model, batch, x_earlier, None, earlier, block_size)
    token_ids = projected_with(own, batch.answer_ids, partner)
    projected = _noised(token_ids, t, noise, config, block_size)
    fed_back = ids_to_simplex(token_ids, config.vocab_size, config.feedback_value(config.simplex_value))
    return torch.where(partner.is_noised[:, None, None], projected, x_t), fed_back


def projected_with(own: Tensor, answer_ids: Tensor, partner: Partner) -> Tensor:
    """Make the tokens that a decode with a partner projects: the model's own, some put right, some stray.

    Stray tokens stand for those drawn before anything has arrived: without them a model takes every token that it would
    not say for the partner's.

    Args:
        own: the model's logits, [B, nL, V].
        answer_ids: the true tokens, [B, nL].
        partner: what the partner changes.

    Returns:
        int64, [B, nL].
    """
    token_ids = torch.where(partner.strays < 0, own.argmax(-1), partner.strays)
    return torch.where(partner.is_right, answer_ids, token_ids)


def masked_logits(
    model: SSD2, batch: Batch, x_t: Tensor, self_cond: Tensor | None, t: Tensor, block_size: int
) -> Tensor:
    """Logits of all blocks at once, with the mask of App. A.

    Args:
        model: the network.
        batch: B sequences of n blocks.
        x_t: noised simplex of all blocks, [B, nL, V].
        self_cond: previous prediction as logits, [B, nL, V], or None.
        t: timesteps, [B], or [B, n] with one for each block.
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
    fed_back = None if self_cond is None else model.feed_back(self_cond)
    t_of_tokens = t if t.ndim == 1 else t.repeat_interleave(block_size, -1)
    block = model.embed_block(x_t, fed_back, answer_positions, t_of_tokens)
    mask = delta(prompt_length, answer_length // block_size, block_size, x_t.device)
    is_token = F.pad(batch.prompt_mask, (0, len(mask) - prompt_length), value=True)
    visible = (mask & is_token[:, None, :]) | torch.eye(len(mask), dtype=torch.bool, device=x_t.device)
    hidden = model.transformer(torch.cat([context, block], 1), visible[:, None])
    return model.logits(hidden[:, prompt_length + clean :])


def causal_loss(model: SSD2, batch: Batch) -> Tensor:
    """`causal_losses`, averaged over the tokens in the loss: a scalar."""
    tokens = (batch.prompt_mask.sum() + batch.answer_mask.sum()) - len(batch.prompt_ids)
    return causal_losses(model, batch).sum() / tokens


def causal_losses(model: SSD2, batch: Batch) -> Tensor:
    """The loss of a causal language model on all tokens but the first of each row.

    What OPT was trained with before the paper makes it an SSD-2 (§4).

    Returns:
        Cross entropy of every next token, 0 at padding, [B * (c_0 + nL - 1)].
    """
    token_ids = torch.cat([batch.prompt_ids, batch.answer_ids], -1)
    mask = torch.cat([batch.prompt_mask, batch.answer_mask], -1)
    logits = model.next_token_logits(token_ids, mask)[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1).float(), token_ids[:, 1:].flatten(), reduction="none")
    return losses * (mask[:, 1:] & mask[:, :-1]).flatten()
