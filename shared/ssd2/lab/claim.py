"""Measurement of the paper's claim on the order-free relation: which pair answers in which order, at what price.

Two values stand in one block, the place from the user's note and its time from the core. In forward order a model that
writes from left to right has the place before it needs the time; in reverse order it has not.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.demo.relation.text import ORDERS, evaluation_items, gives_both
from ssd2.errors import ModelNotFound
from ssd2.evaluation.costs import BlockCosts
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.jsonl import append_result, not_results, read_results
from ssd2.evaluation.pair import Pair, answer_items
from ssd2.evaluation.paired import Discordant
from ssd2.models.checkpoint import CONFIG

FOLDERS = {
    "algorithm 1": ("core", "user"),
    "control": ("core_control", "user"),
    "partner": ("core_partner", "user"),
    "experts": ("core_experts", "user"),
    "autoregressive": ("core_opt", "user_opt"),
}
"""Cores that are compared, each with its user model: their folders within that of a training seed."""

LAMBDA, ALPHA = 0.3, 1.0
LAMBDAS, ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5), (0.0, 1.0)
"""Sweep of the counterpart of Table 1."""
DECODINGS: dict[str, dict[str, Any]] = {
    "8 to 0": {"steps": 8, "stop": 0.0},
    "25 to 0": {"steps": 25, "stop": 0.0},
    "42 to 0": {"steps": 42, "stop": 0.0},
    "100 to 0": {"steps": 100, "stop": 0.0},
    "25 to 0.4T": {"steps": 25, "stop": 0.4},
    "42 to 0, patience 2": {"steps": 42, "stop": 0.0, "patience": 2},
}
"""Timesteps of a block, from T down, and where they end."""
FEEDBACKS = ("own", "projection")
REFERENCE = ("25 to 0", "projection")
"""Decoding of the sweep, and of each model alone."""
NEXT_TOKEN = ("next token", "none")
"""Decoding of the autoregressive pair."""
SWEPT = {"autoregressive": NEXT_TOKEN, "algorithm 1": REFERENCE, "partner": REFERENCE}
"""Systems of the sweep over λ and α, with their decodings."""
ANSWER_TOKENS = 8


@dataclass(frozen=True)
class Setting:
    """One setting of the measurement.

    Attributes:
        system: one of `FOLDERS`.
        order: one of `ssd2.demo.relation.text.ORDERS`.
        decoding: one of `DECODINGS`, or that of `NEXT_TOKEN`.
        feedback: one of `FEEDBACKS`, or that of `NEXT_TOKEN`.
        lambda_user: λ; 0 is the core alone, 1 the user model alone.
        alpha: α.
    """

    system: str
    order: str
    decoding: str
    feedback: str
    lambda_user: float = LAMBDA
    alpha: float = ALPHA

    @property
    def label(self) -> str:
        """Name of the setting."""
        return (
            f"{self.system}, {self.order}, {self.decoding}, {self.feedback}, λ {self.lambda_user:g}, α {self.alpha:g}"
        )

    def params(self, pair: Pair) -> DecodingParams:
        """Return how a pair decodes in this setting."""
        if (self.decoding, self.feedback) == NEXT_TOKEN:
            return pair.decoding(projection="greedy", max_tokens=ANSWER_TOKENS)
        chosen = DECODINGS[self.decoding]
        return pair.decoding(self_conditioning=self.feedback, max_tokens=ANSWER_TOKENS, **chosen)


@dataclass(frozen=True)
class Answers:
    """Answers of one pair in one setting.

    Attributes:
        right: whether each item is answered right.
        timesteps: of a block, a mean.
    """

    right: tuple[bool, ...]
    timesteps: float


@dataclass(frozen=True)
class Row:
    """Answers to the same items in one setting, by the models of every training seed.

    Attributes:
        setting: of the row.
        answers: of each training seed.
    """

    setting: Setting
    answers: tuple[Answers, ...]

    @property
    def shares(self) -> list[float]:
        """Share of right answers of each training seed."""
        return [statistics.fmean(one.right) for one in self.answers]

    @property
    def timesteps(self) -> float:
        """Timesteps of a block, a mean over training seeds."""
        return statistics.fmean(one.timesteps for one in self.answers)

    @property
    def mean(self) -> float:
        """Mean over training seeds."""
        return statistics.fmean(self.shares)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval over the items of all training seeds together (Wilson); of other seeds it says nothing."""
        return wilson_interval(self.mean, sum(len(one.right) for one in self.answers))

    def as_json(self) -> dict[str, Any]:
        """Return the row for --json."""
        shares = {"shares": self.shares, "mean": self.mean, "interval_95": self.interval}
        return {**asdict(self.setting), **shares, "timesteps": self.timesteps, "items": len(self.answers[0].right)}


@dataclass(frozen=True)
class Comparison:
    """The core with a partner's feedback against its control, on the same items with the same seeds.

    Attributes:
        order, decoding, feedback: of both.
        only_partner: answers of all training seeds that only the core with a partner's feedback has right.
        only_control: answers that only the control has right.
        largest_p: of the exact sign tests of the training seeds.
    """

    order: str
    decoding: str
    feedback: str
    only_partner: int
    only_control: int
    largest_p: float


def settings(systems: Sequence[str]) -> list[Setting]:
    """Make the settings of the measurement, of the given systems."""
    return list(dict.fromkeys(each for order in ORDERS for system in systems for each in _of_system(system, order)))


def _of_system(system: str, order: str) -> Iterator[Setting]:
    if system in SWEPT:
        yield from _swept(system, order, SWEPT[system])
    if system != "autoregressive":
        for decoding, chosen in DECODINGS.items():
            if system != "experts" or chosen["stop"] == 0.4:  # there are none below
                yield from (Setting(system, order, decoding, feedback) for feedback in FEEDBACKS)


def _swept(system: str, order: str, decoding: tuple[str, str]) -> Iterator[Setting]:
    """Make the sweep over λ and α, with each model alone at its ends."""
    yield Setting(system, order, *decoding, lambda_user=0.0, alpha=0.0)
    for alpha in ALPHAS:
        yield from (Setting(system, order, *decoding, lambda_user, alpha) for lambda_user in (*LAMBDAS, 1.0))


def measure_claim(
    folders: Sequence[Path],
    *,
    limit: int,
    seed: int = 0,
    results_file: Path | None = None,
    on_answers: Callable[[str, int], None] = lambda _label, _answers: None,
) -> list[Row]:
    """Answer the same items in every setting, with the models of every training seed.

    Args:
        folders: of training seeds, as `train_claim` fills them.
        limit: items of each order.
        seed: of items and decodes.
        results_file: JSON lines; what is found there is not computed again. None: nothing is kept.
        on_answers: told the setting and how many answers have come since the last call.

    Returns:
        A row a setting. A system is measured on those training seeds that have it.

    Raises:
        ModelNotFound: if a folder has no models.
        InvalidParameter: if the results file cannot be read or written.
    """
    known = _known(results_file) if results_file else {}
    pairs = load_pairs(folders)
    rows = []
    for setting in settings(list(pairs)):
        answers = []
        for pair in pairs[setting.system]:
            key = _key(setting, pair, limit, seed)
            if (name := json.dumps(key)) not in known:
                known[name] = answer(pair, setting, limit, seed)
                if results_file:
                    append_result(results_file, {**key, **_packed(known[name])})
            answers.append(known[name])
            on_answers(setting.label, limit)
        rows.append(Row(setting, tuple(answers)))
    return rows


def load_pairs(folders: Sequence[Path]) -> dict[str, list[Pair]]:
    """Load the pairs of every system that some of the training seeds have.

    Raises:
        ModelNotFound: if a folder has none.
    """
    pairs: dict[str, list[Pair]] = {}
    for folder in folders:
        found = {name: both for name, both in FOLDERS.items() if all((folder / one / CONFIG).is_file() for one in both)}
        if not found:
            raise ModelNotFound(f"{folder} has no pair of the relation; train one there, or choose another folder")
        for name, (core, user) in found.items():
            pairs.setdefault(name, []).append(Pair.load(folder / core, folder / user))
    return pairs


def answer(pair: Pair, setting: Setting, limit: int, seed: int = 0) -> Answers:
    """Answer items, and see which answers have both values right.

    Args:
        pair: θ_core and θ_user.
        setting: how they answer.
        limit: number of items.
        seed: of items and decodes.
    """
    items = evaluation_items(setting.order, limit, seed)
    collaboration, params = CollaborationParams(setting.lambda_user, setting.alpha), setting.params(pair)
    costs = BlockCosts(collaboration, params)
    texts = answer_items(pair, items, collaboration, params, seed, batch_size=100, on_timestep=costs.see)
    right = tuple(gives_both(item, text) for item, text in zip(items, texts, strict=True))
    return Answers(right, costs.as_dict()["timesteps_per_block"])


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Compare the core with a partner's feedback with its control, wherever both were measured."""
    by_setting = {row.setting: row for row in rows}
    compared = []
    for setting, partner in by_setting.items():
        control = by_setting.get(Setting("control", setting.order, setting.decoding, setting.feedback))
        is_like_it = (setting.lambda_user, setting.alpha) == (LAMBDA, ALPHA)
        if setting.system != "partner" or not control or not is_like_it:
            continue
        pairs = zip(partner.answers, control.answers, strict=True)
        counts = [Discordant.of(ours.right, theirs.right) for ours, theirs in pairs]
        compared.append(
            Comparison(
                setting.order,
                setting.decoding,
                setting.feedback,
                sum(one.only_first for one in counts),
                sum(one.only_second for one in counts),
                max(one.p_value for one in counts),
            )
        )
    return compared


def _key(setting: Setting, pair: Pair, limit: int, seed: int) -> dict[str, Any]:
    """Return all that the answers depend on."""
    return {
        "setting": asdict(setting),
        "decoding": asdict(setting.params(pair)),
        "core_sha256": pair.core.sha256,
        "user_sha256": pair.user.sha256,
        "items": limit,
        "seed": seed,
    }


def _known(file: Path) -> dict[str, Answers]:
    """Return the results of earlier runs by what they depend on."""
    try:
        lines = [(line.pop("right"), line.pop("timesteps"), line) for line in read_results(file)]
        return {json.dumps(key): Answers(_unpacked(right, key["items"]), t) for right, t, key in lines}
    except (KeyError, TypeError, ValueError) as error:
        raise not_results(file) from error


def _packed(answers: Answers) -> dict[str, Any]:
    """Write a bit an item, in hexadecimal digits."""
    return {"right": f"{int(''.join('01'[one] for one in answers.right), 2):x}", "timesteps": answers.timesteps}


def _unpacked(right: str, items: int) -> tuple[bool, ...]:
    return tuple(bit == "1" for bit in f"{int(right, 16):b}".zfill(items))
