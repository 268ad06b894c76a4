"""`user-agent install`: an entry of the system starts the agent, and `uninstall` leaves nothing of it."""

from __future__ import annotations

import os
import plistlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ENVIRONMENT
from user_agent.errors import LoginItemRefused
from user_agent.startup.login_item import PASSED_ON, LoginItem, login_item
from user_agent.store.data_folder import held_data_folder, holder_url

MANAGER = """#!/bin/sh
# Stands in for a user's systemd: it starts what the unit starts, and notes what it is told.
echo "$@" >> "$0.log"
case "$2" in
restart)
    unit="$XDG_CONFIG_HOME/systemd/user/$3"
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    variables=$(sed -n 's/^Environment=//p' "$unit" | tr '\\n' ' ')
    (exec > "$0.out" 2>&1; eval "exec env $variables $command") &
    echo $! > "$0.pid" ;;
disable)
    if test -f "$0.pid"; then
        kill "$(cat "$0.pid")"
        while kill -0 "$(cat "$0.pid")" 2> /dev/null; do sleep 0.1; done
        rm "$0.pid"
    fi ;;
esac
exit 0
"""


@pytest.fixture
def shell(tmp_path: Path, user_folder: Path) -> Iterator[dict[str, str]]:
    """Variables of a shell whose `systemctl` is the stand-in."""
    manager = tmp_path / "bin/systemctl"
    manager.parent.mkdir()
    manager.write_text(MANAGER)
    manager.chmod(0o755)
    config = tmp_path / "my config/slingshot"
    config.mkdir(parents=True)
    settings = f'port = 0\ncore = "127.0.0.1:1"\nuser_model = "{user_folder}"\n'
    (config / "config.toml").write_text(settings)
    yield {
        **ENVIRONMENT,
        "PATH": f"{manager.parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(config.parent),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    if (pid := manager.with_name("systemctl.pid")).exists():  # a test that failed
        os.kill(int(pid.read_text()), signal.SIGKILL)


def user_agent(command: str, shell: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "user_agent", command]
    return subprocess.run(line, env=shell, capture_output=True, text=True, timeout=120, check=False)


def test_install_starts_the_agent_says_where_it_answers_and_uninstall_ends_it(shell: dict[str, str]) -> None:
    unit = Path(shell["XDG_CONFIG_HOME"]) / "systemd/user/slingshot-agent.service"
    data = Path(shell["XDG_DATA_HOME"]) / "slingshot"
    for _ in range(2):  # again, as after an update
        installed = user_agent("install", shell)
        assert installed.returncode == 0, installed.stderr
        assert holder_url(data).startswith("http://127.0.0.1:")
        assert f"{holder_url(data)}/" in installed.stdout
        assert str(unit) in installed.stdout
    assert "sk-" not in unit.read_text() + installed.stdout
    removed = user_agent("uninstall", shell)
    assert (removed.returncode, unit.exists()) == (0, False), removed.stderr
    with held_data_folder(data):  # nobody else does
        pass
    assert "not installed" in user_agent("uninstall", shell).stdout


def test_an_agent_started_by_hand_is_named_and_nothing_is_installed(shell: dict[str, str]) -> None:
    with held_data_folder(Path(shell["XDG_DATA_HOME"]) / "slingshot", "http://127.0.0.1:8642"):
        refused = user_agent("install", shell)
    assert refused.returncode == 1
    assert "the agent at http://127.0.0.1:8642" in refused.stderr
    assert not (Path(shell["XDG_CONFIG_HOME"]) / "systemd").exists()


def test_a_variable_of_the_shell_is_named_since_the_login_does_not_have_it(shell: dict[str, str]) -> None:
    with held_data_folder(Path(shell["XDG_DATA_HOME"]) / "slingshot", "http://127.0.0.1:8642"):
        refused = user_agent("install", {**shell, "SLINGSHOT_MAX_ANSWERS": "3"})
    assert "SLINGSHOT_MAX_ANSWERS is set in this shell only" in refused.stderr
    assert "`user-agent config set max_answers VALUE`" in refused.stderr


def test_a_system_that_refuses_leaves_no_file(tmp_path: Path) -> None:
    item = LoginItem(tmp_path / "unit", b"", [["/bin/sh", "-c", "echo no bus >&2; exit 1"]], [["true"]], ["log"])
    with pytest.raises(LoginItemRefused, match="failed: no bus; start the agent in another way"):
        item.install()
    assert not item.file.exists()
    with pytest.raises(LoginItemRefused, match="No such file"):
        LoginItem(tmp_path / "unit", b"", [["/nowhere/systemctl"]], [["true"]], ["log"]).install()


def test_on_macos_launchd_gets_an_agent_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    item = login_item("darwin", {"XDG_DATA_HOME": "/data", "OTHER": "not passed on"})
    assert item.file == tmp_path / "Library/LaunchAgents/slingshot.user-agent.plist"
    read = plistlib.loads(item.content)
    assert read["ProgramArguments"] == [sys.executable, "-m", "user_agent", "serve"]
    assert read["EnvironmentVariables"] == {"XDG_DATA_HOME": "/data"}
    assert read["RunAtLoad"] is True
    assert item.start[-1][:2] == ("launchctl", "bootstrap")
    assert item.stop[0] == ("launchctl", "bootout", f"gui/{os.getuid()}/slingshot.user-agent")


def test_a_path_with_special_characters_stays_one_word_of_the_unit() -> None:
    environment = {name: f'/a b/100%/$HOME/"c"/{name}' for name in PASSED_ON}
    lines = login_item("linux", environment).content.decode().splitlines()
    assert 'Environment="XDG_DATA_HOME=/a b/100%%/$$HOME/\\"c\\"/XDG_DATA_HOME"' in lines


def test_another_system_is_told_what_to_do_instead() -> None:
    with pytest.raises(LoginItemRefused, match="win32 yet; add a shortcut"):
        login_item("win32", {})
