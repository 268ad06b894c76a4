"""The process that reads files: bounds what a hostile one takes, and ends with it.

It runs as the user: whoever takes it over can read the user's files, make and remove some, and start programs.

The first frame out on standard output is `{"exposure": …}`: why it is still on the network, empty if it is not.
Frames in on standard input: the suffix, then the file's bytes. A frame out for each file: JSON, either
`{"pieces": [[text, line, page, heading, sheet, slide], …]}` or
`{"reason": …}`. It imports no torch: 500 MB would not hold it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import astuple

from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut
from user_agent.documents.frames import receive, send
from user_agent.errors import DocumentsUnreadable

TIME_LIMIT_S = 10.0
MEMORY_LIMIT_BYTES = 500 * 1024 * 1024
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def main() -> None:
    """Read files until the other end hangs up. One that takes too long ends this process by SIGALRM."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    send(replies, json.dumps({"exposure": limit_this_process()}).encode())
    with suppress(EOFError):
        while True:
            suffix, data = receive(sys.stdin.buffer).decode(), receive(sys.stdin.buffer)
            signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
            reply = read(data, suffix)
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(replies, reply)


def limit_this_process() -> str:
    """Bound its memory, let it write neither file nor core dump, and take it off the network where that is allowed.

    Returns:
        Why it is still on the network; empty if it is not.
    """
    with suppress(ValueError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.dont_write_bytecode = True
    return _leave_network()


def _leave_network() -> str:
    """Take this process off the network, and say why that is not possible; some containers refuse it."""
    if sys.platform != "linux":
        return "this system has no network namespaces"
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        return ""
    return f"this system refuses a network namespace: {os.strerror(ctypes.get_errno())}"


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
