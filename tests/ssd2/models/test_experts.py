"""θ(0.4,0.6), θ(0.6,0.8) and θ(0.8,1.0) of §3.1 as one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, tiny_config, tiny_model
from typer.testing import CliRunner

from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.cli import app
from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.configs import ExpertsConfig
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.predict import begin
from ssd2.models.ssd2_family import join_experts


@pytest.mark.parametrize(("timestep", "expert"), [(1000, 2), (801, 2), (800, 1), (601, 1), (600, 0), (401, 0)])
def test_the_expert_of_a_timestep_is_that_of_its_range(timestep: int, expert: int) -> None:
    experts = experts_of(*(tiny_model(seed) for seed in range(3)))
    assert experts.at(timestep) is experts.experts[expert]


def test_below_the_last_range_there_is_none() -> None:
    with pytest.raises(InvalidParameter, match=r"timestep 400; .* above 0\.4T"):
        experts_of(*(tiny_model(seed) for seed in range(3))).at(400)


def test_a_decode_asks_each_expert_at_its_timesteps_and_only_there() -> None:
    """Logits of the experts are those of the single model that stands in the range."""
    singles = [tiny_model(seed) for seed in range(3)]
    params = DecodingParams(block_size=4, max_tokens=4, steps=12, stop=0.4, self_conditioning="projection")
    together = begin(experts_of(*singles), [[1, 5]], "projection")
    alone = [begin(model, [[1, 5]], "projection") for model in singles]
    sampler, asked = SimplexSampler(params, [Seeds.reproducible(1)], stop_ids=()), []
    while view := sampler.due:
        logits = together.logits(view)
        same = [torch.equal(logits, model.logits(view)) for model in alone]
        asked.append(same.index(True))
        assert sum(same) == 1
        sampler.step(logits)
    assert asked == [2] * 4 + [1] * 4 + [0] * 4


def test_experts_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    experts = experts_of(*(demo_shaped_model(seed) for seed in range(3)))
    save_checkpoint(tmp_path, experts, DEMO_TOKENIZER.read_text())
    loaded = load_checkpoint(tmp_path).model
    assert isinstance(loaded, TimeRangeExperts)
    assert loaded.config == experts.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in experts.state_dict().items())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints of one shape, in half precision, and one of another shape."""
    folders = [tmp_path_factory.mktemp("expert") for _ in range(4)]
    for seed, folder in enumerate(folders):
        stop = (0.4, 0.6, 0.8, 0.4)[seed]  # as each was trained
        model = demo_shaped_model(seed, ffn_size=32 if seed < 3 else 16, stop=stop)
        save_checkpoint(folder, model, DEMO_TOKENIZER.read_text(), torch.float16)
    return folders


def test_the_command_joins_models_of_one_shape_the_lowest_range_first(folders: list[Path], tmp_path: Path) -> None:
    command = ["experts", *map(str, folders[:3]), "--to", str(tmp_path / "joined")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    joined = load_checkpoint(tmp_path / "joined").model
    assert isinstance(joined, TimeRangeExperts)
    assert joined.config.measured.stop == 0.4
    for timestep, folder in zip((500, 700, 900), folders, strict=False):
        alone = load_checkpoint(folder).model.state_dict()
        assert all(torch.equal(alone[name], value) for name, value in joined.at(timestep).state_dict().items())
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "joined", *folders[:3])]
    assert sizes[0] == pytest.approx(sum(sizes[1:]), rel=0.02), "stored as they were"


def test_models_that_do_not_fit_together_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="one shape"):
        join_experts(folders[1:], [0.4, 0.6, 0.8], tmp_path)
    with pytest.raises(InvalidParameter, match="2 models and 3 ranges"):
        join_experts(folders[:2], [0.4, 0.6, 0.8], tmp_path)
    with pytest.raises(CheckpointInvalid, match="ranges"):
        join_experts(folders[:2], [0.6, 0.4], tmp_path)
    with pytest.raises(InvalidParameter, match="shares of T"):
        CliRunner().invoke(app, ["experts", "a", "--to", "b", "--borders", "low"], catch_exceptions=False)


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [[0.4, 0.6]],
        [[0.4, 0.6], [0.7, 1.0]],
        [[0.6, 1.0], [0.4, 0.6]],
        [[-0.1, 1.0]],
        [[float("nan"), 1.0]],
        "0.4-1",
        [[0.4]],
    ],
)
def test_ranges_that_leave_gaps_or_make_no_sense_are_refused(ranges: object) -> None:
    with pytest.raises(CheckpointInvalid, match="ranges is"):
        ExpertsConfig.from_dict({**vars(tiny_config()), "ranges": ranges})
