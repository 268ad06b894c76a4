"""BERTScore of pairs of texts under an encoder: greedy matching of contextual token embeddings."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Encoding
from torch import Tensor

from ssd2.errors import InvalidParameter
from ssd2.lab.bert_score import Match, ScoredMatch, known_layer
from ssd2.lab.tokenizer_file import load_tokenizer
from ssd2.models.devices import check_device
from ssd2.models.pretrained import read_config, read_network

_UNUSED = ("pooler.",)
"""Part that makes one vector of a text; several published encoders lack it."""

_NO_END = 2**31 - 1
"""Tokens of an encoder whose config sets no end."""


# See docs/decisions/057-bertscore-and-blind-votes.md.
class BertScorer:
    """An encoder of the transformers library that compares texts.

    Attributes:
        layer: whose output the embeddings are; 0 is the input of the first.
        layers: that the encoder has.
        is_known: True if the layer is that of the authors' program for this model.
    """

    def __init__(self, source: str, layer: int | None = None, device: str = "cpu") -> None:
        """Read the encoder.

        Args:
            source: a name on the hub or a local folder; of a folder nothing is looked for elsewhere.
            layer: whose output is taken; None is the authors' for models they tried, else the last.
            device: of torch.

        Raises:
            InvalidParameter: if device or layer cannot be used, or the model is no encoder.
            ModelNotFound: if config, tokenizer or weights are missing, or transformers is not installed.
            CheckpointInvalid: if they are damaged.
        """
        check_device(device)
        config = read_config(source)
        layers = getattr(config, "num_hidden_layers", None)
        if getattr(config, "is_encoder_decoder", False) or not isinstance(layers, int):
            raise InvalidParameter(
                f"{source} is not an encoder of text only; choose one, such as roberta-large", parameter="encoder"
            )
        self.layers = layers
        self.layer, self.is_known = self._chosen_layer(source, layer)
        self.tokenizer = load_tokenizer(source, config.vocab_size)
        self._needs_space = _is_byte_level(self.tokenizer)
        self._device = torch.device(device)
        self._network: Any = read_network(source, "AutoModel", unused=_UNUSED).to(self._device).eval()
        # Its own settings may pad texts, or cut them earlier than the positions end.
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(_positions(self._network, config))

    def _chosen_layer(self, source: str, layer: int | None) -> tuple[int, bool]:
        known = known_layer(source)
        if layer is None and known is not None and known <= self.layers:
            return known, True
        chosen = self.layers if layer is None else layer
        if not 0 <= chosen <= self.layers:
            raise InvalidParameter(
                f"{source} has the layers 0 to {self.layers}, not {chosen}; choose one of them", parameter="layer"
            )
        return chosen, chosen == known

    def encode(self, text: str) -> Encoding:
        """Tokenise a text, with the special tokens of the encoder around it.

        RoBERTa's tokens of a word differ at the start of a text; as in the authors' program the first word has
        those that it has elsewhere.
        """
        text = text.strip()
        return self.tokenizer.encode(f" {text}" if text and self._needs_space else text)

    def idf(self, references: Iterable[str]) -> dict[int, float]:
        """Return the inverse document frequency of each token of the references.

            idf(w) = log (M + 1) / (M_w + 1)

        M_w of M references have w; a token of no reference weighs log(M + 1). Source: arXiv 1904.09675, §3,
        with the smoothing of the authors' program.
        """
        texts = [set(self.encode(reference).ids) for reference in references]
        found = Counter(token for tokens in texts for token in tokens)
        weights = {token: math.log((len(texts) + 1) / (count + 1)) for token, count in found.items()}
        return {token: weights.get(token, math.log(len(texts) + 1)) for token in self.tokenizer.get_vocab().values()}

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        idf: Mapping[int, float] | None = None,
        batch_size: int = 8,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> list[ScoredMatch]:
        """Return the scores of texts against their references.

        Args:
            pairs: (text, reference).
            idf: weight of each token; None weighs all the same.
            batch_size: pairs read at once; no score depends on it.
            on_progress: called with the number of pairs scored since the last call.
        """
        encoded = [(self.encode(text), self.encode(reference)) for text, reference in pairs]
        # Sorted by length for little padding, the longest first: a batch that does not fit in memory fails at once.
        order = sorted(range(len(pairs)), key=lambda index: -max(len(one.ids) for one in encoded[index]))
        scored: dict[int, ScoredMatch] = {}
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            scored.update(zip(chosen, self._score_batch([encoded[i] for i in chosen], idf), strict=True))
            on_progress(len(chosen))
        return [scored[index] for index in range(len(pairs))]

    def _score_batch(
        self, pairs: Sequence[tuple[Encoding, Encoding]], idf: Mapping[int, float] | None
    ) -> list[ScoredMatch]:
        embedded = self._embed([one for pair in pairs for one in pair])
        results = []
        for (text, reference), vectors, others in zip(pairs, embedded[::2], embedded[1::2], strict=True):
            weights, other_weights = _weights(text, idf), _weights(reference, idf)
            is_empty = not (weights.any() and other_weights.any())
            match = Match(0.0, 0.0, 0.0) if is_empty else greedy_match(vectors, others, weights, other_weights)
            results.append(ScoredMatch(match, bool(text.overflowing or reference.overflowing), is_empty))
        return results

    @torch.inference_mode()
    def _embed(self, texts: Sequence[Encoding]) -> list[Tensor]:
        """Return the layer's output for each text, [L, D] float64 on the CPU."""
        length = max(1, *(len(one.ids) for one in texts))
        ids, is_token = (torch.zeros((len(texts), length), dtype=torch.int64) for _ in range(2))
        for row, one in enumerate(texts):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            is_token[row, : len(one.ids)] = 1
        outputs = self._network(
            input_ids=ids.to(self._device), attention_mask=is_token.to(self._device), output_hidden_states=True
        )
        hidden = outputs.hidden_states[self.layer].double().cpu()  # [B, L, D]
        return [hidden[row, : len(one.ids)] for row, one in enumerate(texts)]


def greedy_match(vectors: Tensor, others: Tensor, weights: Tensor, other_weights: Tensor) -> Match:
    """Match each token with the most similar one of the other text, and take the weighted means.

        P = Σ_j w_j max_i cos(x_i, y_j) / Σ_j w_j     over the tokens y_j of the text
        R = Σ_i w_i max_j cos(x_i, y_j) / Σ_i w_i     over the tokens x_i of its reference
        F1 = 2 P R / (P + R)

    Source: arXiv 1904.09675, §3.

    Args:
        vectors: [L, D], of the text's tokens.
        others: [L', D], of its reference's.
        weights: [L], of the text's tokens; their sum is above 0.
        other_weights: [L'], of its reference's.
    """
    text, reference = (torch.nn.functional.normalize(one, dim=-1) for one in (vectors, others))
    similarity = text @ reference.T  # [L, L']
    precision = float((similarity.amax(1) * weights).sum() / weights.sum())
    recall = float((similarity.amax(0) * other_weights).sum() / other_weights.sum())
    both = precision + recall
    return Match(precision, recall, 2 * precision * recall / both if both else 0.0)


def _weights(text: Encoding, idf: Mapping[int, float] | None) -> Tensor:
    """Return the weight of each token, [L] float64; special tokens weigh nothing.

    A text all of whose tokens are in every reference has no idf to tell them apart; they weigh the same.
    """
    is_ordinary = 1.0 - torch.tensor(text.special_tokens_mask, dtype=torch.float64)
    if idf is None:
        return is_ordinary
    weighed = is_ordinary * torch.tensor([idf[token] for token in text.ids], dtype=torch.float64)
    return weighed if weighed.any() else is_ordinary


def _is_byte_level(tokenizer: Any) -> bool:
    """Return True if a space before a word is part of its tokens and none is put before the first by itself."""
    before = json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"])
    return '"type": "ByteLevel"' in before and '"add_prefix_space": true' not in before


def _positions(network: Any, config: Any) -> int:
    """Return how many tokens the encoder reads."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return _NO_END
    # RoBERTa's positions begin behind the one that stands for padding.
    tables = (part for name, part in network.named_modules() if name.endswith("position_embeddings"))
    paddings = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    return positions - max((padding + 1 for padding in paddings), default=0)
