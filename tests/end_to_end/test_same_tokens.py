"""Over gRPC equals in one process: same seed, same tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, save_ssd_lm

from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import PROJECTIONS, RULES, CollaborationParams, DecodingParams, LambdaUser, Rule, Seeds
from ssd2.logits.format import FLOAT16, PREFERRED, UINT8, LogitsFormat
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.convert import export_opt
from ssd2.models.predict import begin, begin_sampler
from tests.families import save_llama
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, recording_relay, running_core
from .processes import engine_processes, listening_addresses

NAMES = ("single", "experts", "ssd-lm", "opt")
PASSAGES = (Passage("My dentist appointment is at Amber Arch.", Path("a.md"), 1),)


def _question(
    number: int, lambda_user: LambdaUser, projection: str, self_conditioning: str, steps: int = 4
) -> Question:
    params = DecodingParams(
        block_size=8,
        max_tokens=20,
        steps=steps,
        stop=0.4,
        projection=projection,
        top_p=0.8,
        self_conditioning=self_conditioning,
    )
    # In halves: the logits of random models are so close together that coarser ones would often be the same.
    return Question(
        f"Where is appointment {number}?",
        PASSAGES,
        CollaborationParams(lambda_user, alpha=1.0),
        params,
        Seeds.reproducible(number),
        logits_format=FLOAT16,
    )


_core = cache(load_checkpoint)


@cache
def _user(folder: Path) -> UserModel:
    return UserModel.load(folder, with_weights=True)


@cache
def _in_process(question: Question, core_folder: Path, user_folder: Path) -> list[int]:
    """What both sides are compared with; several tests ask the same, and it is computed once."""
    core, user = _core(core_folder).model, _user(user_folder)
    terms = None
    if question.collaboration.uses_user:
        terms = user.terms(
            question.instruction, question.passages, question.collaboration, question.params.self_conditioning
        )
    (tokens,) = decode_locally(
        begin(core, [user.core_prompt(question.instruction)], question.params.self_conditioning),
        terms,
        question.collaboration,
        begin_sampler(user.config, question.params, [question.seeds]),
        logits_format=question.logits_format or PREFERRED,
    )
    return tokens


async def _over_grpc(questions: list[Question], address: str, user: UserModel) -> list[list[int]]:
    async def ask(question: Question) -> list[int]:
        async with CoreClient(address, Ledger.in_memory()) as client:
            answer = await Agent(user, client).answer(question)
        return [token.token_id for token in answer.tokens]

    return await asyncio.gather(*(ask(question) for question in questions))


@pytest.mark.parametrize("projection", PROJECTIONS)
async def test_over_grpc_equals_in_one_process_in_every_format(
    core: CoreProcess, core_folder: Path, user_folder: Path, projection: str
) -> None:
    """All of them at a time, so that one batch of the core goes out in each."""
    formats = (None, FLOAT16, UINT8, LogitsFormat("top-k", 3))
    asked = [_question(number, 0.4, projection, "own") for number in range(len(formats))]
    questions = [replace(question, logits_format=how) for question, how in zip(asked, formats, strict=True)]
    remote = await _over_grpc(questions, core.address, _user(user_folder))
    assert remote == [_in_process(question, core_folder, user_folder) for question in questions]


@pytest.mark.parametrize("lambda_user", RULES)
async def test_over_grpc_equals_in_one_process_by_every_rule(
    core: CoreProcess, core_folder: Path, user_folder: Path, lambda_user: Rule
) -> None:
    formats = (None, FLOAT16, LogitsFormat("top-k", 3))
    asked = [_question(number, lambda_user, "sampling", "own") for number in range(len(formats))]
    questions = [replace(question, logits_format=how) for question, how in zip(asked, formats, strict=True)]
    remote = await _over_grpc(questions, core.address, _user(user_folder))
    assert remote == [_in_process(question, core_folder, user_folder) for question in questions]
    assert remote[1] != _in_process(_question(1, 0.4, "sampling", "own"), core_folder, user_folder)


async def test_formats_matter(core: CoreProcess, user_folder: Path) -> None:
    """Else their equality above would show nothing: these random models never agree on anything."""
    formats = (FLOAT16, LogitsFormat("top-k", 3), LogitsFormat("top-k", 1))
    questions = [replace(_question(1, 0.4, "multi-hot", "own"), logits_format=how) for how in formats]
    answers = await _over_grpc(questions, core.address, _user(user_folder))
    assert len({tuple(answer) for answer in answers}) == 3


@pytest.mark.parametrize("sessions", [1, 4])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
async def test_over_grpc_equals_in_one_process(
    core: CoreProcess, core_folder: Path, user_folder: Path, projection: str, self_conditioning: str, sessions: int
) -> None:
    questions = [_question(number, 0.4, projection, self_conditioning) for number in range(sessions)]
    remote = await _over_grpc(questions, core.address, _user(user_folder))
    assert remote == [_in_process(question, core_folder, user_folder) for question in questions]
    assert all(len(tokens) > 8 for tokens in remote), "too short to have crossed a block"


async def test_right_guesses_are_taken_and_wrong_ones_passed_over(core: CoreProcess, user_folder: Path) -> None:
    """At λ = 0 the greedy projection of a block's first timestep is what the core guesses; a draw is another."""
    guessed = []
    async with (
        recording_relay(core.address, delay_s=0.1) as wire,
        CoreClient(wire.address, Ledger.in_memory()) as client,
    ):
        for lambda_user, projection in ((0.0, "greedy"), (0.4, "sampling")):
            question = replace(_question(1, lambda_user, projection, "own"), speculation=3)
            guessed.append((await Agent(_user(user_folder), client).answer(question)).guessed_timesteps)
    assert guessed[0] >= 3, "there are three blocks"
    assert guessed[1] < guessed[0]


@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
@pytest.mark.parametrize(
    "changes",
    [
        {"projection": "greedy", "patience": 1},
        {"projection": "multi-hot", "top_p": 0.001, "patience": 2},
        {"projection": "greedy", "patience": 2, "entropy_bound": 7.45},
        {"core_every": 2},
        {"core_every": 100},
        {"projection": "greedy", "patience": 1, "core_every": 3},
        {"schedule": "changes"},
    ],
    ids=str,
)
async def test_over_grpc_equals_in_one_process_with_fewer_timesteps_too(
    core: CoreProcess, core_folder: Path, user_folder: Path, changes: dict[str, object], self_conditioning: str
) -> None:
    asked = _question(1, 0.4, "sampling", self_conditioning)
    question = replace(asked, params=replace(asked.params, steps=9, max_tokens=24, **changes))
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        answer = await Agent(_user(user_folder), client).answer(question)
    assert [token.token_id for token in answer.tokens] == _in_process(question, core_folder, user_folder)
    assert len(answer.tokens) > 8, "too short to have crossed a block"
    if "patience" in changes:
        assert answer.timesteps < 9 * 3, "no block ended early"
    assert (answer.round_trips < answer.timesteps) == ("core_every" in changes)


def _save(name: str, folder: Path, seed: int) -> None:
    """A random model of one of the families, or three as experts."""
    tokenizer_json = DEMO_TOKENIZER.read_text()
    if name == "opt":
        export_opt(demo_shaped_model(seed), folder, tokenizer_json)
    elif name == "ssd-lm":
        save_ssd_lm(folder, seed)
    elif name == "experts":
        save_checkpoint(folder, experts_of(*(demo_shaped_model(seed + i) for i in range(3))), tokenizer_json)
    else:
        save_checkpoint(folder, demo_shaped_model(seed), tokenizer_json)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cores and user models of every family, in folders core-NAME and user-NAME."""
    folder = tmp_path_factory.mktemp("families")
    for number, name in enumerate(NAMES):
        _save(name, folder / f"core-{name}", 10 * number)
        _save(name, folder / f"user-{name}", 10 * number + 5)
    return folder


@pytest.fixture(scope="module")
def core_of_all_families(families: Path) -> Iterator[CoreProcess]:
    """One server that hosts a core of each."""
    first, *others = (f"{name}={families / f'core-{name}'}" for name in NAMES)
    with running_core(first, *(part for other in others for part in ("--model", other))) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lambda_user", [0.0, 0.4])
async def test_every_family_through_one_server(
    core_of_all_families: CoreProcess, families: Path, name: str, lambda_user: float
) -> None:
    user = _user(families / f"user-{name}")
    block_size = min(user.config.block_size, 8)
    steps = min(user.config.default_steps, 6)
    params = DecodingParams.for_model(user.config, block_size=block_size, max_tokens=9, steps=steps, top_p=0.8)
    collaboration = CollaborationParams(lambda_user, alpha=1.0)
    asked = Question("Where is it?", PASSAGES, collaboration, params, Seeds.reproducible(1), model=name)
    (remote,) = await _over_grpc([asked], core_of_all_families.address, user)
    assert remote == _in_process(asked, families / f"core-{name}", families / f"user-{name}")
    assert len(remote) >= 8


needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(
    scope="module",
    params=[
        ("--tensor-parallel", "2"),
        ("--replicas", "2"),
        pytest.param(("--tensor-parallel", "2", "--device", "cuda"), marks=needs_two_gpus),
        pytest.param(("--replicas", "2", "--device", "cuda"), marks=needs_two_gpus),
    ],
    ids="".join,
)
def core_of_two(families: Path, request: pytest.FixtureRequest) -> Iterator[CoreProcess]:
    """Two processes compute: each answer together, or each some answers."""
    save_llama(families / "llama", 1782)
    further = [f"experts={families / 'core-experts'}", "--model", f"llama={families / 'llama'}"]
    with running_core(f"single={families / 'core-single'}", "--model", *further, *request.param) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single", "experts"])
@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
async def test_several_processes_give_the_tokens_of_one(
    core_of_two: CoreProcess, families: Path, self_conditioning: str, name: str
) -> None:
    user = _user(families / f"user-{name}")
    # Two ranks sum in another order than one does: of these questions no draw hangs on that.
    questions = [_question(number, 0.4, "sampling", self_conditioning, steps=6) for number in range(4)]
    if name == "experts":
        params = replace(questions[0].params, stop=user.config.measured.stop)
        questions = [replace(question, params=params) for question in questions]
    asked = [replace(question, model=name, speculation=number) for number, question in enumerate(questions)]
    remote = await _over_grpc(asked, core_of_two.address, user)
    folders = families / f"core-{name}", families / f"user-{name}"
    assert remote == [_in_process(question, *folders) for question in questions]
    assert all(len(tokens) > 8 for tokens in remote), "too short to have crossed a block"


@pytest.mark.slow
async def test_several_processes_give_the_tokens_of_one_causal_network(
    core_of_two: CoreProcess, families: Path
) -> None:
    user = _user(families / "llama")
    params = DecodingParams.for_model(user.config, max_tokens=9)
    asked = [
        replace(_question(number, 0.4, "greedy", "own"), params=params, model="llama", speculation=number)
        for number in range(3)
    ]
    remote = await _over_grpc(asked, core_of_two.address, user)
    assert remote == [_in_process(question, families / "llama", families / "llama") for question in asked]
    assert len({token for tokens in remote for token in tokens}) > 8


@pytest.mark.slow
def test_what_several_processes_say_to_each_other_stays_on_the_machine(core_of_two: CoreProcess) -> None:
    """torchrun's own meeting point would be open to the network, and unpickle what it is sent."""
    processes = engine_processes(core_of_two)
    assert len(processes) in (2, 3)
    listening = {address for pid in processes for address in listening_addresses(pid)}
    assert all(address.is_loopback for address in listening), listening
    assert listening_addresses(core_of_two.process.pid) == {ip_address("127.0.0.1")}


async def test_the_core_alone_too(core: CoreProcess, core_folder: Path, user_folder: Path) -> None:
    user = UserModel.load(user_folder, with_weights=False)
    question = _question(1, 0.0, "sampling", "own")
    remote = await _over_grpc([question], core.address, user)
    assert remote == [_in_process(question, core_folder, user_folder)]


async def test_both_models_matter(core: CoreProcess, user_folder: Path) -> None:
    """Else the equality above would show nothing."""
    answers = [
        (await _over_grpc([_question(1, lambda_user, "greedy", "own")], core.address, _user(user_folder)))[0]
        for lambda_user in (0.0, 0.4, 1.0)
    ]
    assert answers[0] != answers[1] != answers[2] != answers[0]
