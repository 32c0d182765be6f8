"""A Slack channel, through an incoming webhook: one message a send, in blocks.

All that comes from outside goes into `plain_text`, where Slack reads neither mentions nor markup, and has & < > escaped
besides, for Slack reads these three in every text. Only the line of links is markup, of addresses that hold none of its
characters. Limits are those of Slack's reference: 50 blocks, 150 characters of a header, 3,000 of a section, 2,000 of a
field, 10 fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from alerts.notice import Notice, TellingTurn
from alerts.targets.base import Outcome
from alerts.targets.http import HttpClient, Post, Reading
from alerts.targets.settings import Slack, Values
from alerts.targets.text import brief, harmless, is_link, links, status_line, subject, trace_line, turn_line
from monitor.multiplicity import PAGE
from streams.reasons import printable

MOST_BLOCKS: Final = 50
LONGEST_HEADER: Final = 150
LONGEST_SECTION: Final = 3000
LONGEST_FIELD: Final = 2000
MOST_FIELDS: Final = 10
LONGEST_PART: Final = 1500
"""Characters of a section here: messages of many long sections are refused as a whole."""
LONGEST_EXCERPT: Final = 300
MOST_TOGETHER: Final = 20
"""Notices that are told of in one message; of more, the number."""
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})

Block = dict[str, Any]


class SlackTarget:
    """All notices of a send are one message."""

    refresh_seconds: float | None = None

    def __init__(self, settings: Slack, values: Values) -> None:
        self.name = values.name
        self.tells = frozenset({"firing", "acknowledged", "resolved"})
        self._excerpts = settings.excerpts
        self._client = HttpClient(
            values, timeout_seconds=settings.timeout_seconds, allow_http=False, secret_address=True
        )

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """See alerts.targets.base.Target."""
        shown = [harmless(n, excerpts=self._excerpts) for n in notices]
        (outcome,) = self._client.post([Post(msgspec.json.encode(message(shown)))], _READING)
        return [outcome] * len(notices)

    def close(self) -> None:
        """Connections live as long as a send."""


def message(notices: Sequence[Notice]) -> dict[str, Any]:
    """The message of notices that are told of together.

    Parameters
    ----------
    notices : harmless (alerts.targets.text).
    """
    blocks = _whole(notices[0]) if len(notices) == 1 else _together(notices)
    return {
        # what notifications show
        "text": _escaped(f"{_sign(notices)} {subject(notices)}", LONGEST_SECTION),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": blocks[:MOST_BLOCKS],
    }


def _whole(notice: Notice) -> list[Block]:
    blocks = [_header(f"{_sign([notice])} {notice.title}"), _context(status_line(notice)), _section(notice.reason)]
    if notice.figures:
        texts = [_plain(f"{f.name}\n{f.text}", LONGEST_FIELD) for f in notice.figures[:MOST_FIELDS]]
        blocks.append({"type": "section", "fields": texts})
    blocks += _leads(notice)
    if notice.trace:
        blocks.append(_context(trace_line(notice.trace)))
    if notice.where:
        blocks.append(_section("Likely where:\n" + "\n".join(f"• {line}" for line in notice.where)))
    if notice.turns:
        blocks += [{"type": "divider"}, *(_section(_turn(turn)) for turn in notice.turns)]
    if notice.guarantee:
        blocks.append(_context(f"False alarms: {notice.guarantee}"))
    return [*blocks, _context(f"Alert {notice.id}" + (f" on {notice.series}" if notice.series else ""))]


def _together(notices: Sequence[Notice]) -> list[Block]:
    blocks = [_header(f"{_sign(notices)} {subject(notices)}")]
    for notice in notices[:MOST_TOGETHER]:
        blocks += [_section(brief(notice)), *_leads(notice)]
    left = len(notices) - MOST_TOGETHER
    return [*blocks, _context(f"... and {left} more: valuedrift alerts list")] if left > 0 else blocks


def _turn(turn: TellingTurn) -> str:
    excerpts = (("asked", turn.request), ("answered", turn.answer))
    lines = [f"{what}: {printable(text, LONGEST_EXCERPT)}" for what, text in excerpts if text is not None]
    return "\n".join([turn_line(turn), *lines])


def _leads(notice: Notice) -> list[Block]:
    """The one line of markup: addresses, which alerts.targets.text has checked, under names of ours."""
    found = [(name, url) for name, url in links(notice) if is_link(url)]
    if not found:
        return []
    text = "   ".join(f"<{url.replace('&', '&amp;')}|{name}>" for name, url in found)
    return [{"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}]


def _sign(notices: Sequence[Notice]) -> str:
    """A colour to be seen in a list of notifications."""
    firing = [n for n in notices if n.status == "firing"]
    if not firing:
        return "🟢" if all(n.status == "resolved" for n in notices) else "🟡"
    return "🔴" if any(n.severity == PAGE for n in firing) else "🟠"


def _header(text: str) -> Block:
    return {"type": "header", "text": _plain(text, LONGEST_HEADER)}


def _section(text: str) -> Block:
    return {"type": "section", "text": _plain(text, LONGEST_PART)}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_plain(text, LONGEST_PART)]}


def _plain(text: str, limit: int) -> Block:
    # an empty text is refused, and the message with it
    return {"type": "plain_text", "text": _escaped(text, limit) or "-", "emoji": False}


def _escaped(text: str, limit: int) -> str:
    """With & < > escaped and no longer than `limit` then; an escape is never cut in two."""
    escaped = text.translate(_ESCAPES)
    if len(escaped) <= limit:
        return escaped
    size, parts = 0, []
    for part in map(_escape, text):
        size += len(part)
        if size > limit - 1:
            break
        parts.append(part)
    return "".join(parts) + "…"


def _escape(character: str) -> str:
    return character.translate(_ESCAPES)


def _wrong(body: bytes) -> str | None:
    return None if body.strip() == b"ok" else "the answer is not Slack's"


def _said(body: bytes) -> str:
    """Its errors are single words such as `invalid_payload`."""
    text = body.strip().decode("ascii", "replace")
    return text if text.replace("_", "").isalpha() and text.isascii() else ""


_READING: Final = Reading(_wrong, _said)
