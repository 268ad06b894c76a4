"""The causal lane with CUDA graphs computes what it computes without, and nothing that agents send makes a graph."""

from __future__ import annotations

import random
from functools import cache, partial

import pytest
import torch

from core_server.engine.cuda_graphs import CudaGraphs
from core_server.engine.lanes import lane_for
from core_server.engine.self_test import self_test
from ssd2.models import causal_lane as module
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.causal_lane import CausalLane, causal_lane
from ssd2.models.graph_sizes import MAX_GRAPH_BATCH, GraphSizes
from ssd2.models.lane import Row
from tests.core_server.conftest import serve_in_memory
from tests.core_server.engine.test_lanes import FakeRecorder
from tests.ssd2.models.test_causal_lane import POSITIONS, TAKEN, VOCAB, alone, close, compute, model_of, prompt, row

SLOTS = 5
NAMES = [name for name in TAKEN if name not in ("gpt-neox", "eager")]  # of one layout there is enough


@cache
def network(name: str) -> AutoregressiveLM:
    return model_of(TAKEN[name])


def graphed(model: AutoregressiveLM, slots: int = SLOTS) -> tuple[CausalLane, FakeRecorder]:
    record = FakeRecorder()
    return causal_lane(model, slots, graphs=partial(CudaGraphs, record)), record


def begun(slots: int) -> list[Row]:
    """Rows of different lengths whose newest token is their answer's first."""
    return [row(slot, prompt(3 + 5 * slot, slot), 4 + slot) for slot in range(slots)]


def read_prompts(lane: CausalLane, rows: list[Row]) -> None:
    for one in rows:
        compute(lane, [row(one.slot, one.request.prompt_ids, scope=one.scope)])


@pytest.mark.parametrize("name", NAMES)
def test_any_batch_is_as_if_alone(name: str) -> None:
    model, draws = network(name), random.Random(4)
    lane, record = graphed(model)
    made, replays, rows = record.captures, record.replays, begun(SLOTS)
    read_prompts(lane, rows)
    answers = {one.slot: one.state.answer_ids for one in rows}
    for batch in (1, 3, 5, 2, 4):
        chosen = draws.sample(rows, batch)
        asked = [row(one.slot, one.request.prompt_ids, *answers[one.slot]) for one in chosen]
        assert {lane.kind(one) for one in asked} == {None}
        for slot, logits in compute(lane, asked).items():
            close(logits, alone(model, rows[slot].request.prompt_ids, *answers[slot]))
            answers[slot] += (draws.randrange(3, VOCAB),)
    assert (record.captures, record.replays - replays) == (made, 5)


def test_graphs_are_made_before_the_first_request_and_are_few() -> None:
    lane, record = graphed(network("llama"))
    assert record.captures == len(list(GraphSizes(SLOTS, POSITIONS))) == 4 * 3
    assert lane.is_long(row(0, prompt(300)), beside=False)


def test_a_wrong_guess_leaves_no_trace_in_a_graphs_rows() -> None:
    model = network("llama")
    lane, record = graphed(model)
    read_prompts(lane, begun(2))
    for guess in ((5,), (5, 6), (5, 6, 7)):
        compute(lane, [row(0, prompt(3), *guess)])
    replays = record.replays
    close(compute(lane, [row(0, prompt(3), 5, 9), row(1, prompt(8, 1), 5)])[0], alone(model, prompt(3), 5, 9))
    assert record.replays == replays + 1


def test_prompts_parts_of_prompts_and_larger_batches_are_computed_without() -> None:
    model, slots = network("llama"), MAX_GRAPH_BATCH + 2
    lane, record = graphed(model, slots)
    rows = begun(slots)
    read_prompts(lane, rows)
    assert record.replays == 0
    found = compute(lane, rows)
    assert record.replays == 0
    close(found[17], alone(model, rows[17].request.prompt_ids, 21))


def test_rows_longer_than_any_graphs_are_computed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GRAPH_EXTENT", 128)
    model = network("llama")
    lane, record = graphed(model)
    for length, replays in ((127, 1), (128, 1)):  # with the new token 128 and 129 places
        compute(lane, [row(0, prompt(length))])
        close(compute(lane, [row(0, prompt(length), 4)])[0], alone(model, prompt(length), 4))
        assert record.replays == replays
        lane.forget(0)


def test_a_network_that_no_graph_can_hold_is_computed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("llama")
    monkeypatch.setattr(type(model.network), "_can_compile_fullgraph", False)
    lane, record = graphed(model)
    compute(lane, [row(0, prompt(5))])
    close(compute(lane, [row(0, prompt(5), 4)])[0], alone(model, prompt(5), 4))
    assert record.captures == record.replays == 0


def test_the_spare_slot_is_forgotten_after_it_filled_up_a_batch() -> None:
    lane, _ = graphed(network("llama"))
    rows = begun(3)
    read_prompts(lane, rows)
    self_test(lane, serve_in_memory(network("llama")).served, SLOTS)
    spare = row(SLOTS, prompt(6))
    compute(lane, [spare])
    compute(lane, rows)
    assert lane.missing(spare) == 6
    close(compute(lane, [spare])[SLOTS], alone(network("llama"), prompt(6)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_graphs_compute_what_the_cpu_does(name: str) -> None:
    model = network(name)
    on_gpu = model_of(TAKEN[name])
    on_gpu.network.cuda()
    lane = lane_for(on_gpu, SLOTS)
    assert isinstance(lane, CausalLane)
    rows = begun(SLOTS)
    read_prompts(lane, rows)
    for batch in (rows[:3], rows, rows[4:]):
        for slot, logits in compute(lane, batch).items():
            expected = alone(model, rows[slot].request.prompt_ids, 4 + slot)
            torch.testing.assert_close(logits.cpu(), expected, atol=2e-3, rtol=2e-3)
