"""Every rule has a page for 3 a.m., and what the pages tell somebody to type and to set is understood."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from alerts.rulebook import BUILT_IN, compile_rules
from alerts.settings import RuleSettings
from monitor.cli import cli
from monitor.config import load
from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
HEADINGS = ("What it means.", "How sure.", "First five minutes", "Likely causes.", "How to quiet it rightly.",
            "When it resolves.", "Settings.")  # fmt: skip
DOCS = (*PAGES, ROOT / "docs" / "alerts.md")
by_name = pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)


def test_a_page_for_every_rule_and_no_other() -> None:
    """An alert's link to its runbook leads somewhere, and no page is about a rule that is no more."""
    assert {page.stem for page in PAGES} == set(BUILT_IN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says(page: Path) -> None:
    """Each says the same things in the same order, so that nobody has to look for them at night."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem}\n")
    places = [text.index(f"**{heading}**") for heading in HEADINGS]
    assert places == sorted(places)


def commands(text: str) -> Iterator[list[str]]:
    """What is to be typed: in backticks, or indented lines up to their comment."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    typed = [m[1] for m in re.finditer(r"`(valuedrift [^`]+)`", text)]
    typed += [m[1] for m in re.finditer(r"^ {4}(valuedrift .*)$", text, re.M)]
    for line in typed:
        words = shlex.split(line, comments=True)[1:]
        if "..." not in words:
            yield words


def parse(words: list[str]) -> None:
    """As the command line does, without running anything. Raises click.UsageError."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name, *rest = words if words and not words[0].startswith("-") else ["list", *words]
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, words = found, rest
    command.make_context(command.name, list(words))


@by_name
def test_what_is_to_be_typed_is_understood(page: Path) -> None:
    """Every command of a page is one of the command line's, with options that it has."""
    for words in commands(page.read_text(encoding="utf-8")):
        parse(words)


def test_pages_have_commands_and_a_wrong_one_would_be_noticed() -> None:
    assert all(list(commands(page.read_text(encoding="utf-8"))) for page in DOCS)
    for wrong in (["alerts", "explian", "ID"], ["alerts", "ack"], ["alerts", "show", "ID", "--since", "3h"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


def test_settings_of_the_page_are_understood(tmp_path: Path) -> None:
    """What docs/alerts.md shows of valuedrift.toml makes rules."""
    blocks = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 2
    for n, block in enumerate(blocks):
        (path := tmp_path / f"{n}.toml").write_text(block, encoding="utf-8")
        rules = compile_rules(load(path, {}).alerts)
        assert n or {"team_deception", "behaviour_budget:harm"} <= {r.name for r in rules}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_that_a_page_names_are_there(page: Path) -> None:
    """A key of a rule that is named can be set."""
    settings = page.read_text(encoding="utf-8").partition("**Settings.**")[2]
    for keys in re.findall(r"`\[alerts\.rules\.(\w+)\]`: ((?:`\w+`(?: \([^)]*\))?(?:, )?)+)", settings):
        known = {f.rstrip("_") for f in RuleSettings.__struct_fields__}
        takes = BUILT_IN[keys[0]].takes | {"for", "severity", "labels", "repeat"}
        named = set(re.findall(r"`(\w+)`", keys[1]))
        assert named <= known & takes, named
