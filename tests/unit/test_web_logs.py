"""Logs hold no transcript text, whoever writes them and whether they were set up or not."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from monitor import logs

MARK = "zq7xmarker"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is set up for a whole process: put back what was there."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def speak() -> None:
    """Log the marker in every way there is."""
    logging.getLogger("some.library").error("could not parse %s", MARK)
    logging.getLogger("some.library").error(f"could not parse {MARK}", extra={"body": MARK}, stack_info=True)
    logging.getLogger("uvicorn.error").error("Bad thing: %s", MARK)
    logging.getLogger("monitor.store.retry").warning("%s: trying again", "postgresql://db")
    logs.get_logger("ours").warning("known", text=MARK, body=MARK, items=3, detail="x" * 10_000)
    try:
        raise ValueError(MARK) from KeyError(MARK)
    except ValueError as e:
        logs.get_logger("ours").error("failed", exc_info=e)
        logs.get_logger("ours").exception("failed", stack_info=True)
        logging.getLogger("some.library").exception(MARK)


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["piped", "terminal"])
def test_what_is_said(out: io.StringIO) -> None:
    """Libraries are told by template or place, exceptions by type and place, unknown fields are dropped."""
    logs.configure("debug", out)
    speak()
    assert MARK not in out.getvalue()
    assert "test_web_logs.py" in out.getvalue()
    if isinstance(out, Terminal):
        assert "ValueError <- KeyError" in out.getvalue()
        return
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    library = "message of a library"
    known = ["Bad thing: %s", "postgresql://db: trying again", "known", "failed", "failed"]
    assert [line["event"] for line in lines] == [library, library, *known, library]
    assert (lines[4]["items"], len(lines[4]["detail"]) < 400) == (3, True)
    assert {line["error"] for line in lines[5:]} == {"ValueError <- KeyError"}
    assert all({"level", "timestamp", "logger"} <= line.keys() for line in lines)


def test_level() -> None:
    """Below the level nothing is said."""
    out = io.StringIO()
    logs.configure("warning", out)
    logs.get_logger("ours").info("quiet")
    assert out.getvalue() == ""


def test_not_set_up(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """A program that never set up its logs does not say more for that."""
    log = logs.get_logger("ours")
    try:
        secret = MARK
        raise ValueError(secret)
    except ValueError:
        log.exception("failed", body=MARK)
    out = capsys.readouterr()
    assert MARK not in out.out + out.err + caplog.text
    assert "failed" in caplog.text


def test_uncaught(capsys: pytest.CaptureFixture[str]) -> None:
    """Exceptions that nobody caught are told without their message, those of threads, too."""
    out = io.StringIO()
    logs.configure("info", out)

    def dies() -> None:
        raise ValueError(MARK)

    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    try:
        dies()
    except ValueError as e:
        sys.excepthook(ValueError, e, e.__traceback__)
    assert out.getvalue().count("ValueError") == 2
    said = capsys.readouterr()
    assert MARK not in out.getvalue() + said.out + said.err
