"""Logits as bytes and back, on whatever device they are.

What is taken off a whole position changes no softmax and no mix's softmax, so every entry is sent as
its distance below the position's maximum, and the maximum itself is not sent. A position in each
format, numbers little-endian as on every host that torch is built for:

    float16   V halves, each at most 0
    uint8     V distances in steps of 1/16 nat; 255 also for all that are farther
    top-k:K   float32, the logsumexp of the entries that are not sent; K token ids, ascending, as uint16
              or, with V above 65,536, uint32; their K distances, as in uint8
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.errors import ProtocolViolation
from ssd2.logits.format import TAIL_BYTES, LogitsFormat, id_bytes
from ssd2.logits.ranking import ranked

STEPS_PER_NAT = 16
FARTHEST = 255
"""Largest distance that is sent, in steps."""

ROUNDING = 0.5 / STEPS_PER_NAT
"""Nats between an entry and its distance as sent, at most."""

HALF_ROUNDING = 2.0**-11
"""Of an entry between itself and its half, at most; `HALF_UNDERFLOW` more next to 0."""
HALF_UNDERFLOW = 2.0**-25

LOWEST = torch.finfo(torch.float16).min
"""-65,504: lower entries are taken for it, so that every half that is sent is finite."""

LOWEST_TAIL = -1000.0
"""Nats; a lower tail is taken for it, and that of nothing."""

SUM_ROUNDING = 1e-3
"""Nats that float32 arithmetic may add to a logsumexp over a vocabulary, with room to spare."""

_DAMAGED = "; report this to the core's provider"


@dataclass(frozen=True)
class TopK:
    """Sent entries and tail of the format top-k.

    Attributes:
        ids: that were sent, int64, [..., K].
        tail: logsumexp of the entries that were not sent, [..., 1].
        fill: value that each of them is given, [..., 1].
        bound: what none of them was above, [..., 1]: neither above the least one sent, nor above all of them together.
    """

    ids: Tensor
    tail: Tensor
    fill: Tensor
    bound: Tensor


@dataclass(frozen=True)
class CoreLogits:
    """The core's logits as they arrive, less each position's maximum.

    Attributes:
        values: [..., V], at most 0, float16 or float32.
        lowest: value of the entries that are as far below the maximum as the format can say, or farther.
        top_k: what was sent with top-k; None where all entries were.
    """

    values: Tensor
    lowest: float
    top_k: TopK | None = None


def rounding(values: Tensor) -> Tensor:
    """Largest difference that packing made to a sent entry above `lowest`.

    Args:
        values: some of `CoreLogits.values`.

    Returns:
        In nats, float32, of the same shape.
    """
    if values.dtype == torch.float16:
        return values.float().abs() * HALF_ROUNDING + HALF_UNDERFLOW
    return torch.full_like(values, ROUNDING)


# See docs/decisions/006-core-logits-in-few-bytes.md.
def pack(logits: Tensor, how: LogitsFormat) -> Tensor:
    """Logits as the bytes that travel.

    Args:
        logits: [..., V].
        how: the format.

    Returns:
        uint8, [..., `how.bytes_per_position(V)`], on the device of the logits.
    """
    logits = logits.float()
    return _PACK[how.kind](logits.amax(-1, keepdim=True) - logits, how.entries(logits.shape[-1]))


def unpack(data: Tensor, how: LogitsFormat, vocab_size: int) -> CoreLogits:
    """The reverse of `pack`, which takes nothing for granted.

    Args:
        data: uint8, [..., `how.bytes_per_position(V)`].
        how: the format.
        vocab_size: V.

    Raises:
        ProtocolViolation: if no logits can have been packed into these bytes.
    """
    return _UNPACK[how.kind](data, how.entries(vocab_size), vocab_size)


def as_received(logits: Tensor, how: LogitsFormat) -> CoreLogits:
    """Logits as the other side of the wire has them; [..., V]."""
    return unpack(pack(logits, how), how, logits.shape[-1])


def _pack_float16(distances: Tensor, _: int) -> Tensor:
    return _octets(distances.clamp_(max=-LOWEST).to(torch.float16).neg_())


def _unpack_float16(data: Tensor, _: int, __: int) -> CoreLogits:
    values = data.contiguous().view(torch.float16)
    highest = values.amax(-1)
    if not bool(torch.isfinite(values.amin(-1) + highest).all()):  # NaN is the least and the largest of all
        raise ProtocolViolation(f"the core sent logits that are not finite{_DAMAGED}")
    _check_maximum(highest)
    return CoreLogits(values, LOWEST)


def _pack_uint8(distances: Tensor, _: int) -> Tensor:
    """Pack as uint8. A broken model's NaN becomes 255: a position without its maximum, which `unpack` refuses."""
    steps = (distances * STEPS_PER_NAT).round_().nan_to_num_(FARTHEST)
    return steps.clamp_(max=FARTHEST).to(torch.uint8)


def _unpack_uint8(data: Tensor, _: int, __: int) -> CoreLogits:
    _check_maximum(data.amin(-1))
    return CoreLogits(data * (-1 / STEPS_PER_NAT), -FARTHEST / STEPS_PER_NAT)


def _pack_top_k(distances: Tensor, entries: int) -> Tensor:
    ids = ranked(distances, entries, largest=False).sort(dim=-1).values
    nearest = distances.gather(-1, ids)
    tail = distances.neg_().scatter_(-1, ids, -math.inf).logsumexp(-1, keepdim=True)
    return _top_k_octets(ids, nearest, tail, distances.shape[-1])


def pack_largest(ids: Tensor, log_probabilities: Tensor, tail: Tensor, vocab_size: int) -> Tensor:
    """Pack as top-k:K what is known of the K largest entries only, and the logsumexp of all others.

    Args:
        ids: int64, [..., K], in any order.
        log_probabilities: of these ids, [..., K].
        tail: logsumexp of the others, [..., 1].
        vocab_size: V.

    Returns:
        As `pack`.
    """
    order = ids.argsort(-1)
    highest = log_probabilities.amax(-1, keepdim=True)
    distances = (highest - log_probabilities).float().gather(-1, order)
    return _top_k_octets(ids.gather(-1, order), distances, (tail - highest).float(), vocab_size)


def _top_k_octets(ids: Tensor, distances: Tensor, tail: Tensor, vocab_size: int) -> Tensor:
    """Lay out ids, ascending, and their distances below the maximum, [..., K], with the tail, [..., 1]."""
    id_octets = ids.to(torch.int32).unsqueeze(-1).view(torch.uint8)[..., : id_bytes(vocab_size)]
    steps = _pack_uint8(distances, ids.shape[-1])
    return torch.cat([_octets(tail.clamp(min=LOWEST_TAIL)), id_octets.flatten(-2), steps], -1)


def _unpack_top_k(data: Tensor, entries: int, vocab_size: int) -> CoreLogits:
    """Give all entries that were not sent the same value: tail - log(V - K), and no more than the least one sent.

    That is the one value with which they have the mass that the core gave them together, so that the core's
    probabilities of the sent ones are right. As a mean it is at most the largest of them, and so at most
    the least one sent, but for what that one has lost by rounding.
    """
    width = id_bytes(vocab_size)
    tail = data[..., :TAIL_BYTES].clone(memory_format=torch.contiguous_format).view(torch.float32)
    id_octets = data[..., TAIL_BYTES:-entries].reshape(*data.shape[:-1], entries, width).to(torch.int64)
    ids = (id_octets << (8 * torch.arange(width, device=data.device))).sum(-1)
    _check_maximum(data[..., -entries:].amin(-1))
    if int(ids[..., -1].max()) >= vocab_size or bool((ids.diff(dim=-1) <= 0).any()):
        raise ProtocolViolation(f"the core sent token ids that are not ascending and below {vocab_size}{_DAMAGED}")
    sent = data[..., -entries:] * (-1 / STEPS_PER_NAT)
    least, log_unsent = sent.amin(-1, keepdim=True), math.log(max(1, vocab_size - entries))
    _check_tail(tail, least + log_unsent)
    fill = torch.minimum(tail - log_unsent, least)
    values = fill.expand(*fill.shape[:-1], vocab_size).scatter(-1, ids, sent)
    bound = torch.minimum(least + ROUNDING, tail + SUM_ROUNDING)
    return CoreLogits(values, -FARTHEST / STEPS_PER_NAT, TopK(ids, tail, fill, bound))


def _check_maximum(nearest: Tensor) -> None:
    """Check the smallest distance below the maximum of each position, [...]."""
    if not bool((nearest == 0).all()):
        raise ProtocolViolation(f"the core sent a position without its largest logit{_DAMAGED}")


def _check_tail(tail: Tensor, highest: Tensor) -> None:
    """Check that what was not sent can have this logsumexp, with no entry above the least one sent."""
    if not bool(((tail >= LOWEST_TAIL) & (tail <= highest + ROUNDING + SUM_ROUNDING)).all()):
        raise ProtocolViolation(f"the core sent a tail of logits that does not fit what it left out{_DAMAGED}")


def _octets(values: Tensor) -> Tensor:
    """[..., n] as bytes, [..., n times the size of one]."""
    return values.contiguous().view(torch.uint8)


_PACK: dict[str, Callable[[Tensor, int], Tensor]] = {
    "float16": _pack_float16,
    "uint8": _pack_uint8,
    "top-k": _pack_top_k,
}
_UNPACK: dict[str, Callable[[Tensor, int, int], CoreLogits]] = {
    "float16": _unpack_float16,
    "uint8": _unpack_uint8,
    "top-k": _unpack_top_k,
}
