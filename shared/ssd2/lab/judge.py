"""Judging of answers by a language model, with a file of its verdicts.

An answer is rated by itself, or compared in both orders with a baseline's answer to the same prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.errors import InvalidParameter, SlingshotError
from ssd2.evaluation.generations import Generation
from ssd2.evaluation.jsonl import append_result, not_results, read_results
from ssd2.lab.chat import ChatClient, Endpoint
from ssd2.lab.judge_templates import COMPARISON, RATING, parse_ratings, parse_scores
from ssd2.lab.pairing import AnswerPair, pair_answers, require_prompts

BYTES_A_TOKEN = 4
"""Rule of thumb for the estimate; the endpoint's own count is printed afterwards."""


# See docs/decisions/033-metrics-and-judges.md.
@dataclass(frozen=True)
class Question:
    """One call of the judge.

    Attributes:
        template: "rating" or "comparison".
        content: the template with instruction and answers in it.
    """

    template: str
    content: str

    def key(self, judge: Judge) -> str:
        """Return a hash of the question and everything its verdict depends on."""
        endpoint = judge.endpoint
        depends_on = [endpoint.completions_url, endpoint.model, judge.temperature, judge.max_tokens, self.content]
        return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


@dataclass(frozen=True)
class Judge:
    """Settings of the judge.

    Attributes:
        endpoint: with the model.
        temperature: of its replies.
        max_tokens: longest reply.
        concurrency: requests in flight at once.
    """

    endpoint: Endpoint
    temperature: float
    max_tokens: int = 1024
    concurrency: int = 4


@dataclass(frozen=True)
class Verdict:
    """Reply to a question.

    Attributes:
        key: of the question.
        template: of the question.
        reply: the judge's whole text.
        prompt_tokens: as counted by the endpoint, if it reports them.
        completion_tokens: likewise.
    """

    key: str
    template: str
    reply: str
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def ratings(self) -> dict[str, float] | None:
        """Rating of each of `ATTRIBUTES`; None if the reply does not have them all."""
        return parse_ratings(self.reply)

    @property
    def scores(self) -> tuple[float, float] | None:
        """Scores of the first and second answer; None if the reply does not begin with them."""
        return parse_scores(self.reply)

    def as_json(self, judge: Judge, question: Question) -> dict[str, Any]:
        """Return a line of the verdicts file, with the question."""
        parsed = self.ratings if self.template == "rating" else self.scores
        return {**asdict(self), "parsed": parsed, "model": judge.endpoint.model, "content": question.content}


@dataclass(frozen=True)
class Pair:
    """Both orders of a comparison: the answer first, then the baseline first."""

    answer_first: Question
    baseline_first: Question


Ratings = dict[str, list[Question]]
"""By group."""
Comparisons = dict[str, list[Pair]]
"""By group; the baseline has none."""


def rating_questions(groups: Mapping[str, Sequence[Generation]]) -> Ratings:
    """Return a question for each answer.

    Raises:
        InvalidParameter: if an answer has no prompt.
    """
    require_prompts(groups)
    return {
        label: [Question("rating", RATING.format(instruction=one.prompt, response=one.text)) for one in group]
        for label, group in groups.items()
    }


def comparison_questions(groups: Mapping[str, Sequence[Generation]], baseline: str) -> Comparisons:
    """Return two questions per answer: with the baseline's answer to the same prompt, in both orders.

    Answers to a repeated prompt are paired in order: the n-th with the n-th.

    Raises:
        InvalidParameter: if an answer has no prompt, or two groups do not answer the same prompts.
    """
    require_prompts(groups)
    if baseline not in groups or len(groups) < 2:
        raise InvalidParameter(
            f"the baseline {baseline!r} must be one of two or more groups: {', '.join(groups)}", parameter="against"
        )
    return {
        label: [_both_orders(pair) for pair in pair_answers(groups, label, baseline)]
        for label in groups
        if label != baseline
    }


def _both_orders(pair: AnswerPair) -> Pair:
    def question(first: str, second: str) -> Question:
        return Question("comparison", COMPARISON.format(instruction=pair.prompt, first=first, second=second))

    return Pair(question(pair.answer, pair.other), question(pair.other, pair.answer))


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    Attributes:
        calls: to be made.
        known: verdicts of earlier runs.
        tokens_in: of all calls, by the rule of thumb.
        most_tokens_out: if every reply is of the longest length.
        most_price: in the currency of the prices; None without prices.
    """

    calls: int
    known: int
    tokens_in: int
    most_tokens_out: int
    most_price: float | None


def estimate(
    questions: Iterable[Question],
    judge: Judge,
    known: Mapping[str, Verdict],
    price_in: float | None = None,
    price_out: float | None = None,
) -> Estimate:
    """Estimate tokens and price of the missing verdicts.

    Args:
        questions: all of them; equal ones are asked once.
        judge: to ask.
        known: verdicts by key.
        price_in: of a million tokens of questions.
        price_out: of a million tokens of replies.
    """
    every = dict.fromkeys(questions)
    missing = [question for question in every if question.key(judge) not in known]
    tokens_in = sum(-(-len(question.content.encode()) // BYTES_A_TOKEN) for question in missing)
    tokens_out = judge.max_tokens * len(missing)
    is_priced = price_in is not None and price_out is not None
    price = (tokens_in * (price_in or 0) + tokens_out * (price_out or 0)) / 1e6 if is_priced else None
    return Estimate(len(missing), len(every) - len(missing), tokens_in, tokens_out, price)


def read_verdicts(file: Path) -> dict[str, Verdict]:
    """Return the verdicts of earlier runs by key, without a last line cut short by a crash.

    Raises:
        InvalidParameter: if the file holds something else.
    """
    try:
        verdicts = [
            Verdict(**{name: line[name] for name in Verdict.__dataclass_fields__}) for line in read_results(file)
        ]
    except KeyError as error:
        raise not_results(file) from error
    if not all(isinstance(verdict.key, str) and isinstance(verdict.reply, str) for verdict in verdicts):
        raise not_results(file)
    return {verdict.key: verdict for verdict in verdicts}


def ask_missing(
    questions: Iterable[Question],
    judge: Judge,
    key: str | None,
    file: Path,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Verdict]:
    """Ask the questions missing from the file, appending each verdict at once.

    Args:
        questions: all of them.
        judge: to ask.
        key: of the endpoint, or None.
        file: JSON lines of verdicts.
        on_progress: called with the number of replies since the last call.

    Returns:
        All verdicts of the file by key.

    Raises:
        JudgeError: if the endpoint cannot be asked; replies in flight are stored.
        InvalidParameter: if the file cannot be read or written, or the key cannot be sent.
    """
    known = read_verdicts(file)
    missing = deque(question for question in dict.fromkeys(questions) if question.key(judge) not in known)
    failures: list[SlingshotError] = []

    async def work(client: ChatClient) -> None:
        while missing and not failures:
            question = missing.popleft()
            try:
                verdict = await _ask(client, judge, question)
                append_result(file, verdict.as_json(judge, question))
            except SlingshotError as error:
                failures.append(error)
            else:
                known[verdict.key] = verdict
                on_progress(1)

    async def work_together() -> None:
        async with ChatClient(judge.endpoint, key) as client:
            await asyncio.gather(*(work(client) for _ in range(judge.concurrency)))

    if missing:
        asyncio.run(work_together())
    if failures:
        raise failures[0]
    return known


async def _ask(client: ChatClient, judge: Judge, question: Question) -> Verdict:
    reply = await client.ask(question.content, temperature=judge.temperature, max_tokens=judge.max_tokens)
    return Verdict(question.key(judge), question.template, reply.text, reply.prompt_tokens, reply.completion_tokens)
