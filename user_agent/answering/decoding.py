"""From what an answer is asked for to the parameters that the models decode with."""

from __future__ import annotations

from dataclasses import replace

from ssd2.algorithm.measured import MeasuredDecoding, in_proportion, of_pair
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.timesteps import DEFAULT_STEPS
from ssd2.models.configs import ModelConfig
from user_agent.answering.request import AnswerSettings
from user_agent.answering.tuned_defaults import settings_with

MAX_CORE_STEPS = 100
"""Most timesteps of a block that a core can set: each of them shows it one more draw of every position."""


def default_patience(steps: int) -> int:
    """Return how many timesteps a block has to stay unchanged for where that was not measured: 2 in 25.

    With the demo pair 1 would do; a pair that is less sure may come to the same tokens twice by chance.
    """
    return in_proportion(2, DEFAULT_STEPS, steps)


# See docs/decisions/055-measured-settings.md.
def decoding_for(settings: AnswerSettings, config: ModelConfig, core: MeasuredDecoding | None = None) -> DecodingParams:
    """Complete the settings of an answer with those of the models. What the user chose wins.

    Args:
        settings: of the answer, or of all answers.
        config: of the user model.
        core: measured settings of the core's model; None where it is not known yet, or takes no part.

    Raises:
        InvalidParameter: if they do not go together.
    """
    temperature, measured = settings.temperature, settings_with(settings.pair)
    if temperature is None and measured:
        temperature = measured.temperature
    is_greedy = temperature == 0  # the limit of both projections
    own = of_pair(_bounded(core, config), config.measured) if core else config.measured
    self_conditioning = None if settings.self_conditioning == "auto" else settings.self_conditioning
    settings.penalties.check(settings.block_size or config.block_size)
    return DecodingParams.for_model(
        config,
        own,
        block_size=settings.block_size,
        max_tokens=settings.max_tokens,
        steps=settings.steps,
        stop=settings.early_stop,
        projection="greedy" if is_greedy else settings.projection,
        top_p=settings.top_p,
        temperature=None if is_greedy else temperature,
        self_conditioning=self_conditioning,
        schedule=settings.schedule,
        patience=_patience(settings, own, settings.steps or own.steps or config.default_steps),
        entropy_bound=settings.entropy_bound,
        core_every=settings.core_every,
    )


def _patience(settings: AnswerSettings, own: MeasuredDecoding, steps: int) -> int:
    if settings.patience is not None:
        return settings.patience
    measured = own.patience_in(steps)
    if measured == 0 and settings.entropy_bound is not None:
        measured = None  # whoever sets a bound wants blocks to end early
    return default_patience(steps) if measured is None else measured


def _bounded(core: MeasuredDecoding, config: ModelConfig) -> MeasuredDecoding:
    if core.steps is None:
        return core
    steps = min(core.steps, max(MAX_CORE_STEPS, config.default_steps))
    return replace(core, steps=steps, patience=core.patience_in(steps))
