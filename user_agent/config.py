"""What the agent can be told, once for all: environment variables, a file, what an option says."""

from __future__ import annotations

import os
import sys
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

from ssd2.demo.paths import USER
from ssd2.errors import InvalidParameter
from user_agent.settings import config_folder

FILE = "config.toml"


def data_folder() -> Path:
    """Where documents, conversations and the ledger are: $XDG_DATA_HOME/slingshot, else ~/.local/share/slingshot."""
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "slingshot"


class AgentConfig(BaseSettings):
    """One agent. Each field is also an environment variable, SLINGSHOT_ and its name, and a key of config.toml."""

    model_config = SettingsConfigDict(env_prefix="SLINGSHOT_", extra="ignore", frozen=True, validate_default=False)

    core: str | None = Field(None, description="HOST:PORT of the core server; none: the demo's, on this machine")
    ca: Path | None = Field(
        None, description="PEM file that the core's certificate is checked against; encrypts the line"
    )
    model: str = Field("", description="name of the core's model; empty for its first one that fits")
    user_model: Path = Field(USER, description="checkpoint folder of the user model")
    lambda_user: float | None = Field(
        None, ge=0, le=1, description="weight of the user model; none: as tuned, else 0.3"
    )
    alpha: float | None = Field(None, ge=0, description="how much the documents are stressed; none: as tuned, else 1")
    steps: int | None = Field(None, ge=1, le=1000, description="most timesteps of a block; none: what suits the model")
    max_tokens: int = Field(48, ge=1, le=4096, description="longest answer, in tokens")
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
    data_folder: Path = Field(default_factory=data_folder, description="documents, conversations, ledger; encrypted")
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
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "configuration"
        raise InvalidParameter(
            f"{name.replace('_', ' ')}: {first['msg'][0].lower()}{first['msg'][1:]}; set --{name.replace('_', '-')}, "
            f"SLINGSHOT_{name.upper()} or {name} in {config_folder() / FILE}"
        ) from error
    except (OSError, ValueError) as error:  # tomllib.TOMLDecodeError is a ValueError
        raise InvalidParameter(f"{config_folder() / FILE} cannot be read: {error}") from error
