"""One model as the engine knows it: with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core_server.catalogue.served_model import ServedModel
from ssd2.logits.format import ANY_FORMAT, AllowedFormats
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.configs import with_context
from ssd2.models.devices import check_device
from ssd2.models.shard import Shard


@dataclass(frozen=True)
class LoadedModel:
    """A model as the engine knows it: a checkpoint under the name that agents know it by.

    Attributes:
        name: that agents know it by.
        checkpoint: with its weights, or a rank's share of them.
        logits_formats: that agents may have its logits in.
    """

    name: str
    checkpoint: Checkpoint
    logits_formats: AllowedFormats = ANY_FORMAT

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str,
        device: str,
        shard: Shard | None = None,
        precision: str = "float32",
        logits_formats: AllowedFormats = ANY_FORMAT,
        max_context: int | None = None,
    ) -> LoadedModel:
        """Load a checkpoint for serving, or one rank's share of it.

        Args:
            folder: of the checkpoint.
            name: that agents know it by.
            device: where to compute.
            shard: the rank's share; None for all of it.
            precision: one of `ssd2.models.precision.PRECISIONS`.
            logits_formats: that agents may have its logits in.
            max_context: tokens of prompt and answer together at most, where the model takes more.

        Raises:
            InvalidParameter: if the device or the precision cannot be used, or the model not be cut into so many parts.
            ModelNotFound: if there is no checkpoint.
            CheckpointInvalid: if it is damaged.
        """
        check_device(device)
        checkpoint = load_checkpoint(folder, device, shard, precision)
        checkpoint.model.config = with_context(checkpoint.model.config, max_context)
        return cls(name, checkpoint, logits_formats)

    @cached_property
    def served(self) -> ServedModel:
        """The same without its weights."""
        return ServedModel.of(
            self.name,
            self.checkpoint.model.config,
            sha256=self.checkpoint.sha256,
            tokenizer=self.checkpoint.tokenizer,
            parameters=self.checkpoint.parameters,
            logits_formats=self.logits_formats,
        )
