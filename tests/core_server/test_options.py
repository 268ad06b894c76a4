"""Each setting of the server is described once: option, help, default and range come from its field."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from core_server.__main__ import _parser, main
from core_server.config import ServerConfig
from core_server.options import read_named, read_options
from ssd2.errors import InvalidParameter
from ssd2.logits.format import AllowedFormats

NAMED = ("off", "OMP_NUM_THREADS, else all processors", "the model's own")
"""Defaults that are words."""

GIVEN: dict[str, tuple[list[str], Any]] = {
    "models": (["--model=a=b", "--model=c"], {"a": Path("b"), "c": Path("c")}),
    "upstream": (["--upstream=http://x"], "http://x"),
    "upstream_model": (["--upstream-model=m"], "m"),
    "tokenizer": (["--tokenizer=t"], Path("t")),
    "upstream_key": (["--upstream-key=k"], Path("k")),
    "host": (["--host=::1"], "::1"),
    "port": (["--port=7"], 7),
    "tls_certificate": (["--tls-certificate=c.pem"], Path("c.pem")),
    "tls_key": (["--tls-key=c.key"], Path("c.key")),
    "client_ca": (["--client-ca=ca.pem"], Path("ca.pem")),
    "keys": (["--keys=keys.json"], Path("keys.json")),
    "max_sessions": (["--max-sessions=3"], 3),
    "max_context": (["--max-context=9"], 9),
    "device": (["--device=cuda:1"], "cuda:1"),
    "logits_formats": (["--logits=top-k:64"], AllowedFormats.parse("top-k:64")),
    "precision": (["--precision=int8"], "int8"),
    "tensor_parallel": (["--tensor-parallel=2"], 2),
    "replicas": (["--replicas=2"], 2),
    "threads": (["--threads=5"], 5),
    "compiled": (["--compile"], True),
    "speculation": (["--speculation=0"], 0),
    "answer_timeout_s": (["--answer-timeout-s=1.5"], 1.5),
    "session_timeout_s": (["--session-timeout-s=2"], 2.0),
    "grace_s": (["--grace-s=0"], 0.0),
    "engine_timeout_s": (["--engine-timeout-s=2"], 2.0),
    "upstream_timeout_s": (["--upstream-timeout-s=3"], 3.0),
    "log_level": (["--log-level=debug"], "debug"),
    "log_format": (["--log-format=json"], "json"),
    "ops_host": (["--ops-host=::"], "::"),
    "ops_port": (["--ops-port=0"], 0),
    "otlp_endpoint": (["--otlp-endpoint=http://x"], "http://x"),
}


def test_every_field_is_set_by_its_option() -> None:
    assert list(GIVEN) == [one.name for one in fields(ServerConfig)]
    arguments = [text for given, _ in GIVEN.values() for text in given]
    values = read_options(ServerConfig, vars(_parser().parse_args(arguments)))
    assert values == {one: value for one, (_, value) in GIVEN.items()}


def test_an_option_that_is_not_given_has_the_field_s_default() -> None:
    given = vars(_parser().parse_args(["--model", "core"]))
    assert ServerConfig(**read_options(ServerConfig, given)) == ServerConfig({"core": Path("core")})


def test_help_of_every_option_shows_the_default_that_its_field_has() -> None:
    shown = {action.dest: re.search(r"Default: (.+)\.$", action.help or "") for action in _parser()._actions}
    for one in fields(ServerConfig):
        default, is_there = one.default, shown[one.name]
        if isinstance(default, bool) or default is None or default is MISSING:
            assert not is_there or is_there[1] in NAMED, one.name
        else:
            assert is_there, one.name
            assert is_there[1] in (str(default), f"{default:g}" if isinstance(default, float) else None), one.name


def test_approximate_settings_are_advanced_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    everyday, advanced = capsys.readouterr().out.split("advanced options:")
    for name in ("--model", "--port", "--keys", "--tls-certificate", "--max-sessions", "--device"):
        assert f"  {name} " in everyday
    assert "  --precision " in advanced
    assert "approximate: answers can differ" in " ".join(advanced.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "x"], "--port is 'x'; give a whole number"),
        (["--max-sessions", "2.5"], "--max-sessions is '2.5'; give a whole number"),
        (["--grace-s", "soon"], "--grace-s is 'soon'; give a number"),
        (["--engine-timeout-s", "1"], "engine timeout is 1.0 s; it must be above 1 and finite"),
    ],
)
def test_a_value_that_does_not_parse_is_refused_by_its_option(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "core", *arguments]) == 2
    assert capsys.readouterr().err.endswith(f"core-server: error: {message}\n")


def test_variables_are_read_by_the_names_they_have() -> None:
    names = {"MAX": "max_sessions", "CA": "client_ca"}
    assert read_named(ServerConfig, {"MAX": "3", "CA": None, "OTHER": "1"}, names) == {"max_sessions": 3}
    with pytest.raises(InvalidParameter, match="MAX is 'x'; give a whole number"):
        read_named(ServerConfig, {"MAX": "x"}, names)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"core-server \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
