"""A timestep of a core of a published size, against what the machine can do at best.

An SSD-2 of the shape of an OPT model with random weights, made on the device; its time depends on the shape alone. A
step is all that the engine computes for a batch of answers in the middle of a block: noise, embeddings, the transformer
over the cached contexts, logits, packing them for the wire, its own choice of tokens and what it feeds back. The model
has no context timestep, so that no step encodes a context anew.

    step_ms         median, on the clock of the host: what Python and copies to the host take is part of a step
    limit_ms        the larger of: every weight read once at the memory's bandwidth; every multiplication at the
                    processor's rate. Both are the best of what large copies and large matrix products in the
                    same dtype reached in this run
    ratio_to_limit  step_ms / limit_ms: 1 is the machine's limit
    share_of_limit  limit_ms / step_ms

In a dtype other than float32 the weights are stored in it, and the network runs under torch.autocast, as timesteps and
noise are float32.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from core_server.engine.lanes import lane_for
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.timesteps import decoding_timesteps
from ssd2.errors import InvalidParameter
from ssd2.logits.format import PREFERRED
from ssd2.models.configs import SSD2Config
from ssd2.models.devices import check_device
from ssd2.models.lane import BlockState, Row
from ssd2.models.ssd2 import SSD2
from ssd2.wire.codec import OpenRequest
from ssd2.wire.tensors import pack_logits
from tests.bench.progress import say

SHAPES = {
    "tiny": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 32, "vocab_size": 64, "block_size": 4},
    "125m": {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "ffn_size": 3072},
    "2.7b": {"hidden_size": 2560, "num_layers": 32, "num_heads": 32, "ffn_size": 10240},
    "13b": {"hidden_size": 5120, "num_layers": 40, "num_heads": 40, "ffn_size": 20480},
}
"""By name: OPT's (arXiv 2205.01068, table 1), and one that is no model's."""

OPT = {
    "vocab_size": 50272,
    "block_size": 25,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "context_timestep": "none",  # else contexts are encoded anew at every other of 25 timesteps (Q = 50)
}

COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
REPEATS = 4
"""Copies and products that are timed together."""


class Clock:
    """Times what is queued on a device, to its end."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        """Time some work, in seconds."""
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()


class Machine:
    """Best rates of a device.

    Attributes:
        bytes_per_s: of a large copy, reading and writing both counted.
        flops_per_s: of a large matrix product.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._clock = Clock(device)
        elements, size = COPY_BYTES[device.type] // dtype.itemsize, MATRIX_SIZE[device.type]
        self._from = torch.zeros(elements, dtype=dtype, device=device)
        self._to = torch.empty_like(self._from)
        self._matrix = torch.empty(size, size, dtype=dtype, device=device).normal_()
        self._product = torch.empty_like(self._matrix)
        self.bytes_per_s = self.flops_per_s = 0.0

    def measure(self) -> None:
        """Try again, and keep what is better than before."""
        copy_s = self._clock.seconds(lambda: [self._to.copy_(self._from) for _ in range(REPEATS)]) / REPEATS
        product_s = self._clock.seconds(lambda: [self._multiply() for _ in range(REPEATS)]) / REPEATS
        self.bytes_per_s = max(self.bytes_per_s, 2 * self._from.nbytes / copy_s)
        self.flops_per_s = max(self.flops_per_s, 2 * len(self._matrix) ** 3 / product_s)

    def _multiply(self) -> Tensor:
        return torch.mm(self._matrix, self._matrix, out=self._product)


def random_model(config: SSD2Config, device: torch.device, dtype: torch.dtype) -> SSD2:
    """A model whose weights never were anywhere but on the device, nor in another dtype."""
    with torch.device("meta"):
        model = SSD2(config).to(dtype)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model


class Core:
    """Answers in the middle of a block, computed as the engine does."""

    def __init__(self, model: SSD2, answers: int, context: int, steps: int) -> None:
        """Take up answers.

        Args:
            model: θ_core.
            answers: with different prompts.
            context: tokens of each prompt.
            steps: timesteps that there will be.
        """
        self._lane = lane_for(model, answers)
        self._requests = [_request(model.config, number, context, steps) for number in range(answers)]
        self._states: dict[int, list[BlockState]] = {}  # by batch

    def step(self, batch: int) -> None:
        """Time one step of the first answers, see `core_server.engine.process.Engine`; the first encodes contexts."""
        states = self._states.get(batch, [BlockState()] * batch)
        answers = enumerate(zip(self._requests, states, strict=False))
        rows = [Row(slot, request, state) for slot, (request, state) in answers]
        logits = self._lane.logits(rows)
        for block_logits in logits:
            pack_logits(block_logits, PREFERRED)
        greedy = logits.argmax(-1).tolist()
        fed_back = self._lane.feed_back(rows, logits)
        self._states[batch] = [
            state.after(ProjectedTokens(tuple(tokens)), is_commit=False, fed_back=own)
            for state, tokens, own in zip(states, greedy, fed_back, strict=True)
        ]


def run(
    *, shape: str, device: str, dtype: str, batches: Sequence[int], context: int, threads: int, runs: int
) -> Iterator[dict[str, object]]:
    """Time steps of all batches in turns; nothing where the device is not to be had.

    Args:
        shape: one of `SHAPES`.
        device: as torch names it.
        dtype: as torch names it.
        batches: answers in a step.
        context: tokens before the block.
        threads: processors, on a CPU.
        runs: steps that are timed of each batch.
    """
    try:
        check_device(device)
    except InvalidParameter as error:
        say(f"shape: skipped, {error}")
        return
    torch.set_num_threads(threads)
    where, kind = torch.device(device), getattr(torch, dtype)
    config = SSD2Config.from_dict({**OPT, **SHAPES[shape], "max_positions": context + OPT["block_size"]})
    model = random_model(config, where, kind)
    step_s, machine = _time_steps(model, where, kind, batches, context, runs)
    for batch in batches:
        step_ms, limit_ms = 1000 * median(step_s[batch]), 1000 * _limit_s(model, machine, batch, context)
        yield {
            "shape": shape,
            "device": _name(where),
            "dtype": dtype,
            "batch": batch,
            "step_ms": round(step_ms, 3),
            "limit_ms": round(limit_ms, 3),
            "ratio_to_limit": round(step_ms / limit_ms, 2),
            "share_of_limit": round(limit_ms / step_ms, 3),
            "context": context,
            "gb_per_s": round(machine.bytes_per_s / 1e9, 1),
            "tflops": round(machine.flops_per_s / 1e12, 3),
            "threads": threads,
            "runs": runs,
        }


@torch.inference_mode()
def _time_steps(
    model: SSD2, device: torch.device, dtype: torch.dtype, batches: Sequence[int], context: int, runs: int
) -> tuple[dict[int, list[float]], Machine]:
    core, machine, clock = Core(model, max(batches), context, runs + 1), Machine(device, dtype), Clock(device)
    step_s: dict[int, list[float]] = {batch: [] for batch in batches}
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for number in range(runs + 1):
            machine.measure()
            for batch in batches:
                step_s[batch].append(clock.seconds(partial(core.step, batch)))
                say(f"step {number} of {runs}: batch {batch}, {step_s[batch][-1]:.3f} s")
    return {batch: times[1:] for batch, times in step_s.items()}, machine  # the first one encodes the contexts


def _limit_s(model: SSD2, machine: Machine, batch: int, context: int) -> float:
    config = model.config
    read = [parameter for name, parameter in model.named_parameters() if not name.startswith("position_embedding")]
    multiplied = sum(parameter.numel() for parameter in read if parameter.dim() == 2)
    attended = 2 * config.num_layers * config.hidden_size * (context + config.block_size)  # queries·keys, ·values
    flops = 2 * batch * config.block_size * (multiplied + attended)
    return max(sum(parameter.nbytes for parameter in read) / machine.bytes_per_s, flops / machine.flops_per_s)


def _request(config: SSD2Config, number: int, context: int, steps: int) -> OpenRequest:
    draw = random.Random(number)
    return OpenRequest(
        model="",
        family="",
        model_sha256="",
        vocabulary_sha256="",
        vocab_size=config.vocab_size,
        prompt_ids=tuple(draw.randrange(config.vocab_size) for _ in range(context)),
        noise_seed=number,
        timesteps=decoding_timesteps(steps),
        block_size=config.block_size,
        max_blocks=1,
        simplex_value=config.simplex_value,
        self_conditioning="own",
        speculation=0,
        patience=0,
        logits_format=PREFERRED,
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
