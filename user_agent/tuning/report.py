"""Tuning as terminal text: what is about to happen, and the curve."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ssd2.algorithm.params import LambdaUser, lambda_text
from user_agent.store.printable import printable
from user_agent.store.tuned import Choice, Measured

BAR_CELLS = 24
_RULE = "λ auto, else the smallest λ, then the smallest α, within one standard error of the best."
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float) -> str:
    """A share of `BAR_CELLS` cells, to an eighth of a cell."""
    eighths = round(share * BAR_CELLS * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def curve(choice: Choice) -> RenderableType:
    """All settings with their shares, the chosen one marked, and what the choice rests on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("λ", "α", "right", "95%", ""):
        table.add_column(name)
    for point in choice.curve:
        table.add_row(*_cells(point), style="bold" if point == choice.chosen else "")
    return Group(table, Text(), Text(_sentences(choice)))


def _cells(point: Measured) -> tuple[str, ...]:
    alpha = f"{point.alpha:g}" if point.lambda_user else "-"
    return (
        lambda_text(point.lambda_user),
        alpha,
        f"{point.share:.2f}",
        f"{point.low:.2f}–{point.high:.2f}",
        bar(point.share),
    )


def _sentences(choice: Choice) -> str:
    chosen = choice.chosen
    origin = "made from your documents" if choice.source == "documents" else "of your own"
    text = (
        f"Chosen: λ {lambda_text(chosen.lambda_user)}, α {chosen.alpha:g}, {chosen.share:.2f} right "
        f"({chosen.low:.2f}–{chosen.high:.2f}) of {choice.questions} questions {origin}: {_RULE}"
    )
    text += _against_constant(choice)
    if choice.alike:
        text += f"\nAt 95% it cannot be distinguished from {_settings(choice.alike)}; more questions would narrow that."
    if choice.source == "documents":
        text += (
            "\nThe core was not asked these questions, so this λ is more likely too large than too small for questions "
            "that it is asked. Your own questions (--questions) measure that too."
        )
    return text


def _against_constant(choice: Choice) -> str:
    """Say whether λ auto or the best constant λ is better on these questions; nothing if not both were measured."""
    auto = next((point for point in choice.curve if point.lambda_user == "auto"), None)
    if auto is None or choice.constant is None:
        return ""
    constant = choice.measured(*choice.constant)
    name = f"the best constant setting, λ {lambda_text(constant.lambda_user)}, α {constant.alpha:g}"
    shares = f"\nλ auto has {auto.share:.2f} right, {name}, {constant.share:.2f}: "
    if choice.chosen == auto:
        how = "better" if auto.share > constant.share else "as good within the noise of these questions"
        return f"{shares}auto is {how}, and needs no search."
    return f"{shares}the constant is better by more than one standard error."


def _settings(pairs: Sequence[tuple[LambdaUser, float]]) -> str:
    """λ and α of some settings, by α."""
    by_alpha = [
        (alpha, [lambda_user for lambda_user, a in pairs if a == alpha]) for alpha in sorted({a for _, a in pairs})
    ]
    return " and ".join(f"λ {', '.join(map(lambda_text, lambdas))} with α {alpha:g}" for alpha, lambdas in by_alpha)


def heading(choice: Choice) -> str:
    """For whom a choice was made, and when."""
    return printable(
        f"Core {choice.core_model} ({choice.core_sha256[:12]}), user model {choice.user_sha256[:12]}, "
        f"tuned on {choice.tuned_on}{'' if choice.seed is None else f', seed {choice.seed}'}"
    )


def crossing(
    source: str, core: str, core_model: str, questions: int, asked: int, megabytes: float, system_prompt: str
) -> str:
    """Describe what a run is going to send, before it starts.

    Args:
        source: "documents" or "questions".
        core: address.
        core_model: what the core calls its model.
        questions: how many.
        asked: how often the core is asked: public instructions, or settings of each question.
        megabytes: that come down, at most.
        system_prompt: that goes before each question; "" for none.
    """
    said = printable(f', each with the system prompt "{system_prompt}"') if system_prompt else ""
    where = printable(f"the core at {core} ({core_model})")
    if source == "documents":
        return (
            f"What crosses: nothing of your documents. By itself {where} answers {asked} fixed public instructions, "
            f'such as "Where is it?"{said}; up to {megabytes:,.1f} MB come down, then the connection is closed. The '
            "questions quote your documents: they stay on this device, and so do the answers."
        )
    return (
        f"What crosses: your {questions} questions, word for word, {asked} times each{said}, to {where}; and the "
        "tokens of every answer and of every timestep before it, which can quote your documents, also at "
        f"settings that you would not choose. Up to {megabytes:,.1f} MB come down. Never sent: the expected answers, "
        "documents, their names, λ or α. The order is shuffled, and each time has its own random draws, as with "
        "`user-agent ask`. But the core sees which tokens are not its own and how long this device takes, and each "
        "question comes at all settings: it can guess the λ and α of each time, and how strongly your documents change "
        "an answer, better than from one `ask`."
    )
