"""Options of the commands that make a line to a core. A key is none of them: a process's arguments are read by all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ClientCertificate = Annotated[
    Path | None,
    typer.Option(
        envvar="SLINGSHOT_CLIENT_CERTIFICATE",
        help="PEM file of this device's certificate, for a core that asks for one.",
        show_envvar=False,
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        envvar="SLINGSHOT_CLIENT_KEY", help="PEM file of the private key of --client-certificate.", show_envvar=False
    ),
]
