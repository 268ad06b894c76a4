"""Whether a server can take an answer now, and if not, why."""

from __future__ import annotations

from core_server.config import HEARTBEAT_S
from core_server.engines import Engines

MAX_SILENCE_S = 10 * HEARTBEAT_S
"""An engine that says nothing for longer is stuck, or at a batch that new answers would wait for."""


class Readiness:
    """How far a server has come: it loads, serves, drains.

    Attributes:
        engines: that serve; None while the models load.
        is_draining: whether new answers are turned away.
    """

    def __init__(self) -> None:
        self.engines: Engines | None = None
        self.is_draining = False

    @property
    def obstacle(self) -> str | None:
        """Why no answer can be taken; None if one can."""
        if self.is_draining:
            return "draining"
        if self.engines is None:
            return "loading"
        if any(engine.is_gone for engine in self.engines):
            return "an engine has ended"
        if broken := self.engines.broken_models:
            return f"broken models: {', '.join(sorted(broken))}"
        silence_s = max(engine.silence_s for engine in self.engines)
        return f"an engine has said nothing for {silence_s:.0f} s" if silence_s > MAX_SILENCE_S else None
