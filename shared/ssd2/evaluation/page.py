"""Markdown pages with a plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(
    folder: Path, name: str, markdown: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> Path:
    """Write NAME.svg, then the page NAME.md that shows it.

    Args:
        folder: made if missing.
        name: of both files.
        markdown: the page.
        size: of the plot, in inches.
        draw: puts the plot into a figure.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidParameter(
            "a report requires the matplotlib package; install it with: pip install 'slingshot[train]'"
        ) from error
    file = folder / f"{name}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A fixed salt and no date: the same results are the same file.
        with mpl.rc_context({"svg.hashsalt": "slingshot", "font.size": 8}):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        file.write_text(markdown, encoding="utf-8")
    except OSError as error:
        raise InvalidParameter(
            f"cannot write a report to {folder}: {error}; choose another folder", parameter="out"
        ) from error
    return file
