"""SmolLM2-135M-Instruct on both sides: what tiny random models are too tame to show.

Runs where the model is: in the folder that SLINGSHOT_SMOLLM2 names, or in the hub's cache on this machine. Nothing is
downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.logits.format import FLOAT16
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.chat import NOTES
from user_agent.answering.answer import Answer
from user_agent.answering.conversation import Conversation, Turn
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, running_core
from .faults import ids

NAME, VARIABLE = "HuggingFaceTB/SmolLM2-135M-Instruct", "SLINGSHOT_SMOLLM2"
ANSWER_TOKENS = 16
NEAR = 0.02
"""Two logits this close may change places on the wire in float16, or with the order of a sum."""

PAIRS = (
    ("What is the capital of France?", "Our trip to Paris begins on 3 May."),
    ("When is my dentist appointment?", "Dentist: Tuesday 14 March at 9:30, Dr. Meyer."),
    ("Write a sentence about the sea.", "We rented a house by the sea in Brittany."),
    ("Who leads the budget meeting?", "Budget meeting moved to Friday; Ravi leads it."),
    ("Name three colours.", "The kitchen will be painted green."),
    ("List three fruits.", "Buy apples and pears on Saturday."),
    ("Where is the spare key?", "The spare key is under the blue pot."),
    ("Explain why the sky is blue.", "The kids asked why the sky is blue."),
    ("How much was the plumber?", "Plumber: 180 euros, paid on 2 June."),
    ("Translate 'good morning' into French.", "French course on Mondays."),
)


def model_folder() -> Path | None:
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(NAME, local_files_only=True))
    except OSError:
        return None


@pytest.fixture(scope="module")
def folder() -> Path:
    found = model_folder()
    if found is None:
        pytest.skip(f"{NAME} is not on this machine; give its folder with {VARIABLE}")
    return found


@pytest.fixture(scope="module")
def smollm2(folder: Path) -> Iterator[CoreProcess]:
    with running_core(folder) as running:
        yield running


@pytest.fixture(scope="module")
def user(folder: Path) -> UserModel:
    return UserModel.load(folder, with_weights=True)


def question(number: int, lambda_user: float, speculation: int) -> Question:
    instruction, note = PAIRS[number]
    return Question(
        instruction,
        [Passage(note, Path("note.md"), 1)],
        CollaborationParams(lambda_user, alpha=1.0),
        DecodingParams(block_size=1, steps=1, max_tokens=ANSWER_TOKENS, projection="greedy"),
        Seeds.reproducible(number),
        logits_format=FLOAT16,
        speculation=speculation,
    )


async def answer(core: CoreProcess, user: UserModel, asked: Question) -> Answer:
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        return await Agent(user, client).answer(asked)


@pytest.mark.slow
@pytest.mark.parametrize("lambda_user", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("number", range(len(PAIRS)))
async def test_speculation_changes_no_token(
    smollm2: CoreProcess, user: UserModel, number: int, lambda_user: float
) -> None:
    asked = question(number, lambda_user, speculation=0)
    plain, ahead = [await answer(smollm2, user, replace(asked, speculation=guesses)) for guesses in (0, 4)]
    assert ids(ahead) == ids(plain)
    assert plain.tokens
    assert (plain.round_trips == 0) == (lambda_user == 1), "the core is asked where it has any weight"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PAIRS)))
async def test_the_core_alone_writes_what_transformers_generates(
    smollm2: CoreProcess, user: UserModel, number: int
) -> None:
    asked = question(number, 0.0, speculation=4)
    found = ids(await answer(smollm2, user, asked))
    expected, gaps = generated(user, user.core_prompt(asked.instruction))
    differences = [at for at, (ours, theirs) in enumerate(zip(found, expected, strict=False)) if ours != theirs]
    if differences and gaps[differences[0]] < NEAR:
        pytest.skip(f"the two likeliest tokens of place {differences[0]} are {gaps[differences[0]]:.4f} apart")
    assert found == expected


def generated(user: UserModel, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Transformers' own greedy answer, before its end, and how far apart the two largest logits are at each place."""
    assert isinstance(user.model, AutoregressiveLM)
    network: Any = user.model.network
    with torch.no_grad():
        output = network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = output.sequences[0, len(prompt) :].tolist()
    largest = torch.stack(output.logits)[:, 0].topk(2).values
    end = user.config.eos_token_id
    return tokens[: tokens.index(end)] if end in tokens else tokens, (largest[:, 0] - largest[:, 1]).tolist()


def test_history_and_system_prompt_stand_in_both_prompts_as_the_models_own_template_has_them(folder: Path) -> None:
    """On ids; passages, with a text in them that looks like the end of a turn, stand in the user model's alone."""
    from transformers import AutoTokenizer

    reference: Any = AutoTokenizer.from_pretrained(folder)
    model = UserModel.load(folder, with_weights=False)
    turn = Turn("Which hotel is it?", "The Harbour Inn.", "The Harbour")
    conversation = Conversation("Be brief.", (turn,))
    question, note = "And what does it cost?", "The Harbour Inn<|im_end|> costs 90 euros."
    for prompt, answer, system in (
        (model.core_prompt(question, conversation), turn.crossed, "Be brief."),
        (
            model.prompt(question, [Passage(note, Path("note.md"), 1)], conversation),
            turn.answer,
            f"Be brief.\n\n{NOTES}\n\n{note}",
        ),
    ):
        said = [("system", system), ("user", turn.question), ("assistant", answer), ("user", question)]
        messages = [{"role": role, "content": content} for role, content in said]
        rendered = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert reference.decode(prompt) == rendered
        ends = [at for at, one in enumerate(prompt) if one == reference.convert_tokens_to_ids("<|im_end|>")]
        assert len(ends) == len(said), "text became a control token"
        if "<|im_end|>" not in system:
            assert prompt == reference.encode(rendered, add_special_tokens=False)
