"""Between tensors and the values that `ssd2.wire.codec` puts into messages.

Apart from the codec, so that a process which only passes messages on has no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.logits.format import LogitsFormat
from ssd2.logits.packed import CoreLogits, pack, pack_largest, unpack
from ssd2.wire.codec import PackedLogits


def pack_logits(logits: Tensor, logits_format: LogitsFormat) -> PackedLogits:
    """Logits of one timestep as they travel; they are packed where they are, and only their bytes come to the host.

    Args:
        logits: [L, V].
        logits_format: that the agent asked for.
    """
    block_size, vocab_size = logits.shape
    return PackedLogits(block_size, vocab_size, logits_format, pack(logits, logits_format).cpu().numpy().tobytes())


def pack_largest_of(
    ids: Sequence[int], log_probabilities: Sequence[float], tail: float, logits_format: LogitsFormat, vocab_size: int
) -> PackedLogits:
    """Logits of one position as they travel, of which the largest are known only.

    Args:
        ids: of the K largest.
        log_probabilities: of these ids.
        tail: logsumexp of all others.
        logits_format: top-k that the agent asked for; its entries are K.
        vocab_size: V.
    """
    values = torch.tensor([log_probabilities], dtype=torch.float64)  # [1, K]
    data = pack_largest(torch.tensor([ids]), values, torch.tensor([[tail]], dtype=torch.float64), vocab_size)
    return PackedLogits(1, vocab_size, logits_format, data.numpy().tobytes())


def unpack_logits(packed: PackedLogits) -> CoreLogits:
    """The reverse of `pack_logits`, as a batch of one: [1, L, V].

    Raises:
        ProtocolViolation: if no logits can have been packed into these bytes.
    """
    data = torch.frombuffer(bytearray(packed.data), dtype=torch.uint8)
    return unpack(data.view(1, packed.block_size, -1), packed.logits_format, packed.vocab_size)
