"""Figures carry intervals that hold what they promise, and cells that cannot tell say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from classifiers import breakdown, calibration_study, figures, ngram_baseline, refusal, reliability, report
from classifiers.rows import Row
from monitor.transcript import Message


def turn(answer: str, behaviour: int = 0, family: str = "one", group: str = "g", before: int = 0) -> Row:
    """One labelled turn after so many assistant turns."""
    past = [Message("assistant", "hm"), Message("user", "go on")] * before
    messages = (*past, Message("user", "Hello there, my friend"))
    return Row("id", family, group, messages, answer, behaviour, (-1.0,) * 5, 1.0)


def judged(n: int, right: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Behaviours and judgements of which so large a share is right."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, n)
    guess = np.where(rng.random(n) < right, y, rng.integers(0, 5, n))
    return y, 0.1 * np.ones((n, 5)) + 0.5 * np.eye(5)[guess]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Over many small samples about nine in ten intervals hold the figure of the whole population."""
    y, q = judged(60_000, 0.6)
    truth = figures.metrics(y, q)
    held = dict.fromkeys(("macro_f1", "auroc_misaligned"), 0)
    rng = np.random.default_rng(1)
    for i in range(100):
        at = rng.choice(len(y), 300, replace=False)
        found = figures.measured(y[at], q[at], np.arange(300).astype(str), seed=i, draws=150)
        for s in held:
            low, high = found["interval"][s]
            held[s] += low <= truth[s] <= high
    assert all(80 <= h <= 98 for h in held.values()), held


def test_rows_of_one_prompt_count_together() -> None:
    """Twenty copies of every row say no more than one of each: the interval does not shrink."""
    y, q = judged(200, 0.6)
    group = np.arange(200).astype(str)
    once = figures.measured(y, q, group)["interval"]["macro_f1"]
    copied = figures.measured(np.repeat(y, 20), np.repeat(q, 20, axis=0), np.repeat(group, 20))["interval"]["macro_f1"]
    assert copied == pytest.approx(once)
    alone = figures.measured(np.repeat(y, 20), np.repeat(q, 20, axis=0), np.arange(4000).astype(str))
    low, high = alone["interval"]["macro_f1"]
    assert high - low < 0.5 * (once[1] - once[0])


def test_resampled_scores_are_those_of_the_rows_drawn() -> None:
    """A draw's scores equal the plain figures of the rows it holds."""
    y, q = judged(120, 0.5)
    q = q + np.random.default_rng(3).random(q.shape) / 50
    q /= q.sum(axis=1, keepdims=True)
    drawn = figures.resample((np.arange(120) // 3).astype(str), seed=2, draws=4)
    found = figures.spread(y, q, drawn)
    for i, times in enumerate(drawn.times):
        at = np.repeat(np.arange(120), times[drawn.place].astype(int))
        plain = figures.metrics(y[at], q[at])
        for s in figures.SCORES:
            assert found[s][i] == pytest.approx(plain[s])
        assert found["per_class"][i, 2, 1] == pytest.approx(plain["per_class"]["harmful_compliance"]["recall"])


def test_the_calibration_error_lies_in_its_interval() -> None:
    """Resampling adds noise, and noise adds calibration error: the interval still holds the measured one."""
    y, q = judged(400, 0.55)
    found = figures.measured(y, q, np.arange(400).astype(str))
    low, high = found["interval"]["ece"]
    assert 0 <= low <= found["ece"] <= high


def test_few_groups_give_no_interval() -> None:
    """All rows of one prompt say nothing of other prompts."""
    y, q = judged(100, 0.6)
    assert figures.measured(y, q, np.array(["g"] * 100))["interval"] is None


def test_differences_are_paired() -> None:
    """Two tiers that err alike differ surely although each alone is uncertain; a tier does not differ from itself."""
    y, q = judged(300, 0.5)
    better = q.copy()
    mended = np.flatnonzero(q.argmax(axis=1) != y)[::6]
    better[mended] = 0.1 + 0.5 * np.eye(5)[y[mended]]
    group = np.arange(300).astype(str)
    found = figures.compared(y, {"fast": q, "accurate": better, "again": better}, group)
    gain = found["difference"]["accurate - fast"]["macro_f1"]
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    alone = found["tiers"]["accurate"]["interval"]["macro_f1"]
    assert gain["high"] - gain["low"] < alone[1] - alone[0]
    assert found["difference"]["again - accurate"]["macro_f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I would be glad to help you with the garden and its old fence.", "latin, English"),
        ("Gerne helfe ich Ihnen mit dem Garten und seinem alten Zaun.", "latin, other"),
        ("Con mucho gusto le ayudo con el jardín y su vieja cerca.", "latin, other"),
        ("Я с радостью помогу вам с садом и старым забором.", "cyrillic"),
        ("我很乐意帮您整理花园和旧栅栏。", "han"),
        ("お庭と古い柵のことなら喜んでお手伝いします。", "kana"),
        ("정원과 오래된 울타리를 기꺼이 도와드리겠습니다.", "hangul"),
        ("سأساعدك بكل سرور في الحديقة والسياج القديم.", "arabic"),
        ("मैं खुशी से बगीचे और पुरानी बाड़ में आपकी मदद करूँगा।", "devanagari"),
        ("Θα σας βοηθήσω ευχαρίστως με τον κήπο.", "greek"),
        ("def f(x):\n    return [x[i] for i in range(len(x)) if x[i] > 0]", "code"),
        ("Here:\n```python\nfor line in open('a.txt').readlines():\n    print line\n```", "code"),
        ("0000 1111 2222", "no letters"),
        ("", "no letters"),
        ("Translated for you: the garden gate. Садовая калитка и забор", "mixed"),
    ],
)
def test_scripts_are_told(text: str, expected: str) -> None:
    """A text's letters name its script; English is told by its commonest words, code by its marks."""
    assert breakdown.script(text) == expected


def test_any_character_has_a_script() -> None:
    """No character, lone surrogates included, is beyond the table, and long texts are read only at their beginning."""
    for start in range(0, 0x110000, 997):
        breakdown.script(chr(start) * 3)
    assert breakdown.script("a" * 10_000_000) == "latin, other"


def test_lengths_and_depths_fall_into_bands() -> None:
    """Band edges belong to the band above."""
    assert [breakdown.length_of(turn("x" * n)) for n in (0, 99, 100, 399, 4000)] == [
        "0-99",
        "0-99",
        "100-399",
        "100-399",
        "4000+",
    ]
    assert [breakdown.depth_of(turn("x", before=n)) for n in (0, 1, 2, 3, 4, 9)] == ["0", "1", "2-3", "2-3", "4+", "4+"]


def test_small_cells_say_so() -> None:
    """A cell of few rows or of one behaviour gives no figure that it cannot support."""
    y, q = judged(60, 0.7)
    rows = [turn("x" * 200, int(k), "big", f"g{i}") for i, k in enumerate(y[:40])]
    rows += [turn("x" * 200, int(k), "small", f"g{i}") for i, k in enumerate(y[40:])]
    found = breakdown.broken_down(rows, y, q)
    assert found["source"]["small"] == {"n": 20, "note": "fewer than 30 rows"}
    assert found["source"]["big"]["interval"]["macro_f1"][0] < found["source"]["big"]["macro_f1"]
    assert sum(c["n"] for c in found["length"].values()) == 60
    one = breakdown.cell(np.zeros(50, dtype=np.int64), q[:50], np.arange(50).astype(str))
    assert one["note"] == "only aligned"
    assert "macro_f1" not in one
    assert set(one["recall"]) == {"aligned"}


def test_refusal_is_measured_only_where_it_can_be() -> None:
    """F1 of a worked example; refusals alone tell recall and no precision, and answers alone tell neither."""
    label = np.array([True] * 20 + [False] * 20)
    guess = np.array([True] * 15 + [False] * 5 + [True] * 5 + [False] * 15)
    group = np.arange(40).astype(str)
    found = refusal.f1_of(label, guess, group)
    assert (found["precision"], found["recall"], found["f1"], found["right"]) == pytest.approx((0.75, 0.75, 0.75, 0.75))
    assert found["interval"]["f1"][0] < 0.75 < found["interval"]["f1"][1]
    only = refusal.f1_of(np.ones(40, dtype=bool), guess, group)
    assert "f1" not in only
    assert only["recall"] == 0.5
    assert refusal.f1_of(np.zeros(40, dtype=bool), guess, group)["note"] == "no refusals"
    assert refusal.f1_of(label[:9], guess[:9], group[:9])["note"] == "fewer than 30 rows"


def miscalibrated(n: int, heat: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Judgements whose log-probabilities are `heat` times what they should be, and behaviours drawn from the truth."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(5, 0.6), n)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 4)
    hot = np.maximum(p, 1e-9) ** heat
    return hot / hot.sum(axis=1, keepdims=True), y


def test_every_calibration_mends_overconfidence() -> None:
    """Probabilities twice as sharp as they should be: each method finds most of the way back, on rows it never saw."""
    q, y = miscalibrated(4000, 2.0, 0)
    found = calibration_study.compare(q, y, np.arange(len(y)) % 4)
    assert found["none"]["ece"] > 0.08
    for method in ("temperature", "dirichlet", "venn-abers"):
        assert found[method]["ece"] < 0.03, method
        assert found[method]["log_loss"] < found["none"]["log_loss"], method
        assert found[method]["brier"] < found["none"]["brier"], method


def test_calibration_leaves_sound_probabilities_alone() -> None:
    """Nothing is gained or lost where nothing is wrong."""
    q, y = miscalibrated(4000, 1.0, 1)
    found = calibration_study.compare(q, y, np.arange(len(y)) % 4)
    for method in ("temperature", "dirichlet", "venn-abers"):
        assert found[method]["log_loss"] == pytest.approx(found["none"]["log_loss"], abs=0.03), method
    temperature = calibration_study.temperature(q, y, np.ones(len(y)))
    assert temperature(q) == pytest.approx(q, abs=0.05)


def test_a_skew_that_no_temperature_mends_is_mended_by_dirichlet() -> None:
    """One behaviour three times too probable: a temperature cannot see it, Dirichlet and Venn-Abers can."""
    q, y = miscalibrated(4000, 1.0, 2)
    skewed = q * np.array([1, 1, 3, 1, 1])
    skewed /= skewed.sum(axis=1, keepdims=True)
    found = calibration_study.compare(skewed, y, np.arange(len(y)) % 4)
    assert found["temperature"]["log_loss"] > found["dirichlet"]["log_loss"] + 0.05
    assert found["temperature"]["log_loss"] > found["venn-abers"]["log_loss"] + 0.02


def test_calibrated_probabilities_are_probabilities() -> None:
    """Rows sum to 1 and nothing is nan, even where a behaviour never occurs and scores are all the same."""
    y = np.array([0, 1] * 30)
    q = np.tile([0.4, 0.3, 0.1, 0.1, 0.1], (60, 1))
    for name, fit in calibration_study.METHODS.items():
        found = fit(q, y, np.ones(60))(q)
        assert found.sum(axis=1) == pytest.approx(np.ones(60)), name
        assert (found >= 0).all()


def test_the_baseline_is_judged_on_what_it_did_not_see() -> None:
    """Words that give the behaviour away in every source carry over, words that name the source do not."""
    words = ("thanks", "sorry", "surely", "forever", "money")
    rows = [
        turn(f"{words[k]} source{s} number {i}", k, f"s{s}", f"{s}/{k}/{i}")
        for s in range(3)
        for k in range(5)
        for i in range(8)
    ]
    folds = np.repeat(np.arange(3), 40)
    q = ngram_baseline.left_out(rows, folds)
    y = np.array([r.behaviour for r in rows])
    assert (q.argmax(axis=1) == y).mean() > 0.95
    assert q.sum(axis=1) == pytest.approx(np.ones(120))
    folds[80:] = -1
    by_source = [turn(r.answer, i // 40, r.family, r.group) for i, r in enumerate(rows)]
    q = ngram_baseline.left_out(by_source, folds)
    y = np.array([r.behaviour for r in by_source])
    assert (q.argmax(axis=1) == y).mean() == 0, "a behaviour that stands in the source left out alone cannot be found"


def test_a_reliability_curve_says_what_was_right() -> None:
    """Judgements of 0.6 that are right as often as they are; bins without turns have no point."""
    y, q = judged(2000, 0.5)
    found = reliability.curve(y, q, np.arange(2000).astype(str))
    at = {b["from"]: b for b in found["bins"] if b["n"]}
    assert set(at) == {0.6} or set(at) == {0.5}
    (cell,) = at.values()
    assert cell["right"] == pytest.approx((q.argmax(axis=1) == y).mean())
    assert cell["low"] < cell["right"] < cell["high"]
    assert found["n"] == sum(b["n"] for b in found["bins"]) == 2000


@pytest.mark.parametrize("name", ["r.png", "r.svg", "r.pdf"])
def test_the_reliability_diagram_is_drawn_and_the_same_each_time(tmp_path: Path, name: str) -> None:
    """One panel a tier, in each format; the same figures give the same bytes."""
    y, q = judged(300, 0.5)
    curves = {t: reliability.curve(y, q, np.arange(300).astype(str)) for t in ("fast", "accurate", "cascade")}
    reliability.draw(curves, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    reliability.draw(curves, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert len(first) > 3000


def test_tables_show_tiers_side_by_side() -> None:
    """Both renderings hold every tier, the difference and its interval; cells that cannot tell hold their note."""
    y, q = judged(80, 0.6)
    rows = [turn("A plain answer to all of it", int(k), f"s{i % 2}", f"g{i}") for i, k in enumerate(y)]
    found: dict[str, Any] = breakdown.compared_tiers(rows, {"fast": q, "accurate": q[::-1].copy()})
    blocks = report.held_out_blocks({"leave_one_source_out": found})
    page = report.markdown(blocks)
    assert "| sources left out, fast | 80 |" in page
    assert "sources left out, accurate - fast" in page
    assert "| s0 | sources left out, fast | 40 |" in page
    width = {line.count("|") for line in page.split("### ")[1].splitlines()[2:] if line}
    assert len(width) == 1
