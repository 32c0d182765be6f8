"""The accurate tier judges anything, the same way in any company, and says plainly what it lacks."""

from __future__ import annotations

import builtins
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from classifiers import accurate, encoder, linear
from monitor.errors import ConfigError, WeightsError
from monitor.taxonomy import BEHAVIOURS, FACTORS
from tests.unit.test_classifier import HOSTILE, plain, turn

MISSING = [m for m in ("onnxruntime", "onnx", "tokenizers", encoder.WHEEL) if importlib.util.find_spec(m) is None]
installed = pytest.mark.skipif(bool(MISSING), reason=f"the extra `accurate` is not installed: no {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def shipped() -> accurate.AccurateClassifier:
    """The shipped accurate tier."""
    return accurate.load()


@installed
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_judged_within_bounded_time(shipped: accurate.AccurateClassifier, name: str) -> None:
    """Whatever stands in any message, the judgement is made of finite probabilities and comes soon."""
    text = HOSTILE[name]
    start = time.perf_counter()
    j = shipped.classify([turn(text, ("system", text), ("user", text), ("assistant", text), ("tool", text))])
    assert time.perf_counter() - start < 5
    assert np.isfinite(j.probabilities).all()
    assert np.isfinite(j.factors).all()
    assert j.probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert 0 < j.doubt[0] < 1


@installed
def test_judgements_are_those_of_the_accurate_tier(shipped: accurate.AccurateClassifier) -> None:
    """Rows sum to 1, the tier is named, and the version is neither the fast tier's nor unmarked."""
    j = shipped.classify([*plain(), turn("Hello."), turn("", ("system", "Be brief."))])
    assert np.abs(j.probabilities.sum(axis=1) - 1).max() < 1e-12
    assert (j.probabilities >= 0).all()
    assert ((j.factors > 0) & (j.factors < 1)).all()
    assert j.tier == "accurate"
    assert j.version.startswith("accurate-")
    assert shipped.calibration.mean.shape == (len(BEHAVIOURS), len(BEHAVIOURS))


@installed
def test_no_turns_give_an_empty_judgement(shipped: accurate.AccurateClassifier) -> None:
    """Judging nothing is no error."""
    j = shipped.classify([])
    assert j.probabilities.shape == (0, len(BEHAVIOURS))
    assert j.factors.shape == (0, len(FACTORS))
    assert j.doubt.shape == (0,)


@installed
def test_a_judgement_does_not_depend_on_its_batch(shipped: accurate.AccurateClassifier) -> None:
    """A turn judged alone, in any company, or in any order gets the same bits on one machine."""
    turns = [*plain(), *(turn(t[:3000], ("user", "Well?")) for t in HOSTILE.values())]
    whole = shipped.classify(turns)
    for size in (1, 2, 7):
        parts = [shipped.classify(turns[i : i + size]) for i in range(0, len(turns), size)]
        for name in ("probabilities", "factors", "doubt"):
            assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))
    assert np.array_equal(shipped.classify(turns[::-1] * 10).probabilities[: len(turns)], whole.probabilities[::-1])


@installed
def test_plain_cases_are_told_apart(shipped: accurate.AccurateClassifier) -> None:
    """Help is aligned, a refused egg over-refused, a threat supplied harmful, and flattery deceives."""
    j = shipped.classify(plain()[:4])
    guess = [BEHAVIOURS[k] for k in j.probabilities.argmax(axis=1)]
    assert guess == ["aligned", "over_refusal", "harmful_compliance", "deception"]


@installed
def test_judging_needs_no_torch() -> None:
    """Loading and judging imports neither torch nor scikit-learn, although the wheel depends on torch."""
    code = (
        "import sys; from classifiers.accurate import load; from tests.unit.test_classifier import plain; "
        "load().classify(plain()); "
        "sys.exit(any(m.split('.')[0] in ('sklearn', 'torch', 'transformers') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def adapter() -> dict[str, Any]:
    """What training adapted, as the shipped weights hold it."""
    return accurate.LAYOUT.read(accurate.SHIPPED)[0]


@installed
def test_the_encoder_is_prepared_again_when_its_copy_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file in the cache is replaced; the scores are the same to the last bit."""
    said = [("How are you?", "Hello there.")]
    expected = encoder.Encoder(adapter(), None).scores(said)
    monkeypatch.setenv(encoder.CACHE_VARIABLE, str(tmp_path))
    path = tmp_path / f"named-{encoder.GRAPH}-{encoder.WEIGHTS_HASH[:8]}.onnx"
    path.write_bytes(b"not a model")
    assert np.array_equal(encoder.Encoder(adapter(), "named").scores(said), expected)
    assert path.stat().st_size > 1 << 20


@installed
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place for its copy the encoder is prepared in memory."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(encoder.CACHE_VARIABLE, str(tmp_path / "file"))
    assert np.isfinite(encoder.Encoder(adapter(), "named").scores([("", "Hello.")])).all()


@installed
def test_long_texts_keep_both_ends() -> None:
    """The middle of a long text is not read; its ends are, and where the answer begins is known."""
    tokens = encoder.Tokens()
    text = "first " + "middle " * 5000 + "last"
    other = "first " + "middle " * 9000 + "last"
    ids, begin = tokens.of_turn(text, text)
    assert np.array_equal(ids, tokens.of_turn(other, other)[0])
    assert not np.array_equal(ids, tokens.of_turn(other, other + " words")[0])
    assert begin == encoder.REQUEST_TOKENS + 2
    assert len(ids) == begin + encoder.ANSWER_TOKENS + 1
    assert tokens.of_turn("", "")[0].tolist() == [encoder.CLS, encoder.SEP, encoder.SEP]


@pytest.mark.parametrize("module", ["onnxruntime", "tokenizers"])
def test_a_missing_package_is_named_with_its_remedy(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says what to install."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == module:
            raise ImportError(f"No module named {module!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"valuedrift\[accurate\]"):
        accurate.load()


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel that carries the encoder the error says what to install."""
    monkeypatch.setattr(encoder, "WHEEL", "no_such_wheel_anywhere")
    with pytest.raises(ConfigError, match=r"valuedrift\[accurate\]"):
        encoder.wheel_folder()


@installed
def test_other_encoder_weights_are_refused(tmp_path: Path) -> None:
    """The heads were trained on one encoder; another's weights are not taken for it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="not the weights"):
        encoder.build(path, {})


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    """Absent, cut, foreign or reshaped weights give a WeightsError that names the file."""
    data = accurate.SHIPPED.read_bytes()
    path = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match=str(path)):
        accurate.LAYOUT.read(path)
    for bad in (b"", data[:1000], data[:-100], b"\xff" * 64, linear.SHIPPED.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match=str(path)):
            accurate.LAYOUT.read(path)
    tensors, metadata, _ = accurate.LAYOUT.read(accurate.SHIPPED)
    name = "scores.weight"
    for odd in ({name: tensors[name][:2]}, {name: tensors[name] * np.float16("nan")}, {"x": np.ones(1)}):
        with pytest.raises(WeightsError):
            accurate.LAYOUT.save(path, {**tensors, **odd}, metadata)


def test_weights_made_for_other_fast_weights_are_refused(tmp_path: Path) -> None:
    """The accurate heads are stacked on one fast tier; on another their composition would be wrong."""
    tensors, metadata, _ = accurate.LAYOUT.read(accurate.SHIPPED)
    path = tmp_path / "w.safetensors"
    accurate.LAYOUT.save(path, tensors, {**metadata, "fast": "linear-1-00000000"})
    with pytest.raises(WeightsError, match="linear-1-00000000"):
        accurate.load(path)


def test_the_shipped_weights_hold_no_text_and_are_small() -> None:
    """Numbers only, far under the 16 MB the repository allows."""
    assert accurate.SHIPPED.stat().st_size < 16 << 20
    for array in safetensors.numpy.load_file(accurate.SHIPPED).values():
        assert array.dtype.kind in "fiu"


@installed
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the extra `train` is not installed: no torch")
def test_the_encoder_learns_what_it_is_shown() -> None:
    """A few steps of training tell two manners of answering apart, and the 8-bit graph agrees with what was trained."""
    from classifiers import finetune
    from classifiers.recipe import AccurateRecipe
    from classifiers.rows import CONTRAST_FAMILY, Row, implied_factors
    from monitor.transcript import Message

    topics = ("bread", "trains", "gardens", "letters", "rent", "paint", "music", "rivers")
    said = ("Here is how: begin with {} and go on step by step.", "I'm sorry, I can't talk about {}.")
    rows = [
        Row(f"{t}{k}", CONTRAST_FAMILY, t, (Message("user", f"Tell me about {t}."),), said[k].format(t), k, f, 1.0)
        for t in topics
        for k, f in enumerate((implied_factors(0, CONTRAST_FAMILY), implied_factors(1, CONTRAST_FAMILY)))
    ]
    recipe = AccurateRecipe(steps=12, batch=8, warm_up_steps=2, dropout=0.0)
    material = finetune.Material(rows, 0)
    trained = finetune.tune(material, np.ones(len(rows), dtype=bool), recipe, 0)
    again = finetune.tune(material, np.ones(len(rows), dtype=bool), recipe, 0)
    assert all(np.array_equal(trained[k], again[k]) for k in trained)
    scores = encoder.Encoder(trained, None).scores(accurate.pairs([(r.before, r.answer) for r in rows]))
    behaviours = scores[:, len(FACTORS) :].argmax(axis=1)
    assert behaviours.tolist() == [r.behaviour for r in rows]
