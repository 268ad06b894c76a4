"""Readiness of a server for an answer now, and the reason if it is not."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol

from core_server.catalogue.engine_messages import Alive
from core_server.config import HEARTBEAT_S

MAX_SILENCE_S = 10 * HEARTBEAT_S
"""An engine that says nothing for longer is stuck, or at a batch that new answers would wait for."""


class RunningEngine(Protocol):
    """One engine, as far as its state is reported."""

    @property
    def alive(self) -> Alive | None:
        """Its last heartbeat; None before the first."""

    @property
    def silence_s(self) -> float:
        """Seconds since it has said anything."""


class RunningEngines(Protocol):
    """The engines of a server, as far as their state is reported."""

    @property
    def living(self) -> Mapping[int, RunningEngine]:
        """Engines that have not ended, by their numbers."""

    @property
    def broken_models(self) -> Set[str]:
        """Names of the models that no engine is left for."""

    @property
    def restarts(self) -> Mapping[int, int]:
        """Restarts of each engine, by its number."""

    @property
    def given_up(self) -> Set[int]:
        """Numbers of the engines that are not started again."""


class Readiness:
    """State of a server: it loads, serves, drains.

    Attributes:
        engines: that serve; None while the models load.
        is_draining: whether new answers are turned away.
    """

    def __init__(self) -> None:
        self.engines: RunningEngines | None = None
        self.is_draining = False

    @property
    def obstacle(self) -> str | None:
        """Why no answer can be taken; None if one can."""
        if self.is_draining:
            return "draining"
        if self.engines is None:
            return "loading"
        if not (living := self.engines.living):
            return "an engine has ended"
        if broken := self.engines.broken_models:
            return f"broken models: {', '.join(sorted(broken))}"
        faults = [engine.alive.fault if engine.alive else None for engine in living.values()]
        if all(faults):
            return faults[0]
        silence_s = min(engine.silence_s for engine in living.values())  # one that can take an answer is enough
        return f"an engine has been silent for {silence_s:.0f} s" if silence_s > MAX_SILENCE_S else None

    @property
    def limitation(self) -> str | None:
        """A fault that leaves the server able to take answers; None if there is none."""
        if self.engines is None:
            return None
        of = f"of {len(self.engines.restarts)}"
        if ended := len(self.engines.restarts) - len(self.engines.living):
            return f"degraded: {ended} {of} engines ended, {len(self.engines.given_up)} given up"
        silent = sum(engine.silence_s > MAX_SILENCE_S for engine in self.engines.living.values())
        return f"degraded: {silent} {of} engines silent" if silent else None
