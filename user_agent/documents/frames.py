"""Bytes over a pipe, with their length before them."""

from __future__ import annotations

import struct
from typing import BinaryIO

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 128 * 1024 * 1024


def send(pipe: BinaryIO, data: bytes) -> None:
    """Write one frame."""
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes:
    """Read one frame.

    Raises:
        EOFError: if the other end hung up, or announces more than `MAX_FRAME_BYTES`.
    """
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise EOFError(f"a frame of {length} bytes")
    return _exactly(pipe, length)


def _exactly(pipe: BinaryIO, length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError("the other end hung up")
    return data
