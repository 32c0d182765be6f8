"""Shared by all tests: the bundled log, larger logs made of it, and the product run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from monitor.store.database import open_engine
from monitor.store.schema import METADATA
from tests.own_server import OwnServer, database
from tests.service import brokers

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "two_weeks.jsonl"
TRUTH = ROOT / "examples" / "two_weeks.truth.json"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def repeated(events: list[dict[str, Any]], times: int) -> list[dict[str, Any]]:
    """The events several times over, a day apart, under other ids: a longer log with the same prose."""
    out = []
    for k in range(times):
        for e in events:
            ts = datetime.fromisoformat(e["ts"]) + timedelta(days=k)
            out.append(
                e
                | {
                    "event_id": f"{e['event_id']}-{k}",
                    "conversation_id": f"{e['conversation_id']}-{k}",
                    "ts": ts.isoformat(),
                }
            )
    return out


def write_log(path: Path, events: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def examples() -> list[dict[str, Any]]:
    """The bundled transcripts."""
    return [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def truth() -> dict[str, Any]:
    """What is known of them: the drifting deployment, its onset, the behaviour of every turn."""
    return dict(json.loads(TRUTH.read_text(encoding="utf-8")))


def command(*arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).parent / "valuedrift"), *map(str, arguments)]


def environment() -> dict[str, str]:
    """The caller's environment without settings of the product."""
    return {k: v for k, v in os.environ.items() if not k.startswith("VALUEDRIFT_")}


@pytest.fixture
def valuedrift(tmp_path: Path) -> Run:
    """Runs the console script in an empty folder."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **more,
        )

    return run


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """As `valuedrift`, but within this process, which takes a second less."""
    from monitor.cli import main

    def opened(*arguments: Any, **more: Any) -> Engine:
        engines.append(create_engine(*arguments, **more))
        return engines[-1]

    engines: list[Engine] = []
    monkeypatch.setattr("monitor.store.database.create_engine", opened)

    def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as changed:
            changed.chdir(tmp_path)
            for name in os.environ.keys() - environment().keys():
                changed.delenv(name)
            for name, value in (env or {}).items():
                changed.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main([str(a) for a in arguments])
        for engine in engines:  # a process that ends closes its connections
            engine.dispose()
        code = ended.value.code
        return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object on the last line of stdout."""
    assert done.returncode in (0, 1), done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def own() -> Iterator[OwnServer]:
    """A PostgreSQL that the module's tests may kill."""
    # as of `started_postgres`
    with tempfile.TemporaryDirectory(prefix="valuedrift-pg") as folder:
        server = OwnServer(Path(folder) / "data")
        yield server
        server.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of an empty database: VALUEDRIFT_TEST_DATABASE_URL, or a server of this test run's own."""
    with database(os.environ.get("VALUEDRIFT_TEST_DATABASE_URL")) as url:
        yield url


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Cluster]:
    """VALUEDRIFT_TEST_KAFKA, or a broker of this test run's own, where members may come and go (Tansu)."""
    with brokers.any_cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def kafka_durable(tmp_path: Path) -> Iterator[brokers.Broker]:
    """A broker of this test's own that keeps its data over a restart (noida)."""
    with brokers.started("noida", tmp_path) as broker:
        yield broker


def clear(url: str) -> None:
    """Take everything of ours out of a database."""
    engine = open_engine(url)
    with engine.begin() as connection:
        METADATA.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP FUNCTION IF EXISTS valuedrift_make_month(text, date)"))
    engine.dispose()


@pytest.fixture
def empty_postgres(postgres: str) -> Iterator[str]:
    """A PostgreSQL without tables of ours."""
    clear(postgres)
    yield postgres
    clear(postgres)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/a.db"
        return
    found: str = request.getfixturevalue("empty_postgres")
    yield found
