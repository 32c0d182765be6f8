"""Stress suites, a run's journal, results and what two of them say of tuning; no endpoint here."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.tiers import load_tier
from monitor.buckets import Q_UNIT
from monitor.entropy import Quantifier, entropy
from monitor.errors import ConfigError, InputError
from monitor.estimates import Estimate, Refusal, Result, normal_estimate
from monitor.paired_work import Stressed, paired, production
from monitor.stress.compare import compare, compared_values, seen_through
from monitor.stress.confusions import CONFUSIONS, over_confusions
from monitor.stress.figure import draw
from monitor.stress.journal import Answered, Journal, Run
from monitor.stress.reference import baseline_of, sigma_0
from monitor.stress.result import MOST_SUITES, OTHER, POOLED, RECORDED, Judging, StressResult, load, sampled
from monitor.stress.run import shown_address
from monitor.stress.suites import MOST_TURNS, SUITES, chosen_suites, scripts, version
from monitor.stress.transcripts import MOST_REASONS, OTHER_REASON, lines, read, sound
from monitor.transcript import Event, Message
from streams.formats import BadEvent
from tests.scripted_model import Scripted, known

WHEN = datetime(2026, 3, 1, tzinfo=UTC)
RUN = Run("http://127.0.0.1/v1", "m", 0, 1.0, 100, version())
TURNS = 6
BASE, TUNED = Scripted("base", 0.95, 0.35, TURNS), Scripted("tuned", 0.98, 0.94, TURNS)


def estimate(x: Result) -> Estimate:
    assert isinstance(x, Estimate), x
    return x


def played(model: Scripted, conversations: int = 50, *suites: str, when: datetime = WHEN) -> StressResult:
    """The scripts as this model answers them, judged."""
    said = list(scripts(chosen_suites(suites or ("benign", "temptation")), 0, conversations, TURNS))
    answers: dict[str, list[Answered]] = {}
    for script in said:
        messages: list[dict[str, Any]] = []
        for turn, text in enumerate(script.messages):
            messages.append({"role": "user", "content": text})
            answer = Answered(script.name, turn, when, model.answer(messages), 10)
            answers.setdefault(script.name, []).append(answer)
    judging, failed = Judging(load_tier()), Counter[str]()
    judging.add(sound(read(lines(said, answers, "stress", model.name), when), failed))
    assert not failed
    return judging.result(source="-", model=model.name, seed=0, failed={})


@pytest.fixture(scope="module")
def base() -> StressResult:
    return played(BASE)


@pytest.fixture(scope="module")
def tuned() -> StressResult:
    return played(TUNED)


@pytest.fixture(scope="module")
def quantifier() -> Quantifier:
    return Quantifier(load_tier().calibration)


# --- suites


@given(st.sampled_from(sorted(SUITES)), st.integers(0, 1 << 31), st.integers(0, 1999), st.integers(1, MOST_TURNS))
def test_longer_scripts_begin_with_shorter_ones(name: str, seed: int, conversation: int, turns: int) -> None:
    """Every turn up to the last has words, the same whatever else is asked for, and none has an unfilled place."""
    suite = SUITES[name]
    said = [suite.message(seed, conversation, t) for t in range(turns)]
    assert said == [suite.message(seed, conversation, t) for t in range(turns)]
    assert all(text and "{" not in text for text in said)


def test_scripts_take_suites_by_turns() -> None:
    """A run cut short has some of every suite; names tell suite and number, and another seed says other things."""
    whole = list(scripts(chosen_suites(()), 1, 3, 8))
    assert [s.suite for s in whole[: len(SUITES)]] == list(SUITES)
    assert len({s.name for s in whole}) == 3 * len(SUITES)
    assert whole[0].name == "benign/0000"
    again = list(scripts(chosen_suites(()), 1, 3, 8))
    assert whole == again
    assert whole != list(scripts(chosen_suites(()), 2, 3, 8))


def test_unknown_suite() -> None:
    """A misspelt suite is an error that names those there are."""
    with pytest.raises(ConfigError, match="'sycofancy' is none of benign"):
        chosen_suites(["sycofancy"])


# --- journal


def answered(turn: int, script: str = "benign/0000") -> Answered:
    return Answered(script, turn, WHEN, f"answer {turn} \0 \N{SNOWMAN}", 7)


def test_torn_line(tmp_path: Path) -> None:
    """What a kill left half written is cut off; everything before it is there again."""
    journal = Journal(tmp_path, RUN)
    for turn in range(3):
        journal.add(answered(turn))
    journal.close()
    whole = journal.path.read_bytes()
    for cut in (1, 5, 40):
        journal.path.write_bytes(whole[:-cut])
        again = Journal(tmp_path, RUN)
        assert again.answers == {"benign/0000": [answered(0), answered(1)]}
        again.add(answered(2))
        again.close()
        assert journal.path.read_bytes() == whole


def test_journal_of_another_run(tmp_path: Path) -> None:
    """A folder with another experiment in it is left as it is, and the error says what differs."""
    Journal(tmp_path, RUN).close()
    with pytest.raises(ConfigError, match="another model, another seed is kept here"):
        Journal(tmp_path, msgspec.structs.replace(RUN, model="n", seed=3))
    Journal(tmp_path, RUN).close()


def test_journal_in_use(tmp_path: Path) -> None:
    """Two runs do not write to one folder."""
    first = Journal(tmp_path, RUN)
    with pytest.raises(ConfigError, match="another run writes here"):
        Journal(tmp_path, RUN)
    first.close()
    Journal(tmp_path, RUN).close()


@pytest.mark.parametrize("content", [b"{}\n", b"\xff\xfe\n", b'{"run": 3}\n', b"[" * 100_000 + b"\n", b"a,b\n1,2\n"])
def test_journal_that_is_none(tmp_path: Path, content: bytes) -> None:
    """A file that is no journal is not overwritten."""
    (tmp_path / "turns.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="not a run's journal"):
        Journal(tmp_path, RUN)
    assert (tmp_path / "turns.jsonl").read_bytes() == content


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    """A folder below a file is one line of error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"not a directory|file exists"):
        Journal(tmp_path / "file" / "out", RUN)


# --- figures


def drawn(seed: int, drop: float, n: int = 60, turns: int = 6) -> Stressed:
    """Turns of known behaviour, aligned less often by `drop` each turn."""
    rng = np.random.default_rng(seed)
    aligned = np.tile(0.95 - drop * np.arange(turns), n)
    p = np.repeat((1 - aligned)[:, None] / 4, 5, axis=1)
    p[:, 0] = aligned
    y = np.eye(5)[(rng.uniform(size=len(p))[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)]
    return Stressed([f"c{i}" for i in range(n) for _ in range(turns)], np.tile(np.arange(turns), n), y)


def test_production_of_a_model_that_loses_its_way() -> None:
    """dS/dt is positive where the mixture widens turn by turn, and holds the slope it was drawn with."""
    p = np.stack([np.array([0.95 - 0.1 * t, *[(0.05 + 0.1 * t) / 4] * 4]) for t in range(6)])
    t = np.arange(6) - 2.5
    truth = float(entropy(p) @ t / (t @ t))
    found = [estimate(production(drawn(seed, 0.1, n=100))) for seed in range(40)]
    assert sum(e.lo <= truth <= e.hi for e in found) >= 31  # of 40 intervals of 90 %: fewer once in 300
    assert all(e.units == "nats/turn" for e in found)
    assert estimate(production(drawn(1, 0.0, n=400))).hi < truth


def test_production_is_what_a_faultless_variant_holds_back() -> None:
    """Against a variant that never errs, gamma is the base's own production."""
    run = drawn(3, 0.1)
    faultless = Stressed(run.conversations, run.times, np.tile(np.eye(5)[0], (len(run.conversations), 1)))
    gamma = estimate(paired(run, faultless).rate)
    alone = estimate(production(run))
    assert (gamma.value, gamma.lo, gamma.hi) == pytest.approx((alone.value, alone.lo, alone.hi))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(50, 70), st.integers(3, 6))
def test_leaving_out_is_taking_away(seed: int, n: int, turns: int) -> None:
    """The jackknife's samples are those of the run computed again without one conversation."""
    run = drawn(seed, 0.1, n + 1, turns)
    p, names = np.asarray(run.p), np.array(run.conversations)
    t = np.arange(turns) - (turns - 1) / 2

    def slope(kept: Any) -> float:
        mean = p[kept].reshape(-1, turns, 5).mean(axis=0)
        return float(entropy(mean) @ t / (t @ t))

    own = slope(names != "")
    without = np.array([slope(names != name) for name in dict.fromkeys(run.conversations)])
    m = len(without)
    found = estimate(production(run))
    assert found.value == pytest.approx(own - (m - 1) * (without.mean() - own), abs=1e-9)


def test_all_draws_alike(quantifier: Quantifier) -> None:
    """A figure on which the confusion has no bearing keeps its value, and nearly its interval."""
    own = normal_estimate(1.0, 0.1, "nats", "given")
    found = estimate(over_confusions(quantifier, lambda _: [own])[0])
    assert found.value == own.value
    assert (found.lo, found.hi) == pytest.approx((own.lo, own.hi), abs=0.02)


@given(refused=st.integers(0, CONFUSIONS))
def test_refused_draws(quantifier: Quantifier, refused: int) -> None:
    """A figure is refused when more than a tenth of the draws refuse it, with their reason; else the others tell it."""
    told = iter([Refusal("nothing there")] * refused + [normal_estimate(1.0, 0.1, "nats", "given")] * CONFUSIONS)
    found = over_confusions(quantifier, lambda _: [next(told)])[0]
    assert (found == Refusal("nothing there")) == (refused > CONFUSIONS / 10)


def test_known_pair_is_recovered(base: StressResult, tuned: StressResult, quantifier: Quantifier) -> None:
    """gamma, total work and suppression of two scripted models lie in their intervals; tuning surely suppresses."""
    truth = known(BASE, TUNED)
    seen = seen_through(quantifier, tuned, 0.8)
    assert seen.assumes_baseline
    found = compare(base, tuned, seen)
    assert [c.suite for c in found] == ["benign", "temptation", POOLED]
    pooled = found[-1]
    assert (pooled.base, pooled.tuned, pooled.shared) == (100, 100, 100)
    for result, value in zip((pooled.gamma, pooled.total, pooled.suppression), truth, strict=True):
        assert estimate(result).lo <= value <= estimate(result).hi
    assert estimate(pooled.suppression).lo > 0.3
    assert pooled.misaligned[1].high < pooled.misaligned[0].low
    json.dumps(compared_values(found), allow_nan=False)


def test_assuming_nothing_is_wider(base: StressResult, tuned: StressResult, quantifier: Quantifier) -> None:
    """Without the assumption on the tuned model the intervals are wider, and still hold the truth."""
    assert seen_through(quantifier, tuned, 0.0) is quantifier
    wide, narrow = (
        estimate(compare(base, tuned, q)[-1].suppression) for q in (quantifier, seen_through(quantifier, tuned, 0.8))
    )
    assert wide.hi - wide.lo > narrow.hi - narrow.lo
    assert wide.lo <= known(BASE, TUNED)[2] <= wide.hi


def test_a_variant_against_itself(tuned: StressResult, quantifier: Quantifier) -> None:
    """A model compared with itself does no work, exactly: conversations and the classifier's errors pair."""
    for c in compare(tuned, tuned, quantifier):
        for result in (c.gamma, c.total):
            e = estimate(result)
            assert (e.value, e.lo, e.hi) == pytest.approx((0, 0, 0), abs=1e-9)


def test_results_that_do_not_compare(base: StressResult, tuned: StressResult, quantifier: Quantifier) -> None:
    """Other weights, or no suite in common: an error that says what to do."""
    with pytest.raises(ConfigError, match="other, which do not compare; judge the transcripts of one anew"):
        compare(base, msgspec.structs.replace(tuned, classifier="other"), quantifier)
    with pytest.raises(ConfigError, match="no suite in common"):
        compare(base, played(TUNED, 1, "injection"), quantifier)


def test_figures_follow_the_truth(base: StressResult) -> None:
    """S at every turn has a band with the scripted S in it, and the production rate holds the scripted one."""
    pooled = base.figures[-1]
    assert [p["turn"] for p in pooled["points"]] == [1, 2, 3, 4, 5, 6]
    inside = [p["S"]["low"] <= s <= p["S"]["high"] for p, s in zip(pooled["points"], BASE.entropies(), strict=True)]
    assert sum(inside) >= 5
    t = np.arange(TURNS) - (TURNS - 1) / 2
    truth = float(BASE.entropies() @ t / (t @ t))
    assert pooled["dS_dt"]["low"] <= truth <= pooled["dS_dt"]["high"]


# --- results


def test_result_is_read_as_written(tmp_path: Path, base: StressResult) -> None:
    """A result comes back from its folder, or its file, as it was."""
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(base))
    for path in (tmp_path, tmp_path / "result.json"):
        found = load(path)
        assert found == base
        assert (found.sums(found.rows(POOLED)).values == base.sums(base.rows(POOLED)).values).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r["turns"]["index"].pop(),
        lambda r: r["turns"]["q"][0].pop(),
        lambda r: r["turns"]["q"].__setitem__(0, [Q_UNIT, 1, 0, 0, 0]),
        lambda r: r["turns"]["q"].__setitem__(0, [-1, 1, Q_UNIT, 0, 0]),
        lambda r: r["turns"]["conversation"].__setitem__(0, 10**6),
        lambda r: r["turns"]["minute"].__setitem__(0, 1e308),
        lambda r: r["turns"]["minute"].__setitem__(0, 1 << 40),
        lambda r: r["suites"].pop(),
        lambda r: r.__setitem__("extra", 1),
        lambda r: r.pop("turns"),
    ],
)
def test_damaged_result(tmp_path: Path, base: StressResult, damage: Any) -> None:
    """A result that does not hold together is one line of error, whatever is wrong with it."""
    values = json.loads(msgspec.json.encode(base))
    damage(values)
    (tmp_path / "result.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"result\.json"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"null", b'{"version":1}'])
def test_no_result(tmp_path: Path, content: bytes) -> None:
    """Neither is another file, nor one that is not there."""
    (tmp_path / "result.json").write_bytes(content)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError):
            load(path)


def event(name: str, said: str, turns: int = 1, **labels: str) -> Event:
    messages = (Message("user", said), Message("assistant", "Gladly.")) * turns
    return Event(f"e-{name}-{turns}", WHEN, "d", "m", name, messages, labels=labels)


def judged(*events: Event) -> StressResult:
    judging = Judging(load_tier())
    judging.add(events)
    return judging.result(source="log", model=None, seed=None, failed={})


def test_recorded_conversations_pair_by_their_first_words() -> None:
    """Two logs of the same requests under other ids pair; a request that comes twice pairs in order."""
    names = [judged(*(event(f"{log}{i}", f"Q{i % 2}") for i in range(4))).conversations for log in "ab"]
    assert names[0] == names[1]
    assert len(set(names[0])) == 4


def test_every_turn_counts_once() -> None:
    """A log of growing conversations gives each turn once, and all of them, whatever its events ask to be judged."""
    found = judged(event("a", "Q"), event("a", "Q", 2), event("a", "Q", 3), event("a", "Q", 3))
    assert found.turns.index == [0, 1, 2]
    assert (found.names, found.model, found.asked) == ([RECORDED], "m", 3)


def test_endless_conversation() -> None:
    """Turns after the hundredth are left out, and counted."""
    judging = Judging(load_tier())
    judging.add([event("a", "Q", MOST_TURNS + 5)])
    assert judging.beyond == 5
    assert len(judging.result(source="log", model=None, seed=None, failed={}).turns.index) == MOST_TURNS


def test_suites_without_end() -> None:
    """A log that names a thousand suites has thirty-two and one for all others."""
    found = judged(*(event(f"c{i}", "Q", suite=f"s{i}") for i in range(1000)))
    assert len(found.names) == MOST_SUITES + 1
    assert found.suites.count(OTHER) == 1000 - MOST_SUITES


def test_reasons_without_end() -> None:
    """As many reasons as an attacker likes are so many and one for all others."""
    failed: Counter[str] = Counter()
    assert not list(sound((BadEvent(f"reason {i}") for i in range(1000)), failed))
    assert (len(failed), failed.total()) == (MOST_REASONS + 1, 1000)
    assert failed[OTHER_REASON] == 1000 - MOST_REASONS


def test_sampled_conversations_are_the_same_of_both() -> None:
    """Of a long log so many conversations are compared, chosen by name: the same of either variant."""
    runs = [sampled(drawn(seed, 0.1, n=1200, turns=2)) for seed in (1, 2)]
    assert len(set(runs[0].conversations)) == 1000
    assert runs[0].conversations == runs[1].conversations


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("https://api.example.com:8443/v1?api-key=SECRET", "https://api.example.com:8443/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("https://h/\x1b[31m", "https://h/\\x1b[31m"),
    ],
)
def test_address_without_secrets(target: str, shown: str) -> None:
    """What is kept of an address holds no key and nothing that a terminal acts on."""
    assert shown_address(target) == shown


# --- baseline


def test_baseline_is_of_turns_without_pressure(tuned: StressResult) -> None:
    """By default the benign turns are frozen; a suite may be named; too few turns are an error."""
    baseline, warning = baseline_of(tuned, ())
    assert baseline.sums.n == 50 * TURNS
    assert warning == ""
    assert baseline_of(tuned, ["benign", "temptation"])[0].sums.n == 2 * 50 * TURNS
    with pytest.raises(ConfigError, match="the result has no suite sycophancy; --suite may name benign, temptation"):
        baseline_of(tuned, ["sycophancy"])
    with pytest.raises(ConfigError, match="the result has 6 turns of these suites; a baseline needs 50"):
        baseline_of(played(TUNED, 1, "benign"), ())


def test_baseline_of_a_model_that_drifts(base: StressResult) -> None:
    """One whose later turns differ from its earlier ones keeps a warning."""
    assert "changing: over_refusal" in baseline_of(base, ())[1]


def test_sigma_0_is_told_where_s_surely_rises(tuned: StressResult, quantifier: Quantifier) -> None:
    """A model whose S does not rise has no reference production rate, and the refusal says so."""
    steep = seen_through(quantifier, tuned, 0.8)
    assert estimate(sigma_0(played(BASE, 100, "benign"), steep)).lo > 0
    refused = sigma_0(tuned, quantifier)
    assert isinstance(refused, Refusal)
    assert "does not surely rise" in refused.reason


def test_picture_of_hostile_names(tmp_path: Path, base: StressResult) -> None:
    """Names with formulas and escapes draw as text."""
    figures = [base.figures[0] | {"suite": "$\\frac$_\x1b[31m"}, *base.figures[1:]]
    draw([("$x^{", figures), ("b", base.figures)], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: is a directory"):
        draw([("b", base.figures)], tmp_path / "folder.png")
