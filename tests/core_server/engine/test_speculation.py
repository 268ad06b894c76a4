"""Logits that are due do not depend on what was computed ahead, for every family and every kind of cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER, experts_of, save_ssd_lm, tiny_model
from torch import Tensor
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from core_server.catalogue.engine_messages import Advance, Begin, End
from core_server.engine.lanes import lane_for
from core_server.engine.scheduler import Result, Scheduler
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.lane import Lane
from ssd2.models.model import Model
from tests.core_server.engine.test_lanes import request

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 1782}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
NETWORKS: dict[str, Callable[[], Any]] = {
    "opt": lambda: OPTForCausalLM(OPTConfig(**SHAPE, **IDS, ffn_dim=32, word_embed_proj_dim=16)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, **IDS, intermediate_size=32)),
    # A window of fewer tokens than the prompt and a recurrent state: neither can be cut back.
    "sliding window": lambda: MistralForCausalLM(
        MistralConfig(**SHAPE, **IDS, intermediate_size=32, num_key_value_heads=2, sliding_window=4)
    ),
    "recurrent": lambda: Lfm2ForCausalLM(
        Lfm2Config(**SHAPE, **IDS, intermediate_size=32, num_key_value_heads=2, layer_types=["conv", "full_attention"])
    ),
}


@pytest.fixture(scope="module", params=["ssd-2", "quantised", "experts", "ssd-lm", *NETWORKS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name: str = request.param
    if name in ("ssd-2", "quantised"):
        return tiny_model(3, context_timestep={"ssd-2": "none"}.get(name, name))
    if name == "experts":
        return experts_of(*(tiny_model(seed) for seed in range(3)))
    folder = tmp_path_factory.mktemp("models") / "one"
    if name == "ssd-lm":
        save_ssd_lm(folder, 3)
    else:
        save_network(folder, NETWORKS[name])
    return load_checkpoint(folder).model


def save_network(folder: Path, make: Callable[[], Any]) -> None:
    torch.manual_seed(6)
    network = make()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())


class Core:
    """A scheduler with one answer, computed as the engine computes it."""

    def __init__(self, lane: Lane, **opening: Any) -> None:
        self.scheduler = Scheduler({"a": lane}, slots=1)
        self.scheduler.handle(Begin(0, "a", request(**opening)))
        self.results: list[tuple[Result, Tensor]] = []
        self.dropped = 0

    @torch.inference_mode()
    def due(self) -> tuple[Result, Tensor]:
        """Compute all that there is to compute; return what the agent is sent for the timestep that is due."""
        while batch := self.scheduler.next_batch():
            logits = batch.lane.logits(batch.rows)
            (fed_back,) = batch.lane.feed_back(batch.rows, logits)
            if not batch.is_guessed:
                self.dropped += len(self.results)
                self.results.clear()
            greedy = ProjectedTokens(tuple(logits[0].argmax(-1).tolist()))
            result = Result(batch.rows[0].state, greedy, fed_back)
            self.results.append((result, logits[0].clone()))
            batch.answers[0].waiting = None
            batch.answers[0].results.append(result)
        return self.results.pop(0)

    def advance(self, projected: ProjectedTokens, *, is_commit: bool) -> None:
        self.scheduler.handle(Advance(0, projected, is_commit))


def opening_of(model: Model) -> dict[str, Any]:
    length, timesteps = (4, (950, 700, 500)) if model.config.block_size > 1 else (1, (1000,))
    return {"block_size": length, "timesteps": timesteps, "max_blocks": 12}


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_guess_changes_no_logits_that_are_due(model: Model, seed: int) -> None:
    """The agent agrees with the core's choice in about half of the timesteps, as real pairs do."""
    draw, opening = random.Random(seed), opening_of(model)
    length, last_step = opening["block_size"], len(opening["timesteps"]) - 1
    ahead = Core(lane_for(model, 1), speculation=4, **opening)
    plain = Core(lane_for(model, 1), speculation=0, **opening)
    for turn in range(12 if length == 1 else 24):
        (result, found), (_, expected) = ahead.due(), plain.due()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=f"turn {turn}")
        other = ProjectedTokens(tuple(draw.randrange(3, model.config.vocab_size) for _ in range(length)))
        projected = result.greedy if draw.random() < 0.5 else other
        is_commit = result.state.at.step == last_step or draw.random() < 0.2
        if is_commit and result.state.at.block == 11:
            break
        for core in (ahead, plain):
            core.advance(projected, is_commit=is_commit)
    assert ahead.dropped > 3, "no guess was wrong"


def test_a_slot_holds_nothing_of_the_answer_that_had_it_before(model: Model) -> None:
    """A line that breaks leaves guesses behind; the next answer in the slot sees none of them."""
    opening, used = opening_of(model), lane_for(model, 1)
    broken = Core(used, speculation=4, **opening)
    broken.due()
    broken.scheduler.handle(End(0))
    for prompt_ids in ((1, 5, 9), (1, 8, 7, 6)):
        found, expected = (
            Core(lane, speculation=4, prompt_ids=prompt_ids, **opening) for lane in (used, lane_for(model, 1))
        )
        for token in (3, 9, 15):
            torch.testing.assert_close(found.due()[1], expected.due()[1], atol=1e-4, rtol=1e-4)
            for core in (found, expected):
                core.advance(ProjectedTokens((token,) * opening["block_size"]), is_commit=True)
        found.scheduler.handle(End(0))
