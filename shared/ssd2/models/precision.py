"""Models in fewer bits: half the memory or a quarter, and as much less to read for every timestep."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ssd2.errors import InvalidParameter
from ssd2.models.loading_logs import quiet_torchao
from ssd2.models.model import Model
from ssd2.models.registry import Footprint, family_named

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
"""What a model's weights are held in; "int8": the layers' matrices, with a scale a row, and the rest in bfloat16."""

INT8_ROW_BYTES = 5
"""Bytes of a row's scale, in float32, and its zero point."""


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype that a model's weights are read in.

    Raises:
        InvalidParameter: if the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise InvalidParameter(
            f"precision is {precision!r}; choose from {', '.join(PRECISIONS)}", parameter="precision"
        )
    return {"float32": torch.float32, "float16": torch.float16}.get(precision, torch.bfloat16)


def set_precision(model: Model, precision: str) -> None:
    """Hold a model's weights in so many bits, in place.

    Args:
        model: of any family; "int8" takes one that has layers for it.
        precision: one of `PRECISIONS`.

    Raises:
        InvalidParameter: if the precision is unknown, takes a package that is not installed, or another family.
    """
    model.to(dtype_of(precision))
    if precision == "int8":
        family = family_named(model.config.family)
        if family.int8_layers is None:
            raise InvalidParameter(
                f"models of the family {family.name} do not support int8; use bfloat16", parameter="precision"
            )
        for layers in family.int8_layers(model):
            _quantise(layers)


def footprint_of(network: nn.Module, int8_layers: Iterable[nn.Module], slot: int) -> Footprint:
    """Count the numbers of a network, which need not have weights yet.

    Args:
        network: on any device.
        int8_layers: see `Family.int8_layers`.
        slot: see `Footprint`.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    linear = [one for layers in int8_layers for one in layers.modules() if isinstance(one, nn.Linear)]
    weights, rows = sum(one.weight.numel() for one in linear), sum(one.out_features for one in linear)
    return Footprint(parameters, slot, weights, rows)


def _quantise(module: nn.Module) -> None:
    quiet_torchao()
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise InvalidParameter(
            "int8 requires the torchao package; install it with: pip install 'slingshot[int8]'", parameter="precision"
        ) from error
    quantize_(module, Int8WeightOnlyConfig())
