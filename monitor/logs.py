"""Structured logs that never hold transcript text: JSON, or readable lines on a terminal.

A line has a fixed event and fields of known names; whatever else is given to a logger is dropped. Exceptions are told
by type and place, without their messages, and messages of libraries by their template, without what fills it in.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from streams.reasons import printable

FIELDS: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "logger",
        "alert",
        "rule",
        "severity",
        "address",
        "bytes",
        "database",
        "detail",
        "error",
        "trace",
        "items",
        "keys",
        "method",
        "partition",
        "position",
        "route",
        "seconds",
        "series_count",
        "signal",
        "source",
        "status",
        "topic",
        "version",
    }
)
"""What a line may tell; none of it comes from a request."""
MAX_FRAMES: Final = 12
TRUSTED: Final = frozenset({"monitor.store.retry"})
"""Their messages hold the database's address and why it cannot be reached, no rows."""
TEMPLATES: Final = frozenset({"uvicorn.error", "asyncio"})
"""Libraries whose messages are constants before they are filled in."""

EventDict = MutableMapping[str, Any]
_ROOT: Final = str(Path(__file__).parent.parent) + "/"


def get_logger(name: str) -> Any:
    """A structlog logger; until `configure` is called what it says goes to the standard library's handlers."""
    return structlog.stdlib.get_logger(name)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of this process, and uncaught exceptions, to a stream [stderr] in one form."""
    out = stream or sys.stderr
    renderer: Any = structlog.dev.ConsoleRenderer() if out.isatty() else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_named(), harmless_message, harmless_exception, known_fields],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # it would print the record that could not be written
    logging.captureWarnings(True)
    _catch_uncaught()


def _named() -> list[Any]:
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def harmless_message(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A record of the standard library: only what is known to be a constant, or to be harmless, is said."""
    record = event["_record"]
    if record.name not in TRUSTED:
        constant = record.name in TEMPLATES and isinstance(record.msg, str)
        event["event"] = record.msg.strip() if constant else "message of a library"
        event["trace"] = [f"{record.module}:{record.lineno} {record.funcName}"]
    return event


def harmless_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """`exc_info` becomes the types of the exception and its causes, and where it was raised."""
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    e = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(e, BaseException):
        event["error"] = " <- ".join(_types(e))
        event["trace"] = [
            f"{frame.filename.removeprefix(_ROOT)}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(e.__traceback__)[-MAX_FRAMES:]
        ]
    return event


def _as_record(logger: Any, method: str, event: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    """What the standard library's logger is called with; without this `exception` would add the message after all."""
    arguments, named = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, method, event)
    return arguments, {**named, "exc_info": None}


def _types(e: BaseException) -> list[str]:
    out: list[str] = []
    cause: BaseException | None = e
    while cause is not None and len(out) < MAX_FRAMES:
        out.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return out


def known_fields(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Drops every field that is not one of FIELDS, and bounds the texts of the others."""
    return {k: _bounded(v) for k, v in event.items() if k in FIELDS or k.startswith("_")}


def _bounded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float) or not isinstance(value, str | list):
        return value
    return printable(value) if isinstance(value, str) else [printable(str(v)) for v in value]


def _catch_uncaught() -> None:
    log = get_logger("uncaught")

    def main(_kind: type[BaseException], e: BaseException, _where: TracebackType | None) -> None:
        log.critical("uncaught exception", exc_info=e)

    def thread(args: threading.ExceptHookArgs) -> None:
        log.critical("uncaught exception in a thread", exc_info=args.exc_value)

    def unraisable(args: Any) -> None:
        log.error("exception where none can be raised", exc_info=args.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = main, thread, unraisable


# also where `configure` is never called: structlog's own way would show the local variables of every frame
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_named(),
        harmless_exception,
        known_fields,
        _as_record,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
