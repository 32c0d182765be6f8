"""What README and docs tell somebody to type, to set and to open is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import click
import msgspec
import pytest

from monitor.cli import cli
from monitor.config import Config, load
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), ROOT / "examples" / "README.md"]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
KEYS = {
    section.name: {key.name for key in msgspec.structs.fields(section.type)}
    for section in msgspec.structs.fields(Config)
}
PAGE_OF = {"store": "database", "retention": "database", "input": "privacy", "serve": "http", "worker": "kafka"}
"""Where keys that docs/cli.md leaves out stand, if not on the page of the section's name."""
NO_KEYS = {"input.value"} | {f"monitor.{path.stem}" for path in (ROOT / "monitor").iterdir()}
"""Written as keys are: an attribute of OpenInference, and modules."""


def typed(text: str) -> Iterator[list[str]]:
    """The words after `valuedrift` where a page has it typed: in backticks, in a block of commands, indented."""
    text = re.sub(r"^```sh\n(.*?)^```", lambda block: indent(block[1], "    "), text, flags=re.M | re.S)
    text = re.sub(r" *\\\n *", " ", text)
    for found in re.finditer(r"(?:^ {4}|`|&& )valuedrift +([^`\n]+)", text, re.M):
        yield re.split(r"&&|\| psql|\s#", found[1])[0].split()


def unknown(words: list[str]) -> list[str]:
    """A command, or options of a command, that the command line does not have."""
    command: click.Command = cli
    known = {"--help"}
    while True:
        known |= {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        if not isinstance(command, click.Group):
            break
        word, *rest = words or ["list"]
        if word in command.commands:
            command, words = command.commands[word], rest
        elif command is cli:
            return [] if word == "COMMAND" else [word]
        elif word == "..." or not (listing := command.commands.get("list")):
            break
        else:
            command = listing
    return [word for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(words)) if word not in known]


@by_page
def test_commands_and_their_options_are_there(page: Path) -> None:
    wrong = {" ".join(words): unknown(words) for words in typed(page.read_text(encoding="utf-8"))}
    assert {line: missing for line, missing in wrong.items() if missing} == {}


def test_wrong_commands_would_be_noticed() -> None:
    text = (
        "`valuedrift wacth x` and\n    valuedrift alerts --evrey all\n\n```sh\nvaluedrift ship a \\\n  --two b\n```\n"
    )
    assert [unknown(words) for words in typed(text)] == [["wacth"], ["--evrey"], ["--two"]]


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    """To files that are there, and to headings that they have."""
    text = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    for target, heading in re.findall(r"(?<=\]\()(?!\w+:)([\w-]*[./][\w./-]*|(?=#))#?([\w-]*)\)", text):
        leads_to = page.parent / target if target else page
        assert leads_to.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", leads_to.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@by_page
def test_settings_that_are_named_are_there(page: Path, tmp_path: Path) -> None:
    """Keys such as `store.url`, variables of them, and whole pieces of valuedrift.toml."""
    text = page.read_text(encoding="utf-8")
    for section, key in re.findall(r"`\[?([a-z]+)\.([a-z_0-9]+)(?= = |[`\]])", text):
        if section in KEYS and f"{section}.{key}" not in NO_KEYS:
            assert key in KEYS[section], f"{section}.{key}"
    for block in re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S):
        (path := tmp_path / "valuedrift.toml").write_text(block, encoding="utf-8")
        load(path, {})


@pytest.mark.parametrize("section", KEYS)
def test_every_setting_is_documented(section: str) -> None:
    """In docs/cli.md, or on the section's own page, as code."""
    pages = {DOCS / f"{name}.md" for name in ("cli", section, PAGE_OF.get(section, section))}
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.exists())
    code = "\n".join(re.findall(r"^```toml\n.*?^```|`[^`\n]+`", text, re.M | re.S))
    assert {key for key in KEYS[section] if not re.search(rf"\b{key}\b", code)} == set()
