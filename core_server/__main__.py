"""The command `core-server`. Nothing heavy is imported before the arguments are parsed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

from core_server.config import ServerConfig
from core_server.observability.logs import fields, start_log
from core_server.options import add_options, read_options
from core_server.remedies import EXIT_REFUSED, with_remedy
from ssd2.errors import EngineLost, InvalidParameter, SlingshotError

EXIT_ENGINE_LOST = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_HUNG_UP = 128 + signal.SIGHUP

MAX_DESCRIPTORS = 2**20
"""File descriptors to ask for where the system has no limit."""

_EXAMPLES = """\
examples:
  core-server --model models/core
      serve only this machine, on a free port; the command prints it
  core-server --model models/core --host 0.0.0.0 --port 50051 --tls-certificate core.pem --tls-key core.key \\
      --keys keys.json
      serve the network over TLS, to agents with an API key
  core-server --model models/core --port 50051 --device cuda
      compute on a GPU, in bfloat16
  core-server --model models/core --port 50051 --device cuda --tensor-parallel 4
      split the model over four GPUs: faster answers, and models too large for one GPU
  core-server --model models/core --port 50051 --device cuda --replicas 2 --tensor-parallel 4 --max-sessions 128
      run two such engines on eight GPUs: more answers at a time
  core-server --model models/core --port 50051 --logits top-k:64
      never send full logits
  core-server --model qwen2.5-7b --port 50051 --device cuda
      serve a public model, downloaded before with `core-server models get qwen2.5-7b`
  core-server --model general=models/core --model experts=models/core-experts --model models/opt-13b
      serve several models; an agent gets the first of its own model's family, or asks for one by name
  core-server --upstream http://localhost:8000 --upstream-model Qwen/Qwen3-8B --tokenizer models/qwen3-8b --port 50051
      serve a model that vLLM, SGLang or llama.cpp's server computes

commands:
  core-server keys --help
      create, list and revoke API keys
  core-server certs --help
      create TLS certificates
  core-server models --help
      list and download public models
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a core server until it is stopped, make keys and certificates for one, or download models.

    Returns:
        The exit code: 0 after SIGTERM, SIGINT or SIGHUP; 143, 130 or 129 if they come while the models load; 2 if the
        server cannot start as asked; 1 if its engine has ended.

    Raises:
        SystemExit: with 143 or 129, if loading has not begun.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] in (["keys"], ["certs"]):
        from core_server.access.commands import main as manage_access

        return manage_access(given)
    if given[:1] == ["models"]:
        from core_server.models import main as manage_models

        return manage_models(given[1:])
    options = vars(_parser().parse_args(given))
    log_level, log_format = (options.get(name, getattr(ServerConfig, name)) for name in ("log_level", "log_format"))
    raise_descriptor_limit()
    start_log("front end", log_level, log_format)
    # Until the server's loop runs. Without it SIGTERM is ignored where this is the first process, as in a container.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(EXIT_HUNG_UP))
    try:
        config = ServerConfig(**read_options(ServerConfig, options))
        if not config.model_folders:
            raise InvalidParameter("there is no model to serve; name a checkpoint folder", parameter="models")
        from core_server.frontend.server import serve

        return asyncio.run(serve(config, _announce))
    except SlingshotError as error:
        _tell(error, log_format)
        return EXIT_ENGINE_LOST if isinstance(error, EngineLost) else EXIT_REFUSED
    except KeyboardInterrupt:  # while the model is being loaded
        return EXIT_INTERRUPTED


def raise_descriptor_limit() -> None:
    """Raise the limit of file descriptors, of which each agent takes one, to the most that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # the system's own limit may be lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tell(error: SlingshotError, log_format: str) -> None:
    """Write why the server ends: a line for people, or the last object of the log."""
    if log_format == "json":
        logging.getLogger(__package__).error("%s", with_remedy(error), extra=fields(error=error.code))
    else:
        sys.stderr.write(f"core-server: error: {with_remedy(error)}\n")


def _announce(line: str) -> None:
    sys.stdout.write(f"core-server: {line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="core-server",
        usage="core-server --model [NAME=]DIR [options]\n"
        "       core-server --upstream URL --upstream-model NAME --tokenizer FOLDER [options]\n"
        "       core-server keys | certs | models ...",
        add_help=False,
        description="Serve core models to agents. Agents never send their documents to the server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-h", "--help", action="help", help="Show this message and exit.")
    parser.add_argument(
        "--version",
        action="version",
        version=f"core-server {version('slingshot')}",
        help="Show the version and exit.",
    )
    add_options(parser, ServerConfig)
    return parser


if __name__ == "__main__":
    sys.exit(main())
