"""What befalls a database in production, done to a real one: nothing is lost, nothing counted twice, work goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from monitor.errors import StoreError, StoreUnreachable
from monitor.store import schema
from monitor.store.database import open_engine, open_store, upgrade, writing
from monitor.store.retry import retrying, shown
from tests.conftest import EXAMPLES, Run, command, environment, last_json, repeated, write_log
from tests.own_server import OwnServer, wait_for
from tests.store_cases import contents, events, write, writer

CHUNKS = 30


@pytest.fixture
def database(own: OwnServer) -> Iterator[str]:
    """URL of an empty database of the server that may be killed."""
    with admin(own, "CREATE DATABASE tried"):
        yield own.url.replace("/postgres?", "/tried?")
    with admin(own, "DROP DATABASE tried WITH (FORCE)"):
        pass


@contextmanager
def admin(own: OwnServer, *statements: str) -> Iterator[None]:
    engine = open_engine(own.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
    yield


def load(engine: Engine, on_chunk: Callable[[int], None] = lambda _: None, chunks: int = CHUNKS) -> None:
    """Chunks of two sources, the second with duplicates of the first."""
    a, b = writer(engine, "a"), writer(engine, "b")
    some = events(1, 20 * chunks, series=6, step_seconds=40.0)
    for k in range(chunks):
        on_chunk(k)
        piece = some[20 * k : 20 * k + 20]
        write(a if k % 3 else b, [*some[max(0, 20 * k - 3) : 20 * k], *piece])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The rows of a load that nothing happens to."""
    engine = open_store(f"sqlite:///{tmp_path_factory.mktemp('whole')}/a.db")
    load(engine)
    found = contents(engine)
    engine.dispose()
    assert len(found["turns"]) == 20 * CHUNKS
    assert found["dead_letters"]
    return found


def terminate_others(engine: Engine) -> int:
    """End every other session of valuedrift in this database; returns how many."""
    with engine.connect() as connection:
        ended = connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database() AND application_name = 'valuedrift'"
            )
        ).scalar_one()
    return int(ended)


# -- away at the start -------------------------------------------------------------------------------------------------


@pytest.mark.service
def test_down_at_start(tmp_path: Path, valuedrift: Run) -> None:
    """Says that it waits, and for how long; then exit code 2 and one line, never the password."""
    url = "postgresql://user:s3cret@127.0.0.1:9/none?sslpassword=s3cret"
    started = time.monotonic()
    done = valuedrift("watch", EXAMPLES, "--db", url, env={"VALUEDRIFT_STORE_CONNECT_SECONDS": "1.5"})
    assert done.returncode == 2
    assert 1 < time.monotonic() - started < 20
    waits, failed = done.stderr.splitlines()
    assert "refused" in waits
    assert "trying again for up to 1.5 s" in waits
    assert failed.startswith("valuedrift: postgresql+psycopg://user:***@127.0.0.1:9/none")
    assert "run the same command again" in failed
    assert "s3cret" not in done.stderr + done.stdout


@pytest.mark.service
def test_comes_up_while_it_is_waited_for(own: OwnServer, database: str, tmp_path: Path) -> None:
    """A watch that is begun before its database is up begins its work when it is."""
    upgrade_now(database)
    own.stop()
    log = write_log(tmp_path / "log.jsonl", [json.loads(line) for line in EXAMPLES.read_text().splitlines()[:20]])
    process = start_watch(log, database, tmp_path)
    time.sleep(3)
    assert process.poll() is None
    own.start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "trying again for up to 30 s" in err
    assert "back after" in err
    assert json.loads(out.splitlines()[-1])["events"]["judged"] == 20


@pytest.mark.service
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("/tried?", "/nowhere?"), 'database "nowhere" does not exist'),
        (("//postgres:@", "//nobody@"), 'role "nobody" does not exist'),
        (("/tried?", "/tried?sslmode=sideways&"), 'invalid sslmode value: "sideways"'),
    ],
)
def test_hopeless_at_once(database: str, change: tuple[str, str], says: str, valuedrift: Run) -> None:
    """What waiting does not mend is told at once: an unknown role or database, an impossible TLS mode."""
    started = time.monotonic()
    done = valuedrift("watch", EXAMPLES, "--db", database.replace(*change))
    assert done.returncode in (2, 3)
    assert time.monotonic() - started < 10
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def upgrade_now(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()


def start_watch(log: Path, url: str, folder: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("watch", log, "--db", url, "--json"),
        env=environment() | env,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# -- lost in the middle ------------------------------------------------------------------------------------------------


@pytest.mark.service
def test_sessions_ended_all_the_time(database: str, undisturbed: dict[str, list[Any]]) -> None:
    """A load whose sessions are ended every few milliseconds leaves the rows of an undisturbed one."""
    engine, killer = open_store(database), open_store(database)
    done = threading.Event()
    ended = 0

    def kill() -> None:
        nonlocal ended
        while not done.wait(0.06):
            ended += retrying(killer, lambda: terminate_others(killer))

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        load(engine, lambda _: time.sleep(0.03))
    finally:
        done.set()
        thread.join()
    assert ended > 10
    assert contents(engine) == undisturbed
    engine.dispose()
    killer.dispose()


@pytest.mark.service
@pytest.mark.parametrize("committed", [False, True], ids=["before COMMIT", "after COMMIT, before its answer"])
def test_lost_at_commit(database: str, undisturbed: dict[str, list[Any]], committed: bool) -> None:
    """A connection that is lost at a COMMIT: whether it came through is found out, and the chunk counted once."""
    engine, killer = open_store(database), open_store(database)
    original = engine.dialect.do_commit
    lost = 0

    def do_commit(connection: Any) -> None:
        nonlocal lost
        loses = lost < 40 and (commits := next(numbers)) % 3 == 0 and commits > 0
        if loses and committed:
            original(connection)
        if loses:
            lost += 1
            terminate_others(killer)
        original(connection) if not (loses and committed) else connection.execute("SELECT 1")

    numbers = iter(range(10**6))
    engine.dialect.do_commit = do_commit  # type: ignore[method-assign]
    load(engine)
    engine.dialect.do_commit = original  # type: ignore[method-assign]
    assert lost > 10
    assert contents(engine) == undisturbed
    engine.dispose()
    killer.dispose()


@pytest.mark.service
def test_server_killed_during_load(own: OwnServer, database: str, undisturbed: dict[str, list[Any]]) -> None:
    """kill -9 of all the server's processes, twice, and the same data started again: the load goes on by itself."""
    engine = open_store(database)

    restarts: list[threading.Thread] = []

    def on_chunk(k: int) -> None:
        if k in (7, 19):
            for earlier in restarts:
                earlier.join()
            restarts.append(threading.Thread(target=own.kill_and_start, args=(0.5,)))
            restarts[-1].start()

    load(engine, on_chunk)
    for restart in restarts:
        restart.join()
    assert len(restarts) == 2
    assert contents(engine) == undisturbed
    engine.dispose()


@pytest.mark.service
def test_server_killed_under_a_watch(
    own: OwnServer, database: str, tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]
) -> None:
    """A whole `watch` whose server is killed several times finds what it finds on SQLite: turns, points, alerts."""
    log = write_log(tmp_path / "log.jsonl", repeated(examples, 3))
    upgrade_now(database)
    whole = last_json(valuedrift("watch", log, "--json"))
    process = start_watch(log, database, tmp_path)
    engine = open_engine(database)
    kills = 0
    time.sleep(1.5)
    while process.poll() is None and kills < 3:
        own.kill_and_start(0.2)
        kills += 1
        time.sleep(0.7)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert kills >= 2
    found = json.loads(out.splitlines()[-1])
    assert found["series"] == whole["series"]
    assert found["events"] == whole["events"]
    assert err.count("trying again") >= 1
    assert err.count("trying again") == err.count("back after") <= kills + 1
    engine.dispose()


@pytest.mark.service
def test_away_for_too_long(own: OwnServer, database: str, undisturbed: dict[str, list[Any]]) -> None:
    """Gives up after store.retry_seconds and says so; begun again, the load ends as if nothing had happened."""
    engine = open_store(database, retry_seconds=1.0)

    def on_chunk(k: int) -> None:
        if k == 5:
            own.stop()

    with pytest.raises(StoreUnreachable, match=r"tried for 1 s.*run the same command again"):
        load(engine, on_chunk)
    own.start()
    stored = contents(engine)
    assert 0 < len(stored["turns"]) < len(undisturbed["turns"])
    assert {o[1] for o in stored["offsets"]} == {"a", "b"}
    engine.dispose()


# -- no room -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(own: OwnServer) -> Iterator[tuple[str, Callable[[str], None]]]:
    """URL of a database on a file system of a few megabytes, and how to give that another size."""
    # a folder of its own: another session of pytest closes those of pytest to the server's user
    with tempfile.TemporaryDirectory(prefix="valuedrift-small") as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "disk"
        place.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=11m", "tmpfs", str(place)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("a small file system can only be mounted with the right to")
        try:
            if own.user is not None:
                shutil.chown(place, own.user)
            with admin(own, f"CREATE TABLESPACE small LOCATION '{place}'", "CREATE DATABASE small TABLESPACE small"):
                yield (
                    own.url.replace("/postgres?", "/small?"),
                    lambda size: (
                        subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True) and None
                    ),
                )
            with admin(own, "DROP DATABASE small WITH (FORCE)", "DROP TABLESPACE small"):
                pass
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.service
def test_disk_full(
    small_disk: tuple[str, Callable[[str], None]], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A full disk is said and waited for; with room again the load goes on, and no row is missing or there twice."""
    url, resize = small_disk
    upgrade_now(url)
    engine = open_store(url, retry_seconds=60)
    whole = open_store(f"sqlite:///{tmp_path}/whole.db")
    load(whole, chunks=500)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            load(engine, chunks=500)
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for("a full disk", lambda: "No space left on device" in caplog.text or not thread.is_alive())
    assert thread.is_alive(), failed
    time.sleep(0.5)
    resize("200m")
    thread.join(timeout=60)
    assert failed == []
    assert not thread.is_alive()
    assert caplog.text.count("trying again") == 1
    assert contents(engine) == contents(whole)
    engine.dispose()
    whole.dispose()


@pytest.mark.service
def test_no_connection_left(own: OwnServer, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """A role at its limit of connections is said and waited for; when one is free, the work is done."""
    upgrade_now(database)
    owner = open_store(database)
    with admin(own, "DROP ROLE IF EXISTS narrow", "CREATE ROLE narrow LOGIN CONNECTION LIMIT 1"):
        pass
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO narrow"))
        connection.execute(text("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO narrow"))
        connection.execute(text("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO narrow"))
    narrow = database.replace("//postgres:@", "//narrow@")
    taken = open_engine(narrow)
    held = taken.connect()
    threading.Timer(1.0, lambda: (held.close(), taken.dispose())).start()
    engine = open_store(narrow)
    assert "too many connections" in caplog.text
    assert "back after" in caplog.text
    write(writer(engine, "a"), events(1, 5))
    assert len(contents(engine)["turns"]) == 5
    engine.dispose()
    owner.dispose()
    with admin(own, "DROP DATABASE tried WITH (FORCE)", "DROP ROLE narrow", "CREATE DATABASE tried"):
        pass


# -- what comes in -----------------------------------------------------------------------------------------------------


def line(**more: Any) -> dict[str, Any]:
    return {
        "event_id": "e",
        "ts": "2026-03-02T10:00:00Z",
        "deployment": "d",
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}],
    } | more


@pytest.mark.service
def test_hostile_values(url: str, tmp_path: Path, valuedrift: Run) -> None:
    """NUL, 10 MB, overflow, unknown zones: each is counted or a dead letter that says why; both databases agree."""
    long = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a" * 10_000_000}]
    nul = [{"role": "user", "content": "a\0b"}, {"role": "assistant", "content": "c\0d"}]
    log = write_log(
        tmp_path / "log.jsonl",
        [
            line(event_id="nul in text", messages=nul),
            line(event_id="nul in id\0"),
            line(event_id="nul in name", deployment="d\0"),
            line(event_id="nul in label", labels={"route": "a\0b"}),
            line(event_id="nul in label name", labels={"a\0b": "c"}),
            line(event_id="long", messages=long),
            line(event_id="tiny rate", sample_rate=1e-300),
            line(event_id="least rate", sample_rate=1 / 1024),
            line(event_id="rate of 1e-12", sample_rate=1e-12),
            line(event_id="huge rate", sample_rate=1e308),
            line(event_id="unknown zone", ts="2026-03-02T10:00:00 Mars/Olympus"),
            line(event_id="no zone", ts="2026-03-02T10:00:00"),
            line(event_id="odd offset", ts="2026-03-02T10:00:00+99:99"),
            line(event_id="far year", ts="999999-03-02T10:00:00Z"),
            line(event_id="year 1", ts="0001-01-01T00:00:00Z"),
            line(event_id="zone of a day", ts="2026-03-02T10:00:00+23:59"),
            line(event_id="quote ' \\ \x1b[31m \u202e \U0001f600"),
        ],
    )
    settings = {"VALUEDRIFT_INPUT_MAX_EVENT_BYTES": str(1 << 25)}
    if url.startswith("postgresql"):
        assert valuedrift("db", "upgrade", "--db", url).returncode == 0
    done = valuedrift("watch", log, "--db", url, "--format", "canonical", "--json", env=settings)
    found = last_json(done)
    counted = {"nul in text", "long", "least rate", "zone of a day", "quote ' \\ \x1b[31m \u202e \U0001f600"}
    engine = open_store(url)
    with engine.connect() as connection:
        assert set(connection.execute(select(schema.turns.c.event_id)).scalars()) == counted
        assert found["events"]["dead_letters"] == 17 - len(counted)
        reasons = dict(connection.execute(select(schema.dead_letters.c.line, schema.dead_letters.c.reason)).all())
    assert "NUL" in reasons[2]
    assert "sample_rate" in reasons[7]
    assert "sample_rate" in reasons[9]
    assert "zone" in reasons[12]
    assert all(reasons.values())
    engine.dispose()


@pytest.mark.service
@pytest.mark.parametrize("zone", ["Mars/Olympus", "Pacific/Auckland", "America/New_York"])
def test_unknown_zone_of_the_client(empty_postgres: str, zone: str, tmp_path: Path, valuedrift: Run) -> None:
    """Whatever PGTZ and TZ are, also an unknown zone: times are kept, and shown, in UTC."""
    log = write_log(
        tmp_path / "log.jsonl", [line(ts="2026-03-31T23:59:59.5Z"), line(event_id="f", ts="2026-04-01T00:00:00Z")]
    )
    strange = {"PGTZ": zone, "TZ": zone}
    assert valuedrift("db", "upgrade", "--db", empty_postgres, env=strange).returncode == 0
    done = valuedrift("watch", log, "--db", empty_postgres, "--json", env=strange)
    assert last_json(done)["events"]["judged"] == 2, done.stderr
    engine = open_store(empty_postgres)
    with engine.connect() as connection:
        times = connection.execute(select(schema.turns.c.ts).order_by(schema.turns.c.ts)).scalars().all()
        assert connection.execute(text("SHOW timezone")).scalar_one() == "UTC"
    assert times == [datetime(2026, 3, 31, 23, 59, 59, 500_000, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)]
    engine.dispose()


@pytest.mark.service
def test_pg_variables(own: OwnServer, database: str, tmp_path: Path, valuedrift: Run) -> None:
    """`postgresql://` alone takes host, user and database from the PG* variables; sessions are named valuedrift."""
    socket = database.split("host=")[1]
    variables = {"PGHOST": socket, "PGUSER": "postgres", "PGDATABASE": "tried", "PGSSLMODE": "prefer"}
    assert valuedrift("db", "upgrade", "--db", "postgresql://", env=variables).returncode == 0
    log = write_log(tmp_path / "log.jsonl", [line()])
    done = valuedrift("watch", log, "--db", "postgresql://", "--json", env=variables)
    assert last_json(done)["events"]["judged"] == 1
    engine = open_store(database)
    with engine.connect() as connection:
        assert connection.execute(select(schema.turns.c.event_id)).scalars().all() == ["e"]
        assert connection.execute(text("SHOW application_name")).scalar_one() == "valuedrift"
    engine.dispose()
    named = open_engine(database + "&application_name=mine&sslmode=disable&connect_timeout=3")
    with named.connect() as connection:
        assert connection.execute(text("SHOW application_name")).scalar_one() == "mine"
    named.dispose()


# -- what is not retried -----------------------------------------------------------------------------------------------


@pytest.mark.service
def test_refused_for_good(database: str) -> None:
    """What the database refuses is told at once, with what it says and without the values."""
    engine = open_store(database)
    tries = 0

    def attempt() -> None:
        nonlocal tries
        tries += 1
        with engine.connect() as connection:
            connection.execute(text("SELECT * FROM nowhere WHERE x = :secret"), {"secret": "s3cret"})

    with pytest.raises(StoreError, match='relation "nowhere" does not exist') as e:
        retrying(engine, attempt)
    assert tries == 1
    assert "s3cret" not in str(e.value) + str(e.value.__cause__)
    engine.dispose()


@pytest.mark.service
def test_collisions_are_tried_again_in_silence(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two transactions that deadlock both end, and nobody is told."""
    engine = open_store(database)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE pair (k integer PRIMARY KEY, n integer)"))
        connection.execute(text("INSERT INTO pair VALUES (1, 0), (2, 0)"))
    both = threading.Barrier(2, timeout=10)
    failed: list[BaseException] = []

    def work(first: int, second: int) -> None:
        met = False

        def attempt() -> None:
            nonlocal met
            with writing(engine) as connection:
                connection.execute(text("UPDATE pair SET n = n + 1 WHERE k = :k"), {"k": first})
                if not met:
                    met = True
                    both.wait()
                connection.execute(text("UPDATE pair SET n = n + 1 WHERE k = :k"), {"k": second})

        try:
            retrying(engine, attempt)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT n FROM pair ORDER BY k")).scalars().all() == [2, 2]
    assert caplog.text == ""
    engine.dispose()


@pytest.mark.service
def test_passwords_are_not_shown() -> None:
    """Neither the password of a URL nor one among its parameters."""
    engine = open_engine("postgresql://user:s3cret@host/name?password=s3cret&sslpassword=s3cret&sslmode=require")
    assert "s3cret" not in shown(engine)
    assert "sslmode=require" in shown(engine)


@pytest.mark.service
def test_interrupted_while_it_waits(tmp_path: Path) -> None:
    """Ctrl-C ends the waiting."""
    process = start_watch(EXAMPLES, "postgresql://user@127.0.0.1:9/none", tmp_path)
    assert process.stderr is not None
    assert "trying again" in process.stderr.readline()
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in err
