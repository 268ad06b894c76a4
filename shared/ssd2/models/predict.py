"""Any model's part in a decode, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ssd2.algorithm.sampler import LogitsRequest
from ssd2.models.autoregressive import AutoregressiveLM, NextToken
from ssd2.models.denoiser import Denoiser
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.ssd2 import SSD2
from ssd2.models.ssd_lm import SSDLM, BidirectionalDenoiser

Model = SSD2 | TimeRangeExperts | SSDLM | AutoregressiveLM


class Predictor(Protocol):
    """One model's part in one decode."""

    def logits(self, request: LogitsRequest) -> Tensor:
        """Logits for one timestep, [B, L, V], float32; requests come in the order of the decode."""
        ...


def begin(model: Model, prompts: Sequence[Sequence[int]], self_conditioning: str) -> Predictor:
    """Take up a decode.

    Args:
        model: of any family.
        prompts: B prompts as token ids, of any lengths.
        self_conditioning: one of `ssd2.algorithm.params.SELF_CONDITIONING`; of no matter to families that have none.

    Raises:
        PromptTooLong: if a prompt does not fit the model's positions.
        InvalidParameter: if a prompt is empty.
        TokenOutOfRange: if a prompt holds an id outside the vocabulary.
    """
    if isinstance(model, AutoregressiveLM):
        return NextToken(model, prompts)
    if isinstance(model, SSDLM):
        return BidirectionalDenoiser(model, prompts)
    return Denoiser(model, prompts, self_conditioning)
