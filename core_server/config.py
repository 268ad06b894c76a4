"""What a core server can be started with, checked once, here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ssd2.errors import InvalidParameter

MAX_NAME_LENGTH = 128


def default_threads() -> int:
    """Computations at a time: one a processor, at most four."""
    return min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ServerConfig:
    """One core server.

    Attributes:
        model: folder of the checkpoint.
        name: what agents know the model by; empty for the folder's name.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        max_sessions: answers in progress at a time; one more is refused.
        device: where the model runs, as torch names it.
        threads: computations at a time.
        answer_timeout_s: how long an agent may take for its part of a timestep.
        grace_s: how long answers in progress may go on once the server is told to stop.
    """

    model: Path
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    max_sessions: int = 16
    device: str = "cpu"
    threads: int = field(default_factory=default_threads)
    answer_timeout_s: float = 300.0
    grace_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.model_name or not self.model_name.isprintable() or len(self.model_name) > MAX_NAME_LENGTH:
            raise InvalidParameter(
                f"the model's name is {self.model_name[:MAX_NAME_LENGTH]!r}; give 1 to {MAX_NAME_LENGTH} "
                "printable characters with --name"
            )
        if not self.host:
            raise InvalidParameter("host is empty; give an address to listen on, such as 127.0.0.1 or 0.0.0.0")
        if not 0 <= self.port <= 65_535:
            raise InvalidParameter(f"port is {self.port}; it must be in [0, 65535], 0 for any free one")
        if self.max_sessions < 1:
            raise InvalidParameter(f"max sessions is {self.max_sessions}; it must be at least 1")
        if self.threads < 1:
            raise InvalidParameter(f"threads is {self.threads}; it must be at least 1")
        if not 0 < self.answer_timeout_s < float("inf"):
            raise InvalidParameter(f"answer timeout is {self.answer_timeout_s} s; it must be above 0 and finite")
        if not 0 <= self.grace_s < float("inf"):
            raise InvalidParameter(f"grace is {self.grace_s} s; it must be at least 0 and finite")

    @property
    def model_name(self) -> str:
        """What agents know the model by."""
        return self.name or self.model.resolve().name

    def address(self, port: int | None = None) -> str:
        """HOST:PORT, an IPv6 host in brackets.

        Args:
            port: the port that was picked; None for the one asked for.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port if port is None else port}"
