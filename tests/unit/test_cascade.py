"""The cascade, with two small classifiers of known answers."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest

from classifiers.cascade import Cascade, chance
from monitor.entropy import Calibration
from monitor.errors import ConfigError
from monitor.taxonomy import K
from monitor.transcript import Event, Judgements, Message, Turn
from tests.unit.core_cases import calibration


class Stub:
    """Says `behaviour` of every turn, with the doubt its text spells."""

    def __init__(self, version: str, behaviour: int) -> None:
        self.version = version
        self.behaviour = behaviour
        self.seen: list[str] = []

    @property
    def calibration(self) -> Calibration:
        return calibration()

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        self.seen += [t.event.event_id for t in turns]
        doubt = np.array([float(t.answer) for t in turns])
        return Judgements(np.eye(K)[[self.behaviour] * len(turns)], np.zeros((len(turns), K)), doubt, self.version)


def turns(doubts: Sequence[float], prefix: str = "e") -> list[Turn]:
    made = []
    for i, doubt in enumerate(doubts):
        messages = (Message("user", "hi"), Message("assistant", str(doubt)))
        event = Event(f"{prefix}{i}", datetime(2026, 1, 1, tzinfo=UTC), "d", "m", "c", messages)
        made.append(Turn(event, 0, messages[:1], str(doubt)))
    return made


def cascade(share: float = 0.1, rest: float = 0.05) -> tuple[Cascade, Stub]:
    accurate = Stub("accurate-1", 2)
    return Cascade(Stub("fast-1", 0), accurate, share, rest), accurate


def test_the_doubtful_and_a_slice_get_a_second_judgement() -> None:
    """The most doubtful turns are surely judged again, others by chance, and each says how likely that was."""
    doubts = np.linspace(0, 1, 1000)
    tiers, accurate = cascade()
    judged = tiers.classify(turns(doubts.tolist()))
    assert (judged.version, judged.probabilities[:, 0].min()) == ("fast-1", 1.0)
    second = judged.second
    assert second is not None
    sure = second.rows[second.choice_probability == 1.0]
    assert set(sure) == set(range(1000 - len(sure), 1000))
    assert len(sure) in (100, 101)
    by_chance = second.rows[second.choice_probability == 0.05]
    assert 20 <= len(by_chance) <= 75
    assert len(accurate.seen) == len(sure) + len(by_chance)
    assert (second.probabilities[:, 2] == 1).all()


def test_second_judgements_are_unbiased() -> None:
    """Weighted by the inverse of their choice probabilities, the second judgements stand for all turns."""
    doubts = np.random.default_rng(0).random(20_000)
    second = cascade(rest=0.1)[0].classify(turns(doubts.tolist())).second
    assert second is not None
    weights = 1 / second.choice_probability
    assert weights.sum() == pytest.approx(20_000, rel=0.05)
    assert (weights * second.doubt).sum() / weights.sum() == pytest.approx(doubts.mean(), abs=0.02)


def test_the_budget_holds_for_single_turns() -> None:
    """Turns that come one by one keep to the budget as well as a thousand at once."""
    tiers, accurate = cascade(share=0.2, rest=0.001)
    for turn in turns([0.5] * 2000):
        tiers.classify([turn])
    assert 320 <= len(accurate.seen) <= 480


def test_a_rerun_chooses_the_same() -> None:
    """What is judged again depends on the turns alone: a rerun repeats it, and nothing is chosen by its text."""
    some = turns([0.3] * 200)
    first, again = (cascade()[0].classify(some).second for _ in range(2))
    assert first is not None
    assert again is not None
    assert (first.rows == again.rows).all()
    assert chance(some[0]) == chance(turns([0.9])[0])


def test_combined() -> None:
    """For a single best judgement the accurate tier's answer replaces the fast one where there is one."""
    best = cascade(share=0.5)[0].combined(turns(np.linspace(0, 1, 100).tolist()))
    assert best.tier == "cascade"
    assert (best.probabilities[60:, 2] == 1).all()
    assert best.probabilities[:40, 0].sum() > 30


def test_no_turns() -> None:
    """Nothing to judge is judged without a fuss."""
    judged = cascade()[0].classify([])
    assert judged.second is not None
    assert len(judged.second.rows) == 0


@pytest.mark.parametrize(("share", "rest"), [(1.5, 0.1), (-0.1, 0.1), (0.1, 0.0), (0.1, 2.0)])
def test_shares_refused(share: float, rest: float) -> None:
    """Shares outside their range are refused; a random slice of nothing could not be weighted up."""
    with pytest.raises(ConfigError):
        cascade(share, rest)
