"""Context support, topics and the command: what a user sees of answers that keep to their context and of others."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faithfulness import told_apart
from classifiers import encoder
from monitor.faithfulness_claims import MAX_CHARACTERS, MAX_SENTENCES, claims, sentences
from monitor.faithfulness_support import support
from monitor.faithfulness_topics import clusters, hashed_words, shares_of_topics
from tests.conftest import Run
from tests.unit.test_classifier import HOSTILE
from tests.unit.test_faithfulness import REFERENCE

MISSING = [m for m in ("onnxruntime", "onnx", "tokenizers", encoder.WHEEL) if importlib.util.find_spec(m) is None]
installed = pytest.mark.skipif(bool(MISSING), reason=f"the extra `accurate` is not installed: no {', '.join(MISSING)}")

CONTEXT = (
    "The pool opens at 7 a.m. and has 8 lanes. Anna Berg taught the course in June; it was not cancelled.",
    "Towels are lent at the desk. In May the coach Tom Reed trained Lea Kern.",
)


@pytest.mark.parametrize(
    ("faithful", "unfaithful", "doubt"),
    [
        ("It has eight lanes.", "It has twelve lanes.", "number"),
        ("Anna Berg taught the course.", "The course was taught by Paula Stein.", "name"),
        ("The pool opens at 7 a.m.", "The pool closes at 7 a.m.", "opposite"),
        ("The course wasn't cancelled.", "The course was cancelled in June.", "negation"),
        ("Tom Reed trained Lea Kern.", "Lea Kern trained Tom Reed.", "order"),
        ("Lea Kern was trained by Tom Reed.", "Tom Reed was trained by Lea Kern.", "order"),
    ],
)
def test_contradictions_are_named(faithful: str, unfaithful: str, doubt: str) -> None:
    """What the context says otherwise lowers the support and is named; the same said truly is not doubted."""
    good, bad = support("", CONTEXT, faithful), support("", CONTEXT, unfaithful)
    assert [c.doubts for c in good.claims] == [()]
    assert doubt in bad.claims[0].doubts
    assert good.least is not None
    assert bad.least is not None
    assert bad.least < good.least - 0.2


def test_least_supported_claim_counts() -> None:
    """One invented sentence among true ones brings an answer's support down, and is told by its place."""
    s = support("", CONTEXT, "The pool has 8 lanes. Swimmers receive a voucher for breakfast.")
    assert s.least == s.claims[1].support < 0.3 < 0.9 < s.claims[0].support
    assert [c.sentence for c in s.claims] == [0, 1]


def test_other_spellings_of_a_number_are_the_same() -> None:
    """1,250 and 1250, twelve and 12, a year within a range: none is called unsupported."""
    context = ["It cost 1,250 euros and took 12 days. Years 7 to 9 took part; 2.50 each."]
    for said in ("It cost 1250 euros.", "It took twelve days.", "Year 8 took part.", "It was 2.5 each."):
        assert "number" not in support("", context, said).claims[0].doubts


def test_saying_that_the_source_is_silent_needs_no_support() -> None:
    """An answer that only says so has no support to measure; what it adds is measured."""
    silent = support("Is there a sauna?", CONTEXT, "The text does not mention a sauna.")
    assert (silent.least, silent.mean, silent.claims) == (None, None, ())
    assert len(support("Is there a sauna?", CONTEXT, "The text does not mention a sauna. It has 8 lanes.").claims) == 1


def test_nothing_to_hold_an_answer_against() -> None:
    """Without context what the question does not mention is unsupported; without answer there is no figure."""
    assert support("", [], "The pool has 8 lanes.").least == 0
    assert support("", CONTEXT, "").least is None


@given(st.text(max_size=300), st.lists(st.text(max_size=200), max_size=3), st.text(max_size=300))
def test_any_text_has_a_support(question: str, context: list[str], answer: str) -> None:
    """Whatever is written, figures lie in [0, 1] and are the same the second time."""
    s = support(question, context, answer, hashed_words)
    for value in (s.least, s.mean, *(c.support for c in s.claims)):
        assert value is None or 0 <= value <= 1
    assert s == support(question, context, answer, hashed_words)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_read_within_bounds(name: str) -> None:
    """Megabytes of anything come to a bounded number of sentences, and to figures."""
    text = HOSTILE[name]
    assert len(sentences(text)) <= MAX_SENTENCES
    assert sum(map(len, sentences(text))) <= MAX_CHARACTERS
    found = support(text, [text], text)
    assert found.least is None or 0 <= found.least <= 1
    shares = shares_of_topics(text, [text], text, hashed_words)
    assert shares is None or all(p.sum() == pytest.approx(1) for p in shares)


def test_sentences() -> None:
    """Abbreviations, times and decimals do not end a sentence; other scripts' full stops and new lines do."""
    assert sentences("Dr. Lee came at 7 p.m. with 3.5 litres. Then he left!") == [
        "Dr. Lee came at 7 p.m. with 3.5 litres.",
        "Then he left!",
    ]
    assert sentences("明日は晴れ。寒い。\none\n\ntwo") == ["明日は晴れ。", "寒い。", "one", "two"]
    assert [c.sentence for c in claims("Yes. It rained, but we swam. No, never.")] == [1, 1]


def test_topics_are_clusters_of_like_sentences() -> None:
    """The same sentence in all three texts is one topic; what shares nothing is another; a text of none gives None."""
    shares = shares_of_topics(
        "Cats sleep.", ["Cats sleep. Trains run late."], "Cats sleep. Bread is baked.", hashed_words
    )
    assert shares is not None
    q, c, a = (p.tolist() for p in shares)
    assert (q, c, a) == ([1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5])
    assert shares_of_topics("", ["Cats."], "Cats.", hashed_words) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_clusters_do_not_depend_on_the_order_of_sentences(seed: int, n: int) -> None:
    """Sentences given in another order fall into the same groups."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation(n)
    one, other = clusters(vectors)[order], clusters(vectors[order])
    assert ((one[:, None] == one) == (other[:, None] == other)).all()
    assert sorted(set(one)) == list(range(max(one) + 1))


def test_held_out_answers_by_words() -> None:
    """Without an encoder: support tells most unfaithful answers from faithful, where SF tells next to none."""
    found = told_apart("held-out", None)
    assert found["context support"]["all"][0] > 0.83
    assert abs(found["SF"]["all"][0] - 0.5) < 0.1
    assert found["SF"]["contradicting"][0] < 0.55


@installed
def test_held_out_answers_by_meaning() -> None:
    """With the encoder: an AUROC of 0.85 or more, and better than by words."""
    found = told_apart("held-out", encoder.SentenceEncoder())
    assert found["context support"]["all"][0] >= 0.85
    assert found["SF"]["contradicting"][0] < 0.55


@installed
def test_sentence_encoder() -> None:
    """Sentences alike in meaning are near, others are not, whatever else is embedded with them."""
    embed = encoder.SentenceEncoder()
    one, like, other = embed(
        ["The firm was bought in March.", "They acquired the company in spring.", "Rye bread is sour."]
    )
    assert np.linalg.norm(one) == pytest.approx(1)
    assert one @ like > 0.5 > 0.2 > one @ other
    assert (embed(["The firm was bought in March."])[0] == one).all()
    assert np.isfinite(embed(["", "\ud800", "a" * 100_000])).all()


def line(**more: object) -> str:
    messages = [
        {"role": "user", "content": "How many lanes?"},
        {"role": "assistant", "content": "It has twelve lanes."},
    ]
    return json.dumps({"messages": messages} | more)


def test_command(valuedrift: Run) -> None:
    """Transcripts and topic distributions may be mixed; what cannot be measured says why, on its line."""
    shares = {"p_question": [0.5, 0.5], "p_context": [1, 0], "p_answer": [0.25, 0.75]}
    lines = [
        line(context=CONTEXT),
        line(),
        json.dumps(shares),
        json.dumps(shares | {"p_answer": [1.0]}),
        json.dumps(shares | {"p_answer": [0.5, 0.6]}),
        "not json",
        json.dumps(shares | {"p_question": [1, 0]}),
        '{"p_answer": [1],',
        '{"p_answer": [1e999], "p_question": "", "p_context": []}',
    ]
    done = valuedrift("faithfulness", "--by", "words", input="\n".join(lines))
    assert done.returncode == 0, done.stderr
    turn, bare, given, uneven, unsummed, broken, apart, cut, wild = map(json.loads, done.stdout.splitlines())
    assert turn["claims"] == [{"sentence": 0, "support": turn["support"], "doubts": ["number"]}]
    assert (turn["line"], turn["turn"], turn["by"]) == (1, 0, "words")
    assert bare == {"line": 2, "turn": 0, "skipped": "no context"}
    divergence = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert given["d_min"] == pytest.approx(divergence, abs=1e-6)
    assert given["sf"] == pytest.approx(1 / (1 + divergence), abs=1e-6)
    assert given["sep"] == pytest.approx(np.log(4), abs=1e-6)
    assert "2, 2 and 1 topics" in uneven["error"]
    assert "p_answer does not sum to 1" in unsummed["error"]
    assert "malformed" in broken["error"]
    assert [set(row) for row in (cut, wild)] == [{"line", "error"}] * 2
    assert (apart["sf"], apart["d_min"]) == (0, "infinite")
    assert "lanes" not in done.stdout, "no transcript text is printed"


def test_command_reference(valuedrift: Run) -> None:
    """--reference gives the reference implementation's ten figures, --smooth finite ones as defined."""
    rows = [json.loads(row) for row in REFERENCE.read_text(encoding="utf-8").splitlines()]
    done = valuedrift("faithfulness", REFERENCE, "--reference")
    assert [round(json.loads(row)["sf"], 4) for row in done.stdout.splitlines()] == [r["reference_F_S"] for r in rows]
    done = valuedrift("faithfulness", REFERENCE, "--smooth", "0.05")
    assert all(0 < json.loads(row)["sf"] < 1 for row in done.stdout.splitlines())


def test_command_refuses(valuedrift: Run, tmp_path: Path) -> None:
    """A file that is not there is told in one line; so is a smoothing that is no share."""
    done = valuedrift("faithfulness", tmp_path / "none.jsonl")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert valuedrift("faithfulness", "-", "--smooth", "1", input="").returncode == 2
