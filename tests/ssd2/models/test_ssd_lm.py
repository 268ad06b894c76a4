"""SSD-LM from its published layout, and its equations 3.10 to 3.17 against values worked out without torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import block_view
from transformers import RobertaConfig, RobertaForMaskedLM

from ssd2.algorithm.block_view import ProjectedAt
from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.noise import gaussian_noise
from ssd2.algorithm.noise_schedule import alpha_bar
from ssd2.algorithm.noised_simplex import x_t_of
from ssd2.algorithm.nucleus import sample
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.sampler import project
from ssd2.algorithm.simplex import tokens_to_simplex
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound, PromptTooLong
from ssd2.models.checkpoint import Checkpoint, load_checkpoint, load_config_and_tokenizer
from ssd2.models.predict import begin, user_terms
from ssd2.models.ssd_lm import SSDLM

WORDS = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "<mask>"]
V, D, POSITIONS = len(WORDS), 16, 40


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with the files of xhan77/ssdlm, pickled weights and no tokenizer.json."""
    folder = tmp_path_factory.mktemp("ssdlm")
    torch.manual_seed(0)
    shape = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = RobertaConfig(vocab_size=V, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, **shape)
    network: Any = RobertaForMaskedLM(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    config.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    torch.save({"module.weight": torch.randn(D, V)}, folder / "embed_sum_layer.pt")
    torch.save({"weight": torch.randn(D, 1), "bias": torch.randn(D)}, folder / "timestep_layer.pt")
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture(scope="module")
def checkpoint(published: Path) -> Checkpoint:
    return load_checkpoint(published)


def copy_of(published: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in published.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_published_layout_loads(checkpoint: Checkpoint) -> None:
    config = checkpoint.model.config
    assert isinstance(checkpoint.model, SSDLM)
    assert (config.family, config.vocab_size, config.block_size) == ("ssd-lm", V, 25)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert (config.default_steps, config.measured.stop) == (1000, 0.0)
    assert config.max_prompt_tokens_before(10) == POSITIONS - 10
    assert checkpoint.tokenizer.encode("cab") == [6, 4, 5]


def test_settings_measured_with_an_ssd_lm_are_read_from_its_config(published: Path, tmp_path: Path) -> None:
    folder = copy_of(published, tmp_path / "measured")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "stop": 0.2, "steps": 100, "patience": 3}))
    read, _ = load_config_and_tokenizer(folder)
    assert read.measured == MeasuredDecoding(0.2, 100, 3)
    params = DecodingParams.for_model(read)
    assert (params.stop, params.steps, params.patience) == (0.2, 100, 3)


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_logits_are_those_of_one_bidirectional_pass(published: Path, checkpoint: Checkpoint) -> None:
    """Eq. 3.10 and footnote 3; the sums of embeddings are made here, the published files read here."""
    network: Any = RobertaForMaskedLM(RobertaConfig.from_pretrained(published)).eval()
    network.load_state_dict(torch.load(published / "pytorch_model.bin", weights_only=True))
    w_diff = torch.load(published / "embed_sum_layer.pt", weights_only=True)["module.weight"].numpy()
    w_time = torch.load(published / "timestep_layer.pt", weights_only=True)
    x_t = x_t_of(block_view(block_size=6, timestep=700, noise_seeds=(9,)), V)[0].numpy()
    block = softmax(x_t) @ w_diff.T + (w_time["weight"][:, 0] * 0.7 + w_time["bias"]).numpy()
    words = network.roberta.embeddings.word_embeddings.weight.detach().numpy()
    inputs = torch.tensor(np.concatenate([words[[0, 9, 12]], block]), dtype=torch.float32)
    with torch.no_grad():
        expected = network(inputs_embeds=inputs[None]).logits[0, 3:]

    view = block_view(2, block_size=6, timestep=700, noise_seeds=(9, 9))
    for prompts, row in (([[0, 9, 12], [0]], 0), ([[0, 3, 4, 5, 6, 7], [0, 9, 12]], 1)):
        logits = begin(checkpoint.model, prompts, "own").logits(view)[row]
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)


def test_the_block_sees_what_comes_behind_it_and_the_timestep(checkpoint: Checkpoint) -> None:
    before = ProjectedTokens((4, 5, 6, 7, 8)), ProjectedTokens((4, 5, 6, 7, 20))

    def first_row(projected: ProjectedTokens, timestep: int, prompt: list[int]) -> torch.Tensor:
        trail = (ProjectedAt(timestep + 1, (projected,)),)
        view = block_view(block_size=5, step=1, timestep=timestep, trail=trail)
        return begin(checkpoint.model, [prompt], "own").logits(view)[0, 0]

    reference = first_row(before[0], 100, [0, 9])
    others = first_row(before[1], 100, [0, 9]), first_row(before[0], 20, [0, 9]), first_row(before[0], 100, [0, 10])
    for other in others:
        assert (other - reference).abs().max() > 1e-3


LOGITS = [[0.0, 2.0, 1.0, -1.0], [3.0, 2.9, -5.0, -5.0]]
"""Softmax of the first row: 0.0871, 0.6439, 0.2369, 0.0321; of the second: 0.5248, 0.4749, 0.0002, 0.0002."""


def test_projections_are_those_of_equations_3_11_to_3_13() -> None:
    logits = torch.tensor(LOGITS)
    greedy = project(logits[None], DecodingParams(2, projection="greedy"), [], 0, 1)
    assert tokens_to_simplex(greedy.rows, 2, 4, 5.0).tolist() == [[[-5, 5, -5, -5], [5, -5, -5, -5]]]  # 3.11
    # 3.13: tokens 1 and 2 are the first to reach 0.7 in the first row, 0 and 1 in the second.
    for top_p, expected in ((0.7, [[-5, 5, 5, -5], [5, 5, -5, -5]]), (0.2, [[-5, 5, -5, -5], [5, -5, -5, -5]])):
        several = project(logits[None], DecodingParams(2, projection="multi-hot", top_p=top_p), [], 0, 1)
        assert tokens_to_simplex(several.rows, 2, 4, 5.0)[0].tolist() == expected
    # 3.12: renormalised over the nucleus, token 1 has 0.7311 of the first row, token 0 0.5250 of the second.
    for uniform, tokens in (((0.73, 0.52), (1, 0)), ((0.74, 0.53), (2, 1))):
        assert sample(logits, torch.tensor(uniform), 0.7).tolist() == list(tokens)


def schedule(t: float) -> float:
    """Eq. 3.17, s = 1e-4."""
    return math.cos((t + 1e-4) / (1 + 1e-4) * math.pi / 2) ** 2 / math.cos(1e-4 / (1 + 1e-4) * math.pi / 2) ** 2


def test_the_schedule_is_that_of_equation_3_17() -> None:
    t = torch.tensor([0, 1, 250, 500, 900, 1000])
    assert alpha_bar(t).tolist() == pytest.approx([schedule(int(i) / 1000) for i in t], abs=1e-7)
    # cos²(π/8) = 0.853553, cos²(π/4) = 0.5: with s = 1e-4 a ten-thousandth lower.
    assert alpha_bar(t).tolist()[2:4] == pytest.approx([0.853553, 0.5], abs=2e-4)


def test_a_decode_follows_equations_3_14_and_3_15_down_to_t_1(checkpoint: Checkpoint) -> None:
    """x_T is noise alone; x_{t-1} = sqrt(ᾱ_{t-1}) ŵ_t + sqrt(1 - ᾱ_{t-1}) z, z ~ N(0, K²I)."""
    params = DecodingParams.for_model(
        checkpoint.model.config, block_size=5, steps=10, max_tokens=5, projection="greedy"
    )
    predictor = begin(checkpoint.model, [[0, 9, 12]], "own")
    sampler, x0_hat, seen = SimplexSampler(params, [Seeds(3, 4)], stop_ids=()), None, []
    while view := sampler.due:
        z = 5 * gaussian_noise([3], block=0, timestep=view.timestep, length=5, vocab_size=V)[0].numpy()
        share = 0.0 if x0_hat is None else schedule(view.timestep / 1000)
        expected = z if x0_hat is None else math.sqrt(share) * x0_hat + math.sqrt(1 - share) * z
        np.testing.assert_allclose(x_t_of(view, V)[0].numpy(), expected, atol=1e-4)
        logits = predictor.logits(view)
        x0_hat = np.where(np.arange(V) == logits[0].numpy().argmax(-1)[:, None], 5.0, -5.0)
        seen.append(view.timestep)
        sampler.step(logits)
    assert seen == list(range(1000, 0, -100))
    assert sampler.answers == [x0_hat.argmax(-1).tolist()]


@pytest.mark.parametrize("block_size", [3, 8, 12])
@pytest.mark.parametrize("steps", [4, 20])
def test_any_block_size_and_number_of_timesteps_decodes(checkpoint: Checkpoint, block_size: int, steps: int) -> None:
    params = DecodingParams.for_model(checkpoint.model.config, block_size=block_size, steps=steps, max_tokens=24)
    answer = decode_locally(
        begin(checkpoint.model, [[0, 9, 12]], "own"),
        user_terms(checkpoint.model, [[0, 7, 8, 9, 12]], [[0, 9, 12]], CollaborationParams(0.3, 1.0), "own"),
        CollaborationParams(0.3, 1.0),
        SimplexSampler(params, [Seeds.reproducible(1)], stop_ids=()),
    )[0]
    assert len(answer) == 24


def test_an_answer_that_outgrows_the_positions_is_refused(checkpoint: Checkpoint) -> None:
    predictor = begin(checkpoint.model, [[0] * 12], "own")
    full = block_view(block=1, block_size=10, answer_ids=torch.zeros(1, 19, dtype=torch.int64))
    with pytest.raises(PromptTooLong, match=r"31 \+ 10 tokens"):
        predictor.logits(full)
    with pytest.raises(InvalidParameter, match="empty"):
        begin(checkpoint.model, [[]], "own")


@pytest.mark.parametrize(
    ("file", "content", "error", "says"),
    [
        ("timestep_layer.pt", None, ModelNotFound, "no timestep_layer.pt"),
        ("timestep_layer.pt", b"junk", CheckpointInvalid, "timestep_layer.pt"),
        ("embed_sum_layer.pt", b"junk", CheckpointInvalid, "embed_sum_layer.pt"),
        ("pytorch_model.bin", None, ModelNotFound, "no weights"),
        ("pytorch_model.bin", b"junk", CheckpointInvalid, "damaged"),
        ("config.json", b'{"model_type": "gpt2"}', CheckpointInvalid, "an SSD-LM is a RoBERTa"),
        ("config.json", b'{"model_type": "roberta", "pad_token_id": null}', CheckpointInvalid, "lacks pad_token_id"),
        ("vocab.json", None, ModelNotFound, "no tokenizer"),
    ],
)
def test_a_damaged_or_incomplete_checkpoint_is_named(
    published: Path, tmp_path: Path, file: str, content: bytes | None, error: type[Exception], says: str
) -> None:
    folder = copy_of(published, tmp_path / "model")
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    with pytest.raises(error, match=says):
        load_checkpoint(folder)


def test_layers_of_another_width_are_refused(published: Path, tmp_path: Path) -> None:
    folder = copy_of(published, tmp_path / "model")
    torch.save({"weight": torch.randn(D + 1, V)}, folder / "embed_sum_layer.pt")
    with pytest.raises(CheckpointInvalid, match="of another model"):
        load_checkpoint(folder)


def test_every_file_of_the_checkpoint_is_in_its_fingerprint(
    published: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = copy_of(published, tmp_path / "model")
    torch.save({"weight": torch.randn(D, 1), "bias": torch.randn(D)}, folder / "timestep_layer.pt")
    assert load_checkpoint(folder).sha256 != checkpoint.sha256
