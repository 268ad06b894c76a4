"""What the formats of logits cost in time and bytes, at the paper's L = 25 and V = 50,272, on one CPU thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ssd2.algorithm.collaboration import Mixer, UserLogits
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.algorithm.sampler import project
from ssd2.logits.format import FLOAT16, PREFERRED, UINT8, LogitsFormat
from ssd2.logits.packed import pack, unpack

L, V = 25, 50_272
COLLABORATION = CollaborationParams()


def run(*, runs: int) -> Iterator[dict[str, object]]:
    """Measure each format, in milliseconds of processor time.

    Args:
        runs: measurements that a median is taken of.
    """
    torch.set_num_threads(1)
    core, *user = (4 * torch.randn(1, L, V, generator=torch.Generator().manual_seed(n)) for n in range(3))
    core[..., 7] += 25
    user[0][..., 7] += 20
    for how in (FLOAT16, UINT8, PREFERRED):
        yield {"format": str(how), **_measured(how, core, UserLogits(*user), runs)}


def _measured(how: LogitsFormat, core: Tensor, user: UserLogits, runs: int) -> dict[str, float]:
    data = pack(core, how)
    received = unpack(data, how, V)
    mix = Mixer(COLLABORATION).mix(received.values, user, 0)
    mixed, weight = mix.logits, mix.weights.core
    params, draw = DecodingParams(block_size=L), ([1], 0, 700)
    return {
        "bytes": data.numel(),
        "pack_ms": _median_ms(lambda: pack(core, how), runs),
        "unpack_ms": _median_ms(lambda: unpack(data, how, V), runs),
        "mix_ms": _median_ms(lambda: Mixer(COLLABORATION).mix(received.values, user, 0), runs),
        "proof_ms": _median_ms(lambda: proven(received, mixed, weight, params, *draw), runs),
        "project_ms": _median_ms(lambda: project(mixed, params, *draw), runs),
    }


def _median_ms(action: Callable[[], object], runs: int) -> float:
    action()
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        action()
        seconds.append(time.process_time() - started)
    return round(1000 * statistics.median(seconds), 2)
