"""What the agent can be told, once for all: environment variables, a file, what an option says."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.demo.paths import USER
from ssd2.errors import InvalidParameter
from user_agent.store.data_folder import default_data_folder
from user_agent.store.tuned import config_folder, write_private

FILE = "config.toml"

CHANGEABLE = ("core", "ca", "model", "lambda_user", "alpha", "steps", "max_tokens")
"""Settings that a running agent takes up at once."""


MAX_MAX_TOKENS = 10**9
"""No model writes as many, so that every length that can be meant is clamped, and said, where an answer is made."""


class AgentConfig(BaseSettings):
    """One agent. Each field is also an environment variable, SLINGSHOT_ and its name, and a key of config.toml."""

    model_config = SettingsConfigDict(env_prefix="SLINGSHOT_", extra="ignore", frozen=True, validate_default=False)

    core: str | None = Field(
        None,
        description="HOST:PORT of the core server, or of its replicas with commas between them; none: the demo's",
    )
    ca: Path | None = Field(
        None,
        description="CA certificate of the core's provider (PEM); encrypts the line, which a core elsewhere needs",
    )
    insecure: bool = Field(
        False, description="allow an unencrypted line to a core on another machine, across a network that you trust"
    )
    client_certificate: Path | None = Field(
        None, description="PEM file of this device's certificate, for a core that asks for one"
    )
    client_key: Path | None = Field(None, description="PEM file of its private key")
    model: str = Field("", description="name of the core's model; empty for its first one that fits")
    user_model: Path = Field(USER, description="checkpoint folder of the user model")
    lambda_user: float | None = Field(
        None, ge=0, le=1, description="weight of the user model; none: as tuned, else 0.3"
    )
    alpha: float | None = Field(None, ge=0, description="how much the documents are stressed; none: as tuned, else 1")
    steps: int | None = Field(
        None, ge=1, le=TRAINED_TIMESTEPS, description="most timesteps of a block; none: what suits the model"
    )
    max_tokens: int = Field(
        48,
        ge=1,
        le=MAX_MAX_TOKENS,
        description="longest answer, in tokens; cut to what there is room for behind the question",
    )
    speculation: int = Field(4, ge=0, le=64, description="timesteps that the core may send ahead on guesses")
    timeout: float = Field(10.0, gt=0, description="seconds to wait for each answer of the core")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8642, ge=0, le=65535, description="port to listen on; 0 for any free one")
    api_key: SecretStr | None = Field(
        None, description="bearer key of the REST endpoint; none: made at the first start"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), description="exact origins that pages may ask from")
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "localhost", "[::1]"), description="names in the Host header that are answered"
    )
    max_answers: int = Field(2, ge=1, description="answers that are computed at a time")
    max_waiting: int = Field(32, ge=0, description="further ones that wait; one more is refused with 429")
    max_body: int = Field(32 * 1024 * 1024, ge=1024, description="largest request, in bytes")
    data_dir: Path = Field(default_factory=default_data_folder, description="documents, conversations and ledger")
    passphrase: SecretStr | None = Field(
        None, description="that the data is encrypted with; none: a key in the keyring"
    )

    @field_validator("cors_origins", "trusted_hosts", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Names with commas between them, as in an environment variable."""
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
        """Options before the environment before the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_folder() / FILE)


def load_config(**options: Any) -> AgentConfig:
    """The configuration; an option that is None was not given.

    Raises:
        InvalidParameter: if a value is outside its range, or the file cannot be read.
    """
    try:
        return AgentConfig(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        name, why = _first_fault(error)
        where = f"SLINGSHOT_{name.upper()} or {name} in {config_folder() / FILE}"
        if options.get(name) is not None:  # only then is it sure that the command has such an option
            where = f"--{name.replace('_', '-')}"
        raise InvalidParameter(f"{why}; set {where}") from error
    except (OSError, ValueError) as error:  # tomllib.TOMLDecodeError is a ValueError
        raise InvalidParameter(f"cannot read {config_folder() / FILE}: {error}; correct the file") from error


def _first_fault(error: ValidationError) -> tuple[str, str]:
    """The setting that is wrong, and why."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "configuration"
    return name, f"{name.replace('_', ' ')}: {first['msg'][0].lower()}{first['msg'][1:]}"


def config_with(**options: Any) -> AgentConfig:
    """The configuration, with options of a command before it; one that is None was not given.

    Whoever uses an option checks its range, and knows it better: that of the steps depends on the model.

    Raises:
        InvalidParameter: if a variable or the file holds a value outside its range, or the file cannot be read.
    """
    return load_config().model_copy(update={name: value for name, value in options.items() if value is not None})


def set_outside(**options: Any) -> frozenset[str]:
    """Names that an option or a variable of the environment has set, which come before the file."""
    given = {name for name, value in options.items() if value is not None}
    return frozenset(given | {name for name in AgentConfig.model_fields if f"SLINGSHOT_{name.upper()}" in os.environ})


def save_settings(changes: Mapping[str, Any], **options: Any) -> AgentConfig:
    """Keep settings in config.toml; None takes one out. What is kept is checked first.

    Args:
        changes: values by name.
        **options: that this agent was started with.

    Returns:
        The configuration from now on.

    Raises:
        InvalidParameter: if there is no such setting, its value is outside its range, or the file cannot be written.
    """
    if unknown := set(changes) - set(AgentConfig.model_fields):
        raise InvalidParameter(
            f"there is no setting {min(unknown)!r}; choose from {', '.join(AgentConfig.model_fields)}"
        )
    file = config_folder() / FILE
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    kept = {**tomllib.loads(before), **changes}
    write_private(file, "".join(f"{name} = {_toml(value)}\n" for name, value in kept.items() if value is not None))
    try:
        return load_config(**options)
    except InvalidParameter as error:
        write_private(file, before)
        if isinstance(error.__cause__, ValidationError):  # its reader has just given the value, and knows where
            name, why = _first_fault(error.__cause__)
            raise InvalidParameter(why, parameter=name) from error
        raise


def _toml(value: Any) -> str:
    """A number, a truth value, a text or a list of texts, as TOML has them; JSON has them alike."""
    return json.dumps(str(value) if isinstance(value, Path) else value)
