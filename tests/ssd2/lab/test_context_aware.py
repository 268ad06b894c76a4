"""Context-aware decoding (the thesis, ch. 4), against the formula worked out token by token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model
from typer.testing import CliRunner

from ssd2.algorithm.params import DecodingParams
from ssd2.cli import app
from ssd2.errors import InvalidParameter, ModelNotFound
from ssd2.lab.context_aware import answer_from_context
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.convert import export_opt

QUESTION, CONTEXT = "Where is my key?", ["The key is under the mat."]


@pytest.fixture(scope="module")
def opt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt")
    export_opt(demo_shaped_model(5), folder, DEMO_TOKENIZER.read_text())
    return folder


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_each_token_is_the_argmax_of_the_contrasted_logits(opt_folder: Path, alpha: float) -> None:
    """logits(y | c, x) + α (logits(y | c, x) - logits(y | x)), each from a whole forward pass."""
    checkpoint = load_checkpoint(opt_folder)
    assert isinstance(checkpoint.model, AutoregressiveLM)
    prompts = [checkpoint.tokenizer.encode_prompt(QUESTION, texts, bos_token_id=1) for texts in (CONTEXT, ())]
    written: list[int] = []
    for _ in range(8):
        with torch.no_grad():
            seen, unseen = (
                checkpoint.model.network(torch.tensor([prompt + written])).logits[0, -1] for prompt in prompts
            )
        written.append(int((seen + alpha * (seen - unseen)).argmax()))
    params = DecodingParams.for_model(checkpoint.model.config, max_tokens=8, projection="greedy")
    answer = answer_from_context(checkpoint, QUESTION, CONTEXT, alpha, params, seed=0)
    eos = checkpoint.model.config.eos_token_id
    until_eos = written[: written.index(eos)] if eos in written else written
    assert answer == checkpoint.tokenizer.decode(until_eos)


@pytest.mark.parametrize("family", ["autoregressive", "ssd-2"])
def test_the_command_shows_what_the_contrast_changes(opt_folder: Path, user_folder: Path, family: str) -> None:
    folder = opt_folder if family == "autoregressive" else user_folder
    command = ["lab", "cad", QUESTION, "--model", str(folder), "--context", CONTEXT[0], "--max-tokens", "8", "--json"]
    result = CliRunner().invoke(app, [*command, "--alpha", "5"], catch_exceptions=False)
    answers = json.loads(result.stdout)
    assert set(answers) == {"with_contrast", "with_context", "without_context", "alpha"}
    assert len({answers["with_contrast"], answers["with_context"], answers["without_context"]}) > 1


def test_no_context_and_no_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> None:
        CliRunner().invoke(app, ["lab", "cad", QUESTION, *arguments], catch_exceptions=False)

    with pytest.raises(InvalidParameter, match="--context TEXT"):
        run("--model", str(tmp_path))
    with pytest.raises(InvalidParameter, match="cannot read"):
        run("--model", str(tmp_path), "--context-file", str(tmp_path / "none.txt"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelNotFound, match="as a folder or on the Hugging Face hub"):
        run("--model", "nobody/no-such-model", "--context", "It is here.")
