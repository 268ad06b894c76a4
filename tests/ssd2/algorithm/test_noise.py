"""Counter-based noise: the published bits, the right distribution, and a function of its place alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.noise import gaussian_noise, philox_4x32, uniform_noise

# Random123's kat_vectors, lines "philox4x32 10": counter, key, expected words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def as_int64(value: int) -> Tensor:
    return torch.tensor(value - 2**64 if value >= 2**63 else value, dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_known_answers(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3 = (as_int64(word) for word in words(counter))
    low, high = words(key)
    result = philox_4x32((c0, c1, c2, c3), as_int64(low | high << 32))
    assert [int(word) for word in result] == words(expected)


def philox_in_python(counter: list[int], key: list[int]) -> list[int]:
    """The definition of Salmon et al., §3.3, on whole numbers of any size."""
    for _ in range(10):
        product_0, product_1 = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (product_1 >> 32) ^ counter[1] ^ key[0],
            product_1 % 2**32,
            (product_0 >> 32) ^ counter[3] ^ key[1],
            product_0 % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


def test_uniform_noise_is_the_first_word_at_counter_block_timestep_position() -> None:
    seed = 0x1234_5678_9ABC_DEF0 >> 1
    found = uniform_noise([seed], block=3, timestep=812, length=4)[0].tolist()
    key = [seed % 2**32, seed >> 32]
    expected = [((philox_in_python([3, 812, position, 0], key)[0] >> 8) + 1) / 2**24 for position in range(4)]
    assert found == expected


def test_gaussian_noise_is_box_muller_of_those_words() -> None:
    noise = gaussian_noise([99], block=1, timestep=640, length=2, vocab_size=8)[0]
    for position in range(2):
        for index in range(2):
            u = torch.tensor([((w >> 8) + 1) / 2**24 for w in philox_in_python([1, 640, position, index], [99, 0])])
            u = u.double()
            radius, angle = (-2 * u[::2].log()).sqrt(), 2 * torch.pi * u[1::2]
            expected = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten()
            torch.testing.assert_close(
                noise[position, 4 * index : 4 * index + 4].double(), expected, atol=2e-6, rtol=1e-5
            )


def test_gaussian_noise_is_standard_normal() -> None:
    noise = gaussian_noise([7, 8], block=0, timestep=1000, length=25, vocab_size=20_000).double().flatten()
    samples = len(noise)
    assert abs(noise.mean()) < 5 / samples**0.5
    assert abs(noise.var() - 1) < 5 * (2 / samples) ** 0.5
    assert abs((noise**3).mean()) < 5 * (15 / samples) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / samples) ** 0.5
    within = [(noise.abs() < bound).double().mean().item() for bound in (1, 2, 3)]
    assert within == pytest.approx([0.682689, 0.954500, 0.997300], abs=2.5e-3)


def test_neighbouring_entries_are_uncorrelated() -> None:
    noise = gaussian_noise([3], block=0, timestep=500, length=200, vocab_size=1000)[0].double()
    pairs = (noise[:, 1:] * noise[:, :-1], noise[1:] * noise[:-1], noise[:, 2:] * noise[:, :-2])
    for product in pairs:
        assert abs(product.mean()) < 5 / product.numel() ** 0.5


def test_a_row_depends_on_its_seed_alone_not_on_the_batch() -> None:
    place: dict[str, Any] = {"block": 2, "timestep": 700, "length": 5}
    together = gaussian_noise([11, 12, 13], vocab_size=33, **place)
    for row, seed in enumerate((11, 12, 13)):
        assert torch.equal(together[row], gaussian_noise([seed], vocab_size=33, **place)[0])
    drawn = uniform_noise([11, 12, 13], **place)
    assert torch.equal(drawn[1], uniform_noise([12], **place)[0])


def test_an_entry_does_not_depend_on_the_size_of_block_and_vocabulary() -> None:
    large = gaussian_noise([5], block=0, timestep=900, length=9, vocab_size=101)
    for length, vocab_size in ((1, 1), (3, 7), (9, 100), (8, 101)):
        small = gaussian_noise([5], block=0, timestep=900, length=length, vocab_size=vocab_size)
        assert small.shape == (1, length, vocab_size)
        assert torch.equal(small, large[:, :length, :vocab_size])
    drawn = uniform_noise([5], block=0, timestep=900, length=9)
    assert torch.equal(uniform_noise([5], block=0, timestep=900, length=4), drawn[:, :4])


def test_other_blocks_timesteps_positions_and_seeds_have_other_noise() -> None:
    seeds = [1, 2, 1 + 2**32, 2**63 - 1]
    drawn = torch.cat(
        [
            uniform_noise(seeds, block=block, timestep=timestep, length=6).flatten()
            for block in (0, 1, 2)
            for timestep in (0, 1, 1000)
        ]
    )
    assert len(set(drawn.tolist())) == len(drawn)


def test_uniform_noise_is_above_0_up_to_1_and_even() -> None:
    drawn = uniform_noise(range(400), block=0, timestep=1000, length=100).flatten()
    assert 0 < drawn.min() <= drawn.max() <= 1
    counts = torch.histc(drawn, bins=20, min=0, max=1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_draws_the_same_noise_as_the_cpu() -> None:
    place: dict[str, Any] = {"block": 1, "timestep": 616, "length": 25}
    cpu = gaussian_noise([4, 2**62], vocab_size=5000, **place)
    gpu = gaussian_noise([4, 2**62], vocab_size=5000, device="cuda", **place).cpu()
    torch.testing.assert_close(gpu, cpu, atol=1e-5, rtol=1e-5)
    assert torch.equal(uniform_noise([4], **place), uniform_noise([4], device="cuda", **place).cpu())
