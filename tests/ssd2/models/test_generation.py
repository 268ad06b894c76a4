"""What a published model's files say about the beginning and the end of a text, and how it is sampled."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from conftest import DEMO_TOKENIZER

from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CheckpointInvalid
from ssd2.models.checkpoint import load_config_and_tokenizer
from ssd2.models.generation import read_generation
from ssd2.models.pretrained import transformers

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
    with pytest.raises(CheckpointInvalid, match=r"a token id of the model is|outside the vocabulary"):
        stop_ids(folder_of(tmp_path, {"eos_token_id": 7}, generation_config={"eos_token_id": value}))


@pytest.mark.parametrize("name", ["<note>", "<|im_end|>"])
def test_the_end_of_a_turn_in_the_chat_template_ends_an_answer(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path, {"eos_token_id": 7})
    behind = "{{ '<question>' if m.role == 'user' else '<answer>' }}{{ m.content }}" + name
    (folder / "chat_template.jinja").write_text("{% for m in messages %}" + behind + "{% endfor %}<answer>")
    assert stop_ids(folder) == ((7, 3) if name == "<note>" else (7,))  # the other is no token of the tokenizer


def test_a_template_that_fails_is_no_reason_to_refuse_a_models_shape(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"eos_token_id": 7})
    (folder / "chat_template.jinja").write_text("{% for m in messages %}")
    assert stop_ids(folder) == (7,)


def added(content: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json of a model that has another layout than ours, with one token that begins texts."""
    tokens = [{"id": 7, "content": "<|begin|>"}, {"id": 8, "content": "<|end|>"}]
    return {**json.loads(DEMO_TOKENIZER.read_text()), "added_tokens": tokens, **content}


BEGINS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {}}],
}


@pytest.mark.parametrize(
    ("processor", "tokenizer_config", "expected"),
    [
        (BEGINS, {}, 7),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, BEGINS]}, {"bos_token": "<|begin|>"}, 7),  # Llama 3
        ({"type": "RobertaProcessing", "cls": ["<|begin|>", 7], "sep": ["<|end|>", 8]}, {}, 7),
        ({"type": "ByteLevel"}, {"add_bos_token": True, "bos_token": "<|begin|>"}, 7),
        ({"type": "ByteLevel"}, {"add_bos_token": False, "bos_token": None}, None),  # Qwen
        ({"type": "ByteLevel"}, {"bos_token": "<|begin|>"}, None),  # SmolLM2
        (None, {}, None),
        (BEGINS, {"add_bos_token": False}, None),
    ],
)
def test_a_prompt_begins_as_the_tokenizer_says(
    tmp_path: Path, processor: dict[str, Any] | None, tokenizer_config: dict[str, Any], expected: int | None
) -> None:
    folder = folder_of(tmp_path, {"eos_token_id": 8, "bos_token_id": 5}, tokenizer_config=tokenizer_config)
    (folder / "tokenizer.json").write_text(json.dumps(added({"post_processor": processor})))
    config = transformers().AutoConfig.from_pretrained(folder)
    assert read_generation(folder, config).bos_token_id == expected


def test_our_own_layout_begins_with_the_models_bos(tmp_path: Path) -> None:
    config, tokenizer = load_config_and_tokenizer(folder_of(tmp_path, {"eos_token_id": 8, "bos_token_id": 5}))
    assert tokenizer.encode_prompt("Where?", bos_token_id=config.bos_token_id)[0] == 5


@pytest.mark.parametrize(
    ("says", "temperature", "top_p"),
    [
        ({"temperature": 0.7, "top_p": 0.8, "top_k": 20}, 0.7, 0.8),
        ({"temperature": 0.6}, 0.6, 0.2),
        ({"do_sample": False, "temperature": 0.6}, 1.0, 0.2),
        ({}, 1.0, 0.2),
    ],
)
def test_a_decode_samples_as_the_models_makers_say(
    tmp_path: Path, says: dict[str, Any], temperature: float, top_p: float
) -> None:
    config, _ = load_config_and_tokenizer(folder_of(tmp_path, {"eos_token_id": 8}, generation_config=says))
    params = DecodingParams.for_model(config)
    assert (params.temperature, params.top_p) == (temperature, top_p)
    assert DecodingParams.for_model(config, top_p=0.5).top_p == 0.5


@pytest.mark.parametrize("says", [{"temperature": 0}, {"top_p": 1.5}, {"top_p": "x"}, {"temperature": True}])
def test_sampling_that_cannot_be_is_refused(tmp_path: Path, says: dict[str, Any]) -> None:
    with pytest.raises(CheckpointInvalid, match=r"generation_config\.json is .+; it must be above 0"):
        load_config_and_tokenizer(folder_of(tmp_path, {"eos_token_id": 8}, generation_config=says))


def test_a_damaged_generation_config_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"eos_token_id": 7})
    for content in ("{", "[]"):
        (folder / "generation_config.json").write_text(content)
        with pytest.raises(CheckpointInvalid, match=r"generation_config\.json is not"):
            stop_ids(folder)
