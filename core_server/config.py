"""What a core server can be started with, checked once, here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssd2.errors import InsecureLine, InvalidParameter
from ssd2.logits.format import ANY_FORMAT, AllowedFormats
from ssd2.wire.addresses import is_loopback

MAX_NAME_LENGTH = 128


HEARTBEAT_S = 1.0
"""An engine reports at least this often, but for the batch that it is computing."""

AUTO_PRECISION = "auto"
"""bfloat16 on a GPU of NVIDIA's, whose matrix units take it many times as fast as float32; float32 elsewhere."""


def default_threads() -> int:
    """Processors that a computation uses: all."""
    return os.cpu_count() or 1


@dataclass(frozen=True)
class ServerConfig:
    """One core server.

    Attributes:
        models: checkpoint folders by the names that agents know the models by; the first is the default.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        tls_certificate: PEM file of the certificate chain that agents are shown; None for no encryption.
        tls_key: PEM file of its private key.
        client_ca: PEM file of the certificates that an agent's own has to be signed by; None to ask for none.
        keys: file of the keys that calls have to come with; None to answer everybody.
        max_sessions: answers in progress at a time; one more is refused.
        device: where the models run, as torch names it; the first of them where there are several.
        precision: what their weights are held in: float32, bfloat16, int8 or `AUTO_PRECISION`.
        tensor_parallel: GPUs that every model is cut over; an engine has as many ranks.
        replicas: engines, each with all models and with GPUs of its own.
        threads: processors that all ranks of all engines use together.
        compiled: whether the noise is compiled.
        speculation: timesteps of an answer that are computed ahead of its agent at most, while nothing else waits.
        answer_timeout_s: how long an agent may take for its part of a timestep.
        grace_s: how long answers in progress may go on once the server is told to stop.
        engine_timeout_s: how long the engine may say nothing before it is given up.
        log_level: name of the lowest level that is logged.
        log_format: one of `core_server.observability.logs.LOG_FORMATS`.
        ops_host: address of /health, /ready and /metrics.
        ops_port: their port; 0 for any free one, None for none of them.
        otlp_endpoint: URL that spans are sent to by OTLP over gRPC; None for no spans.
        logits_formats: formats of the logits that agents may ask for.
    """

    models: Mapping[str, Path]
    host: str = "127.0.0.1"
    port: int = 0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    keys: Path | None = None
    max_sessions: int = 16
    device: str = "cpu"
    precision: str = AUTO_PRECISION
    tensor_parallel: int = 1
    replicas: int = 1
    threads: int = field(default_factory=default_threads)
    compiled: bool = False
    speculation: int = 8
    answer_timeout_s: float = 300.0
    session_timeout_s: float = 3600.0
    grace_s: float = 5.0
    engine_timeout_s: float = 60.0
    log_level: str = "info"
    log_format: str = "text"
    ops_host: str = "127.0.0.1"
    ops_port: int | None = None
    otlp_endpoint: str | None = None
    logits_formats: AllowedFormats = ANY_FORMAT

    def __post_init__(self) -> None:
        self._check_names()
        self._check_access()
        self._check_ranges()

    def _check_names(self) -> None:
        for name in self.models:
            if not name or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
                raise InvalidParameter(
                    f"a model's name is {name[:MAX_NAME_LENGTH]!r}; give it 1 to {MAX_NAME_LENGTH} printable "
                    "characters with --model NAME=DIR"
                )
        for name, host in (("host", self.host), ("ops host", self.ops_host)):
            if not host:
                raise InvalidParameter(f"{name} is empty; give an address to listen on, such as 127.0.0.1 or 0.0.0.0")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InvalidParameter("a TLS certificate and its key go together: --tls-certificate FILE --tls-key FILE")

    def _check_access(self) -> None:
        if self.client_ca and not self.tls_certificate:
            raise InvalidParameter(
                "--client-ca asks agents for certificates, which only TLS does: give --tls-certificate FILE --tls-key "
                "FILE"
            )
        if self.keys and not self.tls_certificate and not is_loopback(self.host):
            raise InsecureLine(
                f"keys would cross the network to {self.host} in the clear; give --tls-certificate FILE --tls-key FILE "
                "(`core-server certs create` makes them), or listen on 127.0.0.1"
            )

    def _check_ranges(self) -> None:
        for name, port in (("port", self.port), ("ops port", self.ops_port or 0)):
            if not 0 <= port <= 65_535:
                raise InvalidParameter(f"{name} is {port}; it must be in [0, 65535], 0 for any free one")
        lowest_values = {"max_sessions": 1, "threads": 1, "tensor_parallel": 1, "replicas": 1, "speculation": 0}
        for name, lowest in lowest_values.items():
            if (value := getattr(self, name)) < lowest:
                raise InvalidParameter(f"{name.replace('_', ' ')} is {value}; it must be at least {lowest}")
        for name, above in (("answer_timeout_s", 0.0), ("session_timeout_s", 0.0), ("engine_timeout_s", HEARTBEAT_S)):
            if not above < (value := getattr(self, name)) < float("inf"):
                what = name.removesuffix("_s").replace("_", " ")
                raise InvalidParameter(f"{what} is {value} s; it must be above {above:g} and finite")
        if not 0 <= self.grace_s < float("inf"):
            raise InvalidParameter(f"grace is {self.grace_s} s; it must be at least 0 and finite")
        self._check_devices()

    def _check_devices(self) -> None:
        if self.ranks > 1 and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InvalidParameter(
                f"device is {self.device!r}; several GPUs are named by the first of them, such as cuda or cuda:4, and "
                "cpu shares the processors"
            )

    @property
    def weights_precision(self) -> str:
        """What the weights are held in."""
        if self.precision != AUTO_PRECISION:
            return self.precision
        return "bfloat16" if self.device.partition(":")[0] == "cuda" else "float32"

    @property
    def ranks(self) -> int:
        """Processes that compute, of all engines together."""
        return self.replicas * self.tensor_parallel

    @property
    def slots_per_engine(self) -> int:
        """Enough for all sessions, as each goes to the engine that has the fewest."""
        return -(-self.max_sessions // self.replicas)

    @property
    def threads_per_rank(self) -> int:
        """Processors that one rank uses."""
        return max(1, self.threads // self.ranks)

    def devices(self, replica: int) -> tuple[str, ...]:
        """Where the ranks of an engine compute: GPUs are given out in their order, from the first on.

        Args:
            replica: which engine, from 0.
        """
        if self.device == "cpu" or self.ranks == 1:
            return (self.device,) * self.tensor_parallel
        first = int(self.device.partition(":")[2] or 0) + replica * self.tensor_parallel
        return tuple(f"cuda:{number}" for number in range(first, first + self.tensor_parallel))

    def address(self, port: int | None = None) -> str:
        """HOST:PORT, an IPv6 host in brackets.

        Args:
            port: the port that was picked; None for the one asked for.
        """
        return host_and_port(self.host, self.port if port is None else port)


def host_and_port(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
