"""Any model's part in a decode, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssd2.algorithm.collaboration import Predictor, UserTerms
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.sampler import Sampler
from ssd2.models.configs import ModelConfig
from ssd2.models.model import Model
from ssd2.models.prompt_cache import PromptCache
from ssd2.models.registry import family_named


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
    return family_named(model.config.family).begin(model, prompts, self_conditioning)


def prompt_cache_of(model: Model, max_bytes: int) -> PromptCache | None:
    """Make an empty cache of what a model's decodes leave behind.

    Args:
        model: of any family.
        max_bytes: of keys and values.

    Returns:
        None if decodes of the model leave nothing behind.
    """
    make = family_named(model.config.family).prompt_cache
    cache = make(model, max_bytes) if make else None
    return cache if cache and cache.is_usable else None


def begin_sampler(
    config: ModelConfig, params: DecodingParams, seeds: Sequence[Seeds], *, ends_at_eos: bool = True
) -> Sampler:
    """Begin the sampler of a model's family.

    Args:
        config: of the model.
        params: how to decode.
        seeds: one pair a row.
        ends_at_eos: whether a stop id ends an answer; else all answers are as long as they may be.
    """
    return family_named(config.family).sampler(params, seeds, stop_ids=config.stop_ids if ends_at_eos else ())


def user_terms(
    model: Model,
    prompts: Sequence[Sequence[int]],
    prompts_without_docs: Sequence[Sequence[int]],
    collaboration: CollaborationParams,
    self_conditioning: str,
    begin_with: Callable[[Sequence[Sequence[int]]], Predictor] | None = None,
) -> UserTerms:
    """Take up the user model's part in a decode, its passes with and without the documents as one batch.

    Args:
        model: θ_user.
        prompts: B prompts with D_user and w_inst.
        prompts_without_docs: the same B with w_inst only; not read where nothing depends on them, as at α = 0.
        collaboration: λ and α.
        self_conditioning: see `begin`.
        begin_with: takes up the decode of all prompts in the place of `begin`.

    Raises:
        SlingshotError: see `begin`.
    """
    both = [*prompts, *prompts_without_docs] if collaboration.reads_without_docs else prompts
    predictor = begin_with(both) if begin_with else begin(model, both, self_conditioning)
    return UserTerms(predictor, len(both) // len(prompts))
