"""The walls hold: contracts on what is written, each broken once in a copy of the tree, and what is really loaded."""

from __future__ import annotations

import ast
import builtins
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = ROOT / "pyproject.toml"
PACKAGES = {"ssd2": ROOT / "shared" / "ssd2", "core_server": ROOT / "core_server", "user_agent": ROOT / "user_agent"}

SIDES = "The sides never import each other, and ssd2 imports neither"
DEVICE_ROOMS = "Rooms of the device: imports go down, and documents and line are apart"
CORE_ROOMS = "Rooms of the core: imports go down, and front end and engine are apart"
SSD2_ROOMS = "Rooms of ssd2: imports go down, and nothing that computes imports the wire"
CIRCLES = "No circle in any package"
GRPC = "Who may use gRPC: on the device the line, on the core the front end"
HTTP = "Who may make HTTP requests: the line to an upstream, and the laboratory's judge"
PROTOBUF = "Who may use protobuf: the wire, and the one place of each side that holds bytes"
STUBS = "Who may touch the stubs: one module of each side"
MESSAGES = "Who may touch message types: the codec, and two modules of each side"
CONNECTIONS = "Nothing but the line opens a connection or a process on the device"
DOWNLOADS = "Who may download models: commands that were asked to"
LINE = "Who may reach the line to the core"
DOCUMENTS = "Who may see documents"
HISTORY = "Who may see past conversations"
KEY = "Who may hold the key of the store"
DOCUMENTS_APART = "Documents reach neither messages nor models"
DOCUMENTS_ROOMS = "Inside documents, what parses files is apart from what stores them"
PARSERS = "What parses files reaches no store and no key"
QUESTIONS = "Who may see the questions that tuning makes of documents"
QUESTIONS_APART = "What makes and judges questions cannot reach the line, however far round"
READING_APART = "What checks on the device whether models can read documents cannot reach the line, however far round"
LAB = "Who may use the laboratory: its commands"
RAY = "Who may use Ray"
TORCH = "Who may use torch: what computes, never what only parses or prints"

NOTHING = "nothing"
UNDER_TYPE_CHECKING = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import {}\n"

PLANTS: dict[str, tuple[dict[str, str], set[str]]] = {
    NOTHING: ({}, set()),
    "gRPC in a room of the device": ({"user_agent/answering/helper.py": "import grpc"}, {GRPC, CONNECTIONS}),
    "gRPC at the root of the device": ({"user_agent/helper.py": "import grpc"}, {GRPC, CONNECTIONS, DEVICE_ROOMS}),
    "gRPC in a function": ({"user_agent/api/helper.py": "def f():\n    import grpc"}, {GRPC, CONNECTIONS}),
    "HTTP requests in the front end": ({"core_server/frontend/helper.py": "import httpx2"}, {HTTP}),
    "stubs in the engine": (
        {"core_server/engine/helper.py": "from ssd2.wire import collaboration_pb2_grpc"},
        {STUBS},
    ),
    "stubs in the line": (
        {"user_agent/line/helper.py": "from ssd2.wire.collaboration_pb2_grpc import CollaborationServiceStub"},
        {STUBS},
    ),
    "message types in the algorithm": (
        {"ssd2/algorithm/helper.py": "from ssd2.wire import collaboration_pb2"},
        {MESSAGES, SSD2_ROOMS, CIRCLES},
    ),
    "message types in the front end": (
        {"core_server/frontend/helper.py": "from ssd2.wire.collaboration_pb2 import Projection"},
        {MESSAGES},
    ),
    "protobuf in the store": ({"user_agent/store/helper.py": "from google.protobuf import message"}, {PROTOBUF}),
    "a circle under TYPE_CHECKING": (
        {
            "user_agent/line/helper.py": "import user_agent.line.other",
            "user_agent/line/other.py": UNDER_TYPE_CHECKING.format("user_agent.line.helper"),
        },
        {CIRCLES},
    ),
    "an upward import under TYPE_CHECKING": (
        {"core_server/observability/helper.py": UNDER_TYPE_CHECKING.format("core_server.frontend.server")},
        {CORE_ROOMS, CIRCLES},
    ),
    "TLS on the device": ({"user_agent/documents/helper.py": "import ssl"}, {CONNECTIONS, DOCUMENTS_ROOMS}),
    "a socket on the device": ({"user_agent/tuning/helper.py": "import socket"}, {CONNECTIONS}),
    "HTTP on the device": ({"user_agent/commands/helper.py": "import http.client"}, {CONNECTIONS}),
    "HTTP in what the device computes with": ({"ssd2/models/helper.py": "import urllib.request"}, {CONNECTIONS}),
    "the other side": ({"core_server/access/helper.py": "import user_agent.config"}, {SIDES}),
    "a side in ssd2": ({"ssd2/training/helper.py": "import core_server.access.scopes"}, {SIDES}),
    "a download in what answers": ({"user_agent/answering/helper.py": "import ssd2.models.download"}, {DOWNLOADS}),
    "a download in what computes": ({"ssd2/models/helper.py": "import ssd2.models.download"}, {DOWNLOADS}),
    "the line in tuning": ({"user_agent/tuning/helper.py": "import user_agent.line.client"}, {LINE}),
    "the line in documents": (
        {"user_agent/documents/helper.py": "import user_agent.line.client"},
        {LINE, DEVICE_ROOMS, DOCUMENTS_APART, DOCUMENTS_ROOMS},
    ),
    "documents in the line": (
        {"user_agent/line/helper.py": "import user_agent.documents.passage"},
        {DOCUMENTS, DEVICE_ROOMS},
    ),
    "documents in a part of tuning": (
        {"user_agent/tuning/helper.py": "import user_agent.documents.passage"},
        {DOCUMENTS},
    ),
    "conversations in the line": ({"user_agent/line/helper.py": "import user_agent.store.history"}, {HISTORY}),
    "the key in the API": ({"user_agent/api/helper.py": "import user_agent.store.encryption_key"}, {KEY}),
    "the store in a parser": (
        {"user_agent/documents/formats/helper.py": "import user_agent.store.database"},
        {PARSERS},
    ),
    "questions in a part of tuning": (
        {"user_agent/tuning/helper.py": "import user_agent.tuning.questions"},
        {QUESTIONS},
    ),
    "the line behind questions": (
        {
            "user_agent/tuning/stored_answers.py": (ROOT / "user_agent/tuning/stored_answers.py").read_text()
            + "\nimport user_agent.tuning.recording"
        },
        {QUESTIONS_APART},
    ),
    "the line behind the reading check": (
        {
            "user_agent/tuning/reading.py": (ROOT / "user_agent/tuning/reading.py").read_text()
            + "\nimport user_agent.answering.run"
        },
        {READING_APART},
    ),
    "the laboratory in tuning": ({"user_agent/tuning/helper.py": "import ssd2.lab.chat"}, {LAB}),
    "Ray in the front end": ({"core_server/frontend/helper.py": "import ray"}, {RAY}),
    "torch in the front end": ({"core_server/frontend/helper.py": "import torch"}, {TORCH}),
    "torch in a report": ({"ssd2/lab/helper.py": "import torch"}, {TORCH}),
}

LINT = """
import json, pathlib, sys
import importlinter.api
from importlinter.application.use_cases import lint_imports
for name, files in json.load(sys.stdin).items():
    before = {file: file.read_text() if file.exists() else None for file in map(pathlib.Path, files)}
    for file, text in files.items():
        pathlib.Path(file).write_text(text)
    print(f"PLANT {name}")
    lint_imports("pyproject.toml", cache_dir=None, no_logo=True)
    for file, text in before.items():
        file.unlink() if text is None else file.write_text(text)
"""
"""Each plant in its turn, in one process: what is imported of import-linter takes longer than a check."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter says of a copy of the tree with each of the plants."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(PYPROJECT, tree)
    for name, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            copy = tree / name / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "400"}
    plants = json.dumps({name: files for name, (files, _) in PLANTS.items()})
    options = {"cwd": tree, "env": environment, "input": plants, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", LINT], check=True, **options)
    parts = [part.partition("\n") for part in done.stdout.split("PLANT ")[1:]]
    return {name: report for name, _, report in parts}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_breaks_the_contracts_that_it_violates(reports: dict[str, str], plant: str) -> None:
    assert _contracts_that_are("BROKEN", reports[plant]) >= PLANTS[plant][1], reports[plant]


def test_the_tree_without_a_plant_keeps_every_contract(reports: dict[str, str]) -> None:
    assert _contracts_that_are("KEPT", reports[NOTHING]) == _contracts(), reports[NOTHING]


def test_every_contract_is_broken_by_a_plant() -> None:
    assert set.union(*(broken for _, broken in PLANTS.values())) == _contracts()


def _contracts_that_are(state: str, report: str) -> set[str]:
    return {line.rpartition(f" {state}")[0] for line in report.splitlines() if f" {state}" in line}


def _contracts() -> set[str]:
    return {contract["name"] for contract in tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]}


LIBRARIES = {
    *("apsw", "keyring"),  # keyring talks to the desktop's own service
    *("bs4", "charset_normalizer", "docx", "lxml", "markdown_it", "openpyxl", "pptx", "pypdfium2", "striprtf"),
    "watchfiles",
    *("filelock", "win32api", "win32job"),  # locks, and the job of a process on Windows
    *("fastapi", "starlette", "uvicorn", "prometheus_client"),  # these listen
    *("pydantic", "pydantic_settings", "rich", "typer"),
    *("numpy", "snowballstemmer", "tokenizers"),  # stems and sentence vectors, where no torch may be loaded
    "torch",
    *("grpc", "google"),  # the line's, by contract
}
"""All that the device imports beside Python's own library, which the contracts know; a new one is looked at first."""


def test_the_device_imports_no_library_that_is_not_listed() -> None:
    imported = {name.partition(".")[0] for _, tree in _modules("user_agent") for name in _imports(tree)}
    assert imported - set(sys.stdlib_module_names) - set(PACKAGES) == LIBRARIES


OUTWARD = {
    *("open_connection", "open_unix_connection", "create_connection", "create_unix_connection"),
    *("create_datagram_endpoint", "sock_connect", "sock_sendto", "urllib.request", "urllib.robotparser"),
    *("create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell"),
    *("system", "popen", "posix_spawn", "posix_spawnp", "execv", "execve", "execvp", "execvpe", "fork"),
    *("__import__", "import_module", "exec", "eval", "insecure_channel", "secure_channel"),
}
"""Names by which a module opens a connection, starts a process or imports, where no contract sees it."""

MAY_GO_OUT = {
    "line/credentials.py": {"open_connection"},  # a handshake that says why gRPC's failed
    "line/connection.py": {"insecure_channel", "secure_channel"},  # behind a RecordedChannel
    "line/own_core.py": {"create_subprocess_exec"},
    "api/fetching.py": {"create_subprocess_exec"},  # the command that downloads a pair
    "documents/formats/__init__.py": {"import_module"},  # of its own modules
}


def test_the_device_connects_by_no_other_way_than_an_import() -> None:
    found = {file: _outward(tree) for file, tree in _modules("user_agent")}
    assert {file: names for file, names in found.items() if names} == MAY_GO_OUT


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasyncio.open_connection('host', 1)",
        "from asyncio import open_connection as connect",
        "loop.create_connection(None)",
        "from urllib.request import urlopen",
        "import urllib.request as r",
        "__import__('socket')",
        "import os\nos.system('curl host')",
    ],
)
def test_a_way_out_without_a_contract_is_found(source: str) -> None:
    assert _outward(ast.parse(source))


def test_a_ledger_is_never_optional() -> None:
    optional = [f"{file}: {name}" for file, tree in _modules("user_agent") for name in _optional_ledgers(tree)]
    assert optional == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(ledger: Ledger | None): ...",
        "def f(*, ledger: Ledger = NOWHERE): ...",
        "def f(a, ledger: Ledger = NOWHERE, *, b): ...",
        "class A:\n    ledger: Ledger | None",
        "class A:\n    ledger: Ledger = NOWHERE",
    ],
)
def test_an_optional_ledger_is_found(source: str) -> None:
    assert list(_optional_ledgers(ast.parse(source)))


@pytest.mark.parametrize(
    ("modules", "never"),
    [
        (
            ("ssd2.algorithm.sampler", "ssd2.algorithm.collaboration", "ssd2.wire.codec", "ssd2.training.trainer"),
            ("core_server", "user_agent"),
        ),
        (("core_server.frontend.server",), ("user_agent", "typer", "rich", "torch", "numpy", "tokenizers")),
        (("user_agent.answering.run", "user_agent.commands.app"), ("core_server", "grpc_health.v1", "transformers")),
        (
            ("user_agent.documents.collection", "user_agent.documents.watcher", "user_agent.documents.reader"),
            ("grpc", "torch", "ssd2.wire", "user_agent.line.client", "pypdfium2", "docx", "bs4"),
        ),
        (("user_agent.documents.extraction_worker",), ("grpc", "torch", "ssd2.wire", "apsw", "keyring")),
        (("user_agent.commands.app",), ("apsw", "keyring", "watchfiles", "pypdfium2", "docx", "bs4")),
        (("user_agent.store.tuned", "user_agent.tuning.questions"), ("grpc", "torch", "ssd2.wire")),
        (("user_agent.tuning.command",), ("core_server", "matplotlib", "transformers")),
        (("ssd2.algorithm.sampler", "ssd2.algorithm.collaboration", "ssd2.models.ssd2"), ("grpc", "google.protobuf")),
        (
            (
                "ssd2.lab.judge",
                "ssd2.lab.judge_report",
                "ssd2.lab.text_report",
                "ssd2.lab.vote_results",
                "ssd2.lab.vote_server",
            ),
            ("torch", "matplotlib", "httpx2"),
        ),
        (
            ("ssd2.errors", "ssd2.cli", "user_agent.commands.app", "core_server.config", "core_server.__main__"),
            ("torch", "numpy"),
        ),
        (
            (
                "ssd2.models.registry",
                "ssd2.models.pairs",
                "ssd2.models.download",
                "ssd2.models.configs",
                "ssd2.algorithm.projection",
            ),
            ("torch", "numpy"),
        ),
    ],
)
def test_a_fresh_process_loads_nothing_it_must_not(modules: tuple[str, ...], never: tuple[str, ...]) -> None:
    loaded = _loaded_by(*modules)
    assert set(modules) <= loaded
    assert {name for name in loaded if any(name == n or name.startswith(f"{n}.") for n in never)} == set()


def _loaded_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


def _modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    folder = PACKAGES[package]
    for file in sorted(folder.rglob("*.py")):
        yield file.relative_to(folder).as_posix(), ast.parse(file.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _outward(tree: ast.Module) -> set[str]:
    used = set(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Name) and node.id in dir(builtins):
            used.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            used |= {alias.name for alias in node.names} | {f"{node.module}.{alias.name}" for alias in node.names}
    return used & OUTWARD


def _optional_ledgers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            places = [*given.posonlyargs, *given.args]
            defaults = [None] * (len(places) - len(given.defaults)) + given.defaults
            pairs = [*zip(places, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
            yield from (arg.arg for arg, default in pairs if _is_optional_ledger(arg.annotation, default))
        elif isinstance(node, ast.ClassDef):
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
            yield from (ast.unparse(f.target) for f in fields if _is_optional_ledger(f.annotation, f.value))


def _is_optional_ledger(annotation: ast.expr | None, default: ast.expr | None) -> bool:
    kind = ast.unparse(annotation) if annotation else ""
    return "Ledger" in kind.replace('"', "").split(" | ") and ("None" in kind or default is not None)
