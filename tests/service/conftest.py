"""Shared by tests of services: an open store of either kind, and whom alerts are told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from monitor.store.database import open_store
from tests.service.pager import Pager
from tests.service.receivers import AlertmanagerServer, Receiver, answer


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An empty database of either kind, brought up to the schema."""
    opened = open_store(url)
    yield opened
    opened.dispose()


@pytest.fixture
def pager() -> Iterator[Pager]:
    found = Pager()
    yield found
    found.close()


@pytest.fixture
def told() -> Iterator[Receiver]:
    """Whom Alertmanager tells."""
    with Receiver(answer(200)).running() as running:
        yield running


@pytest.fixture
def alertmanager(tmp_path: Path, told: Receiver) -> Iterator[AlertmanagerServer]:
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    server = AlertmanagerServer(folder, f"{told.url}/hook")
    server.start()
    yield server
    server.stop()
