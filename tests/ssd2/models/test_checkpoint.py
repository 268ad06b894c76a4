"""Checkpoint folders: what is saved is loaded, and what is damaged is refused with a word on it."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model, tiny_model
from safetensors.torch import load_file, save_file

from ssd2.demo import paths
from ssd2.errors import CheckpointInvalid, ModelNotFound
from ssd2.models import checkpoint as checkpoint_module
from ssd2.models import ssd2_family
from ssd2.models.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from ssd2.models.checksums import SHA256SUMS, write_checksums

SUM = shutil.which("sha256sum")


@pytest.fixture
def folder(core_folder: Path, tmp_path: Path) -> Path:
    """A good checkpoint without checksums, to be damaged."""
    copy = Path(shutil.copytree(core_folder, tmp_path / "model"))
    (copy / SHA256SUMS).unlink()
    return copy


@pytest.fixture
def summed(core_folder: Path, tmp_path: Path) -> Path:
    """A good checkpoint with its checksums, to be damaged."""
    return Path(shutil.copytree(core_folder, tmp_path / "summed"))


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_saved_model_is_loaded_as_it_was(core_folder: Path) -> None:
    saved, loaded = demo_shaped_model(1), load_checkpoint(core_folder)
    assert loaded.model.config == saved.config
    weights = loaded.model.state_dict()
    assert set(weights) == set(saved.state_dict())
    for name, value in saved.state_dict().items():
        assert torch.equal(weights[name], value), name
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("At 9:30.")) == "At 9:30."
    assert loaded.tokenizer.sha256 == hashlib.sha256(DEMO_TOKENIZER.read_bytes()).hexdigest()
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_model_stored_in_half_precision_is_loaded_in_float32(tmp_path: Path) -> None:
    model = demo_shaped_model(4)
    save_checkpoint(tmp_path / "half", model, DEMO_TOKENIZER.read_text(), torch.float16)
    save_checkpoint(tmp_path / "full", model, DEMO_TOKENIZER.read_text())
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    for name, value in load_checkpoint(tmp_path / "half").model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_the_fingerprint_is_the_sha256_of_config_and_weights(core_folder: Path) -> None:
    content = b"".join((core_folder / name).read_bytes() for name in ("config.json", "model.safetensors"))
    assert load_checkpoint(core_folder).sha256 == fingerprint(core_folder) == hashlib.sha256(content).hexdigest()


def test_the_fingerprint_tells_weights_and_configs_apart(folder: Path, core_folder: Path) -> None:
    before = fingerprint(core_folder)
    assert fingerprint(folder) == before
    weights = load_file(folder / "model.safetensors")
    weights["w_pred.weight"][0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    changed_weights = fingerprint(folder)
    change_config(folder, simplex_value=4.0)
    assert len({before, changed_weights, fingerprint(folder)}) == 3


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="choose the folder of a checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=f"no {name} in"):
        load_checkpoint(folder)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_truncated_weights_are_refused(folder: Path, length: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors does not fit"):
        load_checkpoint(folder)


def test_weights_that_are_incomplete_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.layers.1.fc1.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"transformer\.layers\.1\.fc1\.bias"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 32},
        {"num_layers": 1},
        {"num_layers": 3},
        {"vocab_size": 1800},
        {"context_timestep": "quantised"},
    ],
)
def test_weights_of_another_shape_than_the_config_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    change_config(folder, **changes)
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors does not fit"):
        load_checkpoint(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny_model(), DEMO_TOKENIZER.read_text())
    with pytest.raises(CheckpointInvalid, match="1782 tokens, the model 32"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe"])
def test_a_tokenizer_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"is not a tokenizer\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_config_that_is_not_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="is not JSON"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}"])
def test_a_config_of_something_else_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointInvalid, match="does not describe a model"):
        load_checkpoint(folder)


def test_a_config_of_another_model_than_the_weights_is_refused(folder: Path) -> None:
    shape = {"vocab_size": 1782, "hidden_size": 16, "word_embed_proj_dim": 16, "num_attention_heads": 2, "ffn_dim": 32}
    (folder / "config.json").write_text(json.dumps({"model_type": "opt", "num_hidden_layers": 2, **shape}))
    with pytest.raises(CheckpointInvalid, match="lack"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dropout": 0.1, "hiden_size": 3}, "unknown keys: dropout, hiden_size"),
        ({"context_timestep": "sometimes"}, "'sometimes'"),
        ({"num_heads": 3}, "not a multiple of 3 heads"),
        ({"num_heads": 0}, "heads"),
        ({"block_size": 0}, "block_size"),
        ({"block_size": 160}, "block_size 160 does not fit 160 positions"),
        ({"eos_token_id": 1782}, "eos_token_id 1782 is .*; copy or convert the checkpoint again"),
        ({"pad_token_id": -1}, "at least 0; copy or convert the checkpoint again"),
        ({"num_layers": 1.5}, "whole number from .*; copy or convert the checkpoint again"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(folder: Path, changes: dict[str, Any], named: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(CheckpointInvalid, match=named):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "16"},
        {"num_layers": "2"},
        {"num_layers": None},
        {"num_layers": 0},
        {"hidden_size": -16},
        {"ffn_size": 0.5},
        {"vocab_size": [1]},
        {"pad_token_id": -1},
        {"answer_position": 160},
        {"answer_position": -3},
        {"simplex_value": 0},
        {"simplex_value": "5"},
        {"simplex_value": 1e308},
        {"simplex_value": True},
        {"num_layers": True},
        {"answer_position": 96.0},
        {"eos_token_id": 10**400},
    ],
)
def test_a_config_with_a_value_of_the_wrong_sort_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    change_config(folder, **changes)
    with pytest.raises(CheckpointInvalid):
        load_checkpoint(folder)


def test_an_incomplete_config_names_what_is_missing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["ffn_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointInvalid, match="ffn_size"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [10**9, 1e9, 10**400], ids=["whole", "float", "longest"])
@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "num_layers", "num_heads", "ffn_size", "max_positions", "block_size"]
)
def test_a_size_that_no_model_has_is_refused_by_name(folder: Path, name: str, value: float) -> None:
    change_config(folder, **{name: value})
    with pytest.raises(CheckpointInvalid, match=rf"config\.json: {name} is 1.{{,80}}from 1 to [\d,]+; copy or convert"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes", [{"ranges": [[i / 1000, (i + 1) / 1000] for i in range(1000)]}, {"num_layers": 900}]
)
def test_as_many_layers_as_the_weights_file_has_are_made_and_no_more(
    folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssd2_family, "SSD2", pytest.fail)
    monkeypatch.setattr(ssd2_family, "TimeRangeExperts", pytest.fail)
    change_config(folder, model_type="ssd2-experts", **changes)
    with pytest.raises(CheckpointInvalid, match=r"not 2700$|experts at most"):
        load_checkpoint(folder)


@pytest.mark.skipif(SUM is None, reason="sha256sum is not installed")
def test_what_is_saved_has_checksums_that_sha256sum_finds_right(core_folder: Path) -> None:
    command = [SUM or "", "--check", SHA256SUMS]
    done = subprocess.run(command, cwd=core_folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "config.json: OK\nmodel.safetensors: OK\ntokenizer.json: OK\n"


@pytest.mark.parametrize("name", ["core", "user"])
def test_the_shipped_pair_has_checksums_of_all_its_files(name: str) -> None:
    folder = {"core": paths.CORE, "user": paths.USER}[name]
    listed = {line.split()[1] for line in (folder / SHA256SUMS).read_text().splitlines()}
    assert listed == {file.name for file in folder.iterdir()} - {SHA256SUMS}
    load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_flipped_byte_is_found_and_its_file_named(summed: Path, name: str) -> None:
    load_checkpoint(summed)
    content = bytearray((summed / name).read_bytes())
    if name == "config.json":
        content = content.replace(b'"eos_token_id": 2', b'"eos_token_id": 3')
    elif name == "tokenizer.json":
        content = content.replace(b"9", b"8", 1)
    else:
        content[-100] ^= 1  # the lowest bits of a weight: its number is as good as any other
    (summed / name).write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=rf"{name} is damaged: .*SHA-256"):
        load_checkpoint(summed)


@pytest.mark.parametrize("content", [b"", b"\xff", b"no checksum\n", b"0" * 64 + b"  weights.safetensors\n"])
def test_damaged_checksums_are_refused(summed: Path, content: bytes) -> None:
    (summed / SHA256SUMS).write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=SHA256SUMS):
        load_checkpoint(summed)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "other.bin"])
def test_checksums_that_leave_out_a_file_of_the_model_are_refused(summed: Path, name: str) -> None:
    (summed / "other.bin").write_bytes(b"weights")
    write_checksums(summed, [])
    load_checkpoint(summed)
    lines = (summed / SHA256SUMS).read_text().splitlines(keepends=True)
    (summed / SHA256SUMS).write_text("".join(line for line in lines if not line.endswith(f" {name}\n")))
    with pytest.raises(CheckpointInvalid, match=f"SHA256SUMS does not list {name}; .*run sha256sum again"):
        load_checkpoint(summed)


def test_checksums_made_of_names_with_a_folder_are_read(summed: Path) -> None:
    """As `sha256sum ./*` writes them."""
    (summed / SHA256SUMS).write_text((summed / SHA256SUMS).read_text().replace("  ", "  ./"))
    load_checkpoint(summed)


def test_a_checkpoint_that_replaces_another_has_checksums_of_its_own(summed: Path) -> None:
    save_checkpoint(summed, demo_shaped_model(7), DEMO_TOKENIZER.read_text())
    assert torch.equal(load_checkpoint(summed).model.state_dict()["w_pred.weight"], demo_shaped_model(7).w_pred.weight)


def test_a_checkpoint_that_was_half_replaced_has_no_checksums(summed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint_module, "save_file", stop)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(summed, demo_shaped_model(7), DEMO_TOKENIZER.read_text())
    assert not (summed / SHA256SUMS).exists()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_weight_that_is_no_finite_number_is_found(folder: Path, number: float, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    weights["position_embedding.weight"][150, 3] = number
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"position_embedding\.weight .* not finite"):
        load_checkpoint(folder)
