"""`user-agent docs search`: it needs the user model's tokenizer, which the other commands of the group do without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import examples
from ssd2.errors import InvalidParameter
from user_agent.commands.docs import AsJson, opened_collection, print_json, print_table
from user_agent.commands.setting_options import with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from user_agent.answering.user_model import Fitted, UserModel
    from user_agent.documents.collection import Collection
    from user_agent.documents.passage import Passage

EXAMPLES = examples('user-agent docs search "When is my dentist appointment?"')


@with_settings("pair", "user_model", "system_prompt", "private_context", "data_dir")
def search(
    config: AgentConfig,
    query: Annotated[str | None, typer.Argument(help="Words or a question.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of passages to print.", min=1)] = 10,
    as_json: AsJson = False,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a query: a file of JSON lines with id and text. For each, the passages that the user "
            "model would read are printed as a JSON line, as ssd2 evaluate documents --passages reads them.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the passages found for a question, and which of them the user model would read, whole or in part.

    How many fit depends on the user model, the length of the question and the setting max_tokens. Nothing is sent.
    """
    from user_agent.answering.user_model import UserModel
    from user_agent.documents.passage import told_in_order

    if (query is None) == (questions is None):
        raise InvalidParameter("give a query or --questions FILE, one of the two", parameter="query")
    asked = _read_questions(questions) if questions else {}
    user_model = UserModel.load(config.user_folder, with_weights=False)
    with opened_collection(config) as (library, _):
        if query is None:
            for name, text in asked.items():
                passages = _fitted(config, user_model, library, text).passages
                print_json({"id": name, "passages": told_in_order(passages)})
            return
        fitted = _fitted(config, user_model, library, query)
    _print(fitted, limit, as_json)


def _read_questions(file: Path) -> dict[str, str]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {str(line["id"]): str(line["text"]) for line in lines}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidParameter(
            f"{file} does not contain questions ({error!r}); write JSON lines with id and text", parameter="questions"
        ) from error


def _fitted(config: AgentConfig, user_model: UserModel, library: Collection, query: str) -> Fitted:
    """Search, and fit what was found into the user model's prompt."""
    from user_agent.answering.decoding import decoding_for
    from user_agent.answering.user_model import given_at_zero

    said = user_model.instructed(config.system_prompt).laid_out(config.answer_layout)
    params = user_model.limited(query, decoding_for(config, user_model.config), conversation=said)
    found = library.search(query, config.request(query).document_ids)
    if config.lambda_user == 0:
        return given_at_zero(found)
    return user_model.fitting(query, found, params.max_answer_tokens, said, config.private_context)


def _print(fitted: Fitted, limit: int, as_json: bool) -> None:
    given, left_out = fitted.passages[:limit], fitted.left_out[: max(0, limit - len(fitted.passages))]
    more = len(fitted.passages) + len(fitted.left_out) - len(given) - len(left_out)
    if as_json:
        from user_agent.answering.traces import passage_json

        shown = {"passages": [passage_json(one) for one in given], "left_out": [passage_json(one) for one in left_out]}
        print_json({**shown, "why_none": fitted.why_none, "more": more})
        return
    share_of_others = "no" if fitted.why_none else "does not fit"
    rows = [*((_share(one), one) for one in given), *((share_of_others, one) for one in left_out)]
    print_table(("given", "where", "passage"), ((share, one.place, one.told) for share, one in rows))
    if fitted.why_none:
        typer.echo(f"user-agent: {fitted.why_none}", err=True)
    if more:
        typer.echo(f"user-agent: {more} more were found; use a larger --limit to see them", err=True)


def _share(passage: Passage) -> str:
    return "in part" if passage.is_cut else "whole"
