"""A tiny random model of each family, in one place: what tests go through that hold for all of them.

A new family gets its line here, and `test_guesses.py` fails until it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssd2.checkpoint import save_checkpoint
from ssd2.convert import export_opt
from tests.conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, save_ssd_lm


def _save_ssd2(folder: Path, seed: int) -> None:
    save_checkpoint(folder, demo_shaped_model(seed), DEMO_TOKENIZER.read_text())


def _save_experts(folder: Path, seed: int) -> None:
    experts = experts_of(*(demo_shaped_model(seed + number) for number in range(3)))
    save_checkpoint(folder, experts, DEMO_TOKENIZER.read_text())


def _save_autoregressive(folder: Path, seed: int) -> None:
    export_opt(demo_shaped_model(seed), folder, DEMO_TOKENIZER.read_text())


SAVE: dict[str, Callable[[Path, int], None]] = {
    "ssd-2": _save_ssd2,
    "experts": _save_experts,
    "ssd-lm": save_ssd_lm,
    "autoregressive": _save_autoregressive,
}
"""Write a checkpoint folder with a model of the seed's weights; all read the demo tokenizer's ids."""
