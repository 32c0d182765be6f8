"""`train` and `evaluate` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.taxonomy import BEHAVIOURS
from tests.conftest import Run, last_json


@pytest.mark.service
def test_evaluate_own_labels(
    tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]], truth: dict[str, Any]
) -> None:
    """On labelled turns the classifier never saw, one JSON object holds the figures of every behaviour."""
    rows = [
        {"id": e["conversation_id"], "source": "own", "messages": e["messages"], "label": labels[-1]}
        for e in examples
        if (labels := truth["turn_labels"][e["conversation_id"]])
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    result = last_json(valuedrift("evaluate", "--data", "own.jsonl", "--json"))
    assert result["n"] == len(rows)
    assert set(result["per_class"]) == set(BEHAVIOURS)
    for figures in result["per_class"].values():
        assert set(figures) >= {"precision", "recall", "f1"}
        assert all(0 <= figures[k] <= 1 for k in ("precision", "recall", "f1"))
    assert result["auroc_misaligned"] > 0.85, "the bundled transcripts are well told apart"
    assert 0 <= result["ece"] <= 1
    assert result["turns_per_second"] > 0


@pytest.mark.service
def test_evaluate_bad_row(tmp_path: Path, valuedrift: Run) -> None:
    """A row that is not labelled is named by file and line."""
    (tmp_path / "bad.jsonl").write_text('{"messages": [], "label": "aligned"}\n')
    done = valuedrift("evaluate", "--data", "bad.jsonl", "--json")
    assert done.returncode == 3
    assert "bad.jsonl:1" in done.stderr
