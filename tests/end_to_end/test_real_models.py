"""SmolLM2-135M-Instruct on both sides writes what transformers' own `generate` writes, token for token.

Both models compute in float32, and logits travel as float16 unless a test says otherwise. Where an answer first differs
and the two likeliest logits lie within `NEAR` of each other, rounding may choose: it counts apart. With -s the figures
are printed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.collaboration import UserLogits, mix_terms
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.sampler import project
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.logits.packed import as_received
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.chat import Message
from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, running_core
from .everyday import TWENTY, Asked
from .faults import Fault, answered, figures, ids, let_go, switchboard

pytestmark = pytest.mark.slow

ANSWER_TOKENS = 16
AT_ONCE = 8
NEAR = 0.02
"""Two logits this close may change places on the wire in float16, or with the order of a sum."""

GREEDY = DecodingParams(block_size=1, steps=1, max_tokens=ANSWER_TOKENS, projection="greedy")
DRAWN = DecodingParams(block_size=1, steps=1, max_tokens=12, projection="sampling", top_p=0.9)
CORE, USER = CollaborationParams(0.0), CollaborationParams(1.0, alpha=0.0)
TOGETHER = CollaborationParams(0.3, alpha=1.0)
TOP_64 = LogitsFormat("top-k", 64)
EVERY = range(len(TWENTY))


@dataclass(frozen=True)
class Written:
    """What `generate` writes behind a prompt.

    Attributes:
        prompt_ids: the prompt.
        token_ids: the answer, with the id that ends it if one does.
        logits: at each of them, [T, V].
    """

    prompt_ids: list[int]
    token_ids: list[int]
    logits: Tensor

    def gap(self, at: int) -> float:
        """How far the two largest logits of a place are apart."""
        first, second = self.logits[at].topk(2).values.tolist()
        return float(first - second)


@dataclass(frozen=True)
class References:
    """Answers of transformers to the twenty questions: by the core's prompt, and by the user model's with its note."""

    core: list[Written]
    user: list[Written]


@pytest.fixture(scope="module")
def smollm2(smollm2_folder: Path) -> Iterator[CoreProcess]:
    with running_core(f"tiny={smollm2_folder}", "--precision", "float32", "--ops-port", "0") as running:
        yield running


@pytest.fixture(scope="module")
def user(smollm2_folder: Path) -> UserModel:
    return UserModel.load(smollm2_folder, with_weights=True)


@pytest.fixture(scope="module")
def references(smollm2_folder: Path, user: UserModel) -> References:
    """Made by transformers alone, but for the place of the notes in a prompt, which is this project's."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    network = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    said = [[_plain(one) for one in asked.conversation.for_core(asked.text)] for asked in TWENTY]
    core = [tokenizer.apply_chat_template(one, add_generation_prompt=True)["input_ids"] for one in said]
    with_notes = [user.prompt(asked.text, [_passage(asked)], asked.conversation) for asked in TWENTY]
    return References(_generated(network, core), _generated(network, with_notes))


def _plain(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _passage(asked: Asked) -> Passage:
    return Passage(asked.note, Path("note.md"), 1)


def _generated(network: Any, prompts: Sequence[list[int]]) -> list[Written]:
    """Greedy answers, all prompts in one batch, padded on the left."""
    longest, end = max(map(len, prompts)), network.config.eos_token_id
    padded = torch.tensor([[end] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    how = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    output = network.generate(padded, attention_mask=mask, max_new_tokens=ANSWER_TOKENS, **how)
    logits = torch.stack(output.logits, 1)  # [B, T, V]
    answers = [row[: row.index(end) + 1] if end in row else row for row in output.sequences[:, longest:].tolist()]
    return [Written(p, a, logits[row, : len(a)]) for row, (p, a) in enumerate(zip(prompts, answers, strict=True))]


@pytest.fixture(scope="module")
def counts() -> Iterator[dict[str, Counter[str]]]:
    """Figures of every comparison, printed at the end."""
    found: dict[str, Counter[str]] = {}
    yield found
    print()
    for name, counted in found.items():
        print(f"{name:44}", ", ".join(f"{what} {number}" for what, number in counted.items()))


def asking(
    number: int, collaboration: CollaborationParams = CORE, params: DecodingParams = GREEDY, **changes: Any
) -> Question:
    asked = TWENTY[number]
    return Question(
        asked.text,
        [_passage(asked)],
        collaboration,
        params,
        changes.pop("seeds", Seeds.reproducible(number)),
        logits_format=changes.pop("logits_format", FLOAT16),
        conversation=asked.conversation,
        core_conversation=asked.conversation,
        **changes,
    )


@asynccontextmanager
async def line_to(core: CoreProcess, user: UserModel) -> AsyncIterator[Agent]:
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        yield Agent(user, client)


async def at_once(agent: Agent, asked: Sequence[Question]) -> list[Answer]:
    """Ask, never more at a time than `AT_ONCE`."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Answer:
        async with room:
            return await agent.answer(question)

    return await asyncio.gather(*map(one, asked))


async def one_by_one(agent: Agent, asked: Sequence[Question]) -> list[Answer]:
    return [await agent.answer(question) for question in asked]


def compare(answers: Sequence[Answer], expected: Sequence[Written], end: int) -> Counter[str]:
    """Compare token for token, the end included; behind a first difference nothing can be compared.

    Raises:
        AssertionError: where the two likeliest logits were apart.
    """
    counted = Counter(answers=len(answers), tokens=0, same=0, near=0)
    for number, (answer, reference) in enumerate(zip(answers, expected, strict=True)):
        found = [*ids(answer), *([end] if answer.end == "eos" else [])]
        same = _common(found, reference.token_ids)
        is_same = found == reference.token_ids
        assert is_same or reference.gap(same) < NEAR, (TWENTY[number].text, same, found, reference.token_ids)
        counted.update(tokens=same + (not is_same), same=same, near=int(not is_same))
    return counted


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two answers have in common before they first differ."""
    return next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))


def test_prompts_are_those_of_transformers(references: References, user: UserModel) -> None:
    ours = [user.core_prompt(asked.text, asked.conversation) for asked in TWENTY]
    assert ours == [reference.prompt_ids for reference in references.core]
    ends = {reference.token_ids[-1] == user.config.eos_token_id for reference in references.core}
    assert ends == {True, False}, "some answers end by themselves, some are cut"


@pytest.mark.parametrize("speculation", [0, 4])
async def test_the_core_alone_writes_what_transformers_generates(
    smollm2: CoreProcess, user: UserModel, references: References, counts: dict[str, Counter[str]], speculation: int
) -> None:
    async with line_to(smollm2, user) as agent:
        answers = await one_by_one(agent, [asking(number, speculation=speculation) for number in EVERY])
    assert any(answer.guessed_timesteps for answer in answers) == bool(speculation)
    counted = compare(answers, references.core, user.config.eos_token_id)
    counts[f"λ 0, alone, speculation {speculation}"] = counted


@pytest.mark.parametrize("speculation", [0, 4])
async def test_eight_at_once_write_what_transformers_generates(
    smollm2: CoreProcess, user: UserModel, references: References, counts: dict[str, Counter[str]], speculation: int
) -> None:
    before = await _batches(smollm2)
    async with line_to(smollm2, user) as agent:
        answers = await at_once(agent, [asking(number, speculation=speculation) for number in EVERY])
    batches = (await _batches(smollm2)) - before
    print("batches", speculation, batches)
    counted = compare(answers, references.core, user.config.eos_token_id)
    counts[f"λ 0, {AT_ONCE} at once, speculation {speculation}"] = counted + Counter(batches_over_4=batches["8.0"])


async def _batches(core: CoreProcess) -> Counter[str]:
    """How many batches an idle core has computed, by the upper bounds of their sizes."""
    await let_go([core], within_s=30)
    name, seen = 'batch_size_bucket{engine="0",le="', figures(core)
    bounds = [key.removeprefix(name).rstrip('"}') for key in seen if key.startswith(name)]
    through = [seen[f'{name}{bound}"}}'] for bound in bounds]
    return Counter({bound: int(n - before) for bound, n, before in zip(bounds, through, [0, *through], strict=False)})


async def test_answers_resumed_in_the_middle_are_what_transformers_generates(
    smollm2: CoreProcess, user: UserModel, references: References, counts: dict[str, Counter[str]]
) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def broken(number: int) -> Answer:
        async with room, switchboard(smollm2.address) as board:
            middle = len(references.core[number].token_ids) // 2
            cut = Fault(lambda: board.cut(smollm2.address), middle, None)
            asked = asking(number, speculation=4 * (number % 2))
            answer = await answered(user, board.address, asked, cut)
            assert cut.happened
            return answer

    answers = await asyncio.gather(*map(broken, EVERY))
    assert all(answer.resumed for answer in answers)
    counted = compare(answers, references.core, user.config.eos_token_id)
    counts["λ 0, line broken in the middle"] = counted + Counter(resumed=sum(answer.resumed for answer in answers))


@pytest.mark.parametrize("ask", [one_by_one, at_once])
async def test_the_user_model_alone_writes_what_transformers_generates_with_the_note(
    user: UserModel, references: References, counts: dict[str, Counter[str]], ask: Any
) -> None:
    answers = await ask(Agent(user, None), [asking(number, USER, speculation=4) for number in EVERY])
    assert not any(answer.round_trips or answer.bytes_up for answer in answers)
    counted = compare(answers, references.user, user.config.eos_token_id)
    counts[f"λ 1 with the note, {'alone' if ask is one_by_one else '8 at once'}"] = counted


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_top_64_changes_hardly_a_token_and_none_that_is_proven(
    user: UserModel, references: References, counts: dict[str, Counter[str]], params: DecodingParams
) -> None:
    """Compare on the same prefix, at every token of both references, with several λ and α."""
    total = Counter[str](tokens=0, same=0, proven=0)
    for by_core, by_user in zip(references.core, references.user, strict=True):
        for written in (by_core, by_user):
            core = _forced(user, by_core, written)
            terms = UserLogits(_forced(user, by_user, written), core)  # one model on both sides: θ_user without notes
            for collaboration in (CORE, *(CollaborationParams(at, of) for at in (0.3, 0.5, 0.8) for of in (0.0, 1.0))):
                total += _compared_on_one_prefix(core, terms, collaboration, params)
    counts[f"top-k:64, {params.projection}, one prefix"] = total
    assert total["same"] >= 0.99 * total["tokens"]
    assert total["proven"] >= 0.5 * total["tokens"]


def _forced(user: UserModel, asked: Written, written: Written) -> Tensor:
    """Logits at each token of an answer behind some prompt, [T, V]."""
    if asked is written:
        return asked.logits
    return _logits_behind(user, asked.prompt_ids, written.token_ids)


@torch.inference_mode()
def _logits_behind(user: UserModel, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> Tensor:
    assert isinstance(user.model, AutoregressiveLM)
    output = user.model.network(torch.tensor([[*prompt_ids, *token_ids[:-1]]]), logits_to_keep=len(token_ids))
    logits: Tensor = output.logits[0]
    return logits


def _compared_on_one_prefix(
    core: Tensor, terms: UserLogits, collaboration: CollaborationParams, params: DecodingParams
) -> Counter[str]:
    """Project the mix of what arrives with top-k:64, and of full logits; each token is a row of its own."""
    rows = [None if one is None else one[:, None] for one in (core, terms.with_docs, terms.without_docs)]  # [T, 1, V]
    given, seeds = UserLogits(*rows[1:]), list(range(len(core)))
    received = as_received(rows[0], TOP_64)
    mixed = mix_terms(received.values, given, collaboration)
    found = project(mixed, params, seeds, 0, 1).token_ids
    full = project(mix_terms(rows[0], given, collaboration), params, seeds, 0, 1).token_ids
    is_proven = proven(received, mixed, collaboration.lambda_user, params, seeds, 0, 1)
    same = found == full
    assert bool(same[is_proven].all()), "a token that was called proven is another with full logits"
    return Counter(tokens=same.numel(), same=int(same.sum()), proven=int(is_proven.sum()))


async def test_guesses_and_formats_change_no_token_of_both_models_together(
    smollm2: CoreProcess, user: UserModel, references: References, counts: dict[str, Counter[str]]
) -> None:
    asked = [asking(number, TOGETHER) for number in (1, 8, 17, 18)]
    ahead = [replace(question, speculation=4) for question in asked]
    async with line_to(smollm2, user) as agent:
        plain = await at_once(agent, asked)
        guessed = await at_once(agent, ahead)
    assert [ids(answer) for answer in guessed] == [ids(answer) for answer in plain]
    assert any(answer.timesteps > answer.guessed_timesteps > 0 for answer in guessed), "some guesses were wrong"


async def test_top_64_over_the_line_is_the_mix_of_full_logits(
    smollm2: CoreProcess, user: UserModel, references: References, counts: dict[str, Counter[str]]
) -> None:
    total = Counter[str](tokens=0, same=0, proven=0)
    async with line_to(smollm2, user) as agent:
        for number in (0, 1, 5, 8, 17, 18):
            question = asking(number, TOGETHER, logits_format=TOP_64, speculation=4)
            total += _against_full_logits(user, references, number, *await _with_proofs(agent, question))
    counts["top-k:64, greedy, λ 0.3 α 1, over the line"] = total
    assert total["same"] >= 0.99 * total["tokens"]


async def _with_proofs(agent: Agent, question: Question) -> tuple[list[int], list[bool]]:
    """Ask, and note for each timestep whether it was called proven; its token is the mode of its mix."""
    tokens, proofs = list[int](), list[bool]()
    async with agent.begin(question) as answer:
        while answer.due:
            before = answer.exact_timesteps
            tokens.append(int((await answer.step()).mixed.argmax()))
            proofs.append(answer.exact_timesteps > before)
    return tokens, proofs


def _against_full_logits(
    user: UserModel, references: References, number: int, tokens: list[int], proofs: list[bool]
) -> Counter[str]:
    core = _logits_behind(user, references.core[number].prompt_ids, tokens)
    with_note = _logits_behind(user, references.user[number].prompt_ids, tokens)
    expected = mix_terms(core, UserLogits(with_note, core), TOGETHER).argmax(-1).tolist()
    same = [ours == theirs for ours, theirs in zip(tokens, expected, strict=True)]
    assert all(is_same for is_same, is_proven in zip(same, proofs, strict=True) if is_proven)
    return Counter(tokens=len(tokens), same=sum(same), proven=sum(proofs))


async def test_draws_with_a_seed_are_the_same_alone_at_once_and_on_guesses(
    smollm2: CoreProcess, user: UserModel, counts: dict[str, Counter[str]]
) -> None:
    warm = replace(DRAWN, temperature=0.8)
    plain = [asking(number, params=warm) for number in range(0, len(TWENTY), 3)]
    ahead = [replace(question, speculation=4) for question in plain]
    others = [replace(question, seeds=Seeds.reproducible(100)) for question in plain]
    async with line_to(smollm2, user) as agent:
        expected = [ids(answer) for answer in await one_by_one(agent, plain)]
        for name, ask, asked in (
            ("alone, speculation 4", one_by_one, ahead),
            ("at once, speculation 0", at_once, plain),
            ("at once, speculation 4", at_once, ahead),
        ):
            assert [ids(answer) for answer in await ask(agent, asked)] == expected, name
        elsewhere = [ids(answer) for answer in await at_once(agent, others)]
    assert elsewhere != expected, "another seed draws other tokens"
    counts["temperature 0.8 with seeds"] = Counter(answers=len(plain), tokens=sum(map(len, expected)), times=4)
