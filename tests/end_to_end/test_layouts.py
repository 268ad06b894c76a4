"""Tiny random models of the layouts of Gemma 3, Llama 3, OLMo 2 and Qwen3, over gRPC: what transformers makes of them.

Their folders are as published ones: lists of stops, chat templates without a system role or with a switch for thinking,
sliding windows that prompts are longer than, a text part within a model that sees too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from core_server.config import ServerConfig
from core_server.engine.lanes import SingleLane, lane_for
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.logits.format import FLOAT16
from ssd2.models.checkpoint import load_checkpoint
from tests.conftest import DEMO_TOKENIZER
from tests.core_server.conftest import engine_in_this_process, serving
from tests.ssd2.models.test_chat import CHATML, GEMMA, THINKING
from tests.ssd2.models.test_published_layouts import GEMMA_3_SIGHT, SIZES
from user_agent.answering.conversation import Conversation
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

SHAPE = {**SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
VOCAB, WINDOW, TOKENS = SIZES["vocab_size"], 16, 10
MARKS = ("<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>")
PASSAGES = (Passage("The key is in the shed behind the house, under the blue pot.", Path("a.md"), 1),)
INSTRUCTION = "Where did I put the spare key of the shed last summer, and who knows about it?"


def _gemma(**changes: Any) -> Any:
    text = {**SHAPE, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"], **changes}
    return transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(text_config=text, **GEMMA_3_SIGHT))


def _gemma_text(**changes: Any) -> Any:
    kinds = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**{**SHAPE, **kinds, **changes}))


def _llama(**changes: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SHAPE, **changes}))


def _olmo(**changes: Any) -> Any:
    shape = {key: value for key, value in SHAPE.items() if key != "head_dim"}
    return transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**{**shape, **changes}))


def _qwen(**changes: Any) -> Any:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{**SHAPE, **changes}, tie_word_embeddings=True))


@dataclass(frozen=True)
class Layout:
    """One series of models.

    Attributes:
        make: its network, of random weights.
        template: its chat template.
        is_list: whether its files name several stops.
    """

    make: Callable[..., Any]
    template: str
    is_list: bool


LAYOUTS = {
    "gemma 3, text part within": Layout(_gemma, GEMMA, True),
    "gemma 3, text only": Layout(_gemma_text, GEMMA, True),
    "llama 3": Layout(_llama, CHATML, True),
    "olmo 2": Layout(_olmo, CHATML, False),
    "qwen 3": Layout(_qwen, THINKING, True),
}


def saved(layout: Layout, folder: Path, seed: int = 5, stops: tuple[int, ...] = (2,), **changes: Any) -> Any:
    """Write a folder of the layout, and return its network."""
    torch.manual_seed(seed)
    network = layout.make(**changes).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:  # as sure of its tokens as a trained one
            torch.nn.init.normal_(parameter, std=0.6)
        elif "post_" in name:  # norms behind layers: else the last token outweighs them, and is written for ever
            torch.nn.init.constant_(parameter, 4.0)
    embeddings = network.get_input_embeddings().weight
    if network.get_output_embeddings().weight is embeddings:
        torch.nn.init.normal_(embeddings, std=0.15)  # for the same reason
    network.save_pretrained(folder)
    backend = Backend.from_file(str(DEMO_TOKENIZER))
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    backend.save(str(folder / "tokenizer.json"))
    kept = {"chat_template": layout.template, "bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    generation = {"eos_token_id": list(stops) if layout.is_list else stops[0], "bos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return network


def generated(network: Any, prompt: list[int], stops: tuple[int, ...], hidden: range = range(0)) -> list[int]:
    """Transformers' own greedy answer, before its end."""
    with torch.no_grad():
        output = network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=list(stops),
            pad_token_id=0,
            suppress_tokens=list(hidden) or None,
        )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens[:-1] if tokens[-1] in stops else tokens


def question(user: UserModel, lambda_user: float, speculation: int = 2) -> Question:
    asked = Conversation("You answer in one sentence.")
    params = DecodingParams.for_model(user.config, max_tokens=TOKENS, projection="greedy")
    return Question(
        INSTRUCTION,
        PASSAGES,
        CollaborationParams(lambda_user),
        params,
        Seeds.reproducible(1),
        logits_format=FLOAT16,
        speculation=speculation,
        conversation=asked,
        core_conversation=asked,
    )


@asynccontextmanager
async def core_of(folder: Path) -> AsyncIterator[CoreClient]:
    core = LoadedModel("core", load_checkpoint(folder))
    assert not isinstance(lane_for(core.checkpoint.model, 2), SingleLane), "it is served for many"
    async with (
        engine_in_this_process(core, slots=2) as engine,
        serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (_, agent),
        CoreClient(f"127.0.0.1:{agent.port}", Ledger.in_memory()) as client,
    ):
        yield client


async def tokens_of(user: UserModel, client: CoreClient, asked: Question) -> list[int]:
    return [token.token_id for token in (await Agent(user, client).answer(asked)).tokens]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


async def test_a_published_layout_writes_what_transformers_generates(layout: Layout, tmp_path: Path) -> None:
    network = saved(layout, tmp_path)
    user = UserModel.load(tmp_path, with_weights=True)
    asked = question(user, 0.0)
    prompts = {
        0.0: user.core_prompt(INSTRUCTION, asked.core_conversation),
        1.0: user.prompt(INSTRUCTION, PASSAGES, asked.conversation),
    }
    assert all(len(prompt) > 2 * WINDOW for prompt in prompts.values())
    stops = user.config.stop_ids
    async with core_of(tmp_path) as client:
        for lambda_user, prompt in prompts.items():
            found = await tokens_of(
                user, client, replace(asked, collaboration=CollaborationParams(lambda_user, alpha=0.0))
            )
            assert found == generated(network, prompt, stops)
            assert len(found) > 4, "or nothing is shown"


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.is_list])
async def test_each_of_several_stops_ends_an_answer(name: str, tmp_path: Path) -> None:
    network = saved(LAYOUTS[name], tmp_path)
    user = UserModel.load(tmp_path, with_weights=True)
    prompt = user.core_prompt(INSTRUCTION, question(user, 0.0).core_conversation)
    whole = generated(network, prompt, (2,))
    stop = next(token for at, token in enumerate(whole) if at >= 2 and token not in whole[:at])
    saved(LAYOUTS[name], tmp_path, stops=(2, stop))
    again = UserModel.load(tmp_path, with_weights=True)
    assert stop in again.config.stop_ids
    async with core_of(tmp_path) as client:
        assert await tokens_of(again, client, question(again, 0.0)) == whole[: whole.index(stop)]


async def test_a_pair_whose_sizes_differ_in_v_by_64_writes_with_the_tokens_of_both(tmp_path: Path) -> None:
    """As Gemma 3: the larger models have a part that sees, and 64 rows more."""
    core, small = tmp_path / "core", tmp_path / "user"
    network = saved(LAYOUTS["gemma 3, text part within"], core, vocab_size=VOCAB + 64)
    saved(LAYOUTS["gemma 3, text only"], small, seed=4)
    user = UserModel.load(small, with_weights=True)
    asked = question(user, 0.0)
    prompt = user.core_prompt(INSTRUCTION, asked.core_conversation)
    async with core_of(core) as client:
        found = await tokens_of(user, client, asked)
        mixed = await tokens_of(user, client, replace(asked, collaboration=CollaborationParams(0.5, 1.0)))
    assert found == generated(network, prompt, user.config.stop_ids, hidden=range(VOCAB, VOCAB + 64))
    assert mixed
    assert max(mixed) < VOCAB
