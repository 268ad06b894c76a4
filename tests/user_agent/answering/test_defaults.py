"""Defaults of a request that come from the models or their pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_config

from ssd2.models import pairs
from ssd2.models.configs import AutoregressiveConfig
from ssd2.models.pairs import EMBEDDED, Pair, PairSettings, pair_named
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerSettings
from user_agent.answering.service import Answering
from user_agent.answering.traces import Traces
from user_agent.answering.tuned_defaults import collaboration_of, settings_with
from user_agent.answering.user_model import UserModel
from user_agent.api.settings import _served_by
from user_agent.config import load_config
from user_agent.store.tuned import Choice, Measured, save_choice

OF_ITS_MAKERS = AutoregressiveConfig(
    family="autoregressive",
    vocab_size=64,
    max_positions=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    default_temperature=0.7,
    default_top_p=0.8,
)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """A pair whose user model answers best alone; it is not downloaded, but for its user model's folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    pair = replace(pair_named(EMBEDDED), name="alone", settings=PairSettings(1.0, 0.0))
    monkeypatch.setattr(pairs, "PAIRS", (pair,))
    return pair


def sampling(settings: AnswerSettings, config: object = OF_ITS_MAKERS) -> tuple[str, float, float]:
    params = decoding_for(settings, config)
    return params.projection, params.temperature, params.top_p


def test_a_model_is_sampled_as_its_makers_do_unless_it_is_said_otherwise() -> None:
    assert sampling(AnswerSettings()) == ("sampling", 0.7, 0.8)
    assert sampling(AnswerSettings(temperature=0.3)) == ("sampling", 0.3, 0.8)
    assert sampling(AnswerSettings(top_p=0.5)) == ("sampling", 0.7, 0.5)
    assert sampling(AnswerSettings(temperature=0))[0] == "greedy"
    assert sampling(AnswerSettings(), tiny_config()) == ("sampling", 1.0, 0.2), "the paper's"


def test_a_pair_that_was_measured_answers_as_measured(alone: Pair) -> None:
    assert sampling(AnswerSettings(pair="alone"))[0] == "greedy"
    assert sampling(AnswerSettings(pair="alone", temperature=0.3))[:2] == ("sampling", 0.3)


def test_a_given_setting_wins_over_a_tuned_one_and_that_over_a_measured_one(alone: Pair) -> None:
    own, tuned = settings_with("alone"), _choice("u" * 64)

    def chosen(*given: float | None, choice: Choice | None = None) -> tuple[float, float]:
        found = collaboration_of(*given, choice, own)
        return found.lambda_user, found.alpha

    assert chosen(None, None) == (1.0, 0.0)
    assert chosen(0.5, None) == (0.5, 0.0)
    assert chosen(None, None, choice=tuned) == (0.4, 0.5)
    assert chosen(0.2, None, choice=tuned) == (0.2, 0.5)


def test_a_pair_that_is_best_without_a_core_asks_none_unless_lambda_is_set(
    alone: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config(pair="alone").line is None
    assert load_config(pair="alone", lambda_user=0.5).line is not None
    assert load_config().line is not None
    alone.user.folder.mkdir(parents=True)
    monkeypatch.setattr("ssd2.models.checkpoint.fingerprint", lambda _: "u" * 64)
    save_choice(_choice("v" * 64))
    assert load_config(pair="alone").line is None, "another user model was tuned"
    save_choice(_choice("u" * 64))
    assert load_config(pair="alone").line is not None


async def test_a_configured_core_is_asked_whatever_was_measured_with_the_pair_s_own(
    alone: Pair, user_folder: Path
) -> None:
    alone.user.folder.mkdir(parents=True)
    model = UserModel.load(user_folder, with_weights=False)
    for core, line_is_there, lambda_and_alpha in ((None, False, (1.0, 0.0)), ("localhost:1", True, ("auto", 1.0))):
        config = load_config(pair="alone", core=core)
        assert (config.line is not None) is line_is_there
        answering = Answering(config, model, None, lambda *_: (), None, Traces())  # type: ignore[arg-type]
        used, tuned = await answering._collaboration(config.request("Who?"))
        assert ((used.lambda_user, used.alpha), tuned) == (lambda_and_alpha, None)


def test_changed_settings_read_the_weights_once_for_each_configuration(
    alone: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr("ssd2.models.checkpoint.fingerprint", lambda folder: read.append(folder) or "u" * 64)
    alone.user.folder.mkdir(parents=True)
    save_choice(_choice("u" * 64))
    config = load_config(pair="alone")
    assert _served_by(config) == (config.line, "alone")
    assert len(read) == 2, "once each for the two sides"


def _choice(user_sha256: str) -> Choice:
    models = {"core_sha256": "c" * 64, "core_model": "core", "user_sha256": user_sha256}
    how = {"source": "documents", "questions": 12, "seed": 5, "tuned_on": "2026-11-21", "alike": ()}
    return Choice(**models, **how, lambda_user=0.4, alpha=0.5, curve=(Measured(0.4, 0.5, 0.5, 0.25, 0.75),))
