"""The same product on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.store.database import differences, open_store
from tests.conftest import EXAMPLES, Run, last_json


@pytest.mark.service
def test_same_findings_as_sqlite(postgres: str, tmp_path: Path, valuedrift: Run) -> None:
    """A PostgreSQL that was upgraded by hand gives the same series, shares, S and alerts as SQLite, also on a rerun."""
    upgraded = valuedrift("db", "upgrade", "--db", postgres)
    assert upgraded.returncode == 0, upgraded.stderr
    on_sqlite = last_json(valuedrift("watch", EXAMPLES, "--json"))
    for _ in range(2):
        on_postgres = last_json(valuedrift("watch", EXAMPLES, "--db", postgres, "--json"))
        assert on_postgres["series"] == on_sqlite["series"]
        assert on_postgres["events"] == on_sqlite["events"]


@pytest.mark.service
def test_schema_is_what_the_migrations_make(postgres: str, tmp_path: Path) -> None:
    """The migrations make exactly the tables the code uses, on both databases."""
    for url in (postgres, f"sqlite:///{tmp_path}/a.db"):
        engine = open_store(url)
        assert differences(engine) == []
        engine.dispose()
