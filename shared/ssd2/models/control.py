"""Modular control: a text classifier off the shelf steers what is written (the thesis, §3.2.2).

It works on the ensembled logits, on the device. The classifier, the attribute and the gradient stay
there; what crosses is the projection of the steered mix, as it is of any mix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd2.errors import InvalidParameter, ModelNotFound, TokenizerMismatch
from ssd2.models.pretrained import read_network, read_tokenizer_of
from ssd2.models.tokenizer import Tokenizer

RESERVED_POSITIONS = 2
"""RoBERTa's position table has two rows that no token is at."""


class Control:
    """Drifts logits towards one class of a classifier."""

    def __init__(self, classifier: Any, label: int, strength: float) -> None:
        """Set up control.

        Args:
            classifier: f_φ, any of transformers' models for sequence classification.
            label: y, index of the class to write towards.
            strength: λ of eq. 3.16; the thesis uses 100 to 2000. 0 changes nothing.

        Raises:
            InvalidParameter: if the classifier has no such class, or the strength is below 0.
        """
        if not 0 <= label < (classes := classifier.config.num_labels):
            raise InvalidParameter(
                f"the classifier has no class {label}; its classes are 0 to {classes - 1}",
                parameter="control_label",
                limit=classes - 1,
            )
        if not 0 <= strength < float("inf"):
            raise InvalidParameter(
                f"control strength is {strength}; it must be finite and at least 0", parameter="control_strength"
            )
        self._classifier, self._label, self._strength = classifier.eval().requires_grad_(False), label, strength

    @classmethod
    def load(cls, folder: Path, label: str, strength: float, tokenizer: Tokenizer) -> Control:
        """Load a classifier that shares a model's tokenizer.

        Args:
            folder: of the classifier, as transformers stores it.
            label: name or number of the class to write towards.
            strength: λ of eq. 3.16.
            tokenizer: of the models whose logits are steered.

        Raises:
            ModelNotFound: if there is no classifier.
            CheckpointInvalid: if its files are damaged.
            TokenizerMismatch: if its vocabulary is another one.
            InvalidParameter: if it has no such class, or the strength is below 0.
        """
        if not folder.is_dir():  # the library would look for it on the hub
            raise ModelNotFound(f"{folder} does not exist; choose the folder of a text classifier", parameter="control")
        classifier = read_network(str(folder), "AutoModelForSequenceClassification")
        if not read_tokenizer_of(folder, classifier.config.vocab_size).shares_vocabulary(tokenizer):
            raise TokenizerMismatch(
                f"the classifier in {folder} does not have the models' vocabulary, so it cannot read their text; "
                "use one with their tokenizer"
            )
        names = {name.lower(): index for index, name in classifier.config.id2label.items()}
        index = int(label) if label.isdecimal() else names.get(label.lower())
        if index is None:
            raise InvalidParameter(f"the classifier has no class {label!r}; it has {', '.join(names)}")
        return cls(classifier, index, strength)

    def steer(self, logits: Tensor, context_ids: Tensor) -> Tensor:
        """Eq. 3.16: logits + λ ∇_logits log f_φ(y | logits, w^{<c}).

        The classifier reads the context's embeddings and, for the block, the sums of its embeddings
        weighted by softmax(logits).

        Args:
            logits: ensembled logits of the block, [B, L, V].
            context_ids: w^{<c}, int64, [B, C]; the oldest are left out where they do not fit.

        Returns:
            [B, L, V], float32.
        """
        if not self._strength:
            return logits
        with torch.inference_mode(False), torch.enable_grad():
            block = logits.detach().float().clone().requires_grad_()
            log_likelihood = torch.log_softmax(self._read(block, context_ids.clone()), dim=-1)[:, self._label]
            (gradient,) = torch.autograd.grad(log_likelihood.sum(), block)
        return logits + self._strength * gradient

    def _read(self, block: Tensor, context_ids: Tensor) -> Tensor:
        """The classifier's logits for a context and a simplex, [B, classes]."""
        config, table = self._classifier.config, self._classifier.get_input_embeddings().weight
        vocab_size = min(len(table), block.shape[-1])  # either may have rows beyond the tokenizer's
        if config.bos_token_id is not None:
            context_ids = torch.nn.functional.pad(context_ids, (1, 0), value=config.bos_token_id)
        room = max(0, config.max_position_embeddings - RESERVED_POSITIONS - block.shape[1])
        context = table[context_ids[:, max(0, context_ids.shape[1] - room) :]]
        mixed = torch.softmax(block, dim=-1)[..., :vocab_size] @ table[:vocab_size]
        read: Tensor = self._classifier(inputs_embeds=torch.cat([context, mixed], 1)).logits
        return read
