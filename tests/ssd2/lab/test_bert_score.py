"""BERTScore against the paper's formula, written out token by token over a tiny random encoder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel
from typer.testing import CliRunner

from ssd2.cli import app
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.evaluation.generations import Generation
from ssd2.lab.bert_score import Match, ScoredMatch, known_layer, mean_score, read_baseline
from ssd2.lab.bert_scorer import BertScorer
from ssd2.lab.text_metrics import pairs_to_compare

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXT = "the a cat dog sat ran on mat it he was fast slow shut open at nine ten ."
WORDS = [*SPECIAL, *TEXT.split()]
POSITIONS = 16
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
CONTEXTUAL = {"initializer_range": 0.3}
"""Weights so large that a token's embedding depends on the others; with BERT's own it hardly does."""
PAIRS = [
    ("the cat sat on the mat .", "a dog ran fast ."),
    ("it was shut at nine", "it was open at ten . he was slow on the mat ."),
    ("cat", "the slow dog sat on a mat"),
    ("he ran", "he ran fast"),
]


def save_bert(folder: Path, **sizes: int) -> Path:
    """A tiny random BERT, whose tokenizer file pads and cuts by itself, as some published ones do."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=POSITIONS, **CONTEXTUAL, **{**SIZES, **sizes})
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=7)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> BertScorer:
    return BertScorer(str(folder))


@torch.inference_mode()
def embedding(folder: Path, text: str, layer: int) -> tuple[list[str], list[list[float]]]:
    """Tokens of one text and what the first layers of a network of its own make of them."""
    network = BertModel.from_pretrained(folder).eval()
    network.encoder.layer = network.encoder.layer[:layer]
    tokens = ["[CLS]", *text.split(), "[SEP]"]
    hidden = network(torch.tensor([[WORDS.index(token) for token in tokens]])).last_hidden_state
    return tokens, hidden[0].tolist()


def cosine(x: list[float], y: list[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))


def oracle(folder: Path, text: str, reference: str, layer: int, idf: dict[str, float] | None = None) -> Match:
    """§3 of the paper: each token's best cosine among the other text's, weighed; special tokens weigh nothing."""
    y, x = embedding(folder, text, layer), embedding(folder, reference, layer)

    def mean_of_best(of: tuple[list[str], list[list[float]]], among: tuple[list[str], list[list[float]]]) -> float:
        weights = [0.0 if token in ("[CLS]", "[SEP]") else (idf or {}).get(token, 1.0) for token in of[0]]
        best = [max(cosine(one, other) for other in among[1]) for one in of[1]]
        return math.fsum(w * b for w, b in zip(weights, best, strict=True)) / math.fsum(weights)

    precision, recall = mean_of_best(y, x), mean_of_best(x, y)
    return Match(precision, recall, 2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_are_the_papers_formula(folder: Path, layer: int, batch_size: int) -> None:
    seen: list[int] = []
    scored = BertScorer(str(folder), layer).score(PAIRS, batch_size=batch_size, on_progress=seen.append)
    assert sum(seen) == len(PAIRS)
    for (text, reference), one in zip(PAIRS, scored, strict=True):
        assert one.match == pytest.approx(oracle(folder, text, reference, layer), abs=1e-6)
        assert (one.is_cut, one.is_empty) == (False, False)
    assert len({round(one.match.f1, 3) for one in scored}) == len(PAIRS), "else the equality shows little"


def test_idf_weighs_rare_tokens_of_the_references_more(folder: Path, scorer: BertScorer) -> None:
    references = [reference for _, reference in PAIRS]
    counts = {word: sum(word in reference.split() for reference in references) for word in TEXT.split()}
    expected = {word: math.log(5 / (count + 1)) for word, count in counts.items()}
    weights = scorer.idf(references)
    assert {word: weights[WORDS.index(word)] for word in expected} == pytest.approx(expected)
    for (text, reference), one in zip(PAIRS, scorer.score(PAIRS, idf=weights), strict=True):
        assert one.match == pytest.approx(oracle(folder, text, reference, 3, expected), abs=1e-6)
    plain = [one.match.f1 for one in scorer.score(PAIRS)]
    weighed = [one.match.f1 for one in scorer.score(PAIRS, idf=weights)]
    assert max(abs(f1 - other) for f1, other in zip(plain, weighed, strict=True)) > 1e-3, "else it shows little"


def test_identical_texts_score_1(scorer: BertScorer) -> None:
    for idf in (None, scorer.idf(["the cat", "a dog"])):
        scored = scorer.score([("the cat sat .", " the cat sat . "), ("dog", "dog")], idf=idf)
        assert [one.match for one in scored] == [pytest.approx((1, 1, 1))] * 2


def test_tokens_that_are_in_every_reference_weigh_the_same(scorer: BertScorer) -> None:
    assert scorer.score([("the", "the")], idf=scorer.idf(["the"]))[0].match == pytest.approx((1, 1, 1))


def test_swapping_text_and_reference_swaps_precision_and_recall(scorer: BertScorer) -> None:
    for one, other in zip(scorer.score(PAIRS), scorer.score([pair[::-1] for pair in PAIRS]), strict=True):
        assert (other.match.recall, other.match.precision, other.match.f1) == pytest.approx(one.match)
        assert one.match.precision != pytest.approx(one.match.recall, abs=1e-3)


def test_an_empty_text_scores_0_and_is_counted(scorer: BertScorer) -> None:
    scored = scorer.score([("", "the cat"), (" \n", "the cat"), ("the cat", ""), ("", ""), ("the cat", "the cat")])
    assert [one.is_empty for one in scored] == [True] * 4 + [False]
    assert [one.match for one in scored[:4]] == [Match(0, 0, 0)] * 4
    assert mean_score(scored).f1 == pytest.approx(0.2)
    assert mean_score(scored).empty == 4


def test_a_long_text_is_cut_at_the_encoders_positions_and_counted(folder: Path, scorer: BertScorer) -> None:
    fits, long = "the cat sat on a mat . " * 2, "the cat sat on a mat . " * 3
    assert len(scorer.encode(fits).ids) == POSITIONS
    whole, cut = scorer.score([(fits, "a dog"), (long, "a dog")])
    assert (whole.is_cut, cut.is_cut) == (False, True)
    assert cut.match == pytest.approx(whole.match)
    assert mean_score([whole, cut]).cut == 1


def test_a_text_says_nothing_that_is_a_special_token(scorer: BertScorer) -> None:
    text = scorer.encode("the [SEP] cat")
    assert text.ids.count(WORDS.index("[SEP]")) == 1
    assert sum(text.special_tokens_mask) == 2


def save_roberta(folder: Path) -> Path:
    """A tiny RoBERTa without the part that no score needs, as published ones are."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=POSITIONS + 2, pad_token_id=1, **SIZES, **CONTEXTUAL
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_roberta_reads_as_many_tokens_as_it_has_positions_for(tmp_path: Path) -> None:
    scorer = BertScorer(str(save_roberta(tmp_path)))
    assert len(scorer.encode("x" * 100).ids) == POSITIONS
    long, same = scorer.score([("x" * 100, "y"), ("y", "y")])
    assert (long.is_cut, same.match) == (True, pytest.approx((1, 1, 1)))


def test_the_first_word_has_the_tokens_that_it_has_in_a_sentence(tmp_path: Path) -> None:
    scorer = BertScorer(str(save_roberta(tmp_path)))
    assert scorer.encode("at it").tokens == ["<s>", "Ġ", "a", "t", "Ġ", "i", "t", "</s>"]
    assert scorer.encode("").tokens == ["<s>", "</s>"]


# The layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("roberta-large", 17),
        ("FacebookAI/roberta-large", 17),
        ("models/bert-base-uncased/", 9),
        ("distilbert-base-uncased", 5),
        ("microsoft/deberta-xlarge-mnli", 40),
        ("my-encoder", None),
    ],
)
def test_known_encoders_have_the_layer_of_the_metrics_authors(name: str, layer: int | None) -> None:
    assert known_layer(name) == layer


def test_an_unknown_encoder_is_read_to_its_last_layer(scorer: BertScorer) -> None:
    assert (scorer.layer, scorer.layers, scorer.is_known) == (3, 3, False)


def test_a_known_encoder_is_read_to_its_layer_unless_another_is_asked_for(tmp_path: Path) -> None:
    known = save_bert(tmp_path / "distilbert-base-uncased", num_hidden_layers=6)
    scorer = BertScorer(str(known))
    assert (scorer.layer, scorer.layers, scorer.is_known) == (5, 6, True)
    assert scorer.score(PAIRS[:1])[0].match == pytest.approx(oracle(known, *PAIRS[0], 5), abs=1e-6)
    assert BertScorer(str(known), 2).layer == 2


# What is refused


def test_an_encoder_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        BertScorer(str(tmp_path))
    with pytest.raises(InvalidParameter, match=r"layers 0 to 3, not 4; choose one"):
        BertScorer(str(folder), 4)
    with pytest.raises(InvalidParameter, match=r"device .cuda:99. cannot be used"):
        BertScorer(str(folder), device="cuda:99")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFound, match="has no tokenizer"):
        BertScorer(str(copy))
    shutil.copy(folder / "tokenizer.json", copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="no weights"):
        BertScorer(str(copy))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "is_encoder_decoder": True}))
    with pytest.raises(InvalidParameter, match="not an encoder of text only; choose one"):
        BertScorer(str(copy))


def test_an_encoder_without_a_layer_that_scores_need_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(("pooler.", "encoder.layer.1."))}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointInvalid, match=r"lack encoder\.layer\.1\.") as caught:
        BertScorer(str(copy))
    assert "pooler" not in str(caught.value)


def test_texts_without_references_are_refused() -> None:
    with pytest.raises(InvalidParameter, match=r'BERTScore compares texts with references; give each line a "ref'):
        pairs_to_compare({"ours": [Generation("a", "p", "b"), Generation("a", "p")]})


# Means and baselines


def test_means_are_over_texts_and_rescaled_by_a_baseline(tmp_path: Path) -> None:
    file = tmp_path / "baseline.tsv"
    file.write_text("LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.5,0.6,0.8\n")
    scored = [ScoredMatch(Match(*values), False, False) for values in ((0.5, 0.8, 0.8), (1.0, 1.0, 0.9))]
    plain, rescaled = mean_score(scored), mean_score(scored, read_baseline(file, 1))
    assert (plain.precision, plain.recall, plain.f1) == pytest.approx((0.75, 0.9, 0.85))
    half = 1.959963984540054 * 0.1 / math.sqrt(2) / math.sqrt(2)
    assert plain.f1_interval == pytest.approx((0.85 - half, 0.85 + half))
    assert (rescaled.precision, rescaled.recall, rescaled.f1) == pytest.approx((0.5, 0.75, 0.25))
    assert mean_score(scored[:1]).f1_interval is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("LAYER,P,R,F\n1,0.5,0.5,0.5\n", "no usable baseline of layer 2"),
        ("LAYER,P,R,F\n2,1,0.5,0.5\n", "no usable baseline of layer 2"),
        ("P,R,F\n2,0.5,0.5,0.5\n", "first line"),
        ("LAYER,P,R,F\n2,0.5\n", "not a baseline"),
        ("", "not a baseline"),
        (None, "not a baseline.*No such file"),
    ],
)
def test_a_baseline_that_is_none_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "baseline.tsv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidParameter, match=says):
        read_baseline(file, 2)


# The command


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    lines = [
        {"system": "ours", "prompt": "When?", "text": "it was shut at nine", "reference": "it was shut at nine"},
        {"system": "ours", "prompt": "Who?", "text": "the cat ran", "reference": "a dog sat on the mat"},
        {"system": "theirs", "prompt": "When?", "text": "", "reference": "it was shut at nine"},
        {"system": "theirs", "prompt": "Who?", "text": "the dog sat . " * 9, "reference": "a dog sat on the mat"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_the_command_compares_prints_and_reports(answers: Path, folder: Path) -> None:
    command = ["lab", "text", str(answers), "--by", "system", "--bertscore", str(folder)]
    report = answers.parent / "report"
    result = CliRunner().invoke(app, [*command, "--json", "--out", str(report)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    references, ours, theirs = facts["rows"]
    other = oracle(folder, "the cat ran", "a dog sat on the mat", 3)
    assert ours["bertscore"]["f1"] == pytest.approx((1 + other.f1) / 2, abs=1e-6)
    assert (theirs["bertscore"]["empty"], theirs["bertscore"]["cut"], references["bertscore"]) == (1, 1, None)
    assert facts["bertscore"] == {"encoder": str(folder), "layer": 3, "idf": False, "baseline": None}
    assert "4/4" in result.stderr, "a progress bar: pairs"
    assert "1 texts are longer than the encoder's positions" in result.stderr
    page = (report / "text.md").read_text()
    assert "layer 3 of 3, all tokens weighing the same, not rescaled." in page
    assert "1 texts have no token" in page
    assert "BERTScore F1" in (report / "text.svg").read_text()


def test_the_command_weighs_and_rescales_if_asked(answers: Path, folder: Path) -> None:
    baseline = answers.parent / "baseline.tsv"
    baseline.write_text("LAYER,P,R,F\n1,0.5,0.5,0.5\n")
    options = ["--bertscore-layer", "1", "--bertscore-idf", "--bertscore-baseline", str(baseline), "--json"]
    command = ["lab", "text", str(answers), "--by", "system", "--bertscore", str(folder), *options]
    facts = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    # Of the two references none has "cat" or "ran".
    words = "a dog sat on the mat"
    idf = {"cat": math.log(3), "ran": math.log(3), **dict.fromkeys(words.split(), math.log(3 / 2))}
    f1 = oracle(folder, "the cat ran", words, 1, idf).f1
    assert facts["rows"][1]["bertscore"]["f1"] == pytest.approx((1 + (f1 - 0.5) / 0.5) / 2, abs=1e-6)
    assert facts["bertscore"] == {"encoder": str(folder), "layer": 1, "idf": True, "baseline": str(baseline)}


def test_a_missing_encoder_is_refused_before_anything_is_measured(answers: Path) -> None:
    result = CliRunner().invoke(app, ["lab", "text", str(answers), "--bertscore", str(answers.parent)])
    assert isinstance(result.exception, ModelNotFound)
    assert "give the folder of a model, or its name on the hub" in str(result.exception)
