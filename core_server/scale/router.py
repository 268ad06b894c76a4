"""Which replica an answer goes to."""

from __future__ import annotations

import random

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class FewestSessions(FIFOMixin, RequestRouter):
    """Sends each answer to the replica that has the fewest in progress, on whichever node.

    Serve's own router fills the node of the proxy first, and looks at two replicas at random: one that is full would be
    chosen while another has room.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All of them: of these Serve takes the one with the fewest calls, the first of equals."""
        return [random.sample(candidate_replicas, len(candidate_replicas))]
