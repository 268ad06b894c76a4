"""Benchmarks: `python -m tests.bench --help` says which there are. Nothing heavy is imported before it is run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd2.demo.paths import CORE, USER
from ssd2.models.pairs import EMBEDDED, pair_named


def numbers(kind: type[int] | type[float]) -> Callable[[str], list[int] | list[float]]:
    """Reads 1,2,4."""

    def read(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    read.__name__ = "list"
    return read


@dataclass(frozen=True)
class Option:
    """One setting of a benchmark.

    Attributes:
        default: its value.
        quick: with --quick.
        kind: reads it.
        help: what it is.
    """

    default: Any
    quick: Any
    kind: Callable[[str], Any]
    help: str


@dataclass(frozen=True)
class Benchmark:
    """One module of this package, whose `run` takes the options and yields the figures.

    Attributes:
        minutes: on two idle cores, roughly.
        help: what it measures.
        options: by name.
    """

    minutes: str
    help: str
    options: dict[str, Option]


_CORE = {"core": Option(CORE, CORE, Path, "checkpoint folder of the core")}
_PAIR = {**_CORE, "user": Option(USER, USER, Path, "checkpoint folder of the user model")}
_RUNS = {"runs": Option(5, 1, int, "measurements that a median is taken of")}
_MAX_TOKENS = {"max_tokens": Option(48, 8, int, "longest answer")}

EMBEDDED_FOLDER = pair_named(EMBEDDED).user.folder

_PROGRAM = "python -m tests.bench"

BENCHMARKS = {
    "decode": Benchmark(
        "10",
        "ours against a plain Algorithm 2: time and bytes a token at the same accuracy",
        {
            **_PAIR,
            "items": Option(16, 2, int, "questions for the accuracies, which need both models"),
            **_RUNS,
            "timesteps": Option(1000, 20, int, "T of the plain one"),
            **_MAX_TOKENS,
        },
    ),
    "transport": Benchmark(
        "3",
        "a timestep in one process, over gRPC, with TLS, over longer ways, with and without speculation",
        {
            **_PAIR,
            **_RUNS,
            "rtt_ms": Option([10.0, 50.0, 100.0], [10.0], numbers(float), "round trips to be added, in ms"),
            "speculation": Option(8, 2, int, "timesteps that the core may send ahead"),
            **_MAX_TOKENS,
        },
    ),
    "server": Benchmark(
        "3",
        "a server with 1 to 32 sessions: tokens a second, waits, memory",
        {
            **_PAIR,
            "sessions": Option([1, 2, 4, 8, 16, 32], [1, 2], numbers(int), "agents at a time"),
            **_RUNS,
            "seconds": Option(4.0, 1.0, float, "that one measurement takes"),
            "warm_up_s": Option(1.0, 0.2, float, "before it"),
            **_MAX_TOKENS,
        },
    ),
    "causal": Benchmark(
        "4",
        "a server of a causal language model with 1 to 16 sessions, and a long prompt beside 8 answers",
        {
            "core": Option(None, None, Path, "checkpoint folder of the core; a small random Llama without"),
            "sessions": Option([1, 4, 16], [1, 2], numbers(int), "agents at a time"),
            "beside": Option(8, 2, int, "agents beside whom the long prompt is read"),
            "prompt_tokens": Option(64, 8, int, "of a prompt"),
            "long_tokens": Option(4000, 60, int, "of the long prompt"),
            "tokens": Option(48, 4, int, "of an answer"),
            "runs": Option(3, 1, int, "measurements that a median is taken of"),
            "seconds": Option(8.0, 1.0, float, "that one measurement takes"),
            "warm_up_s": Option(3.0, 0.2, float, "before it"),
        },
    ),
    "rolling": Benchmark(
        "12",
        "answers of many agents while one of two replicas is restarted, again and again",
        {
            **_PAIR,
            "restarts": Option(100, 2, int, "of the two together"),
            "sessions": Option(8, 2, int, "agents at a time"),
            "grace_s": Option(0.5, 0.2, float, "that an answer in progress is given when its core stops"),
            **_MAX_TOKENS,
        },
    ),
    "soak": Benchmark(
        "20",
        "a server under load for a long time: lost answers, wrong ones, memory",
        {
            **_PAIR,
            "sessions": Option(32, 2, int, "agents at a time"),
            "minutes": Option(20.0, 0.1, float, "that it takes"),
            **_MAX_TOKENS,
        },
    ),
    "scaled_out": Benchmark(
        "5",
        "a timestep through Ray Serve's proxy against the plain server's, and tokens a second of 1 and 2 replicas",
        {
            **_PAIR,
            "sessions": Option([1, 8], [1], numbers(int), "agents at a time"),
            "replicas": Option([1, 2], [1], numbers(int), "on Ray"),
            **_RUNS,
            "seconds": Option(4.0, 1.0, float, "that one measurement takes"),
            "warm_up_s": Option(1.0, 0.2, float, "before it"),
            **_MAX_TOKENS,
        },
    ),
    "growth": Benchmark(
        "4",
        "a server's time and memory as answers and sessions grow, on a random model",
        {
            "sessions": Option([1, 8, 32], [1, 2], numbers(int), "agents at a time"),
            "blocks": Option(16, 3, int, "of an answer"),
            "block_size": Option(25, 4, int, "tokens of a block"),
            "steps": Option(8, 2, int, "timesteps of a block"),
            "context_timestep": Option("none", "none", str, "of the model: none, or quantised for a context that ages"),
            **_RUNS,
        },
    ),
    "logits": Benchmark(
        "1",
        "what the formats of logits cost in time and bytes, at L = 25 and V = 50,272",
        {"runs": Option(15, 1, int, "measurements that a median is taken of")},
    ),
    "shape": Benchmark(
        "5",
        "a timestep of a core of a published size, against the machine's limit",
        {
            "shape": Option("125m", "tiny", str, "125m, 2.7b or 13b: OPT's; or tiny"),
            "device": Option("cpu", "cpu", str, "where to run, as torch names it"),
            "dtype": Option("float32", "float32", str, "of the weights, as torch names it"),
            "batches": Option([1, 4, 16, 64], [1, 2], numbers(int), "answers in a timestep"),
            "context": Option(256, 16, int, "tokens before the block"),
            "threads": Option(1, 1, int, "processors to use, on a CPU"),
            **_RUNS,
        },
    ),
    "next_token": Benchmark(
        "6",
        "a token of a causal model with a real vocabulary, beside its networks; against another commit's checkout",
        {
            "vocabulary": Option(151_936, 4096, int, "V"),
            "tokens": Option(48, 4, int, "tokens that are timed"),
            **_RUNS,
            "against": Option(None, None, Path, "checkout of another commit, measured in turns with this one"),
        },
    ),
    "conversations": Benchmark(
        "10",
        "conversations of three turns about ten linked documents, through the agent: how many are answered right",
        {
            "core": Option(EMBEDDED_FOLDER, EMBEDDED_FOLDER, Path, "checkpoint folder of the core"),
            "user": Option(EMBEDDED_FOLDER, EMBEDDED_FOLDER, Path, "checkpoint folder of the user model"),
            "lambdas": Option([0.5, 1.0], [0.5], numbers(float), "λ of each measurement"),
            "alpha": Option(1.0, 1.0, float, "α"),
            "talks": Option(10, 1, int, "conversations"),
            "max_tokens": Option(32, 2, int, "longest answer"),
            "precision": Option("auto", "auto", str, "of the core's weights, as core-server has it"),
            "out": Option(None, None, Path, "file of JSON lines that answers are kept in"),
        },
    ),
    "page": Benchmark(
        "3",
        "answers of a causal pair to questions about a page: seconds to the first token, tokens a second",
        {
            "core": Option(None, None, Path, "checkpoint folder of the core; a small random Llama without"),
            "user": Option(None, None, Path, "checkpoint folder of the user model; the core's without"),
            "tokens": Option(40, 4, int, "of an answer"),
            "precision": Option("float32", "float32", str, "of the core's weights"),
            **_RUNS,
        },
    ),
    "prompts": Benchmark(
        "5",
        "layouts of a prompt: how many everyday questions a small model answers right with each",
        {
            "user": Option(None, None, Path, "checkpoint folder with a chat template; smollm2-135m's without"),
            "max_tokens": Option(32, 4, int, "longest answer"),
            "limit": Option(100, 1, int, "questions of each kind"),
        },
    ),
    "documents": Benchmark(
        "2",
        "documents read in a second, and a search over many passages, encrypted and not",
        {
            "documents": Option(1000, 5, int, "files to read in"),
            "document_bytes": Option(10_000, 500, int, "of each"),
            "passages": Option(100_000, 200, int, "in the store that is searched"),
            "queries": Option(200, 5, int, "questions of 7 words, as frequent as in the text"),
        },
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark, or all of them, and print what comes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    each = [given] if set(given) - {"--quick"} else [[name, *given] for name in BENCHMARKS]
    for chosen in [vars(parser.parse_args(one)) for one in each]:
        name, is_quick = chosen.pop("benchmark"), chosen.pop("quick")
        defaults = {key: o.quick if is_quick else o.default for key, o in BENCHMARKS[name].options.items()}
        for figures in importlib.import_module(f"tests.bench.{name}").run(**{**defaults, **chosen}):
            load = round(os.getloadavg()[0], 2)
            print(json.dumps({"benchmark": name, **figures, "cores": os.cpu_count(), "load": load}), flush=True)


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:13} about {b.minutes:>2} min  {b.help}" for name, b in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Benchmarks. Each prints JSON objects, one a line, on stdout, and its progress on stderr.",
        epilog="benchmarks, on two idle cores:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--help] [NAME [--help] [OPTIONS]] [--quick]",
    )
    names = parser.add_subparsers(
        prog=_PROGRAM, dest="benchmark", metavar="NAME", help="one of them, with its options; all without a name"
    )
    for name, benchmark in BENCHMARKS.items():
        one = names.add_parser(name, description=f"{benchmark.help}; about {benchmark.minutes} min.")
        one.add_argument("--quick", action="store_true", help="small settings: shows that it runs, and no more")
        for key, option in benchmark.options.items():
            flag = "--" + key.replace("_", "-")
            text = f"{option.help} (default: {_shown(option.default)})"
            one.add_argument(flag, type=option.kind, default=argparse.SUPPRESS, help=text)
    return parser


def _shown(value: object) -> str:
    return ",".join(f"{number:g}" for number in value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
