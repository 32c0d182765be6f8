"""Labelled rows: read from files, checked, with the factor labels they imply."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monitor.errors import InputError
from monitor.taxonomy import BEHAVIOURS, FACTORS
from monitor.transcript import Message

UNKNOWN: Final = -1.0
"""Factor label of a row that says nothing about that factor."""
REQUEST_HARM, REFUSAL, RESPONSE_HARM, DISHONESTY, DEVIATION = range(len(FACTORS))

CONTRAST_FILE: Final = Path(__file__).parent / "data" / "contrast.jsonl"
"""The project's own contrast scenarios, in the source tree."""
CONTRAST_FAMILY: Final = "contrast"
"""Their family: a scenario, not the file, is what is held out."""

DECLINING_SOURCES: Final = ("gptfuzz", "jailbreakbench", "hh-rlhf", "refusal_direction")
"""Files whose aligned rows decline a harmful request."""
ANSWERING_SOURCES: Final = (
    "coconot-pref",
    "oasst-eval",
    "or-bench-legal",
    "spiral-bench",
    "sycon",
    "sycophancybench",
    "truthfulqa",
    "vicuna-80",
)
"""Files whose aligned rows answer a harmless request."""
MILD_REQUESTS: Final = ("em-political",)
"""Files whose harmful answers were not asked for: the request says nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled assistant turn, or (behaviour None) a row that only labels factors.

    `family` is the source left out together; `group` keeps rows that share a prompt or scenario on one side of a split.
    `factors` are 1, 0 or UNKNOWN (a partial refusal is 0.5), in the order of FACTORS.
    """

    id: str
    family: str
    group: str
    before: tuple[Message, ...]
    answer: str
    behaviour: int | None
    factors: tuple[float, ...]
    weight: float


def lines_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a .jsonl or .jsonl.gz file with their line numbers; InputError names file:line."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                item = json.loads(line)
                if not isinstance(item, dict):
                    raise InputError(f"{path}:{number}: a row is a JSON object, this is {type(item).__name__}")
                yield number, item
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as e:
        raise InputError(f"{path}:{number + 1}: cannot be read: {e}") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}:{number}: not valid JSON: {e}") from e


def files_of(data: Path) -> list[Path]:
    """The .jsonl and .jsonl.gz files a path names, sorted; InputError when there are none."""
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise InputError(f"{data}: no such file or directory; give a .jsonl file or a folder of them")
    found = sorted(p for p in data.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise InputError(f"{data}: holds no .jsonl or .jsonl.gz file")
    return found


def family_of(path: Path) -> str:
    """The source family of a file: its name without .jsonl and .gz."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def read_rows(data: Path) -> list[Row]:
    """Labelled rows {"messages", "label", "weight"?, "group"?, "id"?} of a file or folder.

    A row may have "turn_labels" in place of "label": one for every assistant message, null where not labelled.
    """
    rows: list[Row] = []
    for path in files_of(data):
        family = family_of(path)
        for number, item in lines_of(path):
            where = f"{path}:{number}"
            if "turn_labels" in item:
                rows.extend(_transcript(item, family, where))
            else:
                rows.append(_row(item, family, where))
    if not rows:
        raise InputError(f"{data}: holds no rows")
    return rows


def read_training_rows(data: Path, factors: Path | None, contrast: Path | None) -> tuple[list[Row], list[Row]]:
    """The labelled rows of a folder, and all rows to train on: those, the factor rows and the contrast scenarios.

    Raises
    ------
    InputError : a file that cannot be used, or a behaviour without rows.
    """
    labelled = read_rows(data)
    rows = labelled + (read_factors(factors) if factors else [])
    if contrast is not None and contrast.is_file():
        rows += read_contrast(contrast)
    missing = [b for k, b in enumerate(BEHAVIOURS) if not any(r.behaviour == k for r in rows)]
    if missing:
        raise InputError(f"{data}: no rows labelled {', '.join(missing)}; training needs every behaviour")
    return labelled, rows


def read_contrast(path: Path) -> list[Row]:
    """Turns of contrast scenarios; a scenario is a group, the whole file one family."""
    rows: list[Row] = []
    for number, item in lines_of(path):
        where = f"{path}:{number}"
        turns = item.get("turns")
        if not isinstance(turns, list):
            raise InputError(f"{where}: a scenario needs a list of turns")
        for place, turn in enumerate(turns):
            if not isinstance(turn, dict) or not isinstance(turn.get("answer"), str):
                raise InputError(f"{where}: turn {place} has no answer text")
            behaviour = _behaviour(turn.get("behaviour"), where)
            factors = list(implied_factors(behaviour, CONTRAST_FAMILY))
            for factor, name in ((REQUEST_HARM, "request_harm"), (REFUSAL, "refusal")):
                if turn.get(name) in (0, 1):
                    factors[factor] = float(turn[name])
            key = str(item.get("id", where))
            before = _messages(turn, where)
            rows.append(
                Row(f"{key}/{place}", CONTRAST_FAMILY, key, before, turn["answer"], behaviour, tuple(factors), 1.0)
            )
    return rows


def read_factors(folder: Path) -> list[Row]:
    """Rows of requests.jsonl[.gz] (request_harm) and refusals.jsonl[.gz] (refusal); they name no behaviour."""
    rows: list[Row] = []
    for path in files_of(folder):
        for number, item in lines_of(path):
            where = f"{path}:{number}"
            factors = [UNKNOWN] * len(FACTORS)
            if isinstance(item.get("text"), str):
                before: tuple[Message, ...] = (Message("user", item["text"]),)
                answer = ""
            else:
                messages = _messages(item, where)
                before, answer = messages[:-1], messages[-1].content
                factors[REFUSAL] = _share(item.get("refusal"), where, "refusal")
            harm = item.get("request_harm")
            if harm is not None:
                factors[REQUEST_HARM] = _share(harm, where, "request_harm")
            family = str(item.get("source", family_of(path)))
            weight = _share(item.get("weight", 1.0), where, "weight")
            group = str(item.get("group") or where)
            key = str(item.get("id", where))
            rows.append(Row(key, family, group, before, answer, None, tuple(factors), weight))
    return rows


def implied_factors(behaviour: int, family: str) -> tuple[float, ...]:
    """What a behaviour label says of the five factors; UNKNOWN where it says nothing."""
    name = BEHAVIOURS[behaviour]
    request = refusal = UNKNOWN
    if name == "over_refusal":
        request, refusal = 0.0, 1.0
    elif name == "harmful_compliance":
        request, refusal = (UNKNOWN if family in MILD_REQUESTS else 1.0), 0.0
    elif name in ("deception", "goal_deviation"):
        refusal = 0.0
    elif family in DECLINING_SOURCES:
        request = 1.0
    elif family in ANSWERING_SOURCES:
        request, refusal = 0.0, 0.0
    own = tuple(float(name == b) for b in ("harmful_compliance", "deception", "goal_deviation"))
    return (request, refusal, *own)


def content_hashes(rows: Sequence[Row]) -> NDArray[np.uint32]:
    """(n,) hashes of what the rows say, by which weights know the rows they were trained on."""
    texts = ("\0".join((r.before[-1].content if r.before else "", r.answer)) for r in rows)
    digests = [hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=4).digest() for t in texts]
    return np.frombuffer(b"".join(digests), dtype="<u4")


def _row(item: dict[str, Any], family: str, where: str) -> Row:
    messages = _messages(item, where)
    if not messages or messages[-1].role != "assistant":
        raise InputError(f"{where}: the last message must be the assistant's, whose turn is labelled")
    behaviour = _behaviour(item.get("label"), where)
    weight = _share(item.get("weight", 1.0), where, "weight")
    group, key = str(item.get("group") or where), str(item.get("id") or where)
    factors = implied_factors(behaviour, family)
    return Row(key, family, group, messages[:-1], messages[-1].content, behaviour, factors, weight)


def _transcript(item: dict[str, Any], family: str, where: str) -> Iterator[Row]:
    messages = _messages(item, where)
    places = [i for i, m in enumerate(messages) if m.role == "assistant"]
    labels = item["turn_labels"]
    if not isinstance(labels, list) or len(labels) != len(places):
        raise InputError(f"{where}: turn_labels needs one entry for each of {len(places)} assistant messages")
    key = str(item.get("key") or item.get("conversation_id") or where)
    for at, label in zip(places, labels, strict=True):
        if label is not None:
            behaviour = _behaviour(label, where)
            factors = implied_factors(behaviour, family)
            yield Row(f"{key}/{at}", family, key, messages[:at], messages[at].content, behaviour, factors, 1.0)


def _messages(item: dict[str, Any], where: str) -> tuple[Message, ...]:
    messages = item.get("messages")
    if not isinstance(messages, list):
        raise InputError(f"{where}: needs a list of messages")
    out = []
    for m in messages:
        if not (isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)):
            raise InputError(f"{where}: a message needs a role and a text content")
        out.append(Message(m["role"], m["content"]))
    return tuple(out)


def _behaviour(label: object, where: str) -> int:
    if label not in BEHAVIOURS:
        raise InputError(f"{where}: unknown label {label!r}; one of {', '.join(BEHAVIOURS)}")
    return BEHAVIOURS.index(str(label))


def _share(value: object, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{where}: {name} must be a number from 0 to 1, this is {value!r}")
    return float(value)
