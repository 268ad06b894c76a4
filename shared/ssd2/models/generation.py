"""What the files of a published causal model say about writing with it: where a text begins, and where it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.chat import ChatTemplate, Message
from ssd2.models.tokenizer import ANSWER, NOTE, QUESTION, TOKENIZER

GENERATION_CONFIG, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
"""Files of a checkpoint folder; either may be missing."""


@dataclass(frozen=True)
class Generation:
    """Tokens that begin and end a model's text, and its makers' sampling settings.

    Attributes:
        bos_token_id: begins a text; None if the tokenizer begins it with the text itself.
        stop_ids: end an answer, that of config.json first; none if no file names one.
        temperature: that the model's makers sample with; None if they do not say.
        top_p: their nucleus; None if they do not say.
    """

    bos_token_id: int | None
    stop_ids: tuple[int, ...]
    temperature: float | None
    top_p: float | None


def read_generation(folder: Path, config: Any) -> Generation:
    """Read how a model writes; published models say it in several files, none of which all of them have.

    Args:
        folder: of the model.
        config: transformers' own, of this folder.

    Raises:
        CheckpointInvalid: if a file is damaged, or a value is not what it has to be.
    """
    generation, tokenizer = read_values(folder / GENERATION_CONFIG), _Tokenizer.read(folder)
    configs = (config, config.get_text_config(decoder=True))
    named = [*(getattr(part, "eos_token_id", None) for part in configs), generation.get("eos_token_id")]
    named += [tokenizer.eos_token_id, tokenizer.turn_end(folder)]
    stop_ids = [token_id for value in named for token_id in _ids(value)]
    bos = next((token_id for part in configs for token_id in _ids(getattr(part, "bos_token_id", None))), None)
    return Generation(
        bos_token_id=tokenizer.first_id(bos),
        stop_ids=tuple(dict.fromkeys(stop_ids)),
        temperature=_number(generation, "temperature", 100),
        top_p=_number(generation, "top_p", 1),
    )


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


@dataclass(frozen=True)
class _Tokenizer:
    """The special tokens of a tokenizer, read without making it."""

    config: Mapping[str, Any]
    ids: Mapping[str, int]  # of the added tokens
    first: str | None  # what it puts before a text

    @classmethod
    def read(cls, folder: Path) -> _Tokenizer:
        content = read_values(folder / TOKENIZER)
        try:
            ids = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
            first = _first_of(content.get("post_processor") or {})
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise CheckpointInvalid(f"{folder / TOKENIZER} is damaged ({error!r}); download it again") from error
        return cls(read_values(folder / TOKENIZER_CONFIG), ids, first)

    @property
    def eos_token_id(self) -> int | None:
        return self.ids.get(self._name("eos_token") or "")

    def first_id(self, of_the_model: int | None) -> int | None:
        """Return what begins a text: as the tokenizer says, which many a config.json contradicts.

        Our own layout always begins with the model's BOS; without a tokenizer.json nothing else is known.
        """
        if not self.ids or self.ids.keys() >= {NOTE, QUESTION, ANSWER}:
            return of_the_model
        says = self.config.get("add_bos_token")
        if says is False or (says is None and self.first is None):
            return None
        return self.ids.get(self._name("bos_token") or self.first or "", of_the_model)

    def turn_end(self, folder: Path) -> int | None:
        """Find the token that the chat template puts behind an answer, as some models' files name another as EOS."""
        said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
        try:
            template = ChatTemplate.of_folder(folder)
            pieces = template.pieces(said) if template else []
        except (CheckpointInvalid, InvalidParameter):  # said where a prompt is made
            return None
        behind = next((after.text for piece, after in pairwise(pieces) if piece == ("b", False)), "")
        found = [token for token in self.ids if behind.lstrip().startswith(token)]
        return self.ids[max(found, key=len)] if found else None

    def _name(self, key: str) -> str | None:
        """Return a special token's text; older files hold it with its properties."""
        value = self.config.get(key)
        name = value.get("content") if isinstance(value, dict) else value
        return name if isinstance(name, str) else None


def _first_of(processor: Mapping[str, Any]) -> str | None:
    """Return the special token that a tokenizer's post-processor puts before a text, if it does."""
    if processor.get("type") == "Sequence":
        return next(filter(None, map(_first_of, processor["processors"])), None)
    if "cls" in processor:  # of RoBERTa's and BERT's kind
        return str(processor["cls"][0])
    single = processor.get("single") or [{}]
    return str(single[0]["SpecialToken"]["id"]) if "SpecialToken" in single[0] else None


def _ids(value: Any) -> Iterator[int]:
    """Give the ids of a field that has one id, a list of them, or nothing."""
    for token_id in value if isinstance(value, list | tuple) else [value]:
        if token_id is None or token_id == -1:  # which some published ones have for none
            continue
        if type(token_id) is not int:
            raise CheckpointInvalid(
                f"a token id of the model is {repr(value)[:80]}; it must be a whole number; download the model again"
            )
        yield token_id


def _number(values: Mapping[str, Any], name: str, highest: float) -> float | None:
    """Return a sampling setting; None if it is not given, or the makers decode greedily."""
    value = values.get(name)
    if value is None or values.get("do_sample") is False:
        return None
    if type(value) not in (int, float) or not 0 < value <= highest:
        raise CheckpointInvalid(
            f"{name} in {GENERATION_CONFIG} is {repr(value)[:40]}; it must be above 0 and at most {highest:g}; "
            "correct it, or download it again"
        )
    return float(value)
