"""Context-aware decoding: one model with and without a context (the thesis, ch. 4)."""

from __future__ import annotations

from collections.abc import Sequence

from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.models.checkpoint import Checkpoint
from ssd2.models.predict import begin_sampler, user_terms


def answer_from_context(
    checkpoint: Checkpoint, question: str, passages: Sequence[str], alpha: float, params: DecodingParams, seed: int
) -> str:
    """Answer a question with the ensemble of §3.2 at λ = 1.

        y ~ softmax((1 + α) logits(y | c, x) - α logits(y | x))

    Source: context-aware decoding (arXiv 2305.14739), the thesis' chapter 4. A diffusion model mixes the logits
    of a block so at every timestep.

    Args:
        checkpoint: of any family.
        question: x.
        passages: c; none, or α = 0, is plain decoding.
        alpha: contrastive strength.
        params: how to decode.
        seed: of the decode.

    Raises:
        InvalidParameter: if α is below 0.
        PromptTooLong: if context, question and answer do not fit the model's positions.
    """
    tokenizer, config = checkpoint.tokenizer, checkpoint.model.config
    with_context, without = (
        tokenizer.encode_prompt(question, texts, bos_token_id=config.bos_token_id) for texts in (passages, ())
    )
    collaboration = CollaborationParams(1.0, alpha)
    terms = user_terms(checkpoint.model, [with_context], [without], collaboration, params.self_conditioning)
    (answer,) = decode_locally(
        None,
        terms,
        collaboration,
        begin_sampler(config, params, [Seeds.reproducible(seed)]),
    )
    return tokenizer.decode(answer)
