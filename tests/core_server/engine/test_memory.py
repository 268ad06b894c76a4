"""A core without enough memory says so before it reads a weight, and what it reckons with is what is taken."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core_server.engine import memory
from core_server.engine.lanes import lane_for
from core_server.engine.loading import load_models
from core_server.engine.memory import check_memory, needed_memory
from core_server.engine.ranks import ALONE
from ssd2.errors import TooLittleMemory
from ssd2.models.causal_lane import CausalLane
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.ssd2_lane import BatchLane
from tests.core_server.engine.test_loading import start_of
from tests.families import SAVE, save_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "llama"
    save_llama(folder, 1782)
    return folder


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["llama", "ssd-2", "experts", "autoregressive"])
def test_what_is_reckoned_is_what_weights_and_slots_take(
    name: str, precision: str, llama: Path, tmp_path: Path
) -> None:
    folder = llama if name == "llama" else tmp_path / name
    if name != "llama":
        SAVE[name](folder, 3)
    needed = needed_memory(replace(start_of(folder), precision=precision))
    model = load_checkpoint(folder, precision=precision).model
    assert needed.weights == sum(_bytes(parameter) for parameter in model.parameters())
    lane = lane_for(model, 2)
    if isinstance(lane, BatchLane):
        assert needed.slot == sum(pool.bytes_per_slot for pool in lane._pools.values())
    else:
        assert isinstance(lane, CausalLane)
        assert needed.slot == lane.bytes_per_slot
        assert needed.with_slots(2) - needed.weights == sum(m.keys.nbytes + m.values.nbytes for m in lane._memory)


def _bytes(weight: torch.Tensor) -> int:
    """Return what a weight takes; one in int8 is made of several tensors and gives the size of none of them."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.nbytes
    names, _ = weight.__tensor_flatten__()
    return sum(_bytes(getattr(weight, name)) for name in names)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Memory as the test has it."""
    found = SimpleNamespace(bytes=None)
    monkeypatch.setattr(memory, "free_bytes", lambda _: found.bytes)
    return found


def test_weights_that_do_not_fit_are_refused_before_one_is_read(
    llama: Path, free: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("memory", "loading"):
        monkeypatch.setattr(f"core_server.engine.{module}.check_device", lambda _: None, raising=False)
    start = replace(start_of(llama), devices=("cuda:0",))
    free.bytes = needed_memory(start).weights - 1
    monkeypatch.setattr("ssd2.models.autoregressive.read_network", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(TooLittleMemory, match=r"the weights take .* are free on cuda:0: use a smaller model"):
        load_models(start, ALONE)


def test_a_shorter_context_takes_less(llama: Path) -> None:
    longest = needed_memory(start_of(llama)).slot
    assert needed_memory(replace(start_of(llama), max_context=16)).slot < longest


def test_on_a_cpu_the_log_says_if_full_sessions_would_not_fit(
    llama: Path, free: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    start = replace(start_of(llama), slots=16)
    free.bytes = needed_memory(start).with_slots(16)
    check_memory(start, 0)
    assert not caplog.records
    free.bytes -= 1
    check_memory(start, 0)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "16 answers as long as the model allows would take" in caplog.text


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_gpu_has_to_hold_all_sessions_or_its_share_of_them(
    gpus: int, llama: Path, free: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "check_device", lambda _: None)
    start = replace(start_of(llama), slots=16, devices=("cuda:0", "cuda:1")[:gpus])
    needed = needed_memory(start)
    free.bytes = -(-needed.with_slots(16) // gpus)
    check_memory(start, gpus - 1)
    free.bytes = -(-needed.with_slots(9) // gpus)
    with pytest.raises(TooLittleMemory, match=r"free on cuda:\d: allow at most 9 sessions$") as refused:
        check_memory(start, gpus - 1)
    assert refused.value.parameter == "max_sessions"


def test_where_the_system_does_not_say_nothing_is_refused(llama: Path, free: SimpleNamespace) -> None:
    check_memory(start_of(llama), 0)
    assert free.bytes is None
