"""/v1/settings and /v1/status: what the agent works with, and how it is."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel

from ssd2.errors import InsecureLine, InvalidParameter, SlingshotError
from user_agent.answering.disclosure import ATTACKS, FILES_STAY, LEDGER_LEFT, LEDGER_LOCAL, Mode, disclosure
from user_agent.answering.service import check
from user_agent.answering.user_model import UserModel
from user_agent.api.errors import documented
from user_agent.api.state import AppState, state_of
from user_agent.config import CHANGEABLE, SETTINGS, AgentConfig, save_settings, set_outside
from user_agent.documents.extraction import exposure_warning
from user_agent.fields import Setting
from user_agent.line.connection import is_local
from user_agent.line.credentials import CoreCredentials
from user_agent.line.settings import LineSettings
from user_agent.stores import unlink_samples

router = APIRouter(prefix="/v1", tags=["Settings"])


Value: TypeAlias = bool | int | float | str | list[int] | list[str]
"""Of a setting, as JSON has it."""


class ShownSetting(BaseModel):
    """One setting.

    Attributes:
        value: current value; null if it depends on the models.
        default: value if nothing sets it.
        label: short name.
        help: meaning, range and default in words.
        kind: of the value.
        choices: all values to choose from; empty where there are more than a few.
        words: words that are taken where else a number is.
        minimum: smallest value of a number.
        maximum: largest value of a number.
        is_advanced: few people change it.
        is_set_outside: an option or a variable of the agent sets it, which takes precedence over a change here.
    """

    value: Value | None
    default: Value | None
    label: str
    help: str
    kind: Literal["bool", "int", "float", "path", "texts", "text"]
    choices: list[str]
    words: list[str]
    minimum: float | None
    maximum: float | None
    is_advanced: bool
    is_set_outside: bool


class Core(BaseModel):
    """The core, or why it does not answer.

    Attributes:
        address: HOST:PORT, or several separated by commas; null if no core is asked.
        is_demo: the core is the demo's, which the agent starts itself.
        pair: whose core the agent starts itself; empty for none.
        is_encrypted: the connection is encrypted.
        is_local: the core is on this machine.
        model: name of its model; this and the fields below are null until the core has been asked.
        family: of the model.
        parameters: of the model.
        max_prompt_tokens: longest question, in tokens.
        error: reason why it does not answer, if it has been asked.
        is_starting: a core of its own has ended and is being restarted.
    """

    address: str | None
    is_demo: bool
    pair: str
    is_encrypted: bool
    is_local: bool
    model: str | None = None
    family: str | None = None
    parameters: int | None = None
    max_prompt_tokens: int | None = None
    error: str | None = None
    is_starting: bool = False


class Status(BaseModel):
    """State of the agent.

    Attributes:
        core: the core, and the connection to it.
        user_model: folder of the user model.
        takes_conversations: the models see earlier turns; without a chat template each question stands alone.
        key_source: source of the encryption key: keyring, passphrase or file.
        data_dir: folder of documents, conversations and ledger.
        is_reader_isolated: files are read in a process without network.
        reader_warning: the consequence if they are not.
        version: of Slingshot.
    """

    core: Core
    user_model: str
    takes_conversations: bool
    key_source: str
    data_dir: str
    is_reader_isolated: bool
    reader_warning: str | None
    version: str


@router.get("/settings", responses=documented())
async def settings(request: Request) -> dict[str, ShownSetting]:
    """Return the settings that can be changed while the agent runs."""
    return _settings(state_of(request))


@router.patch("/settings", responses=documented(503))
async def change(request: Request, changes: Annotated[dict[str, Value | None], Body()]) -> dict[str, ShownSetting]:
    """Change settings from the next answer on, and save them; null restores the default."""
    state = state_of(request)
    if fixed := [name for name in changes if name not in CHANGEABLE]:
        raise InvalidParameter(f"{fixed[0][:80]!r} cannot be changed here; choose from {', '.join(CHANGEABLE)}")
    if outside := sorted(set(changes) & set_outside(**state.options)):
        raise InvalidParameter(
            f"{outside[0]} is set by an option or an environment variable of the agent, which take precedence; change "
            "it there and restart the agent",
            parameter=outside[0],
        )
    before = {name: getattr(state.config, name) for name in changes}
    config = await asyncio.to_thread(save_settings, changes, **state.options)
    try:
        _refuse_plaintext(state.config, config)
        user_model = await _user_model(state, config)
        check(config, user_model)
        if changes.get("ca"):
            CoreCredentials(ca=config.ca).context()  # where no core is configured, nothing else would read it
        served_by = await asyncio.to_thread(_served_by, config)
        if served_by != await asyncio.to_thread(_served_by, state.config):
            await state.line.connect(served_by[0], config.pair)
    except SlingshotError:
        await asyncio.to_thread(save_settings, before, **state.options)
        raise
    state.config = config
    is_other = user_model is not state.answering.user_model
    state.answering.reconfigure(config, user_model, state.line.client)
    if is_other:
        await asyncio.to_thread(_take_up_models, state)
        state.check_links(*[link.id for link in await asyncio.to_thread(state.stores.documents.links)])
    return _settings(state)


def _take_up_models(state: AppState) -> None:
    if state.config.pair:
        unlink_samples(state.stores.documents)


async def _user_model(state: AppState, config: AgentConfig) -> UserModel:
    """Return the user model of a configuration, loaded unless it is the one in use."""
    if config.user_folder == state.config.user_folder:
        return state.answering.user_model
    await asyncio.to_thread(config.check_pair)
    return await asyncio.to_thread(UserModel.configured, config, with_weights=True)


def _served_by(config: AgentConfig) -> tuple[LineSettings | None, str]:
    """Return what a line is made from: of a core that is started here the pair too."""
    line = config.line  # once: it may read the user model's weights
    return line, config.pair if line is not None and line.core is None else ""


def _refuse_plaintext(before: AgentConfig, after: AgentConfig) -> None:
    """Refuse to move an unencrypted line: `insecure` was allowed for the core of before, and nobody asks here.

    Raises:
        InsecureLine: if the core is another machine's, and another one or without its certificate now.
    """
    is_moved = (after.core, after.ca) != (before.core, before.ca)
    if is_moved and after.core and not after.ca and not is_local(after.core):
        raise InsecureLine(
            f"the core at {after.core} is on another machine, and the connection would not be encrypted; set the "
            "provider's CA certificate",
            parameter="ca",
        )


class Disclosed(BaseModel):
    """Who learns what, in the words of every face.

    Attributes:
        mode: who takes part in an answer.
        before: what whoever runs the core will see of the next answer.
        welcome: the same with what an attack can do.
        documents: what is sent of documents.
        ledger_left: who can read messages that left.
        ledger_local: who could read messages that stayed on this machine.
    """

    mode: Mode
    before: str
    welcome: str
    documents: str = f"{FILES_STAY} {ATTACKS}"
    ledger_left: str = LEDGER_LEFT
    ledger_local: str = LEDGER_LOCAL


@router.get("/disclosure", responses=documented())
async def disclosed(request: Request) -> Disclosed:
    """Say who will see what of the next answer, with the settings in force. Nothing is sent for it."""
    state = state_of(request)
    found = disclosure(
        state.config,
        state.line.address,
        is_own=state.line.own_title is not None,
        is_encrypted=state.config.ca is not None,
        takes_conversations=state.answering.user_model.tokenizer.takes_conversations,
    )
    return Disclosed(mode=found.mode, before=found.before, welcome=found.welcome)


@router.get("/status", responses=documented())
async def status(
    request: Request,
    ask_core: Annotated[bool, Query(description="ask the core for its model, which sends it a message")] = False,
) -> Status:
    """Return the state of the agent, and what is known of its core. Nothing is sent unless `ask_core` is true."""
    state = state_of(request)
    exposure = await asyncio.to_thread(state.stores.documents.exposure)
    return Status(
        core=await _core(state, ask=ask_core),
        user_model=str(state.config.user_folder),
        takes_conversations=state.answering.user_model.tokenizer.takes_conversations,
        key_source=state.stores.key_source,
        data_dir=str(state.config.data_dir),
        is_reader_isolated=not exposure,
        reader_warning=exposure_warning(exposure) if exposure else None,
        version=version("slingshot"),
    )


async def _core(state: AppState, *, ask: bool) -> Core:
    line = state.line
    core = Core(
        address=line.address,
        is_demo=line.is_demo,
        pair=state.config.pair if line.own_title else "",
        is_encrypted=state.config.ca is not None and not line.own_title,
        is_local=line.address is not None and is_local(line.address),
    )
    if failure := line.failure:
        return core.model_copy(update={"error": str(failure), "is_starting": failure.retry_after_s is not None})
    try:
        card = await state.answering.card() if ask else state.answering.card_seen
    except SlingshotError as error:
        return core.model_copy(update={"error": str(error)})
    if card is None:
        return core
    figures = ("model", "family", "parameters", "max_prompt_tokens")
    return core.model_copy(update={name: getattr(card, name) for name in figures})


def _settings(state: AppState) -> dict[str, ShownSetting]:
    outside = set_outside(**state.options)
    return {name: _shown(SETTINGS[name], getattr(state.config, name), name in outside) for name in CHANGEABLE}


def _shown(setting: Setting, value: Any, is_set_outside: bool) -> ShownSetting:
    limits = setting.limits
    return ShownSetting(
        value=_plain(value),
        default=_plain(setting.info.default),
        label=setting.face.label,
        help=setting.text,
        kind=setting.kind,
        choices=list(setting.choices),
        words=list(setting.words),
        minimum=limits.get("ge", limits.get("gt")),
        maximum=limits.get("le", limits.get("lt")),
        is_advanced=setting.face.advanced,
        is_set_outside=is_set_outside,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
