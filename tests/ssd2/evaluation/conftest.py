"""Tiny random models that read the demo's text, and pairs of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import demo_shaped_model

from ssd2.demo.paths import TOKENIZER
from ssd2.evaluation.pair import Pair
from ssd2.models.checkpoint import save_checkpoint
from ssd2.models.convert import export_opt
from ssd2.models.ssd2 import SSD2
from ssd2.models.tokenizer import Tokenizer

VOCAB = Tokenizer.from_file(TOKENIZER).vocab_size
L = 16


def town_model(seed: int) -> SSD2:
    """A random model of the demo pair's positions, with room for three blocks."""
    return demo_shaped_model(seed, vocab_size=VOCAB, stop=0.0, block_size=L, answer_position=112, max_positions=160)


@pytest.fixture(scope="session")
def town_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint folders of a random core and user model."""
    folder = tmp_path_factory.mktemp("town")
    for seed, name in enumerate(("core", "user")):
        save_checkpoint(folder / name, town_model(seed), TOKENIZER.read_text())
    return folder / "core", folder / "user"


@pytest.fixture(scope="session")
def causal_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint folders of a random core and user model that write token by token."""
    folder = tmp_path_factory.mktemp("causal")
    for seed, name in enumerate(("core", "user")):
        export_opt(town_model(seed), folder / name, TOKENIZER.read_text())
    return folder / "core", folder / "user"


@pytest.fixture(scope="session")
def pair(town_folders: tuple[Path, Path]) -> Pair:
    return Pair.load(*town_folders)


@pytest.fixture(scope="session")
def causal_pair(causal_folders: tuple[Path, Path]) -> Pair:
    return Pair.load(*causal_folders)
