"""The page's files: all of them from the package, none that asks another host, and none beside them served."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from user_agent.api import web
from user_agent.api.errors import handle_errors

FILES = sorted(web.FOLDER.iterdir())
NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.fixture
def http() -> TestClient:
    app = FastAPI()
    handle_errors(app)
    app.include_router(web.router)
    return TestClient(app)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_another_host(file: Path) -> None:
    assert not re.search(r"\b(https?|wss?)://|[\"'(]//", file.read_text().replace(NAMESPACE, ""))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_that_is_loaded_is_there(file: Path) -> None:
    names = {name.name for name in FILES}
    assert set(re.findall(r"/web/([\w.-]+)", file.read_text())) <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_text_is_ever_read_as_markup_or_as_a_script(file: Path) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\bstyle=|<script>|\son\w+="
    assert not re.search(forbidden, file.read_text())


def test_no_file_is_left_over(http: TestClient) -> None:
    loaded = {name for file in FILES for name in re.findall(r"/web/([\w.-]+)", file.read_text())}
    assert {file.name for file in FILES} == loaded | {"index.html"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/web/main.js", "text/javascript"),
        ("/web/base.css", "text/css"),
        ("/web/icon.svg", "image/svg"),
    ],
)
def test_files_come_with_their_types(http: TestClient, path: str, kind: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize("name", ["..%2Fconfig.py", "%2e%2e%2fconfig.py", "../config.py", "none.js", "%2Fetc%2Fpasswd"])
def test_nothing_outside_of_the_folder_is_served(http: TestClient, name: str) -> None:
    assert http.get(f"/web/{name}").status_code == 404


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.suffix in (".js", ".html")], ids=lambda file: file.name
)
def test_no_text_of_the_page_names_an_option_a_command_or_a_variable(file: Path) -> None:
    assert not re.search(r"(?<![\w-])--[a-z]{2}|user-agent [a-z]|core-server|SLINGSHOT_", file.read_text())
