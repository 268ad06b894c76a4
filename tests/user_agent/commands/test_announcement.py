"""What `user-agent serve` says of itself once it listens."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from user_agent.commands.serve import _announce

URL = "http://127.0.0.1:8642"


class _Stream(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def state() -> SimpleNamespace:
    return SimpleNamespace(
        keys=SimpleNamespace(page="sk-page-shown-to-people", client="sk-client"),
        line=SimpleNamespace(own_title=None, address="core.example.org:50051"),
        config=SimpleNamespace(data_dir="/data", ca=None),
        stores=SimpleNamespace(key_source="keyring", documents=SimpleNamespace(exposure=lambda: "")),
    )


def said(state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, *, to_terminal: bool) -> str:
    stream = _Stream(to_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    _announce(URL, state)
    return stream.getvalue()


def test_people_get_an_address_that_opens_the_page(state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = said(state, monkeypatch, to_terminal=True)
    assert f"{URL}/#key=sk-page-shown-to-people" in shown
    assert f"{URL}/v1   key sk-client" in shown


def test_the_key_is_in_no_log_that_keeps_what_it_says(state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = said(state, monkeypatch, to_terminal=False)
    assert "sk-" not in logged
    assert logged.startswith(f"user-agent: listening on {URL}\n")
    assert "user-agent config show --key" in logged
    assert "user-agent config show --page-key" in logged


@pytest.mark.parametrize(
    ("address", "ca", "says"),
    [
        ("core.example.org:1", "ca.pem", "encrypted"),
        ("127.0.0.1:1", None, "on this machine"),
        ("b:1", None, "NOT encr"),
    ],
)
def test_it_is_said_who_can_read_along(
    state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, address: str, ca: str | None, says: str
) -> None:
    state.line.address, state.config.ca = address, ca
    assert f"core      {address}, {says}" in said(state, monkeypatch, to_terminal=True)


def test_it_is_said_that_files_are_read_on_the_network(
    state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said(state, monkeypatch, to_terminal=True)
    assert capsys.readouterr().err == ""
    state.stores.documents.exposure = lambda: "refused here"
    said(state, monkeypatch, to_terminal=True)
    assert "without isolation from the network on this machine (refused here)" in capsys.readouterr().err
