"""Memory for weights, told by their files before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssd2.errors import TooLittleMemory
from ssd2.models import pairs
from ssd2.models.memory import PROCESS_BYTES, Weights, check_memory_for

MB = 10**6
SetFree = Callable[[int], None]


@pytest.fixture
def set_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetFree:
    """Say how many bytes are free on this machine, whose control groups say nothing."""
    file = tmp_path / "meminfo"
    monkeypatch.setattr(pairs, "MEMORY_FILE", file)
    monkeypatch.setattr(pairs, "CONTROL_GROUP_FILE", tmp_path / "none")
    return lambda size: file.write_text(f"MemTotal: 1 kB\nMemAvailable: {size // 1024} kB\n") and None


def save(folder: Path, weights: dict[str, torch.Tensor], config: dict[str, object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A million weights in bfloat16."""
    return save(tmp_path / "stored", {"w": torch.zeros(1000, 1000, dtype=torch.bfloat16)})


@pytest.mark.parametrize(
    ("stored", "precision", "megabytes"),
    [
        (torch.bfloat16, "float32", 4),
        (torch.bfloat16, "bfloat16", 0),
        (torch.bfloat16, "int8", 1),
        (torch.float32, "float32", 0),
        (torch.float32, "bfloat16", 2),
        (torch.float16, "int8", 2),
    ],
)
def test_weights_count_only_where_they_do_not_stay_mapped(
    tmp_path: Path, stored: torch.dtype, precision: str, megabytes: int
) -> None:
    weights = Weights.of(save(tmp_path / "stored", {"w": torch.zeros(1000, 1000, dtype=stored)}))
    assert weights.converted_bytes(precision) == megabytes * MB


def test_what_is_packed_is_copied(tmp_path: Path) -> None:
    stored = save(tmp_path / "stored", {"w": torch.zeros(1000, 1000)}, {"architectures": ["LlamaForCausalLM"]})
    assert [Weights.of(stored).converted_bytes(precision) for precision in ("float32", "float16")] == [4 * MB, 2 * MB]


def test_what_is_not_loaded_does_not_count(tmp_path: Path) -> None:
    weights = {
        "model.embed_tokens.weight": torch.zeros(100, 10),
        "lm_head.weight": torch.zeros(100, 10),
        "vision_tower.w": torch.zeros(9, 9),
    }
    folder = save(tmp_path / "tied", weights, {"text_config": {"tie_word_embeddings": True}})
    save_file({"w": torch.zeros(7, 7)}, folder / "consolidated.safetensors")
    assert Weights.of(folder).counts == {"F32": 1000}


def test_shards_count_together_and_each_once(tmp_path: Path) -> None:
    folder = save(tmp_path / "sharded", {"beside the index": torch.zeros(999)})
    shards = {f"w{number}": f"model-{number}.safetensors" for number in (1, 2)}
    for name, file in shards.items():
        save_file({name: torch.zeros(50)}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**shards, "w3": shards["w1"]}}))
    assert Weights.of(folder).counts == {"F32": 100}


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{"])
def test_a_damaged_file_counts_nothing_and_loading_says_what_is_wrong(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert not Weights.of(folder).counts


def test_too_little_memory_is_said_with_what_is_needed_and_what_is_free(folder: Path, set_free: SetFree) -> None:
    set_free(PROCESS_BYTES + 4 * MB + 1024)
    check_memory_for({"mine": folder}, "float32", "models")
    with pytest.raises(TooLittleMemory, match=r"2 models in float32 takes about 258 MB .* 254 MB are free") as refused:
        check_memory_for({"mine": folder, "other": folder}, "float32", "models")
    assert refused.value.parameter == "models"
    with pytest.raises(TooLittleMemory, match="the model mine in float32 takes about 508 MB"):
        check_memory_for({"mine": folder}, "float32", "models", copies=2)


def test_weights_that_stay_mapped_are_never_refused(folder: Path, set_free: SetFree) -> None:
    set_free(1024)
    check_memory_for({"mine": folder}, "bfloat16", "models")


def test_a_container_s_limit_is_what_is_free(
    tmp_path: Path, set_free: SetFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free(10**12)
    (tmp_path / "self").write_text("1:cpu:/\n0::/a.slice/b.scope\n")
    monkeypatch.setattr(pairs, "CONTROL_GROUP_FILE", tmp_path / "self")
    monkeypatch.setattr(pairs, "CONTROL_GROUPS", tmp_path)
    for group, limit in (("a.slice", "5000\n"), ("a.slice/b.scope", "max\n")):
        (tmp_path / group).mkdir()
        for name, value in (("max", limit), ("current", "3000\n"), ("stat", "anon 1\ninactive_file 700\nfile 9\n")):
            (tmp_path / group / f"memory.{name}").write_text(value)
    assert pairs.free_memory() == 5000 - 3000 + 700
