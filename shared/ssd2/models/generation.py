"""What the files of a published causal model say about writing with it: the ids that end an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssd2.errors import CheckpointInvalid
from ssd2.models.tokenizer import TOKENIZER, Tokenizer

GENERATION_CONFIG, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
"""Files of a checkpoint folder; either may be missing."""


def read_stop_ids(folder: Path, config: Any) -> tuple[int, ...]:
    """Read the ids that end an answer: of config.json, of generation_config.json, and the tokenizer's EOS.

    Published chat models end a turn with another token than a document, and name it in some of these places only.

    Args:
        folder: of the model.
        config: transformers' own, of this folder.

    Returns:
        Each once, that of config.json first; none if no file names one.

    Raises:
        CheckpointInvalid: if a file is damaged, or an id is no whole number.
    """
    configs = (config, config.get_text_config(decoder=True))
    named = [getattr(part, "eos_token_id", None) for part in configs]
    named += [read_values(folder / GENERATION_CONFIG).get("eos_token_id"), _tokenizer_eos(folder)]
    return tuple(dict.fromkeys(token_id for value in named for token_id in _ids(value)))


def read_values(file: Path) -> dict[str, Any]:
    """Read a JSON file's object; empty if there is no file.

    Raises:
        CheckpointInvalid: if it is no object.
    """
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{file} is not JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise CheckpointInvalid(f"{file} is not a JSON object; download it again")
    return values


def _ids(value: Any) -> Iterator[int]:
    """Give the ids of a field that has one id, a list of them, or nothing."""
    for token_id in value if isinstance(value, list | tuple) else [value]:
        if token_id is None or token_id == -1:  # which some published ones have for none
            continue
        if type(token_id) is not int:
            raise CheckpointInvalid(f"eos_token_id is {repr(value)[:80]}; it must be token ids; download it again")
        yield token_id


def _tokenizer_eos(folder: Path) -> int | None:
    """Look up the EOS that the tokenizer's configuration names."""
    name = read_values(folder / TOKENIZER_CONFIG).get("eos_token")
    name = name.get("content") if isinstance(name, dict) else name
    if not isinstance(name, str) or not (folder / TOKENIZER).is_file():
        return None
    return Tokenizer.from_file(folder / TOKENIZER).special_id(name)
