"""A causal network of the transformers library on several ranks, cut as the library's own plan for it says.

A plan names each layer that is cut and its style. The library carries plans out with DTensor; our own layers do it
here, as with SSD-2 (docs/decisions/012-tensor-parallelism.md). Embedding and head are cut over the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ssd2.errors import InvalidParameter
from ssd2.models.parallel_layers import (
    GatheredLinear,
    RowParallelLinear,
    SplitInputLinear,
    check_divides,
    cut,
    cut_padded,
    look_up,
)
from ssd2.models.shard import Shard


@dataclass(frozen=True)
class _Style:
    """One way to cut a layer.

    Attributes:
        dim: of its weight that is cut, from the end; None for none.
        pieces: layers that lie one after the other in the weight.
        layer: takes the layer's place; None to leave it as it is.
    """

    dim: int | None
    pieces: int = 1
    layer: Callable[[nn.Linear, Shard], nn.Linear] | None = None


_BY_OUTPUTS, _BY_INPUTS = -2, -1
_STYLES = {
    "colwise": _Style(_BY_OUTPUTS),
    "colwise_gather_output": _Style(_BY_OUTPUTS, layer=GatheredLinear),
    "rowwise": _Style(_BY_INPUTS, layer=RowParallelLinear),
    "rowwise_split_input": _Style(_BY_INPUTS, layer=SplitInputLinear),
    "packed_colwise": _Style(_BY_OUTPUTS, pieces=2),
    "replicated_with_grad_allreduce": _Style(None),
}

_SUMMED = "moe_tp_experts"
"""Style of experts that have a part of each expert: what they make is summed over the ranks."""

_HEADS = {"q_proj": "attention heads", "k_proj": "key-value heads"}
"""Layers whose parts have to be whole heads."""


class VocabParallel(nn.Module):
    """An embedding of any class, of this rank's part of V."""

    def __init__(self, embedding: nn.Embedding, shard: Shard) -> None:
        super().__init__()
        self.embedding, self._shard = embedding, shard
        embedding.padding_idx = None  # of the whole; it matters to training only

    @property
    def weight(self) -> Tensor:
        """Rows of this rank, [V / ranks, D]."""
        return self.embedding.weight

    def forward(self, token_ids: Tensor) -> Tensor:
        """[...] -> [..., D]."""
        return look_up(token_ids, len(self.weight), self._shard, self.embedding)


# See docs/decisions/012-tensor-parallelism.md.
def shard_network(model: Any, shard: Shard) -> None:
    """Turn a model into one rank's share of it, in place.

    Args:
        model: an `AutoregressiveLM`.
        shard: of the rank.

    Raises:
        InvalidParameter: if the library has no plan for it or one that we do not carry out, or if its heads or widths
            do not divide by the ranks.
    """
    network = model.network
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    by_vocabulary = {id(embedding): "embedding", id(head): "head"}
    plan = {
        name: style
        for name, style in _planned(network).items()
        if (module := _found(network, name)) is None or id(module) not in by_vocabulary
    }
    _check_plan(network, plan)
    numbers = list(_numbers(network, plan))
    check_divides(dict.fromkeys(numbers), shard.ranks, max(number for _, number in numbers))
    for name, style in plan.items():
        _shard_layer(network, name, style, shard)
    _shard_vocabulary(network, embedding, head, shard)


def _planned(network: Any) -> dict[str, str]:
    """Return the style of every layer or weight that the library's plan names, by its own name."""
    plan: Mapping[str, str] = network.tp_plan or {}
    names = [name for name, _ in (*network.named_modules(), *network.named_parameters())]
    return {name: plan[general] for name in names if (general := re.sub(r"\b\d+\b", "*", name)) in plan}


def _found(network: Any, name: str) -> nn.Module | None:
    """Return the layer of a name; None if it is a weight's."""
    try:
        return network.get_submodule(name)  # type: ignore[no-any-return]  # the network has no types
    except AttributeError:
        return None


def _check_plan(network: Any, plan: Mapping[str, str]) -> None:
    unknown = sorted(set(plan.values()) - set(_STYLES) - {_SUMMED})
    if not plan or unknown:
        kind = network.config.model_type
        reason = f"its plan asks for {', '.join(unknown)}" if unknown else "transformers has no plan for it"
        raise InvalidParameter(
            f"models of the kind {kind} do not support tensor parallelism: {reason}; serve the model whole",
            parameter="tensor_parallel",
        )


def _numbers(network: Any, plan: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yield what has to divide by the ranks, in words, and how many there are."""
    for name, style in plan.items():
        if style == _SUMMED or (dim := _STYLES[style].dim) is None:
            continue
        parent, _, layer = name.rpartition(".")
        weight: Tensor = network.get_parameter(name if _found(network, name) is None else f"{name}.weight")
        size = weight.shape[dim] // _STYLES[style].pieces
        head_size: int | None = getattr(network.get_submodule(parent), "head_dim", None)
        if head_size and layer in _HEADS and style == "colwise":
            yield f"{size // head_size} {_HEADS[layer]}", size // head_size
        elif not head_size or style not in ("colwise", "rowwise"):
            yield f"a width of {size}", size


def _shard_layer(network: Any, name: str, style: str, shard: Shard) -> None:
    """Cut what a plan names: a layer with weight and bias, or a weight by itself."""
    module = _found(network, name)
    if style == _SUMMED and module is not None:
        module.register_forward_hook(lambda _module, _inputs, output: shard.sum(output))
        return
    parent, _, layer = name.rpartition(".")
    how, owner = _STYLES[style], network.get_submodule(parent)
    if how.dim is None:
        return
    if module is None:
        weight = network.get_parameter(name)
        weight.data = cut(shard, weight.data, weight.ndim + how.dim, how.pieces)
        return
    for kind, parameter in module.named_parameters(recurse=False):
        if kind == "weight":
            parameter.data = cut(shard, parameter.data, parameter.ndim + how.dim, how.pieces)
        elif how.dim == _BY_OUTPUTS:
            parameter.data = cut(shard, parameter.data, 0, how.pieces)
    if how.layer:
        setattr(owner, layer, how.layer(module, shard))  # type: ignore[arg-type]  # plans name linear layers so


def _shard_vocabulary(network: Any, embedding: nn.Embedding, head: nn.Linear, shard: Shard) -> None:
    """Cut embedding and head over V; one that is both is cut once."""
    weights = {id(weight): weight for layer in (embedding, head) for weight in layer.parameters()}
    for weight in weights.values():
        weight.data = cut_padded(shard, weight.data)
    network.set_input_embeddings(VocabParallel(embedding, shard))
    network.set_output_embeddings(GatheredLinear(head, shard))
