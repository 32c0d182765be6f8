"""`valuedrift baseline` as a user runs it, on SQLite and PostgreSQL, and the migration of the table behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command as alembic
from sqlalchemy import Engine, inspect, text

from monitor.store.database import _alembic_config, open_engine, upgrade, versions, writing
from tests.conftest import EXAMPLES, Run, last_json

ATLAS, HELPDESK = "atlas/atlas-chat-4", "helpdesk/lark-small-2"


def by_series(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["series"]: s for s in found["series"]}


@pytest.mark.service
def test_life_of_a_baseline(url: str, tmp_path: Path, valuedrift: Run) -> None:
    """Learned, listed, shown, compared, learned anew with a reason that ends the alert: all is on record."""
    if url.startswith("postgresql"):
        assert valuedrift("db", "upgrade", "--db", url).returncode == 0
    db = ("--db", url, "--json")
    first = last_json(valuedrift("watch", EXAMPLES, *db))
    assert [a["state"] for a in first["alerts"]] == ["firing"]

    listed = by_series(last_json(valuedrift("baseline", "list", *db)))
    assert {(s["state"], s["origin"], s["alerts"], s["warning"]) for s in listed.values()} == {
        ("frozen", "learned", "on", "")
    }
    shown = last_json(valuedrift("baseline", "show", "atlas", *db))
    assert shown["mixture"] == {k: by_series(first)[ATLAS]["baseline"][k] for k in ("n", "S", "misaligned", "shares")}
    assert all(d["mean"] <= d["bound"] for d in shown["detectors"].values())
    compared = last_json(valuedrift("baseline", "compare", "atlas", "--window", "3d", *db))
    assert compared["changes"]["misaligned"]["in_words"] == "almost certainly rose"
    assert "misaligned" in compared["changed_features"]

    anew = last_json(valuedrift("baseline", "relearn", "atlas", "--reason", "prompt v7", "--rule", "60", *db))
    assert (anew["state"], anew["alerts_ended"]) == ("learning", 1)
    again = last_json(valuedrift("watch", EXAMPLES, *db))
    assert by_series(again)[ATLAS]["baseline"] == {
        "state": "learning", "turns": 0, "of_turns": 60, "hours": 0.0, "of_hours": 0.0, "warning": "",
    }  # fmt: skip
    (alert,) = again["alerts"]
    assert (alert["state"], alert["values"]["ended"]) == ("resolved", "prompt v7")
    early = valuedrift("baseline", "freeze", "atlas", *db)
    assert early.returncode == 2
    assert "has learned from 0 turns; a baseline needs 50" in early.stderr

    week = ("--rule", "2026-03-02..2026-03-09", "--reason", "week one")
    assert last_json(valuedrift("baseline", "relearn", "atlas", *week, *db))["state"] == "frozen"
    past = last_json(valuedrift("baseline", "show", "atlas", *db))["history"]
    assert [(h["origin"], h["reason"], h["until"] is None) for h in past] == [
        ("relearned", "week one", True),
        ("learned", "", False),
    ]


@pytest.mark.service
def test_freeze_while_learning(tmp_path: Path, valuedrift: Run) -> None:
    """A learning series is listed with how far it is and that alerts are off; frozen, it is on record with why."""
    valuedrift("watch", EXAMPLES, "--baseline", "5000")
    listed = valuedrift("baseline", "list", "--baseline", "5000")
    assert f"{ATLAS}: learning, 584 of 5,000 turns; ALERTS ARE OFF while it learns" in listed.stdout
    frozen = valuedrift("baseline", "freeze", "helpdesk", "--reason", "it will do")
    assert frozen.returncode == 0, frozen.stderr
    shown = valuedrift("baseline", "show", HELPDESK)
    assert "reason: it will do" in shown.stdout
    assert "frozen, 479 turns" in shown.stdout


@pytest.mark.service
def test_migrate_to_other_weights(tmp_path: Path, valuedrift: Run) -> None:
    """Carried over, a watch with other weights compares at once; a log unlike the baseline's is refused."""
    from safetensors.numpy import load_file, save_file

    from classifiers.linear import SHIPPED

    tensors = load_file(SHIPPED)
    tensors["bias"] = tensors["bias"] + 0.05
    with SHIPPED.open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    save_file(tensors, tmp_path / "other.safetensors", header["__metadata__"])

    valuedrift("watch", EXAMPLES)
    weights = ("--from-weights", "shipped", "--to-weights", tmp_path / "other.safetensors")
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)
    drifted = [x for x in lines if '"ts": "2026-03-1' in x and json.loads(x)["ts"] > "2026-03-12"]
    (tmp_path / "drifted.jsonl").write_text("".join(drifted), encoding="utf-8")
    refused = valuedrift("baseline", "migrate", tmp_path / "drifted.jsonl", *weights)
    assert refused.returncode == 2
    assert "not like the baseline's" in refused.stderr

    done = last_json(valuedrift("baseline", "migrate", EXAMPLES, *weights, "--json"))
    for s in done["series"]:
        assert s["in_range"]
        assert s["sample_old"] == s["stored"]
        assert s["sample_new"]["n"] == s["turns"]
    other = {"VALUEDRIFT_CLASSIFIER_WEIGHTS": str(tmp_path / "other.safetensors")}
    later = [{**json.loads(x)} for x in lines[:20]]
    for e in later:
        e.update(event_id=e["event_id"] + "-b", ts=e["ts"].replace("2026-03", "2026-04"))
    (tmp_path / "later.jsonl").write_text("".join(json.dumps(e) + "\n" for e in later), encoding="utf-8")
    summary = last_json(valuedrift("watch", tmp_path / "later.jsonl", "--json", env=other))
    assert summary["classifier"] == done["to"]
    assert {s["baseline"]["state"] for s in summary["series"]} == {"frozen"}
    same = valuedrift("baseline", "migrate", EXAMPLES, "--from-weights", "shipped", "--to-weights", "shipped")
    assert same.returncode == 2
    assert "nothing to carry over" in same.stderr


@pytest.mark.service
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("show", "atlas"), 2, "no series yet"),
        (("relearn", "atlas"), 2, "--reason"),
        (("migrate", "nothing.jsonl", "--from-weights", "shipped", "--to-weights", "gone.bin"), 3, "nothing.jsonl"),
        (("compare", "atlas", "--window", "a week"), 2, "is not understood"),
    ],
)
def test_errors(valuedrift: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    """Whatever is wrong is one line that says what to do."""
    done = valuedrift("baseline", *arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def rows(engine: Engine, columns: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(r) for r in connection.execute(text(f"SELECT {columns} FROM baselines ORDER BY id"))]


@pytest.mark.service
def test_migration_there_and_back(url: str) -> None:
    """Baselines of the schema before get their times and origin; back again, what was replaced is forgotten."""
    engine = open_engine(url)
    config = _alembic_config()

    def move(how: Callable[[Any, str], None], revision: str) -> None:
        with writing(engine) as connection:
            config.attributes["connection"] = connection
            how(config, revision)

    move(alembic.upgrade, "0002")
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO series (id, deployment, model, labels) VALUES (1, 'd', 'm', '[]')"))
        for key, (version, day) in enumerate([("v", 1), ("w", 1), ("v", 3)], 1):
            connection.execute(
                text(
                    "INSERT INTO baselines (id, series_id, classifier_version, first_ts, last_ts, n, sums, bounds) "
                    "VALUES (:id, 1, :version, :first, :last, 60, :sums, '[]')"
                ),
                {
                    "id": key,
                    "version": version,
                    "first": f"2026-01-0{day} 00:00:00.000000",
                    "last": f"2026-01-0{day} 12:00:00.000000",
                    "sums": b"",
                },
            )
    upgrade(engine)
    assert versions(engine)[0] == versions(engine)[1]
    found = rows(engine, "origin, reason, frozen_at, created_at, replaced_at")
    assert {r[:2] for r in found} == {("learned", "")}
    assert [str(r[2])[:16] for r in found] == ["2026-01-01 12:01", "2026-01-01 12:01", "2026-01-03 12:01"]
    assert [None if r[4] is None else str(r[4])[:16] for r in found] == ["2026-01-03 12:01", None, None]

    with writing(engine) as connection:
        connection.execute(text("UPDATE baselines SET first_ts = (SELECT MAX(first_ts) FROM baselines) WHERE id = 1"))
    move(alembic.downgrade, "0002")
    assert rows(engine, "id") == [(2,), (3,)]
    with engine.connect() as connection:
        assert "origin" not in {c["name"] for c in inspect(connection).get_columns("baselines")}
        assert [u["name"] for u in inspect(connection).get_unique_constraints("baselines")] == ["uq_baselines_start"]
    upgrade(engine)
    assert rows(engine, "id, origin") == [(2, "learned"), (3, "learned")]
    engine.dispose()
