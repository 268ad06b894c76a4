"""Answers of a pair to the questions of the benchmark, setting by setting, kept in a file batch by batch."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import CollaborationParams, DecodingParams, LambdaUser, Seeds
from ssd2.errors import InvalidParameter
from ssd2.evaluation.documents.questions import Question, read_documents
from ssd2.evaluation.jsonl import append_result, not_results, read_results
from ssd2.evaluation.pair import Pair
from ssd2.models.chat import Message
from ssd2.models.layouts import AnswerLayout
from ssd2.models.predict import begin, begin_sampler, user_terms

CORE_ALONE = CollaborationParams(0.0, 0.0)
USER_ALONE = CollaborationParams(1.0, 0.0)
"""The user model with the passages as anybody would run it by itself: the baseline of every table."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        id: of the question.
        text: as the models wrote it.
        seconds: its share of the wall time of its batch.
    """

    id: str
    text: str
    seconds: float


class Prompts(NamedTuple):
    """Token ids of a question's prompts.

    Attributes:
        core: θ_core's.
        with_docs: θ_user's with the passages.
        without_docs: θ_user's without.
    """

    core: list[int]
    with_docs: list[int]
    without_docs: list[int]

    @property
    def sha256(self) -> str:
        """Hash of all three."""
        return _sha256(self)


@dataclass(frozen=True)
class Run:
    """A measurement: a pair, the questions, and the passages of each for the user model.

    Attributes:
        pair: θ_core and θ_user.
        decoding: how to decode.
        questions: in order.
        passages: of each question, by its id.
        mode: "given" (the right document) or "search" (what the agent's search found).
        precision: of the weights.
        system: system prompt of both sides, for checkpoints with a chat template; "" for none.
        layout: of the answers, likewise.
    """

    pair: Pair
    decoding: DecodingParams
    questions: Sequence[Question]
    passages: Mapping[str, Sequence[str]]
    mode: str
    precision: str = "float32"
    system: str = ""
    layout: AnswerLayout = "plain"

    def depends_on(self, collaboration: CollaborationParams) -> dict[str, Any]:
        """Return all that an answer depends on, apart from its prompts."""
        return {
            **asdict(collaboration),
            **asdict(self.decoding),
            "mode": self.mode,
            "precision": self.precision,
            "core_sha256": self.pair.core.sha256,
            "user_sha256": self.pair.user.sha256,
        }

    def prompts(self, question: Question) -> Prompts:
        """Return the prompts of a question, as token ids."""
        core, user = self.pair.core, self.pair.user
        passages, bos, layout = self.passages[question.id], user.model.config.bos_token_id, self.layout
        system = [Message("system", self.system)] if self.system else []
        said = [*system, Message("user", question.text)]
        return Prompts(
            core.tokenizer.encode_conversation(said, bos_token_id=core.model.config.bos_token_id, layout=layout),
            user.tokenizer.encode_conversation(said, passages, bos_token_id=bos, layout=layout),
            user.tokenizer.encode_conversation(said, bos_token_id=bos, layout=layout),
        )


def settings_of(lambdas: Sequence[LambdaUser], alphas: Sequence[float]) -> list[CollaborationParams]:
    """Return each model alone, then every λ, or rule in its place, with every α; α has no effect at λ = 0."""
    chosen = [CollaborationParams(weight, alpha if weight else 0.0) for weight in lambdas for alpha in alphas]
    return list(dict.fromkeys([CORE_ALONE, USER_ALONE, *chosen]))


def given_passages(questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Return what answers each question: its note, or all passages of the document it names."""
    documents = read_documents()
    return {
        question.id: (question.note,)
        if question.note
        else tuple(passage for name in question.documents for passage in documents[name])
        for question in questions
    }


def found_passages(questions: Sequence[Question], file: Path) -> dict[str, tuple[str, ...]]:
    """Return what the agent's search found for each question; a note is given, it lies in no folder.

    Args:
        questions: to be answered.
        file: JSON lines {"id", "passages"}, as `user-agent docs search --questions` prints them.

    Raises:
        InvalidParameter: if the file cannot be read or lacks one of the questions.
    """
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = {line["id"]: tuple(map(str, line["passages"])) for line in lines}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidParameter(
            f"{file} does not contain found passages ({error!r}); give what the agent's search prints",
            parameter="passages",
        ) from error
    missing = [question.id for question in questions if not question.note and question.id not in found]
    if missing:
        raise InvalidParameter(
            f"{file} lacks {len(missing)} of the questions, the first is {missing[0]}; search for all of them",
            parameter="passages",
        )
    return {question.id: (question.note,) if question.note else found[question.id] for question in questions}


def answer_all(
    run: Run,
    collaboration: CollaborationParams,
    *,
    batch_size: int,
    kept: Path | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Answer every question in one setting.

    Args:
        run: what to answer.
        collaboration: λ and α.
        batch_size: questions decoded at once, of similar length.
        kept: JSON lines; answers found there are not computed again, new ones are added batch by batch. None: none is.
        on_progress: told how many answers have come since the last call.

    Returns:
        The answers, in the order of the questions.

    Raises:
        InvalidParameter: if the file cannot be read or written.
        PromptTooLong: if a question and its passages do not fit the models.
    """
    setting = run.depends_on(collaboration)
    prompts = {question.id: run.prompts(question) for question in run.questions}
    keys = {name: _sha256([setting, prompts[name].sha256]) for name in prompts}
    answers = _kept_answers(kept, keys) if kept else {}
    missing = [name for name in prompts if name not in answers]
    missing.sort(key=lambda name: len(prompts[name].with_docs))
    on_progress(len(prompts) - len(missing))
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        started = time.perf_counter()
        texts = _answer_batch(run, collaboration, [prompts[name] for name in batch])
        seconds = round((time.perf_counter() - started) / len(batch), 3)
        for name, text in zip(batch, texts, strict=True):
            answers[name] = Answer(name, text, seconds)
            if kept:
                mixed = {"lambda_user": collaboration.lambda_user, "alpha": collaboration.alpha}
                shown = {"answer_layout": run.layout, **mixed}
                append_result(kept, {**asdict(answers[name]), **shown, "key": keys[name]})
        on_progress(len(batch))
    return [answers[name] for name in prompts]


def _answer_batch(run: Run, collaboration: CollaborationParams, prompts: Sequence[Prompts]) -> list[str]:
    (core, user), params = (run.pair.core, run.pair.user), run.decoding
    core_part = user_part = None
    if collaboration.uses_core:
        core_part = begin(core.model, [one.core for one in prompts], params.self_conditioning)
    if collaboration.uses_user:
        with_docs, without_docs = [one.with_docs for one in prompts], [one.without_docs for one in prompts]
        user_part = user_terms(user.model, with_docs, without_docs, collaboration, params.self_conditioning)
    sampler = begin_sampler(user.model.config, params, [Seeds.reproducible(0)] * len(prompts))
    return [user.tokenizer.decode(ids) for ids in decode_locally(core_part, user_part, collaboration, sampler)]


def _kept_answers(file: Path, keys: Mapping[str, str]) -> dict[str, Answer]:
    """Return the answers of earlier runs with the same keys: in this setting, to these very prompts."""
    try:
        return {
            line["id"]: Answer(line["id"], line["text"], line["seconds"])
            for line in read_results(file)
            if line["key"] == keys.get(line["id"])
        }
    except (KeyError, TypeError) as error:
        raise not_results(file) from error


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
