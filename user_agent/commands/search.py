"""`user-agent docs search`: it needs the user model's tokenizer, which the other commands of the group do without."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import examples
from user_agent.commands.docs import AsJson, opened_collection, print_json, print_table
from user_agent.commands.setting_options import with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from user_agent.documents.passage import Passage

EXAMPLES = examples('user-agent docs search "When is my dentist appointment?"')


@with_settings("data_dir")
def search(
    config: AgentConfig,
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    limit: Annotated[int, typer.Option(help="Maximum number of passages to print.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the passages found for a question, and which of them the user model would read, whole or in part.

    How many fit depends on the user model, the length of the question and the setting max_tokens. Nothing is sent.
    """
    from user_agent.answering.decoding import decoding_for
    from user_agent.answering.user_model import UserModel, given_at_zero

    user_model = UserModel.load(config.user_folder, with_weights=False)
    params = user_model.limited(query, decoding_for(config, user_model.config))
    with opened_collection(config) as (library, _):
        found = library.search(query, config.request(query).document_ids)
        is_given = config.lambda_user != 0
        fitted = user_model.fitting(query, found, params.max_answer_tokens) if is_given else given_at_zero(found)
    given, left_out = fitted.passages[:limit], fitted.left_out[: max(0, limit - len(fitted.passages))]
    more = len(fitted.passages) + len(fitted.left_out) - len(given) - len(left_out)
    if as_json:
        shown = {"passages": [asdict(one) for one in given], "left_out": [asdict(one) for one in left_out]}
        print_json({**shown, "why_none": fitted.why_none, "more": more})
        return
    share_of_others = "no" if fitted.why_none else "does not fit"
    rows = [*((_share(one), one) for one in given), *((share_of_others, one) for one in left_out)]
    print_table(("given", "where", "passage"), ((share, one.place, one.text) for share, one in rows))
    if fitted.why_none:
        typer.echo(f"user-agent: {fitted.why_none}", err=True)
    if more:
        typer.echo(f"user-agent: {more} more were found; use a larger --limit to see them", err=True)


def _share(passage: Passage) -> str:
    return "in part" if passage.is_cut else "whole"
