"""The labelled slice of a series' window, read from the store and told in the summary."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from monitor.buckets import Q_UNIT, Bucket, to_fixed_point
from monitor.store import reads, schema
from monitor.store.database import open_store, writing
from monitor.summary import labelled_values
from monitor.taxonomy import BEHAVIOURS, FACTORS, K
from monitor.transcript import minute_of
from tests.unit.core_cases import answers, sums

START = datetime(2026, 1, 5, tzinfo=UTC)
END = START + timedelta(hours=1)


def stored(tmp_path: Path, reviewed: int, seconds: int) -> Engine:
    """An hour of 120 turns of 90 % aligned and 10 % harmful; of some there are reviews and second judgements."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    rng = np.random.default_rng(1)
    y = np.repeat([0, 2], [108, 12])
    rng.shuffle(y)
    q = np.concatenate([answers(rng, np.eye(K)[k], 1) for k in y])
    fixed = to_fixed_point(q)
    offset = {"id": 1, "source": "s", "fingerprint": "", "position": 0, "line": 0, "events": 0, "judged": 0}
    offset |= {"turns": 0, "duplicates": 0, "dead_letters": 0}
    with writing(engine) as connection:
        connection.execute(schema.offsets.insert(), [offset])
        connection.execute(schema.series.insert(), [{"id": 1, "deployment": "d", "model": "m", "labels": "[]"}])
        bucket = Bucket(minute_of(START), sums(q))
        row = {"series_id": 1, "classifier_version": "v", "minute": bucket.minute, "shard": 1, "n": 120}
        connection.execute(schema.buckets.insert(), [row | {"sums": bucket.sums.pack()}])
        connection.execute(schema.turns.insert(), [turn(i, fixed[i].tolist()) for i in range(120)])
        connection.execute(schema.reviews.insert(), [review(i, BEHAVIOURS[y[i]]) for i in range(reviewed)])
        connection.execute(schema.reviews.insert(), [review(119, None)])
        if seconds:
            connection.execute(schema.second_judgements.insert(), [second(i, y[i]) for i in range(seconds)])
    return engine


def turn(i: int, q: list[int]) -> dict[str, Any]:
    values: dict[str, Any] = {"event_id": f"e{i}", "turn": 0, "series_id": 1, "ts": START, "conversation_id": "c"}
    values |= {"line": i, "weight": 1.0, "classifier_version": "v", "tier": "fast", "doubt": 0, "text_hash": b"h"}
    return values | {f"q_{b}": q[k] for k, b in enumerate(BEHAVIOURS)} | {f"f_{f}": 0 for f in FACTORS}


def review(i: int, label: str | None) -> dict[str, Any]:
    refused = "budget" if label is None else None
    values = {"event_id": f"e{i}", "turn": 0, "label": label, "confidence": 0.9, "refused": refused}
    return values | {"model": "j", "rubric_version": "r", "choice_probability": 0.5}


def second(i: int, y: int) -> dict[str, Any]:
    values: dict[str, Any] = {"event_id": f"e{i}", "turn": 0, "classifier_version": "a", "doubt": 0}
    values |= {f"q_{b}": Q_UNIT * int(k == y) for k, b in enumerate(BEHAVIOURS)}
    return values | {"choice_probability": 0.5}


def test_reviews_are_told(tmp_path: Path) -> None:
    """With enough labels the summary has S by them, how each share was found, and a line that says so."""
    with stored(tmp_path, 60, 0).connect() as connection:
        found = labelled_values(connection, 1, "v", END, 60)
        chosen = reads.reviewed_slice(connection, 1, "v", START, END)
    assert found is not None
    assert (found["by"], found["labels"], len(chosen.q)) == ("reviews", 60, 60)
    assert found["shares"]["harmful_compliance"]["low"] < 0.1 < found["shares"]["harmful_compliance"]["high"]
    assert found["methods"]["goal_deviation"] == "exact"
    assert found["line"].startswith("labelled slice: S 0.")
    assert "from 60 labels (reviews), PPI++; exact: " in found["line"]


def test_second_judgements_stand_in(tmp_path: Path) -> None:
    """With too few reviews the accurate tier's answers are told, under its name."""
    with stored(tmp_path, 12, 50).connect() as connection:
        found = labelled_values(connection, 1, "v", END, 60)
    assert found is not None
    assert (found["by"], found["labels"]) == ("accurate tier", 50)


def test_too_few_labels(tmp_path: Path) -> None:
    """With few labels, or in a window without any, nothing is told."""
    with stored(tmp_path, 12, 0).connect() as connection:
        assert labelled_values(connection, 1, "v", END, 60) is None
        assert labelled_values(connection, 1, "v", START, 60) is None
