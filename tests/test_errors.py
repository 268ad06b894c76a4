"""The error tree of all three packages: specified once, drawn as it is, and the same error after it has travelled."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from core_server.catalogue.errors import INTERNAL_MESSAGE, refusal_of
from core_server.frontend.service import refuse
from ssd2 import errors
from ssd2.errors import ANY, PARAMETERS_SENT_BY_CORES, SENT_BY_CORES, SlingshotError, all_kinds, with_remedies
from ssd2.lab import errors as judge_errors
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from tests.end_to_end.conftest import ROOT
from user_agent import errors as device_errors
from user_agent.api.errors import FIELDS, handle_errors
from user_agent.api.openai_types import ChatRequest, CompletionRequest, SlingshotOptions
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

MODULES = (errors, judge_errors, device_errors)
KINDS = sorted((kind for kind in all_kinds() if kind.__module__ in {m.__name__ for m in MODULES}), key=lambda k: k.code)
PACKAGES = (ROOT / "user_agent", ROOT / "core_server", ROOT / "shared/ssd2")
TEXT, LIMIT = "the prompt has 97 tokens; shorten it", 96
OF_ALL = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def drawn(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield every error in a module's drawing, with its parent."""
    path = ["SlingshotError"]
    for branch, name in re.findall(r"^ {4}([│ ]*)[├└]── (\w+)", module.__doc__ or "", re.MULTILINE):
        depth = 1 + len(branch) // 4
        path = [*path[:depth], name]
        yield name, path[depth - 1]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_tree_is_the_one_in_its_modules_docstring(module: ModuleType) -> None:
    own = [kind for kind in KINDS if kind.__module__ == module.__name__ and kind is not SlingshotError]
    borrowed = {kind.__bases__[0] for kind in own} - {SlingshotError, *own}
    assert dict(drawn(module)) == {kind.__name__: kind.__bases__[0].__name__ for kind in (*own, *borrowed)}


def test_no_error_is_defined_outside_the_three_modules() -> None:
    names = {kind.__name__ for kind in KINDS}
    files = {Path(inspect.getfile(module)) for module in MODULES}
    for file in {file for package in PACKAGES for file in package.rglob("*.py")} - files:
        for node in ast.walk(ast.parse(file.read_text())):
            bases = node.bases if isinstance(node, ast.ClassDef) else []
            assert not names & {ast.unparse(base).rpartition(".")[2] for base in bases}, f"{file}: {node}"


def test_no_class_can_be_defined_without_a_specification() -> None:
    with pytest.raises(TypeError, match="code"):
        type("Unspecified", (SlingshotError,), {})


def test_every_code_is_unique() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)


@OF_ALL
def test_every_specification_is_complete(kind: type[SlingshotError]) -> None:
    assert kind.code == re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    assert kind.grpc_status in {status.name for status in grpc.StatusCode if status is not grpc.StatusCode.OK}
    assert 400 <= kind.http_status < 600
    assert kind.is_public == (kind in SENT_BY_CORES)
    assert kind.__doc__


@pytest.fixture(scope="module")
def received() -> dict[type[SlingshotError], SlingshotError]:
    """What a device makes of each error that a core raises."""
    return asyncio.run(_travel())


async def _travel() -> dict[type[SlingshotError], SlingshotError]:
    raised = {kind.code: kind(TEXT, parameter="question", limit=LIMIT) for kind in KINDS}

    class Core(pb_grpc.CollaborationServiceServicer):
        async def GetModelCard(self, request: pb.GetModelCardRequest, context: Any) -> None:  # noqa: N802
            await refuse(context, refusal_of(raised[request.model]))

    server = grpc.aio.server()
    pb_grpc.add_CollaborationServiceServicer_to_server(Core(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    got = {}
    async with CoreClient(address, Ledger.in_memory(), patience_s=0) as client:
        for kind in KINDS:
            with pytest.raises(SlingshotError) as caught:
                await client.model_card(kind.code, "ssd-2")
            got[kind] = caught.value
    await server.stop(0)
    return got


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.is_public], ids=lambda kind: kind.__name__)
def test_a_public_error_arrives_whole_on_the_device(
    kind: type[SlingshotError], received: dict[type[SlingshotError], SlingshotError]
) -> None:
    error = received[kind]
    assert (type(error), error.code, error.parameter, error.limit) == (kind, kind.code, "question", LIMIT)
    assert error.retry_after_s == kind.retry_after_s
    assert str(error).endswith(f"refused: {TEXT}")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.is_public], ids=lambda kind: kind.__name__)
def test_of_an_error_that_is_not_public_nothing_arrives(
    kind: type[SlingshotError], received: dict[type[SlingshotError], SlingshotError]
) -> None:
    refusal, error = refusal_of(kind(TEXT, parameter="question", limit=LIMIT)), received[kind]
    assert (refusal.message, refusal.status.name, refusal.details) == (INTERNAL_MESSAGE, kind.grpc_status, None)
    assert type(error) is not kind or kind is device_errors.CoreLost
    assert TEXT not in str(error)
    assert (error.parameter, error.limit) == (None, None)


@OF_ALL
def test_the_rest_endpoint_answers_with_status_code_parameter_and_limit(kind: type[SlingshotError]) -> None:
    app = FastAPI()
    handle_errors(app)

    @app.post("/v1/chat/completions")
    async def fail() -> None:
        raise kind(TEXT, parameter="question", limit=LIMIT)

    response = TestClient(app).post("/v1/chat/completions")
    error = response.json()["error"]
    assert response.status_code == kind.http_status
    assert (error["message"], error["code"], error["param"], error["limit"]) == (TEXT, kind.code, "messages", LIMIT)
    assert ("retry-after" in response.headers) == (kind.retry_after_s is not None)


def test_a_remedy_of_the_code_goes_before_one_of_any_code() -> None:
    remedies = {(ANY, "core"): "any", ("core_lost", "core"): "own", ("core_lost", None): "none"}
    assert with_remedies(errors.InvalidParameter("no", parameter="core"), remedies) == "no (any)"
    assert with_remedies(device_errors.CoreLost("no", parameter="core"), remedies) == "no (own)"
    assert with_remedies(device_errors.CoreLost("no"), remedies) == "no (none)"
    assert with_remedies(errors.InvalidParameter("no"), remedies) == "no"


def test_a_core_may_name_no_setting_that_protects_the_device() -> None:
    assert not PARAMETERS_SENT_BY_CORES & {"insecure", "ca", "core", "core_key", "passphrase", "data_dir"}


def test_the_rest_endpoint_names_fields_that_its_requests_have() -> None:
    own = {f"slingshot.{name}" for name in SlingshotOptions.model_fields}
    for path, request in (("/v1/chat/completions", ChatRequest), ("/v1/completions", CompletionRequest)):
        assert set(FIELDS[path].values()) <= own | set(request.model_fields)
