"""The two HTTP interfaces that give token ids with log-probabilities.

    /v1/completions   vLLM, with ids as "token_id:123" (return_tokens_as_token_ids); llama.cpp's server, with an "id"
                      beside each token
    /generate         SGLang, whose /v1/completions has the tokens' texts only

One token is asked for, and which one the upstream draws does not matter: log-probabilities are those of the model, not
of its sampling settings (vLLM's --logprobs-mode raw_logprobs and llama.cpp's post_sampling_probs false, both defaults).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core_server.engine.upstream.faults import UpstreamFault, lacks_ids, lied
from core_server.engine.upstream.replies import Largest, read_largest

_TOKEN_ID = re.compile(r"token_id:(\d{1,9})")


@dataclass(frozen=True)
class Question:
    """One position that is asked about.

    Attributes:
        model: its name at the upstream.
        token_ids: all that stands before the position.
        k: how many log-probabilities.
        scope: secret name of the answers that may share a prefix cache.
    """

    model: str
    token_ids: Sequence[int]
    k: int
    scope: str


@dataclass(frozen=True)
class Api:
    """One interface.

    Attributes:
        path: of its URL.
        body: makes the request of a question.
        read: finds the entries in a reply, given V.
    """

    path: str
    body: Callable[[Question], dict[str, Any]]
    read: Callable[[Any, int, int], Largest]

    def largest(self, reply: object, k: int, vocab_size: int) -> Largest:
        """Read a reply.

        Raises:
            LacksIds: if the upstream has texts in place of token ids.
            UpstreamFault: if the reply is of another form, or cannot be true.
        """
        try:
            return self.read(reply, k, vocab_size)
        except UpstreamFault:
            raise
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise lied("sent a reply without log-probabilities") from error


def _completions_body(question: Question) -> dict[str, Any]:
    return {
        "model": question.model,
        "prompt": list(question.token_ids),
        "max_tokens": 1,
        "logprobs": question.k,
        "temperature": 0,
        # vLLM takes defaults from the model's generation_config.json, and adds the drawn token to the largest.
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "return_tokens_as_token_ids": True,
        "cache_salt": question.scope,
    }


def _read_completions(reply: Any, k: int, vocab_size: int) -> Largest:
    logprobs = reply["choices"][0]["logprobs"]
    if logprobs.get("content"):  # llama.cpp
        entries = [(entry["id"], entry["logprob"]) for entry in logprobs["content"][0]["top_logprobs"]]
        return read_largest(entries, k, vocab_size, are_ordered=True)
    named = logprobs["top_logprobs"][0]
    ids = [_TOKEN_ID.fullmatch(name) for name in named]
    if not all(ids):
        raise lacks_ids()
    entries = [(int(found[1]), value) for found, value in zip(ids, named.values(), strict=True) if found]
    return read_largest(entries, k, vocab_size, are_ordered=False)  # the names of a JSON object have no order


def _generate_body(question: Question) -> dict[str, Any]:
    return {
        "input_ids": list(question.token_ids),
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "top_logprobs_num": question.k,
        "return_text_in_logprobs": False,
        "extra_key": question.scope,
    }


def _read_generate(reply: Any, k: int, vocab_size: int) -> Largest:
    entries = [(token_id, value) for value, token_id, *_ in reply["meta_info"]["output_top_logprobs"][0]]
    return read_largest(entries, k, vocab_size, are_ordered=True)


COMPLETIONS = Api("/v1/completions", _completions_body, _read_completions)
GENERATE = Api("/generate", _generate_body, _read_generate)
APIS = (COMPLETIONS, GENERATE)
"""In the order in which they are tried."""
