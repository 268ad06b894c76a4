"""The agent on Windows, as far as Linux shows it: it starts, links, reads and answers without what is absent there."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ssd2.demo.paths import USER
from tests.end_to_end.conftest import ENVIRONMENT
from tests.user_agent.api.conftest import KEY
from user_agent.documents import confinement
from user_agent.documents.extraction import exposure_warning

SIMULATED = [sys.executable, str(Path(__file__).with_name("simulated_windows.py")), "user_agent"]


def variables(home: Path) -> dict[str, str]:
    own = {"APPDATA": str(home / "roaming"), "LOCALAPPDATA": str(home / "local"), "SLINGSHOT_USER_MODEL": str(USER)}
    return {**ENVIRONMENT, **own, "SLINGSHOT_API_KEY": KEY, "SLINGSHOT_PASSPHRASE": "for tests"}


def test_the_agent_starts_links_a_folder_reads_it_and_answers(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "lessons.txt").write_text("My piano lesson is at Rose Pavilion.")
    command = [*SIMULATED, "serve", "--port", "0"]
    environment = {**variables(tmp_path), "SLINGSHOT_LAMBDA_USER": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            headers = {"authorization": f"Bearer {KEY}"}
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
                linked = http.post("/v1/documents/links", json={"path": str(documents)})
                assert linked.status_code < 300, linked.text
                end = time.monotonic() + 60
                while not http.get("/v1/documents/links").json()["data"][-1]["documents"]:
                    assert time.monotonic() < end, "it was not read"
                    time.sleep(0.1)
                chat = {"model": "slingshot", "messages": [{"role": "user", "content": "Where is my piano lesson?"}]}
                answer = http.post("/v1/chat/completions", json=chat).json()
                assert "Rose Pavilion" in answer["choices"][0]["message"]["content"]
        finally:
            process.terminate()
    assert (tmp_path / "local/slingshot/documents.sqlite").is_file()


def test_a_core_of_its_own_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SIMULATED, "ask", "When does Fern Tower open?"], env=variables(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cannot be started on Windows" in done.stderr
    assert "Traceback" not in done.stderr


class Job:
    """Stands in for pywin32: notes what a process is bounded with."""

    JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOB_OBJECT_LIMIT_ACTIVE_PROCESS, JobObjectExtendedLimitInformation = 0x100, 0x8, 9

    def __init__(self) -> None:
        self.limits: dict[str, Any] = {"BasicLimitInformation": {}}
        self.processes: list[str] = []

    def CreateJobObject(self, *_: object) -> str:  # noqa: N802
        return "job"

    def QueryInformationJobObject(self, *_: object) -> dict[str, Any]:  # noqa: N802
        return {"BasicLimitInformation": {"LimitFlags": 0, "ActiveProcessLimit": 0}, "ProcessMemoryLimit": 0}

    def SetInformationJobObject(self, _job: str, _kind: int, limits: dict[str, Any]) -> None:  # noqa: N802
        self.limits = limits

    def AssignProcessToJobObject(self, _job: str, process: str) -> None:  # noqa: N802
        self.processes.append(process)


def test_the_reader_bounds_its_memory_and_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job()
    monkeypatch.setitem(sys.modules, "win32job", job)
    monkeypatch.setitem(sys.modules, "win32api", SimpleNamespace(GetCurrentProcess=lambda: "this process"))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    assert "Windows" in (why := confinement.confine())
    assert job.processes == ["this process"]
    assert job.limits["BasicLimitInformation"] == {"LimitFlags": 0x108, "ActiveProcessLimit": 1}
    assert job.limits["ProcessMemoryLimit"] == confinement.MEMORY_LIMIT_BYTES
    assert "namespace" not in exposure_warning(why), "what helps on Linux does not help here"


def test_a_file_that_takes_too_long_ends_the_reader() -> None:
    code = (
        "import sys, time; sys.platform = 'win32'\n"
        "from user_agent.documents.confinement import limited_time\n"
        "with limited_time(10): pass\n"
        "with limited_time(0.1): time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=30, check=False)
    assert done.returncode == confinement.TOO_SLOW
