"""What crossing the trust boundary costs: the same answers in one process and over loopback gRPC."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from ssd2.checkpoint import load_checkpoint
from ssd2.collaboration import decode_locally
from ssd2.demo.generator import unseen_items
from ssd2.demo.paths import CORE, USER
from ssd2.logits_format import PREFERRED
from ssd2.models.denoiser import Denoiser
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from user_agent.agent import Agent, Answer, Question
from user_agent.core_client import CoreClient
from user_agent.demo import demo_core_server
from user_agent.documents.reader import Passage
from user_agent.user_model import UserModel

RUNS = 5
COLLABORATION = CollaborationParams()


def run() -> dict[str, object]:
    """Medians of five runs, the two ways taken in turns."""
    core, user = load_checkpoint(CORE), UserModel.load(USER, with_weights=True)
    params = DecodingParams(block_size=user.config.block_size)
    item = unseen_items("two-source", 1)[0]
    passages = [Passage(note, USER, 1) for note in item.notes]
    question = Question(item.question, passages, COLLABORATION, params, Seeds.reproducible(1))

    def in_process() -> list[int]:
        return decode_locally(
            Denoiser(core.model, [user.core_prompt(item.question)], params.self_conditioning),
            user.terms(item.question, passages, COLLABORATION, params.self_conditioning),
            COLLABORATION,
            params,
            [question.seeds],
            vocab_size=user.config.vocab_size,
            eos_token_id=user.config.eos_token_id,
            logits_format=PREFERRED,
        )[0]

    local_s, remote = [], []
    with demo_core_server() as address:
        _over_grpc(address, user, question)  # the first answer warms both processes up
        for number in range(RUNS):
            started = time.perf_counter()
            tokens = in_process()
            local_s.append(time.perf_counter() - started)
            remote.append(_over_grpc(address, user, question))
            print(f"run {number + 1} of {RUNS}", file=sys.stderr)
    answer = remote[0]
    remote_s = statistics.median(answer.seconds for answer in remote)
    return {
        "tokens_equal": [token.token_id for token in answer.tokens] == tokens,
        "timesteps": answer.timesteps,
        "in_process_step_ms": round(1000 * statistics.median(local_s) / answer.timesteps, 3),
        "grpc_step_ms": round(1000 * remote_s / answer.timesteps, 3),
        "grpc_over_in_process": round(remote_s / statistics.median(local_s), 3),
        "bytes_up_per_step": round(answer.bytes_up / answer.timesteps, 1),
        "bytes_down_per_step": round(answer.bytes_down / answer.timesteps, 1),
        "runs": RUNS,
    }


def _over_grpc(address: str, user: UserModel, question: Question) -> Answer:
    async def ask() -> Answer:
        async with CoreClient(address) as client:
            return await Agent(user, client).answer(question)

    return asyncio.run(ask())
