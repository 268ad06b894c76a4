"""Report of text metrics: a Markdown page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.evaluation.page import write_page
from ssd2.lab.text_metrics import TextMetrics, as_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXPLANATION = """\
PPL: perplexity of the texts given their prompts, all tokens weighing the same; Δ log PPL: distance of its logarithm
from that of the references. dist-n: distinct n-grams over words, among the texts of a prompt, mean over prompts.
Zipf: minus the slope of log frequency over log rank of the tokens. Repetition: share of texts that end in a repeated
phrase, with its 95% interval (Wilson). MAUVE: nearness to the references. These metrics are those of SSD-LM (arXiv
2210.17432); natural text has them near those of the references, so for PPL, dist-n and Zipf neither high nor low is
good in itself. BERTScore (arXiv 1904.09675): means over the texts of precision, recall and F1 against the reference,
F1 with its 95% interval (normal approximation)."""


def write_text_report(folder: Path, rows: Sequence[TextMetrics], how: str, command: str) -> Path:
    """Write text.md and text.svg.

    Args:
        folder: made if missing.
        rows: of the table.
        how: model and tokens of the measurement, in a sentence or two.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    page = f"""# Metrics of texts

![Text metrics](text.svg)

{as_table(rows)}

{_EXPLANATION}

{how} Made by:
```
{command}
```
"""
    return write_page(folder, "text", page, (9, 0.9 + 0.25 * len(rows)), lambda figure: _draw(figure, rows))


def _draw(figure: Figure, rows: Sequence[TextMetrics]) -> None:
    """Draw a panel per measured metric, with the rows along the axis; repetition with its interval."""
    metrics: dict[str, list[float | None]] = {
        "PPL": [row.perplexity for row in rows],
        **{f"dist-{n}": [row.distinct[n - 1] for row in rows] for n in (1, 2, 3)},
        "Zipf": [row.zipf for row in rows],
        "repetition": [row.repetition for row in rows],
        "MAUVE": [row.mauve for row in rows],
        "BERTScore F1": [row.bertscore.f1 if row.bertscore else None for row in rows],
    }
    measured = {title: values for title, values in metrics.items() if any(value is not None for value in values)}
    panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    places = range(len(rows))
    for panel, (title, values) in zip(panels, measured.items(), strict=True):
        known = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
        panel.plot([value for value, _ in known], [place for _, place in known], "o", markersize=4)
        if title == "repetition":
            panel.hlines(places, *zip(*(row.repetition_interval for row in rows), strict=True), linewidth=1)
        panel.set(title=title, yticks=places, yticklabels=[row.label for row in rows])
        panel.margins(x=0.2, y=0.3)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
