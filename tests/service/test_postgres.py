"""The same product on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from monitor.store.database import open_engine, open_store
from monitor.store.schema import METADATA
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
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        engine.dispose()


@pytest.mark.service
def test_password_is_never_shown(tmp_path: Path, valuedrift: Run) -> None:
    """A database that cannot be reached is told in one line, without its password."""
    done = valuedrift("watch", EXAMPLES, "--db", "postgresql://user:secret@127.0.0.1:9/none")
    assert done.returncode == 3
    assert "secret" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert open_engine("postgresql://user:secret@127.0.0.1:9/none").url.password == "secret"
