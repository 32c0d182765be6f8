"""Which classifier judges: the fast tier, the accurate one, or both as a cascade; and the judge beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from classifiers.api import Classifier
from classifiers.judge_prompt import JudgeSettings
from classifiers.linear import load as load_fast
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from classifiers.judge import Judge

TIERS: Final = ("fast", "accurate", "cascade")


def load_judge(settings: JudgeSettings) -> Judge | None:
    """The judge, where one is configured.

    Raises
    ------
    ConfigError : settings that cannot be used, or its HTTP client is not installed.
    """
    if not settings.url:
        return None
    try:
        from classifiers.judge import Judge
    except ModuleNotFoundError as e:
        raise ConfigError(f"the judge needs {e.name}: pip install 'valuedrift[judge]'") from e
    return Judge(settings)


def load_tier(
    tier: str = "fast", weights: Path | None = None, accurate_share: float = 0.1, random_share: float = 0.02
) -> Classifier:
    """Load a classifier.

    Parameters
    ----------
    weights : the fast tier's weights; None for the shipped ones.
    accurate_share, random_share : of the cascade (classifiers.cascade.Cascade).

    Raises
    ------
    ConfigError : unknown tier, or the accurate tier's packages are not installed.
    WeightsError : weights that are missing or damaged.
    """
    if tier not in TIERS:
        raise ConfigError(f"classifier.tier {tier!r} is none of {', '.join(TIERS)}")
    if tier == "fast":
        return load_fast(weights)
    from classifiers.accurate import load as load_accurate

    accurate = load_accurate()
    if tier == "accurate":
        return accurate
    from classifiers.cascade import Cascade

    return Cascade(load_fast(weights), accurate, accurate_share, random_share)
