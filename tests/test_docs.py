"""README and docs name files, headings, code and commands that exist."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import core_server.__main__
import core_server.models
import ssd2.__main__
import user_agent.__main__
from core_server.access import commands as access
from ssd2.cli.help import Group

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
README = ROOT / "README.md"
FOLDERS = "shared|core_server|user_agent|protos|deploy|tests|docs"
PAGES = [
    README,
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    *sorted((ROOT / "protos").glob("*.md")),
    *sorted((ROOT / "shared").rglob("README.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPER_APPS = {"user-agent": user_agent.__main__.app, "ssd2": ssd2.__main__.app}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that a page links to, each with its anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if not path.startswith(("http:", "https:")):
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_their_anchors_exist(page: Path) -> None:
    assert [str(target) for target, _ in links(page) if not target.exists()] == []
    assert [anchor for target, anchor in links(page) if anchor and anchor not in anchors(target)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_repository_paths_exist(page: Path) -> None:
    named = re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("start", [README, DOCS / "README.md"], ids=["README", "docs/README"])
def test_every_page_under_docs_can_be_reached(start: Path) -> None:
    reached, waiting = {start}, [start]
    while waiting:
        found = {target for target, _ in links(waiting.pop()) if target.suffix == ".md" and target.exists()}
        waiting += found - reached
        reached |= found
    assert set(DOCS.rglob("*.md")) - reached - {DOCS / "README.md"} == set()


def test_the_architecture_page_names_code_where_it_stands() -> None:
    page = (DOCS / "architecture.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `([\w./]+\.py)` \| `([\w.]+)` \|$", page, re.MULTILINE)
    assert len(rows) > 15
    for path, name in rows:
        for part in name.split("."):
            defined = rf"^(?: *(?:class|(?:async )?def) {part}\b|{part} = )"
            assert re.search(defined, (ROOT / path).read_text(), re.MULTILINE), name


def test_the_architecture_page_has_every_package() -> None:
    tops = [ROOT / "shared" / "ssd2", ROOT / "core_server", ROOT / "user_agent"]
    inner = [folder for top in tops for folder in top.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    packages = {folder for folder in inner if list(folder.glob("*.*"))}
    rows = set(re.findall(r"^\| `([\w/]+)` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE))
    assert {str(package.relative_to(ROOT)) for package in packages} - rows == set()


def test_decisions_are_numbered_and_their_index_has_their_titles() -> None:
    pages = sorted(DECISIONS.glob("[0-9]*.md"))
    assert len({page.name[:3] for page in pages}) == len(pages)
    index = dict(re.findall(r"^- \[(.+)\]\((.+)\)$", (DECISIONS / "README.md").read_text(), re.MULTILINE))
    assert {f"# {title}": name for title, name in index.items()} == {
        page.read_text().partition("\n")[0]: page.name for page in pages
    }


def test_decisions_that_code_refers_to_exist() -> None:
    sources = [path for top in FOLDERS.split("|") for path in (ROOT / top).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"docs/decisions/([\w-]+\.md)", path.read_text())}
    assert len(named) > 15
    assert {name for name in named if not (DECISIONS / name).exists()} == set()


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the commands of our own programs in a page's code, split into words."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [code for language, code in re.findall(FENCE, text) if not language]
    spans = re.findall(r"`([^`\n]+)`", re.sub(FENCE, "", text))
    for line in [*"\n".join(blocks).splitlines(), *spans]:
        started = re.search(r"(?:^|[ /(])((?:user-agent|ssd2|core-server) [a-z-].*)", line.partition(" #")[0])
        if started:
            yield shlex.split(re.split(r"[|>)]", started[1])[0])


def check_typer(words: list[str]) -> None:
    """Check that the subcommands and options of a typer program exist."""
    program, *rest = words
    command = typer.main.get_command(TYPER_APPS[program])
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        named, *rest = command.with_default(rest) if isinstance(command, Group) else rest
        assert named in command.commands, words
        command = command.commands[named]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options | {"--help"}, words


def options_of(parser: ArgumentParser, words: list[str]) -> set[str]:
    """Return the options of the subcommand that the words name."""
    subcommands = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
    if subcommands and words and words[0] in subcommands[0].choices:
        return options_of(subcommands[0].choices[words[0]], words[1:])
    return set(parser._option_string_actions)


def check_core_server(words: list[str]) -> None:
    """Check that the options of a command of `core-server` exist."""
    groups = {"keys": access, "certs": access, "models": core_server.models}
    parser = groups.get(words[1], core_server.__main__)._parser()
    assert words[1] in groups or words[1].startswith("-"), words
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= options_of(parser, words[1:]) | {"--help"}, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_options_that_the_page_gives_them(page: Path) -> None:
    for words in commands(page):
        (check_core_server if words[0] == "core-server" else check_typer)(words)
