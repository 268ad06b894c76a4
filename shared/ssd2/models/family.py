"""The record of a family of models: all that the rest of the system has to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ssd2.algorithm.collaboration import Predictor
from ssd2.models.configs import ModelConfig
from ssd2.models.lane import MakeLane
from ssd2.models.shard import Shard
from ssd2.models.tokenizer import Tokenizer


class Model(nn.Module):
    """A network of any family.

    Attributes:
        config: its shape; the family's name is one of its fields.
    """

    config: ModelConfig


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: as in configs, model cards and Open.
        claims: True if a checkpoint folder with this config.json is of the family.
        read_config: the shape of such a folder's model.
        read_tokenizer: its tokenizer, given V.
        load: the model with its weights, float32, on the CPU.
        begin: takes up a decode: model, prompts of any lengths, self-conditioning.
        lane: makes the lane of a model whose rows can be one batch; None to compute one answer at a time.
        check_files: looks at a folder's files before the first weight is read.
        write_config: the content of config.json for a shape, where checkpoints are also written; else None.
        shard: turns a model into one rank's share of it, in place; None if it cannot be cut.
        int8_layers: those whose matrices can be held in int8; None if none can.
    """

    name: str
    claims: Callable[[Path, Mapping[str, Any]], bool]
    read_config: Callable[[Path, Mapping[str, Any]], ModelConfig]
    read_tokenizer: Callable[[Path, int], Tokenizer]
    load: Callable[[Path, Any], Model]
    begin: Callable[[Any, Sequence[Sequence[int]], str], Predictor]
    lane: MakeLane | None = None
    check_files: Callable[[Path, Any], None] = lambda _folder, _config: None
    write_config: Callable[[Any], dict[str, Any]] | None = None
    shard: Callable[[Any, Shard], None] | None = None
    int8_layers: Callable[[Any], Sequence[nn.Module]] | None = None
