"""What the log says while models are loaded."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core_server.catalogue.engine_messages import Start
from core_server.engine import loading as loading_module
from core_server.engine.lanes import lane_for
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.loading import load_models
from core_server.engine.ranks import Ranks
from ssd2.errors import ModelNotFound
from ssd2.logits.format import ANY_FORMAT
from tests.families import save_llama


def start_of(folder: Path) -> Start:
    return Start(
        models={"general": folder},
        slots=1,
        devices=("cpu", "cpu"),
        precision="bfloat16",
        logits_formats=ANY_FORMAT,
        threads=1,
        compiled=False,
        timeout_s=60.0,
        log_level="info",
        log_format="text",
    )


def test_the_log_says_when_a_model_begins_to_load_and_when_it_is_there(
    core_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (loaded,) = load_models(start_of(core_folder), Ranks())
    begins, ends = [record.getMessage() for record in caplog.records if record.name == "core_server.engine.loading"]
    megabytes = sum(file.stat().st_size for file in core_folder.iterdir()) / 1e6
    assert begins == f"loading the model general from {core_folder}, {megabytes:.1f} MB"
    parameters = loaded.checkpoint.parameters
    assert re.fullmatch(rf"loaded the model general in \d+\.\d s: {parameters} parameters in bfloat16 on cpu", ends)


def test_the_log_says_where_files_were_not_compared(
    core_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(core_folder / name)
    load_models(start_of(tmp_path), Ranks())
    assert f"{tmp_path} has no SHA256SUMS, so its files were not verified" in caplog.messages


def test_a_context_that_is_limited_is_the_model_s_for_agents_and_slots(tmp_path: Path) -> None:
    save_llama(tmp_path, 2048)
    whole, limited, longer = (
        load_models(replace(start_of(tmp_path), max_context=longest), Ranks())[0] for longest in (None, 100, 10**6)
    )
    assert limited.served.card.max_prompt_tokens == 99
    assert longer.served.card == whole.served.card
    of_whole, of_limited = (lane_for(one.checkpoint.model, slots=2).bytes_per_slot for one in (whole, limited))
    assert of_whole * 100 == of_limited * whole.checkpoint.model.config.max_positions


def test_a_model_that_takes_long_is_heard_of_meanwhile(
    core_folder: Path, served: LoadedModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loading_module, "STILL_LOADING_S", 0.01)
    is_heard = threading.Event()

    class Hears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("still loading the model general after "):
                is_heard.set()

    def load(*_: Any) -> LoadedModel:
        assert is_heard.wait(10)
        return served

    monkeypatch.setattr(LoadedModel, "load", load)
    hears = Hears()
    logging.getLogger("core_server.engine.loading").addHandler(hears)
    try:
        assert load_models(start_of(core_folder), Ranks()) == [served]
    finally:
        logging.getLogger("core_server.engine.loading").removeHandler(hears)
    assert not [thread for thread in threading.enumerate() if thread.name == "still-loading"]


def test_of_several_ranks_the_first_one_says_it(core_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load_models(start_of(core_folder), Ranks(rank=1))
    assert caplog.records == []


def test_a_model_that_cannot_be_loaded_is_told_as_before(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        load_models(start_of(tmp_path / "nowhere"), Ranks())
    assert not [thread for thread in threading.enumerate() if thread.name == "still-loading"]
