"""What training can be told: numbers by tier, read from a TOML file. What was chosen and why: docs/classifier.md."""

from __future__ import annotations

from pathlib import Path

import msgspec

from monitor.errors import ConfigError


class FastRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the fast tier's heads and of every tier's composition."""

    head_c: float = 6.0
    """Inverse regularisation of the heads."""
    min_turns: int = 2
    """A feature seen in fewer training turns is left out."""
    cell_power: float = 0.5
    """A source's rows of one label weigh, together, their trust-weighted number to this power."""
    contrast_in_heads: float = 30.0
    """Weight of a contrast cell in the heads, relative to a source's: only there behaviour alone tells turns apart."""
    composition_c: float = 0.3
    composition_power: float = 0.3
    contrast_in_composition: float = 16.0
    aligned_prior: float = 4.0
    """Aligned turns together weigh this many times each other behaviour (half of all): the prior of the probabilities.
    Traffic has more of them; quantification corrects the share of a window (design 3.2)."""


class AccurateRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the accurate tier's encoder."""

    steps: int = 600
    batch: int = 32
    contrast_share: float = 0.5
    """Share of each batch that is drawn from the contrast scenarios."""
    cell_power: float = 0.5
    """A source's rows of one label are drawn in proportion to their trust-weighted number to this power."""
    augmented_share: float = 0.3
    """Share of the rows that are read without their markup and, when long, without their end."""
    encoder_rate: float = 3e-4
    head_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up_steps: int = 50
    label_smoothing: float = 0.05
    dropout: float = 0.1


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[fast]` and `[accurate]` of a recipe file, and the seed of everything drawn."""

    seed: int = 0
    fast: FastRecipe = FastRecipe()
    accurate: AccurateRecipe = AccurateRecipe()


def load(path: Path | None) -> Recipe:
    """The recipe of a TOML file, or the shipped one; ConfigError when it cannot be used."""
    if path is None:
        return Recipe()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except msgspec.MsgspecError as e:
        raise ConfigError(f"{path}: {e}") from e
