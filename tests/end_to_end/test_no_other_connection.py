"""The agent talks to its core and to nobody else: every address that its processes give to the kernel is looked at."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT, CoreProcess

STRACE = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
ON_THIS_MACHINE = {"/var/run/nscd/socket"}
"""Unix sockets that the C library asks for names, where there is such a service."""

_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy")
TEMPTATIONS = dict.fromkeys((*_PROXIES, "OTEL_EXPORTER_OTLP_ENDPOINT"), "http://127.0.0.1:9")
"""What a machine may be set up with, and what the agent must not follow."""

_UNIX = re.compile(r'sa_family=AF_UNIX, sun_path=@?"([^"]*)"')
_INTERNET = re.compile(r'sin6?_port=htons\((\d+)\).*?"(?:::ffff:)?([0-9a-fA-F.:]+)"')
_FAMILY = re.compile(r"sa_family=AF_(\w+)")


def _can_trace() -> bool:
    return (
        shutil.which("strace") is not None
        and subprocess.run([*STRACE, "true"], capture_output=True, check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not _can_trace(), reason="strace is not here, or may not trace")


def addresses(tmp_path: Path, *command: str) -> set[str]:
    """Where a program's processes connected or sent to: HOST:PORT, a Unix socket's path, or another family's name."""
    trace = tmp_path / "trace"
    environment = {**ENVIRONMENT, **TEMPTATIONS}
    result = subprocess.run(
        [*STRACE, "-o", str(trace), sys.executable, *command], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    (tmp_path / "out").write_text(result.stdout)
    found = set()
    for line in trace.read_text().splitlines():
        for family in _FAMILY.findall(line):
            if family == "UNIX":
                found |= set(_UNIX.findall(line))
            elif family in ("INET", "INET6"):
                found |= {f"{host}:{port}" for port, host in _INTERNET.findall(line)}
            else:
                found.add(family)
    return found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "home.md").write_text("- The shed code is 4711.\n")
    return folder


def ask(notes: Path, user_folder: Path, *options: str) -> list[str]:
    always = ["--docs", str(notes), "--user-model", str(user_folder), "--max-tokens", "16", "--steps", "3"]
    return ["-m", "user_agent", "ask", "What is my shed code?", *always, *options]


def test_asking_connects_to_the_core_alone(core: CoreProcess, user_folder: Path, notes: Path, tmp_path: Path) -> None:
    found = addresses(tmp_path, *ask(notes, user_folder, "--core", core.address))
    assert found - ON_THIS_MACHINE == {core.address}


def test_the_app_connects_to_the_core_alone(core: CoreProcess, user_folder: Path, notes: Path, tmp_path: Path) -> None:
    """Serving, parsing documents and the page included; the program that asks it connects to it."""
    for name, content in (("page.html", "<img src='http://192.0.2.1/pixel'>Hello."), ("broken.pdf", "%PDF-1.4")):
        (notes / name).write_text(content)
    given = (core.address, str(user_folder), str(tmp_path), str(notes))
    found = addresses(tmp_path, "-m", "tests.end_to_end.app_session", *given)
    agent = Path(tmp_path / "out").read_text().strip()
    assert found - ON_THIS_MACHINE == {core.address, agent}


def test_without_a_core_nothing_is_connected_to(user_folder: Path, notes: Path, tmp_path: Path) -> None:
    assert addresses(tmp_path, *ask(notes, user_folder, "--lambda-user", "1")) <= ON_THIS_MACHINE


@pytest.mark.parametrize(
    ("program", "address"),
    [
        ("socket.socket().connect_ex(('127.0.0.1', 9))", "127.0.0.1:9"),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))", "127.0.0.1:53"),
        (
            "subprocess.run([sys.executable, '-c', 'import socket; socket.socket(10).connect_ex((\"::1\", 9))'])",
            "::1:9",
        ),
    ],
)
def test_another_connection_would_be_seen(tmp_path: Path, program: str, address: str) -> None:
    assert address in addresses(tmp_path, "-c", f"import socket, subprocess, sys; {program}")
