"""The demo: three questions about sample notes, answered across two processes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssd2.algorithm.params import CollaborationParams, Seeds
from ssd2.demo.paths import NOTES, USER
from user_agent.answering.answer import Answer
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerSettings
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.commands.render import marked
from user_agent.documents.passage import Passage
from user_agent.documents.reader import read_passages
from user_agent.documents.search import search
from user_agent.line.client import CoreClient
from user_agent.line.own_core import exit_on_sigterm, own_core
from user_agent.store.ledger import Ledger

COLLABORATION = CollaborationParams()
SYSTEMS = {
    "core_only": CollaborationParams(lambda_user=0.0, alpha=COLLABORATION.alpha),
    "user_only": CollaborationParams(lambda_user=1.0, alpha=COLLABORATION.alpha),
    "together": COLLABORATION,
}
TITLES = {"core_only": "core alone", "user_only": "user model alone", "together": "together"}


@dataclass(frozen=True)
class DemoQuestion:
    """A question about the sample notes and the town."""

    kind: str
    text: str
    expected: str


QUESTIONS = (
    DemoQuestion("private", "Where did I put my spare key?", "Your spare key is in the blue drawer."),
    DemoQuestion("public", "When does Fern Gallery open?", "It opens at 11:00."),
    DemoQuestion(
        "two-source",
        "What is the phone number of the place of my dentist appointment?",
        "Your dentist appointment is at Hazel Hammer. Its number is 9293.",
    ),
)


def run_demo(*, seed: int, as_json: bool) -> None:
    """Start a core, ask the questions, print the answers side by side.

    Args:
        seed: of the decodes.
        as_json: one JSON object on stdout instead of tables.

    Raises:
        SlingshotError: if the core does not start, or an answer fails.
    """
    exit_on_sigterm()
    reports = asyncio.run(_ask_all(seed, Console(stderr=as_json, highlight=False)))
    if as_json:
        print(json.dumps({"questions": reports}, ensure_ascii=False))  # noqa: T201 - the output asked for


async def _ask_all(seed: int, console: Console) -> list[dict[str, object]]:
    reports = []
    async with own_core() as core, CoreClient(core.address, Ledger.in_memory()) as client:
        console.print(
            f"Core server listening on {core.address}, in its own process. It does not receive the notes in "
            f"{NOTES.name}/; of their content it sees what the answers say."
        )
        user_model, passages = UserModel.load(USER, with_weights=True), read_passages(NOTES)
        agent = Agent(user_model, client)
        for question in QUESTIONS:
            with console.status(question.text):
                answers = await _ask_systems(agent, user_model, passages, question, seed)
            console.print(_table(question, answers))
            reports.append(_report(question, answers))
    return reports


async def _ask_systems(
    agent: Agent, user_model: UserModel, passages: list[Passage], question: DemoQuestion, seed: int
) -> dict[str, Answer]:
    """One question, answered by every system on the same seeds."""
    params = decoding_for(AnswerSettings(), user_model.config)
    fitted = user_model.fitting(question.text, search(passages, question.text), params.max_answer_tokens)
    seeds = Seeds.reproducible(seed)
    return {
        system: await agent.answer(Question(question.text, fitted.passages, collaboration, params, seeds))
        for system, collaboration in SYSTEMS.items()
    }


def _table(question: DemoQuestion, answers: dict[str, Answer]) -> Table:
    together = answers["together"]
    table = Table(
        title=f"{question.kind}: {question.text}", title_justify="left", title_style="bold", show_header=False
    )
    for system, answer in answers.items():
        table.add_row(TITLES[system], marked(answer.tokens) if system == "together" else Text(answer.text))
    table.add_section()
    table.add_row("expected", question.expected, style="dim")
    table.caption = (
        f"{together.timesteps} timesteps, {together.exact_timesteps} of them provably the same as with full "
        f"logits, in {together.seconds:.2f} s; {together.bytes_up:,} bytes up, {together.bytes_down:,} down. "
        "Underlined: tokens that the core alone would not have chosen on the same draw."
    )
    table.caption_justify = "left"
    return table


def _report(question: DemoQuestion, answers: dict[str, Answer]) -> dict[str, object]:
    together = answers["together"]
    return {
        "kind": question.kind,
        "question": question.text,
        "expected": question.expected,
        **{system: answer.text for system, answer in answers.items()},
        "changed_tokens": [token.text.strip() for token in together.tokens if token.is_changed],
        "bytes_up": together.bytes_up,
        "bytes_down": together.bytes_down,
        "timesteps": together.timesteps,
        "exact_timesteps": together.exact_timesteps,
        "seconds": round(together.seconds, 3),
    }
