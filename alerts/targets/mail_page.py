"""The HTML part of an e-mail: tables, and styles within elements, as mail programs want them. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from alerts.notice import Notice, TellingTurn
from alerts.targets.text import is_link, links, status_line, subject, turn_line
from monitor.multiplicity import PAGE

_RED, _AMBER, _GREEN, _GREY = "#b42318", "#b54708", "#067647", "#5c6a75"
_FONT: Final = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_WRAP: Final = "overflow-wrap:anywhere;word-break:break-word"


def page(notices: Sequence[Notice], picture: str | None) -> str:
    """A whole page.

    Parameters
    ----------
    notices : harmless (alerts.targets.text).
    picture : content id of the trace's picture, where there is one.
    """
    body = _whole(notices[0], picture) if len(notices) == 1 else "".join(map(_among_others, notices))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(subject(notices))}</title></head>"
        f'<body style="margin:0;padding:12px;background:#f3f5f7;color:#1f2a33;{_FONT};font-size:15px;line-height:1.45">'
        '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" '
        'style="max-width:660px;margin:0 auto;background:#ffffff;border:1px solid #dde3e8;border-radius:6px;'
        'table-layout:fixed">'
        f"{body}</table></body></html>\n"
    )


def _whole(notice: Notice, picture: str | None) -> str:
    rows = [_head(notice), _row(_text(notice.reason))]
    if notice.figures:
        rows.append(_row(_figures(notice)))
    if links(notice):
        rows.append(_row(_leads(notice)))
    if picture is not None:
        style = "width:100%;height:auto;border:0"
        rows.append(_row(f'<img src="cid:{picture}" width="600" alt="S of the last days" style="{style}">'))
    if notice.where:
        rows.append(_row(_heading("Likely where") + "".join(map(_text, notice.where))))
    if notice.turns:
        rows.append(_row(_heading("Telling turns") + "".join(map(_turn, notice.turns))))
    if notice.guarantee:
        rows.append(_row(_small(f"False alarms: {notice.guarantee}")))
    rows.append(_row(_small(f"Alert {notice.id}" + (f" on {notice.series}" if notice.series else ""))))
    return "".join(rows)


def _among_others(notice: Notice) -> str:
    return _head(notice) + (_row(_leads(notice)) if links(notice) else "")


def _head(notice: Notice) -> str:
    colour = {"resolved": _GREEN, "acknowledged": _GREY}.get(notice.status, _RED if notice.severity == PAGE else _AMBER)
    return (
        f'<tr><td style="padding:14px 18px 14px 12px;border-left:6px solid {colour};border-bottom:1px solid #eef1f4">'
        f'<div style="color:{colour};font-size:13px;font-weight:600;{_WRAP}">{escape(status_line(notice))}</div>'
        f'<div style="font-size:18px;font-weight:600;margin-top:4px;{_WRAP}">{_arrows(notice.title)}</div></td></tr>'
    )


def _arrows(text: str) -> str:
    """With arrows that no line end cuts in two."""
    return escape(text).replace(" -&gt; ", " &rarr; ")


def _row(content: str) -> str:
    return f'<tr><td style="padding:8px 18px">{content}</td></tr>'


def _text(text: str) -> str:
    return f'<p style="margin:2px 0;{_WRAP}">{escape(text)}</p>'


def _heading(text: str) -> str:
    return f'<div style="font-weight:600;margin:4px 0">{escape(text)}</div>'


def _small(text: str) -> str:
    return f'<div style="color:{_GREY};font-size:13px;{_WRAP}">{escape(text)}</div>'


def _figures(notice: Notice) -> str:
    name = f"padding:2px 14px 2px 0;min-width:84px;color:{_GREY};vertical-align:top;{_WRAP}"
    known, unknown = f"padding:2px 0;{_WRAP}", f"padding:2px 0;{_WRAP};color:{_GREY}"
    rows = "".join(
        f'<tr><td style="{name}">{escape(f.name)}</td>'
        f'<td style="{known if f.known else unknown}">{escape(f.text)}</td></tr>'
        for f in notice.figures
    )
    return f'<table role="presentation" cellpadding="0" cellspacing="0">{rows}</table>'


def _turn(turn: TellingTurn) -> str:
    excerpts = "".join(
        f'<div style="margin:2px 0 0 10px;padding-left:8px;border-left:2px solid #dde3e8;{_WRAP}">'
        f'<span style="color:{_GREY}">{what}:</span> {escape(text)}</div>'
        for what, text in (("asked", turn.request), ("answered", turn.answer))
        if text is not None
    )
    return f'<div style="margin:6px 0;font-size:14px;{_WRAP}">{escape(turn_line(turn))}{excerpts}</div>'


def _leads(notice: Notice) -> str:
    shown = (
        f'<a href="{escape(url)}" style="color:#0b5394;font-weight:600">{name}</a>'
        if is_link(url)
        else f"{name}: {escape(url)}"
        for name, url in links(notice)
    )
    return " &nbsp; ".join(shown)
