"""Tiers are compared on the same turns, and what is held out is judged by nothing that has seen it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from classifiers import calibration_study, evaluation, heads, refusal, report
from classifiers.rows import CONTRAST_FAMILY, UNKNOWN, Row
from monitor.entropy import Calibration
from monitor.errors import InputError
from monitor.taxonomy import K
from monitor.transcript import Judgements, Message, Turn
from tests.unit.core_cases import calibration


class Stub:
    """Right of so large a share of turns whose answer names their behaviour; doubtful where it is wrong."""

    def __init__(self, version: str, right: float) -> None:
        self.version = version
        self.right = right
        self.judged = 0

    @property
    def calibration(self) -> Calibration:
        return calibration()

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        self.judged += len(turns)
        y = np.array([int(t.answer) for t in turns], dtype=np.int64)
        wrong = np.array([t.index % 100 >= 100 * self.right for t in turns], dtype=bool)
        q = 0.1 + 0.5 * np.eye(K)[np.where(wrong, (y + 1) % K, y)]
        return Judgements(q, np.zeros((len(turns), K)), np.where(wrong, 0.9, 0.1), self.version, self.version)


def row(i: int, behaviour: int | None, family: str = "own", answer: str | None = None, refuses: float = UNKNOWN) -> Row:
    """A turn whose answer names its behaviour."""
    factors = (UNKNOWN, refuses, UNKNOWN, UNKNOWN, UNKNOWN)
    text = str(behaviour) if answer is None else answer
    return Row(f"r{i}", family, f"g{i}", (Message("user", "hi"),), text, behaviour, factors, 1.0)


def test_tiers_and_cascade_are_compared_on_the_same_turns() -> None:
    """Each tier judges every turn once; the cascade lies between them, and the gain has an interval."""
    rows = [row(i, (i * 7) % K, refuses=float(i % 2)) for i in range(300)]
    fast, accurate = Stub("fast", 0.7), Stub("accurate", 0.9)
    found = evaluation.evaluate_all(fast, accurate, rows)
    assert (fast.judged, accurate.judged) == (300, 300)
    scores = {tier: m["macro_f1"] for tier, m in found["tiers"].items()}
    assert scores["fast"] < scores["cascade"] < scores["accurate"]
    gain = found["difference"]["accurate - fast"]["macro_f1"]
    assert gain["value"] == pytest.approx(scores["accurate"] - scores["fast"])
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert 0.1 <= found["handed_on"] <= 0.16
    assert set(found["reliability"]) == {"fast", "accurate", "cascade"}
    shown = report.table({"how": "shipped weights", "tier": "all", **found})
    for words in ("cascade", "accurate - fast", "By behaviour", "Refusal or not"):
        assert words in shown
    json.dumps(found)


def test_rows_without_labels_cannot_be_evaluated() -> None:
    """Nothing to measure is an input error, not a zero."""
    with pytest.raises(InputError, match="no labelled rows"):
        evaluation.evaluate_all(Stub("fast", 1), Stub("accurate", 1), [row(0, None)])


def test_held_out_tiers_share_a_card() -> None:
    """Held-out judgements of two tiers become one comparison, with their cascade and intervals over sources."""
    rows = [row(i, i % K, f"s{i % 6}" if i % 3 else CONTRAST_FAMILY) for i in range(240)]
    table = heads.table_of(rows)
    folds = heads.source_folds(table, 0)
    rng = np.random.default_rng(0)
    fast = rng.dirichlet(np.ones(K), len(rows))
    accurate = 0.5 * fast + 0.5 * np.eye(K)[table.behaviour]
    parts = evaluation.held_out(table, folds, {"fast": fast, "accurate": accurate}, rows)
    assert set(parts) == {"leave_one_source_out", "held_out_contrast"}
    left = parts["leave_one_source_out"]
    assert left["n"] + parts["held_out_contrast"]["n"] == len(rows)
    assert list(left["tiers"]) == ["fast", "accurate", "cascade"]
    assert left["tiers"]["fast"]["macro_f1"] < left["tiers"]["cascade"]["macro_f1"]
    page = report.markdown(report.held_out_blocks(parts))
    assert "scenarios held out, cascade" in page
    assert "sources left out, fast" in page


def test_refusals_of_a_source_are_judged_without_it() -> None:
    """A source that says with its own word that it refuses is not known by it; a word all share carries over."""
    rows = []
    for s in range(4):
        for i in range(40):
            refuses = i % 2
            shared = "sorry cannot" if refuses else "gladly here"
            own = f"word{s}yes" if refuses else f"word{s}no"
            words = own if s == 3 else f"{shared} {own}"
            rows.append(row(len(rows), 1 if refuses else 0, f"s{s}", words, float(refuses)))
    for s in range(3):
        for i in range(40):
            refuses = i % 2
            words = f"word3{'yes' if refuses else 'no'}" if s == 2 else ("sorry cannot" if refuses else "gladly here")
            family = "s3/more" if s == 2 else f"f{s}"
            rows.append(row(len(rows), None, family, words, float(refuses)))
    table = heads.table_of(rows)
    folds = heads.source_folds(table, 0)
    logits = heads.out_of_fold(table, folds, 0, None, whole_sources=True)
    found = refusal.figures(table, refusal.held_out(table, folds, logits))
    assert found["n"] == len(rows)
    assert found["by_source"]["s0"]["f1"] > 0.95
    assert found["by_source"]["f0"]["f1"] > 0.95
    assert found["factor_rows"]["n"] == 120
    # the factor rows s3/more are a slice of s3, whose word nobody else uses
    slice_of = np.array([r.family == "s3/more" for r in rows])
    p = refusal.held_out(table, folds, logits)[slice_of]
    assert len(np.unique(p.round(6))) == 1


def test_calibrations_are_compared_on_groups_and_on_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of holding out are told for every method."""
    monkeypatch.setattr(calibration_study, "GRID", 10)
    rows = [row(i, (i * 3) % K, f"s{i % 4}") for i in range(200)]
    table = heads.table_of(rows)
    q = np.random.default_rng(1).dirichlet(np.ones(K), len(rows))
    found = evaluation.calibrations(table, heads.source_folds(table, 0), q, 0)
    assert set(found) == {"groups held out", "sources held out"}
    for methods in found.values():
        assert set(methods) == {"none", "temperature", "dirichlet", "venn-abers"}
        assert methods["temperature"]["log_loss"] < methods["none"]["log_loss"]
