"""Memory that the weights of checkpoint folders take, read off the files' headers before anything is loaded.

Only what is converted counts: weights that are stored in the precision they are served in stay mapped from their file,
and the system takes their memory back when it needs it. In float32, networks of transformers are packed, which copies
all of them.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd2.errors import TooLittleMemory
from ssd2.models.pairs import free_memory, in_bytes

PROCESS_BYTES = 250 * 10**6
"""Least memory of a process beside the weights, for its libraries; keys and values come on top."""

MAX_HEADER_BYTES = 100 * 10**6
"""Largest header that the safetensors specification allows."""

_INDEX = "model.safetensors.index.json"
_LENGTH = struct.Struct("<Q")
_STORED_AS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "BF16"}
"""Stored type that lets weights of a precision stay mapped; int8 is made from bfloat16."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_NOT_LOADED = ("vision", "visual", "audio", "multi_modal")
"""Parts of weights' names of a model that sees or hears too; only its part that writes is loaded."""


@dataclass(frozen=True)
class Weights:
    """Weights of one folder.

    Attributes:
        counts: how many there are, by the name of their type in safetensors; empty where there is no such file.
        is_packed: the network is transformers', whose float32 matrices are laid out anew.
    """

    counts: Mapping[str, int]
    is_packed: bool = False

    @classmethod
    def of(cls, folder: Path) -> Weights:
        """Read the headers; a file that is damaged counts nothing, as loading it says what is wrong."""
        counts: Counter[str] = Counter()
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            is_tied = bool({**config, **config.get("text_config", {})}.get("tie_word_embeddings"))
            for file in _files(folder):
                for name, entry in _header(file).items():
                    is_copy = is_tied and name.endswith("lm_head.weight")
                    if name != "__metadata__" and not is_copy and not any(part in name for part in _NOT_LOADED):
                        counts[str(entry["dtype"])] += math.prod(entry["shape"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            return cls({})
        return cls(counts, "architectures" in config)

    def converted_bytes(self, precision: str) -> int:
        """Return the memory of all weights that do not stay mapped."""
        mapped = "" if self.is_packed and precision == "float32" else _STORED_AS[precision]
        size = _BYTES[precision]
        if precision == "int8":  # all of them change, those of another type by way of bfloat16
            return sum(count * (size if kind == mapped else 2) for kind, count in self.counts.items())
        return sum(count * size for kind, count in self.counts.items() if kind != mapped)


def check_memory_for(folders: Mapping[str, Path], precision: str, parameter: str, copies: int = 1) -> None:
    """Refuse to load models whose weights this machine has no memory for.

    Args:
        folders: of the models, by their names.
        precision: that they are held in.
        parameter: that a reader can change.
        copies: how often each is loaded.

    Raises:
        TooLittleMemory: if they take more than there is.
    """
    weights = copies * sum(Weights.of(folder).converted_bytes(precision) for folder in folders.values())
    needed, free = weights + copies * PROCESS_BYTES, free_memory()
    if weights and free is not None and needed > free:
        what = f"{len(folders)} models" if len(folders) > 1 else f"the model {next(iter(folders))}"
        raise TooLittleMemory(
            f"loading {what} in {precision} takes about {in_bytes(needed)} of memory, and {in_bytes(free)} are free on "
            "this machine; close other programs, or choose a smaller model",
            parameter=parameter,
        )


def _files(folder: Path) -> list[Path]:
    """Return the files that are loaded; some folders hold the same weights in another layout as well."""
    if (folder / _INDEX).is_file():
        shards = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(shards))]
    return sorted(folder.glob("model*.safetensors"))


def _header(file: Path) -> dict[str, dict[str, Any]]:
    with file.open("rb") as opened:
        (length,) = _LENGTH.unpack(opened.read(_LENGTH.size))
        if length > MAX_HEADER_BYTES:
            raise ValueError("no header of a safetensors file")
        header: dict[str, dict[str, Any]] = json.loads(opened.read(length))
        return header
