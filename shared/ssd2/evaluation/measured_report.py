"""Outcome of a measurement of decoding settings: as a table, and as what is kept beside the checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.params import DecodingParams
from ssd2.evaluation.measuring import Loss, Measurement, Measuring, Trial


def settings_of(measuring: Measuring, measurement: Measurement) -> MeasuredDecoding:
    """Return the chosen settings as a checkpoint has them."""
    chosen = measurement.chosen.decoding
    mode = chosen.self_conditioning if measuring.pair.core.model.config.feeds_back else None
    return MeasuredDecoding(chosen.stop, chosen.steps, chosen.patience or 0, mode)


def as_json(measuring: Measuring, measurement: Measurement, command: str) -> dict[str, Any]:
    """Return settings, costs, and all that they depend on.

    Args:
        measuring: the run.
        measurement: its outcome.
        command: that makes it again.
    """
    core, user = measuring.weights
    return {
        **asdict(settings_of(measuring, measurement)),
        "cost": {
            "accuracy": round(measurement.chosen.accuracy, 4),
            "accuracy_with_all_timesteps": round(measurement.reference_accuracy, 4),
            **_loss(measurement.loss),
            **_costs(measurement.chosen),
        },
        "task": measuring.task.name,
        "items_of_each_kind": measuring.limit,
        "seed": measuring.seed,
        "tolerance": measuring.tolerance,
        **asdict(measuring.collaboration),
        **{name: getattr(measurement.chosen.decoding, name) for name in ("projection", "top_p", "temperature")},
        "core_weights_sha256": core,
        "user_weights_sha256": user,
        "command": command,
        "compared": [
            {**_setting(trial.decoding), "accuracy": round(trial.accuracy, 4), **_loss(loss), **_costs(trial)}
            for trial, loss in _compared(measurement)
        ],
    }


def as_table(measuring: Measuring, measurement: Measurement) -> str:
    """Return the compared settings as a Markdown table, the cheapest first, and the chosen one below."""
    rows = [
        "| timesteps | stop | patience | fed back | right | lost | 95% | timesteps a block |",
        "|---" * 8 + "|",
        *(_row(trial, loss) for trial, loss in _compared(measurement)),
    ]
    loss, chosen, count = measurement.loss, measurement.chosen, len(measurement.chosen.right)
    low, high = loss.interval
    return "\n".join(
        [
            *rows,
            "",
            f"chosen: {_words(chosen.decoding)}",
            f"on {count} fresh items: {chosen.accuracy:.3f} right, {measurement.reference_accuracy:.3f} with all "
            f"timesteps ({_words(measurement.reference.decoding)}); {loss.share:+.3f} lost ({low:+.3f} to {high:+.3f}"
            f"{f', of {loss.kind}' if len(set(chosen.kinds)) > 1 else ''}), {chosen.timesteps_per_block:.1f} "
            "timesteps a block",
            f"task {measuring.task.name}, {measuring.collaboration.label}, tolerance {measuring.tolerance:g}",
        ]
    )


def _compared(measurement: Measurement) -> list[tuple[Trial, Loss]]:
    trials = sorted(measurement.trials, key=lambda trial: trial.timesteps_per_block)
    return [(trial, Loss.of(trial, measurement.reference)) for trial in trials]


def _row(trial: Trial, loss: Loss) -> str:
    of, (low, high) = _setting(trial.decoding), loss.interval
    cells = [of["steps"], f"{of['stop']:g}T", of["patience"] or "none", of["self_conditioning"]]
    lost = [f"{trial.accuracy:.3f}", f"{loss.share:+.3f}", f"{low:+.3f} to {high:+.3f}"]
    return f"| {' | '.join(map(str, [*cells, *lost, f'{trial.timesteps_per_block:.1f}']))} |"


def _words(decoding: DecodingParams) -> str:
    of = _setting(decoding)
    patience = f"patience {of['patience']}" if of["patience"] else "no patience"
    return f"{of['steps']} timesteps to {of['stop']:g}T, {patience}, {of['self_conditioning']} fed back"


def _setting(decoding: DecodingParams) -> dict[str, Any]:
    return {
        "stop": decoding.stop,
        "steps": decoding.steps,
        "patience": decoding.patience or 0,
        "self_conditioning": decoding.self_conditioning,
    }


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "accuracy_lost": round(loss.share, 4),
        "interval_95": [round(end, 4) for end in loss.interval],
        "of_kind": loss.kind,
    }


def _costs(trial: Trial) -> dict[str, float]:
    return {name: getattr(trial, name) for name in ("timesteps_per_block", "core_logits_per_block")}
