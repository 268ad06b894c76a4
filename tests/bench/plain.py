"""Algorithm 2 as the paper writes it (arXiv 2305.14771, Fig. 2), and nothing more: what ours is compared with.

Of the package it takes the network's layers with their weights. There is no cache of any kind: at every timestep
context and block go through the transformer together, in one pass under the mask of App. A. A block takes all of
t = T, ..., 1. Line 8 is the all-reduce of §3.2 between two parties, so each model is fed back the ensembled logits.

What it would send: with an all-reduce each party hands the other its share of the sum in float32 at every timestep,
(1 - λ)·core down and the user model's two terms up. Then both hold the sum, project it with draws that they have in
common, and nothing else crosses. That is counted, not sent: no time is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssd2.models.ssd2 import OPT_POSITION_OFFSET, SSD2


# See docs/decisions/034-benchmarks.md.
@dataclass(frozen=True)
class Term:
    """One term of the ensemble of §3.2.

    Attributes:
        model: θ.
        weight: (1 - λ), λ(1 + α) or -λα.
        prompts: what this term sees before the answer, token ids, a row each.
    """

    model: SSD2
    weight: float
    prompts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Settings:
    """How to decode.

    Attributes:
        block_size: B of the paper, tokens in a block.
        max_blocks: blocks of an answer.
        top_p: nucleus mass of the sampling projection.
        simplex_value: K.
        timesteps: T.
    """

    block_size: int
    max_blocks: int
    top_p: float
    simplex_value: float
    timesteps: int = 1000


@dataclass(frozen=True)
class _Context:
    """w_<c of one term.

    Attributes:
        token_ids: int64, [B, C].
        is_token: bool, [B, C], false where a row is filled up on the left.
        first_position: of each row's first token, int64, [B, 1].
    """

    token_ids: Tensor
    is_token: Tensor
    first_position: Tensor

    def positions(self, block_size: int) -> Tensor:
        """Of context and block, int64, [B, C + block_size]."""
        padding = (~self.is_token).sum(-1, keepdim=True)
        places = torch.arange(self.token_ids.shape[1] + block_size) - padding + self.first_position
        return places.clamp(min=0)


class Draws(Protocol):
    """Random numbers of a block."""

    def normal(self, shape: Sequence[int], block: int, t: int) -> Tensor:
        """N(0, 1) for the noised simplex at t."""
        ...

    def uniform(self, shape: Sequence[int], block: int, t: int) -> Tensor:
        """In (0, 1], for the projection of the logits at t."""
        ...


class TorchDraws:
    """torch's own generator."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, shape: Sequence[int], block: int, t: int) -> Tensor:
        """See `Draws.normal`."""
        return torch.randn(*shape, generator=self._generator)

    def uniform(self, shape: Sequence[int], block: int, t: int) -> Tensor:
        """See `Draws.uniform`."""
        return 1 - torch.rand(*shape, generator=self._generator)


def bytes_per_timestep(block_size: int, vocab_size: int) -> int:
    """What one timestep's all-reduce exchanges, both ways together."""
    return 2 * 4 * block_size * vocab_size


@torch.inference_mode()
def decode(
    terms: Sequence[Term],
    settings: Settings,
    draws: Draws,
    eos_token_id: int,
    on_logits: Callable[[Tensor], None] = lambda _: None,
) -> list[list[int]]:
    """Decode answers block by block, each until a block of it holds an EOS.

    Args:
        terms: of the ensemble.
        settings: how to decode.
        draws: random numbers.
        eos_token_id: ends an answer.
        on_logits: told the ensembled logits of every timestep.

    Returns:
        All tokens of the committed blocks, a row each.
    """
    answers: list[list[int]] = [[] for _ in terms[0].prompts]
    for block in range(settings.max_blocks):
        rows = [row for row, answer in enumerate(answers) if eos_token_id not in answer]
        if not rows:
            break
        contexts = [_context(term, rows, answers) for term in terms]
        block_ids = _decode_block(terms, contexts, settings, draws, block, on_logits)
        for row, token_ids in zip(rows, block_ids.tolist(), strict=True):
            answers[row] += token_ids
    return answers


def _decode_block(
    terms: Sequence[Term],
    contexts: Sequence[_Context],
    settings: Settings,
    draws: Draws,
    block: int,
    on_logits: Callable[[Tensor], None],
) -> Tensor:
    """Algorithm 2, with its line numbers."""
    K, T = settings.simplex_value, settings.timesteps  # noqa: N806 - the paper's names
    shape = (len(contexts[0].token_ids), settings.block_size, terms[0].model.config.vocab_size)
    w_t = K * draws.normal(shape, block, T)  # 1
    w_logits: Tensor | None = None
    for t in range(T, 0, -1):  # 2
        shares = [  # 3 to 7
            term.weight * _logits(term.model, context, w_t, w_logits, t / T)
            for term, context in zip(terms, contexts, strict=True)
        ]
        w_logits = torch.stack(shares).sum(0)  # 8
        on_logits(w_logits)
        w_hat = _logits_projection(w_logits, draws.uniform(shape[:2], block, t), settings.top_p, K)  # 9
        z = K * draws.normal(shape, block, t - 1)  # 10
        alpha_bar = _alpha_bar((t - 1) / T)
        w_t = math.sqrt(alpha_bar) * w_hat + math.sqrt(1 - alpha_bar) * z  # 11
    return w_t.argmax(-1)  # 13


def _logits(model: SSD2, context: _Context, w_t: Tensor, w_logits: Tensor | None, time: float) -> Tensor:
    """The three equations of §3.1."""
    c, share_of_trained = context.token_ids.shape[1], torch.tensor([[time]])
    emb_pos = model.position_embedding(context.positions(w_t.shape[1]) + OPT_POSITION_OFFSET)
    h = model.w_diff(torch.softmax(w_t, -1))
    if w_logits is not None:
        h = h + model.w_pred(torch.softmax(w_logits, -1))
    h = h + emb_pos[:, c:] + model.diffusion_time_embedding(share_of_trained)
    h_context = model.context_embedding(context.token_ids) + emb_pos[:, :c]
    if model.context_time_embedding is not None:
        h_context = h_context + model.context_time_embedding(share_of_trained)
    output = model.transformer(torch.cat([h_context, h], 1), _mask(context.is_token, w_t.shape[1])[:, None])
    logits: Tensor = output[:, c:] @ model.context_embedding.weight.T
    return logits


def _mask(is_token: Tensor, block_size: int) -> Tensor:
    """App. A: the context sees what is before it, the block all of the context and itself; bool, [B, S, S]."""
    rows, context_size = is_token.shape
    size = context_size + block_size
    visible = torch.ones(size, size, dtype=torch.bool).tril()
    visible[context_size:] = True
    is_seen = torch.cat([is_token, torch.ones(rows, block_size, dtype=torch.bool)], 1)
    return visible & is_seen[:, None, :] | torch.eye(size, dtype=torch.bool)  # padding sees itself, or it is NaN


def _logits_projection(w_logits: Tensor, uniform: Tensor, top_p: float, simplex_value: float) -> Tensor:
    """SSD-LM's "sampling": +K at a token drawn from the nucleus, -K elsewhere."""
    probabilities = torch.softmax(w_logits, -1)
    sorted_probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
    is_outside = sorted_probabilities.cumsum(-1) - sorted_probabilities >= top_p
    is_outside[..., 0] = False
    nucleus = probabilities.masked_fill(is_outside.scatter(-1, order, is_outside), 0.0).double()
    mass_up_to = nucleus.cumsum(-1)
    token_ids = torch.searchsorted(mass_up_to, uniform.double()[..., None] * mass_up_to[..., -1:])
    return torch.full_like(w_logits, -simplex_value).scatter_(-1, token_ids, simplex_value)


def _alpha_bar(time: float) -> float:
    """SSD-LM's schedule, r(t)/r(0) with r(t) = cos²((t/T + s)/(1 + s)·π/2), s = 1e-4."""
    r = [math.cos((x + 1e-4) / (1 + 1e-4) * math.pi / 2) ** 2 for x in (time, 0.0)]
    return r[0] / r[1]


def _context(term: Term, rows: Sequence[int], answers: Sequence[Sequence[int]]) -> _Context:
    """What a term sees of some rows, the shorter ones filled up on the left."""
    texts = [[*term.prompts[row], *answers[row]] for row in rows]
    longest = max(len(text) for text in texts)
    lengths = torch.tensor([[len(text)] for text in texts])
    answer_position = term.model.config.answer_position
    first = [[answer_position - len(term.prompts[row]) if answer_position else 0] for row in rows]
    return _Context(
        torch.tensor([[0] * (longest - len(text)) + text for text in texts]),
        torch.arange(longest) >= longest - lengths,
        torch.tensor(first),
    )
