"""What a key may do: each route requires one scope, and a new route without one fails here."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from tests.commands import run_here
from user_agent.api.app import create_app
from user_agent.api.security import authorised
from user_agent.api.state import AppState
from user_agent.config import load_config
from user_agent.serve import running_parts
from user_agent.store.access_keys import SCOPES

OPEN = {"/", "/web/{name}", "/health", "/ready", "/openapi.json"}
"""Routes without a key: the page's files, whether the agent runs, and the schema. None shows anything of the user's."""

ASK = {
    "/v1/models",
    "/v1/models/{model}",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/traces/{trace_id}/events",
}
READ_LEDGER = {
    "/v1/ledger",
    "/v1/ledger/totals",
    "/v1/ledger/verify",
    "/v1/ledger/export",
    "/v1/ledger/{seq}",
    "/v1/ledger/answers",
    "/v1/ledger/answers/{trace}",
    "/metrics",
}
ALONE = {"lambda_user": 1.0}


@pytest.fixture
async def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AppState]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "for tests")
    async with running_parts(load_config(**ALONE), "http://127.0.0.1", ALONE) as state:
        yield state


@pytest.fixture
async def http(state: AppState) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(state))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def flat(routes: list[Any]) -> Iterator[Any]:
    """All routes; an included router is one that holds others."""
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from flat([*route.effective_candidates(), *route.effective_low_priority_routes()])
        else:
            yield route


def required(route: Any) -> set[str]:
    """Scopes that a route requires; {"none"} where it asks for no key."""
    if not hasattr(route, "dependant"):
        return {"none"}
    found = [one for one in route.dependant.dependencies if one.call is authorised]
    return {scope for one in found for scope in one.own_oauth_scopes or ()} if found else {"none"}


async def test_every_route_requires_the_scope_that_stands_here(state: AppState) -> None:
    app: FastAPI = create_app(state)
    wrong = {route.path: required(route) for route in flat(app.routes) if required(route) != {_expected(route.path)}}
    assert wrong == {}
    paths = {route.path for route in flat(app.routes)}
    assert paths >= OPEN | ASK | READ_LEDGER | {"/v1/documents", "/v1/settings", "/v1/keys"}


def _expected(path: str) -> str:
    if path in OPEN:
        return "none"
    return "ask" if path in ASK else "read-ledger" if path in READ_LEDGER else "manage"


async def test_a_route_without_a_scope_is_found(state: AppState) -> None:
    app = create_app(state)
    router = APIRouter()
    router.get("/v1/new")(lambda: None)
    app.include_router(router)
    assert [required(route) for route in flat(app.routes) if route.path == "/v1/new"] == [{"none"}]
    assert _expected("/v1/new") != "none"


async def test_a_key_gets_403_for_every_route_of_another_scope(http: httpx.AsyncClient, state: AppState) -> None:
    """Asked over HTTP, with every method that the schema has."""
    paths = (await http.get("/openapi.json")).json()["paths"]
    for scope in SCOPES:
        key = state.keys.create(f"only {scope}", [scope])
        for path, methods in paths.items():
            for method in methods:
                wanted = _expected(path)
                if wanted in ("none", scope):
                    continue
                answer = await http.request(method, path.replace("{", "").replace("}", ""), headers=bearer(key))
                assert answer.status_code == 403, (scope, method, path)
                error = answer.json()["error"]
                assert (error["code"], error["type"]) == ("insufficient_scope", "permission_error")
                assert wanted in error["message"]
                assert (await http.request(method, path)).status_code == 401, (method, path)


async def test_a_key_that_asks_reads_and_changes_nothing_else(
    http: httpx.AsyncClient, state: AppState, tmp_path: Path
) -> None:
    asks = bearer(state.keys.client)
    tries = [
        http.post("/v1/documents/links", json={"path": str(tmp_path)}, headers=asks),
        http.get("/v1/documents", headers=asks),
        http.get("/v1/documents/links", headers=asks),
        http.post("/v1/documents/search", json={"query": "key"}, headers=asks),
        http.patch("/v1/settings", json={"alpha": 2}, headers=asks),
        http.get("/v1/settings", headers=asks),
        http.get("/v1/ledger", headers=asks),
        http.get("/v1/conversations", headers=asks),
        http.post("/v1/keys", json={"name": "more", "scopes": ["manage"]}, headers=asks),
    ]
    assert [(await one).status_code for one in tries] == [403] * len(tries)
    assert (await http.get("/v1/models", headers=asks)).status_code == 200
    assert str(tmp_path) not in {str(link.path) for link in state.stores.documents.links()}
    assert state.config.alpha is None


async def test_keys_are_managed_over_rest_and_none_gives_more_than_it_has(
    http: httpx.AsyncClient, state: AppState
) -> None:
    page, manages = bearer(state.keys.page), bearer(state.keys.create("admin", ["manage"]))
    beyond = await http.post("/v1/keys", json={"name": "x", "scopes": ["manage", "read-ledger"]}, headers=manages)
    assert (beyond.status_code, beyond.json()["error"]["param"]) == (403, "scopes")
    made = await http.post("/v1/keys", json={"name": "n/a b", "scopes": ["ask"]}, headers=page)
    assert made.status_code == 400
    made = await http.post("/v1/keys", json={"name": "note book"}, headers=page)
    assert (made.status_code, made.json()["scopes"]) == (201, ["ask"])
    assert (await http.get("/v1/models", headers=bearer(made.json()["key"]))).status_code == 200
    listed = (await http.get("/v1/keys", headers=page)).json()["data"]
    assert [one["name"] for one in listed] == ["page", "default", "admin", "note book"]
    assert made.json()["key"] not in str(listed)
    gone = await http.delete("/v1/keys/note book", headers=page)
    assert gone.json() == {"name": "note book", "revoked": True}
    assert (await http.get("/v1/models", headers=bearer(made.json()["key"]))).status_code == 401
    assert (await http.delete("/v1/keys/note book", headers=page)).status_code == 404


async def test_keys_of_the_command_count_in_the_agent_that_runs(
    http: httpx.AsyncClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_agent.store.access_keys.READ_AGAIN_S", 0.0)
    environment = dict(os.environ)
    made = json.loads(run_here("keys", "create", "notebook", "--json", environment=environment).stdout)
    assert made["scopes"] == ["ask"]
    assert (await http.get("/v1/models", headers=bearer(made["key"]))).status_code == 200
    listed = json.loads(run_here("keys", "list", "--json", environment=environment).stdout)["data"]
    assert [one["name"] for one in listed] == ["page", "default", "notebook"]
    assert "notebook" in run_here("keys", "list", environment=environment).stdout
    assert "notebook is revoked" in run_here("keys", "revoke", "notebook", environment=environment).stdout
    assert (await http.get("/v1/models", headers=bearer(made["key"]))).status_code == 401
    page = run_here("config", "show", "--page-key", environment=environment).stdout.strip()
    assert (await http.get("/v1/settings", headers=bearer(page))).status_code == 200
