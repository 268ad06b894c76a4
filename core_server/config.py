"""What a core server can be started with, checked once, here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssd2.errors import InvalidParameter
from ssd2.logits_format import ANY_FORMAT, AllowedFormats

MAX_NAME_LENGTH = 128


def default_threads() -> int:
    """Computations at a time: one a processor, at most four."""
    return min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ServerConfig:
    """One core server.

    Attributes:
        models: checkpoint folders by the names that agents know the models by; the first is the default.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        max_sessions: answers in progress at a time; one more is refused.
        device: where the models run, as torch names it.
        threads: computations at a time.
        answer_timeout_s: how long an agent may take for its part of a timestep.
        grace_s: how long answers in progress may go on once the server is told to stop.
        logits_formats: formats of the logits that agents may ask for.
    """

    models: Mapping[str, Path]
    host: str = "127.0.0.1"
    port: int = 0
    max_sessions: int = 16
    device: str = "cpu"
    threads: int = field(default_factory=default_threads)
    answer_timeout_s: float = 300.0
    grace_s: float = 5.0
    logits_formats: AllowedFormats = ANY_FORMAT

    def __post_init__(self) -> None:
        for name in self.models:
            if not name or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
                raise InvalidParameter(
                    f"a model's name is {name[:MAX_NAME_LENGTH]!r}; give it 1 to {MAX_NAME_LENGTH} printable "
                    "characters with --model NAME=DIR"
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

    def address(self, port: int | None = None) -> str:
        """HOST:PORT, an IPv6 host in brackets.

        Args:
            port: the port that was picked; None for the one asked for.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port if port is None else port}"


def named_models(given: Sequence[str]) -> dict[str, Path]:
    """Read what was given with --model: NAME=DIR, or DIR for a model that is known by its folder's name.

    Raises:
        InvalidParameter: if there is none, or two have one name.
    """
    if not given:
        raise InvalidParameter("no model was given; give at least one checkpoint folder with --model")
    models: dict[str, Path] = {}
    for text in given:
        name, has_name, folder = ("", "", "") if Path(text).is_dir() else text.partition("=")
        path = Path(folder if has_name else text)
        name = name if has_name else path.resolve().name
        if name in models:
            raise InvalidParameter(f"two models are named {name!r}; name them apart with --model NAME=DIR")
        models[name] = path
    return models
