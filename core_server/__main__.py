"""The command `core-server`. Nothing heavy is imported before its arguments are read."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from core_server.config import ServerConfig, default_threads, named_models
from ssd2.errors import SlingshotError
from ssd2.logits_format import AllowedFormats

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

_EXAMPLES = """\
examples:
  core-server --model models/core
      serve to this machine alone, on a free port that is printed
  core-server --model models/core --host 0.0.0.0 --port 50051 --max-sessions 64
      serve to the network
  core-server --model models/core --port 50051 --device cuda
      compute on a GPU
  core-server --model models/core --port 50051 --logits top-k:64
      give out the 64 largest logits of a position at most, never all of them
  core-server --model general=models/core --model experts=models/core-experts --model models/opt-13b
      host several models; an agent is given the first one of its own model's family, or asks by name
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a core server until it is told to stop.

    Returns:
        The exit code: 0 after SIGTERM or SIGINT, 2 if the server cannot be started as asked.
    """
    options = vars(_parser().parse_args(arguments))
    logging.basicConfig(
        stream=sys.stderr,
        level=options.pop("log_level").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        models, logits_formats = named_models(options.pop("model")), AllowedFormats.parse(options.pop("logits"))
        config = ServerConfig(models=models, logits_formats=logits_formats, **options)
        from core_server.server import serve

        asyncio.run(serve(config, _announce))
    except SlingshotError as error:
        sys.stderr.write(f"core-server: error: {error}\n")
        return EXIT_REFUSED
    except KeyboardInterrupt:  # while the model is being loaded
        return EXIT_INTERRUPTED
    return 0


def _announce(line: str) -> None:
    sys.stdout.write(f"core-server: {line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    defaults = ServerConfig({})
    parser = argparse.ArgumentParser(
        prog="core-server",
        description="Serve core models to agents. Agents never send it their documents.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]DIR",
        help="checkpoint folder of a model to serve, and what agents know it by (default: the folder's name); may be "
        "given again",
    )
    add("--host", default=defaults.host, help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=defaults.port, help="port to listen on, 0 for any free one (default: %(default)s)")
    add(
        "--max-sessions",
        type=int,
        default=defaults.max_sessions,
        metavar="N",
        help="answers in progress at a time; one more is refused (default: %(default)s)",
    )
    add("--device", default=defaults.device, help="where the models run: cpu, cuda, cuda:1 (default: %(default)s)")
    add(
        "--threads",
        type=int,
        default=default_threads(),
        metavar="N",
        help="computations at a time, each with its share of the processors (default: %(default)s)",
    )
    add(
        "--answer-timeout-s",
        type=float,
        default=defaults.answer_timeout_s,
        metavar="S",
        help="seconds that an agent may be silent before its answer is given up (default: %(default)g)",
    )
    add(
        "--grace-s",
        type=float,
        default=defaults.grace_s,
        metavar="S",
        help="seconds that answers in progress may go on after SIGTERM (default: %(default)g)",
    )
    add(
        "--logits",
        default=str(defaults.logits_formats),
        metavar="FORMATS",
        help="formats that agents may have the model's logits in, with commas between them: float16, uint8, and "
        "top-k:K for the K largest or fewer. Full logits (float16, uint8) give a model's last layer away to whoever "
        "collects enough of them (arXiv 2403.06634); top-k:64 alone keeps them back (default: %(default)s)",
    )
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
