"""A tuning run from its options to the saved choice."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.errors import CoreError, InvalidParameter, PromptTooLong
from ssd2.evaluation.intervals import wilson_interval
from ssd2.logits.format import LogitsFormat
from ssd2.models.checkpoint import fingerprint
from ssd2.wire.codec import ModelCard
from user_agent.answering.conversation import Conversation
from user_agent.answering.decoding import decoding_for
from user_agent.answering.run import Agent
from user_agent.answering.settings import ServiceSettings
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.documents.reader import read_documents
from user_agent.documents.search import search
from user_agent.errors import DocumentsUnreadable
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.store.ledger import Ledger
from user_agent.store.tuned import Choice, Measured, save_choice, saved_choice
from user_agent.tuning.choosing import Outcomes, choose
from user_agent.tuning.questions import TuningQuestion, cloze_questions, read_questions
from user_agent.tuning.recording import PUBLIC_INSTRUCTIONS, Recording, check_recording_size, record, recording_bytes
from user_agent.tuning.report import crossing
from user_agent.tuning.stored_answers import StoredAnswers
from user_agent.tuning.sweep import SETTINGS, AskingJudge, Judge, RecordedJudge, Task, sweep

MAX_RUN_SEED = 2**62
"""Below the largest seed by more than any number of questions."""

_WITH_CONTRAST = CollaborationParams(1.0, 1.0)


@dataclass(frozen=True)
class TuneOptions:
    """A run as it is asked for.

    Attributes:
        docs: documents to tune for; empty for the linked ones.
        questions: file of the user's own questions; None makes questions of the documents.
        core: HOST:PORT.
        questions_limit: most questions to ask.
        answers: how each of them is answered, and by which user model, but for λ and α.
        timeout_s: to wait for each answer of the core.
        is_confirmed: whether to start without asking.
        credentials: of the line; None for one on this machine, without a key.
    """

    docs: tuple[Path, ...]
    questions: Path | None
    core: str
    questions_limit: int
    answers: ServiceSettings
    timeout_s: float
    is_confirmed: bool
    credentials: CoreCredentials | None = None

    def __post_init__(self) -> None:
        if not self.core:
            raise InvalidParameter("tuning needs a core; set the core's address", parameter="core")
        if self.seed is not None and not 0 <= self.seed < MAX_RUN_SEED:
            raise InvalidParameter(
                f"seed is {self.seed}; to tune, choose a number below 2^62", parameter="seed", limit=MAX_RUN_SEED - 1
            )

    @property
    def model(self) -> str:
        """Name of the core's model; "" for the first that fits."""
        return self.answers.model

    @property
    def seed(self) -> int | None:
        """Seed of the run; None draws one."""
        return self.answers.seed

    @property
    def source(self) -> str:
        """Source of the questions."""
        return "documents" if self.questions is None else "questions"


@dataclass(frozen=True)
class Run:
    """A run that is ready to start.

    Attributes:
        options: as asked for.
        user_model: θ_user with its weights.
        params: how to decode.
        card: of the core.
        tasks: questions with their passages.
        kept: answers so far.
        ledger: where all that is sent is entered.
    """

    options: TuneOptions
    user_model: UserModel
    params: DecodingParams
    card: ModelCard
    tasks: list[Task]
    kept: StoredAnswers
    ledger: Ledger

    @property
    def logits_format(self) -> LogitsFormat:
        """Format of the core's logits, the same as that of an answer."""
        return _logits_format(self.options, self.card)

    @property
    def conversation(self) -> Conversation:
        """Conversation before each question: the system prompt."""
        return self.user_model.instructed(self.options.answers.system_prompt)

    @property
    def answers(self) -> int:
        """Number of answers in a whole run."""
        return len(SETTINGS) * len(self.tasks)


def run_tune(
    options: TuneOptions, console: Console, ledger: Ledger, linked: Callable[[], list[Passage]] = list
) -> tuple[Choice, Path]:
    """Measure all settings, choose one and save it.

    Args:
        options: what was asked for.
        console: for what is going to cross and for the progress; stderr.
        ledger: where all that is sent is entered.
        linked: passages of the linked documents, for a run that names no others.

    Returns:
        The choice, and the file it was saved in.

    Raises:
        SlingshotError: of the kind that says what went wrong; answers so far are kept.
        SystemExit: 130 if the run is stopped by Ctrl-C; answers so far are kept.
        typer.Abort: if the user does not want it.
    """
    run = _prepare(options, console, ledger, linked)
    _announce(run, console)
    try:
        outcomes = asyncio.run(_measure(run, console))
    except CoreError as error:
        raise type(error)(f"{error}; {_how_to_go_on(run)}", parameter=error.parameter, limit=error.limit) from error
    except KeyboardInterrupt:
        console.print(f"stopped; {_how_to_go_on(run)}")
        sys.exit(130)
    choice = _choice(run, outcomes)
    file = save_choice(choice)
    run.kept.done()
    return choice, file


def _prepare(options: TuneOptions, console: Console, ledger: Ledger, linked: Callable[[], list[Passage]]) -> Run:
    """Do all that can go wrong before anything is sent but the request for the core's card."""
    user_model = UserModel.configured(options.answers, with_weights=True)
    passages = _read(options.docs, console) if options.docs else linked()
    if not passages:
        raise DocumentsUnreadable("tuning needs your documents; link a folder, or choose one", parameter="docs")
    own = read_questions(options.questions) if options.questions else []
    card = asyncio.run(_model_card(options, user_model.config.family, ledger))
    params = decoding_for(options.answers, user_model.config, card.measured)
    if not options.questions:
        check_recording_size(params, user_model.config.vocab_size)
    kept = StoredAnswers(
        _depends_on(options, user_model, params, card, passages, own),
        secrets.randbelow(MAX_RUN_SEED) if options.seed is None else options.seed,
        is_fixed=options.seed is not None,
    )
    make = _own_tasks(own, passages) if own else _cloze_tasks(passages, kept.seed)
    said = user_model.instructed(options.answers.system_prompt)
    tasks = list(islice(_usable(make, user_model, params, said), options.questions_limit))
    if not tasks:
        raise DocumentsUnreadable(
            "no question can be made from any sentence in the documents; write a file with your own questions",
            parameter="questions",
        )
    return Run(options, user_model, params, card, tasks, kept, ledger)


def _read(docs: Sequence[Path], console: Console) -> list[Passage]:
    corpus = read_documents(docs)
    for line in corpus.problems():
        console.print(Text(f"user-agent: {line}"))
    return corpus.passages


def _logits_format(options: TuneOptions, card: ModelCard) -> LogitsFormat:
    return LogitsFormat.parse(options.answers.logits) if options.answers.logits else card.logits_formats.best()


def _depends_on(
    options: TuneOptions,
    user_model: UserModel,
    params: DecodingParams,
    card: ModelCard,
    passages: list[Passage],
    own: list[TuningQuestion],
) -> list[object]:
    """All that decides what is asked and answered, but for the seed; texts as one digest."""
    texts = [*(passage.text for passage in passages), *(text for q in own for text in (q.text, q.expected))]
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    models = [card.model_sha256, fingerprint(options.answers.user_folder), str(_logits_format(options, card))]
    said = [user_model.precision, user_model.instructed(options.answers.system_prompt).system_prompt]
    return [options.source, digest, models, *said, asdict(params), options.questions_limit, list(PUBLIC_INSTRUCTIONS)]


def _cloze_tasks(passages: list[Passage], seed: int) -> Iterator[Task]:
    for question in cloze_questions(passages, seed):
        yield Task(question, search(passages, question.text))


def _own_tasks(questions: list[TuningQuestion], passages: list[Passage]) -> Iterator[Task]:
    for question in questions:
        yield Task(question, search(passages, question.text))


def _usable(tasks: Iterable[Task], user_model: UserModel, params: DecodingParams, said: Conversation) -> Iterator[Task]:
    """The tasks with the passages that fit.

    One made of a passage that is not found, or does not fit, says nothing about any setting and is left out.

    Raises:
        PromptTooLong: if a question of the user's own does not fit.
    """
    for task in tasks:
        made_of = task.question.passage
        try:
            fitting = user_model.fitting(task.question.text, task.passages, params.max_answer_tokens, said).passages
        except PromptTooLong:
            if made_of is None:
                raise
            continue
        if made_of is None or made_of in fitting:
            yield Task(task.question, fitting)


def _line(options: TuneOptions, ledger: Ledger) -> CoreClient:
    return CoreClient(options.core, ledger, credentials=options.credentials, answer_timeout_s=options.timeout_s)


async def _model_card(options: TuneOptions, family: str, ledger: Ledger) -> ModelCard:
    async with _line(options, ledger) as client:
        return await client.model_card(options.model, family)


def _announce(run: Run, console: Console) -> None:
    """Say what the run takes and what crosses, and ask whether to go on."""
    options, done = run.options, len(run.kept)
    minutes = _estimate_s(run) * (run.answers - done) / run.answers / 60
    console.print(
        f"Tuning with {len(run.tasks)} questions and {len(SETTINGS)} settings of λ and α: {run.answers} answers, "
        f"up to {max(minutes, 0.1):.1f} min of computing on this device"
        f"{', and the time that the core takes' if options.questions else ''}."
    )
    asked = len(PUBLIC_INSTRUCTIONS)
    downloaded = recording_bytes(run.params, run.card.vocab_size, run.logits_format)
    if options.questions:
        asked = sum(setting.uses_core for setting in SETTINGS)
        downloaded = downloaded // len(PUBLIC_INSTRUCTIONS) * asked * len(run.tasks)
    core = (options.core, run.card.model)
    says = crossing(options.source, *core, len(run.tasks), asked, downloaded / 1e6, run.conversation.system_prompt)
    console.print(Text(says))
    sha256s = (run.card.model_sha256, fingerprint(options.answers.user_folder))
    if before := saved_choice(*sha256s):
        console.print(
            f"This will replace {CollaborationParams(before.lambda_user, before.alpha).label}, tuned with "
            f"{before.source} on {before.tuned_on} for these two models."
        )
    if done:
        console.print(f"An earlier run was interrupted; this one resumes from its {done} answers.")
    if not options.is_confirmed:
        _confirm()


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise InvalidParameter(
            "tuning asks for confirmation before it starts, but there is no terminal; confirm in advance",
            parameter="is_confirmed",
        )
    typer.confirm("Start?", abort=True, err=True)


def _estimate_s(run: Run) -> float:
    """Seconds of the user model's passes, from one timestep of a batch."""
    params, no_core = replace(run.params, steps=1, max_tokens=1), [Recording([], 0)]
    judge = RecordedJudge(run.tasks[:8], run.user_model, no_core, params, 0, run.conversation)
    numbers = range(len(judge.tasks))
    timestep_s = min(_seconds(judge, numbers) for _ in range(2)) / len(numbers)  # the first one warms up
    copies = sum(setting.uses_user + setting.reads_without_docs for setting in SETTINGS)
    return timestep_s * copies / 2 * len(run.tasks) * run.params.steps * run.params.max_blocks


def _seconds(judge: Judge, numbers: Sequence[int]) -> float:
    started = time.perf_counter()
    asyncio.run(judge.right(_WITH_CONTRAST, numbers))
    return time.perf_counter() - started


async def _measure(run: Run, console: Console) -> Outcomes:
    """All answers; on documents the line to the core is closed before the first of them."""
    options = run.options
    async with _line(options, run.ledger) as client:
        if options.questions:
            agent = Agent(run.user_model, client)
            how = (run.params, _asking_seed(options), options.model, run.logits_format, run.conversation)
            judge = AskingJudge(run.tasks, agent, *how)
            return await _sweep(run, judge, console)
        recordings = await _record(run, client, console)
    recorded = RecordedJudge(run.tasks, run.user_model, recordings, run.params, run.kept.seed, run.conversation)
    return await _sweep(run, recorded, console)


def _asking_seed(options: TuneOptions) -> int:
    """A seed that is kept nowhere, unless one is given.

    Else a core that breaks the line would be asked once more on the same noise and draws, as often as it likes.
    """
    return secrets.randbelow(MAX_RUN_SEED) if options.seed is None else options.seed


async def _record(run: Run, client: CoreClient, console: Console) -> list[Recording]:
    bare = UserModel.configured(run.options.answers, with_weights=False)
    total = len(PUBLIC_INSTRUCTIONS) * run.params.max_blocks * len(run.params.timesteps)
    with _progress(console) as progress:
        bar = progress.add_task("the core's part", total=total)
        return await record(
            bare,
            client,
            run.params,
            run.kept.seed,
            system_prompt=run.conversation.system_prompt,
            model=run.options.model,
            logits_format=run.logits_format,
            on_timestep=lambda: progress.advance(bar),
        )


async def _sweep(run: Run, judge: Judge, console: Console) -> Outcomes:
    with _progress(console) as progress:
        bar = progress.add_task("", total=run.answers)

        def show(setting: CollaborationParams, answers: int) -> None:
            progress.update(bar, advance=answers, description=setting.label)

        return await sweep(judge, len(run.tasks), run.kept, show)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<15}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _how_to_go_on(run: Run) -> str:
    return f"{len(run.kept)} of {run.answers} answers are stored; run the same command to resume"


def _choice(run: Run, outcomes: Outcomes) -> Choice:
    """The verdict with its figures.

    Raises:
        InvalidParameter: if no setting answered anything right.
    """
    options = run.options
    eligible = [setting for setting in SETTINGS if options.questions or (setting.uses_core and setting.uses_user)]
    verdict = choose(outcomes, eligible)
    if verdict is None:
        run.kept.done()
        raise InvalidParameter(
            f"no setting answered any of the {len(run.tasks)} questions correctly, so none can be chosen; write a file "
            "of questions that this pair can answer",
            parameter="questions",
        )
    return Choice(
        core_sha256=run.card.model_sha256,
        core_model=run.card.model,
        user_sha256=fingerprint(options.answers.user_folder),
        lambda_user=verdict.chosen.lambda_user,
        alpha=verdict.chosen.alpha,
        source=options.source,
        questions=len(run.tasks),
        seed=options.seed if options.questions else run.kept.seed,
        tuned_on=datetime.datetime.now(datetime.UTC).date().isoformat(),
        alike=tuple((setting.lambda_user, setting.alpha) for setting in verdict.alike),
        curve=tuple(_measured(setting, right) for setting, right in outcomes.items()),
        constant=(verdict.constant.lambda_user, verdict.constant.alpha) if verdict.constant else None,
    )


def _measured(setting: CollaborationParams, right: Sequence[bool]) -> Measured:
    share = sum(right) / len(right)
    return Measured(setting.lambda_user, setting.alpha, share, *wilson_interval(share, len(right)))
