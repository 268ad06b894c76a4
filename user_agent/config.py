"""Configuration of the agent. Precedence: command-line option, environment variable, config.toml, default."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ssd2.errors import InvalidParameter
from ssd2.models.memory import check_memory_for
from ssd2.models.pairs import RUNTIME_BYTES, Model, PairSettings, check_memory, downloaded_folder, pair_named
from user_agent.answering.request import AnswerSettings
from user_agent.answering.settings import ServiceSettings
from user_agent.fields import PREFIX, Face, settings_of
from user_agent.line.settings import LineSettings
from user_agent.store.data_folder import default_data_folder
from user_agent.store.tuned import config_folder, write_private

FILE = "config.toml"

_NEVER_SAVED = "private_context"
"""Setting that no file holds: config.toml is not encrypted."""

CHANGEABLE = ("core", "ca", "stuffed_prompts", *(name for name in AnswerSettings.model_fields if name != _NEVER_SAVED))
"""Settings that a running agent takes up at once, and that are saved."""

_SHARED_MEMORY = ("cpu", "mps")
"""Devices that compute in this machine's memory."""

_OTHER_VARIABLES = frozenset({f"{PREFIX}CORE_KEY"})
"""Variables that are no setting, so that no file holds them."""

_OTHER_PROGRAMS = (f"{PREFIX}PROXY_",)
"""What names begin with that a core server reads, which may share this environment."""


class _ConfigFile(TomlConfigSettingsSource):
    """config.toml."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        values = super()._read_file(file_path)
        if _NEVER_SAVED in values:
            raise _not_saved(f"remove it from {file_path} and")
        return values


class AgentConfig(LineSettings, ServiceSettings, BaseSettings):
    """One agent. Each field is also an environment variable, SLINGSHOT_ and its name, and a key of config.toml."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        validate_default=False,
        enable_decoding=False,
        allow_inf_nan=False,
    )

    host: Annotated[str, Face("Address to listen on")] = "127.0.0.1"
    port: Annotated[int, Face("Port to listen on; 0 picks a free one")] = Field(default=8642, ge=0, le=65535)
    api_key: Annotated[SecretStr | None, Face("Bearer key of the REST endpoint", default="made at the first start")] = (
        None
    )
    cors_origins: Annotated[
        tuple[str, ...],
        Face("Exact origins whose pages may call the REST endpoint, separated by commas", default="none"),
    ] = ()
    trusted_hosts: Annotated[tuple[str, ...], Face("Accepted names in the Host header, separated by commas")] = (
        "127.0.0.1",
        "localhost",
        "[::1]",
    )
    max_body: Annotated[int, Face("Maximum size of a request, in bytes")] = Field(default=32 * 1024 * 1024, ge=1024)
    data_dir: Annotated[
        Path,
        Face("Folder of documents, conversations and ledger", default="~/.local/share/slingshot", advanced=True),
    ] = Field(default_factory=default_data_folder)
    check_reading: Annotated[
        bool, Face("Check whether the user model can read a newly linked folder; takes seconds and sends nothing")
    ] = True
    passphrase: Annotated[
        SecretStr | None, Face("Passphrase to encrypt the data with", default="a key in the keyring")
    ] = None

    @property
    def measured(self) -> PairSettings | None:
        """See `ServiceSettings`; None where a core is configured, as only the pair's own was measured."""
        return super().measured if self.core is None else None

    @property
    def line(self) -> LineSettings | None:
        """The line to the core; None where no core is asked."""
        if not self.asks_core:
            return None
        return LineSettings(**{name: getattr(self, name) for name in LineSettings.model_fields})

    @property
    def serves_core(self) -> bool:
        """True if the agent starts a core on this machine."""
        return self.line is not None and self.core is None

    def check_pair(self) -> None:
        """Check that what the pair, or the user model, needs on this machine is there, before anything is loaded.

        Raises:
            ModelNotFound: if a model of it is not downloaded.
            TooLittleMemory: if there is no room for its models.
        """
        if not self.pair:
            self.check_user_model()
            return
        pair = pair_named(self.pair)
        needed = pair.core.memory_bytes() if self.serves_core and downloaded_folder(pair, "core") else 0
        if downloaded_folder(pair, "user") and self.lambda_user != 0:
            needed += self._memory_bytes(pair.user)
        check_memory(needed, f"the pair {pair.name}")

    def check_user_model(self) -> None:
        """Check that this machine has the memory for the user model, before it is loaded; errors as in `check_pair`."""
        if self.lambda_user == 0:
            return
        if self.pair:
            check_memory(self._memory_bytes(pair_named(self.pair).user), f"the user model of {self.pair}")
        elif precision := self._precision_in_memory():
            check_memory_for({self.user_folder.name: self.user_folder}, precision, "user_model")

    def _memory_bytes(self, user_model: Model) -> int:
        """Return what a pair's user model takes of this machine's memory."""
        precision = self._precision_in_memory()
        return user_model.memory_bytes(4 if precision == "float32" else 2) if precision else RUNTIME_BYTES

    def _precision_in_memory(self) -> str:
        """Return the precision of the user model's weights; "" where they are in a GPU's own memory."""
        from ssd2.models.checkpoint import family_of  # loads torch, which no help text has to wait for
        from ssd2.models.devices import chosen_device, chosen_precision

        device = chosen_device(self.device, family_of(self.user_folder))
        return chosen_precision(self.precision, device) if device.partition(":")[0] in _SHARED_MEMORY else ""

    @field_validator("cors_origins", "trusted_hosts", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Split names at commas, as an environment variable has them."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: options, environment, file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _ConfigFile(settings_cls, config_folder() / FILE)


SETTINGS = settings_of(AgentConfig)


def load_config(**options: Any) -> AgentConfig:
    """Load the configuration.

    Args:
        **options: of the command line, by the names of settings; None where an option was not given.

    Raises:
        InvalidParameter: if a value is outside its range, or the file cannot be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    outside = set_outside(**given)
    if "user_model" in outside and "pair" not in outside:
        given["pair"] = ""  # else a pair of the file would replace what was asked for more closely
    try:
        return AgentConfig(**given)
    except ValidationError as error:
        name, what = _fault(error)
        raise InvalidParameter(f"{_source(name, given)}{what}") from error
    except (OSError, ValueError) as error:  # tomllib.TOMLDecodeError is a ValueError
        raise InvalidParameter(f"cannot read {config_folder() / FILE}: {error}; correct the file") from error


def _fault(error: ValidationError) -> tuple[str, str]:
    """Return the name of the first setting that is wrong, and what is wrong, to be read after the name."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    setting = SETTINGS.get(name)
    if setting and setting.wanted:
        return name, f" is {repr(first['input'])[:80]}; give {setting.wanted}"
    return name, f": {first['msg'].removeprefix('Value error, ')}"


def _source(name: str, given: Mapping[str, Any]) -> str:
    """Name where the value of a setting comes from."""
    if name in given:
        return SETTINGS[name].option
    if name in set_by_variables():
        return SETTINGS[name].variable
    return f"{name} in {config_folder() / FILE}"


def set_by_variables() -> set[str]:
    """Return the settings that the environment sets; as for pydantic, the case of a variable does not matter."""
    names = {name.upper() for name in os.environ}
    return {name for name, setting in SETTINGS.items() if setting.variable in names}


def unknown_variables() -> list[str]:
    """Return a sentence for each variable SLINGSHOT_… that nothing reads, with the closest name that something does."""
    known = {setting.variable for setting in SETTINGS.values()} | _OTHER_VARIABLES
    found = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    sentences = []
    for name in found:
        if not name.upper().startswith(_OTHER_PROGRAMS):
            close = difflib.get_close_matches(name.upper(), sorted(known), 1)
            meant = f"; did you mean {close[0]}?" if close else "; `user-agent config show` lists the settings"
            sentences.append(f"{name} is not a setting and has no effect{meant}")
    return sentences


def set_outside(**options: Any) -> frozenset[str]:
    """Return the settings that an option or a variable sets, which take precedence over the file."""
    return frozenset({name for name, value in options.items() if value is not None} | set_by_variables())


def save_settings(changes: Mapping[str, Any], **options: Any) -> AgentConfig:
    """Save settings in config.toml, unless one of them is invalid.

    Args:
        changes: values by name; None removes one.
        **options: that this agent was started with.

    Returns:
        The configuration from now on.

    Raises:
        InvalidParameter: if there is no such setting, it is never saved, its value is outside its range, or the file
            cannot be written.
    """
    if unknown := set(changes) - set(AgentConfig.model_fields):
        raise no_setting(min(unknown))
    if changes.get(_NEVER_SAVED) is not None:
        raise _not_saved("do not set it here;")
    file = config_folder() / FILE
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    kept = {**tomllib.loads(before), **changes}
    write_private(file, "".join(f"{name} = {_toml(value)}\n" for name, value in kept.items() if value is not None))
    try:
        return load_config(**options)
    except InvalidParameter as error:
        write_private(file, before)
        if isinstance(error.__cause__, ValidationError):  # its reader has just given the value, and knows where
            name, what = _fault(error.__cause__)
            raise InvalidParameter(f"{name}{what}", parameter=name) from error
        raise


def no_setting(name: str) -> InvalidParameter:
    """Return the error of a name that no setting has."""
    close = difflib.get_close_matches(name.lower(), SETTINGS, 1)
    meant = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(SETTINGS)}"
    return InvalidParameter(f"there is no setting {name[:80]!r}; {meant}")


def _not_saved(first: str) -> InvalidParameter:
    setting = SETTINGS[_NEVER_SAVED]
    return InvalidParameter(
        f"{setting.name} is never saved, because config.toml is not encrypted; {first} use {setting.option}, "
        f"{setting.variable} or REST instead",
        parameter=setting.name,
    )


def _toml(value: Any) -> str:
    """Write a number, a boolean, a text or a list of texts as TOML, which has them as JSON does."""
    text = json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)  # TOML has no surrogates
    return text.replace("\x7f", "\\u007f")
