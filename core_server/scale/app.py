"""The application of Ray Serve: `core_server.scale.app:build_app`, with its arguments."""

# No `from __future__ import annotations` here: Serve looks for the class in `build_app`'s annotation, not for its name.

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import RequestRouterConfig

from core_server.config import AUTO_PRECISION, ServerConfig
from core_server.frontend.server import SPARE_STREAMS
from core_server.scale.replica import CoreReplica
from core_server.scale.router import FewestSessions
from ssd2.errors import InvalidParameter
from ssd2.logits.format import AllowedFormats

DEPLOYMENT = "core"


class CoreArguments(BaseModel):
    """Arguments of the application; where `core-server` has an option of the name, they mean the same.

    Attributes:
        models: checkpoint folders by the names that agents know the models by, in the same place on every node; the
            first is the default.
        sessions_per_replica: answers in progress at a time on a replica; one more is refused.
        min_replicas: that there always are.
        max_replicas: that there may be.
        target_sessions: answers in progress that Serve aims at on each replica, by adding and ending replicas; None
            for three quarters of what it has room for.
        device: cpu or cuda.
        tensor_parallel: GPUs of a replica, all of one node.
        cpus: processors of a replica.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, Path]
    sessions_per_replica: int = 16
    min_replicas: int = 1
    max_replicas: int = 1
    target_sessions: float | None = None
    device: str = "cpu"
    precision: str = AUTO_PRECISION
    tensor_parallel: int = 1
    cpus: int = 1
    compiled: bool = False
    speculation: int = 8
    logits: str = str(ServerConfig({}).logits_formats)
    answer_timeout_s: float = 300.0
    session_timeout_s: float = 3600.0
    grace_s: float = 30.0
    engine_timeout_s: float = 60.0
    log_level: str = "info"
    log_format: str = "json"

    def server_config(self) -> ServerConfig:
        """The same for one replica.

        Raises:
            InvalidParameter: if it is outside what a server can be started with.
        """
        if not self.models:
            raise InvalidParameter("there is no model to serve; give at least one, as models: {NAME: DIR}")
        if self.device not in ("cpu", "cuda"):
            raise InvalidParameter(f"device is {self.device!r}; give cpu or cuda, Ray chooses which of the GPUs")
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise InvalidParameter(
                f"min replicas is {self.min_replicas}; it must be at least 1, and at most max replicas "
                f"({self.max_replicas})"
            )
        return ServerConfig(
            models=self.models,
            max_sessions=self.sessions_per_replica,
            device=self.device,
            precision=self.precision,
            tensor_parallel=self.tensor_parallel,
            threads=self.cpus,
            compiled=self.compiled,
            speculation=self.speculation,
            answer_timeout_s=self.answer_timeout_s,
            session_timeout_s=self.session_timeout_s,
            grace_s=self.grace_s,
            engine_timeout_s=self.engine_timeout_s,
            log_level=self.log_level,
            log_format=self.log_format,
            logits_formats=AllowedFormats.parse(self.logits),
        )


def build_app(arguments: CoreArguments) -> serve.Application:
    """The application, for `serve run` and Serve's configuration files.

    Raises:
        InvalidParameter: if it could not be served so.
    """
    config = arguments.server_config()
    deployment: serve.Deployment = serve.deployment(name=DEPLOYMENT, **deployment_options(arguments))(CoreReplica)
    return deployment.bind(config)


def deployment_options(arguments: CoreArguments) -> dict[str, Any]:
    """What Serve is told of the replicas."""
    resources = {"CPU": float(arguments.cpus)}
    if arguments.device == "cuda":
        resources["GPU"] = float(arguments.tensor_parallel)
    target = arguments.target_sessions or 0.75 * arguments.sessions_per_replica
    return {
        # A replica itself refuses what is too much, with our own error. Serve lets calls wait only while it finds one.
        "max_ongoing_requests": arguments.sessions_per_replica + SPARE_STREAMS,
        "max_queued_requests": arguments.max_replicas * (arguments.sessions_per_replica + SPARE_STREAMS),
        "request_router_config": RequestRouterConfig(request_router_class=FewestSessions),  # type: ignore[arg-type]
        "autoscaling_config": {
            "min_replicas": arguments.min_replicas,
            "max_replicas": arguments.max_replicas,
            "target_ongoing_requests": target,
        },
        "ray_actor_options": {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)},
        # One bundle, which is on one node: the ranks of an engine find each other through a folder.
        "placement_group_bundles": [resources],
        "placement_group_strategy": "STRICT_PACK",
        "graceful_shutdown_timeout_s": arguments.grace_s,
    }
