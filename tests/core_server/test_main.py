from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core_server.__main__ import EXIT_TERMINATED, main, raise_descriptor_limit
from core_server.config import ServerConfig
from core_server.frontend.server import serve
from ssd2.models import pairs
from ssd2.models.checkpoint import save_checkpoint
from tests.conftest import DEMO_TOKENIZER, demo_shaped_model
from tests.end_to_end.namespaces import NEEDS_OWN_PROCESSES
from tests.end_to_end.processes import children

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "core_server"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def running(core_folder: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = [*COMMAND, "--model", f"general={core_folder}", "--threads", "1"]
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_all_file_descriptors_that_it_may_have_are_asked_for() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
    try:
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_help_is_there_before_torch_is() -> None:
    script = (
        "import sys; from core_server.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'grpc'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "examples:",
        "--model [NAME=]DIR",
        "advanced options:",
        "--tensor-parallel 4",
        "--replicas 2",
        "--logits FORMATS",
    ):
        assert word in done.stdout


def test_a_setting_outside_its_range_is_refused_at_once() -> None:
    done = run("--model", "nowhere", "--max-sessions", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "core-server: error: max sessions is 0; it must be at least 1\n"


def test_a_server_without_a_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0"]) == 2
    assert "there is no model to serve; name a checkpoint folder" in capsys.readouterr().err


def test_too_little_memory_is_said_before_anything_is_loaded(
    core_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is stored in float32 and served in bfloat16, so its weights do not stay mapped."""
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemAvailable: 1000 kB\n")
    monkeypatch.setattr("core_server.frontend.engine_keeper.running_engine", None)  # nothing is started
    assert main(["--model", f"general={core_folder}", "--precision", "bfloat16"]) == 2
    assert "loading the model general in bfloat16 takes about" in (said := capsys.readouterr().err)
    assert "1 MB are free on this machine; close other programs" in said


def test_formats_that_there_are_not_are_refused_at_once() -> None:
    done = run("--model", "nowhere", "--logits", "float16,bfloat16")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'bfloat16'; use float16, uint8 or top-k:K" in done.stderr


@pytest.mark.slow
def test_a_model_that_cannot_be_cut_is_refused_by_all_ranks_at_once(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "core", demo_shaped_model(1, hidden_size=24, num_heads=3), DEMO_TOKENIZER.read_text())
    done = run("--model", str(tmp_path / "core"), "--tensor-parallel", "2", "--threads", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "core-server: error: 3 attention heads and a feed-forward width of 32 are not divisible by 2; use one of 1 "
        "(--tensor-parallel)\n"
    )


def test_a_missing_model_is_refused_without_a_traceback(tmp_path: Path) -> None:
    done = run("--model", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        f"core-server: error: there is no config.json in {tmp_path}; give the folder of a checkpoint\n"
    )
    assert "Traceback" not in done.stderr


def test_in_a_json_log_the_reason_of_the_end_is_an_object_as_well(tmp_path: Path) -> None:
    done = run("--model", str(tmp_path), "--log-format", "json")
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (lines[-1]["level"], lines[-1]["error"]) == ("error", "model_not_found")
    assert lines[-1]["message"] == f"there is no config.json in {tmp_path}; give the folder of a checkpoint"


def test_an_ops_port_outside_its_range_is_refused_at_once() -> None:
    done = run("--model", "nowhere", "--ops-port", "65536")
    assert done.returncode == 2
    assert (
        done.stderr == "core-server: error: ops port is 65536; it must be from 0 to 65535 (--ops-port or --ops-host)\n"
    )


def test_it_says_where_it_listens_and_ends_when_told(
    running: subprocess.Popen[str], core_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running.stdout is not None
    line = running.stdout.readline()
    serving = r"serving general \(ssd-2, [\d,]+ parameters\) in float32 on cpu"
    listening = re.fullmatch(rf"core-server: listening on 127\.0\.0\.1:(\d+), {serving}\n", line)
    assert listening

    assert main(["--model", str(core_folder), "--port", listening[1], "--threads", "64"]) == 2
    told = capsys.readouterr()
    assert "core-server: error: cannot listen on" in told.err
    assert (told.out, "Traceback" in told.err) == ("", False)

    running.send_signal(signal.SIGTERM)
    rest, log = running.communicate(timeout=30)
    assert (running.returncode, rest) == (0, "")
    assert "parameters in float32 on cpu" in log
    assert "stopping" in log
    assert "Traceback" not in log


@NEEDS_OWN_PROCESSES
def test_it_ends_when_told_while_it_loads_also_as_the_first_process_of_a_container(core_folder: Path) -> None:
    """The kernel hands the first process no signal that it has no handler for."""
    command = ["unshare", "-rp", "--fork", "--kill-child", *COMMAND, "--model", str(core_folder), "--ops-port", "0"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert "/metrics are at" in outer.stdout.readline(), "it listens for that before it loads"
        (first,) = children(outer.pid)
        os.kill(first, signal.SIGTERM)
        rest, log = outer.communicate(timeout=30)
    assert (outer.returncode, rest) == (EXIT_TERMINATED, "")
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_or_a_hangup_ends_it_as_well(core_folder: Path, number: signal.Signals) -> None:
    lines = []

    def interrupt(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), number)

    asyncio.run(asyncio.wait_for(serve(ServerConfig({"core": core_folder}, threads=64), interrupt), 60))
    assert len(lines) == 1
