"""Likelihood of texts under a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssd2.errors import CheckpointInvalid
from ssd2.lab.perplexity import Likelihood
from ssd2.lab.tokenizer_file import load_tokenizer
from ssd2.models.devices import check_device
from ssd2.models.pretrained import read_config, read_network

_NOT_SCORED = -100
"""Target that cross_entropy ignores."""


@dataclass(frozen=True)
class Continuation:
    """Token ids of prompt and text together.

    Attributes:
        ids: begin with the token that begins a text.
        start: index of the first that belongs to the text.
        is_cut: True if the text's end is missing.
    """

    ids: list[int]
    start: int
    is_cut: bool


class CausalScorer:
    """A causal language model of the transformers library that scores texts."""

    def __init__(self, source: str, device: str = "cpu") -> None:
        """Read the model.

        Args:
            source: a name on the hub or a local folder.
            device: of torch.

        Raises:
            InvalidParameter: if the device cannot be used.
            ModelNotFound: if config, tokenizer or weights are missing, or transformers is not installed.
            CheckpointInvalid: if they are damaged, or there is no token that begins a text.
        """
        check_device(device)
        config = read_config(source)
        bos, positions = config.bos_token_id, getattr(config, "max_position_embeddings", None)
        bos = config.eos_token_id if bos is None else bos
        if not isinstance(bos, int):
            raise CheckpointInvalid(f"the config.json of {source} has no bos_token_id or eos_token_id to begin a text")
        self.tokenizer = load_tokenizer(source, config.vocab_size)
        self._bos, self._positions = bos, positions if isinstance(positions, int) else None
        self._device = torch.device(device)
        self._network: Any = read_network(source, "AutoModelForCausalLM").to(self._device).eval()

    def score(
        self,
        texts: Sequence[tuple[str, str]],
        *,
        batch_size: int = 8,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> list[Likelihood]:
        """Return the likelihoods of texts given their prompts.

        Args:
            texts: (prompt, text) pairs; the text directly follows the prompt.
            batch_size: texts read at once; no likelihood depends on it.
            on_progress: called with the number of texts scored since the last call.
        """
        continuations = [self.encode(prompt, text) for prompt, text in texts]
        # Sorted by length for little padding, the longest first: a batch that does not fit in memory fails at once.
        order = sorted(range(len(texts)), key=lambda index: -len(continuations[index].ids))
        scored: dict[int, Likelihood] = {}
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            scored.update(zip(chosen, self._score_batch([continuations[i] for i in chosen]), strict=True))
            on_progress(len(chosen))
        return [scored[index] for index in range(len(texts))]

    def encode(self, prompt: str, text: str) -> Continuation:
        """Tokenise prompt and text as one text behind the token that begins a text.

        A token across the seam belongs to the text. If the model has too few positions, the prompt loses its
        beginning, then the text its end.
        """
        encoding = self.tokenizer.encode(prompt + text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        start = next((i for i, end in enumerate(ends) if end > len(prompt)), len(ends))
        before, own = encoding.ids[:start], encoding.ids[start:]
        if self._positions is None:
            return Continuation([self._bos, *before, *own], 1 + len(before), is_cut=False)
        room = self._positions - 1
        before = before[max(0, len(before) + len(own) - room) :]
        return Continuation([self._bos, *before, *own[:room]], 1 + len(before), is_cut=len(own) > room)

    @torch.inference_mode()
    def _score_batch(self, continuations: Sequence[Continuation]) -> list[Likelihood]:
        length = max(len(one.ids) for one in continuations)
        shape = (len(continuations), length)
        # A causal model sees nothing behind a token, so padding on the right needs no mask.
        input_ids, targets = torch.zeros(shape, dtype=torch.int64), torch.full(shape, _NOT_SCORED)
        for row, one in enumerate(continuations):
            own = torch.tensor(one.ids)
            input_ids[row, : len(own)] = own
            targets[row, one.start : len(own)] = own[one.start :]
        nll = self._nll(input_ids, targets)
        return [
            Likelihood(value, len(one.ids) - one.start, one.is_cut)
            for value, one in zip(nll, continuations, strict=True)
        ]

    def _nll(self, input_ids: Tensor, targets: Tensor) -> list[float]:
        """Return each row's sum over its scored positions; both arguments are [B, L], padded on the right."""
        logits = self._network(input_ids=input_ids.to(self._device), use_cache=False).logits  # [B, L, V]
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            targets[:, 1:].to(self._device),
            ignore_index=_NOT_SCORED,
            reduction="none",
        )
        return [float(value) for value in losses.double().sum(-1).cpu()]
