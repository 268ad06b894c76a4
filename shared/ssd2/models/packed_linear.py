"""Matrices laid out once for the CPU's kernels, as oneDNN has them: a pass takes less than half the time.

See docs/decisions/051-the-user-model-on-the-device.md.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

ROWS = 2
"""Rows that the layout is optimised for, with and without documents; any number works."""

LARGEST_COPY_BYTES = 256 * 10**6
"""Largest tied head to pack: its embeddings stay beside the packed copy (113 MB for SmolLM2-135M)."""


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's own layout, for inference in float32."""

    packed: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Lay out a layer's matrix; its own is no longer needed."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS))
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows W^T + b, [..., out_features], of rows [..., in_features]."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")
        return output


def pack_linear_layers(network: nn.Module) -> None:
    """Replace a network's linear layers, in place, where this machine's torch can pack them; else leave it as it is.

    Only float32 on the CPU is packed: in fewer bits torch's own kernels are as fast. Layers of other kinds, such as
    quantised ones, stay. What is packed can be neither trained nor stored.
    """
    first = next(network.parameters())
    if first.device.type != "cpu" or first.dtype != torch.float32 or not _can_pack():
        return
    embedded = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    _pack(network, embedded)


def _pack(module: nn.Module, embedded: Collection[int]) -> None:
    for name, child in module.named_children():
        if type(child) is not nn.Linear:
            _pack(child, embedded)
        elif id(child.weight) not in embedded or child.weight.nbytes <= LARGEST_COPY_BYTES:
            setattr(module, name, PackedLinear(child))


def _can_pack() -> bool:
    """Try it: the two operators are torch's own, but not documented."""
    if not torch.backends.mkldnn.is_available():
        return False
    linear, rows = nn.Linear(8, 4), torch.ones(ROWS, 1, 8)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(linear)(rows), linear(rows), atol=1e-5)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
