"""`valuedrift faithfulness`: SF, SEP and context support of turns or of topic distributions, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec
import numpy as np

from monitor import faithfulness as f
from monitor import options
from monitor.classify import event_of
from monitor.errors import ConfigError
from monitor.faithfulness_support import Embed, support
from monitor.faithfulness_topics import hashed_words, shares_of_topics
from monitor.transcript import Turn, turns_of
from streams.files import Chunk, open_sources
from streams.formats import BadEvent, Decoder
from streams.lines import Line

_DIGITS: Final = 6


Row = dict[str, Any]
Shares = tuple[f.Floats, f.Floats, f.Floats]


class _Shares(msgspec.Struct):
    """A line of topic distributions."""

    p_question: list[float]
    p_context: list[float]
    p_answer: list[float]


@click.command()
@click.argument("source", default="-")
@click.option("--reference", is_flag=True, help="SF as the reference implementation finds it (docs/faithfulness.md).")
@click.option(
    "--smooth", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Share spread over all topics [0]."
)
@click.option(
    "--by",
    type=click.Choice(["meaning", "words"]),
    default="meaning",
    help="What finds likeness of sentences [meaning].",
)
@click.pass_context
def faithfulness(context: click.Context, source: str, reference: bool, smooth: float, by: str) -> None:
    """How faithful the answers of SOURCE [standard input] are to the context they were given.

    A line is a transcript with "context", or {"p_question", "p_context", "p_answer"}, shares of topics.
    """
    config = options.load(context)
    encoder = _Encoder(by)
    for opened in open_sources(source, max_line_bytes=config.input.max_event_bytes):
        for chunk in opened.chunks():
            if chunk is not None:
                for row in _rows(chunk, encoder, reference, smooth, datetime.now(UTC)):
                    click.echo(msgspec.json.encode(row))


class _Encoder:
    """Loaded with the first text: topic distributions need none."""

    def __init__(self, by: str) -> None:
        self.by = by
        self._loaded: Embed | None = None

    def load(self) -> Embed | None:
        """The sentence encoder; None where words alone are compared."""
        if self.by == "words":
            return None
        if self._loaded is None:
            from classifiers.encoder import SentenceEncoder

            try:
                self._loaded = SentenceEncoder()
            except ConfigError as e:
                raise ConfigError(f"{e}; or compare words alone: --by words") from e
        return self._loaded


def _rows(chunk: Chunk, encoder: _Encoder, reference: bool, smooth: float, now: datetime) -> Iterator[Row]:
    """What is printed of a chunk's lines, in order: an object a turn or a line of shares; bad lines say why."""
    decoder = Decoder("canonical")
    found = [_read(line, decoder, now) for line in chunk.lines]
    shares = {i: read for i, read in enumerate(found) if isinstance(read, tuple)}
    measured = dict(zip(shares, _measured(list(shares.values()), reference, smooth), strict=True))
    for i, (line, read) in enumerate(zip(chunk.lines, found, strict=True)):
        if isinstance(read, str):
            yield {"line": line.number, "error": read}
        elif isinstance(read, tuple):
            yield {"line": line.number} | measured[i]
        else:
            for turn in read:
                yield {"line": line.number, "turn": turn.index} | _of_turn(turn, encoder, reference, smooth)


def _read(line: Line, decoder: Decoder, now: datetime) -> Shares | list[Turn] | str:
    if line.data is None:
        return line.problem or "not kept"
    try:
        if b"p_answer" in line.data and "p_answer" in msgspec.json.decode(line.data, type=dict[str, msgspec.Raw]):
            return _checked(msgspec.json.decode(line.data, type=_Shares))
        return list(turns_of(event_of(line.data, decoder, now)))
    except (BadEvent, ValueError, RecursionError) as e:
        return str(e)


def _checked(given: _Shares) -> Shares:
    q, c, a = (f.distributions(getattr(given, name), name) for name in ("p_question", "p_context", "p_answer"))
    if not len(q) == len(c) == len(a):
        raise ValueError(
            f"p_question, p_context and p_answer have {len(q)}, {len(c)} and {len(a)} topics; the same is needed"
        )
    return q, c, a


def _of_turn(turn: Turn, encoder: _Encoder, reference: bool, smooth: float) -> Row:
    if not turn.event.context:
        return {"skipped": "no context"}
    question = next((m.content for m in reversed(turn.before) if m.role == "user"), "")
    embed = encoder.load()
    found = support(question, turn.event.context, turn.answer, embed)
    row: Row = {
        "by": encoder.by,
        "support": _round(found.least),
        "support_mean": _round(found.mean),
        "context_cut": found.cut,
        "claims": [{"sentence": c.sentence, "support": _round(c.support), "doubts": c.doubts} for c in found.claims],
    }
    shares = shares_of_topics(question, turn.event.context, turn.answer, embed or hashed_words)
    if shares is None:
        return row | {"topics": None}
    return row | {"topics": len(shares[0])} | _measured([shares], reference, smooth)[0]


def _measured(shares: Sequence[Shares], reference: bool, smooth: float) -> list[Row]:
    """Figures of distributions; those with equally many topics are computed together."""
    out: list[Row] = [{} for _ in shares]
    for topics in {len(q) for q, _, _ in shares}:
        places = [i for i, (q, _, _) in enumerate(shares) if len(q) == topics]
        q, c, a = (np.stack([shares[i][k] for i in places]) for k in range(3))
        unsupported = f.unsupported_topics(q, c, a)
        q, c, a = (f.smoothed(p, smooth) for p in (q, c, a))
        divergence = f.reference_divergence(q, a) if reference else f.least_divergence(q, a)
        figures = {
            "sf": f.faithfulness(divergence),
            "d_min": divergence,
            "sep": f.entropy_production(c, a),
            "sep_documented": f.documented_entropy_production(c, a),
            "unsupported_topics": unsupported,
        }
        for k, i in enumerate(places):
            out[i] = {name: _round(float(values[k])) for name, values in figures.items()}
    return out


def _round(value: float | None) -> float | str | None:
    if value is None:
        return None
    return round(value, _DIGITS) if np.isfinite(value) else "infinite"
