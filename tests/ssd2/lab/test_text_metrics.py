"""Metrics of texts against values worked out by hand, and perplexity against the model's own loss."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model
from typer.testing import CliRunner

from ssd2.cli import app
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.evaluation.generations import Generation, read_generations, separated
from ssd2.lab.causal_scorer import CausalScorer
from ssd2.lab.perplexity import Likelihood, perplexity
from ssd2.lab.text_metrics import (
    as_table,
    distinct_n,
    is_repetitive,
    mauve_score,
    measure_groups,
    measure_texts,
    references_of,
    texts_to_score,
    zipf_coefficient,
)
from ssd2.lab.text_report import write_text_report
from ssd2.models.convert import export_opt

TEXTS = [("When does it open?", " It opens at 9."), ("", "A place."), ("Why?", " " + "Because it is so, and so. " * 3)]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random OPT."""
    folder = tmp_path_factory.mktemp("opt")
    export_opt(demo_shaped_model(4), folder, DEMO_TOKENIZER.read_text())
    return folder


@pytest.fixture(scope="module")
def scorer(model_folder: Path) -> CausalScorer:
    return CausalScorer(str(model_folder))


def test_distinct_n_is_a_mean_over_prompts_of_distinct_n_grams_over_words() -> None:
    texts = [Generation("a b a", "p"), Generation("b  a\nc", "p"), Generation("x x", "q"), Generation(" ", "r")]
    # p: 6 words; {a b c}, {ab ba ac}, {aba bac}. q: 2 words; {x}, {xx}, {}. r has no word.
    assert distinct_n(texts, 1) == pytest.approx((3 / 6 + 1 / 2) / 2)
    assert distinct_n(texts, 2) == pytest.approx((3 / 6 + 1 / 2) / 2)
    assert distinct_n(texts, 3) == pytest.approx((2 / 6 + 0) / 2)
    assert distinct_n([Generation("")], 1) is None


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("so it is it is it is", False),  # two tokens, three times
        ("it is so it is so", True),  # three tokens, twice
        ("well it is so it is so", True),
        ("it is so it is so then", False),  # not at the end
        ("so it is so well it is", False),
        ("a b c d e f a b c d e f", True),
        ("ha " * 50, False),
        ("ha " * 51, True),
        ("x " * 6, False),  # "x x x" twice, but "x" comes more often
        ("one", False),
        ("", False),
        (" ".join(map(str, range(90))) + " " + " ".join(map(str, range(90))), True),
        (" ".join(map(str, range(91))) + " " + " ".join(map(str, range(91))), False),  # longer than is looked for
    ],
)
def test_a_text_is_repetitive_if_it_ends_in_a_repeated_phrase(text: str, repeats: bool) -> None:
    assert is_repetitive(text.split()) is repeats


def test_zipf_is_the_slope_of_log_frequency_over_log_rank() -> None:
    # Frequencies 8, 4, 2 at ranks 1, 2, 3. Logs to base 2: y = 3, 2, 1; x = 0, 1, log2(3).
    x = [0.0, 1.0, math.log2(3)]
    mean = sum(x) / 3
    slope = sum((a - mean) * (b - 2) for a, b in zip(x, (3, 2, 1), strict=True)) / sum((a - mean) ** 2 for a in x)
    assert zipf_coefficient("aaaaaaaabbbbcc") == pytest.approx(-slope)
    assert zipf_coefficient([n for n in range(1, 65) for _ in range(64 // n) if 64 % n == 0]) is not None
    perfect = [token for rank in (1, 2) for token in [rank] * (4 // rank**2)]  # 4 and 1: f = 4 / rank²
    assert zipf_coefficient(perfect) == pytest.approx(2)
    assert zipf_coefficient("abcd") == 0
    assert zipf_coefficient("aaa") is None


def test_zipf_leaves_rare_tokens_out() -> None:
    common = [token for token in range(5000) for _ in range(2)]
    assert zipf_coefficient([*common, *range(5000, 9000)]) == 0


@torch.inference_mode()
def direct_loss(scorer: CausalScorer, prompt: str, text: str) -> tuple[float, int]:
    """The negative log likelihood of a continuation, token by token, without batch or padding."""
    before, whole = (scorer.tokenizer.encode(one, add_special_tokens=False).ids for one in (prompt, prompt + text))
    assert whole[: len(before)] == before, "the seam is between two tokens"
    nll = 0.0
    for index in range(len(before), len(whole)):
        logits = scorer._network(torch.tensor([[scorer._bos, *whole[:index]]])).logits[0, -1]
        nll -= float(torch.log_softmax(logits, -1)[whole[index]])
    return nll, len(whole) - len(before)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_likelihoods_are_those_of_each_text_alone(scorer: CausalScorer, batch_size: int) -> None:
    seen: list[int] = []
    scored = scorer.score(TEXTS, batch_size=batch_size, on_progress=seen.append)
    assert sum(seen) == 3
    for (prompt, text), likelihood in zip(TEXTS, scored, strict=True):
        nll, tokens = direct_loss(scorer, prompt, text)
        assert likelihood.tokens == tokens
        assert likelihood.nll == pytest.approx(nll, rel=1e-5)
    assert len({round(one.nll / one.tokens, 3) for one in scored}) == 3, "else the equality shows little"


def test_a_tokens_weight_does_not_depend_on_the_length_of_its_text() -> None:
    assert perplexity([Likelihood(3.0, 1, False), Likelihood(0.0, 2, False)]) == pytest.approx(math.e)
    assert perplexity([Likelihood(0.0, 0, False)]) is None


def test_a_token_across_the_seam_belongs_to_the_text(scorer: CausalScorer) -> None:
    one = scorer.encode("It ope", "ns at 9.")
    assert one.ids == [scorer._bos, *scorer.tokenizer.encode("It opens at 9.", add_special_tokens=False).ids]
    assert scorer.tokenizer.decode(one.ids[one.start :]).strip().startswith("ope")


def test_a_text_says_nothing_that_is_a_special_token(scorer: CausalScorer) -> None:
    assert scorer.tokenizer.token_to_id("<eos>") not in scorer.encode("", "a <eos>").ids


def test_too_long_a_prompt_loses_its_beginning_and_too_long_a_text_its_end(scorer: CausalScorer) -> None:
    positions = scorer._positions
    assert positions == 160
    long, short = "It opens at 9. " * 100, " It closes at 5."
    one = scorer.encode(long, short)
    assert len(one.ids) == positions
    assert not one.is_cut
    assert scorer.tokenizer.decode(one.ids[one.start :]).strip() == short.strip()
    cut = scorer.encode("Why?", long)
    assert (len(cut.ids), cut.start, cut.is_cut) == (positions, 1, True)
    assert [likelihood.tokens for likelihood in scorer.score([(long, short), ("Why?", long)])] == [
        positions - one.start,
        positions - 1,
    ]


def test_a_model_that_is_none_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        CausalScorer(str(tmp_path))
    with pytest.raises(InvalidParameter, match=r"device .cuda:99. cannot be used"):
        CausalScorer(str(model_folder), "cuda:99")
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointInvalid, match=r"not a tokenizer\.json"):
        CausalScorer(str(tmp_path))
    tokenizer = json.loads(DEMO_TOKENIZER.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 1782, "content": "<new>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointInvalid, match="1783 tokens and the model 1782"):
        CausalScorer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "bos_token_id": None, "eos_token_id": None}))
    with pytest.raises(CheckpointInvalid, match="bos_token_id"):
        CausalScorer(str(tmp_path))


def test_texts_are_compared_with_their_references() -> None:
    group = [Generation("b b", "p", "a"), Generation("c", "p", "a"), Generation("d", "q", "a")]
    likelihoods = {
        ("p", "b b"): Likelihood(4.0, 2, False),
        ("p", "c"): Likelihood(2.0, 1, False),
        ("q", "d"): Likelihood(6.0, 1, True),
        ("p", "a"): Likelihood(1.0, 1, False),
        ("q", "a"): Likelihood(3.0, 3, False),
    }
    assert set(texts_to_score({"ours": group})) == set(likelihoods)
    references, ours = measure_groups({"ours": group}, str.split, likelihoods)
    assert (references.label, references.texts, references.perplexity) == ("references", 2, pytest.approx(math.e))
    assert ours.perplexity == pytest.approx(math.exp(3))
    assert ours.delta_log_ppl == pytest.approx(abs(3 - 1))
    assert references.delta_log_ppl == 0
    assert (references.cut, ours.cut) == (0, 1)


def test_what_was_not_asked_for_is_not_measured() -> None:
    row = measure_texts("ours", [Generation("it is so it is so"), Generation("no")], str.split)
    assert (row.perplexity, row.delta_log_ppl, row.mauve) == (None, None, None)
    assert (row.repetition, row.repetition_interval) == (0.5, pytest.approx((0.0945, 0.9055), abs=1e-4))
    assert "| ours | 2 | – | – | 0.571 |" in as_table([row])
    assert measure_groups({"ours": [Generation("a")]}, str.split)[0].label == "ours", "no references, no row of them"


def fake_mauve(monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]) -> None:
    def compute_mauve(**arguments: Any) -> SimpleNamespace:
        asked.update(arguments)
        return SimpleNamespace(mauve=0.75)

    module = ModuleType("mauve")
    module.compute_mauve = compute_mauve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mauve", module)


def test_mauve_is_asked_with_prompts_and_each_reference_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    fake_mauve(monkeypatch, asked)
    group = [Generation(" b", "p", " a"), Generation(" c", "p", " a")]
    assert mauve_score(group, "tiny", 1) == 0.75
    assert asked == {
        "p_text": ["p a"],
        "q_text": ["p b", "p c"],
        "featurize_model_name": "tiny",
        "device_id": 1,
        "max_text_length": 256,
        "verbose": False,
    }


def test_mauve_without_its_package_or_references_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(InvalidParameter, match=r"slingshot\[mauve\]"):
        mauve_score([Generation("a", reference="b")])
    with pytest.raises(InvalidParameter, match="reference"):
        mauve_score([Generation("a")])


def test_files_are_read_group_by_group(tmp_path: Path) -> None:
    ours, plain = tmp_path / "ours.jsonl", tmp_path / "plain.txt"
    ours.write_text(
        '{"text": "a", "instruction": "i", "question": "q", "system": "x"}\n\n'
        '{"text": "b", "reference": "r", "system": "y"}'
    )
    plain.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\r\n")  # as some editors save it
    assert read_generations([ours, plain]) == {
        "ours": [Generation("a", "i"), Generation("b", "", "r")],
        "plain": [Generation("one"), Generation("two")],
    }
    assert list(read_generations([ours], by="system")) == ["x", "y"]
    assert references_of(read_generations([ours])["ours"]) == [Generation("r", "", "r")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"text": "a"}\nnonsense\n', r"line 2 of .*a\.jsonl is not JSON"),
        ("a.jsonl", "[]\n", "line 1 .* has no text"),
        ("a.jsonl", '{"prompt": "a"}\n', "has no text"),
        ("a.jsonl", '{"text": "a", "question": 3}\n', "question .* not a string"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "not valid Unicode"),
        ("a.jsonl", "\n", "contains no text"),
        ("a.json", "{}", "must be .jsonl"),
        ("a.jsonl", b"\xff\xff", "UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidParameter, match=says):
        read_generations([file])


def test_groups_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [tmp_path / "a.txt", tmp_path / "other" / "a.txt", tmp_path / "b.jsonl"]
    for file in files:
        file.write_text('{"text": "a"}\n')
    with pytest.raises(InvalidParameter, match="two files are called a"):
        read_generations(files)
    with pytest.raises(InvalidParameter, match=r"only \.jsonl files have fields"):
        read_generations(files[:1], by="system")
    with pytest.raises(InvalidParameter, match="another field"):
        read_generations(files[2:], by="system")
    with pytest.raises(InvalidParameter, match="cannot read"):
        read_generations([tmp_path / "nowhere.txt"])


def test_a_separator_stands_only_where_there_is_no_white_space() -> None:
    group = [Generation("a", "p"), Generation(" a", "p"), Generation("a", "p\n"), Generation("a"), Generation("", "p")]
    joined = separated({"x": group}, " ")["x"]
    assert [one.context for one in joined] == ["p ", "p", "p\n", "", "p "]
    assert [one.prompt for one in joined] == [one.prompt for one in group], "which texts are of one prompt"
    assert [one.context for one in group] == ["p", "p", "p\n", "", "p"]


def test_texts_of_one_prompt_are_measured_together_whatever_they_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Generation("a b", "P", "r"), Generation(" a b", "P", "r"), Generation(" c d", "Q", "s")]
    group = separated({"x": texts}, " ")["x"]
    assert distinct_n(group, 1) == pytest.approx((2 / 4 + 2 / 2) / 2)
    references = references_of(group)
    assert [(one.context, one.text) for one in references] == [("P ", "r"), ("Q ", "s")], "a seam of their own"
    expected = [("P ", "a b"), ("P", " a b"), ("Q", " c d"), ("P ", "r"), ("Q ", "s")]
    assert texts_to_score({"x": group}) == expected
    likelihoods = {key: Likelihood(1.0, 1, False) for key in expected}
    assert [row.texts for row in measure_groups({"x": group}, str.split, likelihoods)] == [2, 3]
    asked: dict[str, Any] = {}
    fake_mauve(monkeypatch, asked)
    mauve_score(group)
    assert (asked["p_text"], asked["q_text"]) == (["P r", "Q s"], ["P a b", "P a b", "Q c d"])


def test_the_command_measures_prints_and_reports(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    fake_mauve(monkeypatch, asked)
    file = tmp_path / "answers.jsonl"
    lines = [{"prompt": "When?", "text": "It opens at 9.", "reference": "At 9.", "system": name} for name in "ab"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["lab", "text", str(file), "--by", "system", "--model", str(model_folder), "--mauve"]
    result = CliRunner().invoke(app, [*command, "--json", "--out", str(tmp_path / "r")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [row["label"] for row in facts["rows"]] == ["references", "a", "b"]
    assert facts["unit"] == f"tokens of {model_folder}"
    scorer = CausalScorer(str(model_folder))
    (nll, tokens) = direct_loss(scorer, "When?", " It opens at 9.")
    assert facts["rows"][1]["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert facts["rows"][1]["mauve"] == 0.75
    assert asked["q_text"] == ["When? It opens at 9."]
    assert asked["device_id"] == -1
    assert "2/2" in result.stderr, "a progress bar, on stderr: one text and one reference"
    page = (tmp_path / "r" / "text.md").read_text()
    assert "| a | 1 |" in page
    assert str(model_folder) in page
    assert (tmp_path / "r" / "text.svg").stat().st_size > 1000


def test_the_command_says_what_it_could_not_hold(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("It opens at 9. " * 100)
    result = CliRunner().invoke(app, ["lab", "text", str(tmp_path / "long.txt"), "--model", str(model_folder)])
    assert result.exit_code == 0, result.output
    assert "1 texts are longer" in result.stderr
    assert "not scored" in result.stdout


def test_a_report_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    rows = measure_groups({"ours": [Generation("a b")], "theirs": [Generation("c c")]}, str.split)
    write_text_report(tmp_path, rows, "Counted in words.", "ssd2 lab text")
    assert "Counted in words. Made by:" in (tmp_path / "text.md").read_text()
    plot = (tmp_path / "text.svg").read_text()
    assert "dist-1" in plot
    assert "MAUVE" not in plot
