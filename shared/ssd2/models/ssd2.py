"""SSD-2: a semi-autoregressive simplex-based diffusion language model (§3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.models.configs import CONTEXT_TIMESTEP_QUANTUM, SSD2Config
from ssd2.models.model import Model
from ssd2.models.transformer import Transformer

OPT_POSITION_OFFSET = 2
"""OPT's learned positions start at row 2 of their table."""


class TiedEmbedding(nn.Embedding):
    """Emb_ctx, and the output layer that is tied to it, as in OPT."""

    def logits(self, hidden: Tensor) -> Tensor:
        """The output layer: [..., D] -> [..., V], float32.

        A GPU multiplies bfloat16 into float32: rounded to bfloat16, logits of 16 to 32 would be off by up to 1/16.
        """
        if hidden.is_cuda and hidden.dtype == torch.bfloat16 and not torch.is_grad_enabled():
            flat: Tensor = torch.mm(hidden.flatten(0, -2), self.weight.T, out_dtype=torch.float32)
            return flat.view(*hidden.shape[:-1], -1)
        return (hidden @ self.weight.T).float()


class SSD2(Model):
    """The network of §3.1: logits of a block, given its noised simplex and its context.

        h~    = W_diff[sm(x_t)] + W_pred[sm(self_cond)] + Emb_pos(c:c+L) + Emb_diff-time(t/T)
        h_<c  = Emb_ctx(w_<c) + Emb_pos(<c) + Emb_ctx-time(t/T)
        logits = Transformer[concat(h_<c, h~)]_{c:c+L}

    The context is encoded causally; the block sees all of the context and, in both directions,
    itself (App. A). The output layer is tied to Emb_ctx, as in OPT.
    """

    def __init__(self, config: SSD2Config) -> None:
        super().__init__()
        self.config: SSD2Config = config
        width, vocab = config.hidden_size, config.vocab_size
        self.context_embedding = TiedEmbedding(vocab, width)
        self.position_embedding = nn.Embedding(config.max_positions + OPT_POSITION_OFFSET, width)
        self.w_diff = nn.Linear(vocab, width, bias=False)
        self.w_pred = nn.Linear(vocab, width, bias=False)
        self.diffusion_time_embedding = nn.Linear(1, width)
        self.context_time_embedding = nn.Linear(1, width) if config.context_timestep == "quantised" else None
        self.transformer = Transformer(width, config.num_layers, config.num_heads, config.ffn_size)
        self.apply(_initialise)
        # Nothing is fed back at first, and the context starts as OPT's: both are learned from 0.
        nn.init.zeros_(self.w_pred.weight)
        if self.context_time_embedding is not None:
            nn.init.zeros_(self.context_time_embedding.weight)

    def at(self, timestep: int) -> SSD2:
        """The network for a timestep: the same for all; see `ssd2.models.experts`."""
        return self

    def embed_context(self, token_ids: Tensor, positions: Tensor, t: Tensor) -> Tensor:
        """h_<c of §3.1.

        Args:
            token_ids: int64, [B, C].
            positions: int64, [B, C].
            t: timesteps, [B].

        Returns:
            [B, C, D].
        """
        hidden: Tensor = self.context_embedding(token_ids) + self.position_embedding(positions + OPT_POSITION_OFFSET)
        if self.context_time_embedding is not None:
            hidden = hidden + _embedded_time(self.context_time_embedding, context_timestep(t))
        return hidden

    def embed_block(self, x_t: Tensor, fed_back: Tensor | None, positions: Tensor, t: Tensor) -> Tensor:
        """h~ of §3.1.

        Args:
            x_t: noised simplex, [B, L, V].
            fed_back: the previous prediction's part, [B, L, D]; None or 0 at the first timestep.
            positions: int64, [B, L].
            t: timesteps, [B], or [B, L] where blocks of different timesteps stand side by side.

        Returns:
            [B, L, D].
        """
        hidden: Tensor = self.w_diff(torch.softmax(x_t, dim=-1).to(self.w_diff.weight.dtype))
        hidden = hidden + self.position_embedding(positions + OPT_POSITION_OFFSET)
        hidden = hidden + _embedded_time(self.diffusion_time_embedding, t)
        return hidden if fed_back is None else hidden + fed_back

    def feed_back(self, self_cond: Tensor) -> Tensor:
        """W_pred[sm(self_cond)] of §3.1, all that the model takes in of its previous prediction.

        Args:
            self_cond: that prediction as logits, [B, L, V].

        Returns:
            [B, L, D].
        """
        fed_back: Tensor = self.w_pred(torch.softmax(self_cond, dim=-1).to(self.w_pred.weight.dtype))
        return fed_back

    def logits(self, hidden: Tensor) -> Tensor:
        """Output layer, tied to Emb_ctx: [B, L, D] -> [B, L, V], float32."""
        return self.context_embedding.logits(hidden)

    def next_token_logits(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Predict the token after each token of a text: the context's stream as the causal language model that OPT is.

        Args:
            token_ids: int64, [B, S].
            mask: bool, [B, S], False at padding; positions count the tokens from 0.

        Returns:
            [B, S, V], unnormalised.
        """
        length = token_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        visible = causal & (mask[:, None, :] | torch.eye(length, dtype=torch.bool, device=mask.device))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        no_time = torch.zeros(len(token_ids), dtype=torch.int64, device=mask.device)
        hidden = self.transformer(self.embed_context(token_ids, positions, no_time), visible[:, None])
        return self.logits(hidden)

    def prompt_positions(self, mask: Tensor) -> Tensor:
        """Positions of left-padded prompts.

        Args:
            mask: bool, [B, C], False at the padding on the left.

        Returns:
            int64, [B, C]; 0 at the padding.
        """
        first = self.config.first_position(mask.sum(-1, keepdim=True))
        return ((mask.cumsum(-1) - 1 + first) * mask).to(torch.int64)


def context_timestep(t: Tensor) -> Tensor:
    """t_quantised = t - (t mod Q), footnote 16."""
    return t - t % CONTEXT_TIMESTEP_QUANTUM


def _embedded_time(embedding: nn.Linear, t: Tensor) -> Tensor:
    """A time embedding of t/T: [B] -> [B, 1, D], or [B, L] -> [B, L, D]."""
    embedded: Tensor = embedding((t / TRAINED_TIMESTEPS).view(len(t), -1, 1).to(embedding.weight.dtype))
    return embedded


def _initialise(module: nn.Module) -> None:
    """OPT's initialisation: weights N(0, 0.02²), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
