"""Answers that no model wrote, for scripted agents: a prompt and tokens drawn at random."""

from __future__ import annotations

import random

from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import FIRST
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.bench.scripted_agents import Recording
from tests.core_server.conftest import open_request


def made_up(
    model: LoadedModel, params: DecodingParams, prompt_tokens: int, seed: int, logits_format: LogitsFormat = FLOAT16
) -> Recording:
    """What an agent could have sent that took all timesteps of all blocks.

    Args:
        model: that it asks.
        params: how it decodes.
        prompt_tokens: of the prompt.
        seed: of the tokens.
        logits_format: that it asks for.
    """
    draws, vocab_size = random.Random(seed), model.checkpoint.model.config.vocab_size

    def token_ids(count: int) -> tuple[int, ...]:
        return tuple(draws.randrange(3, vocab_size) for _ in range(count))

    request = open_request(model, params, seed, prompt_ids=token_ids(prompt_tokens), logits_format=logits_format)
    opening = pb.CollaborateRequest(open=open_to_proto(request))
    projections, at = [], FIRST
    steps = len(params.timesteps)
    for _ in range(params.max_blocks * steps):
        is_commit = at.step == steps - 1
        projection = pb.Projection(
            number=at.number,
            block=at.block,
            step=at.step,
            token_ids=token_ids(params.block_size),
            is_commit=is_commit,
        )
        projections.append(pb.CollaborateRequest(projection=projection))
        at = at.after(is_commit=is_commit)
    sent = [opening, *projections[:-1], pb.CollaborateRequest(close=pb.Close())]
    return Recording.of([message.SerializeToString() for message in sent])
