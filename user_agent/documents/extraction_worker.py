"""The process that reads files: bounds what a hostile one takes, and ends with it.

It runs as the user: whoever takes it over can read the user's files, make and remove some, and start programs.

The first frame out on standard output is `{"exposure": …}`: why it is still on the network, empty if it is not.
Frames in on standard input: the suffix, then the file's bytes. A frame out for each file: JSON, either
`{"pieces": [[text, line, page, heading, sheet, slide], …]}` or
`{"reason": …}`. It imports no torch: 500 MB would not hold it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import astuple

from user_agent.documents.confinement import MEMORY_LIMIT_BYTES, TIME_LIMIT_S, confine, limited_time
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut
from user_agent.documents.frames import receive, send
from user_agent.errors import DocumentsUnreadable


def main() -> None:
    """Read files until the other end hangs up. One that takes too long ends this process."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    send(replies, json.dumps({"exposure": confine()}).encode())
    with suppress(EOFError):
        while True:
            suffix, data = receive(sys.stdin.buffer).decode(), receive(sys.stdin.buffer)
            with limited_time(TIME_LIMIT_S):
                reply = read(data, suffix)
            send(replies, reply)


def read(data: bytes, suffix: str) -> bytes:
    """The reply to one file. A parser may raise anything on a damaged file; whatever it is becomes the reason."""
    try:
        pieces = list(map(astuple, cut(sections(data, suffix))))
        return json.dumps({"pieces": pieces}).encode()
    except DocumentsUnreadable as error:
        reason = str(error)
    except MemoryError:
        reason = f"needs more than {MEMORY_LIMIT_BYTES // 2**20} MB of memory to read"
    except Exception as error:
        reason = f"is damaged: {type(error).__name__}: {error}"
    return json.dumps({"reason": reason[:500]}).encode()


if __name__ == "__main__":
    main()
