"""Options of the commands that make a line to a core. A key is none of them: a process's arguments are read by all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ClientCertificate = Annotated[
    Path | None,
    typer.Option(help="PEM file of this device's certificate, for a core that asks for one."),
]
ClientKey = Annotated[Path | None, typer.Option(help="PEM file of the private key of --client-certificate.")]

HOW_TO_GIVE_A_CORE = "give its address with --core HOST:PORT, or keep it with `user-agent config set core HOST:PORT`"
