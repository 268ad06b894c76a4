"""Between tensors and the values that `ssd2.wire.codec` puts into messages.

Apart from the codec, so that a process which only passes messages on has no tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd2.logits.format import LogitsFormat
from ssd2.logits.packed import CoreLogits, pack, unpack
from ssd2.wire.codec import PackedLogits


def pack_logits(logits: Tensor, logits_format: LogitsFormat) -> PackedLogits:
    """Logits of one timestep as they travel; they are packed where they are, and only their bytes come to the host.

    Args:
        logits: [L, V].
        logits_format: that the agent asked for.
    """
    block_size, vocab_size = logits.shape
    return PackedLogits(block_size, vocab_size, logits_format, pack(logits, logits_format).cpu().numpy().tobytes())


def unpack_logits(packed: PackedLogits) -> CoreLogits:
    """The reverse of `pack_logits`, as a batch of one: [1, L, V].

    Raises:
        ProtocolViolation: if no logits can have been packed into these bytes.
    """
    data = torch.frombuffer(bytearray(packed.data), dtype=torch.uint8)
    return unpack(data.view(1, packed.block_size, -1), packed.logits_format, packed.vocab_size)
