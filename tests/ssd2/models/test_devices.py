"""Default device and precision of a model, with pretended devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssd2.algorithm.params import CollaborationParams
from ssd2.errors import InvalidParameter
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.devices import chosen_device, chosen_precision
from ssd2.models.registry import family_named
from tests.conftest import block_view
from tests.families import save_llama
from user_agent.answering.user_model import UserModel

CAUSAL, SIMPLEX = "autoregressive", "ssd-2"
V = 1782


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A machine with no accelerator, until a test says that there is one."""
    has = {"cuda": False, "mps": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has["mps"])
    return has


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, V)
    return folder


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "precision"),
    [
        (True, True, "cuda", "bfloat16"),
        (True, False, "cuda", "bfloat16"),
        (False, True, "mps", "float32"),
        (False, False, "cpu", "float32"),
    ],
)
def test_auto_is_an_accelerator_where_there_is_one(
    machine: dict[str, bool], cuda: bool, mps: bool, device: str, precision: str
) -> None:
    machine.update(cuda=cuda, mps=mps)
    assert chosen_device("auto", family_named(CAUSAL)) == device
    assert chosen_precision("auto", device) == precision
    assert chosen_device("auto", family_named(SIMPLEX)) == "cpu", "its noise is made there"


def test_what_is_asked_for_is_taken_or_refused(machine: dict[str, bool]) -> None:
    machine.update(cuda=True)
    assert chosen_device("cpu", family_named(CAUSAL)) == "cpu"
    assert chosen_precision("float16", "cpu") == "float16"
    for name in ("tpu", "cuda:99"):
        with pytest.raises(InvalidParameter, match="use cpu") as raised:
            chosen_device(name, family_named(CAUSAL))
        assert raised.value.parameter == "device"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_user_model_runs_in_the_precision_asked_for(folder: Path, precision: str) -> None:
    model = UserModel.load(folder, with_weights=True, device="cpu", precision=precision)
    assert (model.device, model.precision) == ("cpu", precision)
    terms = model.terms("Where is it?", [], CollaborationParams(0.5, 1.0), "own")
    logits = terms.logits(block_view(1, block_size=1)).with_docs
    assert (logits.dtype, logits.shape, bool(logits.isfinite().all())) == (torch.float32, (1, 1, V), True)


def test_a_demo_model_is_as_it_was(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=True, device="auto", precision="auto")
    assert (model.precision, model.prompt_cache) == ("float32", None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_tokens_are_those_of_the_cpu(folder: Path) -> None:
    on_cpu = load_checkpoint(folder)
    on_gpu = UserModel.load(folder, with_weights=True, device="auto", precision="float32")
    assert on_gpu.device == "cuda"
    collaboration, answer = CollaborationParams(0.5, 1.0), torch.empty(1, 0, dtype=torch.int64)
    reference = UserModel(on_cpu.model.config, on_cpu.tokenizer, on_cpu.model)
    terms = [model.terms("Where is it?", [], collaboration, "own") for model in (on_gpu, reference)]
    for _ in range(8):
        found, expected = (one.logits(block_view(1, block_size=1, answer_ids=answer)).with_docs for one in terms)
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
        answer = torch.cat([answer, expected.argmax(-1)], -1)
