"""The figures of sizing.md are those of the code: models without weights reserve what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from ssd2.models.causal_lane import numbers_per_token
from ssd2.models.configs import ExpertsConfig, SSD2Config
from ssd2.models.context import Context
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.graph_sizes import graph_batches, graph_extents
from ssd2.models.ssd2 import SSD2
from ssd2.models.ssd2_lane import BatchLane, blank_rows
from tests.bench.shape import OPT, SHAPES
from tests.deploy.deployment import DEPLOY

GPU_BYTES, FREE_BYTES = 80e9, 10e9
POSITIONS = 2048
PAGE = (DEPLOY / "sizing.md").read_text()
TEXT = " ".join(PAGE.split())
ROWS = {"0.1B": ("125m", SSD2Config), "2.7B": ("2.7b", SSD2Config), "13B": ("13b", SSD2Config)} | {
    f"three experts of {size}": (shape, ExpertsConfig) for size, shape in (("2.7B", "2.7b"), ("13B", "13b"))
}


class PeakMemory(TorchDispatchMode):
    """Sums up the tensors that live while operations run, but for those that were there before.

    Attributes:
        peak_bytes: the largest sum.
    """

    def __init__(self, *before: Tensor) -> None:
        super().__init__()
        self._kept = before  # alive: a new storage at the address of an old one would not be counted
        self._before = {tensor.untyped_storage()._cdata for tensor in before}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak_bytes = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._before:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: (storage, size) for key, (storage, size) in self._live.items() if not storage.expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._live.values()))
        return result


@dataclass(frozen=True)
class Memory:
    """What one engine takes of a GPU.

    Attributes:
        weights: bytes, in bfloat16.
        slot: bytes a slot, of all its networks.
        block: bytes that a block takes while it is computed behind the longest context.
        logits: bytes of a block's logits.
    """

    weights: int
    slot: int
    block: int
    logits: int

    def used(self, slots: int) -> int:
        """All that so many slots take, with the spare one and what the graphs keep."""
        graphs = graph_batches(slots)[-1]
        return self.weights + (slots + 1) * self.slot + (slots + graphs) * self.block + graphs * self.logits

    @property
    def most_slots(self) -> int:
        """Slots that fit the GPU beside what is kept free."""
        slots = 0
        while self.used(slots + 1) <= GPU_BYTES - FREE_BYTES:
            slots += 1
        return slots


def lane_of(name: str) -> BatchLane:
    """Make the lane of a model that has shapes and nothing else."""
    shape, kind = ROWS[name]
    config = kind.from_dict({**OPT, **SHAPES[shape], "max_positions": POSITIONS})
    with torch.device("meta"):
        model = (TimeRangeExperts(config) if isinstance(config, ExpertsConfig) else SSD2(config)).bfloat16()
    return BatchLane(model.requires_grad_(False), 1)


def memory_of(name: str) -> Memory:
    """Compute the memory of a model, a row of the page's table."""
    lane = lane_of(name)
    model, (network, pool) = lane._model, next(iter(lane._pools.items()))
    config = model.config
    rows = blank_rows(1, config.block_size, pool.device)
    fed_back, places = network.w_pred.weight.new_zeros(1, config.block_size, config.hidden_size), pool.places([0])
    arguments = astuple(rows), fed_back, places  # astuple makes copies
    # Attention stays one operation in this mode, as it is one kernel on a GPU, without a tensor of all weights.
    with (
        torch.inference_mode(),
        PeakMemory(*model.parameters(), pool._memory, *arguments[0], fed_back, places) as seen,
    ):
        logits = lane._steps[network](*arguments, block_size=config.block_size, extent=POSITIONS)
    return Memory(
        weights=sum(parameter.nbytes for parameter in model.parameters()),
        slot=sum(each.bytes_per_slot for each in lane._pools.values()),
        block=seen.peak_bytes,
        logits=logits.nbytes,
    )


@pytest.mark.parametrize("name", ROWS)
def test_weights_slots_and_blocks_take_what_the_page_says(name: str) -> None:
    memory = memory_of(name)
    (row,) = re.findall(rf"^\| {re.escape(name)}(?: \(.*?\))? \| (.*) \|$", PAGE, re.MULTILINE)
    assert row.split(" | ") == [
        f"{memory.weights / 1e9:.1f} GB",
        f"{memory.slot / POSITIONS / 1e3:.0f} kB",
        f"{memory.slot / 1e9:.2f} GB",
        f"{memory.block / 1e6:.0f} MB",
        str(memory.most_slots or "none"),
    ]


CAUSAL: dict[str, Callable[[], Any]] = {
    "SmolLM2-135M (30 layers, 3 heads of 64, 8,192 positions) takes": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
        )
    ),
    "Qwen2.5 0.5B (24 layers, 2 heads of 64, 32,768 positions)": lambda: Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151_936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=32_768,
        )
    ),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_slots_of_causal_networks_take_what_the_page_says(name: str) -> None:
    with torch.device("meta"):
        network = CAUSAL[name]()
    token, positions = 4 * numbers_per_token(network), network.config.max_position_embeddings
    full = f"{token * positions / 1e6:.0f} MB"
    assert re.search(rf"{re.escape(name)} {token / 1e3:.0f} kB (a token )?and {full}", TEXT)


def test_graphs_take_what_the_page_says() -> None:
    memory, batch = memory_of("13B"), graph_batches(1000)[-1]
    graphs = len(graph_batches(1000)) * len(graph_extents(POSITIONS))
    assert f"{graphs} graphs at most" in TEXT
    kept = f"one step of {batch} blocks ({batch * memory.block / 1e9:.2f} GB for 13B)"
    assert f"{kept} and one output ({batch * memory.logits / 1e6:.0f} MB)" in TEXT


def test_a_prompt_takes_what_the_page_says_while_it_is_encoded() -> None:
    ((model, pool),) = lane_of("13B")._pools.items()
    with torch.inference_mode(), PeakMemory(*model.parameters(), pool._memory) as seen:
        pool.hold({0: Context(tuple(range(2000)), 0, 0)})
    assert f"{seen.peak_bytes / 1e9:.2f} GB for one of 2,000 tokens with 13B" in TEXT
