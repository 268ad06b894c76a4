"""The line to the core, against servers that are written for a test."""

from __future__ import annotations

import grpc
import pytest

from ssd2.errors import CoreStopping
from ssd2.logits_format import PREFERRED
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import ERROR_CODE_KEY, OpenRequest, StepPosition
from user_agent.core_client import CoreClient, CoreStream

OPEN = OpenRequest("", "ssd-2", "", "", 32, (1,), 0, (1000,), 8, 1, 5.0, "own", PREFERRED, 0, 0)


async def test_why_the_core_ended_an_answer_is_known_to_an_agent_that_was_writing() -> None:
    """Not so with grpcio alone: https://github.com/grpc/grpc/issues/36066."""

    class Stopping(pb_grpc.CollaborationServiceServicer):
        async def Collaborate(self, requests: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
            await context.read()
            await context.write(pb.CollaborateResponse(opened=pb.Opened(session_id="1")))
            code = ((ERROR_CODE_KEY, CoreStopping.code),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "it is being stopped", code)

    server = grpc.aio.server()
    pb_grpc.add_CollaborationServiceServicer_to_server(Stopping(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with CoreClient(f"127.0.0.1:{port}", patience_s=0) as client:
        stream = await client.open(OPEN)
        with pytest.raises(CoreStopping, match="refused: it is being stopped"):
            await _commit_again_and_again(stream)
    await server.stop(0)


async def _commit_again_and_again(stream: CoreStream) -> None:
    for number in range(10_000):
        await stream.commit(StepPosition(number, 0, 0), [1] * 8)
