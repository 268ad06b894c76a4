"""OPT weights as SSD-2: the context is encoded as OPT would, and what cannot be represented is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import block_view
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from ssd2.cli import app
from ssd2.errors import CheckpointInvalid, ModelNotFound
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.convert import convert_opt
from ssd2.models.predict import begin

SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 40,
}


def save_opt(folder: Path, **changes: Any) -> Any:
    """A random OPT with a tokenizer that, as OPT's does, begins every text with </s>."""
    torch.manual_seed(0)
    opt: Any = OPTForCausalLM(OPTConfig(**{**SHAPE, **changes}))
    opt.eval()
    for parameter in opt.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    opt.save_pretrained(folder)
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["the small model helps the large one"] * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    special_tokens = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=backend, **special_tokens).save_pretrained(folder)
    return opt


@pytest.fixture(scope="module")
def opt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt")
    save_opt(folder)
    return folder


@pytest.fixture(scope="module")
def opt(opt_folder: Path) -> Any:
    model: Any = OPTForCausalLM.from_pretrained(opt_folder)
    return model.eval()


@pytest.fixture(scope="module")
def converted_folder(opt_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert_opt(str(opt_folder), folder, block_size=4)
    return folder


@pytest.fixture(scope="module")
def converted(converted_folder: Path) -> Checkpoint:
    return load_checkpoint(converted_folder)


@pytest.fixture
def copy_of_opt(opt_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(opt_folder, tmp_path / "opt"))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@dataclass
class Seen:
    """What one layer is given to keep."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.keys, self.values = keys, values
        return keys, values


def context_hidden(
    converted: Checkpoint, token_ids: Tensor, mask: Tensor, t: int, seen: Sequence[Seen] | None = None
) -> Tensor:
    """Hidden states of a context, of which a decode keeps only the keys and values."""
    model = converted.model
    hidden = model.embed_context(token_ids, model.prompt_positions(mask), torch.full((len(token_ids),), t))
    length = token_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = causal & mask[:, None, :] | torch.eye(length, dtype=torch.bool)
    return model.transformer(hidden, visible[:, None], seen)


@pytest.mark.parametrize("t", [1, 430, 1000])
def test_a_converted_model_encodes_a_context_as_opt_does_at_every_timestep(
    converted: Checkpoint, opt: Any, t: int
) -> None:
    token_ids = torch.randint(3, 300, (2, 11), generator=torch.Generator().manual_seed(1))
    expected = opt.model(token_ids).last_hidden_state
    hidden = context_hidden(converted, token_ids, torch.ones_like(token_ids, dtype=torch.bool), t)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(converted.model.logits(hidden), opt(token_ids).logits, atol=1e-4, rtol=1e-4)


def test_a_converted_model_is_still_the_language_model_that_opt_is(converted: Checkpoint, opt: Any) -> None:
    token_ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(5))
    mask = torch.arange(9) < torch.tensor([[9], [4], [7]])
    token_ids[~mask] = 1
    expected = opt(token_ids, attention_mask=mask.long()).logits
    logits = converted.model.next_token_logits(token_ids, mask)
    torch.testing.assert_close(logits[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_a_left_padded_context_is_encoded_as_opt_does(converted: Checkpoint, opt: Any) -> None:
    token_ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(9) >= torch.tensor([[0], [4], [7]])
    token_ids[~mask] = 1
    expected = opt.model(token_ids, attention_mask=mask.long()).last_hidden_state
    hidden = context_hidden(converted, token_ids, mask, 500)
    torch.testing.assert_close(hidden[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_the_keys_and_values_that_blocks_attend_to_are_those_of_opt(converted: Checkpoint, opt: Any) -> None:
    token_ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(9) >= torch.tensor([[0], [3]])
    token_ids[~mask] = 1
    past = opt.model(token_ids, attention_mask=mask.long(), use_cache=True).past_key_values
    seen = [Seen() for _ in past.layers]
    context_hidden(converted, token_ids, mask, 700, seen)
    for layer, expected in zip(seen, past.layers, strict=True):
        for ours, theirs in ((layer.keys, expected.keys), (layer.values, expected.values)):
            torch.testing.assert_close(ours.transpose(1, 2)[mask], theirs.transpose(1, 2)[mask], atol=1e-5, rtol=1e-5)


def test_what_opt_does_not_have_starts_as_documented(converted: Checkpoint, opt: Any) -> None:
    model, embedding = converted.model, opt.get_input_embeddings().weight
    one_hot = torch.nn.functional.one_hot(torch.tensor([7, 42]), 320).float()
    torch.testing.assert_close(model.w_diff(one_hot), embedding[[7, 42]])
    assert not model.w_pred.weight.any()
    assert 0 < model.diffusion_time_embedding.weight.abs().max() < 0.2


def test_the_config_is_that_of_the_opt_model(converted: Checkpoint) -> None:
    config = converted.model.config
    assert (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads) == (320, 32, 2, 4)
    assert (config.ffn_size, config.max_positions, config.block_size) == (48, 40, 4)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 2, 1)
    assert (config.context_timestep, config.answer_position) == ("none", None)
    assert config.measured.stop == 0, "no stop was measured"


def test_a_converted_checkpoint_denoises(converted: Checkpoint) -> None:
    core = begin(converted.model, [[2, *converted.tokenizer.encode("the large one")]], "own")
    logits = core.logits(block_view())
    assert logits.shape == (1, 4, 320)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0, 0], logits[0, 1])


def test_the_tokenizer_adds_no_token_of_its_own(converted: Checkpoint, opt_folder: Path) -> None:
    text = "the small model helps"
    assert Backend.from_file(str(opt_folder / "tokenizer.json")).encode(text).ids[0] == 2
    ids = converted.tokenizer.encode(text)
    assert 2 not in ids
    assert converted.tokenizer.decode(ids) == text
    assert 2 not in converted.tokenizer.encode("typed </s> by a user")
    assert converted.tokenizer.encode_prompt("helps", bos_token_id=2).count(2) == 1


def test_a_context_timestep_is_there_when_it_is_asked_for(opt_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "model"
    convert_opt(str(opt_folder), out, context_timestep="quantised", block_size=8)
    model = load_checkpoint(out).model
    assert (model.config.context_timestep, model.config.block_size) == ("quantised", 8)
    assert not model.context_time_embedding.weight.any()
    assert not model.context_time_embedding.bias.any()


def test_the_command_leaves_the_context_timestep_out_unless_asked(opt_folder: Path, tmp_path: Path) -> None:
    for options, written in (((), "none"), (("--context-timestep", "quantised"), "quantised")):
        out = tmp_path / written
        arguments = ["convert", "--from", str(opt_folder), "--to", str(out), "--block-size", "4", *options]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert json.loads((out / "config.json").read_text())["context_timestep"] == written


def test_converting_twice_gives_the_same_checkpoint(opt_folder: Path, converted: Checkpoint, tmp_path: Path) -> None:
    convert_opt(str(opt_folder), tmp_path, block_size=4)
    assert load_checkpoint(tmp_path).sha256 == converted.sha256


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"word_embed_proj_dim": 16}, "word_embed_proj_dim 16 where 32 is needed"),
        ({"do_layer_norm_before": False}, "do_layer_norm_before"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
        ({"activation_function": "gelu"}, "activation_function 'gelu'"),
        ({"enable_bias": False}, "enable_bias"),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": "gpt2"}, "gpt2 model; only OPT"),
        ({"pad_token_id": None}, "incomplete|pad_token_id"),
        ({"vocab_size": 250}, r"has \d+ tokens and the model 250"),
    ],
)
def test_a_model_that_ssd2_cannot_represent_is_refused_before_anything_is_written(
    copy_of_opt: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    change_config(copy_of_opt, **changes)
    with pytest.raises(CheckpointInvalid, match=named):
        convert_opt(str(copy_of_opt), tmp_path / "out", block_size=4)
    assert not (tmp_path / "out").exists()


def test_a_block_that_does_not_fit_the_positions_is_refused(opt_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="block_size 40 does not fit 40 positions"):
        convert_opt(str(opt_folder), tmp_path / "out", block_size=40)


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="check the name and the network connection"):
        convert_opt(str(tmp_path / "nowhere"), tmp_path / "out")


def test_a_name_that_the_hub_does_not_give_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match="facebook/no-such-opt"):
        convert_opt("facebook/no-such-opt", tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_not_found(copy_of_opt: Path, tmp_path: Path, name: str) -> None:
    (copy_of_opt / name).unlink()
    with pytest.raises(ModelNotFound, match=name.removesuffix(".json").replace("model.safetensors", "weights")):
        convert_opt(str(copy_of_opt), tmp_path / "out")


def test_a_tokenizer_that_knows_no_text_is_not_taken_for_one(copy_of_opt: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy_of_opt / name).unlink()
    with pytest.raises(ModelNotFound, match=r"add its tokenizer\.json"):
        convert_opt(str(copy_of_opt), tmp_path / "out")


def test_a_config_that_is_not_json_is_refused(copy_of_opt: Path, tmp_path: Path) -> None:
    (copy_of_opt / "config.json").write_text("{")
    with pytest.raises(CheckpointInvalid, match="describes no model"):
        convert_opt(str(copy_of_opt), tmp_path / "out")


def test_truncated_weights_are_refused(copy_of_opt: Path, tmp_path: Path) -> None:
    weights = copy_of_opt / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(CheckpointInvalid, match="damaged"):
        convert_opt(str(copy_of_opt), tmp_path / "out")


def test_weights_with_a_layer_missing_are_refused_and_not_made_up(copy_of_opt: Path, tmp_path: Path) -> None:
    change_config(copy_of_opt, num_hidden_layers=3)
    with pytest.raises(CheckpointInvalid, match=r"lack model\.decoder\.layers\.2"):
        convert_opt(str(copy_of_opt), tmp_path / "out")


def test_without_transformers_the_error_says_what_to_install(
    opt_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelNotFound, match=r"'slingshot\[core\]' on a server, 'slingshot\[agent\]' on a device"):
        convert_opt(str(opt_folder), tmp_path / "out")
