"""The images of core and agent, as far as a machine without a container engine can look at them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.deployment import DEPLOY, ROOT, ran

DOCKER = DEPLOY / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """Name and arguments of each, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    return found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]


each_image = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)


@each_image
def test_an_image_runs_as_nobody_in_particular(file: Path) -> None:
    (user,) = (arguments for name, arguments in last_stage(file) if name == "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, which runAsNonRoot can check"


@each_image
def test_every_base_is_pinned(file: Path) -> None:
    (base,) = (arguments for name, arguments in instructions(file) if name == "ARG" and "PYTHON_IMAGE" in arguments)
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    used = {arguments.split()[0] for name, arguments in instructions(file) if name == "FROM"}
    assert used == {"${PYTHON_IMAGE}"}


@each_image
def test_what_is_installed_is_what_was_tested(file: Path) -> None:
    installs = [arguments for name, arguments in instructions(file) if "pip install" in arguments]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)


@each_image
def test_what_builds_is_not_in_the_image(file: Path) -> None:
    copied = [arguments for name, arguments in last_stage(file) if name == "COPY"]
    assert copied == ["--from=build /opt/slingshot /opt/slingshot"]


@each_image
def test_an_image_can_be_asked_whether_it_works_and_is_told_to_stop(file: Path) -> None:
    found = dict(last_stage(file))
    assert '"is-answering"' in found["HEALTHCHECK"]
    assert found["STOPSIGNAL"] == "SIGTERM"


def test_the_agent_s_image_has_nothing_of_the_server_s() -> None:
    (installed,) = re.findall(r'install "(\.\[.*?\])"', (DOCKER / "agent.Dockerfile").read_text())
    assert installed == ".[agent]"


def test_which_build_of_torch_is_pip_s_to_find() -> None:
    (pinned,) = re.findall("^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert "+" not in pinned, "PyPI has no version with a local part: nobody could install it from there"


@each_image
def test_pip_is_told_where_to_look_in_a_file_that_stays_in_no_layer(file: Path) -> None:
    installs = [arguments for name, arguments in instructions(file) if "pip install" in arguments]
    assert all(install.startswith("--mount=type=secret,id=pip,target=/etc/pip.conf") for install in installs)
    assert "index-url" not in str(instructions(file))


@each_image
def test_everything_that_is_copied_is_sent_to_the_builder(file: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = [arguments for name, arguments in instructions(file) if name == "COPY" and "--from" not in arguments]
    copied = {word for line in lines for word in line.split()[:-1] if not word.startswith("--")}
    assert copied
    assert copied <= allowed
    assert all((ROOT / one).exists() for one in allowed)


def test_nothing_but_what_is_named_is_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert {"**/*.pem", "**/*.key"} <= set(lines[lines.index("!shared") :])


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
@each_image
def test_hadolint_finds_nothing_amiss(file: Path) -> None:
    linted = ran("hadolint", file)
    assert (linted.returncode, linted.stdout) == (0, "")


# What the images bring along.


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_ready = self.path == "/ready"
        self.send_response(200 if is_ready else 503)
        self.end_headers()
        self.wfile.write(b"" if is_ready else b"draining")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as serving:
        Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def is_answering(url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    command = [sys.executable, DOCKER / "is-answering", url]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=30)


def test_a_health_check_tells_an_answer_from_a_refusal_and_from_silence(server: str) -> None:
    assert is_answering(f"{server}/ready").returncode == 0
    refused = is_answering(f"{server}/other")
    assert refused.returncode == 1
    assert "503 draining" in refused.stderr
    assert is_answering("http://127.0.0.1:1/ready").returncode == 1


def entered(secrets: Path, *arguments: str, **variables: str) -> str:
    """What the agent's entry point starts: its arguments, and the variables that are the agent's."""
    programs = secrets.parent / "bin"
    programs.mkdir()
    program = programs / "user-agent"
    program.write_text('#!/bin/sh\necho "$@"\nenv | grep ^SLINGSHOT_ | sort\n')
    program.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SECRETS_FOLDER": str(secrets), **variables}
    command = [DOCKER / "agent-entrypoint", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


def test_secrets_that_are_files_are_the_agent_s_variables(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "SLINGSHOT_CORE_KEY").write_text("sk-1-two words'\n")
    (secrets / "SLINGSHOT_PASSPHRASE").write_text("correct $HOME `horse`")
    (secrets / "SOMETHING_ELSE").write_text("not the agent's")
    assert entered(secrets, "serve", "--port", "1").splitlines() == [
        "serve --port 1",
        "SLINGSHOT_CORE_KEY=sk-1-two words'",
        "SLINGSHOT_PASSPHRASE=correct $HOME `horse`",
    ]


def test_a_variable_without_a_file_stays(tmp_path: Path) -> None:
    assert "SLINGSHOT_API_KEY=given" in entered(tmp_path / "none", "serve", SLINGSHOT_API_KEY="given")


def test_the_entry_point_passes_on_every_secret_that_the_agent_takes() -> None:
    from user_agent.config import AgentConfig
    from user_agent.line.core_key import VARIABLE

    fields = AgentConfig.model_fields.items()
    secret = {f"SLINGSHOT_{name.upper()}" for name, field in fields if "SecretStr" in str(field.annotation)}
    (listed,) = re.findall(r"for name in (.*);", (DOCKER / "agent-entrypoint").read_text())
    assert set(listed.split()) == secret | {VARIABLE}
