"""Modular control: eq. 3.16 against finite differences, and classifiers that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_TOKENIZER
from transformers import AutoModelForSequenceClassification

from ssd2.errors import InvalidParameter, ModelNotFound, TokenizerMismatch
from ssd2.models.control import Control
from ssd2.models.tokenizer import Tokenizer

CONTEXT = torch.tensor([[7, 8, 9]])
L, V = 3, 1782


@pytest.fixture(scope="module")
def classifier(classifier_folder: Path) -> Any:
    network: Any = AutoModelForSequenceClassification.from_pretrained(classifier_folder)
    return network.double().eval().requires_grad_(False)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(DEMO_TOKENIZER)


def random_logits(rows: int = 1) -> torch.Tensor:
    return 4 * torch.randn(rows, L, V, generator=torch.Generator().manual_seed(0))


def log_likelihood(classifier: Any, logits: torch.Tensor, label: int) -> float:
    """log f_φ(y | logits, w^{<c}), its input embeddings made here."""
    table = classifier.roberta.embeddings.word_embeddings.weight
    mixed = torch.softmax(logits.double(), -1) @ table
    context = table[torch.tensor([[classifier.config.bos_token_id, *CONTEXT[0].tolist()]])]
    output = classifier(inputs_embeds=torch.cat([context, mixed], 1)).logits
    return float(torch.log_softmax(output, -1)[0, label])


def test_logits_drift_by_the_gradient_of_the_classifiers_log_likelihood(classifier: Any) -> None:
    logits, label = random_logits(), 1
    drift = (Control(classifier.float(), label, 1000.0).steer(logits, CONTEXT) - logits) / 1000
    classifier.double()
    largest = drift.abs().flatten().topk(5).indices
    assert float(drift.abs().max()) > 1e-3
    for index in largest.tolist():
        moved = []
        for sign in (1, -1):
            nudged = logits.double().clone()
            nudged.view(-1)[index] += sign * 1e-4
            moved.append(log_likelihood(classifier, nudged, label))
        assert float(drift.flatten()[index]) == pytest.approx((moved[0] - moved[1]) / 2e-4, rel=2e-3)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_steered_logits_are_more_of_the_class(classifier: Any, label: int) -> None:
    logits = random_logits()
    steered = Control(classifier.float(), label, 20.0).steer(logits, CONTEXT)
    classifier.double()
    assert log_likelihood(classifier, steered, label) > log_likelihood(classifier, logits, label)


def test_rows_of_a_batch_do_not_touch_one_another(classifier: Any) -> None:
    control = Control(classifier.float(), 0, 100.0)
    both = random_logits(2)
    together = control.steer(both, CONTEXT.repeat(2, 1))
    alone = torch.cat([control.steer(both[row : row + 1], CONTEXT) for row in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_strength_of_nothing_changes_nothing(classifier: Any) -> None:
    logits = random_logits()
    assert torch.equal(Control(classifier, 0, 0.0).steer(logits, CONTEXT), logits)


def test_logits_of_a_decode_under_inference_mode_are_steered_as_well(classifier: Any) -> None:
    control = Control(classifier.float(), 0, 100.0)
    expected = control.steer(random_logits(), CONTEXT)
    with torch.inference_mode():
        assert torch.equal(control.steer(random_logits(), CONTEXT.clone()), expected)


def test_a_context_longer_than_the_classifier_loses_its_oldest_tokens(classifier: Any) -> None:
    control = Control(classifier.float(), 0, 100.0)
    long = torch.randint(4, V, (1, 200), generator=torch.Generator().manual_seed(1))
    changed = long.clone()
    changed[0, 0] = 5
    assert torch.equal(control.steer(random_logits(), long), control.steer(random_logits(), changed))


def test_a_class_goes_by_name_or_number(classifier_folder: Path, tokenizer: Tokenizer) -> None:
    by_name, by_number = (Control.load(classifier_folder, label, 100.0, tokenizer) for label in ("Positive", "2"))
    logits = random_logits()
    assert torch.equal(by_name.steer(logits, CONTEXT), by_number.steer(logits, CONTEXT))


@pytest.mark.parametrize(
    ("label", "strength", "says"),
    [("angry", 1.0, "negative, neutral, positive"), ("3", 1.0, "0 to 2"), ("positive", -1.0, "at least 0")],
)
def test_a_class_that_is_not_there_is_refused(
    classifier_folder: Path, tokenizer: Tokenizer, label: str, strength: float, says: str
) -> None:
    with pytest.raises(InvalidParameter, match=says):
        Control.load(classifier_folder, label, strength, tokenizer)


def test_a_classifier_of_another_vocabulary_is_refused(
    classifier_folder: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for file in classifier_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads(DEMO_TOKENIZER.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerMismatch, match="does not have the models' vocabulary"):
        Control.load(tmp_path, "positive", 1.0, tokenizer)


def test_a_folder_that_is_not_there_is_looked_for_nowhere_else(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        pytest.fail("it asked the network")

    monkeypatch.setattr("socket.getaddrinfo", connect)
    monkeypatch.setattr("socket.socket.connect", connect)
    with pytest.raises(ModelNotFound, match="models/mood does not exist"):
        Control.load(Path("models/mood"), "positive", 1.0, tokenizer)
