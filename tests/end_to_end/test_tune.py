"""`user-agent tune` as a person and a program use it, and `ask` after it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_TOKENIZER, demo_shaped_model
from rich.console import Console
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.errors import SlingshotError
from ssd2.models.checkpoint import save_checkpoint
from tests.commands import run_here
from user_agent.answering.run import Agent, Question
from user_agent.answering.settings import ServiceSettings
from user_agent.answering.user_model import UserModel
from user_agent.commands.remedies import with_remedy
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger
from user_agent.tuning import sweep
from user_agent.tuning.command import TuneOptions, run_tune
from user_agent.tuning.questions import TuningQuestion
from user_agent.tuning.recording import RecordedCore, record
from user_agent.tuning.sweep import RecordedJudge, Task, pass_seeds

from .conftest import ENVIRONMENT, CoreProcess, running_core

SEED, STEPS = 5, 3
QUESTIONS = ("What is my shed code?", "Who is my plumber?")
Tune = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**ENVIRONMENT, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}


@pytest.fixture
def agent(environment: dict[str, str]) -> Tune:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, environment=environment)

    return run


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "home.md").write_text("- The hedgehog sleeps under Marrowby Quay.\n")
    return folder


@pytest.fixture
def questions(tmp_path: Path, user_folder: Path) -> Path:
    """Questions whose answers are what the random user model says alone, with α 0: no note is about them."""
    user = UserModel.load(user_folder, with_weights=True)
    params, lines = DecodingParams(block_size=8, max_tokens=16, steps=STEPS, stop=0.4), []
    setting = CollaborationParams(1.0, 0.0)
    for number, text in enumerate(QUESTIONS):
        alone = Question(text, [], setting, params, pass_seeds(SEED, setting, number))
        said = asyncio.run(Agent(user, None).answer(alone)).text
        assert said
        lines.append(json.dumps({"question": text, "answer": said}))
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines))
    return file


def _tune_options(core: str, user_folder: Path, notes: Path, *more: str) -> tuple[str, ...]:
    always = ("--steps", str(STEPS), "--max-tokens", "16", "--seed", str(SEED), "--yes")
    return ("tune", "--docs", str(notes), "--core", core, "--user-model", str(user_folder), *always, *more)


@pytest.mark.slow
def test_ask_uses_what_was_tuned_for_its_pair_unless_told_otherwise(
    core: CoreProcess, agent: Tune, user_folder: Path, notes: Path, questions: Path, tmp_path: Path
) -> None:
    tuned = agent(*_tune_options(core.address, user_folder, notes, "--questions", str(questions), "--json"))
    assert tuned.returncode == 0, tuned.stderr
    choice = json.loads(tuned.stdout)
    assert (choice["lambda_user"], choice["alpha"], choice["questions"]) == (1.0, 0.0, 2)
    assert len(choice["curve"]) == 14
    sent = [
        entry
        for entry in json.loads(agent("ledger", "show", "--limit", "9999", "--json").stdout)["entries"]
        if entry["direction"] == "up"
    ]
    assert {entry["trace"].partition("-")[0] for entry in sent} == {"tune"}
    assert {entry["rpc"] for entry in sent} == {"GetModelCard", "Collaborate"}

    def bytes_up(address: str, *more: str) -> tuple[int, str]:
        options = ("--core", address, "--user-model", str(user_folder), "--steps", "2", "--json", *more)
        result = agent("ask", "Hello?", *options)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["bytes_up"], result.stderr

    up, said = bytes_up(core.address)
    assert up < 20  # λ 1: only the core's card was asked for, to know what was tuned for it
    assert "λ 1, α 0" in said
    up, said = bytes_up(core.address, "--lambda-user", "0.3", "--alpha", "1")
    assert up > 20
    assert "tuned" not in said
    save_checkpoint(tmp_path / "other", demo_shaped_model(3), DEMO_TOKENIZER.read_text())
    with running_core(tmp_path / "other") as other:
        up, said = bytes_up(other.address)
    assert up > 20
    assert "tuned" not in said

    assert "λ 1, α 0" in agent("tune", "--show").stdout
    assert [c["seed"] for c in json.loads(agent("tune", "--show", "--json").stdout)] == [SEED]
    assert agent("tune", "--reset").returncode == 0
    assert "nothing is tuned yet" in agent("tune", "--show").stderr
    assert bytes_up(core.address)[0] > 0


async def test_a_recording_holds_all_timesteps_and_serves_blocks_that_end_early(
    core: CoreProcess, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the core alone would end early is recorded to the last timestep: a mix may need it."""
    params = DecodingParams(block_size=8, max_tokens=16, steps=6, stop=0.4, projection="greedy", patience=1)
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        recordings = await record(UserModel.load(user_folder, with_weights=False), client, params, SEED)
    assert all([len(block) for block in recording.logits] == [6, 6] for recording in recordings)
    asked: list[BlockView] = []

    class Counting(RecordedCore):
        def logits(self, request: BlockView) -> Tensor:
            asked.append(request)
            return super().logits(request)

    monkeypatch.setattr(sweep, "RecordedCore", Counting)
    tasks = [Task(TuningQuestion(text, "?"), []) for text in ("Who?", "Where is it now?", "Why?")]
    judge = RecordedJudge(tasks, UserModel.load(user_folder, with_weights=True), recordings, params, SEED)
    setting = CollaborationParams(0.5, 1.0)
    together = judge._answers(setting, range(3))
    assert together == [judge._answers(setting, [number])[0] for number in range(3)]
    assert len(asked) < 4 * 2 * 6, "no block ended early"


def test_what_crosses_is_said_before_it_is_asked_whether_to_start(
    core: CoreProcess, agent: Tune, user_folder: Path, notes: Path, questions: Path
) -> None:
    options = [o for o in _tune_options(core.address, user_folder, notes) if o != "--yes"]
    for more, says in (
        ((), "nothing of your documents"),
        (("--questions", str(questions)), "your 2 questions, word for word, 12 times each"),
    ):
        result = agent(*options, *more)
        assert result.returncode == 1
        assert says in result.stderr
        assert result.stderr.index("What crosses") < result.stderr.index("confirm in advance")
        assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_documents_that_no_setting_answers_leave_nothing_saved(
    core: CoreProcess, agent: Tune, user_folder: Path, notes: Path, tmp_path: Path
) -> None:
    result = agent(*_tune_options(core.address, user_folder, notes))
    assert result.returncode == 1
    assert "no setting answered any of the 1 questions correctly" in result.stderr
    assert "--questions" in result.stderr
    assert list((tmp_path / "config" / "slingshot").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "changes", "says"),
    [
        ("", {}, "a.md is empty"),
        ("It is there.\n", {}, "no question can be made from any sentence"),
        ("The code is 12.\n", {"questions": Path("/nowhere/q.tsv")}, "/nowhere/q.tsv"),
        ("The code is 12.\n", {"answers": {"seed": 2**62}}, "below 2^62"),
        ("The code is 12.\n", {"answers": {"steps": 601}}, "1 to 600"),
        ("The code is 12.\n", {"answers": {"max_tokens": 10**6}}, "(--steps)"),
        ("The code is 12.\n", {"core": "127.0.0.1:1"}, "no core answers"),
        ("The code is 12.\n", {"core": ""}, "tuning needs a core; set the core's address"),
        ("The code is 12.\n", {"docs": ()}, "--docs"),
        ("The code is 12.\n", {"answers": {"model": "gpt-9"}}, "there are: tiny (ssd-2)"),
    ],
)
def test_what_cannot_be_tuned_is_named(
    core: CoreProcess,
    user_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    changes: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "a.md").write_text(content)
    options: dict[str, object] = {
        "docs": (tmp_path / "a.md",),
        "questions": None,
        "core": core.address,
        "questions_limit": 4,
        "timeout_s": 10.0,
        "is_confirmed": True,
    }
    given = {"user_model": user_folder, "steps": STEPS, "max_tokens": 16, "seed": SEED, **changes.get("answers", {})}
    changes = {**changes, "answers": ServiceSettings(**given)}
    with pytest.raises(SlingshotError) as caught:
        run_tune(TuneOptions(**{**options, **changes}), Console(file=io.StringIO()), Ledger.in_memory())
    assert says in with_remedy(caught.value)


def _started(environment: dict[str, str], options: tuple[str, ...]) -> subprocess.Popen[str]:
    """A run that has some answers already."""
    process = subprocess.Popen(
        [sys.executable, "-m", "user_agent", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    folder, deadline = Path(environment["XDG_CONFIG_HOME"]) / "slingshot", time.monotonic() + 60
    while not any(file.read_text().count("\n") > 2 for file in folder.glob("tuning-*.jsonl")):
        assert time.monotonic() < deadline, "no answer came"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_a_core_that_goes_away_costs_nothing_that_was_measured(
    core_folder: Path, user_folder: Path, environment: dict[str, str], agent: Tune, notes: Path, questions: Path
) -> None:
    with running_core(core_folder) as core:
        options = _tune_options(core.address, user_folder, notes, "--questions", str(questions))
        process = _started(environment, options)
        core.process.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "answers are stored; run the same command to resume" in err
    assert "Traceback" not in err
    assert out == ""
    with running_core(core_folder) as core:
        result = agent(*_tune_options(core.address, user_folder, notes, "--questions", str(questions)))
    assert result.returncode == 0, result.stderr
    assert "An earlier run was interrupted" in result.stderr
    assert "Chosen: λ 1, α 0" in result.stdout


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(
    core: CoreProcess, user_folder: Path, environment: dict[str, str], notes: Path, questions: Path
) -> None:
    more = ("--questions", str(questions), "--steps", "60")  # long enough not to be over before it is stopped
    process = _started(environment, _tune_options(core.address, user_folder, notes, *more))
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; " in err
    assert "run the same command to resume" in err
    assert "Traceback" not in err
