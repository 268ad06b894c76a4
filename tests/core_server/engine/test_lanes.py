"""What an engine computes for a batch is what a decode in one process computes row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_server.catalogue.engine_messages import Ready
from core_server.engine.cuda_graphs import CudaGraphs
from core_server.engine.lanes import SingleLane, lane_for
from core_server.engine.process import Engine
from ssd2.algorithm.block_view import BlockView, ProjectedAt
from ssd2.algorithm.noised_simplex import ProjectedRows, noised_rows, noised_simplex
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.algorithm.simplex import ids_to_simplex
from ssd2.logits.format import FLOAT16
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.graph_sizes import MAX_GRAPH_BATCH, graph_batches, graph_extents
from ssd2.models.lane import BlockState, Row
from ssd2.models.predict import begin
from ssd2.models.ssd2 import SSD2
from ssd2.models.ssd2_lane import BatchLane
from ssd2.wire.codec import OpenRequest
from tests.conftest import experts_of, tiny_model
from tests.core_server.conftest import serve_in_memory

LENGTH, VOCAB = 4, 32
SLOTS = 4


def request(**changes: Any) -> OpenRequest:
    values: dict[str, Any] = {
        "prompt_ids": (1, 5, 9),
        "noise_seed": 7,
        "timesteps": (950, 700, 500),
        "block_size": LENGTH,
        "max_blocks": 4,
        "simplex_value": 5.0,
        "self_conditioning": "own",
        "speculation": 0,
        "patience": 0,
        "logits_format": FLOAT16,
        **changes,
    }
    identity = {"model": "", "family": "", "model_sha256": "", "vocabulary_sha256": "", "vocab_size": VOCAB}
    return OpenRequest(**{**identity, **values})


REQUESTS = (
    request(),
    request(prompt_ids=(1, *range(3, 20)), noise_seed=2**62, timesteps=(1000, 801), simplex_value=2.0),
    request(prompt_ids=(1, 8), noise_seed=9, timesteps=(880, 640, 430), self_conditioning="projection"),
)
TOKENS = (
    ProjectedTokens((3, 4, 5, 6)),
    ProjectedTokens((9, 30, 9, 31, 3), (2, 1, 1, 1)),
    ProjectedTokens((8, 8, 7, 7)),
)


class Reference:
    """One answer, decoded in one process."""

    def __init__(self, model: SSD2 | TimeRangeExperts, request: OpenRequest) -> None:
        self.predictor = begin(model, [request.prompt_ids], request.self_conditioning)
        self.request, self.trail = request, list[ProjectedAt]()

    def logits(self, state: BlockState) -> Tensor:
        timesteps = self.request.timesteps
        self.trail = self.trail if state.projected else []
        if state.projected:
            self.trail.append(ProjectedAt(timesteps[state.at.step - 1], (state.projected,)))
        view = BlockView(
            block=state.at.block,
            step=state.at.step,
            timestep=timesteps[state.at.step],
            block_size=LENGTH,
            answer_ids=torch.tensor([state.answer_ids], dtype=torch.int64),
            trail=tuple(self.trail),
            noise_seeds=(self.request.noise_seed,),
            simplex_value=self.request.simplex_value,
        )
        return self.predictor.logits(view)[0]


def model_of(kind: str) -> SSD2 | TimeRangeExperts:
    if kind == "experts":
        return experts_of(*(tiny_model(seed) for seed in range(3)))
    return tiny_model(3, context_timestep=kind)


class FakeRecorder:
    """Records a function by keeping it; what a CUDA graph does again on the same memory, it does too.

    Attributes:
        captures: how many were made.
        replays: how often any was replayed.
    """

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        run()

        def replay() -> None:
            self.replays += 1
            run()

        return replay


@pytest.mark.parametrize("record", [None, FakeRecorder()], ids=["eager", "graphs"])
@pytest.mark.parametrize("kind", ["quantised", "none", "experts"])
def test_rows_at_different_timesteps_blocks_and_contexts_are_as_if_alone(
    kind: str, record: FakeRecorder | None
) -> None:
    """With graphs, as on a GPU, three rows are filled up to four and contexts to the slots' end."""
    model = model_of(kind)
    lane = BatchLane(model, SLOTS, graphs=record and partial(CudaGraphs, record))
    references = [Reference(model, each) for each in REQUESTS]
    states = [BlockState() for _ in REQUESTS]
    commits = {0: 2, 1: 1, 2: 0}  # each answer ends its blocks at another timestep
    for turn in range(5):
        rows = [Row(2 - index, each, state) for index, (each, state) in enumerate(zip(REQUESTS, states, strict=True))]
        for batch in batches(lane, rows):
            logits = lane.logits([rows[index] for index in batch])
            fed_back = lane.feed_back([rows[index] for index in batch], logits)
            for index, found, own in zip(batch, logits, fed_back, strict=True):
                expected = references[index].logits(states[index])
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
                is_commit = states[index].at.step == commits[index]
                tokens = ProjectedTokens((4 + turn, 5, 6, 7)) if is_commit else TOKENS[index]
                states[index] = states[index].after(tokens, is_commit=is_commit, fed_back=own)
    assert [state.at.block for state in states] == [1, 2, 4 + 1]


@pytest.mark.parametrize("share", [None, 0.8])
def test_a_projection_is_fed_back_as_sharp_as_in_one_process(share: float | None) -> None:
    model = tiny_model(3, feedback_share=share)
    state = BlockState().after(TOKENS[2], is_commit=False, fed_back=None)
    found = BatchLane(model, SLOTS).logits([Row(0, REQUESTS[2], state)])[0]
    torch.testing.assert_close(found, Reference(model, REQUESTS[2]).logits(state), atol=1e-4, rtol=1e-4)


def batches(lane: BatchLane | SingleLane, rows: list[Row]) -> list[list[int]]:
    by_kind: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        by_kind.setdefault(lane.kind(row), []).append(index)
    return list(by_kind.values())


def test_one_model_is_one_batch_and_experts_are_one_a_range() -> None:
    rows = [Row(0, request(timesteps=(950,)), BlockState()), Row(1, request(timesteps=(450,)), BlockState())]
    assert len(batches(lane_for(tiny_model(3), SLOTS), rows)) == 1
    assert len(batches(lane_for(model_of("experts"), SLOTS), rows)) == 2
    longer = Row(2, request(block_size=6), BlockState())
    assert len(batches(lane_for(tiny_model(3), SLOTS), [*rows, longer])) == 2


def test_nothing_of_the_size_of_the_vocabulary_is_kept_of_an_answer() -> None:
    lane = lane_for(tiny_model(3, vocab_size=5000), SLOTS)
    rows = [Row(slot, request(), BlockState()) for slot in range(3)]
    with torch.inference_mode():
        for own in lane.feed_back(rows, lane.logits(rows)):
            assert own is not None
            assert own.untyped_storage().nbytes() == LENGTH * 16 * 4


def test_noised_rows_are_the_noised_simplex_to_every_softmax() -> None:
    token_ids = torch.tensor([[3, 4, 5, 31], [0, 0, 9, 8]])
    rows = ProjectedRows(
        noise_seeds=torch.tensor([7, 8, 9]),
        block=torch.tensor([0, 3, 1]),
        timestep=torch.tensor([900, 420, 640]),
        simplex_value=torch.tensor([5.0, 2.0, 3.0]),
        begins=torch.tensor([False, False, True]),
        positions=torch.tensor([[0, 1, 2, 3, 0]]).expand(3, -1),  # a token that is named twice counts once
        token_ids=torch.cat([token_ids, token_ids[:1]])[:, [0, 1, 2, 3, 0]],
    )
    found = noised_rows(rows, 4, VOCAB).softmax(-1)
    for row, (k, seed, block, t) in enumerate([(5.0, 7, 0, 900), (2.0, 8, 3, 420), (3.0, 9, 1, 640)]):
        x0_hat = ids_to_simplex(token_ids[row : row + 1], VOCAB, k) if row < 2 else None  # the third begins a block
        place = {"block": block, "timestep": t, "length": 4}
        expected = noised_simplex(x0_hat, [seed], **place, simplex_value=k, vocab_size=VOCAB).softmax(-1)[0]
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-5)


def test_a_projection_in_doubt_is_compared_by_what_it_says() -> None:
    state = BlockState().after(TOKENS[0], is_commit=False, fed_back=torch.zeros(4, 16))
    assert state == BlockState().after(TOKENS[0], is_commit=False, fed_back=torch.ones(4, 16))
    assert state != BlockState().after(TOKENS[2], is_commit=False, fed_back=None)
    assert state != BlockState().after(TOKENS[0], is_commit=True, fed_back=None)
    assert replace(state, at=BlockState().at) != state


@pytest.mark.parametrize(
    ("slots", "positions", "batches", "extents"),
    [
        (1, 48, [1], [48]),
        (4, 128, [1, 2, 4], [128]),
        (5, 300, [1, 2, 4, 8], [128, 256, 300]),
        (1000, 2048, [1, 2, 4, 8, 16], [128, 256, 512, 1024, 2048]),
    ],
)
def test_graphs_are_few_whatever_the_slots_and_positions(
    slots: int, positions: int, batches: list[int], extents: list[int]
) -> None:
    assert (graph_batches(slots), graph_extents(positions)) == (batches, extents)


@pytest.mark.parametrize(("kind", "networks"), [("none", 1), ("experts", 3)])
def test_all_graphs_are_made_before_the_first_request(kind: str, networks: int) -> None:
    record = FakeRecorder()
    BatchLane(model_of(kind), SLOTS, graphs=record and partial(CudaGraphs, record))
    assert record.captures == networks * len(graph_batches(SLOTS)) * len(graph_extents(48))


def test_an_engine_is_ready_when_its_graphs_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    record, seen = FakeRecorder(), []
    graphs = partial(CudaGraphs, record)
    monkeypatch.setattr(
        "core_server.engine.process.lane_for", lambda model, slots, **_: BatchLane(model, slots, graphs=graphs)
    )
    monkeypatch.setattr(Engine, "_report", lambda _, report: seen.append((type(report), record.captures)))
    Engine([serve_in_memory(tiny_model(3, vocab_size=1782))], SLOTS, None).run()
    assert seen == [(Ready, len(graph_batches(SLOTS)))]


LONG = tiny_model(3, max_positions=300)
RECORD = FakeRecorder()
EAGER, GRAPHED = BatchLane(LONG, 20), BatchLane(LONG, 20, graphs=partial(CudaGraphs, RECORD))


@st.composite
def any_rows(draw: st.DrawFn) -> list[Row]:
    """A batch of anything that an agent may send: any block size, tokens a position, length and number of answers."""
    block_size = draw(st.sampled_from([LENGTH, LENGTH, 1, 7]))
    prompts = draw(st.lists(st.integers(1, 290), min_size=1, max_size=20))
    rows = []
    for slot, length in enumerate(prompts):
        counts = draw(st.lists(st.integers(1, 3), min_size=block_size, max_size=block_size))
        tokens = tuple(token for count in counts for token in range(3 + slot, 3 + slot + count))
        one_each = ProjectedTokens(tuple(range(3, 3 + block_size)))
        projected = draw(st.sampled_from([None, one_each, one_each, ProjectedTokens(tokens, tuple(counts))]))
        asked = request(
            prompt_ids=(1, *(3 + (slot + place) % 29 for place in range(length - 1))), block_size=block_size
        )
        state = BlockState(StepPosition(0, 0, bool(projected)), projected=projected)
        rows.append(Row(slot, asked, state))
    return rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_rows())
def test_nothing_that_agents_send_makes_a_graph_and_all_is_as_without(rows: list[Row]) -> None:
    captures, replays = RECORD.captures, RECORD.replays
    with torch.inference_mode():
        torch.testing.assert_close(GRAPHED.logits(rows), EAGER.logits(rows), atol=1e-4, rtol=1e-4)
    assert RECORD.captures == captures
    projected = [row.state.projected for row in rows if row.state.projected]
    is_plain = rows[0].request.block_size == LENGTH and all(len(one.token_ids) == LENGTH for one in projected)
    assert RECORD.replays - replays == (is_plain and len(rows) <= MAX_GRAPH_BATCH)


def test_all_graphs_have_one_output() -> None:
    lane = BatchLane(LONG, SLOTS, graphs=partial(CudaGraphs, FakeRecorder()))
    rows = [Row(slot, each, BlockState()) for slot, each in enumerate(REQUESTS)]
    longer = Row(3, request(prompt_ids=(1,) * 200), BlockState())
    outputs = [lane.logits(batch) for batch in (rows, rows[:1], [longer])]
    assert len({output.untyped_storage().data_ptr() for output in outputs}) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_compute_what_the_cpu_does() -> None:
    model = tiny_model(3)
    on_cpu, on_gpu = lane_for(model, SLOTS), lane_for(tiny_model(3).cuda(), SLOTS)
    states = [BlockState() for _ in REQUESTS]
    for _ in range(3):
        rows = [Row(index, each, state) for index, (each, state) in enumerate(zip(REQUESTS, states, strict=True))]
        expected, found = on_cpu.logits(rows), on_gpu.logits(rows)
        torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)
        fed_back = on_cpu.feed_back(rows, expected)
        gpu_fed_back = on_gpu.feed_back(rows, found)
        for own, theirs in zip(fed_back, gpu_fed_back, strict=True):
            assert (own is None) == (theirs is None)
        states = [state.after(TOKENS[0], is_commit=state.at.step == 1, fed_back=None) for state in states]


def test_compiled_noise_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    lane_for(tiny_model(3), SLOTS, compiled=True)
    assert compiled == [noised_rows]
