"""`valuedrift db`: up, down, check, stats; and what a worker says of a database of another version."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, select, text

import migrations
from monitor.store import schema
from monitor.store.database import _MIGRATION_LOCK, downgrade, open_engine, upgrade, versions, writing
from monitor.store.health import UNSEEN
from tests.conftest import EXAMPLES, Run, command, environment

pytestmark = pytest.mark.service

HEAD = ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.dispose()


def test_upgrade_current_check(url: str, valuedrift: Run) -> None:
    """An empty database is told apart, upgraded once, and is then as it should be."""
    assert valuedrift("db", "check", "--db", url).returncode == 1
    assert f"schema none, this version needs {HEAD}" in valuedrift("db", "current", "--db", url).stdout
    assert f"schema none -> {HEAD}" in valuedrift("db", "upgrade", "--db", url).stdout
    assert f"schema {HEAD} -> {HEAD}" in valuedrift("db", "upgrade", "--db", url).stdout
    checked = valuedrift("db", "check", "--db", url)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.endswith(f"schema {HEAD}, as it should be\n")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE offsets DROP COLUMN newest_ts", "column offsets.newest_ts is missing"),
        ("ALTER TABLE series ADD COLUMN extra INTEGER", "column series.extra is not of this version"),
        ("DROP TABLE reviews", "table reviews is missing"),
        ("DROP INDEX ix_turns_series_id_ts", "index turns.ix_turns_series_id_ts is missing"),
        ("CREATE TABLE somebodys (x INTEGER)", "table somebodys is not of this version"),
    ],
)
def test_check_names_differences(url: str, engine: Engine, valuedrift: Run, change: str, named: str) -> None:
    """A table, column or index that somebody took away or added is named, and the exit code is 1."""
    upgrade(engine)
    with writing(engine) as connection:
        connection.execute(text(change))
    checked = valuedrift("db", "check", "--db", url)
    with writing(engine) as connection:
        connection.execute(text("DROP TABLE IF EXISTS somebodys"))
    assert checked.returncode == 1
    assert "1 difference(s)" in checked.stdout
    assert named in checked.stdout


def test_down_and_up(url: str, engine: Engine, valuedrift: Run) -> None:
    """`downgrade` goes one schema back where nothing is lost by it, `upgrade` comes back, and no row has gone."""
    assert valuedrift("watch", EXAMPLES, "--db", url).returncode == 0
    before = rows(engine)
    done = valuedrift("db", "downgrade", "--db", url)
    assert done.returncode == 0, done.stderr
    assert versions(engine)[0] != HEAD
    assert valuedrift("db", "check", "--db", url).returncode == 1
    assert valuedrift("db", "upgrade", "--db", url).returncode == 0
    assert rows(engine) == before


def test_downgrade_asks_before_it_loses_rows(url: str, engine: Engine, valuedrift: Run) -> None:
    """Where the older schema has no table for some rows, nothing is done without --yes; which rows is said."""
    assert valuedrift("watch", EXAMPLES, "--db", url).returncode == 0
    before = rows(engine)
    refused = valuedrift("db", "downgrade", "base", "--db", url)
    assert refused.returncode == 3
    assert f"{before['turns']:,} row(s) of turns" in refused.stderr
    assert "--yes" in refused.stderr
    assert versions(engine)[0] == HEAD
    assert rows(engine) == before
    done = valuedrift("db", "downgrade", "base", "--yes", "--db", url)
    assert done.returncode == 0, done.stderr
    assert versions(engine)[0] is None


@pytest.mark.parametrize("revision", ["9999", "head", "0099", "-7", ""])
def test_downgrade_to_nowhere(url: str, engine: Engine, valuedrift: Run, revision: str) -> None:
    """A version that is not an older one is refused, and the older ones are listed."""
    upgrade(engine)
    done = valuedrift("db", "downgrade", "--db", url, "--", revision)
    assert done.returncode == 3
    assert "0001, base" in done.stderr
    assert versions(engine)[0] == HEAD


def test_newer_database(url: str, engine: Engine, valuedrift: Run) -> None:
    """A database of a newer version is refused by every command, which says what to run."""
    upgrade(engine)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for arguments in (
        ("watch", EXAMPLES),
        ("db", "upgrade"),
        ("db", "downgrade"),
        ("db", "prune"),
        ("baseline", "list"),
    ):
        done = valuedrift(*arguments, "--db", url)
        assert done.returncode == 3, done.stderr
        assert f"newer valuedrift (schema 9999, this version needs {HEAD})" in done.stderr
        assert f"valuedrift db downgrade {HEAD}" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert valuedrift("db", "check", "--db", url).returncode == 1


def test_older_database(url: str, engine: Engine, valuedrift: Run) -> None:
    """A worker refuses an older PostgreSQL, naming the command that helps; an older SQLite file it brings up itself."""
    upgrade(engine)
    downgrade(engine, "-1")
    done = valuedrift("watch", EXAMPLES, "--db", url)
    if engine.dialect.name == "sqlite":
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 3
        assert done.stderr.endswith("run: valuedrift db upgrade\n")
        assert valuedrift("db", "upgrade", "--db", url).returncode == 0
        assert valuedrift("watch", EXAMPLES, "--db", url).returncode == 0
    assert versions(engine)[0] == HEAD


def test_two_upgrades_at_once_migrate_once(postgres: str, tmp_path: Path) -> None:
    """Two processes that begin on an empty PostgreSQL wait for each other: one makes the tables, both go on."""
    engine = open_engine(postgres)
    upgrade(engine)
    downgrade(engine, "base")
    with engine.begin() as holder:
        holder.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        running = [
            subprocess.Popen(
                command("watch", EXAMPLES, "--db", postgres, "--json", "--deployment", name),
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in ("one", "other")
        ]
        wait_for_waiters(engine, 2)
    ended = [(p.communicate(timeout=120), p.returncode) for p in running]
    # they read the same file: at most one of them is told that the other is reading it
    assert [code for _, code in ended].count(0) >= 1, ended
    for (_, err), code in ended:
        assert code == 0 or "another process" in err
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.settings)).scalar_one() == 1
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
    engine.dispose()


def wait_for_waiters(engine: Engine, n: int) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        with engine.connect() as connection:
            if connection.execute(waiting).scalar_one() == n:
                return
        time.sleep(0.05)
    raise AssertionError(f"{n} processes did not come to wait for the lock")


def test_stats(url: str, engine: Engine, valuedrift: Run, tmp_path: Path) -> None:
    """`stats` counts what is there, says from when to when, and how far each source is."""
    log = tmp_path / "log.jsonl"
    log.write_text(EXAMPLES.read_text(encoding="utf-8") + "not json\n", encoding="utf-8")
    assert valuedrift("watch", log, "--db", url).returncode == 0
    now = "2026-03-20T00:00:00Z"
    told = json.loads(valuedrift("db", "stats", "--json", "--now", now, "--db", url).stdout)
    tables = {t["name"]: t for t in told["tables"]}
    assert {name: t["rows"] for name, t in tables.items()} == rows(engine)
    assert all(t["counted"] and t["bytes"] > 0 for t in tables.values())
    with engine.connect() as connection:
        first, last = connection.execute(select(func.min(schema.turns.c.ts), func.max(schema.turns.c.ts))).one()
    assert (tables["turns"]["oldest"][:16], tables["turns"]["newest"][:16]) == (
        first.isoformat()[:16],
        last.isoformat()[:16],
    )
    assert tables["buckets"]["newest"][:16] == last.isoformat()[:16]
    assert told["series"] == 2
    source = told["ingestion"]["sources"][0]
    assert (source["source"], source["dead_letters"], source["lag_seconds"]) == (str(log), 1, 0)
    assert source["events"] == source["judged"] + source["duplicates"] + source["dead_letters"]
    assert told["ingestion"]["dead_letter_share"] == pytest.approx(1 / source["events"], abs=1e-6)
    if engine.dialect.name == "postgresql":
        assert "turns_2026_03" in [p["name"] for p in tables["turns"]["partitions"]]
    shown = valuedrift("db", "stats", "--now", now, "--db", url).stdout
    assert "1 dead letters (0.14 %)" in shown
    assert f"newest event {last:%Y-%m-%d %H:%M} UTC" in shown
    assert "2 series" in shown
    assert "4 d 0 h ago" in shown


def test_now_that_is_no_time(valuedrift: Run) -> None:
    """A present that cannot be read is refused."""
    done = valuedrift("db", "stats", "--now", "yesterday")
    assert done.returncode == 2
    assert "such as 2026-03-01T12:00:00Z" in done.stderr


def rows(engine: Engine) -> dict[str, int]:
    """Of every table that statistics tell of."""
    with engine.connect() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(t)).scalar_one()
            for name, t in schema.METADATA.tables.items()
            if name not in UNSEEN
        }
