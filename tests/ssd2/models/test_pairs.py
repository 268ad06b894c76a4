"""The catalogue: whole, consistent, and honest about memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssd2.errors import InvalidParameter, ModelNotFound, TooLittleMemory
from ssd2.models import pairs
from ssd2.models.checkpoint import load_config_and_tokenizer
from ssd2.models.pairs import EMBEDDED, PAIRS, check_memory, downloaded_folder, free_memory, models_folder, pair_named

REPORTS = Path(__file__).parents[2] / "bench/everyday/reports"
EVERY = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)


def test_a_pair_with_a_report_says_with_which_weights_it_was_run() -> None:
    reported = {file.stem for file in REPORTS.glob("*.jsonl")} & {pair.name for pair in PAIRS}
    assert "qwen2.5-coder-1.5b" in reported
    assert all(pair_named(name).run for name in reported)


@EVERY
def test_an_entry_is_complete_and_its_figures_belong_together(pair: pairs.Pair) -> None:
    assert re.fullmatch(r"[a-z0-9.-]+", pair.name)
    assert pair.purpose
    assert pair.core.parameters >= pair.user.parameters
    for model in pair.models:
        assert 1.9 < model.hub_bytes / model.parameters < 2.7, "bfloat16; small Qwen3 store the tied matrix twice"
        assert model.is_gated == (model.licence != "Apache-2.0")
        assert model.memory_bytes(4) > model.memory_bytes(2) > model.parameters * 2


def test_names_are_unique_and_a_wrong_one_is_met_with_the_closest() -> None:
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)
    assert pair_named(EMBEDDED).core == pair_named(EMBEDDED).user
    with pytest.raises(InvalidParameter, match=f"did you mean {EMBEDDED}"):
        pair_named("smollm-135m")
    with pytest.raises(InvalidParameter, match="choose from"):
        pair_named("zzz")


@pytest.mark.parametrize(
    ("name", "pair"), [("qwen2.5-9b", "qwen2.5-7b"), ("Qwen/Qwen3-8B", "qwen3-8b"), (f"{EMBEDDED}x", EMBEDDED)]
)
def test_a_missing_folder_named_like_a_public_model_brings_its_pair_to_mind(name: str, pair: str) -> None:
    with pytest.raises(ModelNotFound, match=f"does not exist .there is a pair of public models named {pair}.;"):
        load_config_and_tokenizer(Path(name))
    assert pairs.pair_meant_by("models/mine") == ""


def test_a_model_of_two_pairs_has_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    one, other = pair_named("qwen2.5-7b"), pair_named("qwen2.5-14b")
    assert one.user.folder == other.user.folder
    with pytest.raises(ModelNotFound, match="999 MB"):
        downloaded_folder(one, "user")
    one.user.folder.mkdir(parents=True)
    assert downloaded_folder(other, "user").parent == models_folder()


def test_a_download_that_ends_while_it_is_measured_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "rglob", lambda *_: (_ for _ in [1]).throw(FileNotFoundError()))
    assert pairs.fetched_bytes(pair_named(EMBEDDED).core) == 0


def test_too_little_memory_is_said_with_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_named("qwen2.5-1.5b")
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:  8000000 kB\n")
    check_memory(pair.core.memory_bytes(), "the core")
    both = sum(model.memory_bytes() for model in pair.models)
    with pytest.raises(TooLittleMemory, match=r"the pair takes about 9\.2 GB .* 8\.2 GB are free"):
        check_memory(both, "the pair")
    (tmp_path / "meminfo").unlink()
    assert free_memory() is None
    check_memory(both, "the pair")
