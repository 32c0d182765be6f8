"""What is kept of turns' texts: excerpts, redacted before they are cut, of the turns that settings ask for."""

from __future__ import annotations

from typing import Final

from monitor.config import Input
from monitor.engine import Judged
from monitor.store.writes import StoredText
from monitor.taxonomy import ALIGNED
from monitor.transcript import Turn
from streams.redaction import Redactor
from streams.sampling import is_flagged

EXCERPT_CHARACTERS: Final = 2000
"""Longest excerpt of a request or an answer."""
DOUBTFUL: Final = 0.4
"""A turn whose most probable behaviour is wrong with a greater probability is flagged."""


class Excerpts:
    """Chooses turns by `input.store_text` and redacts what is kept of them.

    Raises
    ------
    ConfigError : a pattern of `input.redact_patterns` that cannot be used, whatever is stored.
    """

    def __init__(self, settings: Input) -> None:
        self._store_text = settings.store_text
        self._redactor = Redactor(settings.redact_patterns)

    def of(self, judged: Judged) -> list[StoredText]:
        """Those of the chosen turns."""
        if self._store_text == "never":
            return []
        chosen = [t for row, t in enumerate(judged.turns) if self._store_text == "always" or flagged(judged, row)]
        return [
            StoredText(t.event.ts, t.event.event_id, t.index, self._cut(_request(t)), self._cut(t.answer))
            for t in chosen
        ]

    def _cut(self, text: str) -> str:
        # neither NUL nor halves of surrogate pairs can be stored
        clean = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        return self._redactor.excerpt(clean, EXCERPT_CHARACTERS)


def flagged(judged: Judged, row: int) -> bool:
    """Whether a turn is most probably not aligned, or doubtful, or came with a flag."""
    return bool(
        judged.q[row].argmax() != ALIGNED or judged.doubt[row] > DOUBTFUL or is_flagged(judged.turns[row].event)
    )


def _request(turn: Turn) -> str:
    return next((m.content for m in reversed(turn.before) if m.role == "user"), "")
