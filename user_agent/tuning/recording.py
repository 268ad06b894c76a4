"""The core's part of a tuning run on documents: recorded once, without them.

The core alone (λ = 0) answers a fixed list of public instructions, and what it sends is kept. This
module is given no document, no question made of one and no weights of the user model: what it sends
is a function of the seed, of public parameters and of the system prompt, which every question sends.
All settings are then compared on the device against the recording, with the line to the core closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import InvalidParameter
from ssd2.logits.format import FLOAT16, LogitsFormat
from user_agent.answering.run import Agent, AnswerInProgress, Question
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

    def logits(self, view: BlockView) -> Tensor:
        """Return the recorded logits of one timestep, [B, L, V]."""
        return torch.stack([recording.logits[view.block][view.step] for recording in self._recordings])


async def record(
    user_model: UserModel,
    client: CoreClient,
    params: DecodingParams,
    seed: int,
    *,
    system_prompt: str = "",
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
        system_prompt: of every answer; no part of a prompt without a chat template.
        model: name of the core's model, or "" for whatever it serves.
        logits_format: in which the core's logits come; None for the best that its provider allows.
        on_timestep: told whenever logits have come.

    Raises:
        SlingshotError: of the kind that says what went wrong.
    """
    recordings, said = [], user_model.instructed(system_prompt)
    for number, instruction in enumerate(PUBLIC_INSTRUCTIONS):
        seeds, complete = Seeds.reproducible(seed + number), params.with_all_timesteps()
        alone = CollaborationParams(0.0, 0.0)
        asked = Question(instruction, [], alone, complete, seeds, model, logits_format, core_conversation=said)
        async with Agent(user_model, client).begin(asked, ends_at_eos=False) as answer:
            recordings.append(Recording(await _all_logits(answer, on_timestep), seeds.noise))
    return recordings


async def _all_logits(answer: AnswerInProgress, on_timestep: Callable[[], None]) -> list[list[Tensor]]:
    """Decode to the last block, and keep what the core sends.

    At λ = 0 the mix is the core's logits. Halves hold them as they came, but for the last bits of what is filled in
    where top-k left something out.
    """
    logits: list[list[Tensor]] = []
    while (view := answer.due) is not None:
        ensemble = await answer.step()
        if view.step == 0:
            logits.append([])
        if answer.asks_core_at(view):
            logits[-1].append(ensemble.mixed[0].to(torch.float16))
        on_timestep()
    return logits


def recording_bytes(params: DecodingParams, vocab_size: int, logits_format: LogitsFormat) -> int:
    """Return the bytes of all recordings in a format: on the wire in that which they come in, in memory in float16."""
    timesteps = len(PUBLIC_INSTRUCTIONS) * params.max_blocks * len(params.timesteps)
    return timesteps * params.block_size * logits_format.bytes_per_position(vocab_size)


def check_recording_size(params: DecodingParams, vocab_size: int) -> None:
    """Refuse recordings that take more than `MAX_RECORDING_BYTES` of memory together.

    Raises:
        InvalidParameter: if they do.
    """
    if (needed := recording_bytes(params, vocab_size, FLOAT16)) > MAX_RECORDING_BYTES:
        raise InvalidParameter(
            f"the core's logits at {params.steps} steps and {params.max_tokens} tokens take {needed / 1e9:,.1f} GB of "
            f"memory, and the limit is {MAX_RECORDING_BYTES / 1e9:g} GB; use fewer steps or shorter answers",
            parameter="steps",
        )
