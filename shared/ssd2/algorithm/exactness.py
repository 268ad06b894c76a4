"""Proof that a projection is the one that the core's logits would give if none was rounded or left out.

The device knows its own part of the mix in full. Of a core that packs its logits as the contract says it also
knows how far each may be from the value that arrived (`packed_logits.rounding`, `TopK`). So it knows between
what each entry of the mix lies, and from there between what each probability does. A projection is proven if
it is the same for every mix within these bounds. They are sound and not tight: a projection that is not
proven may be the same too. Where all timesteps of an answer are proven, it is the answer of full logits.

Of the mix only the core's weight matters, one for all positions or one for each: the weights follow from numbers that
were not packed. To log-normalise the models' logits before they are mixed adds one number to all entries of a position
(of a core that sent some of its entries, another one than with all of them), which changes no projection: what holds
for a raw mix holds for a normalised one, whatever the weights are. `MARGIN` and `MASS_MARGIN` make it
hold for numbers as float32 computes them, with logits up to some thousands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.ensemble import Weight
from ssd2.algorithm.noise import uniform_noise
from ssd2.algorithm.params import DecodingParams
from ssd2.logits.packed import CoreLogits, TopK, rounding

CANDIDATES = 64
"""Likeliest entries that are looked at one by one where all are sent; a nucleus of more is not proven."""

MARGIN = 1e-3
"""Nats that every bound is widened by."""

MASS_MARGIN = 2.0**-12
"""Probability by which masses have to be clear of `top_p`."""

LEAST_OWN = 1e-6
"""Weight beside the core's that a bound takes for granted; it adds nothing that `MARGIN` does not cover."""

NEGLIGIBLE = -80.0
"""Nats below the largest entry, where all entries of a vocabulary together are next to nothing."""


# See docs/decisions/006-core-logits-in-few-bytes.md.
@torch.inference_mode()
def proven(
    core: CoreLogits,
    mixed: Tensor,
    core_weight: Weight,
    params: DecodingParams,
    sampling_seeds: Sequence[int],
    block: int,
    timestep: int,
) -> Tensor:
    """At which positions `sampler.project` provably projects as with the core's logits before they were packed.

    With another temperature than 1 nothing is proven but of the greedy projection: the bounds do not scale with it.

    Args:
        core: as received, [B, L, V].
        mixed: the ensemble with them, raw or normalised, and not steered by a control, [B, L, V].
        core_weight: of the core's logits in the mix, in (0, 1].
        params: projection and top_p.
        sampling_seeds: one a row; read by the sampling projection only.
        block: index of the block.
        timestep: t that the logits belong to.

    Returns:
        bool, [B, L].
    """
    mix = _bounded_mix(core, mixed, core_weight)
    if params.projection == "greedy":
        return _has_one_mode(mix)
    if params.temperature != 1:
        return torch.zeros(mixed.shape[:-1], dtype=torch.bool, device=mixed.device)
    last, is_nucleus = _nucleus(mix, params.top_p)
    if params.projection == "multi-hot":  # a block of it is committed as its modes
        return is_nucleus & _has_one_mode(mix)
    uniform = uniform_noise(sampling_seeds, block=block, timestep=timestep, length=mixed.shape[1], device=mixed.device)
    return is_nucleus & _has_one_draw(mix, last, uniform)


@dataclass(frozen=True)
class _Others:
    """Bounds on the entries of the mix that are not looked at one by one, each [B, L, 1].

    Attributes:
        largest: upper bound of every entry.
        low: lower bound of their logsumexp.
        high: upper bound of it.
    """

    largest: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class _BoundedMix:
    """Bounds on exp of the mix, float64, up to a factor of the position; M candidates one by one.

    Attributes:
        ids: of the candidates, [B, L, M], by falling lower bound.
        low: lower bounds, [B, L, M].
        high: upper bounds, [B, L, M].
        others: what lies beside them; its sums are no logarithms here.
    """

    ids: Tensor
    low: Tensor
    high: Tensor
    others: _Others

    def largest_behind(self) -> Tensor:
        """For each candidate the upper bound of all entries behind it, [B, L, M]."""
        behind = torch.cat([self.high[..., 1:], self.others.largest], -1)
        return behind.flip(-1).cummax(-1).values.flip(-1)


def _bounded_mix(core: CoreLogits, mixed: Tensor, core_weight: Weight) -> _BoundedMix:
    ids = core.top_k.ids if core.top_k else mixed.topk(min(CANDIDATES, mixed.shape[-1])).indices
    values, entries = core.values.gather(-1, ids), mixed.gather(-1, ids)
    error = core_weight * rounding(values)
    low = (entries - error).masked_fill(values <= core.lowest, -math.inf)
    others = _unsent(core.top_k, mixed, core_weight) if core.top_k else _less_likely(core, mixed, ids, core_weight)
    by_low = low.argsort(descending=True)
    largest = torch.maximum((entries + error).amax(-1, keepdim=True), others.largest).double()

    def weight(bound: Tensor, margin: float) -> Tensor:
        return (bound.double() - largest + margin).exp()

    return _BoundedMix(
        ids=ids.gather(-1, by_low),
        low=weight(low, -MARGIN).gather(-1, by_low),
        high=weight(entries + error, MARGIN).gather(-1, by_low),
        others=_Others(weight(others.largest, MARGIN), weight(others.low, -MARGIN), weight(others.high, MARGIN)),
    )


def _less_likely(core: CoreLogits, mixed: Tensor, ids: Tensor, core_weight: Weight) -> _Others:
    """Bound all entries but the candidates, where every entry was sent."""
    others, error = mixed.scatter(-1, ids, -math.inf), core_weight * rounding(core.values)
    upper, lower = others + error, (others - error).masked_fill(core.values <= core.lowest, -math.inf)
    return _Others(upper.amax(-1, keepdim=True), _logsumexp(lower), _logsumexp(upper))


def _unsent(sent: TopK, mixed: Tensor, core_weight: Weight) -> _Others:
    """Bound the entries that were not sent: each has a core logit of at most `bound`, all of them the tail.

    With a for the core's weight:

        LSE(a·core + own) <= a·bound + LSE(own)
        LSE(a·core + own) <= a·LSE(core) + b·LSE(own/b) for every b of at least 1 - a and above 0

    The second is Hölder's inequality with the exponents 1/a and 1/(1 - a); its right side grows with b.
    """
    own = mixed.scatter(-1, sent.ids, -math.inf).sub_(core_weight * sent.fill)
    bound, tail, largest = core_weight * sent.bound, core_weight * sent.tail, own.amax(-1, keepdim=True)
    b = torch.as_tensor(1 - core_weight, dtype=own.dtype, device=own.device).clamp(min=LEAST_OWN)
    by_tail = tail + b * _logsumexp(own / b)
    high = torch.minimum(by_tail, bound + _logsumexp(own))  # the last use of them, which they do not outlive
    return _Others(bound + largest, torch.full_like(tail, -math.inf), high)


def _logsumexp(entries: Tensor) -> Tensor:
    """LSE over the vocabulary, [..., 1], in the memory of the entries; too high by what is nothing beside the margins.

    exp takes a hundred times as long where its result is no normal float32.
    """
    largest = entries.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
    return largest + entries.sub_(largest).clamp_(min=NEGLIGIBLE).exp_().sum(-1, keepdim=True).log_()


def _has_one_mode(mix: _BoundedMix) -> Tensor:
    """True if one entry is the largest of every mix, [B, L]."""
    return mix.low[..., 0] > mix.largest_behind()[..., 0]


def _nucleus(mix: _BoundedMix, top_p: float) -> tuple[Tensor, Tensor]:
    """The candidates that are the nucleus of every mix.

    They are if each of them is above all entries behind them, if together they always reach `top_p`, and if
    without any one of them the others never do.

    Returns:
        Index of the last of them, int64, [B, L, 1]; and whether they are one, bool, [B, L].
    """
    low, high = mix.low.cumsum(-1), mix.high.cumsum(-1)
    rest_low, rest_high = (mix.others.low + low[..., -1:] - low, mix.others.high + high[..., -1:] - high)
    is_enough = low >= (top_p + MASS_MARGIN) * (low + rest_high)
    last = is_enough.int().argmax(-1, keepdim=True)  # the fewest that always have it
    is_apart = (mix.low > mix.largest_behind()).gather(-1, last)
    without_one = high.gather(-1, last) - mix.high
    all_mass = without_one + mix.low + rest_low.gather(-1, last)
    is_needed = without_one <= max(0.0, top_p - MASS_MARGIN) * all_mass
    is_outside = torch.arange(mix.ids.shape[-1], device=last.device) > last
    is_proven = is_enough.gather(-1, last) & is_apart & (is_needed | is_outside).all(-1, keepdim=True)
    return last, is_proven.squeeze(-1)


def _has_one_draw(mix: _BoundedMix, last: Tensor, uniform: Tensor) -> Tensor:
    """True if the draw from a nucleus falls on one entry in every mix, [B, L].

    It falls on the first, in the order of the vocabulary, with which the nucleus has a share of at least the
    uniform number.
    """
    is_outside = torch.arange(mix.ids.shape[-1], device=last.device) > last
    by_id = mix.ids.argsort(-1)
    low, high = (w.masked_fill(is_outside, 0).gather(-1, by_id) for w in (mix.low, mix.high))
    low_through, high_through = low.cumsum(-1), high.cumsum(-1)
    low_before, high_before = low_through - low, high_through - high
    low_all, high_all = low_through[..., -1:], high_through[..., -1:]
    u = uniform.double().unsqueeze(-1)
    is_behind = high_before < u * (high_before + (low_all - low_before))
    is_reached = u * (low_through + (high_all - high_through)) <= low_through  # 0 behind the last
    return (is_behind & is_reached & (low > 0)).any(-1)
