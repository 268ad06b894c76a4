"""Metrics of texts, as for unconstrained generation in SSD-LM (arXiv 2210.17432).

    perplexity   of the texts given their prompts under a separate causal model, a micro average over tokens
    Δ log PPL    |log perplexity of the texts - log perplexity of the references|
    dist-n       distinct n-grams among the texts of a prompt over their words, mean over prompts (Li et al. 2016)
    Zipf         minus the slope of log frequency over log rank of the tokens
    repetition   share of texts that end in a repeated phrase (Holtzman et al. 2020)
    MAUVE        similarity of the texts to the references (Pillutla et al. 2021)
    BERTScore    of each text against its reference, see `ssd2.lab.bert_score`

Shares are in [0, 1]; SSD-LM's tables give MAUVE, dist-n and repetition in percent. Choices its text leaves
open (longest phrase, number of ranked tokens, divisor of dist-n) follow the program that made its tables.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ssd2.errors import InvalidParameter
from ssd2.evaluation.generations import Generation
from ssd2.evaluation.intervals import wilson_interval
from ssd2.lab.bert_score import BertScore
from ssd2.lab.perplexity import Likelihood, perplexity

LONGEST_PHRASE = 90
"""Longest repeated phrase searched for, in tokens."""
SHORTEST_PHRASE = 3
MANY_TIMES = 50
"""A phrase shorter than `SHORTEST_PHRASE` counts if it is repeated more often than this ("ha ha ha …")."""
RANKED_TOKENS = 5000
"""Number of most frequent tokens that the Zipf coefficient is fitted to."""
REFERENCES = "references"
"""Label of the row of the references."""
MAUVE_TOKENS = 256
"""Longest prompt and text together; longer ones are cut, as in SSD-LM's evaluation."""

Tokenize = Callable[[str], Sequence[Hashable]]
Likelihoods = Mapping[tuple[str, str], Likelihood]
"""Likelihoods by (context, text)."""


@dataclass(frozen=True)
class TextMetrics:
    """One row of the table; None stands for a metric that was not measured.

    Attributes:
        label: of the group of texts.
        texts: number of texts.
        perplexity: see the module.
        delta_log_ppl: against the references of these texts.
        distinct: dist-1, dist-2 and dist-3.
        zipf: coefficient; about 1 for natural text.
        repetition: share of texts.
        repetition_interval: its 95% interval (Wilson).
        mauve: in [0, 1].
        bertscore: of the texts against their references.
        cut: texts whose end exceeds the positions of the scoring model.
    """

    label: str
    texts: int
    perplexity: float | None
    delta_log_ppl: float | None
    distinct: tuple[float | None, float | None, float | None]
    zipf: float | None
    repetition: float
    repetition_interval: tuple[float, float]
    mauve: float | None
    bertscore: BertScore | None
    cut: int

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        return asdict(self)


def measure_groups(
    groups: Mapping[str, Sequence[Generation]],
    tokenize: Tokenize,
    likelihoods: Likelihoods | None = None,
    mauve: Callable[[Sequence[Generation]], float] | None = None,
    bertscore: Callable[[Sequence[Generation]], BertScore] | None = None,
) -> list[TextMetrics]:
    """Return a row per group, after one for all references if there are any.

    Args:
        groups: texts by label.
        tokenize: see `measure_texts`.
        likelihoods: see `measure_texts`.
        mauve: `mauve_score` or a stand-in; None skips MAUVE.
        bertscore: mean score of a group; None skips BERTScore.
    """
    references = references_of(one for group in groups.values() for one in group)
    rows = [measure_texts(REFERENCES, references, tokenize, likelihoods)] if references else []
    for label, group in groups.items():
        compared = mauve(group) if mauve else None, bertscore(group) if bertscore else None
        rows.append(measure_texts(label, group, tokenize, likelihoods, *compared))
    return rows


def texts_to_score(groups: Mapping[str, Sequence[Generation]]) -> list[tuple[str, str]]:
    """Return every text and reference with its context, as (context, text), each once."""
    every = [one for group in groups.values() for one in group]
    return list(dict.fromkeys((one.context, one.text) for one in (*every, *references_of(every))))


def pairs_to_compare(groups: Mapping[str, Sequence[Generation]]) -> list[tuple[str, str]]:
    """Return every text with its reference, as (text, reference), each pair once.

    Raises:
        InvalidParameter: if a text has no reference.
    """
    every = [one for group in groups.values() for one in group]
    return list(dict.fromkeys((one.text, _reference(one, "BERTScore")) for one in every))


def _reference(generation: Generation, metric: str) -> str:
    if generation.reference is None:
        raise InvalidParameter(f'{metric} compares texts with references; give each line a "reference"')
    return generation.reference


def measure_texts(
    label: str,
    generations: Sequence[Generation],
    tokenize: Tokenize,
    likelihoods: Likelihoods | None = None,
    mauve: float | None = None,
    bertscore: BertScore | None = None,
) -> TextMetrics:
    """Return all metrics of a group of texts.

    Args:
        label: of the group.
        generations: at least one.
        tokenize: makes the tokens of Zipf coefficient and repetition.
        likelihoods: of each text, and of each reference, given its context.
        mauve: computed by `mauve_score`.
        bertscore: computed by `mean_score`.
    """
    tokens = [tokenize(generation.text) for generation in generations]
    repetition = sum(map(is_repetitive, tokens)) / len(tokens)
    own = [likelihoods[g.context, g.text] for g in generations] if likelihoods else []
    ppl = perplexity(own)
    return TextMetrics(
        label,
        len(generations),
        ppl,
        _delta_log_ppl(ppl, generations, likelihoods),
        (distinct_n(generations, 1), distinct_n(generations, 2), distinct_n(generations, 3)),
        zipf_coefficient(token for text in tokens for token in text),
        repetition,
        wilson_interval(repetition, len(tokens)),
        mauve,
        bertscore,
        sum(one.is_cut for one in own),
    )


def references_of(generations: Iterable[Generation]) -> list[Generation]:
    """Return the references as texts, each once per prompt."""
    return list(dict.fromkeys(replace(g, text=g.reference) for g in generations if g.reference is not None))


def _delta_log_ppl(
    ppl: float | None, generations: Sequence[Generation], likelihoods: Likelihoods | None
) -> float | None:
    references = references_of(generations)
    if not (ppl and likelihoods and references):
        return None
    reference_ppl = perplexity(likelihoods[one.context, one.text] for one in references)
    return abs(math.log(ppl) - math.log(reference_ppl)) if reference_ppl else None


def distinct_n(generations: Iterable[Generation], n: int) -> float | None:
    """Return dist-n: distinct n-grams of a prompt's texts over their words, mean over prompts.

    Words are split at white space. Whatever n is, the divisor is the number of words, as in Li et al.
    2016 (arXiv 1510.03055), so that dist-2 and dist-3 of short texts stay below 1.

    Returns:
        None if there is no word.
    """
    texts: dict[str, list[list[str]]] = {}
    for generation in generations:
        texts.setdefault(generation.prompt, []).append(generation.text.split())
    shares = []
    for of_prompt in texts.values():
        if words := sum(map(len, of_prompt)):
            grams = {tuple(text[i : i + n]) for text in of_prompt for i in range(len(text) - n + 1)}
            shares.append(len(grams) / words)
    return statistics.fmean(shares) if shares else None


def is_repetitive(tokens: Sequence[Hashable]) -> bool:
    """Return True if a text ends in a phrase that is repeated in a row.

    The phrase is the most repeated one at the end, the shortest of equals. It counts if it has `SHORTEST_PHRASE`
    tokens or is repeated more than `MANY_TIMES`.

    Source: Holtzman et al. 2020 (arXiv 1904.09751), in the form of SSD-LM's evaluation.
    """
    longest = min(LONGEST_PHRASE, len(tokens) // 2)
    times, length = max(((_times_at_end(tokens, n), -n) for n in range(1, longest + 1)), default=(1, 0))
    return times > 1 and (-length >= SHORTEST_PHRASE or times > MANY_TIMES)


def _times_at_end(tokens: Sequence[Hashable], length: int) -> int:
    """Count how often in a row a text's last tokens stand at its end."""
    phrase, times = tokens[-length:], 1
    while (times + 1) * length <= len(tokens):
        begin = len(tokens) - (times + 1) * length
        if tokens[begin : begin + length] != phrase:
            break
        times += 1
    return times


def zipf_coefficient(tokens: Iterable[Hashable]) -> float | None:
    """Fit the Zipf coefficient: minus the slope of log frequency over log rank of the `RANKED_TOKENS` most frequent.

    Returns:
        None if there are fewer than two different tokens.
    """
    frequencies = [count for _, count in Counter(tokens).most_common(RANKED_TOKENS)]
    if len(frequencies) < 2:
        return None
    ranks = [math.log(rank) for rank in range(1, len(frequencies) + 1)]
    slope = statistics.linear_regression(ranks, [math.log(frequency) for frequency in frequencies]).slope
    return -slope + 0.0  # no -0


def mauve_score(generations: Sequence[Generation], model: str = "gpt2-large", device: int = -1) -> float:
    """Compute MAUVE between references and texts, each behind its prompt.

    Calls the mauve-text package with its defaults: scores are comparable only for as many texts and the same
    embedding model. The tests call a stand-in of that package's documented interface; the package itself
    was not run.

    Args:
        generations: with references.
        model: that embeds the texts: a name on the hub or a folder.
        device: number of the GPU, -1 for the CPU.

    Raises:
        InvalidParameter: if a reference or the package is missing.
    """
    for generation in generations:
        _reference(generation, "MAUVE")
    try:
        import mauve
    except ImportError as error:
        raise InvalidParameter(
            "MAUVE requires the mauve-text package (GPLv3); install it with: pip install 'slingshot[mauve]'"
        ) from error
    result = mauve.compute_mauve(
        p_text=[one.context + one.text for one in references_of(generations)],
        q_text=[one.context + one.text for one in generations],
        featurize_model_name=model,
        device_id=device,
        max_text_length=MAUVE_TOKENS,
        verbose=False,
    )
    return float(result.mauve)


def as_table(rows: Sequence[TextMetrics]) -> str:
    """Return the table, a row per group of texts; "–" was not measured."""
    counted = ("texts", "PPL", "Δ log PPL", "dist-1", "dist-2", "dist-3", "Zipf", "repetition")
    titles = (*counted, "MAUVE", "BERTScore P", "R", "F1")
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for row in rows:
        cells = [
            str(row.texts),
            *(_cell(value) for value in (row.perplexity, row.delta_log_ppl, *row.distinct, row.zipf)),
            _cell(row.repetition, row.repetition_interval),
            _cell(row.mauve),
            *_bertscore_cells(row.bertscore),
        ]
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bertscore_cells(score: BertScore | None) -> tuple[str, ...]:
    if score is None:
        return ("–", "–", "–")
    return (_cell(score.precision), _cell(score.recall), _cell(score.f1, score.f1_interval))


def _cell(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})" if interval else f"{value:.3f}"
