"""Settings of the line to the core. No request can change them: only who starts the agent chooses where it sends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from user_agent.fields import Face


class LineSettings(BaseModel):
    """Address of the core, and protection of the line to it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    core: Annotated[
        str | None,
        Face(
            "HOST:PORT of the core server, or of its replicas separated by commas",
            default="the pair's core or the demo's, started on this machine",
            label="Core",
        ),
    ] = None
    ca: Annotated[
        Path | None,
        Face(
            "CA certificate of the core's provider (PEM)",
            "Turns TLS on; without it the connection is plaintext, which only a core on this machine may have.",
            label="CA certificate",
        ),
    ] = None
    insecure: Annotated[
        bool,
        Face(
            "Allow a plaintext connection to a core on another machine",
            "Anyone on the network path can read questions and answers. No effect with a CA certificate.",
            advanced=True,
        ),
    ] = False
    client_certificate: Annotated[
        Path | None,
        Face("Certificate of this device (PEM), for a core that requires one", advanced=True),
    ] = None
    client_key: Annotated[Path | None, Face("Private key of that certificate (PEM)", advanced=True)] = None
    timeout: Annotated[
        float,
        Face(
            "Seconds to wait for each answer of the core",
            "At least 120 for a core that the agent starts itself.",
            advanced=True,
        ),
    ] = Field(default=10.0, gt=0)
