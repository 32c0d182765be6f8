"""Text -> hashed n-grams, in numpy alone: what the linear heads read.

A turn is read as four segments: the last `user` message, the `context` before it (system prompt and earlier turns), the
`answer`, and the answer's `head` (its first words, where a refusal shows). Each segment has its own range of the
weight table. A feature is the presence of a word or of a pair of neighbouring words; how often it occurs, how long the
text is and how many turns came before are left out on purpose, because in the training sources they give the label
away and in production they do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from monitor.transcript import Message

SEGMENTS: Final = ("user", "context", "answer", "head")
N_SEGMENTS: Final = len(SEGMENTS)
BITS: Final = (17, 16, 18, 15)
"""log2 of the table rows of each segment; the answer has the most to say."""
OFFSETS: Final = tuple(int(sum(1 << b for b in BITS[:i])) for i in range(N_SEGMENTS))
ROWS: Final = sum(1 << b for b in BITS)
"""Rows of the weight table, all segments together."""
LIMITS: Final = (300, 200, 600, 25)
"""Most words kept of each segment: half from its beginning, half from its end (the head: from the beginning)."""
CHARS_PER_WORD: Final = 16
"""Text is cut to limit x this many characters before it is split, so 10 MB cost no more than a long page."""
MAX_WORD: Final = 32
"""A longer word is known by its beginning."""
CACHE_WORDS: Final = 200_000
"""Words whose hash is remembered; emptied when full, so that made-up words cannot fill the memory."""
CONTEXT_MESSAGES: Final = 4
"""Messages before the last user message that are read, besides the system prompt."""

WORD_BITS: Final = 18
WORD_SLOTS: Final = 1 << WORD_BITS
"""Slots of the set of words that occur in the training data; few share one."""
ANSWER: Final = 2
"""Place of the answer among the segments."""

Keys = NDArray[np.int64]

# Scripts written without spaces between words: every character is a word.
_CHARACTER = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Vowel signs of the Indic scripts and combining accents are no "word characters" to `re`, but belong to the word.
_MARK = "\u0300-\u036f\u0900-\u0963\u0966-\u0dff\u0610-\u061a\u064b-\u065f"
_LETTER = rf"(?:[^\W_{_CHARACTER}]|[{_MARK}])"
_WORDS = re.compile(rf"{_LETTER}+(?:'{_LETTER}+)?|[{_CHARACTER}]|[.?!:\"\[\]<>。？！؟।]")
# The same on ASCII, nearly three times as fast (a test holds the two together).
_ASCII_WORDS = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)?|[.?!:\"\[\]<>]")
_GAP = " \x00 "
"""Joins messages and the two ends of a cut text; holds no word."""
_START: Final = crc32(b"\x00start")
_NUMBER: Final = crc32(b"\x00number")


class _WordIds(dict[str, int]):
    """Word -> 32-bit hash, remembered; the same in every process, unlike hash()."""

    def __missing__(self, word: str) -> int:
        value = _NUMBER if word[0].isdigit() else crc32(word[:MAX_WORD].encode("utf-8", "surrogatepass"))
        if len(word) <= MAX_WORD:
            if len(self) >= CACHE_WORDS:
                self.clear()
            self[word] = value
        return value


_WORD_IDS: Final = _WordIds()


@dataclass(frozen=True, slots=True)
class Features:
    """The features of n turns, sorted by turn, segment and row.

    Attributes
    ----------
    rows : (m,) rows of the weight table that are present.
    starts : (n * N_SEGMENTS,) where each turn's segment begins in `rows`; none is empty.
    counts : (n * N_SEGMENTS,) features of each turn's segment, >= 1.
    words : (w,) slots (< WORD_SLOTS) of the words of all answers, turn by turn, in the order of the text.
    word_counts : (n,) how many of `words` are each turn's, >= 1 (the start of a text counts as one).
    """

    rows: Keys
    starts: Keys
    counts: Keys
    words: Keys
    word_counts: Keys

    @property
    def n(self) -> int:
        """Turns."""
        return len(self.starts) // N_SEGMENTS


def split_words(text: str, limit: int) -> list[str]:
    """Words and telling punctuation of a text, lower case; of a long text the two ends, `limit` words at most.

    >>> split_words("I can’t, sorry. Why?", 100)
    ['i', "can't", 'sorry', '.', 'why', '?']
    """
    room = limit * CHARS_PER_WORD
    if len(text) > room:
        text = text[: room // 2] + _GAP + text[-(room // 2) :]
    pattern = _ASCII_WORDS if text.isascii() else _WORDS
    words: list[str] = pattern.findall(text.lower().replace("’", "'"))
    if len(words) > limit:
        words = words[: limit // 2] + words[len(words) - (limit - limit // 2) :]
    return words


def conversation_texts(before: Sequence[Message]) -> tuple[str, str]:
    """The last user (or tool) message, and the system prompt and earlier messages as one text."""
    last = next((i for i in range(len(before) - 1, -1, -1) if before[i][0] not in ("assistant", "system")), -1)
    user = before[last][1] if last >= 0 else ""
    system = [m[1] for m in before[:1] if m[0] == "system"]
    earlier = [m[1] for m in before[max(len(system), last - CONTEXT_MESSAGES) : max(last, 0)] if m[0] != "assistant"]
    room = LIMITS[1] * CHARS_PER_WORD
    # Each part is cut on its own first: joining megabytes only to cut them again would cost time.
    return user, _GAP.join(t if len(t) <= room else t[: room // 2] + _GAP + t[-(room // 2) :] for t in system + earlier)


def extract(turns: Iterable[tuple[Sequence[Message], str]]) -> Features:
    """Features of turns given as (messages before, answer)."""
    ids: list[int] = []
    lengths: list[int] = []
    lookup = _WORD_IDS.__getitem__
    for before, answer in turns:
        user, context = conversation_texts(before)
        for segment, text in enumerate((user, context, answer)):
            words = split_words(text, LIMITS[segment])
            ids.append(_START)
            ids.extend(map(lookup, words))
            lengths.append(len(words) + 1)
        head = lengths[-1] if lengths[-1] <= LIMITS[3] else LIMITS[3] + 1
        ids.extend(ids[-lengths[-1] :][:head])
        lengths.append(head)
    return _hash(np.array(ids, dtype=np.uint32), np.array(lengths, dtype=np.int64))


def _hash(ids: NDArray[np.uint32], lengths: Keys) -> Features:
    place = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)  # turn * N_SEGMENTS + segment
    segment = place % N_SEGMENTS
    shift = np.array([32 - b for b in BITS], dtype=np.uint32)[segment]
    base = np.array(OFFSETS, dtype=np.int64)[segment]
    single = _mixed(ids)
    inside = place[1:] == place[:-1]
    pair = _mixed((single[:-1] * np.uint32(0x85EBCA6B)) ^ (single[1:] >> np.uint32(7)) ^ ids[1:])[inside]
    first = np.flatnonzero(inside)
    rows = np.concatenate([(single >> shift) + base, (pair >> shift[first]) + base[first]])
    keys = np.concatenate([place, place[first]]) * ROWS + rows
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    owner = keys // ROWS
    starts = np.searchsorted(owner, np.arange(len(lengths)))
    counts = np.diff(np.append(starts, len(keys)))
    words = (single[segment == ANSWER] >> np.uint32(32 - WORD_BITS)).astype(np.int64)
    return Features(
        keys - owner * ROWS, starts.astype(np.int64), counts.astype(np.int64), words, lengths[ANSWER::N_SEGMENTS]
    )


def mean_of_words(part: Features, value: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) mean over each answer's words of a value by slot (WORD_SLOTS,)."""
    if not part.n:
        return np.zeros(0)
    starts = np.cumsum(part.word_counts) - part.word_counts
    return np.asarray(np.add.reduceat(value[part.words].astype(np.int64), starts) / part.word_counts)


def _mixed(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread the bits (the finaliser of MurmurHash3): the high ones then depend on all."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
