"""`user-agent ask` as a person and a program use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from user_agent.errors import StoreUnreadable
from user_agent.store.history import History

from .conftest import ENVIRONMENT, CoreProcess, run_agent


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "home.md").write_text("# Home\n\n- The shed code is 4711.\n- My plumber is Ada Stone.\n")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "logits_format", "frame_bytes"),
    [((), "top-k:64", 8 * 196), (("--logits", "uint8"), "uint8", 8 * 1782)],
)
def test_json_has_the_answer_its_tokens_passages_and_costs(
    core: CoreProcess, user_folder: Path, notes: Path, options: tuple[str, ...], logits_format: str, frame_bytes: int
) -> None:
    always = ("--core", core.address, "--user-model", str(user_folder), "--docs", str(notes), "--json", "--seed", "3")
    result = run_agent(
        "ask", "What is my shed code?", *always, "--max-tokens", "16", "--steps", "4", "--speculation", "0", *options
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    place = {"source": str(notes / "home.md"), "line": 3, "page": None, "slide": None, "sheet": None}
    assert answer["citations"][0] == {"text": "The shed code is 4711.", "heading": "Home", **place, "is_cut": False}
    assert answer["text"] == "".join(token["text"] for token in answer["tokens"]).strip()
    down = answer["timesteps"] * frame_bytes
    assert 1.1 * down > answer["bytes_down"] > down > answer["bytes_up"] > 0
    assert answer["logits_format"] == logits_format
    assert 0 <= answer["exact_timesteps"] <= answer["timesteps"]


def test_fewer_timesteps_and_round_trips_if_told_to(core: CoreProcess, user_folder: Path) -> None:
    def ask(*options: str) -> tuple[int, int]:
        always = (
            "--core",
            core.address,
            "--user-model",
            str(user_folder),
            "--json",
            "--seed",
            "3",
            "--max-tokens",
            "16",
        )
        result = run_agent("ask", "Hello?", *always, "--temperature", "0", "--steps", "9", *options)
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        return answer["timesteps"], answer["round_trips"]

    assert ask("--patience", "0") == (18, 18)
    assert ask("--patience", "0", "--core-every", "4", "--schedule", "changes") == (18, 6)
    by_default, impatient = ask(), ask("--patience", "1")
    assert 2 * 2 <= impatient[0] < by_default[0] < 18
    assert ask("--entropy-bound", "0.001") == (18, 18)


def test_the_same_seed_gives_the_same_answer_and_no_seed_another(core: CoreProcess, user_folder: Path) -> None:
    options = ("--core", core.address, "--user-model", str(user_folder), "--steps", "3", "--top-p", "1")
    first, second, third = (
        run_agent("ask", "Hello?", *options, *seed).stdout for seed in (("--seed", "5"), ("--seed", "5"), ())
    )
    assert first == second != third


def test_lambda_1_answers_without_a_core(user_folder: Path, notes: Path) -> None:
    result = run_agent(
        "ask",
        "What is my shed code?",
        "--docs",
        str(notes),
        "--user-model",
        str(user_folder),
        "--lambda-user",
        "1",
        "--core",
        "127.0.0.1:1",
        "--json",
        "--steps",
        "2",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["bytes_up"] == 0


def test_lambda_0_answers_without_the_user_model(core: CoreProcess, user_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((user_folder / name).read_bytes())
    options = ("--core", core.address, "--user-model", str(tmp_path), "--steps", "2", "--json")
    result = run_agent("ask", "Hello?", *options, "--lambda-user", "0", "--docs", "/not/even/read")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("user_agent", "--help"),
        ("user_agent", "ask", "--help"),
        ("user_agent", "tune", "--help"),
        ("ssd2", "--help"),
        ("core_server", "--help"),
    ],
)
def test_help_has_examples_and_does_not_wait_for_torch(command: tuple[str, ...]) -> None:
    code = f"import runpy, sys; sys.argv = {list(command)!r}; runpy.run_module({command[0]!r}, run_name='__main__')"
    probe = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))\n{code}"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=ENVIRONMENT, timeout=30)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "False", "torch was imported"
    if command[1:] != ("--help",) or command[0] == "core_server":
        assert "xamples:" in result.stdout


def test_an_answer_that_cannot_be_kept_is_shown_all_the_same(
    core: CoreProcess, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreUnreadable("cannot use history.sqlite: the disk is full; check the disk")

    monkeypatch.setattr(History, "append", full)
    asked = ("ask", "Hello?", "--core", core.address, "--user-model", str(user_folder), "--lambda-user", "0")
    done = run_agent(*asked, "--steps", "3", "--max-tokens", "8", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["tokens"]
    assert "check the disk" in done.stderr
