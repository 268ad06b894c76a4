"""Small models and a tokenizer made on the spot, so that tests need no weights."""

from __future__ import annotations

import os
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.models.checkpoint import save_checkpoint
from ssd2.models.configs import ExpertsConfig, SSD2Config
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.ssd2 import SSD2
from tests.real_model import model_folder

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start: two with two threads each slow each other down

# What this machine's user has chosen and downloaded is none of the tests' business.
_HOME = tempfile.TemporaryDirectory(prefix="slingshot-tests-")
os.environ["XDG_CONFIG_HOME"], os.environ["XDG_DATA_HOME"] = f"{_HOME.name}/config", f"{_HOME.name}/data"

# Under nohup or behind a shell's & they come ignored, and what ends a process by them could not be seen.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Return three workers for two processors: tests of servers wait for a third of their time."""
    processors = len(os.sched_getaffinity(0))
    return processors + processors // 2


DEMO_TOKENIZER = Path(__file__).parent / "tokenizer.json"  # of the first demo pair: tests keep it when the demo changes


def tiny_config(**changes: object) -> SSD2Config:
    """A config of a few thousand parameters, with the vocabulary of 32 unless told otherwise."""
    values: dict[str, object] = {
        "vocab_size": 32,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "ffn_size": 32,
        "max_positions": 48,
        "block_size": 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return SSD2Config.from_dict({**values, **changes})


def tiny_model(seed: int = 0, **changes: object) -> SSD2:
    """A random model whose every part matters to its output: no weight is left at 0."""
    torch.manual_seed(seed)
    model = SSD2(tiny_config(**changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def experts_of(*models: SSD2) -> TimeRangeExperts:
    """Three models as the experts of the paper's three ranges, the lowest first."""
    experts = TimeRangeExperts(ExpertsConfig.from_dict(asdict(models[0].config)))
    for expert, model in zip(experts.experts, models, strict=True):
        expert.load_state_dict(model.state_dict())
    return experts.eval().requires_grad_(False)


def plain_logits(
    model: SSD2, context_ids: Tensor, first_position: int, x_t: Tensor, self_cond: Tensor | None, t: int
) -> Tensor:
    """Logits of one block behind one context, in one pass that keeps nothing: §3.1 as it is written.

    Args:
        model: θ.
        context_ids: [C].
        first_position: of the context.
        x_t: [L, V].
        self_cond: logits, [L, V], or None.
        t: timestep.

    Returns:
        [L, V].
    """
    c, length = len(context_ids), len(x_t)
    time, positions = torch.tensor([t]), first_position + torch.arange(c + length)[None]
    context = model.embed_context(context_ids[None], positions[:, :c], time)
    fed_back = None if self_cond is None else model.feed_back(self_cond[None])
    block = model.embed_block(x_t[None], fed_back, positions[:, c:], time)
    visible = torch.ones(c + length, c + length, dtype=torch.bool).tril()
    visible[c:] = True  # the block sees all of the context and itself; the context sees what is before it
    return model.logits(model.transformer(torch.cat([context, block], 1), visible[None, None])[:, c:])[0]


def demo_shaped_model(seed: int, **changes: object) -> SSD2:
    """A small random model with the demo tokenizer's vocabulary, and its pair's stop."""
    shape = {
        "vocab_size": 1782,
        "stop": 0.4,
        "max_positions": 160,
        "block_size": 8,
        "context_timestep": "none",
        "answer_position": 96,
    }
    return tiny_model(seed, **{**shape, **changes})


def save_ssd_lm(folder: Path, seed: int) -> None:
    """A random SSD-LM that reads the demo tokenizer's ids, in the published layout but for its tokenizer.json."""
    from transformers import RobertaConfig, RobertaForMaskedLM  # takes seconds; few tests need it

    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = RobertaConfig(vocab_size=1782, max_position_embeddings=161, type_vocab_size=1, **shape, **ids)
    network = RobertaForMaskedLM(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir()
    config.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    torch.save({"weight": torch.randn(16, 1782)}, folder / "embed_sum_layer.pt")
    torch.save({"weight": torch.randn(16, 1), "bias": torch.randn(16)}, folder / "timestep_layer.pt")
    (folder / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())


def block_view(rows: int = 1, **changes: Any) -> BlockView:
    """View of the first timestep of an answer, unless changed."""
    values: dict[str, Any] = {
        "block": 0,
        "step": 0,
        "timestep": 1000,
        "block_size": 4,
        "answer_ids": torch.empty(rows, 0, dtype=torch.int64),
        "trail": (),
        "noise_seeds": tuple(range(rows)),
        "simplex_value": 5.0,
    }
    return BlockView(**{**values, **changes})


@pytest.fixture(scope="session")
def core_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a random core model."""
    folder = tmp_path_factory.mktemp("models") / "core"
    save_checkpoint(folder, demo_shaped_model(1), DEMO_TOKENIZER.read_text())
    return folder


@pytest.fixture(scope="session")
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a random user model that shares the core's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "user"
    save_checkpoint(folder, demo_shaped_model(2), DEMO_TOKENIZER.read_text())
    return folder


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random classifier of three sentiments that reads the demo tokenizer's ids."""
    from transformers import RobertaConfig, RobertaForSequenceClassification  # takes seconds; few tests need it

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(5)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = dict(enumerate(("negative", "neutral", "positive")))
    labels = {"num_labels": 3, "id2label": names, "label2id": {name: index for index, name in names.items()}}
    config = RobertaConfig(vocab_size=1782, max_position_embeddings=66, type_vocab_size=1, **shape, **labels)
    network = RobertaForSequenceClassification(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())
    return folder


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct."""
    return model_folder()
