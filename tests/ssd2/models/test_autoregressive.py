"""Causal language models as a family: token by token, mixed as §3.2 says, and OPT models out of SSD-2 checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER, block_view, demo_shaped_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.next_token import NextTokenSampler
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound, PromptTooLong, TokenOutOfRange
from ssd2.models.autoregressive import AutoregressiveLM, NextToken
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.convert import export_opt
from ssd2.models.predict import begin, user_terms

PROMPTS = [[1, 40, 41, 42, 43], [1, 50, 51]]
SEEDS = [Seeds.reproducible(3), Seeds.reproducible(4)]
GREEDY = DecodingParams(block_size=1, steps=1, max_tokens=12, projection="greedy")


@pytest.fixture(scope="module")
def opt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt")
    export_opt(demo_shaped_model(5), folder, DEMO_TOKENIZER.read_text())
    return folder


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(6)
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=1782, n_positions=64, n_embd=16, n_layer=2, n_head=2, **ids))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())
    return folder


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {"vocab_size": 1782, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 64}
    shape = {"num_hidden_layers": 3, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **shape, **ids)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.fixture(scope="module", params=["opt", "gpt2"])
def checkpoint(request: pytest.FixtureRequest, opt_folder: Path, gpt2_folder: Path) -> Checkpoint:
    return load_checkpoint({"opt": opt_folder, "gpt2": gpt2_folder}[request.param])


def network(checkpoint: Checkpoint) -> Any:
    assert isinstance(checkpoint.model, AutoregressiveLM)
    return checkpoint.model.network


def answers(
    core: Checkpoint, user: Checkpoint | None, collaboration: CollaborationParams, params: DecodingParams = GREEDY
) -> list[list[int]]:
    terms = (
        user_terms(user.model, [[1, 9, 8, *p[1:]] for p in PROMPTS], PROMPTS, collaboration, "own") if user else None
    )
    return decode_locally(
        begin(core.model, PROMPTS, "own"), terms, collaboration, NextTokenSampler(params, SEEDS, stop_ids=(2,))
    )


@torch.no_grad()
def written_by_hand(step: Any) -> list[list[int]]:
    """The likeliest next token, again and again, each row on its own, without cache or padding."""
    rows = []
    for prompt in PROMPTS:
        answer: list[int] = []
        while len(answer) < 12 and 2 not in answer:
            answer.append(int(step(prompt[1:], answer).argmax()))
        rows.append(answer[: answer.index(2)] if 2 in answer else answer)
    return rows


def test_a_decode_writes_what_the_model_finds_likeliest_token_by_token(checkpoint: Checkpoint) -> None:
    model = network(checkpoint)
    expected = written_by_hand(lambda prompt, answer: model(torch.tensor([[1, *prompt, *answer]])).logits[0, -1])
    assert answers(checkpoint, None, CollaborationParams(0.0)) == expected
    assert len(set(map(tuple, expected))) == 2


def test_two_models_are_mixed_at_every_token(opt_folder: Path, gpt2_folder: Path) -> None:
    core, user = load_checkpoint(opt_folder), load_checkpoint(gpt2_folder)

    def mixed(prompt: list[int], answer: list[int]) -> torch.Tensor:
        logits = [
            network(model)(torch.tensor([[1, *before, *prompt, *answer]])).logits[0, -1]
            for model, before in ((core, []), (user, [9, 8]), (user, []))
        ]
        return 0.6 * logits[0] + 0.4 * 2.5 * logits[1] - 0.4 * 1.5 * logits[2]

    assert answers(core, user, CollaborationParams(0.4, 1.5)) == written_by_hand(mixed)


def test_a_row_does_not_depend_on_the_padding_beside_it(checkpoint: Checkpoint) -> None:
    params = DecodingParams(block_size=1, steps=1, max_tokens=12, top_p=0.9)
    both = answers(checkpoint, None, CollaborationParams(0.0), params)
    for row, prompt in enumerate(PROMPTS):
        alone = decode_locally(
            begin(checkpoint.model, [prompt], "own"),
            None,
            CollaborationParams(0.0),
            NextTokenSampler(params, SEEDS[row : row + 1], stop_ids=(2,)),
        )
        assert alone == [both[row]]


def test_an_ssd2_checkpoint_exported_as_opt_is_the_same_language_model(opt_folder: Path) -> None:
    token_ids = torch.randint(3, 1782, (2, 20), generator=torch.Generator().manual_seed(7))
    expected = demo_shaped_model(5).next_token_logits(token_ids, torch.ones_like(token_ids, dtype=torch.bool))
    with torch.no_grad():
        logits = network(load_checkpoint(opt_folder))(token_ids).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_its_shape_is_read_from_its_config(gpt2_folder: Path, opt_folder: Path) -> None:
    config = load_checkpoint(gpt2_folder).model.config
    assert (config.family, config.block_size, config.max_block_size) == ("autoregressive", 1, 1)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)
    assert config.max_prompt_tokens == 63
    assert load_checkpoint(opt_folder).model.config.pad_token_id == 0
    assert load_checkpoint(opt_folder).sha256 != load_checkpoint(gpt2_folder).sha256


def test_more_than_one_token_at_once_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(InvalidParameter, match="one token at a time"):
        begin(checkpoint.model, PROMPTS, "own").logits(block_view(2, block_size=4))


def test_logits_are_a_function_of_prompt_and_answer_whatever_was_asked_before(checkpoint: Checkpoint) -> None:
    """A core asks for a block again, with other tokens before it, when its guess at them was wrong."""
    predictor = begin(checkpoint.model, PROMPTS, "own")
    for answer in ([], [7], [7, 8], [7, 9], [7, 9], [6], [], [6, 8, 9, 5], [6, 8]):
        answer_ids = torch.tensor([answer, [3, *answer][: len(answer)]], dtype=torch.int64)
        asked = block_view(2, block=len(answer), block_size=1, answer_ids=answer_ids)
        expected = begin(checkpoint.model, PROMPTS, "own").logits(asked)
        torch.testing.assert_close(predictor.logits(asked), expected, atol=1e-5, rtol=1e-5, msg=str(answer))


def test_a_network_that_fails_midway_leaves_no_half_read_cache(checkpoint: Checkpoint) -> None:
    assert isinstance(checkpoint.model, AutoregressiveLM)
    predictor, network = NextToken(checkpoint.model, PROMPTS), checkpoint.model.network
    predictor.logits(block_view(2, block_size=1))
    second = block_view(2, block=1, block_size=1, answer_ids=torch.tensor([[7], [8]]))
    failing = network.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)  # every layer has written to the cache then
    with pytest.raises(ZeroDivisionError):
        predictor.logits(second)
    failing.remove()
    expected = NextToken(checkpoint.model, PROMPTS).logits(second)
    torch.testing.assert_close(predictor.logits(second), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "error"), [([], InvalidParameter), ([1] * 400, PromptTooLong), ([1, 1782], TokenOutOfRange)]
)
def test_a_prompt_that_cannot_be_read_is_refused(checkpoint: Checkpoint, prompt: list[int], error: type) -> None:
    assert isinstance(checkpoint.model, AutoregressiveLM)
    with pytest.raises(error):
        NextToken(checkpoint.model, [prompt])


def test_an_answer_that_outgrows_the_positions_is_refused(gpt2_folder: Path) -> None:
    core = load_checkpoint(gpt2_folder)
    params = DecodingParams(block_size=1, steps=1, max_tokens=80, projection="greedy")
    with pytest.raises(PromptTooLong, match="at most 63"):
        decode_locally(
            begin(core.model, [[1] * 50], "own"),
            None,
            CollaborationParams(0.0),
            NextTokenSampler(params, SEEDS[:1], stop_ids=()),
        )


def test_damaged_folders_are_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    config = json.loads((gpt2_folder / "config.json").read_text())
    (tmp_path / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFound, match="no weights"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointInvalid, match="damaged"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    with pytest.raises(CheckpointInvalid, match="eos_token_id"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(CheckpointInvalid, match="does not have models of the kind"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_layer": 10**9}, "n_layer is 1000000000"),
        ({"n_layer": 1e9}, r"n_layer is 1000000000\.0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is"),
        ({"n_embd": 2**40}, "n_embd is"),
        ({"n_positions": 10**9}, "n_positions is"),
        ({"vocab_size": 10**9}, "vocab_size is"),
        ({"text_config": {"num_local_experts": 10**9}}, "num_local_experts is"),
        ({"num_labels": 10**9}, "num_labels is"),
        ({"n_layer": 900}, "do not fit its config.json: it describes [0-9,]+ weights"),
        ({"eos_token_id": 1782}, "outside the vocabulary"),
        ({"pad_token_id": -5}, "pad_token_id is -5"),
    ],
)
def test_sizes_that_no_model_has_or_its_files_do_not_hold_are_refused_at_once(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
) -> None:
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((gpt2_folder / name).read_bytes())
    config = json.loads((gpt2_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    monkeypatch.setattr(GPT2LMHeadModel, "from_pretrained", pytest.fail)
    with pytest.raises(CheckpointInvalid, match=says):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_attention_heads", 3),
        ("vocab_size", None),
        ("model_type", ["llama"]),
        ("head_dim", 0),
        ("num_key_value_heads", 0),
        ("eos_token_id", "x"),
        ("dtype", "bogus"),
        ("hidden_act", "bogus"),
        ("_attn_implementation", "flash_attention_2"),
    ],
)
def test_wrong_values_in_a_config_are_an_error_that_names_the_file(llama_folder: Path, name: str, value: Any) -> None:
    change_config(llama_folder, **{name: value})
    says = rf"config\.json in {llama_folder} describes no model: .+; correct it, or download the model again"
    with pytest.raises(CheckpointInvalid, match=says):
        load_checkpoint(llama_folder)


@pytest.mark.parametrize(("layers", "says"), [(2, r"contain model\.layers\.2, which"), (0, "0 layers")])
def test_a_config_that_leaves_out_stored_layers_is_refused(llama_folder: Path, layers: int, says: str) -> None:
    load_checkpoint(llama_folder)
    change_config(llama_folder, num_hidden_layers=layers)
    with pytest.raises(CheckpointInvalid, match=says):
        load_checkpoint(llama_folder)


def test_stored_layers_without_the_networks_prefix_are_counted_too(tmp_path: Path, gpt2_folder: Path) -> None:
    """As the published GPT-2 is stored."""
    GPT2LMHeadModel.from_pretrained(gpt2_folder).transformer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())
    load_checkpoint(tmp_path)
    change_config(tmp_path, n_layer=1)
    with pytest.raises(CheckpointInvalid, match=r"h\.1, which"):
        load_checkpoint(tmp_path)


def test_a_damaged_tokenizer_of_an_older_kind_is_an_error(llama_folder: Path) -> None:
    (llama_folder / "tokenizer.json").unlink()
    (llama_folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises((CheckpointInvalid, ModelNotFound), match=str(llama_folder)):
        load_checkpoint(llama_folder)


def test_an_exported_model_has_checksums_that_loading_checks(opt_folder: Path, tmp_path: Path) -> None:
    for file in opt_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    load_checkpoint(tmp_path)
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-100] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors is damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {"AutoConfig": "own.OwnConfig"},
            "consists of Python code of its own, which is never run; use a model of a kind",
        ),
        ({}, "does not have models of the kind in .*, and Python code of a model's own is never run; use a model"),
    ],
)
def test_a_models_own_code_is_neither_run_nor_asked_about(
    opt_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: dict[str, str], says: str
) -> None:
    for file in opt_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    names = {**names, "AutoModelForCausalLM": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": names}))
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(CheckpointInvalid, match=says):
        load_checkpoint(tmp_path)
