"""The process that renders a chat template: a program that came with a model, so its time and memory are bounded.

It is started by its path, reads one JSON object on standard input, writes one on standard output, and ends. The
sandbox keeps the template away from Python's objects; only the end of a process bounds its loops. It imports no
torch and nothing of this project.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
TIME_LIMIT_S = 5
LONGEST_RENDERING = 1_000_000
"""Characters; the texts of a conversation are not among them."""


class Refusal(TemplateError):
    """The template does not take such a conversation: it called raise_exception."""


class Generation(Extension):
    """`{% generation %}` marks what a model wrote, for training; here its body is all there is to it."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """See Jinja."""
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


def main() -> None:
    """Render one template."""
    limit_this_process()
    request = json.load(sys.stdin)
    try:
        reply = {"text": render(request["template"], request["variables"])}
    except Refusal as refusal:
        reply = {"refused": str(refusal)}
    except Exception as error:  # a template makes Python raise what it likes
        reply = {"error": f"{type(error).__name__}: {error}"[:300]}
    json.dump(reply, sys.stdout)


def limit_this_process() -> None:
    """Bound time and memory, where the system can; the parent bounds the time as well."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT_S, TIME_LIMIT_S))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))


def render(template: str, variables: dict[str, Any]) -> str:
    """Render a template as transformers' `apply_chat_template` does.

    Raises:
        Refusal: if the template calls raise_exception.
        ValueError: if it writes too much.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    parts, size = [], 0
    for part in environment.from_string(template).generate(**variables):
        parts.append(part)
        size += len(part)
        if size > LONGEST_RENDERING:
            raise ValueError(f"it writes more than {LONGEST_RENDERING:,} characters")
    return "".join(parts)


def _refuse(message: str) -> None:
    raise Refusal(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


if __name__ == "__main__":
    main()
