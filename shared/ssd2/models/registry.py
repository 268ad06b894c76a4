"""The families of models, in one place. To add one, write its file and add its line here.

A family's file defines `FAMILY`. It is imported when the first model is looked for: to read this file takes no torch.
See docs/adding-a-family.md and docs/decisions/030-families.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ssd2.algorithm.collaboration import Predictor
    from ssd2.algorithm.sampler import SamplerKind
    from ssd2.models.configs import ModelConfig
    from ssd2.models.lane import MakeLane
    from ssd2.models.model import Model
    from ssd2.models.prompt_cache import PromptCache
    from ssd2.models.shard import Shard
    from ssd2.models.tokenizer import Tokenizer

MODULES = [
    "ssd2.models.ssd2_family",
    "ssd2.models.ssd_lm",
    "ssd2.models.autoregressive",  # reads what no other family claims
]
"""Of the families; a checkpoint is of the first that claims it."""


@dataclass(frozen=True)
class Footprint:
    """Count of the numbers that a model holds in memory, known before its weights are read.

    Attributes:
        parameters: of its weights.
        slot: keys and values of an answer that takes all of its positions; 0 if they are not reserved.
        int8_weights: those of the parameters that int8 holds in a byte each.
        int8_rows: of their matrices; each has a scale.
    """

    parameters: int
    slot: int
    int8_weights: int = 0
    int8_rows: int = 0


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: as in configs, model cards and Open.
        claims: True if a checkpoint folder with this config.json is of the family.
        read_config: the shape of such a folder's model.
        read_tokenizer: its tokenizer, given V.
        load: the model with its weights on the CPU, read in the dtype, or as stored where reading makes no copy.
        sampler: decodes it, and guesses ahead for a core.
        begin: takes up a decode: model, prompts of any lengths, self-conditioning.
        lane: makes the lane of a model whose rows can be one batch; without one, one answer at a time is computed.
        check_files: looks at a folder's files before the first weight is read.
        write_config: the content of config.json for a shape, where checkpoints are also written; else None.
        shard: turns a model into one rank's share of it, in place; None if it cannot be cut.
        int8_layers: those whose matrices can be held in int8; None if none can.
        footprint: how many numbers the model of a folder has to hold, without reading weights; None: memory is not
            checked before they are read.
        pack: lays a model's matrices out for the CPU's kernels, in place; None where they stay as they are.
        prompt_cache: keeps keys and values between a model's decodes, within so many bytes; None where nothing is kept.
    """

    name: str
    claims: Callable[[Path, Mapping[str, Any]], bool]
    read_config: Callable[[Path, Mapping[str, Any]], ModelConfig]
    read_tokenizer: Callable[[Path, int], Tokenizer]
    load: Callable[[Path, Any, torch.dtype], Model]
    sampler: SamplerKind
    begin: Callable[[Any, Sequence[Sequence[int]], str], Predictor]
    lane: MakeLane | None = None
    check_files: Callable[[Path, Any], None] = lambda _folder, _config: None
    write_config: Callable[[Any], dict[str, Any]] | None = None
    shard: Callable[[Any, Shard], None] | None = None
    int8_layers: Callable[[Any], Sequence[nn.Module]] | None = None
    footprint: Callable[[Path, Any], Footprint] | None = None
    pack: Callable[[Any], None] | None = None
    prompt_cache: Callable[[Any, int], PromptCache] | None = None


def families() -> list[Family]:
    """Return the records of all families."""
    return [import_module(name).FAMILY for name in MODULES]


def family_named(name: str) -> Family:
    """Find a family, as a model's config names it.

    Raises:
        InvalidParameter: if there is none of that name.
    """
    for family in families():
        if family.name == name:
            return family
    known = ", ".join(family.name for family in families())
    raise InvalidParameter(f"there is no model family {name!r}; there are: {known}")


def family_of_folder(folder: Path, values: Mapping[str, Any]) -> Family:
    """Find the family of a checkpoint.

    Args:
        folder: of the checkpoint.
        values: of its config.json.
    """
    return next(family for family in families() if family.claims(folder, values))
