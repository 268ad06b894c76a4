"""A broken model is found before it is served; one that breaks later ends its answers and the server's readiness."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

import grpc
import pytest
import torch
from torch import Tensor

from core_server.catalogue.engine_messages import Begin, End
from core_server.config import ServerConfig
from core_server.engine.lanes import lane_for
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.process import Engine
from core_server.engine.self_test import finite_rows, self_test
from core_server.frontend.server import serve
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.errors import ModelBroken
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.convert import export_opt
from ssd2.models.lane import Row
from ssd2.models.model import Model
from ssd2.models.ssd2_lane import BatchLane
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, save_ssd_lm
from tests.core_server.conftest import Start, decode_alone, ending, eventually, open_request, serve_in_memory

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2)
MODELS = ("ssd-2", "quantised", "experts", "ssd-lm", "autoregressive")


@pytest.fixture(params=MODELS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    """A model of each kind, to be broken."""
    if request.param == "experts":
        return serve_in_memory(experts_of(*(demo_shaped_model(seed) for seed in (1, 2, 3))))
    if request.param == "ssd-lm":
        save_ssd_lm(tmp_path / "model", 1)
    elif request.param == "autoregressive":
        export_opt(demo_shaped_model(1), tmp_path / "model", DEMO_TOKENIZER.read_text())
    else:
        return serve_in_memory(
            demo_shaped_model(1, context_timestep="none" if request.param == "ssd-2" else "quantised")
        )
    return LoadedModel("tiny", load_checkpoint(tmp_path / "model"))


def run_self_test(loaded: LoadedModel) -> None:
    self_test(lane_for(loaded.checkpoint.model, 1), loaded.served, 1)


def test_a_model_of_each_kind_passes(loaded: LoadedModel) -> None:
    run_self_test(loaded)


def fill(model: Model, value: float) -> None:
    """Put a number into a weight that every answer looks at."""
    weights = [weight for name, weight in model.named_parameters() if "layer_norm" in name]
    weights[-1].data.fill_(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_model_of_each_kind_whose_logits_are_not_finite_is_found(loaded: LoadedModel, value: float) -> None:
    fill(loaded.checkpoint.model, value)
    with pytest.raises(ModelBroken, match="the model tiny is broken: it returns logits that are not finite"):
        run_self_test(loaded)


def test_a_model_that_gives_every_token_the_same_logit_is_found() -> None:
    model = demo_shaped_model(1)
    model.context_embedding.weight.data.zero_()
    with pytest.raises(ModelBroken, match="it returns every token the same logit"):
        run_self_test(serve_in_memory(model))


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_each_expert_is_tested(broken: int) -> None:
    experts = experts_of(*(demo_shaped_model(seed) for seed in (1, 2, 3)))
    fill(experts.experts[broken], math.nan)  # type: ignore[arg-type]
    with pytest.raises(ModelBroken):
        run_self_test(serve_in_memory(experts))


def test_what_a_model_is_fed_back_is_tested_too() -> None:
    model = demo_shaped_model(1)
    model.w_pred.weight.data.fill_(math.nan)
    with pytest.raises(ModelBroken):
        run_self_test(serve_in_memory(model))


def test_a_self_test_leaves_nothing_in_its_slot() -> None:
    model = demo_shaped_model(1)
    lane = BatchLane(model, 1)
    self_test(lane, serve_in_memory(model).served, 1)
    assert [held.token_ids for held in lane._pools[model]._held] == [(), ()]


@pytest.mark.parametrize(
    ("changes", "finite"),
    [
        ({}, True),
        ({(0, 0): -math.inf}, True),  # an id that the model does not have
        ({(0, 0): math.nan}, False),
        ({(1, 3): math.inf}, False),
        ({(1, v): -math.inf for v in range(4)}, False),
        ({(0, 0): -math.inf, (0, 1): math.nan}, False),
    ],
)
def test_rows_that_softmaxes_can_be_made_of_are_told_from_others(
    changes: dict[tuple[int, int], float], finite: bool
) -> None:
    logits = torch.randn(3, 2, 4)
    for (position, token), value in changes.items():
        logits[1, position, token] = value
    assert finite_rows(logits) == [True, finite, True]


async def test_a_broken_model_is_told_at_the_start_and_nothing_is_served(tmp_path: Path) -> None:
    model = demo_shaped_model(1)
    fill(model, 3e38)  # a finite number, whose logits are none
    save_checkpoint(tmp_path / "model", model, DEMO_TOKENIZER.read_text())
    async with asyncio.timeout(60):
        with pytest.raises(
            ModelBroken, match="the model general is broken: it returns logits that are not finite; try"
        ):
            await serve(ServerConfig({"general": tmp_path / "model"}, threads=1), pytest.fail)


Logits = Callable[[BatchLane, Sequence[Row]], Tensor]


def breaking(compute: Logits, is_broken: Callable[[Row], bool], value: float) -> Logits:
    def computed(lane: BatchLane, rows: Sequence[Row]) -> Tensor:
        logits = compute(lane, rows)
        for index, row in enumerate(rows):
            if is_broken(row):
                logits[index, 2, 5] = value
        return logits

    return computed


@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_an_answer_whose_logits_are_not_finite_ends_alone(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    server, agent = await start(served)
    expected = decode_alone(served, PARAMS, Seeds.reproducible(3))
    bad_seed = 99
    is_bad: Callable[[Row], bool] = lambda row: row.request.noise_seed == bad_seed  # noqa: E731
    monkeypatch.setattr(BatchLane, "logits", breaking(BatchLane.logits, is_bad, value))
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS, noise_seed=bad_seed)))

    async def bad() -> object:
        return (await ending(await agent.send(opening))).code

    good = [agent.decode(served, PARAMS, Seeds.reproducible(3)) for _ in range(3)]
    *answers, code = await asyncio.gather(*good, bad())
    assert (answers, code) == ([expected] * 3, ModelBroken.code)
    await eventually(lambda: server.observation.metrics.sessions_ended["core", ModelBroken.code] == 1)
    assert server.observation.readiness.obstacle is None, "what one agent asks for must not end the server"
    assert await agent.decode(served, PARAMS, Seeds.reproducible(3)) == expected


async def test_a_model_that_fails_its_self_test_as_well_ends_the_servers_readiness(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, agent = await start(served)
    call, _ = await agent.open(open_request(served, PARAMS))
    monkeypatch.setattr(BatchLane, "logits", breaking(BatchLane.logits, lambda _: True, math.nan))
    await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8)))
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    ended = await ending(call)
    assert (ended.status, ended.code) == (grpc.StatusCode.DATA_LOSS, ModelBroken.code)
    assert ended.details == "the model core returned logits that are not finite; tell the core's provider"
    await eventually(lambda: server.observation.readiness.obstacle == "broken models: core")
    refused = await ending(await agent.send(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))))
    assert refused.code == ModelBroken.code
    assert "the model core is broken: it returns logits that are not finite" in caplog.text


def test_no_engine_is_ready_with_a_broken_model() -> None:
    model = demo_shaped_model(1)
    fill(model, math.nan)
    with pytest.raises(ModelBroken):
        Engine([serve_in_memory(demo_shaped_model(2), "fine"), serve_in_memory(model, "tiny")], 1, None).test_models()


def test_what_a_broken_answer_leaves_in_its_slot_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that reach a position whose embedding overflows are not finite; shorter ones beside and after are."""
    model = demo_shaped_model(1)
    model.position_embedding.weight.data[60] = 3e38
    served = serve_in_memory(model, "core")
    engine, told = Engine([served], 2, None), list[object]()
    monkeypatch.setattr(engine, "_report", told.append)
    long, short, longer = ((1, *range(20, 20 + tokens)) for tokens in (50, 3, 30))

    def ends_of(*prompts: tuple[int, ...]) -> list[str]:
        told.clear()
        for session, prompt_ids in enumerate(prompts):
            engine._obey(Begin(session, "core", open_request(served, PARAMS, prompt_ids=prompt_ids)))
        while batch := engine._scheduler.next_batch():
            engine._compute(batch)
        for session in range(len(prompts)):
            engine._obey(End(session))
        found = sorted(told, key=attrgetter("session"))
        return [type(report).__name__ for report in found]

    assert ends_of(long) == ["Failed"]
    assert ends_of(short, longer) == ["Computed", "Computed"], "after it, in its slot"
    assert ends_of(long, short) == ["Failed", "Computed"], "beside it, padded to its length"
    assert ends_of(longer, short) == ["Computed", "Computed"]
