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

from ssd2.algorithm.collaboration import Mixer, UserLogits
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.sampler import project
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.logits.packed import as_received
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.chat import NOTES, Message
from user_agent.answering.answer import Answer
from user_agent.answering.conversation import Conversation, Turn
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
    """Output of `generate` for a prompt.

    Attributes:
        prompt_ids: the prompt.
        token_ids: the answer, with the id that ends it if one does.
        logits: at each of them, [T, V].
    """

    prompt_ids: list[int]
    token_ids: list[int]
    logits: Tensor

    def gap(self, at: int) -> float:
        """Gap between the two largest logits of a place."""
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
        print(f"{name:48}", ", ".join(f"{what} {number}" for what, number in counted.items()))


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


async def at_once(agent: Agent, asked: Sequence[Question], ask: Any = Agent.answer) -> list[Any]:
    """Ask, never more at a time than `AT_ONCE`."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Any:
        async with room:
            return await ask(agent, question)

    return await asyncio.gather(*map(one, asked))


async def one_by_one(agent: Agent, asked: Sequence[Question]) -> list[Answer]:
    return [await agent.answer(question) for question in asked]


# Nothing is compared behind a first difference: there the prefixes differ too.
def compare(answers: Sequence[Answer], expected: Sequence[Written], end: int) -> Counter[str]:
    """Compare token for token, the end included; a first difference has to be a near tie."""
    counted = Counter(answers=len(answers), tokens=0, same=0, near=0)
    for number, (answer, reference) in enumerate(zip(answers, expected, strict=True)):
        found = [*ids(answer), *([end] if answer.end == "eos" else [])]
        same = _common(found, reference.token_ids)
        is_same = found == reference.token_ids
        assert is_same or reference.gap(same) < NEAR, (TWENTY[number].text, same, found, reference.token_ids)
        counted.update(tokens=same + (not is_same), same=same, near=int(not is_same))
    return counted


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Count the tokens before two answers first differ."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


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
    batches = await _batches(smollm2) - before
    counted = compare(answers, references.core, user.config.eos_token_id)
    counts[f"λ 0, {AT_ONCE} at once, speculation {speculation}"] = counted
    counted.update(batches=batches.total(), of_5_to_8=batches["8.0"])
    assert batches["8.0"], "tokens of more than four answers were computed together"
    assert batches.total() < counted["tokens"] / 2


async def _batches(core: CoreProcess) -> Counter[str]:
    """Count the batches of an idle core, by the upper bounds of their sizes."""
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
            answer = await answered(user, board.address, asked, cut, within_s=180)
            assert cut.happened
            return answer

    answers = await asyncio.gather(*map(broken, EVERY))
    assert all(answer.resumed for answer in answers)
    counts["λ 0, line broken in the middle"] = compare(answers, references.core, user.config.eos_token_id)


@pytest.mark.parametrize(("ask", "numbers"), [(one_by_one, EVERY), (at_once, range(12, 20))], ids=["alone", "at-once"])
async def test_the_user_model_alone_writes_what_transformers_generates_with_the_note(
    user: UserModel, references: References, counts: dict[str, Counter[str]], ask: Any, numbers: range
) -> None:
    answers = await ask(Agent(user, None), [asking(number, USER, speculation=4) for number in numbers])
    assert not any(answer.round_trips or answer.bytes_up for answer in answers)
    counted = compare(answers, references.user[numbers.start :], user.config.eos_token_id)
    counts[f"λ 1 with the note, {'alone' if ask is one_by_one else '8 at once'}"] = counted


async def test_top_64_over_the_line_writes_what_full_logits_give_on_the_same_prefix(
    smollm2: CoreProcess, user: UserModel, references: References, counts: dict[str, Counter[str]]
) -> None:
    total = Counter[str](tokens=0, same=0, near=0, proven=0)
    asked = [asking(number, logits_format=TOP_64, speculation=4) for number in EVERY]
    async with line_to(smollm2, user) as agent:
        answers = await at_once(agent, asked, _with_proofs)
    for (tokens, proofs), reference in zip(answers, references.core, strict=True):
        logits = reference.logits
        if tokens != reference.token_ids:
            logits = _logits_behind(user, reference.prompt_ids, tokens)
        total += _against(torch.tensor(tokens), logits.argmax(-1), logits, torch.tensor(proofs))
    counts["λ 0, top-k:64, 8 at once"] = total
    assert total["same"] + total["near"] >= 0.99 * total["tokens"]


async def _with_proofs(agent: Agent, question: Question) -> tuple[list[int], list[bool]]:
    """Ask, and note for each timestep whether it is called proven; its token is the mode of its mix."""
    tokens, proofs = list[int](), list[bool]()
    async with agent.begin(question) as answer:
        while answer.due:
            before = answer.exact_timesteps
            tokens.append(int((await answer.step()).mixed.argmax()))
            proofs.append(answer.exact_timesteps > before)
    return tokens, proofs


def _against(found: Tensor, full: Tensor, mixed: Tensor, is_proven: Tensor) -> Counter[str]:
    """Compare tokens with those of full logits, [T], whose mix is [T, V]."""
    same, largest = found == full, mixed.topk(2).values
    is_near = ~same & (largest[:, 0] - largest[:, 1] < NEAR)
    assert bool(same[is_proven].all()), "a token that is called proven is another with full logits"
    sums = {"same": same, "near": is_near, "proven": is_proven}
    return Counter(tokens=len(found), **{name: int(which.sum()) for name, which in sums.items()})


@pytest.fixture(scope="module")
def forced(user: UserModel, references: References) -> tuple[Tensor, Tensor]:
    """Logits at each token of both references: the core's, and the user model's with the note, both [T, V]."""
    core, with_note = list[Tensor](), list[Tensor]()
    for by_core, by_user in zip(references.core, references.user, strict=True):
        core += [by_core.logits, _logits_behind(user, by_core.prompt_ids, by_user.token_ids)]
        with_note += [_logits_behind(user, by_user.prompt_ids, by_core.token_ids), by_user.logits]
    return torch.cat(core), torch.cat(with_note)


@torch.inference_mode()
def _logits_behind(user: UserModel, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> Tensor:
    assert isinstance(user.model, AutoregressiveLM)
    output = user.model.network(torch.tensor([[*prompt_ids, *token_ids[:-1]]]), logits_to_keep=len(token_ids))
    logits: Tensor = output.logits[0]
    return logits


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize(("lambda_user", "alpha"), [(0, 0), (0.3, 0), (0.3, 1), (0.5, 0), (0.5, 1), (0.8, 0), (0.8, 1)])
def test_top_64_changes_few_tokens_and_none_that_is_proven(
    forced: tuple[Tensor, Tensor],
    counts: dict[str, Counter[str]],
    lambda_user: float,
    alpha: float,
    params: DecodingParams,
) -> None:
    """One model is on both sides: the core's logits stand for the user model's without the note.

    A draw goes through the vocabulary in its order, so whatever moves a probability moves the draws behind it.
    """
    core, with_note = (logits[:, None] for logits in forced)  # [T, 1, V]: each token is a row of its own
    collaboration, seeds = CollaborationParams(lambda_user, alpha), list(range(len(core)))
    terms, received = UserLogits(with_note, core), as_received(core, TOP_64)
    full, mixed = (Mixer(collaboration).mix(one, terms, 0).logits for one in (core, received.values))
    expected, found = (project(one, params, seeds, 0, 1).token_ids[:, 0] for one in (full, mixed))
    is_proven = proven(received, mixed, 1 - lambda_user, params, seeds, 0, 1)[:, 0]
    counted = _against(found, expected, full[:, 0], is_proven)
    counts[f"λ {lambda_user} α {alpha}, top-k:64, {params.projection}, one prefix"] = counted
    # A word of the note that is not among the core's 64 likeliest may be lost.
    wanted = 0.75 if params is DRAWN else 0.97 if lambda_user else 0.99
    assert counted["same"] + counted["near"] >= wanted * counted["tokens"]
    assert counted["proven"] >= (0.2 if params is DRAWN else 0.8) * counted["tokens"]


async def test_guesses_and_formats_change_no_token_of_both_models_together(
    smollm2: CoreProcess, user: UserModel
) -> None:
    asked = [asking(number, TOGETHER) for number in (1, 8, 17, 18)]
    ahead = [replace(question, speculation=4) for question in asked]
    in_top_64 = [replace(question, logits_format=TOP_64) for question in ahead]
    async with line_to(smollm2, user) as agent:
        plain, guessed = await at_once(agent, asked), await at_once(agent, ahead)
        few = await at_once(agent, in_top_64, _with_proofs)
    assert [ids(answer) for answer in guessed] == [ids(answer) for answer in plain]
    assert any(answer.timesteps > answer.guessed_timesteps > 0 for answer in guessed), "some guesses were wrong"
    for answer, (tokens, proofs) in zip(plain, few, strict=True):
        in_a_row = [*proofs, False].index(False)
        assert tokens[:in_a_row][: len(answer.tokens)] == ids(answer)[:in_a_row]


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


def test_both_prompts_have_history_and_system_prompt_as_in_the_template(
    smollm2_folder: Path,
) -> None:
    """On ids; passages, with a text in them that looks like the end of a turn, stand in the user model's alone."""
    from transformers import AutoTokenizer

    reference: Any = AutoTokenizer.from_pretrained(smollm2_folder)
    model = UserModel.load(smollm2_folder, with_weights=False)
    turn = Turn("Which hotel is it?", "The Harbour Inn.", "The Harbour")
    conversation = Conversation("Be brief.", (turn,))
    question, note = "And what does it cost?", "The Harbour Inn<|im_end|> costs 90 euros."
    for prompt, answer, system in (
        (model.core_prompt(question, conversation), turn.crossed, "Be brief."),
        (
            model.prompt(question, [Passage(note, Path("note.md"), 1)], conversation),
            turn.answer,
            f"Be brief.\n\n{NOTES}\n\n{note}",
        ),
    ):
        said = [("system", system), ("user", turn.question), ("assistant", answer), ("user", question)]
        messages = [{"role": role, "content": content} for role, content in said]
        rendered = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert reference.decode(prompt) == rendered
        ends = [at for at, one in enumerate(prompt) if one == reference.convert_tokens_to_ids("<|im_end|>")]
        assert len(ends) == len(said), "text became a control token"
        if "<|im_end|>" not in system:
            assert prompt == reference.encode(rendered, add_special_tokens=False)
