"""Options of the commands that make a line to a core. A key is none of them: a process's arguments are read by all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Ca = Annotated[
    Path | None,
    typer.Option(
        help="CA certificate of the core's provider (PEM). Turns TLS on; a core on another machine needs it, or "
        "--insecure."
    ),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Allow an unencrypted line to a core on another machine: whoever is on the way can read questions and "
        "answers. Without effect where --ca is set.",
        show_default=False,
    ),
]
ClientCertificate = Annotated[
    Path | None,
    typer.Option(help="PEM file of this device's certificate, for a core that asks for one."),
]
ClientKey = Annotated[Path | None, typer.Option(help="PEM file of the private key of --client-certificate.")]
