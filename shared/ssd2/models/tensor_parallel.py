"""An SSD-2 model on several ranks, each with its share of every large weight.

A layer takes two sums over the ranks; see `ssd2.models.parallel_layers`. What has the size of V is cut over the
vocabulary: a sum each for W_diff, W_pred and Emb_ctx, and the logits are gathered.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssd2.models.experts import TimeRangeExperts
from ssd2.models.parallel_layers import (
    RowParallelLinear,
    SplitInputLinear,
    check_divides,
    cut,
    cut_padded,
    look_up,
)
from ssd2.models.shard import Shard
from ssd2.models.ssd2 import SSD2, TiedEmbedding


class VocabParallelEmbedding(TiedEmbedding):
    """Emb_ctx and the output layer, of this rank's part of V."""

    def __init__(self, whole: nn.Embedding, shard: Shard) -> None:
        super().__init__(whole.num_embeddings, whole.embedding_dim, device="meta")
        self.weight = whole.weight
        self._shard = shard

    def forward(self, token_ids: Tensor) -> Tensor:
        """[...] -> [..., D]."""
        return look_up(token_ids, len(self.weight), self._shard, super().forward)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return self._shard.gather(super().logits(hidden))[..., : self.num_embeddings]


_BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "fc1")
_BY_INPUTS = {
    "out_proj": RowParallelLinear,
    "fc2": RowParallelLinear,
    "w_diff": SplitInputLinear,  # given a distribution over all of V
    "w_pred": SplitInputLinear,
}
_BY_TOKENS = "context_embedding"


# See docs/decisions/012-tensor-parallelism.md.
def shard_model(model: SSD2 | TimeRangeExperts, shard: Shard) -> None:
    """Turn a model into one rank's share of it, in place.

    Raises:
        InvalidParameter: if its heads or its feed-forward width do not divide by the ranks.
    """
    heads, width = model.config.num_heads, model.config.ffn_size
    numbers = [(f"{heads} attention heads", heads), (f"a feed-forward width of {width}", width)]
    check_divides(numbers, shard.ranks, heads)
    for name, module in list(model.named_modules()):
        parent, _, layer = name.rpartition(".")
        if isinstance(module, nn.Linear) and layer in _BY_INPUTS:
            setattr(model.get_submodule(parent), layer, _BY_INPUTS[layer](module, shard))
        elif isinstance(module, nn.Embedding) and layer == _BY_TOKENS:
            setattr(model.get_submodule(parent), layer, VocabParallelEmbedding(module, shard))
    for name, parameter in model.named_parameters():
        parameter.data = _cut(shard, name, parameter.data)


def _cut(shard: Shard, name: str, whole: Tensor) -> Tensor:
    layer, kind = name.split(".")[-2:]
    if layer in _BY_OUTPUTS:
        return cut(shard, whole, 0)
    if layer in _BY_INPUTS and kind == "weight":
        return cut(shard, whole, 1)
    return cut_padded(shard, whole) if layer == _BY_TOKENS else whole
