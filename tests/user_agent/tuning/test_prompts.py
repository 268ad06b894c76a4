"""`tune` and the reading check measure prompts as `ask` has them: with the system prompt, which takes room."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from ssd2.models.tokenizer import Tokenizer
from tests.families import save_llama
from tests.user_agent.answering.test_conversation import TEMPLATE
from tests.user_agent.answering.test_run import FakeClient, FakeStream, V
from user_agent.answering.answer import Answer
from user_agent.answering.decoding import decoding_for
from user_agent.answering.run import Agent, Question
from user_agent.answering.settings import ServiceSettings
from user_agent.answering.user_model import UserModel
from user_agent.commands.app import app
from user_agent.documents.reader import read_passages
from user_agent.store.ledger import Ledger
from user_agent.tuning import command, sweep
from user_agent.tuning.command import TuneOptions, run_tune
from user_agent.tuning.reading import check_reading
from user_agent.tuning.recording import PUBLIC_INSTRUCTIONS, Recording, record

SAID = "Answer as a pirate."
NOTES = "The code for the shed is 4711.\n"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneOptions:
    """A run on one note, with a model that has a chat template and with a core that only shows its card."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sweep, "holds", lambda *_: True)
    save_llama(tmp_path / "llama", V)
    (tmp_path / "llama" / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "notes.md").write_text(NOTES)

    async def model_card(*_: object) -> object:
        return await FakeClient(FakeStream(1), family="autoregressive").model_card("", "")

    monkeypatch.setattr(command, "_model_card", model_card)
    answers = ServiceSettings(
        user_model=tmp_path / "llama", system_prompt=SAID, max_tokens=2, temperature=0, device="cpu", seed=5
    )
    return TuneOptions((tmp_path / "notes.md",), None, "localhost:1", 1, answers, 1.0, is_confirmed=True)


def tuned(options: TuneOptions) -> str:
    """Return what the run says."""
    console = Console(file=io.StringIO(), width=1000)
    run_tune(options, console, Ledger.in_memory())
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_tuning_on_documents_prompts_both_models_as_ask_does(
    options: TuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, prompts = _tokenizer(options), set[str]()
    recorded, computed = dict[str, Any](), sweep.user_terms

    async def recording(*_: object, **given: Any) -> list[Recording]:
        recorded.update(given)
        return [Recording([[torch.zeros(1, V)] for _ in range(2)], 5)]

    def noted(model: object, with_docs: Sequence[list[int]], without_docs: Sequence[list[int]], *rest: object) -> Any:
        prompts.update(tokenizer.decode(ids) for ids in (*with_docs, *without_docs))
        return computed(model, with_docs, without_docs, *rest)

    monkeypatch.setattr(command, "record", recording)
    monkeypatch.setattr(sweep, "user_terms", noted)
    said = tuned(options)
    assert len(prompts) == 2
    assert sum(NOTES.strip() in prompt for prompt in prompts) == 1
    assert all(prompt.startswith(f"[system] {SAID}") for prompt in prompts)
    assert recorded["system_prompt"] == SAID
    assert f'each with the system prompt "{SAID}"' in said


async def test_the_core_records_its_part_with_the_system_prompt(options: TuneOptions) -> None:
    model = UserModel.configured(options.answers, with_weights=False)
    card = {"family": "autoregressive", "vocabulary_sha256": model.vocabulary_sha256, "max_prompt_tokens": 2000}
    client = FakeClient(FakeStream(1), **card)
    params = decoding_for(options.answers, model.config)
    await record(model, client, params, 5, system_prompt=SAID)  # type: ignore[arg-type]
    asked = [model.tokenizer.decode(request.prompt_ids) for request in client.opened]
    assert asked == [f"[system] {SAID} [user] {text} [assistant]" for text in PUBLIC_INSTRUCTIONS]


def test_own_questions_are_asked_with_the_system_prompt(
    options: TuneOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Question] = []

    async def answer(_: Agent, question: Question) -> Answer:
        asked.append(question)
        return SimpleNamespace(text="4711")  # type: ignore[return-value]

    monkeypatch.setattr(Agent, "answer", answer)
    (tmp_path / "mine.tsv").write_text("What is my shed code?\t4711\n")
    tuned(replace(options, questions=tmp_path / "mine.tsv"))
    assert {question.conversation.system_prompt for question in asked} == {SAID}
    assert {question.core_conversation.system_prompt for question in asked} == {SAID}


def prepared(options: TuneOptions) -> command.Run:
    return command._prepare(options, Console(file=io.StringIO()), Ledger.in_memory(), list)


def test_the_system_prompt_takes_room_and_a_run_with_another_one_begins_anew(
    options: TuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, fitting = set[str](), UserModel.fitting

    def noted(self: UserModel, *given: Any) -> Any:
        fitted.add(given[3].system_prompt)
        return fitting(self, *given)

    monkeypatch.setattr(UserModel, "fitting", noted)
    prepared(options).kept.add(sweep.SETTINGS[0], [0], [True])
    assert fitted == {SAID}
    assert len(prepared(options).kept) == 1
    other = options.answers.model_copy(update={"system_prompt": "Be brief."})
    assert len(prepared(replace(options, answers=other)).kept) == 0


def test_tuning_uses_the_precision_of_ask(options: TuneOptions) -> None:
    answers = options.answers.model_copy(update={"precision": "bfloat16"})
    assert prepared(replace(options, answers=answers)).user_model.precision == "bfloat16"


def test_tune_offers_what_has_an_effect() -> None:
    shown = CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "300"}).output
    for option, is_there in (("--system-prompt", True), ("--precision", True), ("--private-context", False)):
        assert (option in shown) is is_there


def test_the_reading_check_asks_with_the_system_prompt(options: TuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, terms = list[str](), UserModel.terms

    def noted(self: UserModel, *given: Any, **more: Any) -> Any:
        seen.append(given[4].system_prompt)
        return terms(self, *given, **more)

    monkeypatch.setattr(UserModel, "terms", noted)
    passages, model = read_passages(options.docs[0]), UserModel.configured(options.answers, with_weights=True)
    assert check_reading(model, passages, limit_s=10_000, system_prompt=SAID).questions == len(seen) == 1
    assert seen == [SAID]


def _tokenizer(options: TuneOptions) -> Tokenizer:
    return UserModel.load(options.answers.user_folder, with_weights=False).tokenizer
