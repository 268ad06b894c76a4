from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core_server.config import ServerConfig, named_models
from ssd2.errors import InvalidParameter
from ssd2.logits.format import AllowedFormats


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": {"": Path("/")}}, "printable characters"),
        ({"models": {"two\nlines": Path("core")}}, "printable"),
        ({"models": {"core": Path("core"), "n" * 129: Path("core")}}, "128"),
        ({"host": ""}, "host is empty"),
        ({"port": -1}, "port is -1"),
        ({"port": 65_536}, "65535"),
        ({"max_sessions": 0}, "max sessions"),
        ({"threads": 0}, "threads"),
        ({"tensor_parallel": 0}, "tensor parallel"),
        ({"replicas": 0}, "replicas"),
        ({"replicas": 2, "device": "mps"}, "cuda:4"),
        ({"answer_timeout_s": 0.0}, "answer timeout"),
        ({"answer_timeout_s": float("nan")}, "answer timeout"),
        ({"session_timeout_s": 0.0}, "session timeout"),
        ({"engine_timeout_s": 1.0}, "engine timeout"),
        ({"speculation": -1}, "speculation"),
        ({"grace_s": -1.0}, "grace"),
    ],
)
def test_a_setting_outside_its_range_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        ServerConfig(**{"models": {"core": Path("models/core")}, **changes})


def test_a_model_is_known_by_its_folder_unless_named() -> None:
    assert named_models(["models/core/", "general-13b=models/other"]) == {
        "core": Path("models/core"),
        "general-13b": Path("models/other"),
    }


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert named_models([str(folder), f"best={folder}"]) == {"lr=0.1": folder, "best": folder}


@pytest.mark.parametrize(
    ("given", "words"),
    [([], "name at least one checkpoint folder"), (["core", "a/core"], "named 'core'"), (["=x", "=y"], "''")],
)
def test_models_without_names_of_their_own_are_refused(given: list[str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        named_models(given)


def test_an_ipv6_host_stands_in_brackets() -> None:
    assert ServerConfig({}, host="::1").address(50051) == "[::1]:50051"
    assert ServerConfig({}, port=50052).address() == "127.0.0.1:50052"


@pytest.mark.parametrize(
    ("device", "replicas", "tensor_parallel", "expected"),
    [
        ("cpu", 1, 2, [("cpu", "cpu")]),
        ("mps", 1, 1, [("mps",)]),
        ("cuda:3", 1, 1, [("cuda:3",)]),
        ("cuda", 3, 1, [("cuda:0",), ("cuda:1",), ("cuda:2",)]),
        ("cuda", 2, 2, [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]),
        ("cuda:4", 2, 2, [("cuda:4", "cuda:5"), ("cuda:6", "cuda:7")]),
    ],
)
def test_every_rank_of_every_engine_has_a_gpu_of_its_own(
    device: str, replicas: int, tensor_parallel: int, expected: list[tuple[str, ...]]
) -> None:
    config = ServerConfig({}, device=device, replicas=replicas, tensor_parallel=tensor_parallel)
    assert [config.devices(replica) for replica in range(replicas)] == expected


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cpu", "auto", "float32"),
        ("mps", "auto", "float32"),
        ("cuda", "auto", "bfloat16"),
        ("cuda:3", "auto", "bfloat16"),
        ("cuda", "float32", "float32"),
        ("cuda", "int8", "int8"),
        ("cpu", "bfloat16", "bfloat16"),
    ],
)
def test_a_gpu_computes_in_bfloat16_unless_told_otherwise(device: str, precision: str, expected: str) -> None:
    assert ServerConfig({}, device=device, precision=precision).weights_precision == expected
    assert ServerConfig({}, device=device).precision == "auto"


def test_engines_share_sessions_and_processors() -> None:
    config = ServerConfig({}, max_sessions=17, threads=9, replicas=2, tensor_parallel=2)
    assert (config.slots_per_engine, config.threads_per_rank) == (9, 2)
    assert ServerConfig({}, threads=1, replicas=2).threads_per_rank == 1


@pytest.mark.parametrize(
    ("asked", "threads"), [("3", 3), ("5,2", 5), ("", 8), (None, 8), ("0", 8), ("many", 8)], ids=str
)
def test_threads_are_the_processors_unless_the_environment_names_fewer(
    asked: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert ServerConfig({}).threads == threads


UPSTREAM = {"upstream": "http://localhost:8000", "upstream_model": "m", "tokenizer": Path("t")}


def test_an_upstream_s_model_is_served_from_its_tokenizer_s_folder() -> None:
    assert ServerConfig(**UPSTREAM).model_folders == {"m": Path("t")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *[({name: None}, "set all three") for name in UPSTREAM],
        ({"models": {"core": Path("core")}}, "either models of its own or an upstream"),
        ({"upstream_model": "two\nlines"}, "printable"),
        ({"replicas": 2}, "nothing is computed here"),
        ({"tensor_parallel": 2}, "nothing is computed here"),
        ({"upstream_timeout_s": 0.0}, "upstream timeout"),
        ({"logits_formats": AllowedFormats.parse("float16,top-k:64")}, "so float16 cannot be offered"),
        *[
            ({"upstream": url}, "not the URL of a server")
            for url in (
                "localhost:8000",
                "ftp://x",
                "http://",
                "http://a:b@x",
                "http://x?k=v",
                "http://x#y",
                "http://x:99999",
            )
        ],
    ],
)
def test_an_upstream_that_cannot_be_asked_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        ServerConfig(**{**UPSTREAM, **changes})


def test_top_k_alone_is_offered_with_an_upstream() -> None:
    assert ServerConfig(**UPSTREAM, logits_formats=AllowedFormats.parse("top-k:64"))
