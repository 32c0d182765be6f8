"""`watch` with a judge: a real HTTP endpoint is asked about a random slice, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from monitor.store import schema
from monitor.store.database import open_store
from tests.conftest import EXAMPLES, Run
from tests.service.test_judge import Server


def rows_of(database: Path) -> list[dict[str, Any]]:
    engine = open_store(f"sqlite:///{database}")
    with engine.connect() as connection:
        rows = [dict(r) for r in connection.execute(select(schema.reviews)).mappings()]
    engine.dispose()
    return rows


@pytest.mark.service
def test_reviews_are_kept_once(tmp_path: Path, valuedrift: Run) -> None:
    """A slice of the turns is reviewed and kept with its choice probability; a rerun asks nothing again."""
    with Server().running() as server:
        settings = {
            "VALUEDRIFT_JUDGE_URL": server.url,
            "VALUEDRIFT_JUDGE_MODEL": "judge-1",
            "VALUEDRIFT_JUDGE_SHARE": "0.1",
            "VALUEDRIFT_JUDGE_API_KEY": "secret-key",
        }
        for _ in range(2):
            done = valuedrift("watch", EXAMPLES, env=settings)
            assert done.returncode == 0, done.stderr
            assert "secret-key" not in done.stdout + done.stderr
        asked = len(server.requests)
    rows = rows_of(tmp_path / "valuedrift.db")
    assert len(rows) == asked
    assert 60 <= len(rows) <= 160, "a tenth of 1,063 turns"
    assert {r["choice_probability"] for r in rows} == {0.1}
    assert {(r["label"], r["refused"]) for r in rows} == {("deception", None)}, "what the server says of every turn"


@pytest.mark.service
def test_a_judge_that_is_down_stops_nothing(tmp_path: Path, valuedrift: Run) -> None:
    """A judge that cannot be reached stops no judgement; that it said nothing, and why, is kept."""
    settings = {
        "VALUEDRIFT_JUDGE_URL": "http://127.0.0.1:9/v1",
        "VALUEDRIFT_JUDGE_MODEL": "judge-1",
        "VALUEDRIFT_JUDGE_SHARE": "0.02",
        "VALUEDRIFT_JUDGE_ATTEMPTS": "1",
    }
    done = valuedrift("watch", EXAMPLES, env=settings)
    assert done.returncode == 0, done.stderr
    assert "judged 732" in done.stdout
    rows = rows_of(tmp_path / "valuedrift.db")
    assert rows
    assert {r["label"] for r in rows} == {None}
    assert all(r["refused"] for r in rows)
