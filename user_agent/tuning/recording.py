"""The core's part of a tuning run on documents: recorded once, without them.

The core alone (λ = 0) answers a fixed list of public instructions, and what it sends is kept. This
module is given no document, no question made of one and no weights of the user model: what it sends
is a function of the seed and of public parameters. All settings are then compared on the device
against the recording, with the line to the core closed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.sampler import LogitsRequest, decode
from ssd2.errors import InvalidParameter
from ssd2.logits.format import FLOAT16, LogitsFormat
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient

PUBLIC_INSTRUCTIONS = (
    "Where is it?",
    "Who is it?",
    "What is it called?",
    "When is it?",
    "What is the number?",
    "How does it go on?",
)
"""All that the core is asked. The list is the same for everybody, so that being asked it says nothing."""

MAX_RECORDING_BYTES = 10**9
"""They are held in memory until the last setting has answered."""

_NO_TOKEN = -1


# See docs/decisions/023-tuning.md.
@dataclass(frozen=True)
class Recording:
    """The core's answer to one public instruction.

    Attributes:
        logits: of every block and in it of every timestep, as they arrived, each [L, V], float16.
        noise_seed: of its trajectory; an answer that is mixed with it has to have the same noise.
    """

    logits: list[list[Tensor]]
    noise_seed: int


class RecordedCore:
    """Recordings in a core's place: a `Predictor`, a row each."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings

    def logits(self, request: LogitsRequest) -> Tensor:
        """The recorded logits of one timestep, [B, L, V]."""
        return torch.stack([recording.logits[request.block][request.step] for recording in self._recordings])


async def record(
    user_model: UserModel,
    client: CoreClient,
    params: DecodingParams,
    seed: int,
    *,
    model: str = "",
    logits_format: LogitsFormat | None = None,
    on_timestep: Callable[[], None] = lambda: None,
) -> list[Recording]:
    """Have the core answer `PUBLIC_INSTRUCTIONS`, at all timesteps: a mix may end a block later than the core alone.

    Args:
        user_model: its tokenizer and shape; loaded without weights.
        client: the line to the core.
        params: how to decode.
        seed: of the decodes; the core can know it.
        model: name of the core's model, or "" for whatever it serves.
        logits_format: in which the core's logits come; None for the best that its provider allows.
        on_timestep: told whenever logits have come.

    Raises:
        SlingshotError: of the kind that says what went wrong.
    """
    recordings = []
    for number, instruction in enumerate(PUBLIC_INSTRUCTIONS):
        seeds, complete = Seeds.reproducible(seed + number), params.with_all_timesteps()
        recorder = _Recorder(user_model, client, on_timestep)
        alone = CollaborationParams(0.0, 0.0)
        await recorder.answer(Question(instruction, [], alone, complete, seeds, model, logits_format))
        recordings.append(Recording(recorder.logits, seeds.noise))
    return recordings


def recording_bytes(params: DecodingParams, vocab_size: int, logits_format: LogitsFormat) -> int:
    """What all recordings together take in a format: on the wire in that which they come in, in memory in float16."""
    timesteps = len(PUBLIC_INSTRUCTIONS) * params.max_blocks * len(params.timesteps)
    return timesteps * params.block_size * logits_format.bytes_per_position(vocab_size)


def check_recording_size(params: DecodingParams, vocab_size: int) -> None:
    """Refuse recordings that take more than `MAX_RECORDING_BYTES` of memory together.

    Raises:
        InvalidParameter: if they do.
    """
    if (needed := recording_bytes(params, vocab_size, FLOAT16)) > MAX_RECORDING_BYTES:
        raise InvalidParameter(
            f"the core's part at {params.steps} steps and {params.max_tokens} tokens takes {needed / 1e9:,.1f} GB of "
            f"memory, at most {MAX_RECORDING_BYTES / 1e9:g} GB is allowed; give a smaller --steps or --max-tokens"
        )


class _Recorder(Agent):
    """An agent that keeps the core's logits, and goes on to the last block whatever the core says."""

    def __init__(self, user_model: UserModel, client: CoreClient, on_timestep: Callable[[], None]) -> None:
        super().__init__(user_model, client)
        self.logits: list[list[Tensor]] = []
        self._on_timestep = on_timestep

    def _sampler(self, question: Question) -> Generator[LogitsRequest, Tensor, list[list[int]]]:
        vocab_size = self._user_model.config.vocab_size
        run = decode(question.params, [question.seeds], vocab_size=vocab_size, eos_token_id=_NO_TOKEN)
        request = next(run)
        while True:
            # At λ = 0 the mix is the core's logits. Halves hold them as they came, but for the last bits of what is
            # filled in where top-k left something out.
            logits = yield request
            if request.step == 0:
                self.logits.append([])
            self.logits[-1].append(logits[0].to(torch.float16))
            self._on_timestep()
            try:
                request = run.send(logits)
            except StopIteration as finished:
                answer: list[list[int]] = finished.value
                return answer
