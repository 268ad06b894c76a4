"""The model of an upstream: found out by asking it, before an agent is told of anything."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from core_server.catalogue.engine_messages import Upstream
from core_server.catalogue.served_model import ServedModel
from core_server.engine.upstream.apis import APIS, Api, Question
from core_server.engine.upstream.connection import UpstreamConnection
from core_server.engine.upstream.faults import LacksIds, UpstreamFault, lied
from core_server.engine.upstream.replies import Largest, cut
from ssd2.errors import InvalidParameter, ModelNotFound, SlingshotError, TokenizerMismatch
from ssd2.logits.format import ANY_FORMAT, AllowedFormats, LogitsFormat
from ssd2.models.checkpoint import load_config_and_tokenizer
from ssd2.models.configs import AutoregressiveConfig, ModelConfig, with_context

TRIED = (1024, 256, 64, 20, 5)
"""Numbers of log-probabilities to ask for, until the upstream gives so many; vLLM gives 20 unless told more."""

_NO_SUCH_PATH = (404, 405)
_TOO_MANY = (400, 422)


@dataclass(frozen=True)
class UpstreamModel:
    """A model that an upstream computes.

    Attributes:
        served: as agents are told of it.
        api: that gives its log-probabilities.
        name: at the upstream.
        connection: to the upstream.
    """

    served: ServedModel
    api: Api
    name: str
    connection: UpstreamConnection

    async def largest(self, token_ids: Sequence[int], k: int, vocab_size: int, scope: str) -> Largest:
        """Ask for the k largest log-probabilities of the next token.

        Args:
            token_ids: all that stands before it.
            k: how many.
            vocab_size: V of the agent's model; of a smaller one, ids behind it are left out.
            scope: see `Question`.

        Raises:
            UpstreamFault: if they do not come, or cannot be true.
        """
        spare = self.vocab_size - vocab_size  # as many may be left out, as far as the upstream gives more
        asked = min(k + spare, self.served.card.logits_formats.formats[0].k)
        found = await _ask(self.connection, self.api, Question(self.name, token_ids, asked, scope), self.vocab_size)
        return cut(found, k, vocab_size) if spare else found

    async def probe(self) -> None:
        """Ask for one position, as before the first agent came.

        Raises:
            UpstreamFault: if it fails.
        """
        await _ask(self.connection, self.api, _question_of(self.name, self.served.config, 1), self.vocab_size)

    @property
    def vocab_size(self) -> int:
        """V of the upstream's model."""
        return self.served.config.vocab_size


async def find_model(
    upstream: Upstream,
    connection: UpstreamConnection,
    folder: Path,
    allowed: AllowedFormats,
    max_context: int | None = None,
) -> UpstreamModel:
    """Look a model up at its upstream, and ask for one position.

    Args:
        upstream: where it is, and its name there.
        connection: to it.
        folder: with the model's config.json and tokenizer.json.
        allowed: formats that the provider offers; `ANY_FORMAT` to offer as many log-probabilities as the upstream
            gives.
        max_context: tokens of prompt and answer together at most, where the upstream takes more.

    Raises:
        ModelNotFound: if the folder or the upstream does not have the model.
        TokenizerMismatch: if the folder is that of another model.
        InvalidParameter: if the upstream cannot be used; says how.
    """
    read, tokenizer = load_config_and_tokenizer(folder)
    if read.family != AutoregressiveConfig.family:
        raise InvalidParameter(
            f"the folder {folder} is of a model of the family {read.family}; an upstream computes causal language "
            "models only",
            parameter="tokenizer",
        )
    config = cast(AutoregressiveConfig, read)
    try:
        config = _as_listed(config, await connection.get("/v1/models"), upstream, folder)
        question = _question_of(upstream.model, config, 0)
        api, k = await _first_that_answers(connection, question, config.vocab_size, _tried(allowed))
    except UpstreamFault as fault:
        raise _unusable(upstream, fault) from fault
    # Nothing is known of the weights: the model is who it says it is.
    sha256 = hashlib.sha256(f"{upstream.url}\n{upstream.model}\n{tokenizer.sha256}".encode()).hexdigest()
    served = ServedModel.of(
        upstream.model,
        with_context(config, max_context),
        sha256=sha256,
        tokenizer=tokenizer,
        parameters=0,
        logits_formats=AllowedFormats((LogitsFormat("top-k", k),)),
    )
    return UpstreamModel(served, api, upstream.model, connection)


def _question_of(model: str, config: ModelConfig, k: int) -> Question:
    """Return a question that is no agent's."""
    return Question(model, config.stop_ids[:1], k, "self-test")


def _tried(allowed: AllowedFormats) -> tuple[int, ...]:
    return TRIED if allowed == ANY_FORMAT else (allowed.formats[0].k,)


async def _ask(connection: UpstreamConnection, api: Api, question: Question, vocab_size: int) -> Largest:
    entries = min(question.k, vocab_size)
    reply = await connection.post(api.path, api.body(replace(question, k=entries)), entries)
    return api.largest(reply, entries, vocab_size)


async def _first_that_answers(
    connection: UpstreamConnection, question: Question, vocab_size: int, tried: Sequence[int]
) -> tuple[Api, int]:
    """Find the interface that gives token ids, and the most log-probabilities that it gives."""
    reason: UpstreamFault = lied("has none of the interfaces that give token ids with log-probabilities")
    for api in APIS:
        for k in tried:
            try:
                await _ask(connection, api, replace(question, k=k), vocab_size)
            except LacksIds as fault:
                reason = fault
                break
            except UpstreamFault as fault:
                if fault.status in _NO_SUCH_PATH:
                    break
                if fault.status not in _TOO_MANY:
                    raise
                reason = fault
            else:
                return api, k
    raise reason


def _as_listed(config: AutoregressiveConfig, listed: Any, upstream: Upstream, folder: Path) -> AutoregressiveConfig:
    """Return the config with the positions that the upstream has; vLLM, SGLang and llama.cpp's server list them."""
    try:
        models = {str(name): entry for entry in listed["data"] for name in (entry["id"], *entry.get("aliases", ()))}
    except (KeyError, TypeError, AttributeError) as error:
        raise lied("sent no list of its models") from error
    if (entry := models.get(upstream.model)) is None:
        names = ", ".join(name[:80] for name in list(models)[:8]) or "none"
        raise ModelNotFound(
            f"the upstream {upstream.url} has no model {upstream.model!r}; it has: {names}", parameter="upstream_model"
        )
    meta = entry.get("meta") or {}
    vocab_size, positions = meta.get("n_vocab"), entry.get("max_model_len") or meta.get("n_ctx")
    if isinstance(vocab_size, int) and vocab_size != config.vocab_size:
        raise TokenizerMismatch(
            f"the upstream's model has a vocabulary of {vocab_size}, and the one described in {folder} of "
            f"{config.vocab_size}; use the folder of the upstream's model",
            parameter="tokenizer",
        )
    if isinstance(positions, int) and 1 < positions < config.max_positions:
        return replace(config, max_positions=positions)
    return config


def _unusable(upstream: Upstream, fault: UpstreamFault) -> SlingshotError:
    """Say what the provider can do about a fault of the first requests."""
    what = f"the upstream {upstream.url} {fault.reason}"
    if fault.status in (401, 403):
        return InvalidParameter(f"{what}; it requires an API key, or does not take this one", parameter="upstream_key")
    if fault.status in _TOO_MANY:
        return InvalidParameter(
            f"{what} when asked for log-probabilities; offer fewer, or let the upstream give more", parameter="logits"
        )
    if isinstance(fault, LacksIds):
        return InvalidParameter(f"{what}; use vLLM, SGLang or llama.cpp's server", parameter="upstream")
    return InvalidParameter(f"{what}; check its address and its log, or start it first", parameter="upstream")
