"""The systemd units: what they start starts, stops in the time that they give it, and has few rights."""

from __future__ import annotations

import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from core_server.__main__ import EXIT_REFUSED
from core_server.access.commands import main as manage_access
from tests.deploy.deployment import DEPLOY, ran, seconds_to_stop, server_of
from tests.end_to_end.conftest import ENVIRONMENT
from user_agent.line.own_core import _STOP_TIMEOUT_S
from user_agent.serve import GRACE_S
from user_agent.startup.login_item import login_item

SYSTEMD = DEPLOY / "systemd"
CORE = SYSTEMD / "slingshot-core.service"
AGENT = DEPLOY.parent / "user_agent/startup/slingshot-agent.service"
"""As `user-agent install` fills it in."""


def settings(unit: Path) -> dict[str, list[str]]:
    """Values by name; some are given more than once."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith(("#", "[")):
            found.setdefault(name, []).append(value)
    return found


def only(unit: Path, name: str) -> str:
    (value,) = settings(unit)[name]
    return value


def started_by(unit: Path, replaced: Mapping[str, str]) -> list[str]:
    """The command line of a unit, with parts of it replaced, all of which have to be there."""
    line = only(unit, "ExecStart")
    for old, new in replaced.items():
        assert old in line, old
        line = line.replace(old, new)
    return shlex.split(line)


@contextmanager
def running(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**ENVIRONMENT, **environment}
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def stopped(process: subprocess.Popen[str], unit: Path) -> int:
    """Exit code after SIGTERM to it alone, as KillMode=mixed has it, within the unit's time."""
    assert only(unit, "KillMode") == "mixed"
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=float(only(unit, "TimeoutStopSec")))


def test_what_the_core_s_unit_starts_serves_with_its_files_and_stops_in_time(core_folder: Path, tmp_path: Path) -> None:
    manage_access(["certs", "create", "--out", str(tmp_path), "--host", "localhost"])
    manage_access(["keys", "create", "somebody", "--keys", str(tmp_path / "keys.json")])
    replaced = {
        "/opt/slingshot/bin/core-server": f"{sys.executable} -m core_server",
        "--host 0.0.0.0": "--host 127.0.0.1",  # tests stay on this machine
        "--port 50051": "--port 0",
        "--ops-port 9464": "--ops-port 0",
        "%d": str(tmp_path),
        "/var/lib/slingshot-core": str(tmp_path),
        "$CORE_OPTIONS": f"--model {core_folder} --threads 1",
    }
    with running(started_by(CORE, replaced), {}) as process:
        said = iter(process.stdout.readline, "")
        listening = next(line for line in said if "listening on 127.0.0.1:" in line)
        port = int(listening.split("listening on 127.0.0.1:")[1].split(",")[0])
        shown = ssl.get_server_certificate(("127.0.0.1", port))
        assert shown == (tmp_path / "core.pem").read_text()
        assert stopped(process, CORE) == 0


def test_what_the_agent_s_unit_starts_answers_tells_no_key_and_stops_in_time(
    core_folder: Path, user_folder: Path, tmp_path: Path
) -> None:
    command = started_by(AGENT, {"{program}": f"{sys.executable} -m user_agent"})
    environment = {
        "XDG_CONFIG_HOME": f"{tmp_path}/config",
        "XDG_DATA_HOME": f"{tmp_path}/data",
        "SLINGSHOT_API_KEY": "sk-in-no-journal",
        "SLINGSHOT_PORT": "0",
        "SLINGSHOT_CORE": "127.0.0.1:1",
        "SLINGSHOT_USER_MODEL": str(user_folder),
    }
    with running([*command], environment) as process:
        said = [process.stdout.readline() for _ in range(3)]
        assert "listening on http://127.0.0.1:" in "".join(said)
        assert "sk-in-no-journal" not in "".join(said)
        assert stopped(process, AGENT) in (0, int(only(AGENT, "SuccessExitStatus")))


def test_the_core_has_time_to_let_its_answers_end() -> None:
    server = server_of([*started_by(CORE, {})[1:-1], "--model", "/anywhere"])
    assert float(only(CORE, "TimeoutStopSec")) > seconds_to_stop(server)


def test_the_agent_has_time_to_end_the_demo_s_core() -> None:
    assert float(only(AGENT, "TimeoutStopSec")) > GRACE_S + _STOP_TIMEOUT_S


def test_the_default_options_are_options_of_the_server() -> None:
    (options,) = shlex.split(only(CORE, "Environment"))
    server = server_of([*started_by(CORE, {})[1:-1], *shlex.split(options.removeprefix("CORE_OPTIONS="))])
    assert list(server.models) == ["demo-core"]


def test_a_server_that_cannot_be_started_as_asked_is_not_started_again() -> None:
    assert only(CORE, "Restart") == "on-failure"
    assert int(only(CORE, "RestartPreventExitStatus")) == EXIT_REFUSED


def test_private_keys_are_handed_over_but_the_file_of_agents_keys_is_read_in_place() -> None:
    server = server_of([*started_by(CORE, {})[1:-1], "--model", "/anywhere"])
    handed_over = {f"%d/{value.partition(':')[0]}" for value in settings(CORE)["LoadCredential"]}
    assert handed_over == {str(server.tls_certificate), str(server.tls_key), "%d/ca.pem"}
    assert only(CORE, "SetCredential") == "ca.pem:none", "or nothing would start where there is no such file"
    assert server.keys == Path("/var/lib") / only(CORE, "StateDirectory") / "keys.json"


def test_the_server_s_user_is_the_one_that_is_made() -> None:
    (line,) = (
        line for line in (SYSTEMD / "slingshot-core.sysusers").read_text().splitlines() if not line.startswith("#")
    )
    kind, user, *_, home = shlex.split(line)
    assert (kind, user) == ("u", only(CORE, "User"))
    assert home == f"/var/lib/{only(CORE, 'StateDirectory')}"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("unit", [CORE, AGENT], ids=lambda unit: unit.stem)
def test_systemd_knows_every_setting(unit: Path, tmp_path: Path) -> None:
    copied = tmp_path / unit.name
    copied.write_text(login_item("linux", {}).content.decode() if unit == AGENT else unit.read_text())
    program = shlex.split(only(copied, "ExecStart"))[0]  # which is looked at too: one that there is
    copied.write_text(copied.read_text().replace(program, shutil.which("true") or ""))
    manager = ["--user"] if unit == AGENT else []
    verified = ran("systemd-analyze", *manager, "verify", copied, XDG_RUNTIME_DIR=str(tmp_path))
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_the_core_little_exposed() -> None:
    rated = ran("systemd-analyze", "security", "--offline=yes", "--threshold=20", CORE)
    assert rated.returncode == 0, rated.stdout[-200:]
