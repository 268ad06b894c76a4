"""What the agent decodes with where it is not told otherwise."""

from __future__ import annotations

from typing import Any

from ssd2.algorithm.params import DecodingParams
from ssd2.models.configs import ModelConfig


def default_patience(steps: int) -> int:
    """Timesteps that a block has to stay unchanged for: 2 in 25, and never fewer than 2.

    With the demo pair 1 would do; a pair that is less sure may come to the same tokens twice by chance. The closer the
    timesteps, the less each can change, so that more of them have to agree.
    """
    return max(2, 2 * steps // 25)


def decoding_for(config: ModelConfig, *, patience: int | None = None, **chosen: Any) -> DecodingParams:
    """What an answer is decoded with.

    Args:
        config: of the user model.
        patience: None: `default_patience`; 0: no block ends early.
        **chosen: other fields of `DecodingParams`; None leaves the model's own.

    Raises:
        InvalidParameter: if a field is outside its range.
    """
    if patience is None:
        patience = default_patience(chosen.get("steps") or config.default_steps)
    return DecodingParams.for_model(config, patience=patience or None, **chosen)
