"""The command `core-server`. Nothing heavy is imported before its arguments are read."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core_server.config import ServerConfig, default_threads, named_models
from core_server.observability.logs import LOG_FORMATS, fields, start_log
from ssd2.errors import EngineLost, SlingshotError
from ssd2.logits.format import AllowedFormats

EXIT_ENGINE_LOST = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_HUNG_UP = 128 + signal.SIGHUP

MAX_DESCRIPTORS = 2**20
"""File descriptors that are asked for where the system names no limit."""

_EXAMPLES = """\
examples:
  core-server --model models/core
      serve to this machine alone, on a free port that is printed
  core-server --model models/core --host 0.0.0.0 --port 50051 --max-sessions 64
      serve to the network
  core-server --model models/core --host 0.0.0.0 --port 50051 --tls-certificate core.pem --tls-key core.key
      serve to the network, encrypted
  core-server --model models/core --host 0.0.0.0 --port 50051 --tls-certificate core.pem --tls-key core.key \\
      --keys keys.json --client-ca ca.pem
      the same, to agents with a key and a certificate alone
  core-server keys --help; core-server certs --help
      make both
  core-server --model models/core --port 50051 --device cuda
      compute on a GPU, in bfloat16 unless --precision says otherwise
  core-server --model models/core --port 50051 --device cuda --tensor-parallel 4
      cut the model over four GPUs: faster answers, and models too large for one
  core-server --model models/core --port 50051 --device cuda --replicas 2 --tensor-parallel 4 --max-sessions 128
      the same twice, on eight GPUs: more answers at a time
  core-server --model models/core --port 50051 --logits top-k:64
      give out the 64 largest logits of a position at most, never all of them
  core-server --model general=models/core --model experts=models/core-experts --model models/opt-13b
      host several models; an agent is given the first one of its own model's family, or asks by name
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a core server until it is told to stop, or make keys and certificates for one.

    Returns:
        The exit code: 0 after SIGTERM, SIGINT or SIGHUP, 143, 130 or 129 if they come while the models are being
        loaded, 2 if the server cannot be started as asked, 1 if its engine has ended.

    Raises:
        SystemExit: with 143 or 129, if it has not begun to load them yet.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] in (["keys"], ["certs"]):
        from core_server.access.commands import main as manage_access

        return manage_access(given)
    options = vars(_parser().parse_args(given))
    raise_descriptor_limit()
    start_log("front end", options["log_level"], options["log_format"])
    # Until the server's loop runs. Without it SIGTERM is ignored where this is the first process, as in a container.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(EXIT_HUNG_UP))
    try:
        models, logits_formats = named_models(options.pop("model")), AllowedFormats.parse(options.pop("logits"))
        config = ServerConfig(models=models, logits_formats=logits_formats, **options)
        from core_server.frontend.server import serve

        return asyncio.run(serve(config, _announce))
    except SlingshotError as error:
        _tell(error, options["log_format"])
        return EXIT_ENGINE_LOST if isinstance(error, EngineLost) else EXIT_REFUSED
    except KeyboardInterrupt:  # while the model is being loaded
        return EXIT_INTERRUPTED


def raise_descriptor_limit() -> None:
    """Allow this process, and those that it starts, all the file descriptors that it may have; an agent takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # the system's own limit may be lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tell(error: SlingshotError, log_format: str) -> None:
    """Why the server ends: the last line for people, or the last object of the log."""
    if log_format == "json":
        logging.getLogger(__package__).error("%s", error, extra=fields(error=error.code))
    else:
        sys.stderr.write(f"core-server: error: {error}\n")


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
        "--tls-certificate",
        type=Path,
        metavar="FILE",
        help="PEM file of the certificate chain that agents are shown; without it nothing on the line is encrypted",
    )
    add("--tls-key", type=Path, metavar="FILE", help="PEM file of the certificate's private key")
    add(
        "--client-ca",
        type=Path,
        metavar="FILE",
        help="PEM file of an authority; agents have to show a certificate that it signed",
    )
    add(
        "--keys",
        type=Path,
        metavar="FILE",
        help="file of keys (core-server keys); without a valid one nothing is answered but health checks, and without "
        "this option everybody who reaches the server is",
    )
    add(
        "--max-sessions",
        type=int,
        default=defaults.max_sessions,
        metavar="N",
        help="answers in progress at a time; one more is refused (default: %(default)s)",
    )
    add(
        "--device",
        default=defaults.device,
        help="where the models run: cpu, cuda, cuda:1; with several GPUs the first of them (default: %(default)s)",
    )
    add(
        "--tensor-parallel",
        type=int,
        default=defaults.tensor_parallel,
        metavar="N",
        help="GPUs that every model is cut over, for models of the family ssd-2; N divides their attention heads "
        "(default: %(default)s)",
    )
    add(
        "--replicas",
        type=int,
        default=defaults.replicas,
        metavar="N",
        help="engines, each with all models on GPUs of its own; an answer goes to the one that has the fewest, and one "
        "that ends is started again while the others go on (default: %(default)s)",
    )
    add(
        "--precision",
        default=defaults.precision,
        help="what the weights are held in: float32, bfloat16 (half the memory, for GPUs), int8 (a quarter; takes the "
        "extra int8), or auto: bfloat16 on cuda, float32 elsewhere (default: %(default)s)",
    )
    add(
        "--threads",
        type=int,
        default=default_threads(),
        metavar="N",
        help="processors that all engines together use to compute (default: all, %(default)s)",
    )
    add(
        "--compile",
        action="store_true",
        dest="compiled",
        help="compile the noise, which then takes a third of the time; needs a C++ compiler on a CPU, and some seconds "
        "for the first batches of each size",
    )
    add(
        "--speculation",
        type=int,
        default=defaults.speculation,
        metavar="N",
        help="timesteps of an answer that are computed ahead of its agent at most, on guesses at its projections, "
        "while no other agent waits; 0 for none (default: %(default)s)",
    )
    add(
        "--answer-timeout-s",
        type=float,
        default=defaults.answer_timeout_s,
        metavar="S",
        help="seconds that an agent may be silent before its answer is given up (default: %(default)g)",
    )
    add(
        "--session-timeout-s",
        type=float,
        default=defaults.session_timeout_s,
        metavar="S",
        help="seconds that an answer may take, however busy its agent is, which may go on with it in a new stream "
        "(default: %(default)g)",
    )
    add(
        "--grace-s",
        type=float,
        default=defaults.grace_s,
        metavar="S",
        help="seconds that answers in progress may go on after SIGTERM or SIGHUP (default: %(default)g)",
    )
    add(
        "--engine-timeout-s",
        type=float,
        default=defaults.engine_timeout_s,
        metavar="S",
        help="seconds that an engine may say nothing before it is given up: one of several is killed and started "
        "again, with the last one the server ends; more than one batch takes (default: %(default)g)",
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
    add(
        "--log-format",
        default=defaults.log_format,
        choices=LOG_FORMATS,
        help="lines of text, or a JSON object a line (default: %(default)s)",
    )
    add(
        "--ops-port",
        type=int,
        metavar="PORT",
        help="port of /health, /ready and /metrics (Prometheus), over HTTP and open to whoever reaches it, 0 for any "
        "free one (default: none of them)",
    )
    add("--ops-host", default=defaults.ops_host, metavar="HOST", help="address of these (default: %(default)s)")
    add(
        "--otlp-endpoint",
        metavar="URL",
        help="where spans of answers are sent to by OTLP over gRPC, such as http://localhost:4317; takes the extra "
        "otel (default: no spans)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
