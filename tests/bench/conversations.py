"""Conversations of three turns about everyday documents, asked through the agent: search, history, and what fits.

The agent runs in this process and the core in one of its own. The ten documents of `everyday/` are linked together, and
each conversation is one of a chat: its earlier turns are sent back as they were answered. Answers are greedy.

    right            conversations whose three answers are all right, of as many as were asked
    answers_right    single answers
    by_turn          answers that are right, first to third turn
    left_out_turns   earlier turns that had no room, over all questions

With --out every conversation is kept as a line with its answers and what the user model was given; a run that was
broken off goes on there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ssd2.evaluation.documents.questions import Question
from ssd2.evaluation.documents.scorer import is_right
from ssd2.evaluation.jsonl import append_result, read_results
from ssd2.models.chat import Message
from tests.bench.progress import say
from tests.end_to_end.conftest import running_core
from user_agent.answering.service import Answered, Answering, new_id
from user_agent.commands.answering import opened_answering
from user_agent.config import AgentConfig
from user_agent.stores import open_stores

HERE = Path(__file__).parent / "everyday"
FILES = HERE / "files"
PATIENT_S = 600.0
"""Timeout of a timestep on a busy machine; it is not part of a figure."""


@dataclass(frozen=True)
class Talk:
    """A conversation.

    Attributes:
        id: unique.
        questions: its turns, in order.
    """

    id: str
    questions: Sequence[Question]

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Talk:
        """Read a line of the file."""
        common = {"language": "en", "kind": "fact", "documents": [line["document"]]}
        turns = enumerate(line["turns"], 1)
        return cls(line["id"], [Question.from_json({"id": f"{line['id']}-{n}", **common, **turn}) for n, turn in turns])


def read_talks() -> list[Talk]:
    """Return all conversations."""
    lines = (HERE / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [Talk.from_json(json.loads(line)) for line in lines]


def run(
    *,
    core: Path,
    user: Path,
    lambdas: Sequence[float],
    alpha: float,
    talks: int,
    max_tokens: int,
    precision: str,
    out: Path | None,
) -> Iterator[dict[str, object]]:
    """Measure every λ.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        lambdas: λ of each measurement.
        alpha: α of all.
        talks: how many conversations.
        max_tokens: longest answer.
        precision: of the core's weights.
        out: JSON lines that answers are kept in.
    """
    if not (core.is_dir() and user.is_dir()):
        say(f"conversations: skipped, there is no model in {user if core.is_dir() else core}; give --core and --user")
        return
    setting = {"core": core.name, "user": user.name, "precision": precision, "alpha": alpha, "max_tokens": max_tokens}
    with running_core(core, "--precision", precision) if min(lambdas) < 1 else nullcontext() as server:
        for lambda_user in lambdas:
            config = {"user_model": user, "lambda_user": lambda_user, "alpha": alpha}
            config |= {"core": server.address, "timeout": PATIENT_S} if server else {}
            kept = asyncio.run(_all(read_talks()[:talks], {**setting, "lambda_user": lambda_user}, config, out))
            yield {**setting, "lambda_user": lambda_user, **_figures(kept)}


async def _all(
    talks: Sequence[Talk], setting: Mapping[str, Any], config: Mapping[str, Any], out: Path | None
) -> list[dict[str, Any]]:
    """Hold the conversations that are not kept yet."""
    earlier = {line["key"]: line for line in read_results(out)} if out else {}
    keys = {talk.id: _key(setting, talk) for talk in talks}
    async with _agent(max_tokens=setting["max_tokens"], temperature=0.0, **config) as answering:
        for talk in talks:
            if (key := keys[talk.id]) in earlier:
                continue
            earlier[key] = {"key": key, "id": talk.id, **setting, "turns": await _held(talk, answering)}
            say(f"{talk.id}: {' '.join('ok' if turn['is_right'] else 'WRONG' for turn in earlier[key]['turns'])}")
            if out:
                append_result(out, earlier[key])
    return [earlier[keys[talk.id]] for talk in talks]


@asynccontextmanager
async def _agent(**settings: Any) -> AsyncIterator[Answering]:
    """An agent of its own, with the documents linked."""
    with tempfile.TemporaryDirectory() as home:
        places = {"XDG_CONFIG_HOME": f"{home}/config", "SLINGSHOT_PASSPHRASE": "for benchmarks"}
        with patch.dict(os.environ, places):
            config = AgentConfig(data_dir=Path(home) / "data", **settings)
            with open_stores(config) as stores:
                stores.documents.link(FILES)
                stores.documents.sync()
                async with opened_answering(config, stores) as answering:
                    yield answering


async def _held(talk: Talk, answering: Answering) -> list[dict[str, Any]]:
    said: list[Message] = []
    turns = []
    for question in talk.questions:
        started = time.perf_counter()
        answered = await answering.start(answering.request(question.text, history=tuple(said)), new_id("bench"))
        turns.append({**_turn(question, answered), "seconds": round(time.perf_counter() - started, 2)})
        said += [Message("user", question.text), Message("assistant", answered.text)]
    return turns


def _turn(question: Question, answered: Answered) -> dict[str, Any]:
    return {
        "question": question.text,
        "answer": answered.text,
        "is_right": is_right(question, answered.text),
        "given": [passage.source.name for passage in answered.question.passages],
        "has_document": question.documents[0] in {passage.source.name for passage in answered.question.passages},
        "left_out_turns": answered.question.left_out_turns,
    }


def _key(setting: Mapping[str, Any], talk: Talk) -> str:
    asked = [question.text for question in talk.questions]
    return hashlib.sha256(json.dumps([setting, asked], sort_keys=True).encode()).hexdigest()


def _figures(kept: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    every = [line["turns"] for line in kept]
    by_turn = [sum(turns[at]["is_right"] for turns in every) for at in range(len(every[0]))]
    return {
        "right": sum(all(turn["is_right"] for turn in turns) for turns in every),
        "talks": len(every),
        "answers_right": sum(by_turn),
        "by_turn": by_turn,
        "left_out_turns": sum(turn["left_out_turns"] for turns in every for turn in turns),
        "seconds": round(sum(turn["seconds"] for turns in every for turn in turns), 1),
    }
