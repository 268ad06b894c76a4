"""What the files of deploy/ are checked against."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

from core_server.__main__ import _parser
from core_server.config import ServerConfig
from core_server.frontend.engine_client import STOP_TIMEOUT_S
from core_server.frontend.service import ABORT_TIMEOUT_S
from core_server.observability.ops import GRACE_S
from core_server.options import read_options

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OBSERVABILITY = DEPLOY / "observability"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def server_of(arguments: Sequence[str]) -> ServerConfig:
    """The server that `core-server ARGUMENTS` would start; unknown options end the test."""
    return ServerConfig(**read_options(ServerConfig, vars(_parser().parse_args(list(arguments)))))


def ran(program: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program of this machine, run to its end in the repository's root."""
    command, environment = [shutil.which(program) or program, *arguments], {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def seconds_to_stop(server: ServerConfig) -> int:
    """The longest that it takes from SIGTERM to its end."""
    return math.ceil(server.grace_s + ABORT_TIMEOUT_S + STOP_TIMEOUT_S + GRACE_S)
