"""One model on several ranks, each with its share of every large weight: Megatron's tensor parallelism, for inference.

Of two layers that follow one another the first is cut by its outputs and the second by its inputs, so
that a rank computes its attention heads, or its part of the feed-forward width, by itself, and one sum
over the ranks gives what all make together: two sums a layer. What has the size of V is cut over the
vocabulary: a sum each for W_diff, W_pred and Emb_ctx, and the logits are gathered.

Source: Megatron-LM (arXiv 1909.08053), §3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ssd2.errors import InvalidParameter
from ssd2.models.configs import SSD2Config
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.shard import Shard
from ssd2.models.ssd2 import SSD2, TiedEmbedding


class RowParallelLinear(nn.Linear):
    """A layer cut by its inputs, of which it is given this rank's part; its outputs are of all ranks."""

    def __init__(self, whole: nn.Linear, shard: Shard) -> None:
        super().__init__(whole.in_features, whole.out_features, whole.bias is not None, device="meta")
        self.weight, self.bias = whole.weight, whole.bias
        self._shard = shard

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., this rank's part of in_features] -> [..., out_features]."""
        output = self._shard.sum(F.linear(inputs, self.weight))
        return output if self.bias is None else output + self.bias  # once, not by every rank


class VocabParallelLinear(RowParallelLinear):
    """W_diff or W_pred: given a distribution over all of V, it takes in this rank's part."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., V] -> [..., D]."""
        return super().forward(inputs[..., self._shard.part(self.in_features)])


class VocabParallelEmbedding(TiedEmbedding):
    """Emb_ctx and the output layer, of this rank's part of V."""

    def __init__(self, whole: nn.Embedding, shard: Shard) -> None:
        super().__init__(whole.num_embeddings, whole.embedding_dim, device="meta")
        self.weight = whole.weight
        self._shard = shard

    def forward(self, token_ids: Tensor) -> Tensor:
        """[...] -> [..., D]."""
        rows = len(self.weight)
        row = token_ids - self._shard.rank * rows
        is_elsewhere = (row < 0) | (row >= rows)
        found: Tensor = super().forward(row.clamp(0, rows - 1))
        return self._shard.sum(found.masked_fill(is_elsewhere[..., None], 0))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return self._shard.gather(super().logits(hidden))[..., : self.num_embeddings]


_BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "fc1")
_BY_INPUTS = {
    "out_proj": RowParallelLinear,
    "fc2": RowParallelLinear,
    "w_diff": VocabParallelLinear,
    "w_pred": VocabParallelLinear,
}
_BY_TOKENS = "context_embedding"


# See docs/decisions/012-tensor-parallelism.md.
def shard_model(model: SSD2 | TimeRangeExperts, shard: Shard) -> None:
    """Turn a model into one rank's share of it, in place.

    Raises:
        InvalidParameter: if its heads or its feed-forward width do not divide by the ranks.
    """
    _check_divides(model.config, shard.ranks)
    for name, module in list(model.named_modules()):
        parent, _, layer = name.rpartition(".")
        if isinstance(module, nn.Linear) and layer in _BY_INPUTS:
            setattr(model.get_submodule(parent), layer, _BY_INPUTS[layer](module, shard))
        elif isinstance(module, nn.Embedding) and layer == _BY_TOKENS:
            setattr(model.get_submodule(parent), layer, VocabParallelEmbedding(module, shard))
    for name, parameter in model.named_parameters():
        parameter.data = _cut(shard, name, parameter.data)


def _cut(shard: Shard, name: str, whole: Tensor) -> Tensor:
    """Return a rank's part of a weight.

    Args:
        shard: of the rank.
        name: of the weight in the model.
        whole: the weight.
    """
    layer, kind = name.split(".")[-2:]
    if layer in _BY_OUTPUTS:
        part = whole[shard.part(len(whole))]
    elif layer in _BY_INPUTS and kind == "weight":
        part = whole[:, shard.part(whole.shape[1])]
    elif layer == _BY_TOKENS:  # of one size on all ranks, so that logits can be gathered
        part = whole[shard.part(len(whole))]
        part = F.pad(part, (0, 0, 0, math.ceil(len(whole) / shard.ranks) - len(part)))
    else:
        return whole
    return part.clone(memory_format=torch.contiguous_format)  # a view would keep the whole


def _check_divides(config: SSD2Config, ranks: int) -> None:
    heads, width = config.num_heads, config.ffn_size
    if heads % ranks or width % ranks:
        possible = [str(number) for number in range(1, heads + 1) if not (heads % number or width % number)]
        raise InvalidParameter(
            f"{heads} attention heads and a feed-forward width of {width} are not divisible by {ranks}; use one of "
            f"{', '.join(possible)}",
            parameter="tensor_parallel",
        )
