"""The application of Ray Serve: `core_server.scale.app:build_app`, with its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from core_server.config import ServerConfig
from core_server.frontend.server import SPARE_STREAMS
from core_server.options import check_ranges, read_named, setting
from core_server.scale.replica import CoreReplica
from core_server.scale.router import FewestSessions
from ssd2.errors import InvalidParameter

DEPLOYMENT = "core"

_SAME_NAME = (
    *("device", "precision", "tensor_parallel", "compiled", "speculation", "max_context"),
    *("answer_timeout_s", "session_timeout_s", "engine_timeout_s", "grace_s", "log_level", "log_format"),
    *("upstream", "upstream_model", "tokenizer", "upstream_key", "upstream_timeout_s"),
)
OPTIONS = {
    "sessions_per_replica": "max_sessions",
    "cpus": "threads",
    "logits": "logits_formats",
    **{name: name for name in _SAME_NAME},
}
"""Settings of a server that are arguments here, by the arguments' names; the others belong to Serve and its proxy."""

_DEFAULTS = {"threads": 1, "grace_s": 30.0, "log_format": "json"}


@dataclass(frozen=True)
class Scaling:
    """Numbers of replicas that Serve runs."""

    min_replicas: int = field(default=1, metadata=setting("Minimum number of replicas.", at_least=1))
    max_replicas: int = field(default=1, metadata=setting("Maximum number of replicas.", at_least=1))
    target_sessions: float | None = field(
        default=None,
        metadata=setting(
            "Target number of answers in progress per replica; Serve starts and stops replicas to reach it.",
            above=0,
            default="three quarters of the sessions of a replica",
        ),
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.min_replicas > self.max_replicas:
            raise InvalidParameter(
                f"min replicas is {self.min_replicas}; it must be at most max replicas ({self.max_replicas})"
            )


_SCALING = {one.name: one.name for one in fields(Scaling)}
ARGUMENTS = ("models", *OPTIONS, *_SCALING)


def build_app(arguments: Mapping[str, Any]) -> serve.Application:
    """Return the application, for `serve run` and Serve's configuration files.

    Raises:
        InvalidParameter: if there is no such argument, or it could not be served so.
    """
    config, scaling = read_arguments(arguments)
    options = deployment_options(config, scaling)
    deployment: serve.Deployment = serve.deployment(name=DEPLOYMENT, **options)(CoreReplica)
    return deployment.bind(config)


def read_arguments(arguments: Mapping[str, Any]) -> tuple[ServerConfig, Scaling]:
    """Return the server of one replica, and how many replicas there are.

    Raises:
        InvalidParameter: if there is no such argument, or its value is outside its range.
    """
    if unknown := set(arguments) - set(ARGUMENTS):
        raise InvalidParameter(f"there is no argument {min(unknown)!r}; the arguments are {', '.join(ARGUMENTS)}")
    models = arguments.get("models") or {}
    if not isinstance(models, Mapping) or not (models or arguments.get("upstream")):
        raise InvalidParameter(
            "there is no model to serve; name at least one, as models: {NAME: DIR}, or an upstream with upstream_model "
            "and tokenizer"
        )
    config = ServerConfig(
        models={str(name): Path(str(folder)) for name, folder in models.items()},
        **{**_DEFAULTS, **read_named(ServerConfig, arguments, OPTIONS)},
    )
    if config.device not in ("cpu", "cuda"):
        raise InvalidParameter(f"device is {config.device!r}; give cpu or cuda; Ray chooses the GPUs")
    return config, Scaling(**read_named(Scaling, arguments, _SCALING))


def deployment_options(config: ServerConfig, scaling: Scaling) -> dict[str, Any]:
    """Return what Serve is told of the replicas."""
    resources = {"CPU": float(config.threads)}
    if config.device == "cuda":
        resources["GPU"] = float(config.tensor_parallel)
    streams = config.max_sessions + SPARE_STREAMS
    return {
        # A replica itself refuses what is too much, with our own error. Serve lets calls wait only while it finds one.
        "max_ongoing_requests": streams,
        "max_queued_requests": scaling.max_replicas * streams,
        "request_router_config": RequestRouterConfig(request_router_class=FewestSessions),  # type: ignore[arg-type]
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_sessions or 0.75 * config.max_sessions,
        },
        "ray_actor_options": {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)},
        # One bundle, which is on one node: the ranks of an engine find each other through a folder.
        "placement_group_bundles": [resources],
        "placement_group_strategy": "STRICT_PACK",
        "graceful_shutdown_timeout_s": config.grace_s,
    }
