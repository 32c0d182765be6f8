"""`pip install valuedrift`, without any extra: what it promises works with what it brings."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import EXAMPLES, ROOT, last_json


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought() -> set[str]:
    """The distributions that the core's dependencies come to."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    todo = [Requirement(text) for text in project["dependencies"]]
    while todo:
        wanted = todo.pop()
        name = canonical(wanted.name)
        if name in found or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            todo += [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:  # of a library that asks for more than it needs
            continue
    return found


def test_watch_needs_no_extra(tmp_path: Path) -> None:
    """A log is watched where nothing but the core and its dependencies can be imported."""
    there = brought() | {"valuedrift"}
    hidden = sorted(m for m, given in packages_distributions().items() if there.isdisjoint(map(canonical, given)))
    assert {"psycopg", "uvicorn", "kafka", "torch"} <= set(hidden)
    code = (
        "import sys; names, *sys.argv[1:] = sys.argv[1:]; sys.modules.update(dict.fromkeys(names.split(',')));"
        "from monitor.cli import main; main(sys.argv[1:])"
    )
    called = [sys.executable, "-c", code, ",".join(hidden), "watch", str(EXAMPLES), "--json"]
    done = subprocess.run(called, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert len(last_json(done)["series"]) > 1
