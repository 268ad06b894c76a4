"""Settings of a core server: described, and checked, once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from core_server.options import check_ranges, setting
from ssd2.errors import InsecureLine, InvalidParameter
from ssd2.logits.format import ANY_FORMAT, AllowedFormats
from ssd2.models.pairs import PAIRS, Pair, downloaded_folder
from ssd2.wire.addresses import is_loopback

MAX_NAME_LENGTH = 128

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")

HEARTBEAT_S = 1.0
"""An engine reports at least this often, except while it computes a batch."""

AUTO_PRECISION = "auto"
"""bfloat16 on NVIDIA GPUs, whose matrix units compute it many times as fast as float32; float32 elsewhere."""


def default_threads() -> int:
    """Return the number of processors, or what OMP_NUM_THREADS says, which the libraries that compute read too."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # of nested loops the outer one's comes first
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


def named_models(given: Sequence[str]) -> dict[str, Path]:
    """Parse the values of --model: NAME=DIR, or DIR for a model named after its folder; a pair stands for its core.

    Raises:
        ModelNotFound: if a pair's core model is not downloaded.
        InvalidParameter: if there is none, or two have the same name.
    """
    if not given:
        raise InvalidParameter("there is no model to serve; name at least one checkpoint folder", parameter="models")
    models: dict[str, Path] = {}
    for text in given:
        name, has_name, folder = ("", "", "") if Path(text).is_dir() else text.partition("=")
        pair = _pair(folder if has_name else text)
        path = downloaded_folder(pair, "core") if pair else Path(folder if has_name else text)
        name = name if has_name else pair.name if pair else path.resolve().name
        if name in models:
            raise InvalidParameter(f"two models are named {name!r}; give them different names", parameter="models")
        models[name] = path
    return models


def _pair(given: str) -> Pair | None:
    """Return the pair of that name, unless a folder has the name."""
    return None if Path(given).is_dir() else next((pair for pair in PAIRS if pair.name == given), None)


@dataclass(frozen=True)
class ServerConfig:
    """Settings of one core server; `core-server --help`, Ray's arguments and the proxy's variables are made of them."""

    models: Mapping[str, Path] = field(
        default_factory=dict,
        metadata=setting(
            "Checkpoint folder of a model to serve, or the name of a pair (`core-server models list`) whose core was "
            "downloaded; repeatable. Agents ask for the model by NAME (the folder's "
            "name if omitted). The first model is the default.",
            option="model",
            metavar="[NAME=]DIR",
            parse=named_models,
            is_repeatable=True,
        ),
    )
    upstream: str | None = field(
        default=None,
        metadata=setting(
            "Serve a model that another server computes, instead of models on this machine: vLLM, SGLang or "
            "llama.cpp's server, such as http://localhost:8000. It gives its largest log-probabilities only, so agents "
            "may ask for top-k:K, up to its limit (vLLM's --max-logprobs), and not for float16 or uint8.",
            metavar="URL",
        ),
    )
    upstream_model: str | None = field(
        default=None,
        metadata=setting("Name of the model at the upstream; agents know it by the same name.", metavar="NAME"),
    )
    tokenizer: Path | None = field(
        default=None,
        metadata=setting(
            "Folder with the tokenizer.json and config.json of the upstream's model; it needs no weights.",
            metavar="FOLDER",
        ),
    )
    upstream_key: Path | None = field(
        default=None,
        metadata=setting(
            "File with the upstream's API key; without it, the variable SLINGSHOT_UPSTREAM_KEY is read.",
            metavar="FILE",
        ),
    )
    host: str = field(default="127.0.0.1", metadata=setting("Address to listen on."))
    port: int = field(default=0, metadata=setting("Port to listen on; 0 picks a free one.", at_least=0, at_most=65_535))
    tls_certificate: Path | None = field(
        default=None,
        metadata=setting(
            "Certificate chain (PEM) shown to agents. Turns TLS on; without it connections are plaintext.",
            metavar="FILE",
        ),
    )
    tls_key: Path | None = field(
        default=None, metadata=setting("Private key (PEM) of the certificate.", metavar="FILE")
    )
    client_ca: Path | None = field(
        default=None,
        metadata=setting("CA certificate (PEM). Agents must present a certificate signed by it.", metavar="FILE"),
    )
    keys: Path | None = field(
        default=None,
        metadata=setting(
            "File of API keys, made by `core-server keys`. Without the file, anybody who can reach the server may use "
            "it; with the file, calls without a valid key are refused, except health checks.",
            metavar="FILE",
        ),
    )
    max_sessions: int = field(
        default=16,
        metadata=setting("Maximum number of answers in progress; further ones are refused.", metavar="N", at_least=1),
    )
    max_context: int | None = field(
        default=None,
        metadata=setting(
            "Maximum tokens of prompt and answer together, for causal language models that take more. A GPU reserves a "
            "slot of this length for each session (deploy/sizing.md).",
            metavar="N",
            at_least=2,
            default="the model's own",
        ),
    )
    device: str = field(
        default="cpu", metadata=setting("Device of the models: cpu, cuda or cuda:1; with several GPUs, the first.")
    )
    logits_formats: AllowedFormats = field(
        default=ANY_FORMAT,
        metadata=setting(
            "Formats of the logits that agents may ask for, comma-separated: float16, uint8, top-k:K (the K largest or "
            "fewer). Full logits (float16, uint8) reveal a model's last layer to whoever collects enough of them "
            "(arXiv 2403.06634); to withhold them, offer only top-k:64.",
            option="logits",
            metavar="FORMATS",
            parse=AllowedFormats.parse,
        ),
    )
    precision: str = field(
        default=AUTO_PRECISION,
        metadata=setting(
            "Precision of the weights: float32, bfloat16 (half the memory, for GPUs), int8 (a quarter; needs the extra "
            "int8), or auto: bfloat16 on cuda, float32 elsewhere. bfloat16 and int8 are approximate: answers can "
            "differ from those in float32.",
            is_advanced=True,
        ),
    )
    tensor_parallel: int = field(
        default=1,
        metadata=setting(
            "GPUs to split every model over, for the family ssd-2 and causal language models that transformers has a "
            "plan for; N must divide their attention heads and key-value heads.",
            metavar="N",
            at_least=1,
            is_advanced=True,
        ),
    )
    replicas: int = field(
        default=1,
        metadata=setting(
            "Number of engines, each with all models on its own GPUs. An answer goes to the engine with the fewest "
            "answers; an engine that crashes is restarted while the others serve.",
            metavar="N",
            at_least=1,
            is_advanced=True,
        ),
    )
    threads: int = field(
        default_factory=default_threads,
        metadata=setting(
            "CPU threads of all engines together.",
            metavar="N",
            at_least=1,
            is_advanced=True,
            default="OMP_NUM_THREADS, else all processors",
        ),
    )
    compiled: bool = field(
        default=False,
        metadata=setting(
            "Compile the noise, which then takes a third of the time; the first batch of each size takes some seconds. "
            "Needs a C++ compiler on a CPU.",
            option="compile",
            is_advanced=True,
        ),
    )
    speculation: int = field(
        default=8,
        metadata=setting(
            "Timesteps to compute ahead of an agent, on guesses of its projections, while no other agent waits; 0 "
            "turns speculation off.",
            metavar="N",
            at_least=0,
            is_advanced=True,
        ),
    )
    answer_timeout_s: float = field(
        default=300.0,
        metadata=setting(
            "Seconds an agent may be silent before its answer is dropped.", metavar="S", above=0, is_advanced=True
        ),
    )
    session_timeout_s: float = field(
        default=3600.0,
        metadata=setting(
            "Seconds an answer may take in one stream; its agent can resume it in a new one.",
            metavar="S",
            above=0,
            is_advanced=True,
        ),
    )
    grace_s: float = field(
        default=5.0,
        metadata=setting(
            "Seconds that answers in progress may continue after SIGTERM or SIGHUP.",
            metavar="S",
            at_least=0,
            is_advanced=True,
        ),
    )
    engine_timeout_s: float = field(
        default=60.0,
        metadata=setting(
            "Seconds an engine may be silent before it is killed and restarted; if it was the only one, the server "
            "stops. Must exceed the time that a batch takes.",
            metavar="S",
            above=HEARTBEAT_S,
            is_advanced=True,
        ),
    )
    upstream_timeout_s: float = field(
        default=60.0,
        metadata=setting(
            "Seconds an upstream may take for a timestep, the first of which reads the prompt.",
            metavar="S",
            above=0,
            is_advanced=True,
        ),
    )
    log_level: str = field(
        default="info", metadata=setting("Lowest level to log.", choices=LOG_LEVELS, is_advanced=True)
    )
    log_format: str = field(
        default="text",
        metadata=setting("Lines of text, or one JSON object per line.", choices=LOG_FORMATS, is_advanced=True),
    )
    ops_host: str = field(
        default="127.0.0.1",
        metadata=setting("Address of /health, /ready and /metrics.", metavar="HOST", is_advanced=True),
    )
    ops_port: int | None = field(
        default=None,
        metadata=setting(
            "Port of /health, /ready and /metrics (Prometheus), over plaintext HTTP and open to anyone who can reach "
            "it; 0 picks a free one.",
            metavar="PORT",
            at_least=0,
            at_most=65_535,
            is_advanced=True,
            default="off",
        ),
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata=setting(
            "Endpoint to send the spans of answers to, by OTLP over gRPC, such as http://localhost:4317. Needs the "
            "extra otel.",
            metavar="URL",
            is_advanced=True,
            default="off",
        ),
    )

    def __post_init__(self) -> None:
        self._check_names()
        self._check_access()
        check_ranges(self)
        self._check_devices()
        self._check_upstream()

    def _check_names(self) -> None:
        for name in self.model_folders:
            if not name or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
                raise InvalidParameter(
                    f"a model's name is {name[:MAX_NAME_LENGTH]!r}; use 1 to {MAX_NAME_LENGTH} printable characters",
                    parameter="models",
                )
        for name, host in (("host", self.host), ("ops host", self.ops_host)):
            if not host:
                raise InvalidParameter(f"{name} is empty; use an address to listen on, such as 127.0.0.1 or 0.0.0.0")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InvalidParameter("a TLS certificate and its key go together; set both", parameter="tls_certificate")

    def _check_access(self) -> None:
        if self.client_ca and not self.tls_certificate:
            raise InvalidParameter(
                "client certificates require TLS; set the server's certificate and key too", parameter="tls_certificate"
            )
        if self.keys and not self.tls_certificate and not is_loopback(self.host):
            raise InsecureLine(
                f"API keys would cross the network to {self.host} unencrypted; set a TLS certificate and its key, or "
                "listen on 127.0.0.1",
                parameter="tls_certificate",
            )

    def _check_devices(self) -> None:
        if self.ranks > 1 and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InvalidParameter(
                f"device is {self.device!r}; with several ranks, name the first GPU, such as cuda or cuda:4, or cpu",
                parameter="device",
            )

    def _check_upstream(self) -> None:
        given = [one for one in (self.upstream, self.upstream_model, self.tokenizer) if one is not None]
        if len(given) in (1, 2):
            raise InvalidParameter(
                "an upstream's URL, its model's name and the folder of the model's tokenizer go together; set all "
                "three",
                parameter="upstream",
            )
        if self.upstream is None:
            return
        if self.models:
            raise InvalidParameter(
                "a server has either models of its own or an upstream; start another server for the others",
                parameter="models",
            )
        if not _is_url(self.upstream):
            raise InvalidParameter(
                "the upstream's address is not the URL of a server; use one such as http://localhost:8000, without a "
                "password, a ? or a #",
                parameter="upstream",
            )
        if self.ranks > 1:
            raise InvalidParameter(
                "with an upstream nothing is computed here; leave out tensor parallelism and replicas"
            )
        full = [str(one) for one in self.logits_formats.formats if one.kind != "top-k"]
        if full and self.logits_formats != ANY_FORMAT:
            raise InvalidParameter(
                f"an upstream gives its largest log-probabilities only, so {' and '.join(full)} cannot be offered; "
                "offer top-k:K",
                parameter="logits",
            )

    @property
    def model_folders(self) -> Mapping[str, Path]:
        """Folders of the models, by the names that agents know them by; that of an upstream's has no weights."""
        if self.upstream_model is not None and self.tokenizer is not None:
            return {self.upstream_model: self.tokenizer}
        return self.models

    @property
    def weights_precision(self) -> str:
        """Precision of the weights."""
        if self.precision != AUTO_PRECISION:
            return self.precision
        return "bfloat16" if self.device.partition(":")[0] == "cuda" else "float32"

    @property
    def ranks(self) -> int:
        """Number of processes that compute, over all engines."""
        return self.replicas * self.tensor_parallel

    @property
    def slots_per_engine(self) -> int:
        """Slots of an engine: enough for all sessions, as each goes to the engine with the fewest."""
        return -(-self.max_sessions // self.replicas)

    @property
    def threads_per_rank(self) -> int:
        """CPU threads of one rank."""
        return max(1, self.threads // self.ranks)

    def devices(self, replica: int) -> tuple[str, ...]:
        """Return the devices of an engine's ranks: GPUs are assigned in order, from the first.

        Args:
            replica: number of the engine, from 0.
        """
        if self.device == "cpu" or self.ranks == 1:
            return (self.device,) * self.tensor_parallel
        first = int(self.device.partition(":")[2] or 0) + replica * self.tensor_parallel
        return tuple(f"cuda:{number}" for number in range(first, first + self.tensor_parallel))

    def address(self, port: int | None = None) -> str:
        """Return HOST:PORT, an IPv6 host in brackets.

        Args:
            port: that was picked; None for the configured one.
        """
        return host_and_port(self.host, self.port if port is None else port)


def _is_url(text: str) -> bool:
    """True if a text is the address of a server, and no secret stands in it."""
    try:
        url = urlsplit(text)
        return (
            url.scheme in ("http", "https")
            and bool(url.hostname)
            and url.port != 0
            and not ("@" in url.netloc or url.query or url.fragment)
        )
    except ValueError:
        return False


def host_and_port(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
