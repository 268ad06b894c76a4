"""Write the message types of collaboration.proto, or check that those committed are current."""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent
TARGET = ROOT.parent / "shared"
PROTO = "ssd2/wire/collaboration.proto"
OUTPUTS = [PROTO.replace(".proto", suffix) for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")]


def generate(target: Path) -> None:
    """Run protoc into a source root."""
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}={target}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    if protoc.main(["protoc", *includes, *outputs, PROTO]) != 0:
        sys.exit("protoc failed; its message is above")


def stale() -> list[str]:
    """Names of generated files that do not match the contract."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return [
            name
            for name in OUTPUTS
            if not (TARGET / name).is_file() or (Path(folder) / name).read_bytes() != (TARGET / name).read_bytes()
        ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if names := stale():
            sys.exit(f"stale: {', '.join(names)}; run `make protos`")
    else:
        generate(TARGET)
