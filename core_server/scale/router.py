"""Router of answers to replicas."""

from __future__ import annotations

import random

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class FewestSessions(FIFOMixin, RequestRouter):
    """Send each answer to the replica with the fewest in progress, on any node.

    Serve's own router fills the proxy's node first, and looks at two random replicas: a full one would be chosen
    while another has room.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return all of them: Serve takes the one with the fewest calls, the first of equals."""
        return [random.sample(candidate_replicas, len(candidate_replicas))]
