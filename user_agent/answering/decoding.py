"""From what an answer is asked for to the parameters that the models decode with."""

from __future__ import annotations

from ssd2.algorithm.params import DecodingParams
from ssd2.models.configs import ModelConfig
from user_agent.answering.request import AnswerSettings
from user_agent.answering.tuned_defaults import settings_with


def default_patience(steps: int) -> int:
    """Return how many timesteps a block has to stay unchanged for: 2 in 25, and never fewer than 2.

    With the demo pair 1 would do; a pair that is less sure may come to the same tokens twice by chance. The closer the
    timesteps, the less each can change, so that more of them have to agree.
    """
    return max(2, 2 * steps // 25)


def decoding_for(settings: AnswerSettings, config: ModelConfig) -> DecodingParams:
    """Complete the settings of an answer with the model's own.

    Args:
        settings: of the answer, or of all answers.
        config: of the user model.

    Raises:
        InvalidParameter: if they do not go together.
    """
    temperature, measured = settings.temperature, settings_with(settings.pair)
    if temperature is None and measured:
        temperature = measured.temperature
    is_greedy = temperature == 0  # the limit of both projections
    patience = settings.patience
    if patience is None:
        patience = default_patience(settings.steps or config.default_steps)
    return DecodingParams.for_model(
        config,
        block_size=settings.block_size,
        max_tokens=settings.max_tokens,
        steps=settings.steps,
        stop=settings.early_stop,
        projection="greedy" if is_greedy else settings.projection,
        top_p=settings.top_p,
        temperature=None if is_greedy else temperature,
        self_conditioning=settings.self_conditioning,
        schedule=settings.schedule,
        patience=patience or None,
        entropy_bound=settings.entropy_bound,
        core_every=settings.core_every,
    )
