"""Several models behind one server: each request gets the one that it is for."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from core_server.catalogue.served_model import ServedModels
from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.errors import InvalidParameter, ModelMismatch
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import ERROR_CODE_KEY, open_to_proto
from tests.conftest import experts_of, tiny_model
from tests.core_server.conftest import Start, decode_alone, ending, open_request, serve_in_memory

PARAMS = DecodingParams(block_size=4, max_tokens=12, steps=12, stop=0.4)


@pytest.fixture(scope="module")
def single() -> LoadedModel:
    return serve_in_memory(tiny_model(9), "single")


@pytest.fixture(scope="module")
def experts() -> LoadedModel:
    return serve_in_memory(experts_of(*(tiny_model(seed) for seed in range(3))), "experts")


async def test_a_decode_with_experts_and_one_with_a_single_model_run_through_one_server(
    single: LoadedModel, experts: LoadedModel, start: Start
) -> None:
    _, agent = await start(single, experts)
    seeds = Seeds.reproducible(1)
    answers = [await agent.decode(served, PARAMS, seeds) for served in (single, experts)]
    assert answers == [decode_alone(served, PARAMS, seeds) for served in (single, experts)]
    assert answers[0] != answers[1]


def test_the_first_model_that_fits_is_taken(single: LoadedModel, experts: LoadedModel) -> None:
    models = ServedModels([single.served, experts.served])
    assert models.find("", "") is models.find("", "ssd-2") is models.find("single", "ssd-2") is single.served
    assert models.find("experts", "") is experts.served


@pytest.mark.parametrize(("name", "family"), [("", "autoregressive"), ("other", ""), ("single", "ssd-lm")])
def test_a_model_that_is_not_served_is_refused_with_the_list(
    single: LoadedModel, experts: LoadedModel, name: str, family: str
) -> None:
    with pytest.raises(ModelMismatch, match=r"there are: single \(ssd-2\), experts \(ssd-2\)"):
        ServedModels([single.served, experts.served]).find(name, family)


def test_a_server_without_models_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="no model"):
        ServedModels([])


@pytest.mark.parametrize("changes", [{"family": "autoregressive"}, {"family": "x" * 5000}, {"model": "other"}])
async def test_a_request_for_a_family_that_is_not_served_is_refused_with_the_list(
    single: LoadedModel, experts: LoadedModel, start: Start, changes: dict[str, Any]
) -> None:
    _, agent = await start(single, experts)
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(single, PARAMS, **{"model": "", **changes})))
    end = await ending(await agent.send(opening))
    assert (end.status, end.code) == (grpc.StatusCode.FAILED_PRECONDITION, "model_mismatch")
    assert end.details.endswith("there are: single (ssd-2), experts (ssd-2)")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await agent.stub.GetModelCard(pb.GetModelCardRequest(**changes))
    assert refused.value.details() == end.details
    assert dict(refused.value.trailing_metadata())[ERROR_CODE_KEY] == "model_mismatch"


async def test_a_decode_below_the_experts_is_refused_before_it_begins(experts: LoadedModel, start: Start) -> None:
    _, agent = await start(experts)
    request = open_request(experts, DecodingParams(block_size=4, max_tokens=12, steps=12, stop=0.0))
    end = await ending(await agent.send(pb.CollaborateRequest(open=open_to_proto(request))))
    assert (end.status, end.code) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_parameter")
    assert "above 0.4T; stop there" in end.details
