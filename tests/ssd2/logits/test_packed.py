"""Logits as bytes: what is laid out where, what is lost, and what no honest core can have sent."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd2.algorithm.collaboration import Mixer, UserLogits
from ssd2.algorithm.params import CollaborationParams
from ssd2.errors import ProtocolViolation
from ssd2.logits.format import FLOAT16, UINT8, LogitsFormat
from ssd2.logits.packed import CoreLogits, as_received, pack, rounding, unpack

V = 48
FORMATS = [FLOAT16, UINT8, *(LogitsFormat("top-k", k) for k in (1, 4, V - 1, V, 64))]
TOP_4 = LogitsFormat("top-k", 4)


def random_logits(scale: float = 4.0, *shape: int, seed: int = 0) -> Tensor:
    return scale * torch.randn(*(shape or (3, 5, V)), generator=torch.Generator().manual_seed(seed))


def bounds(core: CoreLogits) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of every entry, as the proof takes them."""
    values = core.values.float()
    lower = (values - rounding(core.values)).masked_fill(core.values <= core.lowest, -math.inf)
    upper = values + rounding(core.values)
    if core.top_k is None:
        return lower, upper
    is_sent = torch.zeros_like(values, dtype=torch.bool).scatter(-1, core.top_k.ids, value=True)
    return lower.where(is_sent, -math.inf), upper.where(is_sent, core.top_k.bound)


@pytest.mark.parametrize("how", FORMATS, ids=str)
def test_a_position_takes_as_many_bytes_as_its_format_says(how: LogitsFormat) -> None:
    data = pack(random_logits(), how)
    assert (data.dtype, data.shape) == (torch.uint8, (3, 5, how.bytes_per_position(V)))


@pytest.mark.parametrize("how", FORMATS, ids=str)
@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 8.0, 400.0])
@pytest.mark.parametrize("offset", [0.0, -3000.0, 1e4])
def test_every_logit_lies_within_the_bounds_that_arrive(how: LogitsFormat, scale: float, offset: float) -> None:
    logits = random_logits(scale) + offset
    lower, upper = bounds(as_received(logits, how))
    exact = logits - logits.amax(-1, keepdim=True)
    assert bool((lower <= exact).all())
    assert bool((exact <= upper).all())


@pytest.mark.parametrize("how", FORMATS, ids=str)
def test_a_row_travels_as_it_does_alone(how: LogitsFormat) -> None:
    logits = random_logits()
    assert torch.equal(pack(logits, how)[1, 2], pack(logits[1, 2], how))


@pytest.mark.parametrize("how", FORMATS, ids=str)
def test_what_has_travelled_once_is_not_changed_by_travelling_again(how: LogitsFormat) -> None:
    once = as_received(random_logits(), how).values
    if how.kind == "top-k":
        return  # what is filled in may be as large as the least one sent
    assert torch.equal(as_received(once, how).values, once)


def test_uint8_is_laid_out_as_the_contract_says() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.5, -12.9, -13.0, -900.0, -math.inf]])
    assert pack(logits, UINT8).tolist() == [[32, 0, 8, 254, 255, 255, 255]]
    assert as_received(logits, UINT8).values.tolist() == [[-2.0, 0.0, -0.5, -15.875, -15.9375, -15.9375, -15.9375]]


def test_top_k_is_laid_out_as_the_contract_says() -> None:
    logits = torch.tensor([[1.0, 7.0, 6.0, -1.0, 7.0 - math.log(2), 0.0]])
    data = bytes(pack(logits, LogitsFormat("top-k", 3))[0].tolist())
    tail, *rest = struct.unpack("<f3H3B", data)
    assert rest == [1, 2, 4, 0, 16, 11]
    assert tail == pytest.approx(math.log(math.exp(-6) + math.exp(-8) + math.exp(-7)))


def test_a_large_vocabulary_has_ids_of_four_bytes() -> None:
    logits = torch.zeros(1, 65_537)
    logits[0, 65_536] = 5.0
    data = bytes(pack(logits, LogitsFormat("top-k", 2))[0].tolist())
    assert struct.unpack("<f2I2B", data)[1:] == (0, 65_536, 80, 0)
    assert as_received(logits, LogitsFormat("top-k", 2)).top_k.ids.tolist() == [[0, 65_536]]


def test_of_equal_logits_the_lowest_ids_are_sent() -> None:
    """Else devices would differ, and a replay would not repeat an answer."""
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0]])
    assert as_received(logits, TOP_4).top_k.ids.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("k", [1, 4, V - 1])
@pytest.mark.parametrize("scale", [0.0, 0.03, 1.0, 8.0, 60.0])
def test_a_token_that_was_not_sent_is_never_above_the_least_one_sent(k: int, scale: float) -> None:
    logits = random_logits(scale)
    core = as_received(logits, LogitsFormat("top-k", k))
    least = core.values.gather(-1, core.top_k.ids).amin(-1, keepdim=True)
    assert bool((core.values <= least).where(core.values == core.top_k.fill, True).all())
    unsent = core.values.scatter(-1, core.top_k.ids, -math.inf)
    assert bool((unsent.amax(-1, keepdim=True) <= least).all())


def test_what_was_not_sent_keeps_its_mass_together() -> None:
    logits = random_logits(3.0)
    core = as_received(logits, TOP_4)
    exact = logits - logits.amax(-1, keepdim=True)
    tail = exact.scatter(-1, core.top_k.ids, -math.inf).logsumexp(-1)
    filled = core.values.scatter(-1, core.top_k.ids, -math.inf).logsumexp(-1)
    torch.testing.assert_close(filled, tail, atol=1e-4, rtol=0)


def test_to_take_what_was_not_sent_for_0_would_change_answers() -> None:
    """0 is the largest logit's own value: tokens that the core thinks next to impossible would win."""
    logits, user = random_logits(4.0), random_logits(1.0, seed=1)
    logits[..., 7] += 20
    core, collaboration = as_received(logits, TOP_4), CollaborationParams(0.3, 0.0)
    as_zero = torch.zeros_like(core.values).scatter(-1, core.top_k.ids, core.values.gather(-1, core.top_k.ids))
    full, filled, zeros = (
        Mixer(collaboration).mix(values, UserLogits(user), 0).logits.argmax(-1)
        for values in (logits, core.values, as_zero)
    )
    assert torch.equal(filled, full)
    assert not torch.equal(zeros, full)


def test_what_travels_is_where_the_logits_are() -> None:
    assert pack(torch.empty(2, V, device="meta"), UINT8).device.type == "meta"


def frame(tail: float, ids: list[int], distances: list[int]) -> Tensor:
    return torch.tensor([list(struct.pack("<f4H4B", tail, *ids, *distances))], dtype=torch.uint8)


HIGHEST_TAIL = -3.0 + math.log(V - 4)


@pytest.mark.parametrize("tail", [HIGHEST_TAIL, HIGHEST_TAIL + 0.03, -9.0, -1000.0])
def test_a_frame_that_a_core_can_have_sent_is_taken(tail: float) -> None:
    core = unpack(frame(tail, [0, 5, 6, V - 1], [48, 0, 3, 0]), TOP_4, V)
    assert core.values[0, [0, 5, 6, V - 1]].tolist() == [-3.0, 0.0, -0.1875, 0.0]


@pytest.mark.parametrize(
    ("tail", "ids", "distances", "says"),
    [
        (-9.0, [0, 5, 6, V], [0, 1, 2, 3], "ids"),
        (-9.0, [0, 5, 6, 65_535], [0, 1, 2, 3], "ids"),
        (-9.0, [0, 5, 5, 7], [0, 1, 2, 3], "ids"),
        (-9.0, [0, 6, 5, 7], [0, 1, 2, 3], "ids"),
        (-9.0, [0, 5, 6, 7], [1, 1, 2, 3], "largest"),
        (-9.0, [0, 5, 6, 7], [255, 255, 255, 255], "largest"),
        (math.nan, [0, 5, 6, 7], [0, 1, 2, 3], "tail"),
        (math.inf, [0, 5, 6, 7], [0, 1, 2, 3], "tail"),
        (-math.inf, [0, 5, 6, 7], [0, 1, 2, 3], "tail"),
        (-1001.0, [0, 5, 6, 7], [0, 1, 2, 3], "tail"),
        (0.0, [0, 5, 6, 7], [0, 1, 2, 255], "tail"),
        (HIGHEST_TAIL + 0.1, [0, 5, 6, 7], [0, 1, 2, 48], "tail"),
    ],
)
def test_a_frame_that_no_core_can_have_sent_is_refused(
    tail: float, ids: list[int], distances: list[int], says: str
) -> None:
    with pytest.raises(ProtocolViolation, match=says):
        unpack(frame(tail, ids, distances), TOP_4, V)


@pytest.mark.parametrize("how", [FLOAT16, UINT8], ids=str)
def test_a_position_without_its_largest_logit_is_refused(how: LogitsFormat) -> None:
    data = pack(random_logits(4.0, 5, V), how)
    data[3] = pack(torch.tensor([0.0, *[-2.0] * V]), how)[data.shape[-1] // V :]
    with pytest.raises(ProtocolViolation, match="largest"):
        unpack(data, how, V)


@pytest.mark.parametrize("how", FORMATS, ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_model_is_noticed_in_every_format(how: LogitsFormat, value: float) -> None:
    logits = random_logits()
    logits[1, 2, 3] = value
    with pytest.raises(ProtocolViolation):
        as_received(logits, how)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.binary(min_size=400, max_size=400))
def test_whatever_arrives_is_logits_below_their_maximum_or_a_violation(how: LogitsFormat, data: bytes) -> None:
    width = how.bytes_per_position(V)
    try:
        core = unpack(torch.tensor([list(data[:width])], dtype=torch.uint8), how, V)
    except ProtocolViolation:
        return
    assert core.values.shape == (1, V)
    assert bool(torch.isfinite(core.values).all())
    assert core.values.amax(-1).tolist() == [0.0]
