"""Text -> shares of topics of question, context and answer, from which SF and SEP are computed.

A topic is a cluster of sentences of the three texts: average linkage on the cosines of their vectors, merged while the
nearest two are alike enough. Deterministic; the paper's clustering is another (docs/faithfulness.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

import numpy as np

from monitor.faithfulness_claims import claims, sentences
from monitor.faithfulness_support import Embed, Floats

SAME_TOPIC: Final = 0.35
"""Mean cosine above which two clusters are one topic."""
MOST_SENTENCES: Final = 100
"""Sentences of each text that are clustered, from its beginning: time grows with the cube of their number."""
HASHED: Final = 1024
"""Length of the vectors that stand in where there is no encoder."""


def shares_of_topics(
    question: str, context: Sequence[str], answer: str, embed: Embed
) -> tuple[Floats, Floats, Floats] | None:
    """Shares (topics,) of the sentences of question, context and answer; None where one of them has no sentence."""
    texts = [sentences(question), [s for document in context for s in sentences(document)], sentences(answer)]
    texts = [t[:MOST_SENTENCES] for t in texts]
    if not all(texts):
        return None
    topic = clusters(embed([s for t in texts for s in t]))
    ends = np.cumsum([len(t) for t in texts])
    q, c, a = (np.bincount(part, minlength=topic.max() + 1) / len(part) for part in np.split(topic, ends[:-1]))
    return q, c, a


def clusters(vectors: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(n, d) rows of length 1 -> (n,) cluster of each, numbered from 0 in the order of their first members."""
    n = len(vectors)
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    members = [[i] for i in range(n)]
    for _ in range(n - 1):
        i, j = sorted(divmod(int(alike.argmax()), n))
        if alike[i, j] < SAME_TOPIC:
            break
        sizes = len(members[i]), len(members[j])
        alike[i] = alike[:, i] = (sizes[0] * alike[i] + sizes[1] * alike[j]) / sum(sizes)
        alike[i, i] = alike[j] = alike[:, j] = -np.inf
        members[i], members[j] = members[i] + members[j], []
    out = np.empty(n, dtype=np.int64)
    for number, those in enumerate(m for m in members if m):
        out[those] = number
    return out


def hashed_words(texts: Sequence[str]) -> Floats:
    """Sentences -> rows of length 1 that count stems: what stands in for an encoder; sees shared words only."""
    out = np.zeros((len(texts), HASHED))
    for row, text in zip(out, texts, strict=True):
        for stem in {w.stem for c in claims(text) for w in c.words} or {text}:
            row[crc32(stem.encode("utf-8", "surrogatepass")) % HASHED] += 1.0
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))
