"""The demo: questions about sample documents, answered across two processes.

First the invented town with the demo's own pair, then everyday documents with a public pair, which is fetched once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssd2.algorithm.params import CollaborationParams, Seeds
from ssd2.demo.paths import EVERYDAY, NOTES, USER
from ssd2.errors import DownloadFailed, TooLittleMemory
from ssd2.models.pairs import EMBEDDED, check_memory, in_bytes, models_folder, pair_named
from user_agent.answering.answer import Answer
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerSettings
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.commands.models import fetch
from user_agent.commands.remedies import with_remedy
from user_agent.commands.render import marked
from user_agent.documents.passage import Passage
from user_agent.documents.reader import read_passages
from user_agent.documents.search import search
from user_agent.line.client import CoreClient
from user_agent.line.own_core import exit_on_sigterm, own_core
from user_agent.store.ledger import Ledger

TITLES = {"core_only": "core alone", "user_only": "user model alone", "together": "together"}


@dataclass(frozen=True)
class DemoQuestion:
    """A question about sample documents.

    Attributes:
        kind: of question, or the document that it is about.
        text: what is asked.
        expected: the answer, or what has to stand in it.
    """

    kind: str
    text: str
    expected: str


@dataclass(frozen=True)
class Part:
    """One part of the demo.

    Attributes:
        pair: whose models answer; empty for the demo's.
        notes: documents that the user model reads.
        settings: of the answers.
        user_only: λ = 1 and α of the user model alone.
        together: λ and α of the mix.
        questions: what is asked.
    """

    pair: str
    notes: Path
    settings: AnswerSettings
    user_only: CollaborationParams
    together: CollaborationParams
    questions: tuple[DemoQuestion, ...]

    @property
    def user_folder(self) -> Path:
        """Folder of the user model."""
        return pair_named(self.pair).user.folder if self.pair else USER

    @property
    def systems(self) -> Mapping[str, CollaborationParams]:
        """λ and α of each column: the core alone, the user model alone, both."""
        core_only = CollaborationParams(0.0, self.together.alpha)
        return {"core_only": core_only, "user_only": self.user_only, "together": self.together}


TOWN = Part(
    pair="",
    notes=NOTES,
    settings=AnswerSettings(),
    user_only=CollaborationParams(1.0),
    together=CollaborationParams(),
    questions=(
        DemoQuestion("private", "Who is my plumber?", "Your plumber is Lotte Rossi."),
        DemoQuestion("public", "When does Fern Tower open?", "It opens at 8:00."),
        DemoQuestion(
            "fact first, name behind it",
            "In which street is the place of my piano lesson?",
            "Water Street, as your piano lesson is at Rose Pavilion.",
        ),
    ),
)
REAL_LANGUAGE = Part(
    pair=EMBEDDED,
    notes=EVERYDAY,
    settings=AnswerSettings(temperature=0, max_tokens=32),
    user_only=CollaborationParams(1.0, 0.0),
    together=CollaborationParams(0.5, 1.0),  # with one model on both sides nearly the same mix
    questions=(
        DemoQuestion("rent.md", "When will the boiler be serviced?", "12 February"),
        DemoQuestion("washing-machine.txt", "How long does the guarantee last?", "five years"),
        DemoQuestion("trip.md", "At which hotel are we staying in Lyon?", "Hotel Sereine"),
    ),
)


_ONE_MODEL = (
    f"Both processes of this part hold the same small model. With λ {REAL_LANGUAGE.together.lambda_user:g} and α "
    f"{REAL_LANGUAGE.together.alpha:g} the mix is then the user model's own prediction, but for what the core's "
    "largest logits leave out: together they answer what it answers alone, and the core adds nothing. A larger core "
    "does (`user-agent models list`)."
)
_NEXT = f'Ask about your own documents: user-agent ask "…" --docs FOLDER --pair {REAL_LANGUAGE.pair}'


def run_demo(*, seed: int, as_json: bool, is_offline: bool) -> None:
    """Start a core for each part, ask the questions, print the answers side by side.

    Args:
        seed: of the decodes.
        as_json: one JSON object on stdout instead of tables.
        is_offline: fetch nothing; a part whose models are not on this machine is left out.

    Raises:
        SlingshotError: if a core does not start, or an answer fails.
    """
    exit_on_sigterm()
    console = Console(stderr=as_json, highlight=False)
    console.print("[bold]An invented town[/], with the models of this project")
    town = asyncio.run(ask_all(TOWN, seed, console))
    console.print(f"\n[bold]Everyday documents[/], with the public pair {REAL_LANGUAGE.pair}")
    left_out = _why_left_out(REAL_LANGUAGE, console, is_offline=is_offline)
    console.print(_left_out(left_out) if left_out else _ONE_MODEL, soft_wrap=True, markup=False)
    everyday = [] if left_out else asyncio.run(ask_all(REAL_LANGUAGE, seed, console))
    if everyday:
        console.print(_NEXT, markup=False)
    if as_json:
        second = {"pair": REAL_LANGUAGE.pair, "left_out": left_out or None, "questions": everyday}
        print(json.dumps({"questions": town, "everyday": second}, ensure_ascii=False))  # noqa: T201 - the output asked for


def _left_out(why: str) -> str:
    return (
        f"Left out: three questions about {EVERYDAY.name}/ in real English. {why}\n"
        f"To see them: `user-agent models get {REAL_LANGUAGE.pair}`, then this demo again."
    )


def _why_left_out(part: Part, console: Console, *, is_offline: bool) -> str:
    """Fetch the models of a part, unless they are there; return why they cannot be used, or ""."""
    pair = pair_named(part.pair)
    missing = [model for model in pair.models if not model.is_downloaded]
    size = in_bytes(sum(model.download_bytes for model in missing))
    if missing and is_offline:
        return f"The models of {pair.name} ({size}) are not on this machine, and nothing is fetched offline."
    try:
        check_memory(pair.core.memory_bytes() + pair.user.memory_bytes(), f"the pair {pair.name}")
        if missing:
            names = " and ".join(model.repository for model in missing)
            console.print(f"Fetching {names}: {size}, once, into {models_folder()}", soft_wrap=True)
            fetch(missing, is_shown=True)
    except (DownloadFailed, TooLittleMemory) as error:
        return f"{with_remedy(error)}."
    return ""


async def ask_all(part: Part, seed: int, console: Console) -> list[dict[str, object]]:
    """Ask the questions of one part, and print the answers.

    Returns:
        For each question what JSON shows of it.
    """
    reports = []
    async with own_core(part.pair) as core, CoreClient(core.address, Ledger.in_memory()) as client:
        console.print(
            f"Core server listening on {core.address}, in its own process. It does not receive the notes in "
            f"{part.notes.name}/; of their content it sees what the answers say."
        )
        user_model, passages = UserModel.load(part.user_folder, with_weights=True), read_passages(part.notes)
        agent = Agent(user_model, client)
        for question in part.questions:
            with console.status(question.text):
                answers = await _ask_systems(agent, user_model, passages, part, question, seed)
            console.print(_table(question, answers))
            reports.append(_report(question, answers))
    return reports


async def _ask_systems(
    agent: Agent, user_model: UserModel, passages: list[Passage], part: Part, question: DemoQuestion, seed: int
) -> dict[str, Answer]:
    """One question, answered by every system on the same seeds."""
    params = decoding_for(part.settings, user_model.config)
    said = user_model.instructed(part.settings.system_prompt)
    fitted = user_model.fitting(question.text, search(passages, question.text), params.max_answer_tokens, said)
    seeds = Seeds.reproducible(seed)
    asked = Question(
        question.text,
        fitted.passages,
        part.together,
        params,
        seeds,
        conversation=fitted.conversation,
        core_conversation=said,
        settings=part.settings,
    )
    return {
        system: await agent.answer(replace(asked, collaboration=collaboration))
        for system, collaboration in part.systems.items()
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
