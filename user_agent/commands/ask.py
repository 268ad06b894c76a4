"""The command line of the agent. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.errors import InvalidParameter
from user_agent.commands.chat import CHAT_EXAMPLES, chat
from user_agent.commands.config import DOCTOR_EXAMPLES, doctor
from user_agent.commands.config import config as config_app
from user_agent.commands.docs import docs as docs_app
from user_agent.commands.ledger import ledger as ledger_app
from user_agent.commands.options import Ca, ClientCertificate, ClientKey, Insecure
from user_agent.commands.search import SEARCH_EXAMPLES, search
from user_agent.commands.tune import EXAMPLES as TUNE_EXAMPLES
from user_agent.commands.tune import tune

if TYPE_CHECKING:
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.models.control import Control
    from user_agent.answering.answer import Answer
    from user_agent.answering.run import Question
    from user_agent.config import AgentConfig
    from user_agent.documents.collection import Collection
    from user_agent.documents.passage import Passage
    from user_agent.line.client import CoreClient
    from user_agent.line.credentials import CoreCredentials
    from user_agent.store.ledger import Ledger
    from user_agent.store.tuned import Choice

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask a large model on a provider's server and a small one on this device together. "
    "Only the small one reads your documents; the provider reads every word that an answer takes from them.",
)

ASK_EXAMPLES = """
Examples:

  user-agent ask "Where did I put my spare key?" --docs ~/notes --core core.example.org:50051 --ca provider.pem

  user-agent ask "When does Fern Gallery open?" --core localhost:50051 --lambda-user 0

  user-agent ask "Where did I put my spare key?" --docs ~/notes --lambda-user 1   (no connection at all)

  user-agent ask "How was the concert?" --docs ~/notes --core localhost:50051 --control mood --control-label good
"""


@app.command(epilog=ASK_EXAMPLES)
def ask(
    question: Annotated[str, typer.Argument(help="Question for both models; it is sent.")],
    docs: Annotated[
        list[Path] | None, typer.Option(help="A document, or a folder of them; may be given again.")
    ] = None,
    core: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the core server, or of its replicas with commas between them; not needed at λ = 1, nor "
            "where it is kept: `user-agent config set core HOST:PORT`."
        ),
    ] = None,
    ca: Ca = None,
    insecure: Insecure = None,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the core's model; default: its first one that fits the user model.")
    ] = None,
    user_model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder of the user model; default: the demo's.")
    ] = None,
    lambda_user: Annotated[
        float | None,
        typer.Option(
            help="Weight of the user model, 0 to 1; default: as `user-agent tune` chose it for the two models, else "
            "0.3.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Contrastive strength: how much the documents are stressed; default: as tuned, else 1.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Most timesteps of a block; default: what suits the family, 25 for SSD-2.", show_default=False
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="End a block once its tokens stay the same for this many timesteps; where --stop is below 0.26 (for a "
            "vocabulary of 50,272), only timesteps below it count. Default: 2 for 25 --steps, in proportion for more, "
            "never fewer. 0 ends no block before its last timestep.",
            show_default=False,
        ),
    ] = None,
    entropy_bound: Annotated[
        float | None,
        typer.Option(
            help="End a block early only while the mean entropy of the mix is below this too, in nats. Costs privacy: "
            "a block that goes on although its tokens stay the same tells the core that the entropy is above, up to a "
            "bit a timestep about logits that never cross. Off by default.",
            show_default=False,
        ),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(help="How timesteps are spread: even, or changes (half of them where most tokens change, §3.1)."),
    ] = "even",
    core_every: Annotated[
        int,
        typer.Option(
            help="Ask the core at every so many timesteps and mix its last logits in between: fewer round trips. "
            "Approximate above 1."
        ),
    ] = 1,
    stop: Annotated[
        float | None,
        typer.Option(help="Share of T at which a block's timesteps stop; default: the model's.", show_default=False),
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Tokens denoised together; default: what the user model was trained with.")
    ] = None,
    projection: Annotated[str, typer.Option(help="greedy, sampling or multi-hot.")] = "sampling",
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling and multi-hot projections.")] = 0.2,
    temperature: Annotated[
        float, typer.Option(help="That the logits are divided by before they are projected; 1 is the paper's.")
    ] = 1.0,
    self_conditioning: Annotated[
        str, typer.Option(help="What each model is fed back: own or projection; at λ = 1 also mixed.")
    ] = "own",
    logits: Annotated[
        str | None,
        typer.Option(
            help="How the core's logits travel: float16 (all, 2 bytes each), uint8 (all, 1 byte) or top-k:K (the K "
            "largest, and what the others come to); default: top-k:64, or the closest that the provider allows.",
            show_default=False,
        ),
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(help="Folder of a text classifier with the models' tokenizer: steers the answer, on this device."),
    ] = None,
    control_label: Annotated[str, typer.Option(help="Class of it to write towards, by name or number.")] = "",
    control_strength: Annotated[float, typer.Option(help="How hard to steer; the thesis uses 100 to 2000.")] = 500.0,
    seed: Annotated[
        int | None, typer.Option(help="Repeat a decode. Leave it out for real use: a guessed seed replays your draws.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Longest answer, in tokens, as far as there is room behind the question; default: 48."),
    ] = None,
    speculation: Annotated[
        int | None,
        typer.Option(
            help="Timesteps that the core may send ahead, on guesses at what comes back; shortens the wait on a slow "
            "line, costs bytes, and changes no token; default: 4. 0: none."
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait for each answer of the core; default: 10.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show every timestep of every block while it is denoised.")
    ] = False,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Keep neither question nor answer among the conversations.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer one question with both models; only the small one reads the documents, and the provider reads the answer.

    What is not given is as set by a variable SLINGSHOT_… or in config.toml (user-agent config), else by default.
    """
    from ssd2.algorithm.params import Seeds
    from ssd2.logits.format import LogitsFormat
    from ssd2.models.control import Control
    from user_agent.answering.decoding import decoding_for
    from user_agent.answering.history_entry import keep_answer
    from user_agent.answering.run import Question
    from user_agent.answering.service import new_id
    from user_agent.answering.tuned_defaults import collaboration_for
    from user_agent.answering.user_model import UserModel
    from user_agent.config import config_with
    from user_agent.line.line import credentials_of, needed_line
    from user_agent.store.ledger import tracing
    from user_agent.stores import open_stores

    logits_format = LogitsFormat.parse(logits) if logits is not None else None
    if (control is None) != (not control_label):
        raise InvalidParameter("--control and --control-label go together; give a classifier and one of its classes")
    of_line = {"core": core, "ca": ca, "client_certificate": client_certificate, "client_key": client_key}
    of_models = {"model": model, "user_model": user_model, "lambda_user": lambda_user, "alpha": alpha}
    of_answer = {"steps": steps, "max_tokens": max_tokens, "speculation": speculation, "timeout": timeout}
    config = config_with(**of_line, **of_models, **of_answer, insecure=insecure)
    credentials = credentials_of(config) if needed_line(config) else None
    with open_stores(config) as stores:
        collaboration, tuned = collaboration_for(config, stores.ledger, credentials)
        if collaboration.uses_core and not config.core:
            raise InvalidParameter("λ below 1 needs a core; set its address", parameter="core")
        loaded = UserModel.load(config.user_model, with_weights=collaboration.uses_user)
        asked_params = decoding_for(
            loaded.config,
            patience=patience,
            block_size=block_size,
            max_tokens=config.max_tokens,
            steps=config.steps,
            stop=stop,
            schedule=schedule,
            entropy_bound=entropy_bound,
            core_every=core_every,
            projection=projection,
            top_p=top_p,
            temperature=temperature,
            self_conditioning=self_conditioning,
        )
        params = loaded.limited(question, asked_params)
        found = _found(docs, question, stores.documents) if collaboration.uses_user else []
        fitted = loaded.fitting(question, found, params.max_answer_tokens)
        asked = Question(
            question,
            fitted.passages,
            collaboration,
            params,
            Seeds.fresh() if seed is None else Seeds.reproducible(seed),
            config.model,
            logits_format,
            config.speculation,
            fitted.left_out,
            asked_params.max_tokens,
        )
        steering = Control.load(control, control_label, control_strength, loaded.tokenizer) if control else None
        line = partial(_client, config, credentials, stores.ledger) if collaboration.uses_core else None
        trace = new_id("ask")
        with tracing(trace):
            answer = asyncio.run(_ask(loaded, asked, line, steering, watch=watch))
        if docs and collaboration.uses_user and not found:
            typer.echo("user-agent: no passage of your documents matches; the answer does not use them", err=True)
        if tuned:
            _say_tuned(collaboration, tuned)
        _print_json(answer, asked) if as_json else _print(answer, asked)
        if not no_log:
            keep_answer(stores.history, asked, answer, trace)


app.command(epilog=TUNE_EXAMPLES)(tune)
app.command(epilog=CHAT_EXAMPLES)(chat)
app.command(epilog=DOCTOR_EXAMPLES)(doctor)
app.add_typer(config_app, name="config")
docs_app.command(epilog=SEARCH_EXAMPLES)(search)
app.add_typer(docs_app, name="docs")
app.add_typer(ledger_app, name="ledger")


SERVE_EXAMPLES = """
Examples:

  user-agent serve                                   (the demo's two models, everything on this machine)

  user-agent serve --core core.example.org:50051 --ca provider.pem

  curl http://127.0.0.1:8642/v1/models -H "Authorization: Bearer $SLINGSHOT_API_KEY"
"""


@app.command(epilog=SERVE_EXAMPLES)
def serve(
    core: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the core server, or of its replicas with commas between them; none: the demo's, on this "
            "machine."
        ),
    ] = None,
    ca: Ca = None,
    insecure: Insecure = None,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for any free one; default: 8642.", show_default=False)
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of what the agent keeps; default: ~/.local/share/slingshot.", show_default=False),
    ] = None,
    max_answers: Annotated[
        int | None, typer.Option(help="Answers computed at a time; default: 2.", show_default=False)
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option(help="Further ones that wait; default: 32.", show_default=False)
    ] = None,
) -> None:
    """Run the agent: a page for the browser, and a REST endpoint that OpenAI's clients speak.

    Every setting is also an environment variable, SLINGSHOT_ and its name (user-agent config).
    """
    from user_agent.serve import serve as run

    line = {"core": core, "ca": ca, "client_certificate": client_certificate, "client_key": client_key}
    options = {**line, "insecure": insecure, "host": host, "port": port, "data_dir": data_dir}
    asyncio.run(run(_announce, **options, max_answers=max_answers, max_waiting=max_waiting))


def _announce(url: str, state: Any) -> None:
    """Where the agent is. The key stands behind #, which no browser sends, and is for eyes, not for a log."""
    from user_agent.documents.extraction import exposure_warning
    from user_agent.line.line import how_protected

    line = state.line
    core = line.address and f"{line.address}, {how_protected(state.config, line.address)}"
    if line.is_demo:
        core = f"{line.address}, the demo's, started on this machine"
    typer.echo(f"user-agent: listening on {url}")
    key = state.api_key if sys.stdout.isatty() else None
    typer.echo(f"  page      {url}/{f'#key={key}' if key else ''}")
    typer.echo(f"  REST      {url}/v1   key {key or 'as `user-agent config show --key` prints it'}")
    typer.echo(f"  core      {core or 'none: the user model answers alone (λ 1)'}")
    typer.echo(f"  kept in   {state.config.data_dir}, encrypted with a key from: {state.stores.key_source}")
    if exposure := state.stores.documents.exposure():
        typer.echo(f"user-agent: warning: {exposure_warning(exposure)}", err=True)


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seed: Annotated[int, typer.Option(help="Of the decodes.")] = 1,
) -> None:
    """Ask three questions about sample notes: the core alone, the user model alone, and both together.

    Starts a core server with the demo core on a free port, as a process of its own.
    """
    from user_agent.commands.demo import run_demo

    run_demo(seed=seed, as_json=as_json)


def _found(docs: list[Path] | None, question: str, library: Collection) -> list[Passage]:
    """Passages from what is given, or from what is linked."""
    from user_agent.documents.reader import read_documents
    from user_agent.documents.search import search

    if not docs:
        return library.search(question)
    corpus = read_documents(docs)
    for line in corpus.told():
        typer.echo(f"user-agent: {line}", err=True)
    return search(corpus.passages, question)


def _client(config: AgentConfig, credentials: CoreCredentials | None, ledger: Ledger) -> CoreClient:
    from user_agent.line.client import CoreClient

    return CoreClient(config.core or "", ledger, credentials=credentials, answer_timeout_s=config.timeout)


async def _ask(
    user_model: Any, question: Question, line: Callable[[], CoreClient] | None, control: Control | None, *, watch: bool
) -> Answer:
    from user_agent.answering.run import Agent
    from user_agent.commands.watching import TerminalObserver

    with TerminalObserver(user_model.tokenizer, watch=watch) as observer:
        if line is None:
            return await Agent(user_model, None, control).answer(question, observer)
        async with line() as client:
            return await Agent(user_model, client, control).answer(question, observer)


def _say_tuned(used: CollaborationParams, tuned: Choice) -> None:
    typer.echo(
        f"user-agent: λ {used.lambda_user:g}, α {used.alpha:g}: where not given, as tuned on {tuned.tuned_on} for "
        "these two models (user-agent tune --show)",
        err=True,
    )


def _print_json(answer: Answer, asked: Question) -> None:
    from user_agent.answering.traces import fit_json, passage_json

    passages = [passage_json(passage) for passage in asked.passages]
    typer.echo(json.dumps({**asdict(answer), "passages": passages, **fit_json(asked)}, ensure_ascii=False))


def _print(answer: Answer, asked: Question) -> None:
    from rich.console import Console

    from user_agent.commands.render import marked, remarks, summary
    from user_agent.store.printable import printable

    Console(highlight=False).print(marked(answer), soft_wrap=True)
    console = Console(stderr=True, highlight=False, style="dim")
    console.print(summary(answer))
    for passage in asked.passages:
        place = f"{passage.place}{', in part' if passage.is_cut else ''}"
        console.print(f"  {printable(place)}  {printable(passage.text)}", markup=False, emoji=False, soft_wrap=True)
    for remark in remarks(asked):
        console.print(remark, markup=False, emoji=False, soft_wrap=True)
