"""Reading check: whether a user model can read documents, from a few questions made of them.

It takes seconds and has no line to the core: the user model answers alone (λ = 1), and nothing is sent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from ssd2.algorithm.collaboration import Mixer
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import PromptTooLong
from ssd2.evaluation.scorer import holds
from ssd2.models.chat import BRIEFLY
from ssd2.models.predict import begin_sampler
from ssd2.models.prompt_cache import NOT_KEPT
from user_agent.answering.conversation import Conversation
from user_agent.answering.decoding import decoding_for
from user_agent.answering.reading_check import ReadingCheck
from user_agent.answering.request import AnswerSettings
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.tuning.questions import TuningQuestion, cloze_questions

QUESTIONS = 6
LIMIT_S = 15.0
"""Time limit of a whole check; a slow model is asked fewer questions."""

_ALONE = CollaborationParams(1.0, 0.0)
_SETTINGS = AnswerSettings(temperature=0, max_tokens=24)


# See docs/decisions/049-demo-and-reading-check.md.
def check_reading(
    user_model: UserModel,
    passages: Sequence[Passage],
    goes_on: Callable[[ReadingCheck], bool] = lambda _: True,
    limit_s: float = LIMIT_S,
    *,
    system_prompt: str = BRIEFLY,
) -> ReadingCheck:
    """Ask the user model a few questions, each with the passage that it is made of.

    Args:
        user_model: θ_user with its weights.
        passages: of the documents, a sample.
        goes_on: told of the questions so far, also within an answer; ends the check where it says so.
        limit_s: seconds that the check may take; an answer that is not there by then does not count.
        system_prompt: of every answer; no part of a prompt without a chat template.
    """
    params, ends_at = decoding_for(_SETTINGS, user_model.config), time.monotonic() + limit_s
    found, said = ReadingCheck(), user_model.instructed(system_prompt)
    for question in cloze_questions(passages, seed=0):
        if not _fits(question, user_model, params, said):
            continue
        right = _is_right(question, user_model, params, said, lambda: time.monotonic() < ends_at and goes_on(found))  # noqa: B023 - called at once
        if right is None:
            break
        found = ReadingCheck(found.questions + 1, found.right + right)
        if found.questions == QUESTIONS:
            break
    goes_on(found)
    return found


def _fits(question: TuningQuestion, user_model: UserModel, params: DecodingParams, said: Conversation) -> bool:
    try:
        fitted = user_model.fitting(question.text, _passages(question), params.max_answer_tokens, said)
    except PromptTooLong:
        return False
    return not fitted.left_out and not any(passage.is_cut for passage in fitted.passages)


def _is_right(
    question: TuningQuestion,
    user_model: UserModel,
    params: DecodingParams,
    said: Conversation,
    goes_on: Callable[[], bool],
) -> bool | None:
    """Decode until the expected words are there; None if that was broken off."""
    asked = (question.text, _passages(question), _ALONE, params.self_conditioning, said)
    sampler, mixer = begin_sampler(user_model.config, params, [Seeds.reproducible(0)]), Mixer(_ALONE)
    with contextlib.closing(user_model.terms(*asked, era=NOT_KEPT)) as terms:
        while (view := sampler.due) is not None:
            if not goes_on():
                return None
            sampler.step(mixer.mix(None, terms.logits(view), view.step).logits)
            if holds(user_model.tokenizer.decode(sampler.answers[0]), question.expected):
                return True
    return False


def _passages(question: TuningQuestion) -> list[Passage]:
    return [question.passage] if question.passage else []
