"""What a published model's files say about the end of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from conftest import DEMO_TOKENIZER

from ssd2.errors import CheckpointInvalid
from ssd2.models.checkpoint import load_config_and_tokenizer

SHAPE = {"model_type": "llama", "vocab_size": 1782, "max_position_embeddings": 64, "num_hidden_layers": 1}


def folder_of(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    """Write a model's folder without weights."""
    (folder / "config.json").write_text(json.dumps({**SHAPE, **config}))
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    copyfile(DEMO_TOKENIZER, folder / "tokenizer.json")
    return folder


def stop_ids(folder: Path) -> tuple[int, ...]:
    return load_config_and_tokenizer(folder)[0].stop_ids


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({"eos_token_id": 7}, {}, (7,)),
        ({"eos_token_id": [8, 7]}, {}, (8, 7)),  # as Llama 3 has it
        ({"eos_token_id": 7}, {"generation_config": {"eos_token_id": [8, 7]}}, (7, 8)),  # Qwen3
        ({"eos_token_id": None}, {"generation_config": {"eos_token_id": 9}}, (9,)),
        ({"eos_token_id": 7}, {"tokenizer_config": {"eos_token": "<eos>"}}, (7, 2)),
        ({"eos_token_id": 7}, {"tokenizer_config": {"eos_token": {"content": "<eos>"}}}, (7, 2)),
        ({"eos_token_id": 7}, {"tokenizer_config": {"eos_token": "<no token of it>"}}, (7,)),
    ],
)
def test_every_file_that_names_a_stop_id_is_read(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert stop_ids(folder_of(tmp_path, config, **files)) == expected


def test_a_model_that_names_no_stop_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="name no eos_token_id"):
        stop_ids(folder_of(tmp_path, {"eos_token_id": None}))


@pytest.mark.parametrize("value", ["x", [True], [5, "x"], 1782])
def test_a_stop_id_that_is_none_of_the_vocabulary_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointInvalid, match=r"eos_token_id is|outside the vocabulary"):
        stop_ids(folder_of(tmp_path, {"eos_token_id": 7}, generation_config={"eos_token_id": value}))


def test_a_damaged_generation_config_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"eos_token_id": 7})
    for content in ("{", "[]"):
        (folder / "generation_config.json").write_text(content)
        with pytest.raises(CheckpointInvalid, match=r"generation_config\.json is not"):
            stop_ids(folder)
